//! The stream that pingora reads and writes: it bounds header sections, and sends answers neither in pieces nor late.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::os::fd::RawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use pingora::http::ResponseHeader;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, Stream, TimingDigest, UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufWriter, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use super::arrival::{Arrival, LOOK, acknowledged};
use super::connection::Connection;
use super::limits::Limits;
use super::request_id;
use crate::refusal::{Reason, Refusal};

/// How long the rest of a refused request is read and thrown away: closed with unread bytes, the connection would be reset and the answer lost on
/// its way.
pub(super) const LINGER: Duration = Duration::from_secs(1);

/// The stream of a connection: buffered, so that header and body leave in one send, and with a deadline on header sections.
pub(super) struct CallerStream<T> {
    inner: BufWriter<T>,
    fd: RawFd,
    framing: Framing,
    connection: Arc<Connection>,
    /// pingora hands this to every request of the connection; it carries the [`Connection`].
    digest: Arc<ProxyDigest>,
    socket: Arc<SocketDigest>,
    header_timeout: Duration,
    /// Time for the caller to take some of what is written.
    write_timeout: Duration,
    /// Runs while a header section has begun and is not complete.
    deadline: Option<Pin<Box<Sleep>>>,
    /// The write at hand, where it waits for the caller.
    stall: Option<Stall>,
    /// Bytes of the header section so far; what follows it in the last read is counted too.
    section: usize,
    /// Runs while what still comes is thrown away.
    linger: Option<Pin<Box<Sleep>>>,
    /// What the caller has not got yet of an HTTP/2 connection that has ended.
    arrival: Option<Arrival>,
}

/// A write that waits.
struct Stall {
    /// The next look at whether the caller takes anything.
    over: Pin<Box<Sleep>>,
    /// Bytes that it had taken at the last one, where the system tells.
    taken: Option<Option<u64>>,
}

/// Whose messages go over it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// HTTP/1: header sections are ours to bound.
    Http1,
    /// HTTP/2: frames, which have bounds and flushes of their own.
    Http2,
}

/// A transport under HTTP: TCP, or TLS over it.
pub(super) trait Transport: AsyncRead + AsyncWrite + Unpin + Send + Sync + 'static {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + Sync + 'static> Transport for T {}

/// As much as a usual answer; larger writes pass it by.
const WRITE_BUFFER: usize = 4096;
/// Bytes that are thrown away at a time.
const WASTE: usize = 4096;

impl<T: Transport> CallerStream<T> {
    /// Over `transport`, whose socket is `fd`.
    pub(super) fn new(fd: RawFd, transport: T, connection: Arc<Connection>, limits: &Limits, framing: Framing) -> pingora::Result<Self> {
        let response = Box::new(ResponseHeader::build(200, Some(0))?);
        let digest = Arc::new(ProxyDigest::new(response, Some(Box::new(Arc::clone(&connection)))));
        let socket = Arc::new(SocketDigest::from_raw_fd(fd));
        Ok(Self {
            inner: BufWriter::with_capacity(WRITE_BUFFER, transport),
            fd,
            framing,
            connection,
            digest,
            socket,
            header_timeout: limits.header_timeout,
            write_timeout: limits.idle_timeout,
            deadline: None,
            stall: None,
            section: 0,
            linger: None,
            arrival: None,
        })
    }

