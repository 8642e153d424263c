//! The command line: a file a subcommand. Each returns the exit code that scripts rely on.

mod check;
mod completions;
mod config;
mod configured;
mod core_dumps;
mod demo;
mod doctor;
mod explain;
mod inject;
mod keys;
mod man;
mod probe;
mod run;
mod signals;
mod token_service;
mod wait;
mod webhook;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Exit code for a runtime failure (usage errors are clap's 2).
pub const FAILURE: u8 = 1;
/// Exit code for a dependency that is not there (`EX_UNAVAILABLE` of sysexits.h).
pub const UNAVAILABLE: u8 = 69;
/// Exit code for a bad configuration (`EX_CONFIG` of sysexits.h).
pub const BAD_CONFIGURATION: u8 = 78;

/// How a result is written.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Format {
    /// For people.
    Text,
    /// For programs: JSON on standard output.
    Json,
}

/// A reverse-proxy auth sidecar: API keys in, short-lived Bearer tokens out.
#[derive(Debug, Parser)]
#[command(
    name = "bearerd",
    version,
    about,
    after_help = "Examples:\n  bearerd demo                                      everything at once, nothing to configure\n  \
                  bearerd config init inbound > bearerd.yaml        a file to begin with\n  \
                  bearerd check -c bearerd.yaml && bearerd run -c bearerd.yaml"
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the proxy.
    Run(run::Args),
    /// Check a configuration offline: parse, validate, load every file that it names.
    Check(check::Args),
    /// Ask what a configuration depends on: names, servers, token services, key sets; one line each.
    Doctor(doctor::Args),
    /// Explain what would become of a request, and why. Offline: nothing is called.
    Explain(explain::Args),
    /// The configuration itself: its JSON Schema, its values and their origins, a file to begin with.
    Config(config::Args),
    /// Make API keys for the embedded token service.
    Keys(keys::Args),
    /// Run the embedded token service on its own.
    TokenService(token_service::Args),
    /// Run everything at once on loopback: token service, app, proxy. Nothing to configure.
    Demo(demo::Args),
    /// Put the sidecar into Kubernetes manifests whose pods ask for it.
    Inject(inject::Args),
    /// Do the same for pods as they are admitted: a mutating admission webhook.
    Webhook(webhook::Args),
    /// Ask a bearerd whether it is alive, started or ready: for images without another program that could.
    Probe(probe::Args),
    /// Wait until a bearerd is ready.
    Wait(wait::Args),
    /// Print what completes commands in a shell.
    Completions(completions::Args),
    /// Write the manual pages.
    Man(man::Args),
}

impl Cli {
    /// Carries out the command.
    ///
    /// # Errors
    /// What a person should read before the process ends with [`FAILURE`].
    pub fn run(self) -> anyhow::Result<ExitCode> {
        if let Err(error) = core_dumps::forbid() {
            eprintln!("bearerd: core dumps could not be turned off ({error}): a crash may write keys and tokens to disk");
        }
        match self.command {
            Command::Run(args) => args.run(),
            Command::Check(args) => args.run(),
            Command::Doctor(args) => args.run(),
            Command::Explain(args) => args.run(),
            Command::Keys(args) => args.run(),
            Command::TokenService(args) => args.run(),
            Command::Demo(args) => args.run(),
            Command::Inject(args) => args.run(),
            Command::Webhook(args) => args.run(),
            Command::Probe(args) => args.run(),
            Command::Wait(args) => args.run(),
            Command::Completions(args) => args.run(),
            Command::Man(args) => args.run(),
            Command::Config(args) => args.run(),
        }
    }
}
