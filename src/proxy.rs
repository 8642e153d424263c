//! The proxy: pingora's phases in order, each a few lines that call the modules of the request path.

pub mod accept;
mod admission;
mod answer;
mod arrival;
mod budget;
mod connection;
mod context;
mod decide;
mod ended;
mod hop_by_hop;
mod http2;
pub mod inject;
pub mod limits;
mod max_forwards;
mod outliving;
mod pulse;
mod request;
mod request_id;
mod route;
mod stream;
mod token_endpoints;
mod unread;
pub mod upstream;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use http::header::{HOST, UPGRADE};
use http::{HeaderValue, StatusCode};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::proxy::{FailToProxy, ProxyHttp, Session};
use pingora::upstreams::peer::{HttpPeer, HttpUpstreamRequestPolicy, Peer as _};
use pingora::{Error, ErrorSource, ErrorType};

use crate::authorize::{Circumstances, Rendered};
use crate::exchange::Exchange;
use crate::refusal::Refusal;
use crate::refusal::recent::Recent;
use crate::routing::{Conditions, Table};
use crate::telemetry::metrics::{Metrics, RouteMetrics};
use crate::telemetry::traces::{self, Traces};

use admission::{Admission, Asked, Bearer};
use connection::{Connection, Mode};
use context::Context;
use inject::{Facts, Managed};
use outliving::Watch;
use unread::wait_for_turn;
use upstream::{Choice, Picked, Upstream};

pub use route::{Access, Action, ResponseHeaders, Route};

/// The proxy app, shared by all requests.
pub struct Proxy {
    /// What requests that begin now are served by.
    serving: Arc<ArcSwap<Serving>>,
    /// What decides.
    admission: Admission,
    /// What operators see of refusals.
    recent: Arc<Recent>,
    /// Where requests are traced.
    traces: Option<Arc<Traces>>,
}

/// One configuration as requests are served by it. A request keeps the one that it began with to its end.
pub struct Serving {
    /// Which requests each route takes.
    table: Table,
    /// The routes in order.
    routes: Vec<Arc<Route>>,
    /// For requests that no route takes.
    unrouted: RouteMetrics,
    /// What no request may carry on.
    managed: Managed,
    /// The share of requests that leave a line in the log, where there are such lines.
    access_log: Option<f64>,
}

impl Serving {
    /// These routes, in order.
    pub fn new(routes: Vec<(Conditions, Arc<Route>)>, unrouted: RouteMetrics, managed: Managed, access_log: Option<f64>) -> Self {
        let (conditions, routes) = routes.into_iter().unzip();
        Self { table: Table::new(conditions), routes, unrouted, managed, access_log }
    }
}

impl Proxy {
    /// A proxy that serves by whatever stands in `serving`.
    pub fn new(
        serving: Arc<ArcSwap<Serving>>,
        exchange: Arc<Exchange>,
        metrics: Arc<Metrics>,
        recent: Arc<Recent>,
        traces: Option<Arc<Traces>>,
    ) -> Self {
        Self { serving, admission: Admission { exchange, metrics }, recent, traces }
    }
}

impl Context {
    fn route(&self) -> Option<&Arc<Route>> {
        self.serving.routes.get(self.route?)
    }

    fn series(&self) -> &RouteMetrics {
        self.route().map_or(&self.serving.unrouted, |route| &route.metrics)
    }

    fn request_id(&self) -> &str {
        self.request_id.as_ref().and_then(|id| id.to_str().ok()).unwrap_or_default()
    }

    fn upstream(&self) -> Option<&Arc<Upstream>> {
        match &self.route()?.action {
            Action::Forward(upstream) => Some(upstream),
            _ => None,
        }
    }
}

