//! `bearerd completions`: what completes commands in a shell.

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::CommandFactory as _;
use clap_complete::Shell;

/// Arguments of `bearerd completions`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  bearerd completions bash > /etc/bash_completion.d/bearerd\n  bearerd completions zsh > \"${fpath[1]}/_bearerd\"\n  bearerd completions fish > ~/.config/fish/completions/bearerd.fish"
)]
pub struct Args {
    /// The shell.
    shell: Shell,
}

impl Args {
    /// Prints it.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        // By way of a buffer: the generator panics where it cannot write.
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut super::Cli::command(), "bearerd", &mut script);
        io::stdout().write_all(&script)?;
        Ok(ExitCode::SUCCESS)
    }
}
