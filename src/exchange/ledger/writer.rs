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
const AGAIN: Duration = Duration::from_secs(5);
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

    /// Writes until nobody can order any more and the queue is empty.
    pub(super) fn run(mut self) {
        loop {
            // What is owed is tried again even if nothing more comes.
            let patience = if self.owed.is_empty() { IDLE } else { AGAIN };
            match self.queue.recv_timeout(patience) {
                Ok(first) => {
                    let mut batch = vec![first];
                    self.gather(&mut batch);
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

    /// Waits a moment for more to write at once, unless somebody waits for it.
    fn gather(&self, batch: &mut Vec<Order>) {
        let until = Instant::now() + GATHER;
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
