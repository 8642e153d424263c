//! The thread that writes the ledger: in batches, and again where the disk failed.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::seal::Keys;
use super::store::{Change, Store};
use super::{Order, QUEUE, Unwritten};
use crate::telemetry::metrics::Metrics;

/// How long tokens may wait to be written, for others to be written with them.
const GATHER: Duration = Duration::from_millis(200);
/// Changes in one transaction.
const BATCH: usize = 4096;
/// The least time between two complaints about the disk.
const COMPLAINT: Duration = Duration::from_secs(60);

/// Whether the disk has no room.
pub(super) fn is_full(cause: &io::Error) -> bool {
    matches!(cause.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// The time until what could not be written is tried again.
pub(super) const AGAIN: Duration = Duration::from_secs(5);
/// The longest wait for an order; any would do.
const IDLE: Duration = Duration::from_secs(3600);

/// The one thread that writes.
pub(super) struct Writer {
    store: Store,
    keys: Keys,
    queue: Receiver<Order>,
    path: PathBuf,
    complained: Option<Instant>,
    /// What could not be written yet, in order; nobody waits for it.
    owed: Vec<Change>,
    metrics: Arc<Metrics>,
}

impl Writer {
    pub(super) fn new(store: Store, keys: Keys, queue: Receiver<Order>, path: &Path, metrics: &Arc<Metrics>) -> Self {
        Self { store, keys, queue, path: path.to_owned(), complained: None, owed: Vec::new(), metrics: Arc::clone(metrics) }
    }

    /// Writes until nobody can order any more and the queue is empty. What is owed is tried `again` after so long even if nothing more comes.
    pub(super) fn run(mut self, again: Duration) {
        loop {
            let patience = if self.owed.is_empty() { IDLE } else { again };
            match self.queue.recv_timeout(patience) {
                Ok(first) => {
                    let mut batch = vec![first];
                    self.gather(&mut batch, GATHER);
                    self.write(batch);
                }
                Err(RecvTimeoutError::Timeout) if self.owed.is_empty() => {}
                Err(RecvTimeoutError::Timeout) => self.write(Vec::new()),
                Err(RecvTimeoutError::Disconnected) if self.owed.is_empty() => return,
                Err(RecvTimeoutError::Disconnected) => return self.write(Vec::new()),
            }
        }
    }

    fn write(&mut self, batch: Vec<Order>) {
        let changes = self.owed.iter().chain(batch.iter().map(|order| &order.change));
        let outcome = self.store.write(&self.keys, changes);
        let outcome = outcome.map_err(|error| self.complain(error, batch.len()));
        if outcome.is_ok() {
            self.owed.clear();
        }
        for order in batch {
            match order.promised {
                // Whoever asked may be gone: then nobody was told that it holds.
                Some(promised) => drop(promised.send(outcome)),
                // What is not taken out would come back after a restart.
                None if outcome.is_err() && self.owed.len() < QUEUE => self.owed.push(order.change),
                None => {}
            }
        }
    }

    /// Waits for so long for more to write at once, unless somebody waits for it.
    fn gather(&self, batch: &mut Vec<Order>, patience: Duration) {
        let until = Instant::now() + patience;
        let mut is_awaited = batch.iter().any(|order| order.promised.is_some());
        while batch.len() < BATCH {
            let wait = if is_awaited { Duration::ZERO } else { until.saturating_duration_since(Instant::now()) };
            match self.queue.recv_timeout(wait) {
                Ok(order) => {
                    is_awaited |= order.promised.is_some();
                    batch.push(order);
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn complain(&mut self, error: redb::Error, lost: usize) -> Unwritten {
        let is_full = matches!(&error, redb::Error::Io(cause) if is_full(cause));
        self.metrics.ledger_error(if is_full { "full" } else { "write" });
        if self.complained.is_none_or(|last| last.elapsed() >= COMPLAINT) {
            self.complained = Some(Instant::now());
            tracing::error!(path = %self.path.display(), %error, changes = lost, "the ledger cannot be written; bearerd goes on without, revocations are refused");
        }
        Unwritten
    }
}

#[cfg(test)]
mod tests {
    use super::super::seal::tests::keys;
    use super::super::{SavedRevocation, SavedToken};
    use super::*;
    use crate::clock::Timestamp;
    use crate::secret::Secret;
    use std::fs;
    use std::sync::mpsc::{SyncSender, sync_channel};
    use std::thread;
    use tempfile::TempDir;
    use tokio::sync::oneshot;

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
    const LATER: Timestamp = Timestamp::from_secs(1_800_003_600);
    const AN_HOUR: Duration = Duration::from_secs(3600);

    /// A writer that is not running, with what orders it, its file and its folder.
    fn writer() -> (Writer, SyncSender<Order>, PathBuf, TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.redb");
        let store = Store::open(&path, &keys(b"a"), NOW).unwrap().0;
        let (orders, queue) = sync_channel(QUEUE);
        let writer = Writer::new(store, keys(b"a"), queue, &path, &Arc::new(Metrics::new().unwrap()));
        (writer, orders, path, folder)
    }

    fn keep(number: u8) -> Order {
        let name = [number; 32];
        let saved = SavedToken { name, service: "default".to_owned(), text: Secret::from("text"), minted: NOW, expires: LATER };
        Order { change: Change::Keep(saved), promised: None }
    }

    fn forget(number: u8) -> Order {
        Order { change: Change::Forget([number; 32]), promised: None }
    }

    fn promise() -> (Order, oneshot::Receiver<Result<(), Unwritten>>) {
        let (promised, written) = oneshot::channel();
        let saved = SavedRevocation { id: [9; 32], service: "default".to_owned(), token: Secret::from("text"), until: LATER };
        (Order { change: Change::Promise(saved, Vec::new()), promised: Some(promised) }, written)
    }

    /// Puts a folder in the file's place, after which nothing can be written; undone by [`mend`].
    fn fail(writer: &mut Writer, path: &Path) {
        drop(writer.store.lose_database());
        fs::rename(path, path.with_extension("gone")).unwrap();
        fs::create_dir(path).unwrap();
    }

    fn mend(path: &Path) {
        fs::remove_dir(path).unwrap();
        fs::rename(path.with_extension("gone"), path).unwrap();
    }

    fn kept(path: &Path) -> Vec<u8> {
        Store::open(path, &keys(b"a"), NOW).unwrap().1.tokens.iter().map(|saved| saved.name[0]).collect()
    }

    /// Waits until the disk has failed so often.
    fn until_failed(metrics: &Metrics, times: u64) {
        let line = format!(r#"bearerd_ledger_errors_total{{kind="write"}} {times}"#);
        while !metrics.render().unwrap().contains(&line) {
            thread::yield_now();
        }
    }

    #[test]
    fn what_is_written_is_owed_no_more_and_what_failed_is_until_there_is_too_much() {
        let (mut writer, _orders, path, _folder) = writer();
        writer.write(vec![keep(1), keep(2)]);
        assert_eq!(writer.owed.len(), 0);
        fail(&mut writer, &path);
        let (order, mut written) = promise();
        writer.write(vec![forget(1), order]);
        assert_eq!(written.try_recv().unwrap(), Err(Unwritten));
        assert_eq!(writer.owed.len(), 1, "a promise that was broken is not kept later");
        writer.write((0..QUEUE).map(|_| forget(1)).collect());
        assert_eq!(writer.owed.len(), QUEUE);
        mend(&path);
        let (order, mut written) = promise();
        writer.write(vec![order]);
        assert_eq!((written.try_recv().unwrap(), writer.owed.len()), (Ok(()), 0));
        drop(writer);
        assert_eq!(kept(&path), [2]);
    }

    #[test]
    fn what_is_owed_is_written_at_the_end_too() {
        let (mut writer, orders, path, _folder) = writer();
        writer.write(vec![keep(1), keep(2)]);
        fail(&mut writer, &path);
        let metrics = Arc::clone(&writer.metrics);
        let running = thread::spawn(move || writer.run(AN_HOUR));
        orders.send(forget(1)).unwrap();
        until_failed(&metrics, 1);
        mend(&path);
        drop(orders);
        running.join().unwrap();
        assert_eq!(kept(&path), [2]);
    }

    #[test]
    fn what_is_owed_is_tried_again_though_nothing_more_comes() {
        let (mut writer, orders, path, _folder) = writer();
        fail(&mut writer, &path);
        let metrics = Arc::clone(&writer.metrics);
        let running = thread::spawn(move || writer.run(Duration::from_millis(1)));
        orders.send(forget(1)).unwrap();
        until_failed(&metrics, 2);
        drop(orders);
        running.join().unwrap();
    }

    #[test]
    fn a_batch_waits_for_more_until_somebody_waits_for_it() {
        let (writer, orders, _path, _folder) = writer();
        let sender = thread::spawn(move || {
            orders.send(keep(2)).unwrap();
            let (order, written) = promise();
            orders.send(order).unwrap();
            (orders, written)
        });
        let mut batch = vec![keep(1)];
        writer.gather(&mut batch, AN_HOUR);
        assert_eq!(batch.len(), 3);
        drop(sender.join().unwrap());
    }

    #[test]
    fn a_batch_has_an_end() {
        let (writer, orders, _path, _folder) = writer();
        (0..=BATCH).for_each(|_| orders.send(keep(1)).unwrap());
        let mut batch = vec![keep(1)];
        writer.gather(&mut batch, AN_HOUR);
        assert_eq!(batch.len(), BATCH);
    }
}
