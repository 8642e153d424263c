//! How commands that serve begin: load the configuration, set up the logs that it wants.

use std::path::Path;
use std::process::ExitCode;

use tracing::Level;
use tracing_appender::non_blocking::WorkerGuard;

use super::BAD_CONFIGURATION;
use crate::config::{self, Config, operation};
use crate::telemetry::logs::{self, Form};

/// A loaded configuration, and what must live as long as anything is logged.
pub(super) struct Configured {
    pub(super) config: Config,
    pub(super) _logs: WorkerGuard,
}

/// Loads the file. Its mistakes go to standard error as they are; then the inner error is the exit code.
///
/// # Errors
/// The outer one where logging cannot be set up.
pub(super) fn configured(path: &Path) -> anyhow::Result<Result<Configured, ExitCode>> {
    let loaded = match config::load(path) {
        Ok(loaded) => loaded,
        Err(error) => {
            eprintln!("{error}");
            return Ok(Err(ExitCode::from(BAD_CONFIGURATION)));
        }
    };
    let logging = loaded.config.logging;
    let logs = logs::set_up(level(logging.level), form(logging.format))?;
    for warning in loaded.lapsed.iter().chain(&loaded.warnings) {
        tracing::warn!("{warning}");
    }
    Ok(Ok(Configured { config: loaded.config, _logs: logs }))
}

const fn level(level: operation::Level) -> Level {
    match level {
        operation::Level::Error => Level::ERROR,
        operation::Level::Warn => Level::WARN,
        operation::Level::Info => Level::INFO,
        operation::Level::Debug => Level::DEBUG,
        operation::Level::Trace => Level::TRACE,
    }
}

fn form(format: operation::Format) -> Form {
    match format {
        operation::Format::Auto => Form::fitting(),
        operation::Format::Text => Form::Text,
        operation::Format::Json => Form::Json,
    }
}
