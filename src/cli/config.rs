//! `bearerd config`: what can be configured, what is, and a file to begin with.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Subcommand, ValueEnum};

use super::Format;
use super::configured::loaded;
use crate::config;

/// Arguments of `bearerd config`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  bearerd config init inbound > bearerd.yaml\n  bearerd config show -c bearerd.yaml\n  bearerd config schema > bearerd.schema.json"
)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the JSON Schema of the configuration, for editors: with a first line `# yaml-language-server: $schema=bearerd.schema.json` they complete and
    /// check as you type.
    #[command(after_help = "Example:\n  bearerd config schema > bearerd.schema.json")]
    Schema,
    /// Print every value of a configuration, defaults too, and where each comes from. Secrets stay out.
    #[command(after_help = "Example:\n  bearerd config show -c bearerd.yaml | grep -v '# default'")]
    Show {
        /// The configuration file.
        #[arg(short, long, value_name = "FILE", default_value = "bearerd.yaml")]
        config: PathBuf,
        /// The form of what is printed.
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
    },
    /// Print a commented configuration to begin with.
    #[command(after_help = "Example:\n  bearerd config init inbound > bearerd.yaml && bearerd check -c bearerd.yaml")]
    Init {
        /// How bearerd will stand.
        #[arg(value_enum, default_value_t = Stance::Inbound)]
        stance: Stance,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Stance {
    /// In front of an app, whose callers bring API keys.
    Inbound,
    /// Beside an app that calls a protected platform; the key is bearerd's own.
    Outbound,
    /// Behind a proxy that is already there, which asks bearerd.
    Decision,
}

impl Stance {
    const fn starter(self) -> &'static str {
        match self {
            Self::Inbound => include_str!("../../examples/inbound.yaml"),
            Self::Outbound => include_str!("../../examples/outbound-own-key.yaml"),
            Self::Decision => include_str!("../../examples/decision.yaml"),
        }
    }
}

impl Args {
    /// Prints what is wanted.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let text = match self.command {
            Command::Schema => format!("{}\n", serde_json::to_string_pretty(&config::schema())?),
            Command::Show { config, format } => match loaded(&config) {
                Err(code) => return Ok(code),
                Ok(loaded) => match format {
                    Format::Text => loaded.resolved.to_yaml()?,
                    Format::Json => format!("{}\n", serde_json::to_string_pretty(&loaded.resolved)?),
                },
            },
            Command::Init { stance } => {
                format!(
                    "# yaml-language-server: $schema=bearerd.schema.json\n# (`bearerd config schema > bearerd.schema.json` makes that file)\n\n{}",
                    stance.starter()
                )
            }
        };
        io::stdout().write_all(text.as_bytes())?;
        Ok(ExitCode::SUCCESS)
    }
}
