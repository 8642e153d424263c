//! `bearerd run`: the proxy.

use std::path::PathBuf;
use std::process::ExitCode;

use super::configured::{Configured, configured};
use super::signals::stop_on_signals;
use super::{BAD_CONFIGURATION, FAILURE};
use crate::app::{self, Sockets, Stop};
use crate::clock::Clock;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The configuration file.
    #[arg(short, long, value_name = "FILE", default_value = "bearerd.yaml")]
    config: PathBuf,
}

impl Args {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let Configured { config, _logs } = match configured(&self.config)? {
            Ok(configured) => configured,
            Err(code) => return Ok(code),
        };
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
