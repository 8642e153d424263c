//! The entries at hand, bounded; those that are not used again go first.
//!
//! quick_cache rather than moka: a look-up marks the entry and writes no log of reads, which makes a warm request 1 us cheaper (of 28), and it takes
//! in new keys when it is full. Whether a token may be used is decided by our clock on every use (rule 10 of the design); the timetable removes
//! what has died.

use std::sync::Arc;

use quick_cache::sync;
use quick_cache::{Lifecycle, UnitWeighter};

use super::entry::Entry;
use super::grant::Keep;
use super::restart::Records;
use super::timetable::Plan;
use crate::secret::{BuildAlreadyHashed, KeyedHash};
use crate::telemetry::metrics::Metrics;

pub(super) struct Cache {
    entries: sync::Cache<KeyedHash, Arc<Entry>, UnitWeighter, BuildAlreadyHashed, Departures>,
    departures: Departures,
}

/// Why an entry left, as the metrics say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    Expired,
    Invalidated,
}

/// From here on, requests gain more from several locks than a bound to the last entry is worth.
const WORTH_SHARDS: u64 = 8192;

impl Cache {
    pub(super) fn new(max_tokens: u64, records: Arc<Records>, metrics: Arc<Metrics>) -> Self {
        let departures = Departures { records, metrics };
        // What is expected in it decides how many shards there are. A shard has only its part of the whole, so in a small cache chance would fill one
        // long before the others: it gets one shard.
        let expected = if max_tokens < WORTH_SHARDS { 1 } else { usize::try_from(max_tokens).unwrap_or(usize::MAX) };
        let entries = sync::Cache::with(expected, max_tokens, UnitWeighter, BuildAlreadyHashed::default(), departures.clone());
        Self { entries, departures }
    }

    pub(super) fn get(&self, key: &KeyedHash) -> Option<Arc<Entry>> {
        self.entries.get(key)
    }

    pub(super) fn insert(&self, entry: Arc<Entry>) {
        self.entries.insert(entry.key, entry);
    }

    /// Removes this very entry, not one that has taken its place. `false` where it was gone already.
    pub(super) fn remove(&self, entry: &Arc<Entry>, cause: Cause) -> bool {
        let removed = self.entries.remove_if(&entry.key, |held| Arc::ptr_eq(held, entry)).is_some();
        if removed {
            self.departures.metrics.eviction(match cause {
                Cause::Expired => "expired",
                Cause::Invalidated => "invalidated",
            });
            self.departures.depart(entry);
        }
        removed
    }

    /// All entries, as of some time during the call. Walks the whole cache: not for the request path.
    pub(super) fn all(&self) -> impl Iterator<Item = Arc<Entry>> + '_ {
        self.entries.iter().map(|(_, entry)| entry)
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

/// Hears of entries that had to go for others.
#[derive(Clone)]
struct Departures {
    records: Arc<Records>,
    metrics: Arc<Metrics>,
}

impl Departures {
    /// Nothing is planned for an entry that is gone, and no restart brings it back.
    fn depart(&self, entry: &Arc<Entry>) {
        entry.agenda().gone = true;
        self.records.forget(entry.key);
        entry.grant.service.plan(Plan::Forget(Arc::clone(entry)));
    }
}

impl Lifecycle<KeyedHash, Arc<Entry>> for Departures {
    type RequestState = ();

    /// bearerd's own tokens never go: there are as many as the configuration says.
    fn is_pinned(&self, _: &KeyedHash, entry: &Arc<Entry>) -> bool {
        entry.grant.keep == Keep::Always
    }

    fn on_evict(&self, (): &mut (), _: KeyedHash, entry: Arc<Entry>) {
        self.metrics.eviction("size");
        self.depart(&entry);
    }
}
