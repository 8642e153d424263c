//! Those who call pods, and what they know of them.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Instant;

use super::http::{Answer, Connection};
use super::waiting::Shared;

/// What callers know of the pods.
#[derive(Default)]
pub struct Service {
    pub pods: Vec<Endpoint>,
    next: usize,
    left: bool,
    pub failed: Vec<String>,
}

pub struct Endpoint {
    pub address: SocketAddr,
    pub ready: bool,
    /// The last answer to its readiness probe; 0 where there was none.
    pub said: u16,
    pub first_ready: Option<Instant>,
    pub deleted: bool,
    pub in_flight: usize,
    pub served: usize,
}

impl Endpoint {
    pub const fn at(address: SocketAddr) -> Self {
        Self { address, ready: false, said: 0, first_ready: None, deleted: false, in_flight: 0, served: 0 }
    }

    pub const fn takes_requests(&self) -> bool {
        self.ready && !self.deleted
    }
}

impl Shared<Service> {
    /// Waits for as long as every request is served.
    pub fn served_until(&self, what: &str, mut holds: impl FnMut(&Service) -> bool) {
        self.until(what, |service| !service.failed.is_empty() || holds(service));
        assert_eq!(self.lock().failed, [""; 0], "{what}");
    }

    /// Waits for as many more requests to a pod.
    pub fn serves(&self, pod: usize, more: usize) {
        let before = self.lock().pods[pod].served;
        self.served_until("requests", |service| service.pods[pod].served >= before + more);
    }

    /// Nobody calls the pod any more.
    pub fn have_left(&self, pod: usize) {
        self.served_until("callers have left", |service| !service.pods[pod].takes_requests() && service.pods[pod].in_flight == 0);
    }
}

/// Calls one ready pod after another, without pause, on kept connections, until a request fails.
pub fn call(service: &Shared<Service>, headers: &str) {
    let mut connections = HashMap::new();
    let next = || {
        service.change(|service| {
            let count = service.pods.len();
            let pod = (1..=count).map(|step| (service.next + step) % count).find(|pod| service.pods[*pod].takes_requests());
            if service.left {
                return None;
            }
            let Some(pod) = pod else {
                service.failed.push("no pod is ready".to_owned());
                return None;
            };
            service.next = pod;
            service.pods[pod].in_flight += 1;
            Some((pod, service.pods[pod].address))
        })
    };
    while let Some((pod, address)) = next() {
        let kept = connections.remove(&pod).map_or_else(|| Connection::open(address), Ok);
        let outcome = kept.and_then(|mut connection| Ok((connection.exchange("GET /", headers)?, connection)));
        let failed = match &outcome {
            Ok((Answer { status: 200, .. }, _)) => None,
            Ok((Answer { status, .. }, _)) => Some(format!("pod {pod}: {status}")),
            Err(error) => Some(format!("pod {pod}: {error}")),
        };
        service.change(|service| {
            service.pods[pod].in_flight -= 1;
            service.pods[pod].served += usize::from(failed.is_none());
            service.failed.extend(failed);
        });
        match outcome {
            Ok((Answer { status: 200, closes, .. }, connection)) if !closes => drop(connections.insert(pod, connection)),
            Ok((Answer { status: 200, .. }, _)) => {}
            _ => return,
        }
    }
}

/// Callers leave when it is dropped: where the test fails, too.
pub struct Leaves<'a>(pub &'a Shared<Service>);

impl Drop for Leaves<'_> {
    fn drop(&mut self) {
        self.0.change(|service| service.left = true);
    }
}
