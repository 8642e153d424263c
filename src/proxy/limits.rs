//! What callers may take of a listener, and who has taken how much of it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ipnet::IpNet;

use crate::telemetry::metrics::{Counted, Metrics};

/// What a caller of one listener may take. 0 connections is no limit.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of a header section.
    pub header_bytes: usize,
    /// Lines of a header section.
    pub headers: usize,
    /// Time for a header section to arrive.
    pub header_timeout: Duration,
    /// Time that a connection may stay idle, and that a caller may send nothing of a body or take none of what is sent.
    pub idle_timeout: Duration,
    /// Connections at one time.
    pub connections: usize,
    /// Connections at one time from one address.
    pub connections_per_peer: usize,
    /// Requests at one time on an HTTP/2 connection (RFC 9113 section 6.5.2 advises no less than 100).
    pub streams: u32,
    /// Bytes of answers that an HTTP/2 connection may hold which its caller has not taken.
    pub unread_bytes: usize,
    /// Peers whose `X-Forwarded-*` headers count.
    pub trusted_peers: Vec<IpNet>,
}

/// The connections of one listener, counted.
#[derive(Debug, Default)]
pub(super) struct Seats {
    taken: AtomicUsize,
    by_peer: Mutex<HashMap<IpAddr, usize>>,
}

impl Seats {
    /// Lets a connection in, or names the limit that it met.
    pub(super) fn admit(self: &Arc<Self>, peer: IpAddr, limits: &Limits, metrics: &Arc<Metrics>) -> Result<Admission, &'static str> {
        if self.taken.fetch_add(1, Ordering::Relaxed) >= limits.connections && limits.connections > 0 {
            self.taken.fetch_sub(1, Ordering::Relaxed);
            return Err("connections");
        }
        let counted = limits.connections_per_peer > 0;
        if counted {
            let mut by_peer = self.by_peer.lock().unwrap_or_else(PoisonError::into_inner);
            let count = by_peer.entry(peer).or_default();
            if *count >= limits.connections_per_peer {
                self.taken.fetch_sub(1, Ordering::Relaxed);
                return Err("connections_per_peer");
            }
            *count += 1;
        }
        let open = Counted::in_gauge(&metrics.connections);
        Ok(Admission { seats: Arc::clone(self), peer: counted.then_some(peer), _open: open })
    }
}

/// A connection's seat, given up on drop.
#[derive(Debug)]
pub struct Admission {
    seats: Arc<Seats>,
    peer: Option<IpAddr>,
    _open: Counted,
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.seats.taken.fetch_sub(1, Ordering::Relaxed);
        let Some(peer) = self.peer else { return };
        let mut by_peer = self.seats.by_peer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = by_peer.get_mut(&peer) {
            *count -= 1;
            if *count == 0 {
                by_peer.remove(&peer);
            }
        }
    }
}
