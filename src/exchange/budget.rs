//! Bounds on calls to `create_token`: how many at one time, how many a second, how many may wait.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{self, Instant};

/// The queue is full.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

/// Who asks for a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Priority {
    /// Callers wait for it.
    Caller,
    /// It renews what is in use: it goes first, and a quarter of the budget is kept for it.
    Renewal,
}

pub(super) struct Budget {
    at_once: Arc<Semaphore>,
    /// Callers' part of `at_once`.
    callers: Arc<Semaphore>,
    queued: AtomicUsize,
    queue: usize,
    pace: Pace,
}

/// A turn, held for as long as the call lasts.
pub(super) struct Turn {
    _at_once: OwnedSemaphorePermit,
    _callers: Option<OwnedSemaphorePermit>,
}

impl Budget {
    pub(super) fn new(concurrency: usize, rate: u32, queue: usize) -> Self {
        let reserved = concurrency.div_ceil(4).min(concurrency.saturating_sub(1));
        Self {
            at_once: Arc::new(Semaphore::new(concurrency)),
            callers: Arc::new(Semaphore::new(concurrency - reserved)),
            queued: AtomicUsize::new(0),
            queue,
            pace: Pace::new(rate),
        }
    }

    /// A turn to call the token service. Turns of equal priority come in order.
    pub(super) async fn acquire(&self, priority: Priority) -> Result<Turn, Full> {
        let callers = match priority {
            Priority::Caller => Some(self.callers_turn().await?),
            Priority::Renewal => None,
        };
        // Neither semaphore is ever closed. What waits for its pace holds none of the places that renewals need.
        self.pace.keep(priority).await;
        let at_once = Arc::clone(&self.at_once).acquire_owned().await.map_err(|_| Full)?;
        Ok(Turn { _at_once: at_once, _callers: callers })
    }

    async fn callers_turn(&self) -> Result<OwnedSemaphorePermit, Full> {
        if let Ok(permit) = Arc::clone(&self.callers).try_acquire_owned() {
            return Ok(permit);
        }
        let _place = self.queue_up()?;
        Arc::clone(&self.callers).acquire_owned().await.map_err(|_| Full)
    }

    fn queue_up(&self) -> Result<Place<'_>, Full> {
        if self.queued.fetch_add(1, Ordering::Relaxed) < self.queue {
            return Ok(Place(&self.queued));
        }
        self.queued.fetch_sub(1, Ordering::Relaxed);
        Err(Full)
    }
}

/// A place in the queue, given up on drop.
struct Place<'a>(&'a AtomicUsize);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// At most `rate` calls a second, in bursts of a tenth of that: the generic cell rate algorithm (ITU-T I.371).
struct Pace {
    interval: Duration,
    burst: Duration,
    next: Mutex<Next>,
}

/// When the next call is due: of all, and of those that renew.
#[derive(Default)]
struct Next {
    all: Option<Instant>,
    renewals: Option<Instant>,
}

impl Pace {
    fn new(rate: u32) -> Self {
        let interval = Duration::from_secs(1) / rate.max(1);
        Self { interval, burst: interval * (rate / 10).max(1), next: Mutex::default() }
    }

    async fn keep(&self, priority: Priority) {
        if let Some(at) = self.take_slot(priority) {
            time::sleep_until(at).await;
        }
    }

    /// When the call may be made; none for at once.
    fn take_slot(&self, priority: Priority) -> Option<Instant> {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let due = |next: Option<Instant>| next.map_or(now, |due| due.max(now));
        let all = due(next.all);
        next.all = Some(all + self.interval);
        let early = |due: Instant| due.checked_sub(self.burst).is_none_or(|at| at <= now);
        if priority == Priority::Renewal && early(due(next.renewals)) {
            // Within its quarter a renewal passes all callers that wait; their calls come so much later.
            next.renewals = Some(due(next.renewals) + self.interval * 4);
            return None;
        }
        if early(all) { None } else { all.checked_sub(self.burst) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[tokio::test]
    async fn past_concurrency_and_queue_there_is_no_turn() {
        let budget = Arc::new(Budget::new(1, 1_000_000, 1));
        let held = budget.acquire(Priority::Caller).await.unwrap();
        let waiting = tokio::spawn({
            let budget = Arc::clone(&budget);
            async move { budget.acquire(Priority::Caller).await.map(drop) }
        });
        while budget.queued.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(budget.acquire(Priority::Caller).await.err(), Some(Full));
        drop(held);
        assert_eq!(waiting.await.unwrap(), Ok(()));
        assert_eq!(budget.queued.load(Ordering::Relaxed), 0);
    }

    /// What 500 calls take at 50 a second.
    async fn paced(priority: Priority) -> Duration {
        let budget = Budget::new(1, 50, 0);
        let began = Instant::now();
        for _ in 0..500 {
            drop(budget.acquire(priority).await.unwrap());
        }
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn the_rate_holds_over_time() {
        let took = paced(Priority::Caller).await;
        assert!((Duration::from_millis(9_800)..=Duration::from_secs(10)).contains(&took), "{took:?}");
    }

    /// Those that pass callers within their quarter count too.
    #[tokio::test(start_paused = true)]
    async fn the_rate_holds_for_renewals_alone() {
        let took = paced(Priority::Renewal).await;
        assert!((Duration::from_millis(9_700)..=Duration::from_secs(10)).contains(&took), "{took:?}");
    }

    #[tokio::test]
    async fn callers_leave_a_quarter_to_renewals() {
        let budget = Budget::new(4, 1_000_000, 0);
        let mut held = Vec::new();
        while let Ok(turn) = budget.acquire(Priority::Caller).await {
            held.push(turn);
        }
        assert_eq!(held.len(), 3);
        let renewal = time::timeout(Duration::from_secs(60), budget.acquire(Priority::Renewal)).await.unwrap();
        assert!(renewal.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewal_passes_the_callers_that_wait_for_their_pace() {
        let budget = Arc::new(Budget::new(100, 10, 1000));
        let callers: Vec<_> = (0..60)
            .map(|_| {
                let budget = Arc::clone(&budget);
                tokio::spawn(async move { budget.acquire(Priority::Caller).await.map(drop) })
            })
            .collect();
        tokio::task::yield_now().await;
        let began = Instant::now();
        drop(budget.acquire(Priority::Renewal).await.unwrap());
        assert_eq!(began.elapsed(), Duration::ZERO);
        for caller in callers {
            caller.await.unwrap().unwrap();
        }
        assert!(began.elapsed() >= Duration::from_millis(5_800), "{:?}", began.elapsed());
    }
}
