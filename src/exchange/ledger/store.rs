//! The ledger's file: what is in it, and what is done with one that cannot be used.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
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
            let database = database(&self.path)?;
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

fn database(path: &Path) -> Result<Database, Unusable> {
    let failed = |cause| Unusable::Failed(OpenError::Io { cause });
    let file =
        std::fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(OWNER_ONLY).open(path).map_err(failed)?;
    file.set_permissions(std::fs::Permissions::from_mode(OWNER_ONLY)).map_err(failed)?;
    let was_whole = match file.try_lock() {
        Ok(()) => distrust(&file)?,
        Err(std::fs::TryLockError::WouldBlock) => return Err(Unusable::Failed(OpenError::Busy)),
        Err(std::fs::TryLockError::Error(cause)) => return Err(failed(cause)),
    };
    // Its second step comes only where checksums are wrong: redb would go back to the commit before, and a revocation that was accepted with it.
    let no_older = move |repair: &mut redb::RepairSession| {
        if was_whole && repair.progress() > 0.0 && repair.progress() < 0.5 {
            repair.abort();
        }
    };
    Database::builder().set_cache_size(CACHE).set_repair_callback(no_older).create_file(file).map_err(|error| match error {
        DatabaseError::Storage(StorageError::Io(cause)) if cause.kind() == io::ErrorKind::InvalidData => {
            Unusable::Corrupt(cause.to_string())
        }
        error => Unusable::from(redb::Error::from(error)),
    })
}

/// The start of a file of redb's format 3: magic, a byte of flags, two of padding, then five numbers of four bytes, little-endian.
const START: usize = 32;
const MAGIC: &[u8] = b"redb\x1a\x0a\xa9\x0d\x0a";
const FLAGS: usize = 9;
const NUMBERS: usize = 12;
/// In the byte of flags: every page is to be checked against its checksum.
const RECOVERY_REQUIRED: u8 = 2;
/// In the byte of flags: the last commit is whole, and pages need no check. Taken out, or redb checks the start of the file alone.
const TWO_PHASE: u8 = 4;
const PAGE: u64 = 4096;

/// redb believes a file that was closed in order: it follows what a flipped bit makes of a page's number, and asks for memory without end. So every file
/// is opened as one that was not, which has its checksums verified, and what no checksum covers is checked here. Tells whether the last commit claims
/// to be whole.
fn distrust(file: &File) -> Result<bool, Unusable> {
    let failed = |cause| Unusable::Failed(OpenError::Io { cause });
    let corrupt = |why: &str| Unusable::Corrupt(why.to_owned());
    let length = file.metadata().map_err(failed)?.len();
    if length == 0 {
        return Ok(false);
    }
    let mut start = [0; START];
    file.read_exact_at(&mut start, 0).map_err(|_| corrupt("it is too short"))?;
    if !start.starts_with(MAGIC) {
        return Err(corrupt("it is no database"));
    }
    let number = |place: usize| {
        let bytes = &start[NUMBERS + 4 * place..][..4];
        u64::from(bytes.iter().rev().fold(0_u32, |number, byte| number << 8 | u32::from(*byte)))
    };
    let [page, header_pages, pages, full_regions, trailing_pages] = std::array::from_fn(number);
    let trailing = if trailing_pages > 0 { header_pages + trailing_pages } else { 0 };
    let needed = (header_pages + pages).checked_mul(full_regions).and_then(|all| all.checked_add(trailing + 1)?.checked_mul(PAGE));
    if page != PAGE || pages == 0 || !pages.is_power_of_two() || header_pages > pages || needed.is_none_or(|needed| needed > length) {
        return Err(corrupt("its first page is damaged"));
    }
    file.write_all_at(&[(start[FLAGS] | RECOVERY_REQUIRED) & !TWO_PHASE], FLAGS as u64).map_err(failed)?;
    Ok(start[FLAGS] & TWO_PHASE != 0)
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
            match table {
                Table::Tokens => {
                    let saved = SavedToken { name, service, text, minted: Timestamp::from_millis(token.m), expires: until };
                    if !newest {
                        stale.renew.push(Change::Keep(saved.clone()));
                    }
                    found.tokens.push(saved);
                }
                Table::Revocations | Table::Meta => {
                    let saved = SavedRevocation { id: name, service, token: text, until };
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
