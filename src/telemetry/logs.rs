//! Logs: set up once, text on a terminal and JSON elsewhere, written off the request path.
//!
//! Never logged, at any level: credentials, tokens, header values, queries, bodies. Crates that would log some of these (pingora, hyper and
//! rustls do at `debug` and `trace`) are held at `info` whatever the level.

use std::io::{self, IsTerminal};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::secret::KeyedHash;
use tracing::Level;
use tracing_appender::non_blocking::{NonBlocking, WorkerGuard};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, Registry, reload};

/// The form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

impl Form {
    /// Text where somebody looks on, JSON elsewhere.
    pub fn fitting() -> Self {
        if io::stderr().is_terminal() { Self::Text } else { Self::Json }
    }
}

/// The level of the log, which can change while the process runs.
#[derive(Clone)]
pub struct Levels(reload::Handle<Targets, Registry>);

impl Levels {
    /// Logs at this level from now on.
    pub fn set(&self, level: Level) {
        // It fails only when there is no log any more.
        let _ = self.0.reload(targets(level));
    }
}

/// The log, for as long as this lives: its drop writes what is left.
pub struct Logs {
    _guard: WorkerGuard,
    /// Its level.
    pub levels: Levels,
}

/// Logging was set up before in this process.
#[derive(Debug, thiserror::Error)]
#[error("logging is set up already")]
pub struct AlreadySetUp;

/// Sends logs to standard error through a bounded buffer that drops lines rather than make a request wait. Keep what it returns.
///
/// # Errors
/// When it was done before.
pub fn set_up(level: Level, form: Form) -> Result<Logs, AlreadySetUp> {
    let (writer, guard) = tracing_appender::non_blocking(io::stderr());
    let (targets, levels) = reload::Layer::new(targets(level));
    let result = match form {
        Form::Json => tracing_subscriber::registry().with(json(writer).with_filter(targets)).try_init(),
        Form::Text => tracing_subscriber::registry().with(text(writer).with_filter(targets)).try_init(),
    };
    result.map(|()| Logs { _guard: guard, levels: Levels(levels) }).map_err(|_| AlreadySetUp)
}

fn targets(level: Level) -> Targets {
    let others = level.min(Level::INFO);
    // What pingora says of a request is said by our own line; its errors show up again from `debug` on.
    let pingora = if level > Level::INFO { LevelFilter::INFO } else { LevelFilter::OFF };
    Targets::new().with_default(others).with_target("bearerd", level).with_target("pingora", pingora).with_target("audit", Level::INFO)
}

fn json<S>(writer: NonBlocking) -> impl tracing_subscriber::Layer<S>
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
{
    tracing_subscriber::fmt::layer().json().flatten_event(true).with_current_span(false).with_span_list(false).with_writer(writer)
}

fn text<S>(writer: NonBlocking) -> impl tracing_subscriber::Layer<S>
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
{
    tracing_subscriber::fmt::layer().with_target(false).with_ansi(has_colours(&io::stderr())).with_writer(writer)
}

/// Whether what is written there may have colours: somebody looks on, and does not forbid it (no-color.org).
pub fn has_colours(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

/// One line a request.
pub struct Access<'a> {
    /// The request's id.
    pub request_id: &'a str,
    /// The caller's address: behind a trusted peer, the one that it names.
    pub peer: Option<IpAddr>,
    /// The method.
    pub method: &'a str,
    /// The path, without the query.
    pub path: &'a str,
    /// The route; empty where none matched.
    pub route: &'a str,
    /// What was decided, in a word.
    pub decision: &'a str,
    /// The credential's name in the cache, as operators see it: of its entry, where there is one.
    pub credential: Option<KeyedHash>,
    /// The status that the caller got.
    pub status: u16,
    /// Why it was refused or failed; empty where it was not.
    pub reason: &'a str,
    /// More of that, for the operator.
    pub cause: &'a str,
    /// The upstream's server that was asked last.
    pub upstream: Option<SocketAddr>,
    /// Bytes of the answer's body.
    pub body_bytes: usize,
    /// From the request's header to its decision.
    pub exchange: Option<Duration>,
    /// From the pick of that server to the header of its answer.
    pub upstreams: Option<Duration>,
    /// From the request's header to the end of the answer.
    pub elapsed: Duration,
}

impl Access<'_> {
    /// Writes the line.
    pub fn write(&self) {
        let Self { request_id, method, path, route, decision, status, reason, cause, body_bytes, .. } = *self;
        let peer = self.peer.map(tracing::field::display);
        let upstream = self.upstream.map(tracing::field::display);
        let credential = self.credential.map(|credential| credential.short());
        let credential = credential.as_deref();
        let milliseconds = |span: Duration| span.as_secs_f64() * 1000.0;
        let (exchange_ms, upstream_ms) = (self.exchange.map(milliseconds), self.upstreams.map(milliseconds));
        let duration_ms = milliseconds(self.elapsed);
        if reason.is_empty() {
            tracing::info!(
                target: "bearerd::access",
                request_id, peer, method, path, route, decision, credential, status, upstream, body_bytes, exchange_ms, upstream_ms, duration_ms,
                "request"
            );
        } else {
            tracing::info!(
                target: "bearerd::access",
                request_id, peer, method, path, route, decision, credential, status, reason, cause, upstream, body_bytes, exchange_ms, upstream_ms,
                duration_ms, "request"
            );
        }
    }
}
