//! Requests to a decision listener: the same steps as for a request that goes on, but the answer is the decision.

use std::sync::Arc;

use http::{HeaderValue, StatusCode};
use pingora::proxy::Session;

use super::admission::{Asked, Bearer};
use super::connection::Connection;
use super::context::Context;
use super::{Action, Proxy, answer, request};
use crate::authorize::Circumstances;
use crate::decision::{self, Deciding, Original, Question};
use crate::refusal::{Reason, Refusal};
use crate::routing::Target;
use crate::telemetry::traces;

impl Proxy {
    /// Answers whether the request that the peer tells of may go on, and as whom.
    pub(super) async fn decide(
        &self,
        session: &mut Session,
        ctx: &mut Context,
        connection: &Connection,
        deciding: Deciding,
    ) -> pingora::Result<()> {
        let exchange = ctx.trace.as_ref().and_then(|trace| trace.part("exchange"));
        match traces::during(exchange, self.verdict(session, ctx, connection, deciding)).await {
            Ok((status, headers)) => answer::empty(session, status, headers).await,
            Err(refusal) => self.refuse(session, ctx, &deciding.statuses.put(refusal)).await,
        }
    }

    async fn verdict(
        &self,
        session: &Session,
        ctx: &mut Context,
        connection: &Connection,
        deciding: Deciding,
    ) -> Result<(StatusCode, Vec<(&'static str, HeaderValue)>), Refusal> {
        let asking = request::checked(session, connection)?;
        let header = session.req_header();
        let question = Question {
            method: asking.method,
            uri: &header.uri,
            authority: asking.authority,
            headers: asking.headers,
            trusted: connection.caller.trusted,
        };
        let Original { method, authority, path, query } = question.original(deciding.told_in)?;
        if method.is_none() && ctx.serving.table.reads_methods() {
            let detail = "Routes here differ by method: the proxy that asks must set `X-Original-Method` or `X-Forwarded-Method`.";
            return Err(Refusal::new(Reason::BadRequest, detail));
        }
        let method = method.unwrap_or_else(|| asking.method.clone());
        ctx.asked_for = Some(Box::new((method.clone(), path.to_owned())));
        let serving = Arc::clone(&ctx.serving);
        let place = serving.table.find(&Target { authority, method: &method, path, headers: asking.headers })?;
        ctx.route = Some(place);
        let route = &serving.routes[place];
        if let Action::TokenApi(_) = route.action {
            return Err(Refusal::new(Reason::NoRoute, "The token API is not behind the proxy that asks."));
        }
        // The certificate of the proxy that asks says nothing of its caller.
        let asked = Asked { headers: asking.headers, query, caller: &connection.caller, certificate: None, at: ctx.started };
        if route.enforce {
            let decided = self.admission.decide(route, &asked, &mut ctx.trail).await;
            ctx.times.decided = ctx.clock();
            ctx.bearer = decided.map_err(|denial| {
                ctx.cause = denial.cause;
                denial.refusal
            })?;
        } else {
            self.admission.observe(route, &asked);
        }
        let status = match route.action {
            Action::Respond(status) => deciding.statuses.put_fixed(status),
            _ => StatusCode::OK,
        };
        Ok((status, Self::granted(session, ctx, connection, status)))
    }

    /// What goes on in place of the caller's headers, and which of those must not.
    fn granted(session: &Session, ctx: &Context, connection: &Connection, status: StatusCode) -> Vec<(&'static str, HeaderValue)> {
        let mut headers = Vec::with_capacity(8);
        headers.push(("Cache-Control", HeaderValue::from_static("no-store")));
        let (Some(route), Some(request_id)) = (ctx.route(), &ctx.request_id) else { return headers };
        if !route.enforce {
            return headers;
        }
        // Nothing goes on after a no, and some proxies show all of it to the caller: who has a key need not have the token.
        if status.is_success() {
            if let Some(token) = ctx.bearer.as_ref().map(Bearer::token) {
                headers.push(("Authorization", token.authorization().clone()));
            }
            let circumstances =
                Circumstances { peer: &connection.caller.origin_header(&session.req_header().headers), request_id, certificate: None };
            let told = super::told(route, ctx.bearer.as_ref());
            headers.extend(told.iter().filter_map(|(name, rendered)| Some((*name, rendered.value(&circumstances)?))));
            let doomed = ctx.serving.managed.doomed(&route.removed, &session.req_header().headers);
            headers.extend(decision::removal(doomed, &headers).map(|names| (decision::REMOVE, names)));
        }
        if let (Some(limit), Some(standing)) = (&route.rate_limit, ctx.trail.standing) {
            headers.extend(limit.headers(standing));
        }
        headers
    }
}
