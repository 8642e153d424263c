//! The ledger's file: what is in it, and what is done with one that cannot be used.

use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, TableDefinition};
use serde::{Deserialize, Serialize};

use super::seal::Keys;
use super::{OpenError, SavedRevocation, SavedToken};
use crate::clock::Timestamp;
use crate::secret::Secret;

type Records = TableDefinition<'static, &'static [u8], &'static [u8]>;

const TOKENS: Records = TableDefinition::new("tokens");
const REVOCATIONS: Records = TableDefinition::new("revocations");
const META: Records = TableDefinition::new("meta");
/// A record that every good key opens.
const CHECK: &[u8] = b"check";
const OWNER_ONLY: u32 = 0o600;
/// Bytes of redb's own cache: the ledger is written far more than it is read.
const CACHE: usize = 4 * 1024 * 1024;

/// The table in a record's context.
#[derive(Clone, Copy)]
enum Table {
    Tokens = 1,
    Revocations = 2,
    Meta = 3,
}

/// A token as it is written. Short names: there may be many.
#[derive(Serialize, Deserialize)]
struct Token<'a> {
    #[serde(borrow)]
    s: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    t: std::borrow::Cow<'a, str>,
    m: i64,
    e: i64,
}

/// A change to the file.
pub(super) enum Change {
    Keep(SavedToken),
    Forget([u8; 32]),
    Promise(SavedRevocation, Vec<[u8; 32]>),
    Done([u8; 32]),
}

/// What was in the file.
#[derive(Default)]
pub(super) struct Found {
    pub(super) tokens: Vec<SavedToken>,
    pub(super) revocations: Vec<SavedRevocation>,
    /// Records that no key opens.
    pub(super) unreadable: usize,
}

pub(super) struct Store {
    path: PathBuf,
    /// None after a failure, until it can be opened again.
    database: Option<Database>,
}

/// Why a file is of no use as it is.
enum Unusable {
    /// Not a ledger, or no longer one.
    Corrupt(String),
    Failed(OpenError),
}

impl From<redb::Error> for Unusable {
    fn from(error: redb::Error) -> Self {
        match error {
            redb::Error::Io(cause) if cause.kind() != io::ErrorKind::InvalidData && cause.kind() != io::ErrorKind::UnexpectedEof => {
                Self::Failed(OpenError::Io { cause })
            }
            redb::Error::DatabaseAlreadyOpen => Self::Failed(OpenError::Busy),
            error => Self::Corrupt(error.to_string()),
        }
    }
}

impl Store {
    /// Opens the file, or begins one, and reads what is in it. A file that is no ledger is put aside; the second value says where.
    pub(super) fn open(path: &Path, keys: &Keys, now: Timestamp) -> Result<(Self, Found, Option<PathBuf>), OpenError> {
        let first = Self::load(path, keys, now);
        let why = match first {
            Ok((store, found)) => return Ok((store, found, None)),
            Err(Unusable::Failed(error)) => return Err(error),
            Err(Unusable::Corrupt(why)) => why,
        };
        let aside = put_aside(path, now).map_err(|cause| OpenError::Io { cause })?;
        tracing::warn!(
            path = %path.display(), aside = %aside.display(), why,
            "the ledger cannot be read and is kept under another name: tokens are minted anew, and revocations that were pending may be lost"
        );
        match Self::load(path, keys, now) {
            Ok((store, found)) => Ok((store, found, Some(aside))),
            Err(Unusable::Failed(error)) => Err(error),
            Err(Unusable::Corrupt(why)) => Err(OpenError::Io { cause: io::Error::other(why) }),
        }
    }

    /// As a failure leaves it.
    #[cfg(test)]
    pub(super) fn lose_database(&mut self) -> Option<Database> {
        self.database.take()
    }

    /// redb panics on some files that are broken; nothing of it outlives that.
    fn load(path: &Path, keys: &Keys, now: Timestamp) -> Result<(Self, Found), Unusable> {
        catch_unwind(AssertUnwindSafe(|| {
            let database = database(path)?;
            let found = read(&database, keys, now)?;
            Ok((Self { path: path.to_owned(), database: Some(database) }, found))
        }))
        .unwrap_or_else(|_| Err(Unusable::Corrupt("it is broken in a way that cannot be told".to_owned())))
    }

    /// Carries out changes in one go: all of them are on disk when this returns, or none.
    pub(super) fn write<'c>(&mut self, keys: &Keys, changes: impl Iterator<Item = &'c Change>) -> Result<(), redb::Error> {
        let database = match self.database.take() {
            Some(database) => database,
            None => database(&self.path).map_err(|unusable| match unusable {
                Unusable::Corrupt(why) => redb::Error::Corrupted(why),
                Unusable::Failed(error) => redb::Error::Io(io::Error::other(error)),
            })?,
        };
        // After a failure redb takes no more: then the file is opened anew the next time.
        commit(&database, keys, changes)?;
        self.database = Some(database);
        Ok(())
    }
}

fn database(path: &Path) -> Result<Database, Unusable> {
    let failed = |cause| Unusable::Failed(OpenError::Io { cause });
    let file =
        std::fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(OWNER_ONLY).open(path).map_err(failed)?;
    file.set_permissions(std::fs::Permissions::from_mode(OWNER_ONLY)).map_err(failed)?;
    Database::builder().set_cache_size(CACHE).create_file(file).map_err(|error| match error {
        DatabaseError::Storage(StorageError::Io(cause)) if cause.kind() == io::ErrorKind::InvalidData => {
            Unusable::Corrupt(cause.to_string())
        }
        error => Unusable::from(redb::Error::from(error)),
    })
}

