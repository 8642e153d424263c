//! `bearerd man`: the manual pages.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::CommandFactory as _;

/// Arguments of `bearerd man`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  bearerd man | man -l -\n  bearerd man --to /usr/local/share/man/man1")]
pub struct Args {
    /// Write a page for each command to this folder; else the first page goes to standard output.
    #[arg(long, value_name = "FOLDER")]
    to: Option<PathBuf>,
}

impl Args {
    /// Prints or writes them.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let command = super::Cli::command();
        match self.to {
            Some(folder) => {
                clap_mangen::generate_to(command, &folder).with_context(|| format!("cannot write manual pages to {}", folder.display()))?;
            }
            None => {
                let mut page = Vec::new();
                clap_mangen::Man::new(command).render(&mut page)?;
                io::stdout().write_all(&page)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
