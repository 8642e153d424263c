//! Wall and monotonic time, injectable: only this clock decides expiry (rule 10 of the design).
//!
//! Wall time is the monotonic clock and an offset that [`Clock::keep_in_step`] brings up to date, so that one reading gives both. Under tokio's
//! paused time both stand still and move with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::time;

/// A point in wall time, in milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From milliseconds since the Unix epoch.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the Unix epoch.
    pub const fn as_millis(self) -> i64 {
        self.0
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

/// One look at the clock. The two times tell steps of the wall clock from time that passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Wall time, which may be stepped either way.
    pub wall: Timestamp,
    /// Time since the clock was made, which only grows.
    pub uptime: Duration,
}

impl Reading {
    /// This reading, `span` later.
    pub fn plus(self, span: Duration) -> Self {
        Self { wall: self.wall.plus(span), uptime: self.uptime.saturating_add(span) }
    }
}

/// How often the offset between monotonic and wall time is looked at: so late a step of the wall clock may be noticed.
const STEP: Duration = Duration::from_secs(1);

/// How far wall time may be off, in milliseconds.
const TOLERANCE: u64 = 20;

/// Reads the time; a test may shift it. Clones share everything.
#[derive(Clone)]
pub struct Clock(Arc<Inner>);

struct Inner {
    origin: Instant,
    /// Wall time at `origin`, in milliseconds, by the last look at the system's clock.
    wall: AtomicI64,
    /// What a test adds to wall time.
    shift: AtomicI64,
    steppable: bool,
}

impl Clock {
    /// The system's own clock.
    pub fn system() -> Self {
        Self::new(false)
    }

    /// The system's clock, to which [`Clock::step`] adds.
    pub fn steppable() -> Self {
        Self::new(true)
    }

    fn new(steppable: bool) -> Self {
        let inner =
            Inner { origin: time::Instant::now().into_std(), wall: AtomicI64::new(system_millis()), shift: AtomicI64::new(0), steppable };
        Self(Arc::new(inner))
    }

    /// Steps the wall time of a [`Clock::steppable`] forward (or back) by `millis`, for all its clones. A system clock stays as it is.
    pub fn step(&self, millis: i64) {
        if self.0.steppable {
            self.0.shift.fetch_add(millis, Ordering::SeqCst);
        }
    }

    /// The wall time now.
    pub fn now(&self) -> Timestamp {
        self.reading().wall
    }

    /// Both times now.
    pub fn reading(&self) -> Reading {
        self.at(time::Instant::now().into_std())
    }

    /// Both times at `instant`, which is of this process and not before the clock was made.
    pub fn at(&self, instant: Instant) -> Reading {
        let Inner { origin, wall, shift, .. } = &*self.0;
        let uptime = instant.saturating_duration_since(*origin);
        let start = wall.load(Ordering::Relaxed).saturating_add(shift.load(Ordering::Relaxed));
        Reading { wall: Timestamp(start).plus(uptime), uptime }
    }

    /// The instant at which [`Reading::uptime`] is `uptime`; for timers. Saturates at a century.
    pub fn instant(&self, uptime: Duration) -> time::Instant {
        const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
        time::Instant::from_std(self.0.origin) + uptime.min(CENTURY)
    }

    /// Follows the system's wall clock for as long as the process lives: without this, a step of it would go unnoticed.
    pub async fn keep_in_step(self) {
        loop {
            time::sleep(STEP).await;
            let seen = system_millis().saturating_sub(millis(self.0.origin.elapsed()));
            // Less is rounding, and a clock that is being slewed: it is caught up with in one go, not a millisecond back and forth.
            if seen.abs_diff(self.0.wall.load(Ordering::Relaxed)) >= TOLERANCE {
                self.0.wall.store(seen, Ordering::Relaxed);
            }
        }
    }
}

fn system_millis() -> i64 {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(span) => millis(span),
        Err(before_epoch) => -millis(before_epoch.duration()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn time_that_passes_moves_both_and_a_step_only_the_wall() {
        let clock = Clock::steppable();
        let before = clock.reading();
        time::advance(Duration::from_secs(5)).await;
        assert_eq!(clock.reading(), before.plus(Duration::from_secs(5)));
        clock.step(-3_600_000);
        let stepped = clock.reading();
        assert_eq!(stepped.uptime, before.uptime + Duration::from_secs(5));
        assert_eq!(stepped.wall.plus(Duration::from_secs(3595)), before.wall);
    }
}
