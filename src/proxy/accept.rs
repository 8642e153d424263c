//! The accept loop, and how connections end.
//!
//! pingora's own server cannot drain as callers need it: it sleeps its whole grace period, then kills tasks. So its proxy app runs on this loop, which
//! also gives early bind errors, port 0, and limits on connections. Ending goes in this order: every answer says `Connection: close`; no more is
//! accepted; connections that stay idle are closed; requests in flight finish.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use pingora::apps::{HttpPersistentSettings, HttpServerApp, ReusedHttpStream};
use pingora::protocols::Stream;
use pingora::protocols::http::ServerSession;
use pingora::proxy::HttpProxy;
use pingora::server::ShutdownWatch;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time;
use tokio_rustls::server::TlsStream;

use super::Proxy;
pub use super::connection::Mode;
use super::connection::{Connection, Idle, stopped};
use super::http2;
use super::inject::Caller;
use super::limits::{Limits, Seats};
use super::stream::{CallerStream, Framing, next_request};
use crate::telemetry::metrics::Metrics;
use crate::tls::client_certificate;
use crate::tls::server::Listening;

/// The wait after an `accept` that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// While draining, an idle connection is given this long to send the request that may be on its way.
const IDLE_GRACE: Duration = Duration::from_millis(500);

/// What a listener's callers speak.
pub enum Transport {
    /// HTTP/1.1 without TLS.
    Plain,
    /// HTTP/2 without TLS, and nothing else.
    H2c,
    /// TLS, with either in it.
    Tls(Arc<Listening>),
}

/// A bound listener and the proxy behind it.
pub struct Listener {
    /// The socket.
    pub socket: TcpListener,
    /// How connections that come now are received.
    pub reception: Arc<ArcSwap<Reception>>,
    /// What serves them.
    pub app: Arc<HttpProxy<Proxy>>,
}

/// How a listener receives connections. Each keeps to what it was received with.
pub struct Reception {
    /// What becomes of its requests.
    pub mode: Mode,
    /// What its callers speak.
    pub transport: Transport,
    /// What its callers may take.
    pub limits: Limits,
}

