//! The ledger: tokens and pending revocations in a file, encrypted, so that a restart mints nothing anew and no accepted revocation is lost.
//!
//! One thread writes. Tokens are written behind, in batches; a revocation is on disk when its promise resolves. API keys are never in it: an entry is
//! of use again only when its caller presents the credential, by which it is named.

mod record;
mod seal;
mod store;
mod writer;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};

use tokio::sync::oneshot;

use crate::clock::Timestamp;
use crate::secret::Secret;
use crate::telemetry::metrics::Metrics;

use store::{Change, Store};
use writer::{AGAIN, Writer, is_full};

pub use seal::{Error as KeyError, Keys};

/// Changes that wait for the disk; past it tokens are not written.
const QUEUE: usize = 10_000;

/// A token with what is known of it.
#[derive(Clone, Debug)]
pub struct SavedToken {
    /// The entry's key.
    pub name: [u8; 32],
    /// The token service's name.
    pub service: String,
    /// The token.
    pub text: Secret,
    /// When it was minted.
    pub minted: Timestamp,
    /// When it ends.
    pub expires: Timestamp,
}

/// A revocation that was accepted.
#[derive(Clone, Debug)]
pub struct SavedRevocation {
    /// The token's name.
    pub id: [u8; 32],
    /// The token service's name.
    pub service: String,
    /// The token.
    pub token: Secret,
    /// When it ends by itself.
    pub until: Timestamp,
}

/// What the last process left.
#[derive(Debug, Default)]
pub struct Contents {
    /// Tokens that have not expired.
    pub tokens: Vec<SavedToken>,
    /// Revocations that were not carried out.
    pub revocations: Vec<SavedRevocation>,
}

/// Why the ledger cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Give the key that wrote it, too; or another path, and then tokens are minted anew.
    #[error(
        "none of `key_files` opens it: add the key that it was written with, or name another file; in that one tokens and revocations begin anew"
    )]
    WrongKey,
    /// End the other process, or give each a file of its own.
    #[error("another process has it open: each needs a file of its own")]
    Busy,
    /// See to the folder, its permissions and its space.
    #[error("{cause}")]
    Io {
        /// Why.
        cause: io::Error,
    },
}

/// A revocation that could not be written: it must not be accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the ledger cannot be written")]
pub struct Unwritten;

/// An open ledger.
pub struct Ledger {
    orders: Option<SyncSender<Order>>,
    writer: Option<JoinHandle<()>>,
    metrics: Arc<Metrics>,
}

struct Order {
    change: Change,
    /// Waits for the disk.
    promised: Option<oneshot::Sender<Result<(), Unwritten>>>,
}

impl Ledger {
    /// Opens the file at `path`, or begins one, and reads what is in it.
    ///
    /// # Errors
    /// When it cannot be used; a broken file is no error, it is kept under another name.
    pub fn open(path: &Path, keys: Keys, now: Timestamp, metrics: Arc<Metrics>) -> Result<(Self, Contents), OpenError> {
        let (store, found, aside) = match Store::open(path, &keys, now) {
            Err(OpenError::Io { cause }) if is_full(&cause) => {
                metrics.ledger_error("full");
                tracing::error!(path = %path.display(), "the ledger's disk is full: bearerd starts without what is in it, and tries again");
                (Store::closed(path), store::Found::default(), None)
            }
            opened => opened?,
        };
        if aside.is_some() {
            metrics.ledger_error("lost");
        }
        if found.unreadable > 0 {
            metrics.ledger_error("unreadable");
            tracing::warn!(records = found.unreadable, "records of the ledger open with none of its keys: they are dropped");
        }
        let (orders, queue) = sync_channel(QUEUE);
        let writer = Writer::new(store, keys, queue, path, &metrics);
        let writer = thread::Builder::new()
            .name("bearerd-ledger".to_owned())
            .spawn(move || writer.run(AGAIN))
            .map_err(|cause| OpenError::Io { cause })?;
        let contents = Contents { tokens: found.tokens, revocations: found.revocations };
        Ok((Self { orders: Some(orders), writer: Some(writer), metrics }, contents))
    }

    /// Writes a token, soon.
    pub fn keep(&self, token: SavedToken) {
        self.order(Change::Keep(token));
    }

    /// Takes a token out, soon.
    pub fn forget(&self, name: [u8; 32]) {
        self.order(Change::Forget(name));
    }

