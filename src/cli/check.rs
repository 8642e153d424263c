//! `bearerd check`: what is wrong with a configuration, before anything runs.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;

use super::{BAD_CONFIGURATION, Format};
use crate::config::{self, Loaded};

/// Arguments of `bearerd check`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  bearerd check -c bearerd.yaml\n  bearerd check -c bearerd.yaml --format json\n\nExit codes: 0 it holds, 78 it has mistakes."
)]
pub struct Args {
    /// The configuration file.
    #[arg(short, long, value_name = "FILE", default_value = "bearerd.yaml")]
    config: PathBuf,
    /// How the result is written.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

impl Args {
    /// Checks, reports, and ends with 0 or [`BAD_CONFIGURATION`].
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let result = config::load(&self.config);
        match self.format {
            Format::Text => self.print_text(&result),
            Format::Json => print_json(&result)?,
        }
        Ok(if result.is_ok_and(|loaded| loaded.lapsed.is_empty()) { ExitCode::SUCCESS } else { ExitCode::from(BAD_CONFIGURATION) })
    }

    fn print_text(&self, result: &Result<Loaded, config::Error>) {
        match result {
            Ok(loaded) => {
                for warning in &loaded.warnings {
                    eprintln!("warning: {warning}");
                }
                for lapsed in &loaded.lapsed {
                    eprintln!("{lapsed}");
                }
                if loaded.lapsed.is_empty() {
                    println!("{}: {}", self.config.display(), summary(&loaded.config));
                }
            }
            Err(error) => eprintln!("{error}"),
        }
    }
}

fn print_json(result: &Result<Loaded, config::Error>) -> anyhow::Result<()> {
    let report = match result {
        Ok(loaded) => json!({ "ok": loaded.lapsed.is_empty(), "diagnostics": loaded.lapsed, "warnings": loaded.warnings }),
        Err(error) => json!({ "ok": false, "diagnostics": error.diagnostics() }),
    };
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}

fn summary(config: &config::Config) -> String {
    let counted = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    format!(
        "ok: {}, {}, {}, {}",
        counted(config.listeners.len(), "listener"),
        counted(config.routes.len(), "route"),
        counted(config.token_services.len(), "token service"),
        counted(config.upstreams.len(), "upstream"),
    )
}
