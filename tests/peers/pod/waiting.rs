//! Things that are waited for.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub const PATIENCE: Duration = Duration::from_secs(60);

/// Something that is waited for.
#[derive(Default)]
pub struct Shared<T> {
    value: Mutex<T>,
    changed: Condvar,
}

impl<T> Shared<T> {
    /// Also where a test has failed meanwhile: what ends with it looks here.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.value.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn change<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        let result = change(&mut self.lock());
        self.changed.notify_all();
        result
    }

    /// Whether this came to hold in time.
    pub fn within(&self, time: Duration, mut holds: impl FnMut(&T) -> bool) -> bool {
        let waited = self.changed.wait_timeout_while(self.lock(), time, |value| !holds(value));
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    pub fn until(&self, what: &str, holds: impl FnMut(&T) -> bool) {
        assert!(self.within(PATIENCE, holds), "waited in vain: {what}");
    }
}
