//! Cross-checks: what is wrong between keys that are each well-formed.

mod addresses;
mod credentials;
mod headers;
mod listeners;
mod operation;
mod policy;
mod routes;
mod services;
mod sinks;
mod upstreams;

use super::Config;
use super::diagnostic::{Diagnostic, Findings};
use super::place::KeyPath;
use super::positions::Positions;

/// Takes what the cross-checks find, and gives each its place.
pub struct Report<'a> {
    positions: &'a Positions,
    /// The keys that are known to be wrong already.
    wrong: &'a [String],
    mistakes: Findings<'a>,
    warnings: Findings<'a>,
    lapsed: Findings<'a>,
}

impl<'a> Report<'a> {
    /// An empty report. Nothing is said about keys in or under which one of `wrong` lies: the reason may well be that one.
    pub const fn new(positions: &'a Positions, wrong: &'a [String], file: &'a str, text: &'a str) -> Self {
        Self {
            positions,
            wrong,
            mistakes: Findings::new(file, text),
            warnings: Findings::new(file, text),
            lapsed: Findings::new(file, text),
        }
    }

    /// Reports a mistake in the value of a key.
    pub fn mistake(&mut self, path: &KeyPath, message: impl Into<String>, help: impl Into<Option<String>>) {
        if !self.is_wrong_already(path) {
            self.mistakes.add(self.positions.value(path), path, message, help);
        }
    }

    /// Reports a mistake in the key itself.
    pub fn mistaken_key(&mut self, path: &KeyPath, message: impl Into<String>, help: impl Into<Option<String>>) {
        if !self.is_wrong_already(path) {
            self.mistakes.add(self.positions.key(path), path, message, help);
        }
    }

    /// Reports what works, and is likely not meant.
    pub fn warning(&mut self, path: &KeyPath, message: impl Into<String>, help: impl Into<Option<String>>) {
        self.warnings.add(self.positions.value(path), path, message, help);
    }

    /// Reports what was right once, or will be: time alone made the difference.
    pub fn lapse(&mut self, path: &KeyPath, message: impl Into<String>, help: impl Into<Option<String>>) {
        self.lapsed.add(self.positions.value(path), path, message, help);
    }

    fn is_wrong_already(&self, path: &KeyPath) -> bool {
        self.wrong.iter().any(|key| path.contains(key))
    }

    /// The names in a section, for checks of what refers to it; `None` where the section is wrong as a whole.
    pub fn names(&self, section: &KeyPath) -> Option<Vec<&'a str>> {
        let is_wrong = self.wrong.iter().any(|key| key == section.as_str());
        (!is_wrong).then(|| self.positions.names(section))
    }

    /// The places.
    pub const fn positions(&self) -> &'a Positions {
        self.positions
    }

    /// Mistakes, warnings, and what has lapsed.
    pub fn finish(self) -> (Vec<Diagnostic>, Vec<Diagnostic>, Vec<Diagnostic>) {
        (self.mistakes.sorted(), self.warnings.sorted(), self.lapsed.sorted())
    }
}

/// Runs all cross-checks.
pub fn validate(config: &Config, report: &mut Report<'_>) {
    addresses::check(config, report);
    listeners::check(config, report);
    operation::check(config, report);
    upstreams::check(config, report);
    services::check(config, report);
    routes::check(config, report);
    sinks::check(config, report);
}

/// The path of a top-level key.
fn section(name: &str) -> KeyPath {
    KeyPath::default().key(name)
}

/// Warns of a revocation that a crash could lose.
fn lasting(wanted: bool, path: &KeyPath, report: &mut Report<'_>) {
    if wanted && !report.positions().has(&section("cache").key("ledger")) {
        let help = "add `cache: { ledger: { path: ..., key_files: [...] } }` to keep it across restarts";
        report.warning(path, "a revocation that is pending when bearerd ends is lost", help.to_owned());
    }
}

/// Reports a duration that is shorter than makes sense.
fn at_least(report: &mut Report<'_>, path: &KeyPath, duration: std::time::Duration, least: std::time::Duration) {
    if duration < least {
        let what = path.as_str().rsplit('.').next().unwrap_or_default();
        report.mistake(path, format!("`{what}` is too short"), format!("write at least `{}`", humantime::format_duration(least)));
    }
}
