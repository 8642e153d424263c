//! Arguments, command, exit code.

use std::process::ExitCode;

use bearerd::cli::{Cli, FAILURE};
use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("bearerd: {error:#}");
            ExitCode::from(FAILURE)
        }
    }
}
