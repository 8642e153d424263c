//! What is known of one request while it is served.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use http::{HeaderValue, Method};

use super::Serving;
use super::admission::{Bearer, Trail};
use super::ended;
use super::outliving::Watch;
use super::unread::Unread;
use super::upstream::Health;
use crate::refusal::{Reason, Refusal};
use crate::telemetry::metrics::{Counted, Metrics};
use crate::telemetry::traces::Trace;

/// One request on its way through the phases.
pub struct Context {
    _in_flight: Counted,
    /// The configuration that it began with.
    pub(super) serving: Arc<Serving>,
    pub(super) started: Instant,
    /// Set in `request_filter`, the first phase.
    pub(super) method: Method,
    /// Set in `request_filter` too; a request that fails before has none.
    pub(super) request_id: Option<HeaderValue>,
    /// The route's place in [`Serving::routes`].
    pub(super) route: Option<usize>,
    /// What another proxy was asked for, where this is its question: method and path.
    pub(super) asked_for: Option<Box<(Method, String)>>,
    pub(super) bearer: Option<Bearer>,
    /// What the decision left.
    pub(super) trail: Trail,
    /// What became of the request after its token was found, and before it was sent.
    pub(super) refusal: Option<Refusal>,
    /// The place of the upstream's server that was picked last.
    pub(super) server: usize,
    /// How it does, where there are others to ask.
    pub(super) health: Option<Arc<Health>>,
    /// The addresses that have failed this request.
    pub(super) tried: Vec<SocketAddr>,
    /// How often an upstream was picked.
    pub(super) tries: usize,
    /// What an upstream's answer that went on to the caller said.
    pub(super) status: Option<u16>,
    /// Metrics and log have been told of it.
    pub(super) told: bool,
    /// The upstream has begun to answer.
    pub(super) answered: bool,
    /// Sent again after a 401.
    pub(super) replayed: bool,
    /// Cuts the request off when its token is over, where the route wants that.
    pub(super) watch: Option<Watch>,
    /// What it holds of its answer, on a connection that it shares with others.
    pub(super) unread: Option<Arc<Unread>>,
    /// What its line in the log tells beside.
    pub(super) times: Times,
    /// Where it is traced.
    pub(super) trace: Option<Box<Trace>>,
    /// Why the request was refused or failed.
    pub(super) reason: Option<Reason>,
    /// What the log says of that; never a secret.
    pub(super) cause: Option<String>,
}

/// When the parts of a request ended, and who served it. The clock is read for them only where there is a line in the log to tell them.
#[derive(Clone, Copy, Default)]
pub(super) struct Times {
    /// It was decided.
    pub(super) decided: Option<Instant>,
    /// The upstream's server was picked.
    pub(super) picked: Option<(Instant, SocketAddr)>,
    /// It began to answer.
    pub(super) answered: Option<Instant>,
}

impl Context {
    /// The time, where a line in the log will tell it.
    pub(super) fn clock(&self) -> Option<Instant> {
        self.serving.access_log.is_some().then(Instant::now)
    }

    /// A request that begins now.
    pub(super) fn new(serving: Arc<Serving>, metrics: &Metrics) -> Self {
        Self {
            _in_flight: Counted::in_gauge(&metrics.requests_in_flight),
            serving,
            started: Instant::now(),
            method: Method::default(),
            request_id: None,
            route: None,
            asked_for: None,
            bearer: None,
            trail: Trail::default(),
            refusal: None,
            server: 0,
            health: None,
            tried: Vec::new(),
            tries: 0,
            status: None,
            told: false,
            answered: false,
            replayed: false,
            watch: None,
            unread: Unread::of_this_request(),
            times: Times::default(),
            trace: None,
            reason: None,
            cause: None,
        }
    }
}

/// A request that is cut off reaches no last phase.
impl Drop for Context {
    fn drop(&mut self) {
        if !self.told {
            ended::tell_cut_off(self);
        }
    }
}
