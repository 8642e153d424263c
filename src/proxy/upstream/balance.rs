//! Which of an upstream's addresses is asked. Those that have failed this very request come last, those that do badly before them.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use super::server::Peer;

/// Which of several servers is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balance {
    /// Each in its turn.
    RoundRobin,
    /// Any.
    Random,
    /// The same one for the same key.
    Consistent,
}

/// What picks among servers.
#[derive(Clone, Copy)]
pub struct Choice<'a> {
    /// For [`Balance::Consistent`]: asked only where it counts.
    pub key: &'a dyn Fn() -> u64,
    /// Those that have failed this request.
    pub tried: &'a [SocketAddr],
    /// The time of the request.
    pub at: Instant,
}

/// The address to ask; none where there is none.
pub(super) fn choose<'p>(
    balance: Balance,
    next: &AtomicUsize,
    peers: &'p [Peer],
    Choice { key, tried, at }: Choice<'_>,
) -> Option<&'p Peer> {
    let count = peers.len();
    if balance == Balance::Consistent {
        // Rendezvous hashing: who has the highest number for this key. The rest keep theirs when one is gone.
        let key = key();
        return peers.iter().max_by_key(|peer| (peer.rank(tried, at), mix(key ^ peer.hash)));
    }
    let start = match balance {
        Balance::Random => fastrand::usize(..count.max(1)),
        _ => next.fetch_add(1, Ordering::Relaxed),
    };
    let in_turn = (0..count).filter_map(|step| peers.get((start.wrapping_add(step)) % count));
    // The first of the best rank.
    in_turn.reduce(|best, other| if other.rank(tried, at) > best.rank(tried, at) { other } else { best })
}

/// Spreads a number over all bits (the finaliser of MurmurHash3).
const fn mix(mut number: u64) -> u64 {
    number = (number ^ (number >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    number = (number ^ (number >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    number ^ (number >> 33)
}

#[cfg(test)]
mod tests {
    use super::super::{HostPolicy, Manner, Protocol, Timeouts, Upstream};
    use super::*;
    use crate::proxy::upstream::Ejection;
    use std::sync::Arc;
    use std::time::Duration;

    fn upstream(balance: Balance, servers: usize) -> Upstream {
        let servers: Vec<String> = (1..=servers).map(|last| format!("127.0.0.{last}:80")).collect();
        let second = Duration::from_secs(1);
        let manner = Manner {
            host: HostPolicy::Preserve,
            timeouts: Timeouts { connect: second, read: second, write: second, idle: second },
            protocol: Protocol::Http1,
            tls: None,
            balance,
            health_check: None,
            ejection: Ejection { failures: 1, period: second },
            dns_refresh: second,
            header_bytes: 1024,
        };
        Upstream::new("u", &servers, manner).unwrap()
    }

    fn pick(upstream: &Upstream, key: u64, tried: &[SocketAddr], at: Instant) -> usize {
        upstream.pick(Choice { key: &|| key, tried, at }).unwrap().place
    }

    #[test]
    fn turns_pass_over_who_fails_and_come_to_all() {
        let upstream = upstream(Balance::RoundRobin, 3);
        let at = Instant::now();
        let mut places: Vec<usize> = (0..6).map(|_| pick(&upstream, 0, &[], at)).collect();
        places.sort_unstable();
        assert_eq!(places, [0, 0, 1, 1, 2, 2]);
        let health = Arc::clone(&upstream.peers.load()[1].health);
        assert!(health.failed(upstream.ejection(), at));
        assert!((0..6).all(|_| pick(&upstream, 0, &[], at) != 1));
        // One that has failed this very request is worse than one that failed others.
        let tried = [upstream.peers.load()[0].health.address(), upstream.peers.load()[2].health.address()];
        assert!((0..6).all(|_| pick(&upstream, 0, &tried, at) == 1));
        // Where all do badly, all are asked.
        for peer in upstream.peers.load().iter() {
            peer.health.failed(upstream.ejection(), at);
        }
        let mut places: Vec<usize> = (0..3).map(|_| pick(&upstream, 0, &[], at)).collect();
        places.sort_unstable();
        assert_eq!(places, [0, 1, 2]);
    }

    #[test]
    fn a_key_keeps_its_server_and_only_those_of_one_that_is_gone_move() {
        let upstream = upstream(Balance::Consistent, 4);
        let at = Instant::now();
        let keys = (0..1000_u64).map(|key| mix(key + 1));
        let before: Vec<usize> = keys.clone().map(|key| pick(&upstream, key, &[], at)).collect();
        assert_eq!(before, keys.clone().map(|key| pick(&upstream, key, &[], at)).collect::<Vec<_>>());
        for place in 0..4 {
            let share = before.iter().filter(|picked| **picked == place).count();
            assert!((180..=320).contains(&share), "server {place} has {share} of 1000");
        }
        upstream.peers.load()[2].health.failed(upstream.ejection(), at);
        for (key, before) in keys.zip(before) {
            let now = pick(&upstream, key, &[], at);
            assert!(if before == 2 { now != 2 } else { now == before });
        }
    }
}