impl Proxy {
    /// Everything that is decided before an upstream is asked: the request path of the design up to `authorize`.
    async fn admit(&self, session: &Session, ctx: &mut Context, connection: &Connection) -> Result<(), Refusal> {
        let request = session.req_header();
        let target = request::checked(session, connection)?;
        let serving = Arc::clone(&ctx.serving);
        let place = serving.table.find(&target)?;
        ctx.route = Some(place);
        let route = &serving.routes[place];
        let asked = Asked {
            headers: &request.headers,
            query: request.uri.query(),
            caller: &connection.caller,
            certificate: connection.certificate(),
            at: ctx.started,
        };
        if !route.enforce {
            self.admission.observe(route, &asked);
            return Ok(());
        }
        let decided = self.admission.decide(route, &asked, &mut ctx.trail).await;
        ctx.times.decided = ctx.clock();
        match decided {
            Ok(bearer) => {
                ctx.bearer = bearer;
                Ok(())
            }
            Err(denial) => {
                ctx.cause = denial.cause;
                Err(denial.refusal)
            }
        }
    }

    /// The server that was picked last has failed this request.
    fn leave_alone(&self, ctx: &mut Context) {
        let health = ctx.health.take();
        let (Some(upstream), Some(health)) = (ctx.upstream(), health) else { return };
        if health.failed(upstream.ejection(), ctx.started) {
            tracing::warn!(upstream = upstream.name(), server = %health.address(), "server is left alone: requests to it fail");
        }
        ctx.tried.push(health.address());
    }

    async fn refuse(&self, session: &mut Session, ctx: &mut Context, refusal: &Refusal) -> pingora::Result<()> {
        ctx.series().refused(refusal.reason.result(), refusal.reason.as_str());
        self.answer(session, ctx, refusal).await
    }

    async fn answer(&self, session: &mut Session, ctx: &mut Context, refusal: &Refusal) -> pingora::Result<()> {
        ctx.reason = Some(refusal.reason);
        answer::problem(session, refusal, ctx.request_id.as_ref()).await
    }
}

#[async_trait]
impl ProxyHttp for Proxy {
    // Boxed: pingora moves it from one of its futures into the next.
    type CTX = Box<Context>;

    fn new_ctx(&self) -> Box<Context> {
        Box::new(Context::new(self.serving.load_full(), &self.admission.metrics))
    }

    // No module is wanted: the default would add compression.
    fn init_downstream_modules(&self, _: &mut pingora::modules::http::HttpModules) {}

    async fn request_filter(&self, session: &mut Session, ctx: &mut Self::CTX) -> pingora::Result<bool> {
        ctx.method = session.req_header().method.clone();
        ctx.request_id = Some(request_id::of(session.req_header()));
        if let Some(unread) = &ctx.unread {
            // Here, so that a token is looked for when it is needed.
            wait_for_turn(session, unread.take_place()).await?;
        }
        let Some(connection) = Connection::of(session.digest()) else {
            return Error::e_explain(ErrorType::InternalError, "a request without its connection");
        };
        connection.serve_request();
        ctx.trace = self.traces.as_ref().map(|traces| Box::new(traces.begin(&session.req_header().headers)));
        if let Mode::Decision(deciding) = connection.mode {
            let connection = Arc::clone(connection);
            return self.decide(session, ctx, &connection, deciding).await.map(|()| true);
        }
        let exchange = ctx.trace.as_ref().and_then(|trace| trace.part("exchange"));
        if let Err(refusal) = traces::during(exchange, self.admit(session, ctx, connection)).await {
            self.refuse(session, ctx, &refusal).await?;
            return Ok(true);
        }
        match ctx.route().map(|route| &route.action) {
            Some(Action::Respond(status)) => {
                let status = *status;
                let headers = self.answer_headers(session, ctx);
                answer::empty(session, status, headers).await.map(|()| true)
            }
            Some(Action::TokenApi(token_api)) => {
                let asked = ctx.trace.as_ref().and_then(|trace| trace.part("token API"));
                ctx.reason = traces::during(asked, token_endpoints::serve(session, token_api)).await?;
                let series = ctx.series();
                match ctx.reason {
                    Some(reason) => series.refused(reason.result(), reason.as_str()),
                    None => series.allowed.inc(),
                }
                Ok(true)
            }
            _ if ctx.route().is_some_and(|route| route.enforce) && max_forwards::left(session.req_header()) == Some(0) => {
                let headers = self.answer_headers(session, ctx);
                answer::empty(session, StatusCode::NO_CONTENT, headers).await.map(|()| true)
            }
            _ => Ok(false),
        }
    }

