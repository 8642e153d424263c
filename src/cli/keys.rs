//! `bearerd keys`: API keys for the embedded token service.

use std::io::Read as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::Format;
use crate::clock::{Clock, Timestamp};
use crate::config::units;
use crate::issuer::api_key::{self, ApiKey, DEFAULT_TENANT, KeyHash};
use crate::issuer::grants::Grants;
use crate::issuer::keys_file::{self, change};

/// Arguments of `bearerd keys`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  bearerd keys new --name alice --scopes GDS.READ --keys-file keys.yaml\n  bearerd keys list --keys-file keys.yaml\n  bearerd keys revoke alice --keys-file keys.yaml"
)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make an API key: it is printed once, on standard output, and only its hash is kept.
    New(New),
    /// Print the hash of a key that you have already, read from standard input: for an entry of the keys file.
    #[command(after_help = "Example:\n  bearerd keys hash < alice.key")]
    Hash,
    /// List the keys of a file: what each may do and whether it is good. Never a key or its hash.
    List(List),
    /// Revoke a key: no more tokens from it, and those that it has die at the token service.
    Revoke(Revoke),
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  bearerd keys list --keys-file keys.yaml --format json")]
struct List {
    /// The keys file.
    #[arg(long)]
    keys_file: PathBuf,
    /// How the list is written.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  bearerd keys revoke alice --keys-file keys.yaml")]
struct Revoke {
    /// The key's name.
    name: String,
    /// The keys file.
    #[arg(long)]
    keys_file: PathBuf,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  bearerd keys new --name alice --scopes GDS.READ,GDS.WRITE --keys-file keys.yaml > alice.key")]
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
            Command::Hash => hash(),
            Command::List(list) => list.run(),
            Command::Revoke(revoke) => revoke.run(),
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
                change::add(path, &entry)?;
                eprintln!("added `{}` to {}; the key is shown this once:", entry.name, path.display());
            }
            None => eprint!("put this under `keys:` in the keys file; the key is shown this once:\n\n{}\n", keys_file::render(&entry, 2)),
        }
        println!("{}", key.expose());
        Ok(ExitCode::SUCCESS)
    }
}

/// The longest key that is read.
const MAX_KEY: u64 = 4096;

fn hash() -> anyhow::Result<ExitCode> {
    let mut text = Zeroizing::new(String::new());
    std::io::stdin().lock().take(MAX_KEY).read_to_string(&mut text).context("the key is read from standard input, as text")?;
    let key = text.trim();
    anyhow::ensure!(!key.is_empty(), "there is no key on standard input: `bearerd keys hash < FILE`");
    anyhow::ensure!(
        key.bytes().all(|byte| byte.is_ascii_graphic() && byte != b','),
        "a key is one line of visible ASCII without blanks and commas"
    );
    println!("{}", KeyHash::of(key));
    Ok(ExitCode::SUCCESS)
}

impl List {
    fn run(self) -> anyhow::Result<ExitCode> {
        let keys = keys_file::read(&self.keys_file)?;
        let now = Clock::system().now();
        let state = |key: &ApiKey| match key {
            key if key.revoked => "revoked",
            key if key.is_over(now) => "expired",
            _ => "good",
        };
        match self.format {
            Format::Json => {
                let shown = |key: &ApiKey| {
                    json!({
                        "name": key.name, "subject": key.subject, "tenant": key.tenant, "workgroup": key.workgroup, "scopes": key.grants.scopes,
                        "acl": key.grants.acl, "mem": key.grants.mem, "expires": key.expires.map(keys_file::end_text), "state": state(key),
                    })
                };
                println!("{}", serde_json::to_string_pretty(&keys.iter().map(shown).collect::<Vec<_>>())?);
            }
            Format::Text => {
                let or_none = |text: String| if text.is_empty() { "-".to_owned() } else { text };
                let row = |key: &ApiKey| {
                    let expires = or_none(key.expires.map(keys_file::end_text).unwrap_or_default());
                    [
                        key.name.clone(),
                        state(key).to_owned(),
                        key.subject.clone(),
                        key.tenant.clone(),
                        expires,
                        or_none(key.grants.scopes.join(",")),
                    ]
                };
                let head = ["NAME", "STATE", "SUBJECT", "TENANT", "EXPIRES", "SCOPES"].map(str::to_owned);
                table(&std::iter::once(head).chain(keys.iter().map(row)).collect::<Vec<_>>());
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Columns as wide as what is in them.
fn table<const N: usize>(rows: &[[String; N]]) {
    let widths: [usize; N] = std::array::from_fn(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
    for row in rows {
        let line: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        println!("{}", line.join("  ").trim_end());
    }
}

impl Revoke {
    fn run(self) -> anyhow::Result<ExitCode> {
        let shown = self.keys_file.display();
        if change::revoke(&self.keys_file, &self.name)? {
            eprintln!("revoked `{}` in {shown}; a token service that follows the file knows within a second", self.name);
        } else {
            eprintln!("`{}` was revoked in {shown} already", self.name);
        }
        Ok(ExitCode::SUCCESS)
    }
}
