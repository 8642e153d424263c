//! Active health checks: each address of an upstream is asked again and again, with TLS and protocol as requests are.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use http::header::{HOST, USER_AGENT};
use pingora::connectors::http::Connector;
use pingora::http::RequestHeader;
use pingora::upstreams::peer::HttpPeer;
use tokio::task::JoinSet;
use tokio::time;

use super::Upstream;
use super::server::Health;

/// What is asked, and when.
#[derive(Clone, Debug)]
pub struct HealthCheck {
    /// The path, with GET.
    pub path: String,
    /// The time between two requests to a server.
    pub interval: Duration,
    /// Time for the answer.
    pub timeout: Duration,
    /// Bad answers in a row after which a server is passed over.
    pub failures: u32,
}

/// Asks for as long as the process lives; returns at once where nothing is to be asked.
pub(super) async fn keep(upstream: Arc<Upstream>) {
    let Some(check) = upstream.manner.health_check.clone() else { return };
    let connector = Arc::new(Connector::new(None));
    loop {
        let mut asked = JoinSet::new();
        for peer in upstream.peers.load().iter() {
            let (connector, check, upstream) = (Arc::clone(&connector), check.clone(), Arc::clone(&upstream));
            let (address, health, host) = (peer.address.clone(), Arc::clone(&peer.health), upstream.host(peer.place, false).cloned());
            asked.spawn(async move {
                let outcome = time::timeout(check.timeout, ask(&connector, &address, &check.path, host)).await;
                let outcome = outcome.unwrap_or_else(|_| Err(format!("no answer within {}", humantime::format_duration(check.timeout))));
                tell(&upstream, &health, check.failures, outcome);
            });
        }
        // Servers that answer late do not delay the next round by more than their time-out.
        time::sleep(check.interval).await;
        while asked.join_next().await.is_some() {}
    }
}

fn tell(upstream: &Upstream, health: &Health, failures: u32, outcome: Result<(), String>) {
    let changed = health.checked(outcome.is_ok(), failures);
    match outcome {
        Ok(()) if changed => tracing::info!(upstream = upstream.name(), server = %health.address(), "server is healthy again"),
        Err(cause) if changed => tracing::warn!(upstream = upstream.name(), server = %health.address(), cause, "server is unhealthy"),
        _ => {}
    }
}

async fn ask(connector: &Connector, peer: &HttpPeer, path: &str, host: Option<HeaderValue>) -> Result<(), String> {
    // What pingora says of a failure names addresses and figures; nothing of an answer is in it that we would not have asked for.
    let failed = |error: Box<pingora::Error>| error.reason_str().to_owned();
    let (mut session, _) = connector.get_http_session(peer).await.map_err(failed)?;
    let mut request = RequestHeader::build("GET", path.as_bytes(), Some(4)).map_err(failed)?;
    if let Some(host) = host {
        request.insert_header(HOST, host).map_err(failed)?;
    }
    request.insert_header(USER_AGENT, HeaderValue::from_static("bearerd-health-check")).map_err(failed)?;
    session.write_request_header(Box::new(request)).await.map_err(failed)?;
    session.finish_request_body().await.map_err(failed)?;
    session.read_response_header().await.map_err(failed)?;
    let status = session.response_header().map(|answer| answer.status);
    session.shutdown().await;
    match status {
        Some(status) if status.is_success() || status.is_redirection() => Ok(()),
        Some(status) => Err(format!("status {}", status.as_u16())),
        None => Err("no answer".to_owned()),
    }
}
