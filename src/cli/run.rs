//! `bearerd run`: the proxy.

use std::path::PathBuf;
use std::process::ExitCode;

use super::configured::{Configured, configured};
use super::signals::{Signals, signals};
use super::{BAD_CONFIGURATION, FAILURE};
use crate::app::{self, Sockets, Source, Stop};
use crate::clock::Clock;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  bearerd run -c bearerd.yaml\n  BEARERD__LOGGING__LEVEL=debug bearerd run -c bearerd.yaml\n\nIt loads the file again on SIGHUP and when the file changes, and drains on SIGTERM."
)]
pub struct Args {
    /// The configuration file.
    #[arg(short, long, value_name = "FILE", default_value = "bearerd.yaml")]
    config: PathBuf,
}

impl Args {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let Configured { loaded, fingerprint, logs } = match configured(&self.config)? {
            Ok(configured) => configured,
            Err(code) => return Ok(code),
        };
        let Signals { stop, hangups } = signals(Stop::Drain)?;
        let source = Source { file: self.config.clone(), fingerprint, hangups, levels: Some(logs.levels.clone()) };
        let outcome = Sockets::bind(&loaded.config).and_then(|sockets| {
            let addresses = sockets.addresses()?;
            tracing::info!(
                version = env!("CARGO_PKG_VERSION"),
                callers = ?addresses.callers,
                admin = %addresses.admin,
                metrics = %addresses.metrics,
                routes = loaded.config.routes.len(),
                workers = loaded.config.workers.count(),
                "listening"
            );
            app::run(&loaded, sockets, &Clock::system(), stop, Some(source))
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