impl Listener {
    /// Accepts until `stop`, and what the kernel has accepted by then; later callers are refused, while the others are still served. `draining` makes
    /// answers say `Connection: close`.
    pub async fn run(self, connections: Arc<Connections>, draining: ShutdownWatch, mut stop: ShutdownWatch) {
        let Self { socket, reception, app } = self;
        let door = Arc::new(Door { reception, app, seats: Arc::default(), connections, draining });
        loop {
            tokio::select! {
                biased;
                () = stopped(&mut stop) => break,
                accepted = socket.accept() => match accepted {
                    Ok((tcp, peer)) => door.admit(tcp, peer.ip()),
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be accepted");
                        time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        if let Err(error) = door.admit_last(socket) {
            tracing::warn!(%error, "the connections that came last could not be accepted");
        }
    }
}

/// What a listener's connections share. Not the socket: it closes while they are still served.
struct Door {
    reception: Arc<ArcSwap<Reception>>,
    app: Arc<HttpProxy<Proxy>>,
    seats: Arc<Seats>,
    connections: Arc<Connections>,
    draining: ShutdownWatch,
}

impl Door {
    /// Admits what the kernel has accepted. Asks the kernel itself: tokio knows of a connection only after it has polled for one.
    fn admit_last(self: &Arc<Self>, socket: TcpListener) -> io::Result<()> {
        let socket = socket.into_std()?;
        loop {
            match socket.accept() {
                Ok((tcp, peer)) => {
                    tcp.set_nonblocking(true)?;
                    self.admit(TcpStream::from_std(tcp)?, peer.ip());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    fn admit(self: &Arc<Self>, tcp: TcpStream, peer: IpAddr) {
        let Self { seats, connections, .. } = &**self;
        let reception = self.reception.load_full();
        let Reception { mode, transport, limits } = &*reception;
        let peer = peer.to_canonical();
        let admission = match seats.admit(peer, limits, &connections.metrics) {
            Ok(admission) => admission,
            Err(limit) => {
                connections.metrics.connection_refused(limit);
                tracing::debug!(%peer, limit, "connection closed: too many");
                return;
            }
        };
        // Only a hint to the kernel: without it answers still arrive.
        let _ = tcp.set_nodelay(true);
        let trusted = limits.trusted_peers.iter().any(|network| network.contains(&peer));
        let idle = Idle::new(Arc::clone(&connections.ticks), ticks(limits.idle_timeout));
        let caller = Caller::new(peer, trusted, matches!(transport, Transport::Tls(_)));
        let connection = Arc::new(Connection::new(caller, *mode, limits, idle, self.draining.clone(), admission));
        let place = connections.enter(&connection);
        let door = Arc::clone(self);
        let serving = Arc::clone(&connection);
        let task = tokio::spawn(async move {
            let _place = place;
            if let Err(error) = door.serve(tcp, serving, &reception).await {
                tracing::error!(%error, "a connection could not be set up");
            }
        });
        connection.serve_in(task.abort_handle());
    }

    /// What few connections need is boxed: the task of each would be as large as the largest of these.
    async fn serve(&self, tcp: TcpStream, connection: Arc<Connection>, reception: &Reception) -> pingora::Result<()> {
        let Reception { transport, limits, .. } = reception;
        match transport {
            Transport::Plain => {
                let stream = CallerStream::new(tcp.as_raw_fd(), tcp, Arc::clone(&connection), limits, Framing::Http1)?;
                self.serve_http1(Box::new(stream), &connection, limits).await;
                Ok(())
            }
            Transport::H2c => Box::pin(self.serve_h2c(tcp, connection, limits)).await,
            Transport::Tls(listening) => {
                let fd = tcp.as_raw_fd();
                let Some(tls) = Box::pin(self.shake_hands(tcp, listening, &connection, limits.header_timeout)).await else { return Ok(()) };
                let is_http2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
                let framing = if is_http2 { Framing::Http2 } else { Framing::Http1 };
                let stream: Stream = Box::new(CallerStream::new(fd, *tls, Arc::clone(&connection), limits, framing)?);
                if is_http2 {
                    Box::pin(self.serve_http2(stream, &connection, limits)).await;
                } else {
                    self.serve_http1(stream, &connection, limits).await;
                }
                Ok(())
            }
        }
    }

    /// A TLS connection, and on `connection` the certificate that its caller showed.
    async fn shake_hands(
        &self,
        tcp: TcpStream,
        listening: &Listening,
        connection: &Connection,
        timeout: Duration,
    ) -> Option<Box<TlsStream<TcpStream>>> {
        let shaken = time::timeout(timeout, listening.acceptor().accept(tcp)).await;
        let Ok(Ok(tls)) = shaken else {
            self.connections.metrics.connection_refused("tls_handshake");
            let cause =
                shaken.map_or_else(|_| "too slow".to_owned(), |shaken| shaken.err().map(|error| error.to_string()).unwrap_or_default());
            tracing::debug!(peer = %connection.caller.address, cause, "connection closed: no TLS handshake");
            return None;
        };
        if let Some(shown) = tls.get_ref().1.peer_certificates().and_then(<[_]>::first) {
            match client_certificate::read(shown) {
                Ok(certificate) => connection.show_certificate(certificate),
                Err(error) => tracing::warn!(peer = %connection.caller.address, %error, "a client certificate cannot be read"),
            }
        }
        Some(Box::new(tls))
    }

    async fn serve_h2c(&self, tcp: TcpStream, connection: Arc<Connection>, limits: &Limits) -> pingora::Result<()> {
        let is_http2 = time::timeout(limits.header_timeout, begins_http2(&tcp)).await.unwrap_or_default();
        let framing = if is_http2 { Framing::Http2 } else { Framing::Http1 };
        let stream = CallerStream::new(tcp.as_raw_fd(), tcp, Arc::clone(&connection), limits, framing)?;
        if is_http2 {
            self.serve_http2(Box::new(stream), &connection, limits).await
        } else {
            stream.refuse_http1().await
        }
        Ok(())
    }

    async fn serve_http2(&self, stream: Stream, connection: &Connection, limits: &Limits) {
        http2::serve(http2::Serving { app: &self.app, limits, draining: &self.draining }, stream, connection).await;
    }

    /// Serves one connection, request after request.
    async fn serve_http1(&self, stream: Stream, connection: &Connection, limits: &Limits) {
        let mut next = self.app.process_new_http(first_session(stream, limits), &self.draining).await;
        while let Some((stream, settings)) = next.map(ReusedHttpStream::consume) {
            connection.await_request();
            let Some(stream) = next_request(stream).await else { return };
            next = self.app.process_new_http(next_session(stream, settings, limits), &self.draining).await;
        }
    }
}

/// pingora sets no bound of its own on writes, and one on reads that nobody can set: a caller who reads nothing, or stops within a body, would hold the
/// connection, and the upstream's.
fn session(stream: Stream, limits: &Limits) -> ServerSession {
    let mut session = ServerSession::new_http1(stream);
    session.set_read_timeout(Some(limits.idle_timeout));
    session.set_write_timeout(Some(limits.idle_timeout));
    session
}

// Sessions are made in functions of their own: one that stood in `serve_http1` would stay part of its task while another is served.

fn first_session(stream: Stream, limits: &Limits) -> ServerSession {
    let mut session = session(stream, limits);
    // pingora counts in whole seconds. Later requests are awaited without a timer: see `Connections::sweep`.
    session.set_keepalive(Some(limits.header_timeout.as_secs().max(1)));
    // Else a request that comes while another is served would break that one's answer off (RFC 9112 section 9.3.2). pingora hands this on to the
    // connection's later sessions.
    session.set_pipelining_enabled(true);
    session
}

fn next_session(stream: Stream, settings: Option<HttpPersistentSettings>, limits: &Limits) -> ServerSession {
    let mut session = session(stream, limits);
    if let Some(settings) = settings {
        settings.apply_to_session(&mut session);
    }
    session
}

/// Whether a connection begins as HTTP/2 does (RFC 9113 section 3.4), as far as its first bytes tell. Takes nothing from it.
async fn begins_http2(tcp: &TcpStream) -> bool {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let mut first = [0; PREFACE.len()];
    tcp.peek(&mut first).await.is_ok_and(|count| count > 0 && PREFACE.starts_with(&first[..count]))
}

/// The time between two sweeps for idle connections.
const TICK: Duration = Duration::from_secs(1);

fn ticks(span: Duration) -> u32 {
    u32::try_from(span.as_secs()).unwrap_or(u32::MAX / 2)
}

/// By number.
type Open = HashMap<u64, Arc<Connection>>;

/// All open connections of all listeners.
pub struct Connections {
    open: Mutex<Open>,
    next: AtomicU64,
    ticks: Arc<AtomicU32>,
    changed: Notify,
    metrics: Arc<Metrics>,
}

impl Connections {
    /// None yet.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { open: Mutex::default(), next: AtomicU64::new(0), ticks: Arc::default(), changed: Notify::new(), metrics }
    }

    fn enter(self: &Arc<Self>, connection: &Arc<Connection>) -> Place {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.lock().insert(id, Arc::clone(connection));
        Place { id, connections: Arc::clone(self) }
    }

    /// Closes connections that are idle for longer than they may; up to a second late. Runs for as long as its task does.
    pub async fn sweep(self: Arc<Self>) {
        loop {
            time::sleep(TICK).await;
            self.ticks.fetch_add(1, Ordering::Relaxed);
            self.abort(Connection::close_if_idle_for_too_long);
        }
    }

    /// How many are open.
    pub fn open(&self) -> usize {
        self.lock().len()
    }

    /// Ends all connections: those that stay idle after a moment, the others when their request is served; whatever is left after `timeout` at once.
    /// Returns how many had to be cut off.
    pub async fn drain(&self, timeout: Duration) -> usize {
        let finish = async {
            // Again and again: a connection whose answer began before the end was announced does not know that it should close.
            loop {
                self.abort(Connection::close_if_still_idle);
                if time::timeout(IDLE_GRACE, self.emptied()).await.is_ok() {
                    return;
                }
            }
        };
        if time::timeout(timeout, finish).await.is_ok() {
            return 0;
        }
        self.abort(|_| true)
    }

    async fn emptied(&self) {
        loop {
            let changed = self.changed.notified();
            if self.lock().is_empty() {
                return;
            }
            changed.await;
        }
    }

    fn abort(&self, which: impl Fn(&Connection) -> bool) -> usize {
        let open = self.lock();
        let chosen = open.values().filter(|connection| which(connection));
        chosen.fold(0, |count, connection| {
            connection.end();
            count + 1
        })
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's place among the open ones, given up however its task ends.
struct Place {
    id: u64,
    connections: Arc<Connections>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.connections.lock();
        open.remove(&self.id);
        if open.is_empty() {
            self.connections.changed.notify_waiters();
        }
    }
}
