//! `bearerd doctor`: whether what bearerd depends on is there and answers.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use serde_json::json;
use tokio::runtime::Builder;

use super::configured::loaded;
use super::{Format, UNAVAILABLE};
use crate::app::doctor::{Finding, PATIENCE, examine};
use crate::clock::Clock;
use crate::secret::Secret;
use crate::telemetry::logs::has_colours;

/// Arguments of `bearerd doctor`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  bearerd doctor -c bearerd.yaml --api-key-file key\n\nExit codes: 0 all is well, 69 something is not, 78 the configuration has mistakes."
)]
pub struct Args {
    /// The configuration file.
    #[arg(short, long, value_name = "FILE", default_value = "bearerd.yaml")]
    config: PathBuf,
    /// A file with an API key: a token is minted with it at each token service, and revoked again.
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// How the result is written.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

impl Args {
    /// Examines, reports, and ends with 0 or [`UNAVAILABLE`].
    ///
    /// # Errors
    /// When the key cannot be read, or it takes too long.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let loaded = match loaded(&self.config) {
            Ok(loaded) => loaded,
            Err(code) => return Ok(code),
        };
        let key = match &self.api_key_file {
            Some(file) => {
                let text = std::fs::read_to_string(file).with_context(|| format!("cannot read the API key from {}", file.display()))?;
                Some(Secret::from(text.trim()))
            }
            None => None,
        };
        if matches!(self.format, Format::Text) && std::io::stderr().is_terminal() {
            eprintln!("asking what {} names ...", self.config.display());
        }
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let findings =
            runtime.block_on(async { tokio::time::timeout(PATIENCE, examine(&loaded.config, key.as_ref(), &Clock::system())).await });
        let findings = findings.with_context(|| format!("it took longer than {} s", PATIENCE.as_secs()))?;
        let is_well = findings.iter().all(|finding| finding.ok);
        match self.format {
            Format::Text => findings.iter().for_each(print),
            Format::Json => println!("{}", json!({ "ok": is_well, "findings": findings })),
        }
        Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::from(UNAVAILABLE) })
    }
}

fn print(finding: &Finding) {
    let Finding { what, ok, seen, advice } = finding;
    let (mark, colour) = match (ok, advice) {
        (true, None) => ('✓', 32),
        (true, Some(_)) => ('!', 33),
        (false, _) => ('✗', 31),
    };
    let mark = if has_colours(&std::io::stdout()) { format!("\u{1b}[{colour}m{mark}\u{1b}[0m") } else { mark.to_string() };
    let advice = advice.as_ref().map(|advice| format!("; {advice}")).unwrap_or_default();
    println!("{mark} {what}: {seen}{advice}");
}
