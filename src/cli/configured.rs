//! How commands that serve begin: load the configuration, set up the logs that it wants.

use std::path::Path;
use std::process::ExitCode;

use super::BAD_CONFIGURATION;
use crate::config::{self, Config, operation};
use crate::telemetry::logs::{self, Form, Logs};

/// A loaded configuration, and what must live as long as anything is logged.
pub(super) struct Configured {
    pub(super) config: Config,
    /// Of the file, from before it was read.
    pub(super) fingerprint: Option<u64>,
    pub(super) logs: Logs,
}

/// Loads the file. Its mistakes go to standard error as they are; then the inner error is the exit code.
///
/// # Errors
/// The outer one where logging cannot be set up.
pub(super) fn configured(path: &Path) -> anyhow::Result<Result<Configured, ExitCode>> {
    let fingerprint = config::fingerprint(path);
    let loaded = match config::load(path) {
        Ok(loaded) => loaded,
        Err(error) => {
            eprintln!("{error}");
            return Ok(Err(ExitCode::from(BAD_CONFIGURATION)));
        }
    };
    let logging = loaded.config.logging;
    let logs = logs::set_up(logging.level.of_log(), form(logging.format))?;
    for warning in loaded.lapsed.iter().chain(&loaded.warnings) {
        tracing::warn!("{warning}");
    }
    Ok(Ok(Configured { config: loaded.config, fingerprint, logs }))
}

fn form(format: operation::Format) -> Form {
    match format {
        operation::Format::Auto => Form::fitting(),
        operation::Format::Text => Form::Text,
        operation::Format::Json => Form::Json,
    }
}
