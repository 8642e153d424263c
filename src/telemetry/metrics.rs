//! The Prometheus families. Their help texts are here alone; never a key, a subject or a path as a label.

pub mod summary;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use http::Method;
use prometheus::core::Collector;
use prometheus::{
    GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

/// From 0.25 ms to 10 s: a warm request takes well under a millisecond, a hung upstream up to its time-out.
const SECONDS: [f64; 16] = [0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// From 5 us: a cache hit takes a few.
const AUTH_SECONDS: [f64; 14] = [0.000005, 0.00001, 0.000025, 0.0001, 0.00025, 0.001, 0.0025, 0.01, 0.025, 0.1, 0.25, 1.0, 2.5, 10.0];

/// Why a family could not be made: its name or labels are not what Prometheus takes.
#[derive(Debug, thiserror::Error)]
#[error("a metric cannot be registered: {0}")]
pub struct Error(#[from] prometheus::Error);

/// Every family, in one registry of its own.
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    request_duration: HistogramVec,
    auth_decisions: IntCounterVec,
    /// Requests that are being served.
    pub requests_in_flight: IntGauge,
    /// Time from the request's header to its decision, where a cached token served.
    pub auth_hit: Histogram,
    /// The same, where the request waited for a mint that another one began.
    pub auth_wait: Histogram,
    /// The same, where the request began a mint.
    pub auth_mint: Histogram,
    /// Seconds to a verdict on a JWT that was not known yet.
    pub auth_jwt: Histogram,
    /// Look-ups that found a valid token.
    pub cache_hit: IntCounter,
    /// Look-ups that found nothing.
    pub cache_miss: IntCounter,
    /// Look-ups that found a remembered refusal.
    pub cache_negative: IntCounter,
    /// Look-ups that found a token that has expired.
    pub cache_expired: IntCounter,
    /// Tokens in the cache, as of the last scrape.
    pub cache_entries: IntGauge,
    cache_evictions: IntCounterVec,
    token_service_requests: IntCounterVec,
    token_service_duration: HistogramVec,
    mints: IntCounterVec,
    /// Requests that wait for a mint that another one began.
    pub coalesced_waiters: IntGauge,
    token_renewals: IntCounterVec,
    token_remaining: GaugeVec,
    breaker_open: IntGaugeVec,
    revocations: IntCounterVec,
    ledger_errors: IntCounterVec,
    /// Revocations that were accepted and that the token service does not know of yet.
    pub revocations_pending: IntGauge,
    upstream_errors: IntCounterVec,
    /// Connections from callers that are open.
    pub connections: IntGauge,
    connections_refused: IntCounterVec,
    streams_ended: IntCounterVec,
    config_reloads: IntCounterVec,
    config_last_reload: IntGauge,
    config_last_reload_successful: IntGauge,
    build_info: IntGaugeVec,
}

impl Metrics {
    /// All families, registered.
    ///
    /// # Errors
    /// Never in practice: the names are fixed.
    pub fn new() -> Result<Self, Error> {
        let registry = Registry::new();
        let all = Families { registry: &registry };
        let auth = all.histograms(
            "auth_duration_seconds",
            "Seconds from a request's header to its token, by where the token came from.",
            &["source"],
            &AUTH_SECONDS,
        )?;
        let cache = all.counters("cache_requests_total", "Token look-ups by result.", &["result"])?;
        let metrics = Self {
            requests: all.counters(
                "requests_total",
                "Requests answered, those that were cut off too, by route, method and exact status.",
                &["route", "method", "code"],
            )?,
            request_duration: all.histograms(
                "request_duration_seconds",
                "Seconds from a request's header to the end of its answer.",
                &["route"],
                &SECONDS,
            )?,
            requests_in_flight: all.gauge("requests_in_flight", "Requests that are being served.")?,
            auth_decisions: all.counters(
                "auth_decisions_total",
                "Decisions on requests, by route, result and reason.",
                &["route", "result", "reason"],
            )?,
            auth_hit: auth.with_label_values(&["hit"]),
            auth_wait: auth.with_label_values(&["wait"]),
            auth_mint: auth.with_label_values(&["mint"]),
            auth_jwt: auth.with_label_values(&["jwt"]),
            cache_hit: cache.with_label_values(&["hit"]),
            cache_miss: cache.with_label_values(&["miss"]),
            cache_negative: cache.with_label_values(&["negative"]),
            cache_expired: cache.with_label_values(&["expired"]),
            cache_entries: all.gauge("cache_entries", "Tokens in the cache.")?,
            cache_evictions: all.counters("cache_evictions_total", "Tokens that left the cache, by cause.", &["cause"])?,
            token_service_requests: all.counters(
                "token_service_requests_total",
                "Calls to token services, by operation and outcome.",
                &["service", "operation", "outcome"],
            )?,
            token_service_duration: all.histograms(
                "token_service_request_duration_seconds",
                "Seconds that calls to token services took.",
                &["service", "operation"],
                &SECONDS,
            )?,
            mints: all.counters("mints_total", "Tokens asked for with create_token, by what made it necessary.", &["service", "reason"])?,
            coalesced_waiters: all.gauge("coalesced_waiters", "Requests that wait for a mint that another request began.")?,
            token_renewals: all.counters("token_renewals_total", "Renewals of tokens ahead of their end, by outcome.", &["outcome"])?,
            token_remaining: all.seconds(
                "token_remaining_seconds",
                "The least time that a token in use has left, by route, as of the last scrape.",
                &["route"],
            )?,
            breaker_open: all.gauges("breaker_open", "1 while a token service fails and only probes are sent to it.", &["service"])?,
            ledger_errors: all.counters(
                "ledger_errors_total",
                "Faults of the ledger by kind; lost: it could not be read, and pending revocations may be gone.",
                &["kind"],
            )?,
            revocations: all.counters("revocations_total", "Revocations that came to an end, by outcome.", &["outcome"])?,
            revocations_pending: all
                .gauge("revocations_pending", "Revocations that were accepted and that the token service does not know of yet.")?,
            upstream_errors: all.counters(
                "upstream_errors_total",
                "Requests that an upstream failed, by reason.",
                &["upstream", "reason"],
            )?,
            connections: all.gauge("connections", "Connections from callers that are open.")?,
            connections_refused: all.counters(
                "connections_refused_total",
                "Connections from callers closed unserved, by the limit that they met.",
                &["limit"],
            )?,
            streams_ended: all.counters(
                "streams_ended_total",
                "Requests cut off because their token was over (`on_expiry: close`), by reason: expired, revoked.",
                &["reason"],
            )?,
            config_reloads: all.counters(
                "config_reloads_total",
                "Reloads of the configuration, by outcome: success, failure.",
                &["outcome"],
            )?,
            config_last_reload: all.gauge(
                "config_last_reload_success_timestamp_seconds",
                "When the configuration that serves was loaded, in seconds since 1970.",
            )?,
            config_last_reload_successful: all.gauge(
                "config_last_reload_successful",
                "1 where the configuration that was seen last serves, 0 where it has mistakes and the one before goes on.",
            )?,
            build_info: all.gauges("build_info", "Always 1; the labels say what is running.", &["version", "revision"])?,
            registry,
        };
        // Both from the start: an alert on the failures needs a first value.
        ["success", "failure"].iter().for_each(|outcome| metrics.config_reloads.with_label_values(&[outcome]).reset());
        metrics.build_info.with_label_values(&[env!("CARGO_PKG_VERSION"), option_env!("BEARERD_REVISION").unwrap_or("unknown")]).set(1);
        Ok(metrics)
    }

    /// The series of one route, looked up once: the request path only adds to them.
    pub fn route(self: &Arc<Self>, name: &str, upstream: Option<&str>) -> RouteMetrics {
        RouteMetrics {
            name: name.to_owned(),
            upstream: upstream.map(str::to_owned),
            duration: self.request_duration.with_label_values(&[name]),
            allowed: self.auth_decisions.with_label_values(&[name, "allowed", ""]),
            public: self.auth_decisions.with_label_values(&[name, "public", ""]),
            statuses: std::array::from_fn(|_| OnceLock::new()),
            metrics: Arc::clone(self),
        }
    }

    /// Counts a call to a token service.
    pub fn token_service_call(&self, service: &str, operation: &str, outcome: &str, seconds: f64) {
        self.token_service_requests.with_label_values(&[service, operation, outcome]).inc();
        self.token_service_duration.with_label_values(&[service, operation]).observe(seconds);
    }

    /// Counts a call of `create_token` by what made it necessary.
    pub fn mint(&self, service: &str, reason: &str) {
        self.mints.with_label_values(&[service, reason]).inc();
    }

    /// Counts an attempt to renew a token.
    pub fn renewal(&self, outcome: &str) {
        self.token_renewals.with_label_values(&[outcome]).inc();
    }

    /// Counts a fault of the ledger.
    pub fn ledger_error(&self, kind: &str) {
        self.ledger_errors.with_label_values(&[kind]).inc();
    }

    /// Counts a revocation that came to an end.
    pub fn revocation(&self, outcome: &str) {
        self.revocations.with_label_values(&[outcome]).inc();
    }

    /// The gauge of one service's breaker.
    pub fn breaker(&self, service: &str) -> IntGauge {
        self.breaker_open.with_label_values(&[service])
    }

    /// Takes in the least time that a token in use has left, in seconds by route.
    pub fn remaining(&self, least: &BTreeMap<String, f64>) {
        self.token_remaining.reset();
        for (route, seconds) in least {
            self.token_remaining.with_label_values(&[route]).set(*seconds);
        }
    }

    /// Counts a token that left the cache.
    pub fn eviction(&self, cause: &str) {
        self.cache_evictions.with_label_values(&[cause]).inc();
    }

    /// Counts another configuration that serves from this time on, in seconds since 1970.
    pub fn reloaded(&self, at: i64) {
        self.config_reloads.with_label_values(&["success"]).inc();
        self.loaded(at);
    }

    /// Counts one that was refused.
    pub fn reload_refused(&self) {
        self.config_reloads.with_label_values(&["failure"]).inc();
        self.config_last_reload_successful.set(0);
    }

    /// The configuration that serves is from this time, in seconds since 1970.
    pub fn loaded(&self, at: i64) {
        self.config_last_reload.set(at);
        self.config_last_reload_successful.set(1);
    }

    /// Counts a request that was cut off because its token was over.
    pub fn stream_ended(&self, reason: &str) {
        self.streams_ended.with_label_values(&[reason]).inc();
    }

    /// Counts a connection closed unserved.
    pub fn connection_refused(&self, limit: &str) {
        self.connections_refused.with_label_values(&[limit]).inc();
    }

    /// Where families of others can join.
    pub const fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The text exposition of everything.
    ///
    /// # Errors
    /// When a family cannot be encoded.
    pub fn render(&self) -> Result<String, Error> {
        Ok(TextEncoder::new().encode_to_string(&self.registry.gather())?)
    }
}

/// A gauge that counts this for as long as it is there, however it ends.
#[derive(Debug)]
pub struct Counted(IntGauge);

impl Counted {
    /// One more.
    pub fn in_gauge(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Makes families with the prefix `bearerd_` and registers them.
struct Families<'a> {
    registry: &'a Registry,
}

impl Families<'_> {
    fn register<T: Collector + Clone + 'static>(&self, family: T) -> Result<T, Error> {
        self.registry.register(Box::new(family.clone()))?;
        Ok(family)
    }

    fn options(name: &str, help: &str) -> Opts {
        Opts::new(name, help).namespace("bearerd")
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, Error> {
        self.register(IntCounterVec::new(Self::options(name, help), labels)?)
    }

    fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, Error> {
        self.register(IntGauge::with_opts(Self::options(name, help))?)
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, Error> {
        self.register(IntGaugeVec::new(Self::options(name, help), labels)?)
    }

    fn seconds(&self, name: &str, help: &str, labels: &[&str]) -> Result<GaugeVec, Error> {
        self.register(GaugeVec::new(Self::options(name, help), labels)?)
    }

    fn histograms(&self, name: &str, help: &str, labels: &[&str], buckets: &[f64]) -> Result<HistogramVec, Error> {
        let options = HistogramOpts { common_opts: Self::options(name, help), buckets: buckets.to_vec() };
        self.register(HistogramVec::new(options, labels)?)
    }
}

/// The methods that get a label of their own; any other is `OTHER`, so that a caller cannot make up series.
const METHODS: [Method; 9] =
    [Method::GET, Method::POST, Method::PUT, Method::DELETE, Method::PATCH, Method::HEAD, Method::OPTIONS, Method::TRACE, Method::CONNECT];
const STATUSES: usize = 500;

/// Whether a method is one that everybody knows.
pub fn is_known(method: &str) -> bool {
    METHODS.iter().any(|known| known == method)
}

type Statuses = Box<[OnceLock<IntCounter>]>;

/// The series of one route.
pub struct RouteMetrics {
    name: String,
    upstream: Option<String>,
    /// Seconds from a request's header to the end of its answer.
    pub duration: Histogram,
    /// Requests that went on with a token.
    pub allowed: IntCounter,
    /// Requests that needed none.
    pub public: IntCounter,
    /// By method, then by status from 100: a counter is looked up once, then found by index.
    statuses: [OnceLock<Statuses>; METHODS.len() + 1],
    metrics: Arc<Metrics>,
}

impl RouteMetrics {
    /// Counts an answer.
    pub fn answered(&self, method: &Method, status: u16) {
        let row = METHODS.iter().position(|known| known == method).unwrap_or(METHODS.len());
        let statuses = self.statuses[row].get_or_init(|| (0..STATUSES).map(|_| OnceLock::new()).collect());
        let Some(cell) = usize::from(status).checked_sub(100).and_then(|column| statuses.get(column)) else { return };
        cell.get_or_init(|| {
            let method = METHODS.get(row).map_or("OTHER", Method::as_str);
            self.metrics.requests.with_label_values(&[&self.name, method, &status.to_string()])
        })
        .inc();
    }

    /// Counts a request that was not let through.
    pub fn refused(&self, result: &str, reason: &str) {
        self.metrics.auth_decisions.with_label_values(&[&self.name, result, reason]).inc();
    }

    /// Counts a request that the route's upstream failed.
    pub fn upstream_error(&self, reason: &str) {
        if let Some(upstream) = &self.upstream {
            self.metrics.upstream_errors.with_label_values(&[upstream, reason]).inc();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_counts_by_method_and_status_and_strangers_share_a_series() {
        let metrics = Arc::new(Metrics::new().unwrap());
        let route = metrics.route("api", Some("app"));
        route.answered(&Method::GET, 200);
        route.answered(&Method::GET, 200);
        route.answered(&Method::from_bytes(b"BREW").unwrap(), 418);
        route.answered(&Method::GET, 0);
        let text = metrics.render().unwrap();
        let series: Vec<&str> = text.lines().filter(|line| line.starts_with("bearerd_requests_total")).collect();
        assert_eq!(
            series,
            [
                r#"bearerd_requests_total{code="200",method="GET",route="api"} 2"#,
                r#"bearerd_requests_total{code="418",method="OTHER",route="api"} 1"#
            ]
        );
    }
}
