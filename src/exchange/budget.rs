//! Bounds on calls to `create_token`: how many at one time, how many a second, how many may wait.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{self, Instant};

/// The queue is full.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

pub(super) struct Budget {
    at_once: Semaphore,
    queued: AtomicUsize,
    queue: usize,
    pace: Pace,
}

impl Budget {
    pub(super) fn new(concurrency: usize, rate: u32, queue: usize) -> Self {
        Self { at_once: Semaphore::new(concurrency), queued: AtomicUsize::new(0), queue, pace: Pace::new(rate) }
    }

    /// A turn to call the token service, held until the permit is dropped. Turns come in order.
    pub(super) async fn acquire(&self) -> Result<SemaphorePermit<'_>, Full> {
        let permit = match self.at_once.try_acquire() {
            Ok(permit) => permit,
            Err(_) => {
                let _place = self.queue_up()?;
                // The semaphore is never closed.
                self.at_once.acquire().await.map_err(|_| Full)?
            }
        };
        self.pace.keep().await;
        Ok(permit)
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
    next: Mutex<Option<Instant>>,
}

impl Pace {
    fn new(rate: u32) -> Self {
        let interval = Duration::from_secs(1) / rate.max(1);
        Self { interval, burst: interval * (rate / 10).max(1), next: Mutex::new(None) }
    }

    async fn keep(&self) {
        let at = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let due = next.map_or(now, |due| due.max(now));
            *next = Some(due + self.interval);
            due.checked_sub(self.burst).filter(|at| *at > now)
        };
        if let Some(at) = at {
            time::sleep_until(at).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[tokio::test]
    async fn past_concurrency_and_queue_there_is_no_turn() {
        let budget = Arc::new(Budget::new(1, 1_000_000, 1));
        let held = budget.acquire().await.unwrap();
        let waiting = tokio::spawn({
            let budget = Arc::clone(&budget);
            async move { budget.acquire().await.map(drop) }
        });
        while budget.queued.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(budget.acquire().await.err(), Some(Full));
        drop(held);
        assert_eq!(waiting.await.unwrap(), Ok(()));
        assert_eq!(budget.queued.load(Ordering::Relaxed), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_rate_holds_over_time() {
        let budget = Budget::new(1, 50, 0);
        let began = Instant::now();
        for _ in 0..500 {
            drop(budget.acquire().await.unwrap());
        }
        let took = began.elapsed();
        assert!((Duration::from_millis(9_800)..=Duration::from_secs(10)).contains(&took), "{took:?}");
    }
}
