//! What outlives a restart of the embedded token service: sessions, revocations, and the public halves of signing keys whose tokens still live. No
//! token and no key is in the file: psTokens are kept as their SHA-256, which tells nothing of 256 random bits.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::clock::Timestamp;
use crate::database_file;

type Records = TableDefinition<'static, &'static [u8], &'static [u8]>;

/// Bytes of the file that are kept in memory: it is written far more than it is read.
const CACHE: usize = 1024 * 1024;

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// See to the file, or let go of what is in it.
    #[error("the state file {}: {cause}; where it is damaged, move it away: sessions end, and tokens that were revoked are good again until they expire", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: database_file::Error,
    },
}

/// A kind of record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// By the hash of a psToken.
    Sessions,
    /// By the hash of a token's or session's id.
    Revocations,
    /// By the key's name.
    SigningKeys,
}

impl Table {
    const ALL: [Self; 3] = [Self::Sessions, Self::Revocations, Self::SigningKeys];

    const fn records(self) -> Records {
        match self {
            Self::Sessions => TableDefinition::new("sessions"),
            Self::Revocations => TableDefinition::new("revocations"),
            Self::SigningKeys => TableDefinition::new("signing_keys"),
        }
    }
}

/// A record with its end.
#[derive(Serialize, serde::Deserialize)]
struct Record<V> {
    /// In milliseconds since 1970.
    end: i64,
    value: V,
}

/// The file.
pub struct State {
    path: PathBuf,
    database: Database,
}

impl State {
    /// Opens it, or begins one, and drops what has ended by `now`.
    ///
    /// # Errors
    /// When it cannot be used. It is left as it is.
    pub fn open(path: &Path, now: Timestamp) -> Result<Self, Error> {
        let open = || {
            let state = Self { path: path.to_owned(), database: database_file::open(path, CACHE)? };
            state.drop_ended(now)?;
            Ok(state)
        };
        // redb panics on some files that are broken; nothing of it outlives that.
        let opened = catch_unwind(AssertUnwindSafe(open)).unwrap_or_else(|_| Err(database_file::Error::Corrupt("it is broken".to_owned())));
        opened.map_err(|cause| Error::Unusable { path: path.to_owned(), cause })
    }

    /// All records of a table, with their ends.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn all<V: DeserializeOwned>(&self, table: Table) -> Result<Vec<(Vec<u8>, V, Timestamp)>, Error> {
        self.records(table).map_err(|cause| Error::Unusable { path: self.path.clone(), cause: cause.into() })
    }

    fn records<V: DeserializeOwned>(&self, table: Table) -> Result<Vec<(Vec<u8>, V, Timestamp)>, redb::Error> {
        let transaction = self.database.begin_read()?;
        let records = transaction.open_table(table.records())?;
        let mut all = Vec::new();
        for record in records.iter()? {
            let (name, value) = record?;
            if let Ok(Record { end, value }) = serde_json::from_slice(value.value()) {
                all.push((name.value().to_vec(), value, Timestamp::from_millis(end)));
            }
        }
        Ok(all)
    }

    /// Puts a record in: it is on disk when this returns.
    ///
    /// # Errors
    /// When it could not be written.
    pub fn put(&self, table: Table, name: &[u8], value: &impl Serialize, end: Timestamp) -> Result<(), redb::Error> {
        let text = serde_json::to_vec(&Record { end: end.as_millis(), value }).unwrap_or_default();
        self.write(table, |records| records.insert(name, &*text).map(drop))
    }

    /// Takes out what has ended.
    ///
    /// # Errors
    /// When it could not be written.
    pub fn drop_ended(&self, now: Timestamp) -> Result<(), redb::Error> {
        for table in Table::ALL {
            self.write(table, |records| {
                records.retain(|_, value| {
                    serde_json::from_slice::<Record<serde_json::Value>>(value).is_ok_and(|record| Timestamp::from_millis(record.end) > now)
                })
            })?;
        }
        Ok(())
    }

    fn write(
        &self,
        table: Table,
        change: impl FnOnce(&mut redb::Table<'_, &'static [u8], &'static [u8]>) -> Result<(), redb::StorageError>,
    ) -> Result<(), redb::Error> {
        let transaction = self.database.begin_write()?;
        change(&mut transaction.open_table(table.records())?)?;
        Ok(transaction.commit()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    #[test]
    fn what_is_put_in_is_there_the_next_time_until_it_ends() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.redb");
        let state = State::open(&path, at(0)).unwrap();
        assert!(matches!(State::open(&path, at(0)), Err(Error::Unusable { cause: database_file::Error::Busy, .. })));
        state.put(Table::Sessions, b"a", &"one", at(10)).unwrap();
        state.put(Table::Sessions, b"b", &"two", at(20)).unwrap();
        state.put(Table::Revocations, b"a", &(), at(20)).unwrap();
        drop(state);
        let state = State::open(&path, at(10)).unwrap();
        assert_eq!(state.all::<String>(Table::Sessions).unwrap(), [(b"b".to_vec(), "two".to_owned(), at(20))]);
        assert_eq!(state.all::<()>(Table::Revocations).unwrap().len(), 1);
        assert!(state.all::<String>(Table::SigningKeys).unwrap().is_empty());
    }

    #[test]
    fn a_damaged_file_is_told_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.redb");
        std::fs::write(&path, "not a database at all, but long enough to be looked at").unwrap();
        let error = State::open(&path, at(0)).err().unwrap().to_string();
        assert!(error.contains("state.redb: it cannot be read") && error.contains("move it away"), "{error}");
        assert!(std::fs::read_to_string(&path).unwrap().starts_with("not a database"));
    }
}
