//! Wall time, injectable: only this clock decides expiry (rule 10 of the design).

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A point in wall time, in milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From milliseconds since the Unix epoch.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// From whole seconds since the Unix epoch, as JWT claims count (RFC 7519 section 2); saturates.
    pub const fn from_secs(secs: i64) -> Self {
        Self(secs.saturating_mul(1000))
    }

    /// Whole seconds since the Unix epoch, rounded down.
    pub const fn as_secs(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// The time from `earlier` to this; zero where `earlier` is the later one.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// This time and `span` more; saturates.
    pub fn plus(self, span: Duration) -> Self {
        Self(self.0.saturating_add(millis(span)))
    }

    /// This time less `span`; saturates.
    pub fn minus(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(millis(span)))
    }
}

fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

/// Reads the wall clock; a test may shift it.
#[derive(Clone, Default)]
pub struct Clock {
    shift: Option<Arc<AtomicI64>>,
}

impl Clock {
    /// The system's own clock.
    pub fn system() -> Self {
        Self::default()
    }

    /// The system's clock, to which [`Clock::step`] adds.
    pub fn steppable() -> Self {
        Self { shift: Some(Arc::default()) }
    }

    /// Steps a [`Clock::steppable`] forward (or back) by `millis`, for all its clones. A system clock stays as it is.
    pub fn step(&self, millis: i64) {
        if let Some(shift) = &self.shift {
            shift.fetch_add(millis, Ordering::SeqCst);
        }
    }

    /// The wall time now.
    pub fn now(&self) -> Timestamp {
        let system = match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(span) => millis(span),
            Err(before_epoch) => -millis(before_epoch.duration()),
        };
        let shift = self.shift.as_ref().map_or(0, |shift| shift.load(Ordering::Relaxed));
        Timestamp(system.saturating_add(shift))
    }
}
