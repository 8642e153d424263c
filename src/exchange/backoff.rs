//! The pause before the next attempt at what failed without a verdict: exponential from a second to a minute, jittered.

use std::time::Duration;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);

/// Failures in a row.
#[derive(Debug, Default)]
pub(super) struct Backoff(u32);

impl Backoff {
    /// One more failure: how long to wait.
    pub(super) fn pause(&mut self) -> Duration {
        let pause = FIRST.saturating_mul(1 << self.0.min(16)).min(LONGEST);
        self.0 = self.0.saturating_add(1);
        pause.mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    /// It worked.
    pub(super) fn reset(&mut self) {
        self.0 = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_minute_and_begin_again() {
        let mut backoff = Backoff::default();
        for most in [1, 2, 4, 8, 16, 32, 60, 60, 60] {
            let pause = backoff.pause();
            assert!(pause <= Duration::from_secs(most) && pause >= Duration::from_secs(most) / 2, "{pause:?} of {most}");
        }
        backoff.reset();
        assert!(backoff.pause() <= FIRST);
    }
}