    async fn upstream_peer(&self, session: &mut Session, ctx: &mut Self::CTX) -> pingora::Result<Box<HttpPeer>> {
        if let Some(unread) = &ctx.unread {
            wait_for_turn(session, unread.begin_reading()).await?;
        }
        let Some(upstream) = ctx.upstream() else {
            return Error::e_explain(ErrorType::InternalError, "a route without an upstream");
        };
        let key = || ctx.bearer.as_ref().map_or_else(|| peer_key(session), Bearer::key);
        let Some(Picked { place, mut peer, health }) = upstream.pick(Choice { key: &key, tried: &ctx.tried, at: ctx.started }) else {
            return Err(Error::explain(
                ErrorType::ConnectNoRoute,
                format!("no server of upstream `{}` has an address yet", upstream.name()),
            )
            .into_up());
        };
        let named = ctx.trace.is_some().then(|| upstream.name().to_owned());
        ctx.server = place;
        ctx.health = health;
        ctx.times.picked = ctx.clock().zip(peer.address().as_inet().copied());
        if let (Some(trace), Some(name)) = (&mut ctx.trace, named) {
            trace.ask_upstream(name, peer.address().to_string());
        }
        ctx.tries += 1;
        if let Some(unread) = &ctx.unread {
            let bounds = [peer.options.total_connection_timeout, peer.options.read_timeout, peer.options.write_timeout];
            unread.expect_turns(bounds.iter().flatten().sum());
        }
        if inject::nominates(session.req_header()) {
            if session.req_header().headers.contains_key(UPGRADE) {
                upstream::upgrade::prepare(&mut peer);
            }
        } else if ctx.route().is_some_and(|route| route.enforce) {
            // In shadow mode nothing of ours strips the hop-by-hop headers.
            peer.options.http_upstream_request_policy = HttpUpstreamRequestPolicy::preserve();
        }
        Ok(peer)
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        ctx: &mut Self::CTX,
    ) -> pingora::Result<()> {
        let (Some(route), Some(connection), Some(request_id)) = (ctx.route(), Connection::of(session.digest()), &ctx.request_id) else {
            return Error::e_explain(ErrorType::InternalError, "a request that skipped its first phase");
        };
        let Some(upstream) = ctx.upstream() else {
            return Error::e_explain(ErrorType::InternalError, "a route without an upstream");
        };
        let has_host = request.headers.contains_key(HOST) || request.uri.authority().is_some();
        let host = upstream.host(ctx.server, has_host);
        if !route.enforce {
            return inject::pass_on(request, host);
        }
        let token = ctx.bearer.as_ref().map(Bearer::token);
        let told = told(route, ctx.bearer.as_ref());
        let facts = Facts {
            caller: &connection.caller,
            request_id,
            token,
            compressed: upstream.compresses(),
            told,
            host,
            certificate: connection.certificate(),
            version: session.req_header().version,
        };
        inject::apply(request, &ctx.serving.managed, &route.removed, &facts)?;
        max_forwards::count(request)?;
        for (name, value) in ctx.trace.iter().flat_map(|trace| trace.headers()) {
            request.insert_header(name, value)?;
        }
        let Err(over) = budget::check(session.req_header(), request, upstream) else {
            let bearer = ctx.bearer.as_ref().filter(|_| route.ends_with_token);
            let watch = bearer.and_then(|bearer| Watch::start(&self.admission, route, bearer, connection, ctx.request_id.as_ref()));
            ctx.watch = watch;
            return Ok(());
        };
        let error = Error::explain(ErrorType::InternalError, over.to_string());
        ctx.refusal = Some(over.refusal());
        Err(error)
    }

