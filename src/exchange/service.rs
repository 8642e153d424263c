//! A token service with the bounds on its use: every call goes through here.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::mpsc;

use super::budget::{Budget, Full, Priority, Turn};
use super::gate::{Gate, Shut};
use super::timetable::Plan;
use crate::credential::Credential;
use crate::secret::Secret;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::traces::{self, Kind, Part};
use crate::token_service::{Error, TokenDetails, TokenParams, TokenService};

/// Bounds on the use of a token service.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// `create_token` calls at one time.
    pub concurrency: usize,
    /// `create_token` calls a second.
    pub rate: u32,
    /// Mints that may wait for their turn.
    pub queue: usize,
    /// Time that a request waits for a token.
    pub wait: Duration,
    /// How far the service's clock may be ahead of ours.
    pub skew: Duration,
    /// Consecutive failures after which only probes are sent.
    pub breaker_failures: u32,
    /// The time between two probes.
    pub probe_interval: Duration,
}

/// A token service with the bounds on its use.
pub struct Service {
    name: String,
    /// Kind and URL: part of every cache key.
    pub(super) identity: (&'static str, String),
    tuning: ArcSwap<Tuning>,
    /// [`Bounds::skew`] in nanoseconds, for every look-up.
    skew: AtomicU64,
    gate: Gate,
    plans: mpsc::UnboundedSender<Plan>,
    /// Taken by the service's timetable.
    planned: Mutex<Option<mpsc::UnboundedReceiver<Plan>>>,
    metrics: Arc<Metrics>,
}

/// What may change while entries live on.
struct Tuning {
    client: Arc<dyn TokenService>,
    wait: Duration,
    budget: Budget,
    /// For checks of tokens that are in use: they never take a mint's turn.
    checks: Budget,
}

impl Tuning {
    fn new(client: Arc<dyn TokenService>, bounds: Bounds) -> Self {
        let Bounds { concurrency, rate, queue, wait, .. } = bounds;
        let checks = Budget::new(concurrency.div_ceil(4), rate.div_ceil(4), usize::MAX);
        Self { client, wait, budget: Budget::new(concurrency, rate, queue), checks }
    }
}

/// Why a call gave nothing.
pub(super) enum Failure {
    /// It was made, and failed so.
    Call(Error),
    /// It was not made: the service is known to fail.
    Shut(Shut),
}

impl Failure {
    /// Whether the service said, for good, that the token or credential is no good.
    pub(super) const fn is_denial(&self) -> bool {
        matches!(self, Self::Call(Error::Denied))
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Call(error) => error.fmt(f),
            Self::Shut(shut) => f.write_str(&shut.cause),
        }
    }
}

impl Service {
    /// A service called `name` in metrics and logs; `kind` and `url` tell its tokens from another's.
    pub fn new(name: &str, kind: &'static str, url: &str, client: Arc<dyn TokenService>, bounds: Bounds, metrics: &Arc<Metrics>) -> Self {
        let Bounds { breaker_failures, probe_interval, skew, .. } = bounds;
        let (plans, planned) = mpsc::unbounded_channel();
        Self {
            name: name.to_owned(),
            identity: (kind, url.to_owned()),
            tuning: ArcSwap::from_pointee(Tuning::new(client, bounds)),
            skew: AtomicU64::new(nanoseconds(skew)),
            gate: Gate::new(breaker_failures, probe_interval, metrics.breaker(name)),
            plans,
            planned: Mutex::new(Some(planned)),
            metrics: Arc::clone(metrics),
        }
    }

    /// Calls it through this client and within these bounds from now on. Calls that are under way end as they began, so for a moment there may be as
    /// many as both bounds allow; what is known of the service's health stays.
    pub fn retune(&self, client: Arc<dyn TokenService>, bounds: Bounds) {
        self.tuning.store(Arc::new(Tuning::new(client, bounds)));
        self.skew.store(nanoseconds(bounds.skew), Ordering::Relaxed);
        self.gate.retune(bounds.breaker_failures, bounds.probe_interval);
    }

    /// Whether tokens of `kind` and `url` are this service's.
    pub fn is_at(&self, kind: &str, url: &str) -> bool {
        self.identity.0 == kind && self.identity.1 == url
    }

    /// How far the service's clock may be ahead of ours.
    pub(super) fn skew(&self) -> Duration {
        Duration::from_nanos(self.skew.load(Ordering::Relaxed))
    }

    /// Time that a request waits for a token.
    pub(super) fn wait(&self) -> Duration {
        self.tuning.load().wait
    }

    fn client(&self) -> Arc<dyn TokenService> {
        Arc::clone(&self.tuning.load().client)
    }

    /// Its name in the configuration.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it is known to fail: then each entry that suffers from it is not worth a line in the log.
    pub(super) fn is_failing(&self) -> bool {
        self.gate.is_open()
    }

    /// Tells the timetable. It runs for as long as the process; in its last moments a plan may be lost.
    pub(super) fn plan(&self, plan: Plan) {
        let _ = self.plans.send(plan);
    }

    pub(super) fn take_plans(&self) -> Option<mpsc::UnboundedReceiver<Plan>> {
        self.planned.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// A turn for a mint, a refresh or a revocation.
    pub(super) async fn turn(&self, priority: Priority) -> Result<Turn, Full> {
        self.tuning.load_full().budget.acquire(priority).await
    }

    /// A turn for a check of a token that is in use.
    pub(super) async fn check_turn(&self) -> Result<Turn, Full> {
        self.tuning.load_full().checks.acquire(Priority::Renewal).await
    }

    pub(super) async fn create_token(&self, credential: &Credential, params: &TokenParams, reason: &str) -> Result<Secret, Failure> {
        self.gate.admit().map_err(Failure::Shut)?;
        self.metrics.mint(&self.name, reason);
        self.counted("create", self.client().create_token(credential, params)).await
    }

    pub(super) async fn get_token_details(&self, token: &Secret) -> Result<TokenDetails, Failure> {
        self.gate.admit().map_err(Failure::Shut)?;
        self.counted("details", self.client().get_token_details(token)).await
    }

    pub(super) async fn refresh_token(&self, token: &Secret) -> Result<Secret, Failure> {
        self.gate.admit().map_err(Failure::Shut)?;
        self.counted("refresh", self.client().refresh_token(token)).await
    }

    pub(super) async fn revoke_token(&self, token: &Secret) -> Result<(), Failure> {
        self.gate.admit().map_err(Failure::Shut)?;
        self.counted("revoke", self.client().revoke_token(token)).await
    }

    async fn counted<T>(&self, operation: &str, call: impl Future<Output = Result<T, Error>>) -> Result<T, Failure> {
        let part = Part::of_current(|| format!("token service {operation}"), Kind::Client);
        let began = Instant::now();
        let answer = traces::within(part.as_ref(), call).await;
        let error = answer.as_ref().err();
        let outcome = error.map_or("ok", Error::outcome);
        self.metrics.token_service_call(&self.name, operation, outcome, began.elapsed().as_secs_f64());
        if let Some(part) = part {
            part.tell("bearerd.token_service", self.name.clone());
            if error.is_some() { part.fail(outcome) } else { part.end() }
        }
        self.gate.report(&self.name, error);
        answer.map_err(Failure::Call)
    }
}

fn nanoseconds(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}