    /// A revocation was carried out.
    pub fn done(&self, id: [u8; 32]) {
        self.order(Change::Done(id));
    }

    /// Writes a revocation, and takes the tokens of these names out; both are on disk when this returns.
    ///
    /// # Errors
    /// When they are not.
    pub async fn promise(&self, revocation: SavedRevocation, names: Vec<[u8; 32]>) -> Result<(), Unwritten> {
        let (promised, written) = oneshot::channel();
        self.send(Order { change: Change::Promise(revocation, names), promised: Some(promised) })?;
        written.await.unwrap_or(Err(Unwritten))
    }

    fn order(&self, change: Change) {
        // What is not written is minted anew after a restart; it was counted.
        let _ = self.send(Order { change, promised: None });
    }

    /// Never waits for the disk.
    fn send(&self, order: Order) -> Result<(), Unwritten> {
        let orders = self.orders.as_ref().ok_or(Unwritten)?;
        match orders.try_send(order) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(_)) => {
                self.metrics.ledger_error("behind");
                Err(Unwritten)
            }
            Err(TrySendError::Disconnected(_)) => Err(Unwritten),
        }
    }
}

impl Drop for Ledger {
    /// Writes what is waiting.
    fn drop(&mut self) {
        self.orders = None;
        if let Some(writer) = self.writer.take() {
            // It panicked; there is nothing more to write.
            let _ = writer.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use redb::ReadableTable;
    use seal::tests::keys;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
    const CANARY: &str = "canary-7d1f";

    fn open(path: &Path, seeds: &[u8]) -> Result<(Ledger, Contents), OpenError> {
        Ledger::open(path, keys(seeds), NOW, Arc::new(Metrics::new().unwrap()))
    }

    fn token(number: u8, lives: i64) -> SavedToken {
        let expires = Timestamp::from_secs(NOW.as_secs() + lives);
        SavedToken {
            name: [number; 32],
            service: format!("{CANARY}-service"),
            text: Secret::from(format!("{CANARY}-{number}")),
            minted: NOW,
            expires,
        }
    }

    fn revocation(number: u8) -> SavedRevocation {
        SavedRevocation {
            id: [number; 32],
            service: "default".to_owned(),
            token: Secret::from(CANARY),
            until: Timestamp::from_secs(NOW.as_secs() + 60),
        }
    }

    fn names(contents: &Contents) -> Vec<u8> {
        contents.tokens.iter().map(|token| token.name[0]).collect()
    }

    #[test]
    fn what_was_kept_is_there_after_a_restart_in_its_last_state() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.redb");
        let (ledger, contents) = open(&path, b"a").unwrap();
        assert!(contents.tokens.is_empty() && contents.revocations.is_empty());
        for (number, lives) in [(1, 60), (2, 60), (3, -1)] {
            ledger.keep(token(number, lives));
        }
        ledger.forget([2; 32]);
        assert!(matches!(open(&path, b"a").err(), Some(OpenError::Busy)));
        drop(ledger);
        let (ledger, contents) = open(&path, b"a").unwrap();
        assert_eq!(names(&contents), [1]);
        let saved = &contents.tokens[0];
        assert_eq!((saved.text.expose(), saved.minted, &*saved.service), ("canary-7d1f-1", NOW, "canary-7d1f-service"));
        drop(ledger);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let bytes = fs::read(&path).unwrap();
        assert!(!bytes.windows(CANARY.len()).any(|window| window == CANARY.as_bytes()), "nothing of it can be read");
    }

    #[tokio::test]
    async fn a_promise_is_on_disk_when_it_resolves_and_takes_its_tokens_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let (path, copy) = (folder.path().join("ledger.redb"), folder.path().join("copy.redb"));
        let (ledger, _) = open(&path, b"a").unwrap();
        ledger.keep(token(1, 60));
        ledger.keep(token(2, 60));
        ledger.promise(revocation(9), vec![[1; 32]]).await.unwrap();
        // As a process that is killed now would leave it.
        fs::copy(&path, &copy).unwrap();
        let (after, contents) = open(&copy, b"a").unwrap();
        assert_eq!(names(&contents), [2]);
        assert_eq!(contents.revocations.iter().map(|revocation| revocation.id[0]).collect::<Vec<_>>(), [9]);
        assert_eq!(contents.revocations[0].token.expose(), CANARY);
        after.done([9; 32]);
        drop(after);
        assert!(open(&copy, b"a").unwrap().1.revocations.is_empty());
    }