    /// A 401 to an injected token: once, the request is sent again with another one, where there is one and everything allows it. Only then is an
    /// error raised: a retry that pingora vetoes would turn the upstream's 401 into a 502.
    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Self::CTX,
    ) -> pingora::Result<()> {
        ctx.answered = true;
        ctx.times.answered = ctx.clock();
        if let Some(trace) = &ctx.trace {
            trace.upstream_answered(response.status.as_u16());
        }
        if let Some(health) = &ctx.health {
            health.answered();
        }
        if response.status != StatusCode::UNAUTHORIZED || !ctx.route().is_some_and(|route| route.renew_on_401) {
            return Ok(());
        }
        // A caller's own JWT cannot be replaced.
        let Some(Bearer::Minted(rejected)) = ctx.bearer.clone() else { return Ok(()) };
        let replacement = self.admission.exchange.reject(rejected);
        if !upstream::may_replay(session, ctx.tries) || ctx.replayed {
            return Ok(());
        }
        let arrival = replacement.arrival();
        let arrived = match &ctx.unread {
            Some(unread) => unread.without_turns(arrival).await,
            None => arrival.await,
        };
        let Some(granted) = arrived else { return Ok(()) };
        let bearer = Bearer::Minted(granted);
        if let Some(route) = ctx.route()
            && admission::authorize(route, &bearer).is_err()
        {
            return Ok(());
        }
        ctx.bearer = Some(bearer);
        ctx.replayed = true;
        ctx.answered = false;
        let mut error = Error::explain(ErrorType::HTTPStatus(401), "sent again with another token");
        error.set_retry(true);
        Err(error.into_up())
    }

    async fn response_filter(&self, session: &mut Session, response: &mut ResponseHeader, ctx: &mut Self::CTX) -> pingora::Result<()> {
        hop_by_hop::strip(response);
        // Interim answers (RFC 9110 section 15.2) are not what is meant.
        if !response.status.is_informational() {
            self.edit(session, response, ctx)?;
        }
        if !response.status.is_informational() || response.status == StatusCode::SWITCHING_PROTOCOLS {
            ctx.status = Some(response.status.as_u16());
        }
        answer::keep_after_continue(session);
        answer::announce_end(session);
        Ok(())
    }

    fn response_body_filter(
        &self,
        _: &mut Session,
        body: &mut Option<Bytes>,
        is_last: bool,
        ctx: &mut Self::CTX,
    ) -> pingora::Result<Option<Duration>> {
        if let Some(unread) = &ctx.unread {
            *body = body.take().map(|piece| unread.count(piece, is_last));
        }
        Ok(None)
    }

    /// Nothing was sent yet, so another server may be asked whatever the method.
    fn fail_to_connect(&self, _: &mut Session, _: &HttpPeer, ctx: &mut Self::CTX, mut error: Box<Error>) -> Box<Error> {
        self.leave_alone(ctx);
        let addresses = ctx.upstream().map_or(0, |upstream| upstream.addresses());
        error.set_retry(ctx.tries < addresses);
        error
    }

    /// A server took the request and did not begin to answer: another one is asked where sending it twice does no harm (RFC 9110 section 9.2.2).
    /// A connection that was closed just when the request went out on it is pingora's own reason to try again.
    fn error_while_proxy(
        &self,
        _: &HttpPeer,
        session: &mut Session,
        mut error: Box<Error>,
        ctx: &mut Self::CTX,
        reused: bool,
    ) -> Box<Error> {
        if !upstream::is_repeatable(session) || ctx.answered || session.response_written().is_some() {
            error.set_retry(false);
            return error;
        }
        // The caller has not sent all of its body: that no answer came says nothing about the server, which may wait for it too.
        if *error.etype() == ErrorType::ReadTimedout && !session.is_body_done() {
            error.set_retry(false);
            return error;
        }
        error.retry.decide_reuse(reused);
        // Only where there are several is it known how the one does.
        if *error.esource() == ErrorSource::Upstream && !error.retry() && ctx.health.is_some() {
            self.leave_alone(ctx);
            error.set_retry(ctx.upstream().is_some_and(|upstream| upstream.has_other(&ctx.tried)));
        }
        error
    }

    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, ctx: &mut Self::CTX) -> FailToProxy {
        let failure = answer::failure(error);
        ctx.cause = Some(answer::cause(error));
        if let Some(reason) = failure.filter(|reason| reason.is_upstream()) {
            ctx.series().upstream_error(reason.as_str());
        }
        // The connection is not used again, and the caller must know: its next request would be lost.
        session.set_keepalive(None);
        if let Some(refusal) = ctx.refusal.take() {
            let _ = self.answer(session, ctx, &refusal).await;
            return FailToProxy { error_code: refusal.reason.status().as_u16(), can_reuse_downstream: false };
        }
        let code = match failure {
            Some(reason) if session.response_written().is_none() => {
                let refusal = answer::explained(reason);
                // The caller may be gone; there is nobody to tell.
                let _ = self.answer(session, ctx, &refusal).await;
                reason.status().as_u16()
            }
            reason => {
                ctx.reason = reason;
                0
            }
        };
        FailToProxy { error_code: code, can_reuse_downstream: false }
    }

    /// Logged once, in [`ProxyHttp::logging`].
    fn suppress_error_log(&self, _: &Session, _: &Self::CTX, _: &Error) -> bool {
        true
    }

    async fn logging(&self, session: &mut Session, _: Option<&Error>, ctx: &mut Self::CTX) {
        ended::tell(session, ctx, &self.recent);
    }
}

