//! The figures that tell an operator at a glance how things are, read out of the same families that Prometheus gets.

use std::collections::BTreeMap;

use prometheus::proto::{Metric, MetricFamily};
use serde::Serialize;

use super::Metrics;

/// What was counted since the start.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Summary {
    /// Requests that are being served.
    pub in_flight: u64,
    /// Connections from callers that are open.
    pub connections: u64,
    /// By route.
    pub routes: BTreeMap<String, RouteSummary>,
    /// Look-ups of tokens.
    pub cache: CacheSummary,
    /// By token service.
    pub token_services: BTreeMap<String, ServiceSummary>,
    /// Revocations that the token service does not know of yet.
    pub revocations_pending: u64,
}

/// One route.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RouteSummary {
    /// Answers by the first digit of their status, as `2xx`.
    pub answers: BTreeMap<String, u64>,
    /// Decisions by result: allowed, denied, error, public, would_deny.
    pub decisions: BTreeMap<String, u64>,
    /// Those that were not `allowed` or `public`, by reason.
    pub reasons: BTreeMap<String, u64>,
    /// From the request's header to the end of the answer.
    pub duration: Duration,
    /// Seconds that the token in use with the least time has left.
    pub token_remaining_seconds: Option<f64>,
}

/// Look-ups of tokens by result.
#[derive(Clone, Debug, Default, Serialize)]
pub struct CacheSummary {
    /// Tokens.
    pub entries: u64,
    /// Found.
    pub hit: u64,
    /// Not found.
    pub miss: u64,
    /// A refusal was remembered.
    pub negative: u64,
    /// Found, and over.
    pub expired: u64,
}

/// One token service.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ServiceSummary {
    /// It fails, and only probes are sent to it.
    pub breaker_open: bool,
    /// Calls by operation and outcome.
    pub calls: BTreeMap<String, BTreeMap<String, u64>>,
    /// How long calls of `create_token` took.
    pub create: Duration,
}

/// Durations that were counted in buckets.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Duration {
    /// How many.
    pub count: u64,
    /// Their sum in seconds.
    pub sum_seconds: f64,
    /// Half of them took at most about this long, in seconds.
    pub p50_seconds: Option<f64>,
    /// 99 of 100.
    pub p99_seconds: Option<f64>,
}

impl Metrics {
    /// The figures as they are now; gauges as of the last scrape or [`crate::exchange::Exchange::refresh_gauges`].
    pub fn summary(&self) -> Summary {
        let mut summary = Summary::default();
        for family in self.registry.gather() {
            let Some(name) = family.name().strip_prefix("bearerd_") else { continue };
            summary.take_in(name, &family);
        }
        summary
    }
}

impl Summary {
    fn take_in(&mut self, name: &str, family: &MetricFamily) {
        for metric in family.get_metric() {
            match name {
                "requests_in_flight" => self.in_flight = gauge(metric),
                "connections" => self.connections = gauge(metric),
                "revocations_pending" => self.revocations_pending = gauge(metric),
                "cache_entries" => self.cache.entries = gauge(metric),
                "cache_requests_total" => self.cache.take_in(label(metric, "result"), counter(metric)),
                "requests_total" => {
                    let class = format!("{}xx", label(metric, "code").chars().next().unwrap_or('?'));
                    *self.route(metric).answers.entry(class).or_default() += counter(metric);
                }
                "auth_decisions_total" => {
                    let (result, reason) = (label(metric, "result").to_owned(), label(metric, "reason").to_owned());
                    let route = self.route(metric);
                    *route.decisions.entry(result).or_default() += counter(metric);
                    if !reason.is_empty() {
                        *route.reasons.entry(reason).or_default() += counter(metric);
                    }
                }
                "request_duration_seconds" => self.route(metric).duration = Duration::of(metric),
                "token_remaining_seconds" => self.route(metric).token_remaining_seconds = Some(metric.get_gauge().get_value()),
                "breaker_open" => self.service(metric).breaker_open = gauge(metric) > 0,
                "token_service_requests_total" => {
                    let (operation, outcome) = (label(metric, "operation").to_owned(), label(metric, "outcome").to_owned());
                    self.service(metric).calls.entry(operation).or_default().insert(outcome, counter(metric));
                }
                "token_service_request_duration_seconds" if label(metric, "operation") == "create" => {
                    self.service(metric).create = Duration::of(metric);
                }
                _ => {}
            }
        }
    }

