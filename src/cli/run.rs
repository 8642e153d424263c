//! `bearerd run`: the proxy.

use std::path::PathBuf;
use std::process::ExitCode;

use tracing::Level;

use super::signals::stop_on_signals;
use super::{BAD_CONFIGURATION, FAILURE};
use crate::app::{self, Sockets, Stop};
use crate::clock::Clock;
use crate::config::{self, operation};
use crate::telemetry::logs::{self, Form};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The configuration file.
    #[arg(short, long, value_name = "FILE", default_value = "bearerd.yaml")]
    config: PathBuf,
}

impl Args {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let loaded = match config::load(&self.config) {
            Ok(loaded) => loaded,
            Err(error) => {
                eprintln!("{error}");
                return Ok(ExitCode::from(BAD_CONFIGURATION));
            }
        };
        let config = loaded.config;
        let _guard = logs::set_up(level(config.logging.level), form(config.logging.format))?;
        for warning in &loaded.warnings {
            tracing::warn!("{warning}");
        }
        let stop = stop_on_signals(Stop::Drain)?;
        let outcome = Sockets::bind(&config).and_then(|sockets| {
            let addresses = sockets.addresses()?;
            tracing::info!(
                version = env!("CARGO_PKG_VERSION"),
                callers = ?addresses.callers,
                admin = %addresses.admin,
                metrics = %addresses.metrics,
                routes = config.routes.len(),
                workers = config.workers.count(),
                "listening"
            );
            app::run(&config, sockets, &Clock::system(), stop)
        });
        Ok(match outcome {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                tracing::error!("{error}");
                ExitCode::from(if error.is_configuration() { BAD_CONFIGURATION } else { FAILURE })
            }
        })
    }
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