    #[tokio::test]
    async fn keys_rotate_and_a_wrong_one_opens_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.redb");
        let (ledger, _) = open(&path, b"a").unwrap();
        ledger.keep(token(1, 60));
        ledger.promise(revocation(9), vec![]).await.unwrap();
        drop(ledger);
        assert!(matches!(open(&path, b"x").err(), Some(OpenError::WrongKey)));
        let found = |seeds| open(&path, seeds).map(|(_, contents)| (names(&contents), contents.revocations.len())).unwrap();
        assert_eq!(found(b"ba"), (vec![1], 1), "the older key reads");
        assert_eq!(found(b"b"), (vec![1], 1), "and what it wrote is written anew");
        assert!(matches!(open(&path, b"a").err(), Some(OpenError::WrongKey)));
    }

    #[test]
    fn a_disk_without_room_is_no_broken_file() {
        for (kind, expected) in [(io::ErrorKind::StorageFull, true), (io::ErrorKind::QuotaExceeded, true), (io::ErrorKind::Other, false)] {
            assert_eq!(is_full(&io::Error::from(kind)), expected, "{kind}");
        }
    }

    #[test]
    fn what_is_no_ledger_is_kept_under_another_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.redb");
        for (number, foreign) in
            [b"some text that is not a database at all".to_vec(), vec![0; 8192], Vec::from(*b"redb\x1a\x0a\xa9\x0d\x0a")].iter().enumerate()
        {
            fs::write(&path, foreign).unwrap();
            let metrics = Arc::new(Metrics::new().unwrap());
            let (ledger, contents) = Ledger::open(&path, keys(b"a"), NOW, Arc::clone(&metrics)).unwrap();
            assert!(contents.tokens.is_empty());
            ledger.keep(token(1, 60));
            drop(ledger);
            let aside: Vec<_> = fs::read_dir(folder.path()).unwrap().filter(|entry| entry.as_ref().unwrap().path() != path).collect();
            assert_eq!(aside.len(), number + 1);
            assert!(metrics.render().unwrap().contains(r#"bearerd_ledger_errors_total{kind="lost"} 1"#));
        }
    }

    #[test]
    fn another_programs_database_a_newer_format_and_a_damaged_first_record_are_no_ledger() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.redb");
        const THEIRS: redb::TableDefinition<'_, &str, &str> = redb::TableDefinition::new("theirs");
        const META: redb::TableDefinition<'_, &[u8], &[u8]> = redb::TableDefinition::new("meta");
        let change = |table: &dyn Fn(&redb::WriteTransaction)| {
            let database = redb::Database::create(&path).unwrap();
            let transaction = database.begin_write().unwrap();
            table(&transaction);
            transaction.commit().unwrap();
        };
        let poke = |place: fn(&mut Vec<u8>)| {
            drop(open(&path, b"a").unwrap());
            change(&|transaction| {
                let mut meta = transaction.open_table(META).unwrap();
                let mut record = meta.get(&b"check"[..]).unwrap().unwrap().value().to_vec();
                place(&mut record);
                meta.insert(&b"check"[..], record.as_slice()).unwrap();
            });
        };
        let aside = || fs::read_dir(folder.path()).unwrap().count() - 1;
        change(&|transaction| drop(transaction.open_table(THEIRS).unwrap().insert("k", "v").unwrap()));
        drop(open(&path, b"a").unwrap());
        assert_eq!(aside(), 1);
        poke(|record| record[0] = 2);
        drop(open(&path, b"a").unwrap());
        assert_eq!(aside(), 2);
        poke(|record| *record.last_mut().unwrap() ^= 1);
        drop(open(&path, b"a").unwrap());
        assert_eq!(aside(), 3);
        drop(open(&path, b"a").unwrap());
        assert_eq!(aside(), 3, "and what was begun in its place is one");
    }

    #[tokio::test]
    async fn what_was_forgotten_while_the_disk_failed_does_not_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let (path, gone) = (folder.path().join("ledger.redb"), folder.path().join("gone"));
        let (ledger, _) = open(&path, b"a").unwrap();
        ledger.keep(token(1, 60));
        ledger.keep(token(2, 60));
        drop(ledger);
        let mut store = Store::open(&path, &keys(b"a"), NOW).unwrap().0;
        drop(store.lose_database());
        fs::rename(&path, &gone).unwrap();
        fs::create_dir(&path).unwrap();
        let (orders, queue) = sync_channel(QUEUE);
        let metrics = Arc::new(Metrics::new().unwrap());
        let writer = Writer::new(store, keys(b"a"), queue, &path, &metrics);
        let writer = thread::spawn(move || writer.run(AGAIN));
        let ledger = Ledger { orders: Some(orders), writer: Some(writer), metrics };
        ledger.forget([1; 32]);
        assert_eq!(ledger.promise(revocation(7), vec![[2; 32]]).await, Err(Unwritten));
        fs::remove_dir(&path).unwrap();
        fs::rename(&gone, &path).unwrap();
        ledger.promise(revocation(8), Vec::new()).await.unwrap();
        drop(ledger);
        let contents = open(&path, b"a").unwrap().1;
        assert_eq!(names(&contents), [2]);
        assert_eq!(contents.revocations.len(), 1, "what was not promised is not there");
    }

    #[test]
    fn a_record_that_no_key_opens_is_counted_and_taken_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.redb");
        let (ledger, _) = open(&path, b"a").unwrap();
        (1..=3).for_each(|number| ledger.keep(token(number, 60)));
        drop(ledger);
        const TOKENS: redb::TableDefinition<'_, &[u8], &[u8]> = redb::TableDefinition::new("tokens");
        let database = redb::Database::create(&path).unwrap();
        let transaction = database.begin_write().unwrap();
        transaction.open_table(TOKENS).unwrap().insert(&[2; 32][..], &b"of another time"[..]).unwrap();
        transaction.commit().unwrap();
        drop(database);
        for told in [true, false] {
            let metrics = Arc::new(Metrics::new().unwrap());
            let (_, contents) = Ledger::open(&path, keys(b"a"), NOW, Arc::clone(&metrics)).unwrap();
            assert_eq!(names(&contents), [1, 3]);
            assert_eq!(metrics.render().unwrap().contains(r#"bearerd_ledger_errors_total{kind="unreadable"} 1"#), told);
        }
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_no_full_disk() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(open(&folder.path().join("none/ledger.redb"), b"a").err(), Some(OpenError::Io { .. })));
    }

    #[test]
    fn a_disk_that_fails_is_told_and_then_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let (path, gone) = (folder.path().join("ledger.redb"), folder.path().join("gone"));
        let mut store = Store::open(&path, &keys(b"a"), NOW).unwrap().0;
        store.write(&keys(b"a"), [Change::Keep(token(1, 60))].iter()).unwrap();
        // Its folder goes away while the file must be opened anew.
        drop(store.lose_database());
        fs::create_dir(&gone).unwrap();
        fs::rename(&path, gone.join("ledger.redb")).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(store.write(&keys(b"a"), [Change::Keep(token(2, 60))].iter()).is_err());
        fs::remove_dir(&path).unwrap();
        fs::rename(gone.join("ledger.redb"), &path).unwrap();
        store.write(&keys(b"a"), [Change::Keep(token(3, 60))].iter()).unwrap();
        drop(store);
        assert_eq!(names(&open(&path, b"a").unwrap().1), [1, 3]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn a_broken_file_is_never_a_panic_nor_a_wrong_token(cut in proptest::option::of(0usize..1 << 20), flips in proptest::collection::vec((0u8..3, 0usize..1 << 20, 1u8..), 0..12)) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("ledger.redb");
            let (ledger, _) = open(&path, b"a").unwrap();
            (1..20).for_each(|number| ledger.keep(token(number, 60)));
            drop(ledger);
            let mut bytes = fs::read(&path).unwrap();
            // Where a flip does most: the first page, and the definitions of tables.
            let definitions: Vec<usize> = (0..bytes.len() - 6).filter(|place| bytes[*place..].starts_with(b"tokens")).collect();
            for (kind, place, bits) in flips {
                let place = match kind {
                    0 => place % 4096,
                    1 => (definitions[place % definitions.len()] + place / 64 % 128).saturating_sub(64) % bytes.len(),
                    _ => place % bytes.len(),
                };
                bytes[place] ^= bits;
            }
            bytes.truncate(cut.map_or(bytes.len(), |cut| cut % bytes.len()));
            fs::write(&path, bytes).unwrap();
            if let Ok((_, contents)) = open(&path, b"a") {
                for saved in contents.tokens {
                    prop_assert_eq!(saved.text.expose(), format!("{CANARY}-{}", saved.name[0]));
                }
            }
        }
    }
}