fn put_aside(path: &Path, now: Timestamp) -> io::Result<PathBuf> {
    for number in 0.. {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".unreadable-{}", now.as_secs() + number));
        let aside = PathBuf::from(name);
        if !aside.exists() {
            std::fs::rename(path, &aside)?;
            return Ok(aside);
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

fn read(database: &Database, keys: &Keys, now: Timestamp) -> Result<Found, Unusable> {
    if !check(database, keys)? {
        return Err(Unusable::Failed(OpenError::WrongKey));
    }
    let mut found = Found::default();
    let mut stale = Stale::default();
    let transaction = database.begin_read().map_err(redb::Error::from)?;
    for (table, definition) in [(Table::Tokens, TOKENS), (Table::Revocations, REVOCATIONS)] {
        let records = transaction.open_table(definition).map_err(redb::Error::from)?;
        for record in records.iter().map_err(redb::Error::from)? {
            let (name, value) = record.map_err(redb::Error::from)?;
            let name = name.value();
            let opened = keys.open(table as u8, name, value.value());
            let parsed = opened.as_ref().and_then(|(plain, newest)| Some((serde_json::from_slice::<Token<'_>>(plain).ok()?, *newest)));
            let (Some((token, newest)), Ok(name)) = (parsed, <[u8; 32]>::try_from(name)) else {
                found.unreadable += 1;
                stale.drop.push((table, name.to_vec()));
                continue;
            };
            let until = Timestamp::from_millis(token.e);
            if until <= now {
                stale.drop.push((table, name.to_vec()));
                continue;
            }
            let (service, text) = (token.s.into_owned(), Secret::from(&*token.t));
            let change = match table {
                Table::Tokens => {
                    let saved = SavedToken { name, service, text, minted: Timestamp::from_millis(token.m), expires: until };
                    found.tokens.push(saved.clone());
                    Change::Keep(saved)
                }
                Table::Revocations | Table::Meta => {
                    let saved = SavedRevocation { id: name, service, token: text, until };
                    found.revocations.push(saved.clone());
                    Change::Promise(saved, Vec::new())
                }
            };
            if !newest {
                stale.renew.push(change);
            }
        }
    }
    drop(transaction);
    tidy(database, keys, &stale)?;
    Ok(found)
}

/// What is taken out of the file, and what is written anew under the newest key, so that older ones can be given up.
#[derive(Default)]
struct Stale {
    drop: Vec<(Table, Vec<u8>)>,
    renew: Vec<Change>,
}

fn tidy(database: &Database, keys: &Keys, stale: &Stale) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    for (table, name) in &stale.drop {
        let definition = if matches!(table, Table::Tokens) { TOKENS } else { REVOCATIONS };
        transaction.open_table(definition)?.remove(name.as_slice())?;
    }
    transaction.open_table(META)?.insert(CHECK, keys.seal(Table::Meta as u8, CHECK, CHECK).map_err(io::Error::other)?.as_slice())?;
    transaction.commit()?;
    if stale.renew.is_empty() { Ok(()) } else { commit(database, keys, stale.renew.iter()) }
}

/// Whether one of the keys is the file's. A new file is anybody's.
fn check(database: &Database, keys: &Keys) -> Result<bool, redb::Error> {
    let transaction = database.begin_write()?;
    // Made here, they are there for all that reads.
    transaction.open_table(TOKENS)?;
    transaction.open_table(REVOCATIONS)?;
    let good = transaction.open_table(META)?.get(CHECK)?.is_none_or(|record| keys.open(Table::Meta as u8, CHECK, record.value()).is_some());
    transaction.commit()?;
    Ok(good)
}

fn commit<'c>(database: &Database, keys: &Keys, changes: impl Iterator<Item = &'c Change>) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut tokens = transaction.open_table(TOKENS)?;
        let mut revocations = transaction.open_table(REVOCATIONS)?;
        let seal = |table: Table, name: &[u8; 32], token: &Token<'_>| -> Result<Vec<u8>, redb::Error> {
            let plain = zeroize::Zeroizing::new(serde_json::to_vec(token).map_err(io::Error::other)?);
            Ok(keys.seal(table as u8, name, &plain).map_err(io::Error::other)?)
        };
        for change in changes {
            match change {
                Change::Keep(saved) => {
                    let token = Token {
                        s: (&*saved.service).into(),
                        t: saved.text.expose().into(),
                        m: saved.minted.as_millis(),
                        e: saved.expires.as_millis(),
                    };
                    tokens.insert(saved.name.as_slice(), seal(Table::Tokens, &saved.name, &token)?.as_slice())?;
                }
                Change::Forget(name) => drop(tokens.remove(name.as_slice())?),
                Change::Promise(saved, names) => {
                    let token = Token { s: (&*saved.service).into(), t: saved.token.expose().into(), m: 0, e: saved.until.as_millis() };
                    revocations.insert(saved.id.as_slice(), seal(Table::Revocations, &saved.id, &token)?.as_slice())?;
                    for name in names {
                        tokens.remove(name.as_slice())?;
                    }
                }
                Change::Done(id) => drop(revocations.remove(id.as_slice())?),
            }
        }
    }
    transaction.commit()?;
    Ok(())
}
