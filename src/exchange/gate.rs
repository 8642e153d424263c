//! Outages of a token service: a breaker after consecutive failures, and a hold-off for as long as a 429 asks.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus::IntGauge;
use tokio::time::Instant;

use crate::token_service;

/// The hold-off after a 429 that names no time.
const SHORT_HOLD: Duration = Duration::from_secs(1);
/// The longest hold-off that a 429 can ask for: past it, the service is asked again whatever it said.
const LONGEST_HOLD: Duration = Duration::from_secs(3600);

/// Stands before every call to one token service.
pub(super) struct Gate {
    state: Mutex<State>,
    /// 1 while the breaker is open.
    open: IntGauge,
}

struct State {
    /// Consecutive failures that open the breaker.
    failures: u32,
    probe_interval: Duration,
    consecutive: u32,
    /// What failed last.
    cause: String,
    last_probe: Option<Instant>,
    held_until: Option<Instant>,
}

impl State {
    const fn is_open(&self) -> bool {
        self.consecutive >= self.failures
    }
}

/// The service is not to be called now.
#[derive(Debug)]
pub(super) struct Shut {
    /// Why, for the log.
    pub(super) cause: String,
    /// After which a call may pass.
    pub(super) retry_after: Duration,
}

impl Gate {
    pub(super) fn new(failures: u32, probe_interval: Duration, open: IntGauge) -> Self {
        let (cause, last_probe, held_until) = (String::new(), None, None);
        let state = State { failures: failures.max(1), probe_interval, consecutive: 0, cause, last_probe, held_until };
        Self { state: Mutex::new(state), open }
    }

    /// Other bounds from now on; what is known of the service stays.
    pub(super) fn retune(&self, failures: u32, probe_interval: Duration) {
        let mut state = self.lock();
        (state.failures, state.probe_interval) = (failures.max(1), probe_interval);
        self.open.set(i64::from(state.is_open()));
    }

    /// Lets a call pass, or says when one may. While the breaker is open, one call every `probe_interval` passes, whether or not the one before has
    /// ended: it may hang.
    pub(super) fn admit(&self) -> Result<(), Shut> {
        let now = Instant::now();
        let mut state = self.lock();
        if let Some(until) = state.held_until.filter(|until| *until > now) {
            return Err(Shut { cause: "it limits the rate (429), all calls wait".to_owned(), retry_after: until - now });
        }
        if !state.is_open() {
            return Ok(());
        }
        let next = state.last_probe.map_or(now, |probe| probe + state.probe_interval);
        if next > now {
            let cause = format!("{} calls in a row failed, the last one: {}", state.consecutive, state.cause);
            return Err(Shut { cause, retry_after: next - now });
        }
        state.last_probe = Some(now);
        Ok(())
    }

    /// Whether the breaker is open: that was told once, what follows from it need not be.
    pub(super) fn is_open(&self) -> bool {
        self.lock().is_open()
    }

    /// Takes in how a call ended.
    pub(super) fn report(&self, service: &str, error: Option<&token_service::Error>) {
        use token_service::Error::{Denied, Forbidden, Protocol, RateLimited, Rejected, Unavailable};
        let mut state = self.lock();
        match error {
            None | Some(Denied | Forbidden(_) | Rejected(_)) => self.close(&mut state, service),
            Some(RateLimited { retry_after }) => {
                self.close(&mut state, service);
                let until = Instant::now() + retry_after.unwrap_or(SHORT_HOLD).min(LONGEST_HOLD);
                state.held_until = Some(state.held_until.map_or(until, |held| held.max(until)));
            }
            Some(error @ (Unavailable(_) | Protocol(_))) => {
                state.consecutive = state.consecutive.saturating_add(1);
                state.cause = error.to_string();
                if state.consecutive == state.failures {
                    state.last_probe = Some(Instant::now());
                    self.open.set(1);
                    tracing::error!(service, cause = state.cause, "the token service fails; only probes are sent until one succeeds");
                }
            }
        }
    }

    fn close(&self, state: &mut State, service: &str) {
        if state.is_open() {
            self.open.set(0);
            tracing::info!(service, "the token service is back");
        }
        state.consecutive = 0;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use token_service::Error;
    use tokio::time;

    fn gate() -> Gate {
        Gate::new(3, Duration::from_secs(1), IntGauge::new("open", "open").unwrap())
    }

    fn fail(gate: &Gate, times: usize) {
        (0..times).for_each(|_| gate.report("s", Some(&Error::Unavailable("down".to_owned()))));
    }

    #[tokio::test(start_paused = true)]
    async fn past_the_failures_only_probes_pass_until_one_succeeds() {
        let gate = gate();
        fail(&gate, 2);
        gate.report("s", Some(&Error::Denied));
        fail(&gate, 2);
        assert!(gate.admit().is_ok(), "a definite no is an answer: failures are no longer consecutive");
        fail(&gate, 1);
        assert_eq!(gate.open.get(), 1);
        for _ in 0..10 {
            let shut = gate.admit().unwrap_err();
            assert!(shut.cause.contains("down"), "{}", shut.cause);
            time::advance(shut.retry_after).await;
            assert!(gate.admit().is_ok());
            assert!(gate.admit().is_err(), "one probe a second");
            fail(&gate, 1);
        }
        time::advance(Duration::from_secs(1)).await;
        assert!(gate.admit().is_ok());
        gate.report("s", None);
        assert_eq!(gate.open.get(), 0);
        assert!(gate.admit().is_ok() && gate.admit().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn other_bounds_count_for_what_has_failed_already() {
        let gate = gate();
        fail(&gate, 2);
        assert!(!gate.is_open());
        gate.retune(2, Duration::from_secs(1));
        assert!(gate.is_open());
        assert_eq!(gate.open.get(), 1);
        gate.retune(3, Duration::from_secs(1));
        assert!(!gate.is_open());
        assert_eq!(gate.open.get(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_429_holds_all_calls_off_for_as_long_as_it_says() {
        let gate = gate();
        gate.report("s", Some(&Error::RateLimited { retry_after: Some(Duration::from_secs(30)) }));
        gate.report("s", Some(&Error::RateLimited { retry_after: None }));
        assert_eq!(gate.admit().unwrap_err().retry_after, Duration::from_secs(30));
        time::advance(Duration::from_secs(30)).await;
        assert!(gate.admit().is_ok());
        gate.report("s", Some(&Error::RateLimited { retry_after: Some(Duration::from_secs(u64::MAX / 4)) }));
        assert_eq!(gate.admit().unwrap_err().retry_after, LONGEST_HOLD);
    }
}
