//! One address of an upstream: how it does, and whether it should be asked.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use pingora::upstreams::peer::HttpPeer;

/// When a server is left alone.
#[derive(Clone, Copy, Debug)]
pub struct Ejection {
    /// Failures in a row; 0 never leaves it alone.
    pub failures: u32,
    /// For how long.
    pub period: Duration,
}

/// How one address does. Kept while the address is one of the upstream's, however often names are resolved.
#[derive(Debug)]
pub struct Health {
    address: SocketAddr,
    /// Requests that failed in a row.
    failures: AtomicU32,
    /// Milliseconds from `start` until which it is left alone; 0 where it is not.
    ejected_until: AtomicU64,
    /// Health checks that failed in a row.
    bad_checks: AtomicU32,
    is_unhealthy: AtomicBool,
    start: Instant,
}

impl Health {
    pub(super) fn new(address: SocketAddr) -> Arc<Self> {
        let (failures, ejected_until) = (AtomicU32::new(0), AtomicU64::new(0));
        Arc::new(Self {
            address,
            failures,
            ejected_until,
            bad_checks: AtomicU32::new(0),
            is_unhealthy: AtomicBool::new(false),
            start: Instant::now(),
        })
    }

    /// The address.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether it should be asked.
    pub fn is_good(&self, at: Instant) -> bool {
        let until = self.ejected_until.load(Ordering::Relaxed);
        !self.is_unhealthy.load(Ordering::Relaxed) && (until == 0 || self.elapsed(at) >= until)
    }

    /// It began to answer a request.
    pub fn answered(&self) {
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
            self.ejected_until.store(0, Ordering::Relaxed);
        }
    }

    /// It did not take a request, or did not begin to answer it. `true` where it is left alone from now on.
    pub fn failed(&self, ejection: Ejection, at: Instant) -> bool {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        if ejection.failures == 0 || failures < ejection.failures {
            return false;
        }
        let was_good = self.is_good(at);
        let period = u64::try_from(ejection.period.as_millis()).unwrap_or(u64::MAX);
        self.ejected_until.store(self.elapsed(at).saturating_add(period).max(1), Ordering::Relaxed);
        was_good
    }

    /// A health check came to an end; `true` where that changed whether it is asked.
    pub fn checked(&self, good: bool, failures: u32) -> bool {
        if good {
            self.bad_checks.store(0, Ordering::Relaxed);
            // It does what it should: what requests saw of it before is over too.
            self.answered();
            return self.is_unhealthy.swap(false, Ordering::Relaxed);
        }
        let bad = self.bad_checks.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        bad >= failures && !self.is_unhealthy.swap(true, Ordering::Relaxed)
    }

    fn elapsed(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.start).as_millis()).unwrap_or(u64::MAX)
    }
}

/// One address to ask.
pub(super) struct Peer {
    /// The place of its server in `servers`.
    pub(super) place: usize,
    pub(super) address: HttpPeer,
    pub(super) health: Arc<Health>,
    /// The address as a number, for [`Balance::Consistent`].
    pub(super) hash: u64,
}

impl Peer {
    pub(super) fn new(place: usize, address: HttpPeer, health: Arc<Health>) -> Self {
        let hash = number(&health.address());
        Self { place, address, health, hash }
    }

    /// Better is greater.
    pub(super) fn rank(&self, tried: &[SocketAddr], at: Instant) -> (bool, bool) {
        (!tried.contains(&self.health.address()), self.health.is_good(at))
    }
}

/// An address as a number that is the same in every process.
fn number(address: &SocketAddr) -> u64 {
    // FNV-1a; whoever ranks by it spreads it.
    address.to_string().bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_left_alone_after_failures_in_a_row_and_for_a_time() {
        let ejection = Ejection { failures: 3, period: Duration::from_secs(10) };
        let health = Health::new(([127, 0, 0, 1], 1).into());
        let at = Instant::now();
        assert!(!health.failed(ejection, at) && !health.failed(ejection, at) && health.is_good(at));
        health.answered();
        assert!(!health.failed(ejection, at) && !health.failed(ejection, at));
        assert!(health.failed(ejection, at), "the third in a row");
        assert!(!health.is_good(at) && !health.is_good(at + Duration::from_secs(9)));
        assert!(health.is_good(at + Duration::from_secs(10)), "it gets another try");
        assert!(health.failed(ejection, at + Duration::from_secs(10)), "and is left alone again at once");
        health.answered();
        assert!(health.is_good(at + Duration::from_secs(11)));
        let never = Ejection { failures: 0, period: Duration::from_secs(10) };
        assert!(!(0..100).any(|_| health.failed(never, at)));
    }

    #[test]
    fn health_checks_take_it_out_and_bring_it_back() {
        let health = Health::new(([127, 0, 0, 1], 1).into());
        let at = Instant::now();
        assert!(!health.checked(false, 2) && health.is_good(at));
        assert!(health.checked(false, 2) && !health.is_good(at));
        assert!(!health.checked(false, 2), "nothing new");
        assert!(health.checked(true, 2) && health.is_good(at));
    }
}
