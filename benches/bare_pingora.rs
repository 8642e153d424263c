//! The floor: pingora passing requests through, built like bearerd and on the same kind of accept loop, doing nothing else.
//!
//!     bare_pingora LISTEN_PORT UPSTREAM_PORT
//!     bare_pingora LISTEN_PORT UPSTREAM_PORT h2c               HTTP/2 without TLS on both sides
//!     bare_pingora LISTEN_PORT UPSTREAM_PORT tls CERT KEY      TLS towards callers

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use pingora::apps::{HttpServerOptions, ServerApp};
use pingora::listeners::tls::TlsSettings;
use pingora::protocols::l4::stream::Stream;
use pingora::proxy::{ProxyHttp, Session, http_proxy};
use pingora::server::configuration::ServerConf;
use pingora::upstreams::peer::{ALPN, HttpPeer};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

struct PassThrough {
    upstream: SocketAddr,
    http2: bool,
}

#[async_trait]
impl ProxyHttp for PassThrough {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _: &mut Session, (): &mut ()) -> pingora::Result<Box<HttpPeer>> {
        let mut peer = HttpPeer::new(self.upstream, false, String::new());
        if self.http2 {
            peer.options.alpn = ALPN::H2;
            peer.options.max_h2_streams = 100;
        }
        Ok(Box::new(peer))
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let port = |place: usize| SocketAddr::from(([127, 0, 0, 1], arguments[place].parse().expect("a port")));
    let (listen, upstream) = (port(0), port(1));
    let http2 = arguments.get(2).is_some_and(|mode| mode == "h2c");
    let tls = arguments.get(2).is_some_and(|mode| mode == "tls").then(|| {
        let settings = TlsSettings::intermediate(&arguments[3], &arguments[4]).expect("a certificate and its key");
        Arc::new(settings.build())
    });
    let conf = ServerConf { threads: 1, max_retries: 3, upstream_keepalive_pool_size: 256, ..ServerConf::default() };
    let mut app = http_proxy(&Arc::new(conf), PassThrough { upstream, http2 });
    let mut options = HttpServerOptions::default();
    options.h2c = http2;
    app.server_options = Some(options);
    let app = Arc::new(app);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async move {
        let listener = tokio::net::TcpListener::bind(listen).await.unwrap();
        let (_keep, shutdown) = tokio::sync::watch::channel(false);
        // A task of the runtime's worker: `block_on` itself runs on the main thread.
        let accepting = tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                tcp.set_nodelay(true).unwrap();
                let (app, shutdown, tls) = (Arc::clone(&app), shutdown.clone(), tls.clone());
                tokio::spawn(async move {
                    let plain = buffered::Buffered::new(Stream::from(tcp));
                    let mut stream: Option<pingora::protocols::Stream> = match &tls {
                        Some(tls) => tls.tls_handshake(plain).await.ok().map(|stream| Box::new(stream) as _),
                        None => Some(Box::new(plain)),
                    };
                    while let Some(next) = stream {
                        stream = app.process_new(next, &shutdown).await;
                    }
                });
            }
        });
        accepting.await.unwrap();
    });
}

/// Header and body in one send, as pingora's own listener has it: unbuffered, the floor would be 3 us too high.
mod buffered {
    use std::io;
    use std::pin::Pin;
    use std::sync::Arc;
    use std::task::{Context, Poll};

    use async_trait::async_trait;
    use pingora::protocols::l4::stream::Stream;
    use pingora::protocols::raw_connect::ProxyDigest;
    use pingora::protocols::{
        GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest, UniqueID, UniqueIDType,
    };
    use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufWriter, ReadBuf};

    #[derive(Debug)]
    pub struct Buffered(BufWriter<Stream>);

    impl Buffered {
        pub fn new(stream: Stream) -> Self {
            Self(BufWriter::with_capacity(4096, stream))
        }
    }

    impl AsyncRead for Buffered {
        fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_read(cx, buf)
        }
    }

    impl AsyncWrite for Buffered {
        fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            Pin::new(&mut self.0).poll_write(cx, buf)
        }
        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_flush(cx)
        }
        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_shutdown(cx)
        }
    }

    #[async_trait]
    impl Shutdown for Buffered {
        async fn shutdown(&mut self) {
            let _ = self.0.shutdown().await;
        }
    }

    impl UniqueID for Buffered {
        fn id(&self) -> UniqueIDType {
            self.0.get_ref().id()
        }
    }

    impl Ssl for Buffered {}
    impl Peek for Buffered {}

    impl GetTimingDigest for Buffered {
        fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
            self.0.get_ref().get_timing_digest()
        }
    }

    impl GetProxyDigest for Buffered {
        fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
            None
        }
    }

    impl GetSocketDigest for Buffered {
        fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
            self.0.get_ref().get_socket_digest()
        }
    }
}
