//! How things are, at a glance: what the admin page shows first, and what it is told of every second.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use futures_util::stream;
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::{self, MissedTickBehavior};

use super::Shown;
use super::control::{Control, Last};
use super::problem::problem;
use crate::clock::Clock;
use crate::refusal::recent::{Recent, Refused};
use crate::telemetry::metrics::summary::Summary;

/// How often those who listen are told.
const EVERY: Duration = Duration::from_secs(1);
/// How many may listen at one time.
const LISTENERS: usize = 32;

/// All of it.
#[derive(Serialize)]
struct Overview {
    /// Now, in seconds since 1970.
    at: i64,
    version: &'static str,
    ready: bool,
    summary: Summary,
    refusals: Vec<Explained>,
    last_reload: Option<Last>,
}

/// A refusal, with what can be done about it.
#[derive(Serialize)]
struct Explained {
    #[serde(flatten)]
    refused: Refused,
    advice: &'static str,
}

/// What an overview is made of, and who listens.
pub struct Watched {
    shown: Shown,
    control: Arc<Control>,
    recent: Arc<Recent>,
    clock: Clock,
    latest: watch::Sender<Arc<str>>,
    listeners: AtomicUsize,
}

impl Watched {
    /// Nobody listens yet.
    pub fn new(shown: Shown, control: Arc<Control>, recent: Arc<Recent>, clock: Clock) -> Self {
        Self { shown, control, recent, clock, latest: watch::Sender::new(Arc::from("")), listeners: AtomicUsize::new(0) }
    }

    /// Tells those who listen, until `over` says that there is nothing more to tell; then their streams end.
    pub async fn keep(self: Arc<Self>, mut over: watch::Receiver<bool>) {
        let mut ticks = time::interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = over.wait_for(|over| *over) => break,
                _ = ticks.tick() => {}
            }
            if self.listeners.load(Ordering::Relaxed) > 0 {
                let now = serde_json::to_string(&self.overview().await).unwrap_or_default();
                self.latest.send_replace(Arc::from(now));
            }
        }
        self.latest.send_replace(Arc::from(OVER));
    }

    async fn overview(self: &Arc<Self>) -> Overview {
        // Walks all entries: not on a thread that others wait for.
        let this = Arc::clone(self);
        let summary = tokio::task::spawn_blocking(move || {
            this.shown.exchange.refresh_gauges();
            this.shown.metrics.summary()
        });
        let explained = |refused: Refused| Explained { advice: refused.reason.advice(), refused };
        Overview {
            at: self.clock.now().as_secs(),
            version: env!("CARGO_PKG_VERSION"),
            ready: self.shown.readiness.is_ready(),
            summary: summary.await.unwrap_or_default(),
            refusals: self.recent.all().into_iter().map(explained).collect(),
            last_reload: self.control.last_reload(),
        }
    }
}

/// In the place of an overview, when there will be no more.
const OVER: &str = "over";

/// `GET /api/overview` and `GET /api/events`.
pub(super) fn router(watched: Arc<Watched>) -> Router {
    Router::new().route("/api/overview", get(overview)).route("/api/events", get(events)).with_state(watched)
}

async fn overview(State(watched): State<Arc<Watched>>) -> Response {
    Json(watched.overview().await).into_response()
}

/// Counts one who listens, for as long as this lives.
struct Listening(Arc<Watched>);

impl Listening {
    fn begin(watched: &Arc<Watched>) -> Option<Self> {
        let begun = watched.listeners.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| (count < LISTENERS).then_some(count + 1));
        begun.is_ok().then(|| Self(Arc::clone(watched)))
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.listeners.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn events(State(watched): State<Arc<Watched>>) -> Response {
    let Some(listening) = Listening::begin(&watched) else {
        return problem(StatusCode::SERVICE_UNAVAILABLE, "too many listen already");
    };
    let mut changes = watched.latest.subscribe();
    changes.mark_unchanged();
    let told = stream::unfold((changes, listening), |(mut changes, listening)| async move {
        changes.changed().await.ok()?;
        let latest = Arc::clone(&changes.borrow_and_update());
        (*latest != *OVER)
            .then(|| (Ok::<_, std::convert::Infallible>(Event::default().event("overview").data(&*latest)), (changes, listening)))
    });
    Sse::new(told).keep_alive(KeepAlive::default()).into_response()
}
