//! What is told of a request when it is over: metrics, its line in the log, its trace, and to operators why it was refused.

use std::net::IpAddr;
use std::time::Duration;

use pingora::proxy::Session;

use super::connection::Connection;
use super::context::{Context, Times};
use crate::refusal::Reason;
use crate::refusal::recent::{Recent, Refused};
use crate::telemetry::logs::Access as AccessLine;
use crate::telemetry::metrics;
use crate::telemetry::traces::Trace;

const CLIENT_CLOSED_REQUEST: u16 = 499;

/// Tells all of it, once. `recent` is for operators.
pub(super) fn tell(session: &Session, ctx: &mut Context, recent: &Recent) {
    // A caller who left before the answer: the number that nginx made common for it.
    let status = session.response_written().map_or(CLIENT_CLOSED_REQUEST, |response| response.status.as_u16());
    let elapsed = count(ctx, status);
    if let Some(reason) = ctx.reason {
        recent.keep(|at| refused(session, ctx, status, reason, at));
    }
    if ctx.serving.access_log.is_some_and(|share| status >= 500 || ctx.reason.is_some() || share >= 1.0 || fastrand::f64() < share) {
        log(session, ctx, status, elapsed);
    }
    if let Some(trace) = ctx.trace.take() {
        end_trace(*trace, session, ctx, status);
    }
}

/// Tells metrics alone, of a request that was cut off.
pub(super) fn tell_cut_off(ctx: &mut Context) {
    count(ctx, ctx.status.unwrap_or(CLIENT_CLOSED_REQUEST));
}

fn count(ctx: &mut Context, status: u16) -> Duration {
    ctx.told = true;
    let elapsed = ctx.started.elapsed();
    let series = ctx.series();
    series.duration.observe(elapsed.as_secs_f64());
    series.answered(&ctx.method, status);
    elapsed
}

/// What the caller wants: method, and path without the query, where credentials travel.
fn asked_for<'a>(session: &'a Session, ctx: &'a Context) -> (&'a str, &'a str) {
    match ctx.asked_for.as_deref() {
        Some((method, path)) => (method.as_str(), path.as_str()),
        None => (session.req_header().method.as_str(), session.req_header().uri.path()),
    }
}

/// Who calls: whom a trusted peer names, else the peer.
pub(super) fn peer(session: &Session) -> Option<IpAddr> {
    Connection::of(session.digest()).map(|connection| connection.caller.origin(&session.req_header().headers))
}

/// What operators see of a request that was refused or failed.
fn refused(session: &Session, ctx: &Context, status: u16, reason: Reason, at: i64) -> Refused {
    let (method, path) = asked_for(session, ctx);
    Refused {
        at,
        request_id: ctx.request_id().to_owned(),
        peer: peer(session),
        route: ctx.route().map_or_else(String::new, |route| route.name.clone()),
        method: method.to_owned(),
        path: path.to_owned(),
        status,
        reason,
        cause: ctx.cause.clone().unwrap_or_default(),
    }
}

/// What became of a request, in a word: that of `auth_decisions_total`; `observed` in shadow mode, where the decision may come after it; none where its
/// caller gave it up before.
fn decision(ctx: &Context) -> &'static str {
    match (ctx.reason.filter(|reason| !reason.is_upstream()), ctx.route()) {
        (Some(reason), _) => reason.result(),
        (None, Some(route)) if !route.enforce => "observed",
        (None, None) => "",
        _ if ctx.bearer.is_some() => "allowed",
        _ => "public",
    }
}

fn log(session: &Session, ctx: &Context, status: u16, elapsed: Duration) {
    let (method, path) = asked_for(session, ctx);
    let Times { decided, picked, answered } = ctx.times;
    AccessLine {
        request_id: ctx.request_id(),
        peer: peer(session),
        method,
        path,
        route: ctx.route().map_or("", |route| &route.name),
        decision: decision(ctx),
        credential: ctx.trail.credential,
        status,
        reason: ctx.reason.map_or("", Reason::as_str),
        cause: ctx.cause.as_deref().unwrap_or_default(),
        upstream: picked.map(|(_, address)| address),
        body_bytes: session.body_bytes_sent(),
        exchange: decided.map(|decided| decided.saturating_duration_since(ctx.started)),
        upstreams: picked.zip(answered).map(|((picked, _), answered)| answered.saturating_duration_since(picked)),
        elapsed,
    }
    .write();
}

fn end_trace(trace: Trace, session: &Session, ctx: &Context, status: u16) {
    let (method, path) = asked_for(session, ctx);
    let route = ctx.route().map_or("", |route| &route.name);
    // A method of a caller's own making is not part of a name.
    let named = if metrics::is_known(method) { method } else { "HTTP" };
    let attributes = [
        ("http.request.method", method),
        ("url.path", path),
        ("bearerd.route", route),
        ("bearerd.decision", decision(ctx)),
        ("bearerd.reason", ctx.reason.map_or("", Reason::as_str)),
        ("bearerd.request_id", ctx.request_id()),
    ];
    let peer = peer(session).map(|peer| peer.to_string()).unwrap_or_default();
    let attributes = attributes.map(|(key, value)| (key, value.to_owned())).into_iter().chain([("client.address", peer)]);
    trace.end(format!("{named} {route}").trim_end().to_owned(), status, attributes);
}
