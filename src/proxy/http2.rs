//! HTTP/2 from callers: many requests on one connection, each a task of its own, and an end in order.
//!
//! pingora brings the loop, but no way to tell one connection that it should end, nor to count its refused streams with our own limits: so this is
//! ours, on pingora's sessions.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use pingora::apps::HttpServerApp;
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::{self, H2Accept, H2Options, HttpSession, default_h2_options};
use pingora::protocols::{Digest, Stream};
use pingora::proxy::HttpProxy;
use pingora::server::ShutdownWatch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time;

use super::Proxy;
use super::connection::{Connection, stopped};
use super::limits::Limits;

/// Requests at one time on a connection (RFC 9113 section 5.1.2 advises no less than 100).
const STREAMS: u32 = 100;
/// Bytes that a caller may send ahead on one stream, and on all of a connection.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Requests at one time on a connection whose streams may be over already: reset, they no longer count as streams, and still are work (CVE-2025-8671).
const REQUESTS: usize = 2 * STREAMS as usize;
/// Streams that break the protocol, or come on top of so many requests, before the connection is given up: each costs us more than its sender (CVE-2025-8671).
const MALFORMED: usize = 32;
/// The time that a caller has to close after its last answer.
const LAST: Duration = Duration::from_secs(1);

fn options(limits: &Limits) -> H2Options {
    let mut options = default_h2_options();
    options
        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
        .max_concurrent_streams(STREAMS)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    options
}

/// What the connections of a listener are served with.
pub(super) struct Serving<'a> {
    pub(super) app: &'a Arc<HttpProxy<Proxy>>,
    pub(super) limits: &'a Limits,
    pub(super) draining: &'a ShutdownWatch,
}

/// Serves a connection until its caller or bearerd ends it.
pub(super) async fn serve(serving: Serving<'_>, stream: Stream, connection: &Connection) {
    let Serving { app, limits, draining } = serving;
    // Shared by all requests: whose connection it is.
    let digest = Arc::new(Digest {
        proxy_digest: stream.get_proxy_digest(),
        socket_digest: stream.get_socket_digest(),
        ssl_digest: None,
        timing_digest: Vec::new(),
    });
    let shaken = time::timeout(limits.header_timeout, server::handshake(stream, Some(options(limits)))).await;
    let Ok(Ok(mut h2)) = shaken else { return };
    connection.share();
    let (mut requests, mut tasks) = (JoinSet::new(), HashMap::new());
    let (mut is_ending, mut malformed) = (false, 0);
    let mut drained = draining.clone();
    loop {
        let has_served = connection.is_in_use();
        // Once it is ending, a caller who keeps it open without a request is not waited for.
        let quiet = if is_ending { LAST } else { limits.idle_timeout };
        tokio::select! {
            biased;
            // A connection that has had no request yet gets one: it was made for it, and the answer will say that it is the last.
            () = stopped(&mut drained), if !is_ending && has_served => {
                h2.graceful_shutdown();
                is_ending = true;
            }
            doomed = connection.doomed() => {
                doomed.iter().filter_map(|request| tasks.get(request)).for_each(AbortHandle::abort);
                if !is_ending {
                    h2.graceful_shutdown();
                    is_ending = true;
                }
            }
            Some(ended) = requests.join_next_with_id(), if !requests.is_empty() => {
                tasks.remove(&ended.map_or_else(|error| error.id(), |(id, _)| id));
            }
            accepted = HttpSession::from_h2_conn(&mut h2, Arc::clone(&digest)) => match accepted {
                Ok(Some(H2Accept::Session(session))) if requests.len() < REQUESTS => {
                    connection.serve_request();
                    let mut session = ServerSession::new_http2(session);
                    session.set_write_timeout(Some(limits.idle_timeout));
                    let (app, draining) = (Arc::clone(app), draining.clone());
                    let task = requests.spawn(async move { app.process_new_http(session, &draining).await });
                    tasks.insert(task.id(), task);
                }
                // The session of one too many goes, and with it its stream.
                Ok(Some(H2Accept::Session(_) | H2Accept::Rejected)) => {
                    malformed += 1;
                    if malformed >= MALFORMED {
                        tracing::debug!(peer = %connection.caller.address, "connection closed: too many malformed requests, or too many at once");
                        break;
                    }
                }
                Ok(None) | Err(_) => break,
            },
            () = time::sleep(quiet), if requests.is_empty() => {
                if is_ending {
                    break;
                }
                h2.graceful_shutdown();
                is_ending = true;
            }
        }
    }
    // What is left of the requests finds its caller gone, and says so in metrics and log.
    drop(h2);
    while requests.join_next().await.is_some() {}
}
