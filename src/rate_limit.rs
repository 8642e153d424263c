//! How often somebody may come: an allowance that comes back evenly (the generic cell rate algorithm). One number for each; no lock, no timer.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::HeaderValue;
use quick_cache::sync::Cache;

use crate::secret::KeyedHash;

/// The limit of one route.
pub struct RateLimit {
    /// Who has an allowance of its own.
    pub by: By,
    requests: u32,
    per: u64,
    /// The time in which one request's worth comes back, in nanoseconds.
    interval: u64,
    epoch: Instant,
    /// When each allowance is whole again, in nanoseconds since `epoch`. Bounded: those that were not used for longest are forgotten, which makes them
    /// whole.
    whole_at: Cache<Who, Arc<AtomicU64>>,
    policy: HeaderValue,
}

/// Who has an allowance of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Each credential.
    Credential,
    /// Each address.
    Peer,
    /// All share one.
    Route,
}

/// Whose allowance it is.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum Who {
    /// A credential's, by its name in the cache.
    Credential(KeyedHash),
    /// An address's.
    Peer(IpAddr),
    /// Everybody's.
    Everybody,
}

impl Who {
    /// The allowance of an address. Whoever has one IPv6 address has the 2^64 beside it too.
    pub fn peer(address: IpAddr) -> Self {
        Self::Peer(match address.to_canonical() {
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
            v4 => v4,
        })
    }
}

/// Where somebody stands after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Requests that would be let through now.
    pub remaining: u64,
    /// Until the allowance is whole.
    pub reset: Duration,
}

impl RateLimit {
    /// `requests` in `per`, for at most `max_entries` at one time.
    pub fn new(requests: u32, per: Duration, by: By, max_entries: usize) -> Self {
        let requests = requests.max(1);
        let per = nanos(per).max(u64::from(requests));
        let policy = format!("\"bearerd\";q={requests};w={}", per.div_ceil(1_000_000_000));
        Self {
            by,
            requests,
            per,
            interval: per / u64::from(requests),
            epoch: Instant::now(),
            whole_at: Cache::new(max_entries.max(1)),
            policy: HeaderValue::try_from(policy).unwrap_or_else(|_| HeaderValue::from_static("")),
        }
    }

    /// Takes one request's worth at `now`.
    ///
    /// # Errors
    /// The time after which there is one again.
    pub fn take(&self, who: Who, now: Instant) -> Result<Standing, Duration> {
        let now = nanos(now.saturating_duration_since(self.epoch));
        let cell = self.whole_at.get_or_insert_with(&who, || Ok::<_, Infallible>(Arc::default())).unwrap_or_else(|never| match never {});
        let mut whole_at = cell.load(Ordering::Relaxed);
        loop {
            let after = whole_at.max(now) + self.interval;
            let debt = after - now;
            if debt > self.per {
                return Err(Duration::from_nanos(debt - self.per));
            }
            match cell.compare_exchange_weak(whole_at, after, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(Standing { remaining: (self.per - debt) / self.interval, reset: Duration::from_nanos(debt) }),
                Err(other) => whole_at = other,
            }
        }
    }

    /// The headers of draft-ietf-httpapi-ratelimit-headers that tell a caller of it.
    pub fn headers(&self, standing: Standing) -> [(&'static str, HeaderValue); 2] {
        let Standing { remaining, reset } = standing;
        let seconds = reset.as_secs() + u64::from(reset.subsec_nanos() > 0);
        let told = HeaderValue::try_from(format!("\"bearerd\";r={};t={seconds}", remaining.min(u64::from(self.requests))));
        [("RateLimit-Policy", self.policy.clone()), ("RateLimit", told.unwrap_or_else(|_| HeaderValue::from_static("")))]
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX / 4)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_allowance_may_be_used_at_once_and_comes_back_evenly() {
        let limit = RateLimit::new(10, SECOND, By::Route, 10);
        let start = limit.epoch + SECOND;
        for left in (0..10).rev() {
            assert_eq!(limit.take(Who::Everybody, start).unwrap().remaining, left);
        }
        assert_eq!(limit.take(Who::Everybody, start), Err(SECOND / 10));
        assert!(limit.take(Who::Everybody, start + SECOND / 10).is_ok());
        assert!(limit.take(Who::Everybody, start + SECOND / 10).is_err());
        let standing = limit.take(Who::Everybody, start + 2 * SECOND).unwrap();
        assert_eq!(standing, Standing { remaining: 9, reset: SECOND / 10 });
        let [(_, policy), (_, told)] = limit.headers(standing);
        assert_eq!((policy.to_str().unwrap(), told.to_str().unwrap()), ("\"bearerd\";q=10;w=1", "\"bearerd\";r=9;t=1"));
    }

    #[test]
    fn each_has_its_own_and_their_number_is_bounded() {
        let limit = RateLimit::new(1, SECOND, By::Peer, 100);
        let peer = |n: u32| Who::peer(IpAddr::from(n.to_be_bytes()));
        let now = limit.epoch + SECOND;
        assert!(limit.take(peer(1), now).is_ok() && limit.take(peer(2), now).is_ok() && limit.take(peer(1), now).is_err());
        for n in 0..10_000 {
            let _ = limit.take(peer(n), now);
        }
        assert!(limit.whole_at.len() <= 100);
    }

    #[test]
    fn an_ipv6_network_is_one_peer_and_a_mapped_address_is_itself() {
        let who = |text: &str| Who::peer(text.parse().unwrap());
        assert!(who("2001:db8::1") == who("2001:db8::ffff:1") && who("2001:db8::1") != who("2001:db8:0:1::1"));
        assert!(who("::ffff:10.0.0.1") == who("10.0.0.1"));
    }

    proptest! {
        #[test]
        fn in_no_time_do_more_come_through_than_the_limit_says(requests in 1u32..20, steps in proptest::collection::vec(0u64..400, 1..200)) {
            let limit = RateLimit::new(requests, SECOND, By::Route, 1);
            let mut at = limit.epoch + SECOND;
            let mut through: Vec<Instant> = Vec::new();
            for step in steps {
                at += Duration::from_millis(step);
                if limit.take(Who::Everybody, at).is_ok() { through.push(at); }
            }
            for (first, begin) in through.iter().enumerate() {
                let window = through[first..].iter().filter(|came| **came < *begin + SECOND).count();
                // The allowance, and what comes back meanwhile.
                prop_assert!(window <= 2 * requests as usize);
            }
            let span = at.duration_since(limit.epoch).as_secs_f64();
            prop_assert!(through.len() as f64 <= f64::from(requests) * (1.0 + span));
        }
    }
}
