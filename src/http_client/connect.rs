//! Connections to a server that bearerd calls: name lookup, TCP and TLS within one time-out, and a watch on each for staleness.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{Extensions, Uri};
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::Error as ClientError;
use hyper_util::client::legacy::connect::dns::{GaiAddrs, GaiResolver, Name};
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tower_service::Service;

use crate::tls::client::Trust;

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Connecting<T> = Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send>>;

/// What no library error tells by its type.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Lookup, TCP and TLS together took too long.
    #[error("connecting timed out after {}", humantime::format_duration(*.0))]
    TimedOut(Duration),
    /// The name has no address, or no name server answers.
    #[error("DNS lookup of {name} failed: {source}")]
    Lookup {
        /// The name.
        name: String,
        /// What the system's resolver says.
        source: io::Error,
    },
}

/// Connects over TCP, with TLS where the URL says so, within a time-out for all of it.
#[derive(Clone)]
pub struct Connector {
    http: HttpConnector<Resolver>,
    trust: Arc<Trust>,
    timeout: Duration,
}

impl Connector {
    /// Connects with this TLS set-up as it is then, within `timeout`.
    pub fn new(trust: Arc<Trust>, timeout: Duration) -> Self {
        let mut http = HttpConnector::new_with_resolver(Resolver(GaiResolver::new()));
        http.enforce_http(false);
        http.set_nodelay(true);
        // Shared out among the addresses of a name, so that one that does not answer leaves time for the next.
        http.set_connect_timeout(Some(timeout));
        Self { http, trust, timeout }
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Watched>;
    type Error = BoxError;
    type Future = Connecting<Self::Response>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.http.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let mut https = HttpsConnector::from((self.http.clone(), self.trust.current()));
        let (connecting, timeout) = (https.call(uri), self.timeout);
        Box::pin(async move {
            let stream = tokio::time::timeout(timeout, connecting).await.map_err(|_| ConnectError::TimedOut(timeout))??;
            Ok(TokioIo::new(Watched { stream: TokioIo::new(stream), watch: Watch::default() }))
        })
    }
}

/// The system's resolver, with an error that can be told from others.
#[derive(Clone)]
pub struct Resolver(GaiResolver);

impl Service<Name> for Resolver {
    type Response = GaiAddrs;
    type Error = BoxError;
    type Future = Connecting<GaiAddrs>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let text = name.to_string();
        let looking = self.0.call(name);
        Box::pin(async move { looking.await.map_err(|source| ConnectError::Lookup { name: text, source }.into()) })
    }
}

/// Whether a request failed only because its connection, used before, had been closed meanwhile: no byte of an answer to it came.
pub fn went_stale(error: &ClientError) -> bool {
    let mut extras = Extensions::new();
    if let Some(info) = error.connect_info() {
        info.get_extras(&mut extras);
    }
    extras.get::<Watch>().is_some_and(|watch| watch.reused.load(Ordering::Acquire) && !watch.answered.load(Ordering::Acquire))
}

/// How far the newest request of a connection has come.
#[derive(Clone, Default)]
struct Watch {
    /// An earlier request was answered on this connection.
    reused: Arc<AtomicBool>,
    /// Bytes came in since the newest request went out.
    answered: Arc<AtomicBool>,
}

/// A connection that notes what goes over it, for [`went_stale`].
pub struct Watched {
    stream: TokioIo<MaybeHttpsStream<TokioIo<TcpStream>>>,
    watch: Watch,
}

impl Watched {
    fn sending(&self) {
        if self.watch.answered.swap(false, Ordering::AcqRel) {
            self.watch.reused.store(true, Ordering::Release);
        }
    }
}

impl Connection for Watched {
    fn connected(&self) -> Connected {
        self.stream.inner().connected().extra(self.watch.clone())
    }
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        if buffer.filled().len() > before {
            self.watch.answered.store(true, Ordering::Release);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.sending();
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, context: &mut Context<'_>, slices: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.sending();
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