    /// Answers 408 and ends the connection once a begun header section is late.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let timeout = self.header_timeout;
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + timeout)));
        ready!(deadline.as_mut().poll(cx));
        let refusal = Refusal::new(Reason::HeaderTimeout, "The header section of the request did not arrive in time.");
        Poll::Ready(self.refuse(cx, &refusal, io::ErrorKind::TimedOut))
    }

    /// Answers in place of pingora, which knows of no request yet, and makes it end the connection.
    fn refuse(&mut self, cx: &mut Context<'_>, refusal: &Refusal, kind: io::ErrorKind) -> io::Result<()> {
        // A fresh connection's send buffer takes this at once; where it does not, the caller reads nothing anyway.
        let _ = Pin::new(self.inner.get_mut()).poll_write(cx, last_answer(refusal).as_bytes());
        // In TLS what was written waits for this.
        let _ = Pin::new(self.inner.get_mut()).poll_flush(cx);
        Err(io::Error::new(kind, refusal.reason.as_str()))
    }

    /// Passes on what became of a write, or ends a caller who takes nothing for too long: pingora bounds the writes of bodies alone.
    fn bounded<R>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        if written.is_ready() {
            self.stall = None;
            return written;
        }
        let timeout = self.write_timeout;
        let stall = self.stall.get_or_insert_with(|| Stall { over: Box::pin(sleep(timeout)), taken: None });
        while stall.over.as_mut().poll(cx).is_ready() {
            // Asked for late, since most writes wait for a moment only: so it takes twice the time to be sure.
            let taken = acknowledged(&self.socket);
            if stall.taken.replace(taken).is_some_and(|before| before == taken) {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            stall.over.as_mut().reset(Instant::now() + timeout);
        }
        Poll::Pending
    }

    /// Answers a caller who speaks HTTP/1 where only HTTP/2 is spoken.
    pub(super) async fn refuse_http1(mut self) {
        let detail =
            "This listener speaks HTTP/2 without TLS (`h2c`), and nothing else: begin with its preface (`curl --http2-prior-knowledge`).";
        let _ = self.inner.write_all(last_answer(&Refusal::new(Reason::BadRequest, detail)).as_bytes()).await;
        let _ = self.inner.shutdown().await;
        poll_fn(|cx| self.poll_rest(cx)).await;
    }

    /// Reads and throws away until the caller closes, or for [`LINGER`].
    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let over = self.linger.get_or_insert_with(|| Box::pin(sleep(LINGER)));
        if over.as_mut().poll(cx).is_ready() { Poll::Ready(()) } else { self.poll_waste(cx) }
    }

    /// The same, for as long as something is on its way to the caller.
    fn poll_arrival(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let socket = &self.socket;
        let arrival = self.arrival.get_or_insert_with(|| Arrival::over(Arc::clone(socket)));
        if self.linger.is_none() && !arrival.goes_on() {
            return Poll::Ready(());
        }
        let look = self.linger.get_or_insert_with(|| Box::pin(sleep(LOOK)));
        while look.as_mut().poll(cx).is_ready() {
            if !arrival.goes_on() {
                return Poll::Ready(());
            }
            look.as_mut().reset(Instant::now() + LOOK);
        }
        self.poll_waste(cx)
    }

    /// Reads and throws away until the caller closes.
    fn poll_waste(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut waste = [0; WASTE];
        loop {
            let mut buf = ReadBuf::new(&mut waste);
            match ready!(Pin::new(self.inner.get_mut()).poll_read(cx, &mut buf)) {
                Ok(()) if !buf.filled().is_empty() => {}
                _ => return Poll::Ready(()),
            }
        }
    }
}

impl CallerStream<TcpStream> {
    /// Ready once there is something to read of the next request, or nothing more to come.
    fn poll_next_request(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // As in `poll_read`: whoever waits has nothing more to write.
        let _ = Pin::new(&mut self.inner).poll_flush(cx);
        // Bytes that were read ahead would not come again.
        if self.connection.has_all(self.section) { self.inner.get_ref().poll_read_ready(cx).map(drop) } else { Poll::Ready(()) }
    }
}

/// Waits for the next request of a kept connection where that can be seen from outside: without TLS, and with nothing of it read yet. Otherwise, returns at
/// once. What pingora holds for a request, some 20 KiB, is not held meanwhile. `None` cannot be.
pub(super) async fn next_request(stream: Stream) -> Option<Stream> {
    if !stream.as_any().is::<CallerStream<TcpStream>>() {
        return Some(stream);
    }
    let mut plain = stream.into_any().downcast::<CallerStream<TcpStream>>().ok()?;
    poll_fn(|cx| plain.poll_next_request(cx)).await;
    Some(plain)
}

