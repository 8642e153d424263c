//! `bearerd keys`: API keys for the embedded token service.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use serde_json::{Map, Value};

use crate::clock::{Clock, Timestamp};
use crate::config::units;
use crate::issuer::api_key::{self, ApiKey, DEFAULT_TENANT};
use crate::issuer::grants::Grants;
use crate::issuer::keys_file::{self, add::add};

/// Arguments of `bearerd keys`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make an API key: it is printed once, on standard output, and only its hash is kept.
    New(New),
}

#[derive(Debug, clap::Args)]
struct New {
    /// The key's name, also the user of `Basic user:pass`.
    #[arg(long, value_parser = keys_file::parse_name)]
    name: String,
    /// `sub` of its tokens; the name unless given.
    #[arg(long, value_parser = keys_file::parse_text)]
    subject: Option<String>,
    /// Scopes of its tokens, parted by commas.
    #[arg(long, value_delimiter = ',', value_parser = keys_file::parse_text)]
    scopes: Vec<String>,
    /// Access control list of its tokens, parted by commas.
    #[arg(long, value_delimiter = ',', value_parser = keys_file::parse_text)]
    acl: Vec<String>,
    /// Memberships of its tokens, parted by commas, as `cid:1,cid:2`.
    #[arg(long, value_delimiter = ',', value_parser = keys_file::parse_text)]
    mem: Vec<String>,
    /// The tenant that its tokens name.
    #[arg(long, value_parser = keys_file::parse_name, default_value = DEFAULT_TENANT)]
    tenant: String,
    /// The only workgroup of its tokens; the caller's choice unless given.
    #[arg(long, value_parser = keys_file::parse_text)]
    workgroup: Option<String>,
    /// When it ends: a span from now, as `90d`, or a date, as `2030-12-31` or `2030-12-31T23:59:59Z`.
    #[arg(long, value_parser = parse_expires)]
    expires: Option<Timestamp>,
    /// The file to add it to, made where there is none; without it the entry is printed on standard error.
    #[arg(long)]
    keys_file: Option<PathBuf>,
}

fn parse_expires(text: &str) -> Result<Timestamp, String> {
    let now = Clock::system().now();
    let end = keys_file::parse_end(text).or_else(|_| units::Duration::parse(text).map(|span| now.plus(span)));
    let end =
        end.map_err(|_| format!("`{text}` is no time: write a span, as `90d`, or a date, as `2030-12-31` or `2030-12-31T23:59:59Z`"))?;
    if end <= now { Err(format!("`{text}` is over already")) } else { Ok(end) }
}

impl Args {
    /// Carries out the command.
    ///
    /// # Errors
    /// When the key cannot be made or added; nothing is printed on standard output then.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::New(new) => new.run(),
        }
    }
}

impl New {
    fn run(self) -> anyhow::Result<ExitCode> {
        let key = api_key::generate().ok().context("the system gives no randomness")?;
        let mem = self.mem.into_iter().map(|name| (name, Value::Object(Map::new()))).collect();
        let mut entry = ApiKey::new(&self.name, &key, Grants { scopes: self.scopes, acl: self.acl, mem });
        entry.subject = self.subject.unwrap_or(self.name);
        entry.tenant = self.tenant;
        entry.workgroup = self.workgroup;
        entry.expires = self.expires.map(|end| Timestamp::from_secs(end.as_secs()));
        match &self.keys_file {
            Some(path) => {
                add(path, &entry)?;
                eprintln!("added `{}` to {}; the key is shown this once:", entry.name, path.display());
            }
            None => eprint!("put this under `keys:` in the keys file; the key is shown this once:\n\n{}\n", keys_file::render(&entry, 2)),
        }
        println!("{}", key.expose());
        Ok(ExitCode::SUCCESS)
    }
}