    fn route(&mut self, metric: &Metric) -> &mut RouteSummary {
        self.routes.entry(label(metric, "route").to_owned()).or_default()
    }

    fn service(&mut self, metric: &Metric) -> &mut ServiceSummary {
        self.token_services.entry(label(metric, "service").to_owned()).or_default()
    }
}

impl CacheSummary {
    fn take_in(&mut self, result: &str, count: u64) {
        match result {
            "hit" => self.hit = count,
            "miss" => self.miss = count,
            "negative" => self.negative = count,
            _ => self.expired = count,
        }
    }
}

impl Duration {
    fn of(metric: &Metric) -> Self {
        let histogram = metric.get_histogram();
        let buckets: Vec<_> = histogram.get_bucket().iter().map(|bucket| (bucket.upper_bound(), bucket.cumulative_count())).collect();
        let count = histogram.get_sample_count();
        let quantile = |share| quantile(&buckets, count, share);
        Self { count, sum_seconds: histogram.get_sample_sum(), p50_seconds: quantile(0.5), p99_seconds: quantile(0.99) }
    }
}

/// As Prometheus does: evenly within a bucket, and beyond the last one its bound.
fn quantile(buckets: &[(f64, u64)], count: u64, share: f64) -> Option<f64> {
    if count == 0 {
        return None;
    }
    let rank = share * count as f64;
    let (mut from, mut before) = (0.0, 0);
    for (bound, cumulative) in buckets.iter().filter(|(bound, _)| bound.is_finite()) {
        if *cumulative as f64 >= rank && *cumulative > before {
            return Some(from + (bound - from) * (rank - before as f64) / (cumulative - before) as f64);
        }
        (from, before) = (*bound, *cumulative);
    }
    Some(from)
}

fn label<'m>(metric: &'m Metric, name: &str) -> &'m str {
    metric.get_label().iter().find(|label| label.name() == name).map_or("", |label| label.value())
}

fn counter(metric: &Metric) -> u64 {
    metric.get_counter().get_value() as u64
}

fn gauge(metric: &Metric) -> u64 {
    metric.get_gauge().get_value().max(0.0) as u64
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::Method;

    use super::*;

    #[test]
    fn quantiles_lie_in_their_bucket() {
        let buckets = [(1.0, 0), (2.0, 10), (4.0, 20)];
        assert_eq!(quantile(&buckets, 20, 0.5), Some(2.0));
        assert_eq!(quantile(&buckets, 20, 0.75), Some(3.0));
        assert_eq!(quantile(&buckets, 40, 0.99), Some(4.0));
        assert_eq!(quantile(&buckets, 0, 0.5), None);
    }

    #[test]
    fn what_was_counted_is_summed_by_route_and_service() {
        let metrics = Arc::new(Metrics::new().unwrap());
        let route = metrics.route("api", None);
        route.answered(&Method::GET, 200);
        route.answered(&Method::POST, 204);
        route.refused("denied", "denied");
        route.duration.observe(0.003);
        metrics.cache_hit.inc_by(3);
        metrics.token_service_call("default", "create", "ok", 0.2);
        metrics.breaker("default").set(1);
        let summary = metrics.summary();
        let api = &summary.routes["api"];
        assert_eq!((api.answers["2xx"], api.decisions["denied"], api.reasons["denied"], api.duration.count), (2, 1, 1, 1));
        assert_eq!(summary.cache.hit, 3);
        let service = &summary.token_services["default"];
        assert_eq!((service.breaker_open, service.calls["create"]["ok"], service.create.count), (true, 1, 1));
        assert!((0.1..=0.25).contains(&service.create.p50_seconds.unwrap()));
    }
}
