//! How many servers upstreams have, and how many of them do well: counted whenever somebody looks.

use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntGaugeVec, Opts, Registry};

use super::Upstream;

/// The upstreams that are counted, by the configuration of the moment.
pub type Counted = Arc<ArcSwap<Vec<Arc<Upstream>>>>;

struct Servers {
    upstreams: Counted,
    all: IntGaugeVec,
    good: IntGaugeVec,
}

/// Has these upstreams counted in a registry.
///
/// # Errors
/// Never in practice: the names are fixed.
pub fn register(registry: &Registry, upstreams: Counted) -> Result<(), prometheus::Error> {
    let gauge = |name: &str, help: &str| IntGaugeVec::new(Opts::new(name, help).namespace("bearerd"), &["upstream"]);
    registry.register(Box::new(Servers {
        upstreams,
        all: gauge("upstream_servers", "Addresses of an upstream's servers.")?,
        good: gauge("upstream_servers_good", "Those of them that are asked: neither unhealthy nor left alone.")?,
    }))
}

impl Collector for Servers {
    fn desc(&self) -> Vec<&Desc> {
        [self.all.desc(), self.good.desc()].concat()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let count = |peers: usize| i64::try_from(peers).unwrap_or(i64::MAX);
        let now = Instant::now();
        self.all.reset();
        self.good.reset();
        for upstream in self.upstreams.load().iter() {
            let peers = upstream.peers.load();
            self.all.with_label_values(&[upstream.name()]).set(count(peers.len()));
            let good = peers.iter().filter(|peer| peer.health.is_good(now)).count();
            self.good.with_label_values(&[upstream.name()]).set(count(good));
        }
        [self.all.collect(), self.good.collect()].concat()
    }
}
