//! HTTP/2 from callers: many requests on one connection, each a task of its own, and an end in order.
//!
//! pingora brings the loop, but no way to tell one connection that it should end, nor to count its refused streams with our own limits: so this is
//! ours, on pingora's sessions.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use pingora::apps::HttpServerApp;
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::{self, H2Accept, H2Options, HttpSession, default_h2_options};
use pingora::protocols::{Digest, Stream};
use pingora::proxy::HttpProxy;
use pingora::server::ShutdownWatch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{self, Instant};

use super::Proxy;
use super::arrival::{Arrival, LOOK, acknowledged};
use super::connection::{Connection, stopped};
use super::limits::Limits;
use super::pulse::Pulse;
use super::unread::{Places, Unread};

/// Bytes that a caller may send ahead on one stream, and on all of a connection.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Requests at one time on a connection, for each stream that it may have: a stream that was reset no longer counts, and its request still is work
/// (CVE-2025-8671).
const REQUESTS_PER_STREAM: usize = 2;
/// Streams that break the protocol, or come on top of so many requests, before the connection is given up: each costs us more than its sender (CVE-2025-8671).
const MALFORMED: usize = 32;
/// How much longer than a piece of one answer a connection may take, so that what is too late for one request does not end the others.
const BEYOND: Duration = Duration::from_secs(1);

fn options(limits: &Limits) -> H2Options {
    let mut options = default_h2_options();
    options
        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
        .max_concurrent_streams(limits.streams)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    options
}

/// Cuts off the requests that will never have a turn again.
fn end_stopped(tasks: &mut [Pulse], now: Instant) {
    for pulse in tasks {
        if pulse.has_stopped(now) {
            tracing::debug!("cut off: a request whose body did not end after its answer had");
            pulse.task.abort();
        }
    }
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
    let socket = stream.get_socket_digest();
    // Shared by all requests: whose connection it is.
    let digest = Arc::new(Digest {
        proxy_digest: stream.get_proxy_digest(),
        socket_digest: socket.clone(),
        ssl_digest: None,
        timing_digest: Vec::new(),
    });
    let mut arrival = socket.clone().map(Arrival::over);
    let shaken = time::timeout(limits.header_timeout, server::handshake(stream, Some(options(limits)))).await;
    let Ok(Ok(mut h2)) = shaken else { return };
    connection.share();
    let (mut requests, mut tasks) = (JoinSet::new(), Vec::<Pulse>::new());
    let most_requests = REQUESTS_PER_STREAM * usize::try_from(limits.streams).unwrap_or(usize::MAX);
    let taken = move || socket.as_deref().and_then(acknowledged);
    let places = Arc::new(Places::new(limits.unread_bytes, limits.idle_timeout + BEYOND, taken));
    let (mut is_ending, mut malformed) = (false, 0);
    let mut drained = draining.clone();
    let mut drained = pin!(stopped(&mut drained));
    let mut doomed = pin!(connection.doomed());
    let mut untaken = pin!(places.untaken());
    let mut quiet = pin!(time::sleep(limits.idle_timeout));
    loop {
        let (has_served, was_ending) = (connection.is_in_use(), is_ending);
        tokio::select! {
            biased;
            // A connection that has had no request yet gets one: it was made for it, and the answer will say that it is the last.
            () = &mut drained, if !is_ending && has_served => is_ending = true,
            ids = &mut doomed => {
                doomed.set(connection.doomed());
                tasks.iter().map(|pulse| &pulse.task).filter(|task| ids.contains(&task.id())).for_each(AbortHandle::abort);
                is_ending = true;
            }
            Some(ended) = requests.join_next_with_id(), if !requests.is_empty() => {
                let id = ended.map_or_else(|error| error.id(), |(id, ())| id);
                if let Some(place) = tasks.iter().position(|pulse| pulse.task.id() == id) {
                    tasks.swap_remove(place);
                }
                if requests.is_empty() {
                    quiet.as_mut().reset(Instant::now() + if is_ending { LOOK } else { limits.idle_timeout });
                }
            }
            // Ahead of what comes: whoever sends without pause would put it off.
            () = &mut quiet => {
                let now = Instant::now();
                if !requests.is_empty() {
                    end_stopped(&mut tasks, now);
                    quiet.as_mut().reset(now + limits.idle_timeout);
                } else if is_ending && !arrival.as_mut().is_some_and(Arrival::goes_on) {
                    break;
                } else {
                    is_ending = true;
                    quiet.as_mut().reset(now + LOOK);
                }
            }
            accepted = HttpSession::from_h2_conn(&mut h2, Arc::clone(&digest)) => match accepted {
                Ok(Some(H2Accept::Session(session))) if requests.len() < most_requests => {
                    connection.serve_request();
                    let mut session = ServerSession::new_http2(session);
                    session.set_write_timeout(Some(limits.idle_timeout));
                    let (app, draining, request) = (Arc::clone(app), draining.clone(), Unread::of(&places));
                    let serving = Arc::clone(&request);
                    let task = requests.spawn(async move { serving.serve(app.process_new_http(session, &draining)).await });
                    tasks.push(Pulse::of(task, request));
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
            () = &mut untaken => {
                tracing::debug!(peer = %connection.caller.address, "connection closed: its caller takes nothing of what it was answered");
                break;
            }
        }
        if is_ending && !was_ending {
            h2.graceful_shutdown();
            // From now on, a caller who keeps it open without a request is waited for only while something is on its way to it.
            quiet.as_mut().reset(Instant::now() + LOOK);
        }
    }
    // What is left of the requests finds its caller gone, and says so in metrics and log; those that wait do not begin.
    places.close();
    drop(h2);
    while requests.join_next().await.is_some() {}
}
