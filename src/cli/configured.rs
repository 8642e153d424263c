//! How commands begin: load the configuration; those that serve set up the logs that it wants.

use std::path::Path;
use std::process::ExitCode;

use super::BAD_CONFIGURATION;
use crate::config::{self, Loaded, operation};
use crate::telemetry::logs::{self, Form, Logs};

/// A loaded configuration, and what must live as long as anything is logged.
pub(super) struct Configured {
    pub(super) loaded: Loaded,
    /// Of the file, from before it was read.
    pub(super) fingerprint: Option<u64>,
    pub(super) logs: Logs,
}

/// Loads the file. Its mistakes go to standard error as they are; then the error is the exit code.
pub(super) fn loaded(path: &Path) -> Result<Loaded, ExitCode> {
    config::load(path).map_err(|error| {
        eprintln!("{error}");
        ExitCode::from(BAD_CONFIGURATION)
    })
}

/// The same for what serves: the inner error is the exit code.
///
/// # Errors
/// The outer one where logging cannot be set up.
pub(super) fn configured(path: &Path) -> anyhow::Result<Result<Configured, ExitCode>> {
    let fingerprint = config::fingerprint(path);
    let loaded = match loaded(path) {
        Ok(loaded) => loaded,
        Err(code) => return Ok(Err(code)),
    };
    let logging = loaded.config.logging;
    let logs = logs::set_up(logging.level.of_log(), form(logging.format))?;
    for warning in loaded.lapsed.iter().chain(&loaded.warnings) {
        tracing::warn!("{warning}");
    }
    Ok(Ok(Configured { loaded, fingerprint, logs }))
}

fn form(format: operation::Format) -> Form {
    match format {
        operation::Format::Auto => Form::fitting(),
        operation::Format::Text => Form::Text,
        operation::Format::Json => Form::Json,
    }
}