fn last_answer(refusal: &Refusal) -> String {
    let request_id = request_id::fresh();
    let body = String::from_utf8_lossy(&refusal.body(request_id.to_str().unwrap_or_default())).into_owned();
    let headers: String =
        refusal.headers().iter().map(|(name, value)| format!("{name}: {}\r\n", value.to_str().unwrap_or_default())).collect();
    let status = refusal.status();
    format!(
        "HTTP/1.1 {} {}\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        status.as_str(),
        status.canonical_reason().unwrap_or_default(),
        body.len()
    )
}

impl<T: Transport> AsyncRead for CallerStream<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.framing == Framing::Http2 {
            return Pin::new(&mut self.inner).poll_read(cx, buf);
        }
        // More is asked for, so the section goes on. pingora itself would keep a mebibyte of it.
        if self.section > self.connection.header_bytes && self.connection.in_header() {
            let detail =
                format!("The header section has more than {} bytes, which are the most that are taken.", self.connection.header_bytes);
            let refusal = Refusal::new(Reason::HeaderTooLarge, detail);
            return Poll::Ready(self.refuse(cx, &refusal, io::ErrorKind::InvalidData));
        }
        let before = buf.filled().len();
        match Pin::new(&mut self.inner).poll_read(cx, buf) {
            Poll::Ready(outcome) => {
                // The first byte of a request: from here on the connection is not idle, unless it was closed a moment ago.
                if buf.filled().len() > before && !self.connection.in_request() {
                    self.deadline = None;
                    self.section = 0;
                    if !self.connection.begin_request() {
                        buf.set_filled(before);
                    }
                }
                self.section = self.section.saturating_add(buf.filled().len() - before);
                Poll::Ready(outcome)
            }
            Poll::Pending if self.connection.in_header() => self.poll_deadline(cx),
            Poll::Pending => {
                // Whoever waits has nothing more to write for now: the caller gets what there is, or a slow body would leave it without even a
                // status. A failure shows in the next write.
                let _ = Pin::new(&mut self.inner).poll_flush(cx);
                Poll::Pending
            }
        }
    }
}

impl<T: Transport> AsyncWrite for CallerStream<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, buf);
        let written = ready!(self.bounded(cx, written))?;
        if self.framing == Framing::Http1 && !self.connection.writes_header() {
            // Some of a body: pingora itself flushes one of known length only at its end, and a slow one should arrive as it comes. What the kernel
            // does not take now goes with the next write.
            let _ = Pin::new(&mut self.inner).poll_flush(cx)?;
        }
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.inner).poll_flush(cx);
        self.bounded(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.inner).poll_shutdown(cx);
        ready!(self.bounded(cx, shut))?;
        match self.framing {
            Framing::Http2 => self.poll_arrival(cx).map(Ok),
            // Refused by pingora's parser: the caller may still be sending.
            Framing::Http1 if self.connection.in_header() => self.poll_rest(cx).map(Ok),
            Framing::Http1 => Poll::Ready(Ok(())),
        }
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.bounded(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[async_trait]
impl<T: Transport> Shutdown for CallerStream<T> {
    async fn shutdown(&mut self) {
        // The caller may be gone already; there is nobody to tell.
        let _ = poll_fn(|cx| {
            let shut = Pin::new(&mut self.inner).poll_shutdown(cx);
            self.bounded(cx, shut)
        })
        .await;
    }
}

impl<T: Transport> UniqueID for CallerStream<T> {
    fn id(&self) -> UniqueIDType {
        self.fd
    }
}

impl<T: Transport> Ssl for CallerStream<T> {}

impl<T: Transport> Peek for CallerStream<T> {}

impl<T: Transport> GetTimingDigest for CallerStream<T> {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl<T: Transport> GetProxyDigest for CallerStream<T> {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        Some(Arc::clone(&self.digest))
    }
}

impl<T: Transport> GetSocketDigest for CallerStream<T> {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        Some(Arc::clone(&self.socket))
    }
}

impl<T: Transport> fmt::Debug for CallerStream<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "connection from {}", self.connection.caller.address)
    }
}
