//! The ledger's file: what is in it, and what is done with one that cannot be used.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use super::record::{self, Table};
use super::seal::Keys;
use super::{OpenError, SavedRevocation, SavedToken};
use crate::clock::Timestamp;
use crate::database_file;

type Records = TableDefinition<'static, &'static [u8], &'static [u8]>;

const TOKENS: Records = TableDefinition::new("tokens");
const REVOCATIONS: Records = TableDefinition::new("revocations");
const META: Records = TableDefinition::new("meta");
/// A record that every good key opens.
const CHECK: &[u8] = b"check";
/// Bytes of redb's own cache: the ledger is written far more than it is read.
const CACHE: usize = 4 * 1024 * 1024;

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

impl From<database_file::Error> for Unusable {
    fn from(error: database_file::Error) -> Self {
        match error {
            database_file::Error::Io(cause) => Self::Failed(OpenError::Io { cause }),
            database_file::Error::Busy => Self::Failed(OpenError::Busy),
            database_file::Error::Corrupt(why) => Self::Corrupt(why),
        }
    }
}

impl From<redb::Error> for Unusable {
    fn from(error: redb::Error) -> Self {
        database_file::Error::from(error).into()
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

    /// For a file that cannot be opened yet: the next write tries.
    pub(super) fn closed(path: &Path) -> Self {
        Self { path: path.to_owned(), database: None }
    }

    /// As a failure leaves it.
    #[cfg(test)]
    pub(super) fn lose_database(&mut self) -> Option<Database> {
        self.database.take()
    }

    /// redb panics on some files that are broken; nothing of it outlives that.
    fn load(path: &Path, keys: &Keys, now: Timestamp) -> Result<(Self, Found), Unusable> {
        catch_unwind(AssertUnwindSafe(|| {
            let database = database_file::open(path, CACHE)?;
            let found = read(&database, keys, now)?;
            Ok((Self { path: path.to_owned(), database: Some(database) }, found))
        }))
        .unwrap_or_else(|_| Err(Unusable::Corrupt("it is broken in a way that cannot be told".to_owned())))
    }

    /// Carries out changes in one go: all of them are on disk when this returns, or none.
    pub(super) fn write<'c>(&mut self, keys: &Keys, changes: impl Iterator<Item = &'c Change>) -> Result<(), redb::Error> {
        let database = match self.database.take() {
            Some(database) => database,
            None => self.reopen(keys)?,
        };
        // After a failure redb takes no more: then the file is opened anew the next time. A file that breaks meanwhile may be a panic.
        let database = catch_unwind(AssertUnwindSafe(move || commit(&database, keys, changes).map(|()| database)))
            .unwrap_or_else(|_| Err(redb::Error::Corrupted("it is broken in a way that cannot be told".to_owned())))?;
        self.database = Some(database);
        Ok(())
    }

    /// The same file again, or a new one where it is gone; never one that is not ours.
    fn reopen(&self, keys: &Keys) -> Result<Database, redb::Error> {
        let open = || {
            let database = database_file::open(&self.path, CACHE)?;
            check(&database, keys)?;
            Ok(database)
        };
        let opened = catch_unwind(AssertUnwindSafe(open)).unwrap_or_else(|_| Err(Unusable::Corrupt("it is broken".to_owned())));
        opened.map_err(|unusable| match unusable {
            Unusable::Corrupt(why) => redb::Error::Corrupted(why),
            Unusable::Failed(OpenError::Io { cause }) => redb::Error::Io(cause),
            Unusable::Failed(error) => redb::Error::Io(io::Error::other(error)),
        })
    }
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
    check(database, keys)?;
    let mut found = Found::default();
    let mut stale = Stale::default();
    let transaction = database.begin_read().map_err(redb::Error::from)?;
    for (table, definition) in [(Table::Tokens, TOKENS), (Table::Revocations, REVOCATIONS)] {
        let records = transaction.open_table(definition).map_err(redb::Error::from)?;
        for record in records.iter().map_err(redb::Error::from)? {
            let (name, value) = record.map_err(redb::Error::from)?;
            let name = name.value();
            let Some((saved, newest)) = record::opened(keys, table, name, value.value()) else {
                found.unreadable += 1;
                stale.drop.push((table, name.to_vec()));
                continue;
            };
            if saved.expires <= now {
                stale.drop.push((table, name.to_vec()));
                continue;
            }
            match table {
                Table::Tokens => {
                    if !newest {
                        stale.renew.push(Change::Keep(saved.clone()));
                    }
                    found.tokens.push(saved);
                }
                Table::Revocations | Table::Meta => {
                    let saved = SavedRevocation::from(saved);
                    if !newest {
                        stale.renew.push(Change::Promise(saved.clone(), Vec::new()));
                    }
                    found.revocations.push(saved);
                }
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
    transaction.commit()?;
    if stale.renew.is_empty() { Ok(()) } else { commit(database, keys, stale.renew.iter()) }
}

/// Sees to it that the file is a ledger, and that one of the keys is its. One without a single table is new, and made a ledger.
fn check(database: &Database, keys: &Keys) -> Result<(), Unusable> {
    let corrupt = |why: &str| Unusable::Corrupt(why.to_owned());
    let transaction = database.begin_write().map_err(redb::Error::from)?;
    let is_new = transaction.list_tables().map_err(redb::Error::from)?.next().is_none();
    {
        // Made here, they are there for all that reads.
        transaction.open_table(TOKENS).map_err(redb::Error::from)?;
        transaction.open_table(REVOCATIONS).map_err(redb::Error::from)?;
        let mut meta = transaction.open_table(META).map_err(redb::Error::from)?;
        let sealed = keys.seal(Table::Meta as u8, CHECK, CHECK).map_err(io::Error::other).map_err(redb::Error::from)?;
        let record = meta.get(CHECK).map_err(redb::Error::from)?.map(|record| record.value().to_vec());
        match record {
            None if is_new => {}
            None => return Err(corrupt("it is a database of another program")),
            Some(record) => match keys.claims(&record) {
                Some(true) if keys.open(Table::Meta as u8, CHECK, &record).is_some() => {}
                Some(true) => return Err(corrupt("its first record is damaged")),
                Some(false) => return Err(Unusable::Failed(OpenError::WrongKey)),
                None => return Err(corrupt("it is of a format that this version does not know")),
            },
        }
        // Under the newest key from now on.
        meta.insert(CHECK, sealed.as_slice()).map_err(redb::Error::from)?;
    }
    transaction.commit().map_err(redb::Error::from)?;
    Ok(())
}

fn commit<'c>(database: &Database, keys: &Keys, changes: impl Iterator<Item = &'c Change>) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut tokens = transaction.open_table(TOKENS)?;
        let mut revocations = transaction.open_table(REVOCATIONS)?;
        for change in changes {
            match change {
                Change::Keep(saved) => drop(tokens.insert(saved.name.as_slice(), saved.sealed(keys)?.as_slice())?),
                Change::Forget(name) => drop(tokens.remove(name.as_slice())?),
                Change::Promise(saved, names) => {
                    revocations.insert(saved.id.as_slice(), saved.sealed(keys)?.as_slice())?;
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
