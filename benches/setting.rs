//! An empty exchange, as the benchmarks of its hot paths share it.

use std::sync::Arc;
use std::time::Duration;

use bearerd::clock::Clock;
use bearerd::exchange::{Capacity, Exchange, HashKeys};
use bearerd::secret::HashKey;
use bearerd::telemetry::metrics::Metrics;
use tokio::runtime::Runtime;

pub fn exchange(runtime: &Runtime, metrics: &Arc<Metrics>) -> Arc<Exchange> {
    let capacity = Capacity {
        tokens: 100_000,
        negative: 1000,
        negative_ttl: Duration::from_secs(30),
        tombstones: 1000,
        tombstone_ttl: Duration::from_secs(3600),
    };
    let hash_keys = HashKeys { current: HashKey::random().unwrap(), former: Vec::new() };
    Arc::new(Exchange::new(hash_keys, capacity, Clock::system(), runtime.handle().clone(), Arc::clone(metrics)))
}