/// Whom a request without a token comes from, as a number.
fn peer_key(session: &Session) -> u64 {
    let mut hasher = DefaultHasher::new();
    ended::peer(session).hash(&mut hasher);
    hasher.finish()
}

/// What the upstream is told of whoever holds this token.
fn told<'t>(route: &'t Route, bearer: Option<&'t Bearer>) -> &'t [(&'static str, Rendered)] {
    match bearer.filter(|_| !route.policy.is_same_for_all()) {
        Some(bearer) => &bearer.token().judged_by(&route.policy).headers,
        None => route.policy.without_token(),
    }
}

impl Proxy {
    /// What the route changes in its upstream's answer.
    fn edit(&self, session: &Session, response: &mut ResponseHeader, ctx: &Context) -> pingora::Result<()> {
        let Some(route) = ctx.route() else { return Ok(()) };
        for name in &route.response.remove {
            response.remove_header(name);
        }
        for (name, value) in self.answer_headers(session, ctx) {
            response.insert_header(name, value)?;
        }
        Ok(())
    }

    /// What the route's answers carry: what is configured, and where the caller stands with its rate limit.
    fn answer_headers(&self, session: &Session, ctx: &Context) -> Vec<(&'static str, HeaderValue)> {
        let (Some(route), Some(request_id)) = (ctx.route(), &ctx.request_id) else { return Vec::new() };
        let mut headers = Vec::new();
        if let Some(connection) = Connection::of(session.digest()).filter(|_| !route.response.set.is_empty()) {
            let peer = connection.caller.origin_header(&session.req_header().headers);
            let circumstances = Circumstances { peer: &peer, request_id, certificate: connection.certificate() };
            headers.extend(route.response.set.iter().filter_map(|(name, rendered)| Some((*name, rendered.value(&circumstances)?))));
        }
        if let (Some(limit), Some(standing)) = (&route.rate_limit, ctx.trail.standing) {
            headers.extend(limit.headers(standing));
        }
        headers
    }
}
