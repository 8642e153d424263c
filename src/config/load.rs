//! From text to a checked configuration: parse, override, expand, check, read, cross-check, look at files.

use std::path::Path;
use std::{fs, io};

use serde::Deserialize;

use super::diagnostic::{Diagnostic, Findings, about_file};
use super::document;
use super::environment::{self, Environment};
use super::place::KeyPath;
use super::positions::Positions;
use super::route::Route;
use super::schema::Schema;
use super::validate::{Report, validate};
use super::{Config, check, files};

/// A configuration that holds.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration. Every route has a name, every path is usable from where the process runs.
    pub config: Config,
    /// What works, and is likely not meant.
    pub warnings: Vec<Diagnostic>,
}

/// Why there is no configuration. A process that was given it ends with exit code 78.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file itself cannot be read: name another, or make it readable.
    #[error("{file}: cannot read the configuration: {source}")]
    Unreadable {
        /// The file, as it was named.
        file: String,
        /// What the system says.
        source: io::Error,
    },
    /// The operator must mend what is written. All mistakes that could be found at once, in the order of the file.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n\n"))]
    Mistakes(Vec<Diagnostic>),
}

impl Error {
    /// The mistakes one by one, for output that is not meant for people.
    pub fn diagnostics(&self) -> Vec<Diagnostic> {
        match self {
            Self::Unreadable { file, source } => vec![about_file(file, format!("cannot read the configuration: {source}"), None)],
            Self::Mistakes(mistakes) => mistakes.clone(),
        }
    }
}

/// Loads a file, with the environment of this process. Relative paths in it start at its folder.
///
/// # Errors
/// When it cannot be read, or holds mistakes.
pub fn load(path: &Path) -> Result<Loaded, Error> {
    let file = path.display().to_string();
    let text = fs::read_to_string(path).map_err(|source| Error::Unreadable { file: file.clone(), source })?;
    let folder = path.parent().unwrap_or(Path::new(""));
    from_text(&text, &file, &environment::of_process(), folder)
}

/// Loads a text under the name `file`. Relative paths in it start at `folder`.
///
/// # Errors
/// When it holds mistakes.
pub fn from_text(text: &str, file: &str, environment: &Environment, folder: &Path) -> Result<Loaded, Error> {
    let mut findings = Findings::new(file, text);
    let Some(mut root) = document::parse(text, &mut findings) else { return Err(Error::Mistakes(findings.sorted())) };
    document::take_nothing_as_empty(&mut root);
    let schema = Schema::of_config();
    environment::override_values(&mut root, schema.root(), environment, &mut findings);
    environment::expand(&mut root, environment, &KeyPath::default(), &mut findings);
    let positions = Positions::of(&root);
    let label = positions.key(&KeyPath::default()).clone();
    let checked = check::check(&root, schema.root(), &label, &KeyPath::default(), &mut findings);

    let wrong: Vec<String> = findings.keys().map(str::to_owned).collect();
    let mut mistakes = findings.sorted();
    let sections_are_known = !wrong.iter().any(|key| !key.contains(['.', '[']));
    let Some(value) = checked.filter(|_| sections_are_known) else { return Err(Error::Mistakes(mistakes)) };
    // What serde says may quote values, and those may be secrets.
    let Ok(mut config) = Config::deserialize(value) else {
        mistakes.extend(mistakes.is_empty().then(|| about_file(file, "the configuration cannot be read, although it fits its schema".to_owned(), None)));
        return Err(Error::Mistakes(mistakes));
    };
    let mut report = Report::new(&positions, &wrong, file, text);
    validate(&config, &mut report);
    files::resolve(&mut config, folder, &mut report);
    let (found, warnings) = report.finish();
    mistakes.extend(found);
    if !mistakes.is_empty() {
        mistakes.sort_by_key(|mistake| (mistake.variable.is_some(), mistake.line, mistake.column));
        return Err(Error::Mistakes(mistakes));
    }
    for (index, route) in config.routes.iter_mut().enumerate() {
        route.name.get_or_insert_with(|| Route::default_name(index));
    }
    Ok(Loaded { config, warnings })
}
