//! Waiting for what happens, in place of sleeping: a list that grows, and a gate that opens.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;

/// A test that waits for longer than this has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A list that others add to, and that a test can wait on.
#[derive(Clone)]
pub struct Log<T> {
    items: Arc<Mutex<Vec<T>>>,
    length: watch::Sender<usize>,
}

impl<T> Default for Log<T> {
    fn default() -> Self {
        Self { items: Arc::default(), length: watch::Sender::new(0) }
    }
}

impl<T: Clone> Log<T> {
    /// Adds one and wakes who waits.
    pub fn push(&self, item: T) {
        let length = {
            let mut items = self.items.lock().unwrap();
            items.push(item);
            items.len()
        };
        // With the items let go: whoever waits looks at them while it holds the length. Of two at one time, the later count may come first.
        self.length.send_if_modified(|known| {
            let grows = length > *known;
            *known = length.max(*known);
            grows
        });
    }

    /// All so far.
    pub fn all(&self) -> Vec<T> {
        self.items.lock().unwrap().clone()
    }

    /// How many are such.
    pub fn count(&self, such: impl Fn(&T) -> bool) -> usize {
        self.items.lock().unwrap().iter().filter(|item| such(item)).count()
    }

    /// Returns once at least `wanted` are such; panics when that takes a minute.
    pub async fn wait_for(&self, wanted: usize, such: impl Fn(&T) -> bool) {
        let mut length = self.length.subscribe();
        let came = tokio::time::timeout(PATIENCE, length.wait_for(|_| self.count(&such) >= wanted)).await;
        assert!(came.is_ok(), "waited for {wanted}, only {} came", self.count(such));
    }
}

/// Holds up whoever passes until it is opened; stays open then.
#[derive(Clone)]
pub struct Gate(watch::Sender<bool>);

impl Gate {
    /// A closed gate.
    pub fn closed() -> Self {
        Self(watch::Sender::new(false))
    }

    /// Lets all through, now and later.
    pub fn open(&self) {
        self.0.send_replace(true);
    }

    /// Returns once it is open.
    pub async fn passed(&self) {
        let mut open = self.0.subscribe();
        let _ = open.wait_for(|open| *open).await;
    }
}

#[tokio::test]
async fn a_log_wakes_who_waits() {
    let (log, gate) = (Log::default(), Gate::closed());
    let (theirs, their_gate) = (log.clone(), gate.clone());
    tokio::spawn(async move {
        theirs.push(1);
        their_gate.passed().await;
        theirs.push(3);
    });
    log.wait_for(1, |_| true).await;
    assert_eq!(log.count(|item| *item == 3), 0);
    gate.open();
    log.wait_for(1, |item| *item == 3).await;
    assert_eq!(log.all(), [1, 3]);
}
