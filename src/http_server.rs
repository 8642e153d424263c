//! A small HTTP/1.1 server for what is not proxied (token service, metrics, admin, webhook): bounds on connections and header sections, an orderly end.

use std::future::ready;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::tls::server::Listening;

/// Bytes of a header section.
const HEADER_BYTES: usize = 64 * 1024;
/// Time for a header section to arrive, and for a kept-alive connection to stay idle.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// Time for requests in flight to end after the shutdown.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Time until the next try when the system accepts nothing, as when it is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Time for a TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves `router` on `listener` until `shutdown` is done, and then for at most 5 s the requests that are in flight. At most `connections` are served
/// at one time; the next ones wait in the listener's backlog.
pub async fn serve(router: Router, listener: TcpListener, connections: usize, shutdown: impl Future<Output = ()>) {
    serve_over(router, listener, connections, shutdown, |stream| ready(Some(stream))).await;
}

/// The same over TLS, as its files say at each handshake.
pub async fn serve_tls(router: Router, listener: TcpListener, tls: Arc<Listening>, connections: usize, shutdown: impl Future<Output = ()>) {
    let greet = move |stream| {
        let acceptor = tls.acceptor();
        async move {
            let shaken = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await;
            match shaken {
                Ok(Ok(stream)) => return Some(stream),
                Ok(Err(error)) => tracing::debug!(%error, "no TLS handshake"),
                Err(_) => tracing::debug!("no TLS handshake in time"),
            }
            None
        }
    };
    serve_over(router, listener, connections, shutdown, greet).await;
}

/// `greet` makes what HTTP goes over of a connection, in the connection's own task; none where nothing comes of it.
async fn serve_over<S, F>(
    router: Router,
    listener: TcpListener,
    connections: usize,
    shutdown: impl Future<Output = ()>,
    greet: impl Fn(TcpStream) -> F,
) where
    F: Future<Output = Option<S>> + Send + 'static,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = TowerToHyperService::new(router);
    let slots = Arc::new(Semaphore::new(connections));
    let graceful = GracefulShutdown::new();
    tokio::pin!(shutdown);
    loop {
        let (stream, slot) = tokio::select! {
            () = &mut shutdown => break,
            accepted = accept(&listener, &slots) => match accepted {
                Ok(accepted) => accepted,
                // The client gave up in the backlog.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        let (greeted, service, watcher) = (greet(stream), service.clone(), graceful.watcher());
        tokio::spawn(async move {
            if let Some(stream) = greeted.await {
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEADER_TIMEOUT)
                    .max_buf_size(HEADER_BYTES)
                    .serve_connection(TokioIo::new(stream), service);
                if let Err(error) = watcher.watch(connection).await {
                    tracing::debug!(%error, "a connection broke");
                }
            }
            drop(slot);
        });
    }
    drop(listener);
    // Whoever is still at it after this time is cut off when the process or its runtime ends.
    let _ = tokio::time::timeout(DRAIN_TIMEOUT, graceful.shutdown()).await;
}

async fn accept(listener: &TcpListener, slots: &Arc<Semaphore>) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    // Without it answers are only slower.
    let _ = stream.set_nodelay(true);
    Ok((stream, slot))
}
