//! The floor: pingora passing requests through, built like bearerd and on the same kind of accept loop, doing nothing else.
//!
//!     bare_pingora LISTEN_PORT UPSTREAM_PORT

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use pingora::apps::ServerApp;
use pingora::protocols::l4::stream::Stream;
use pingora::proxy::{ProxyHttp, Session, http_proxy};
use pingora::server::configuration::ServerConf;
use pingora::upstreams::peer::HttpPeer;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

struct PassThrough(SocketAddr);

#[async_trait]
impl ProxyHttp for PassThrough {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _: &mut Session, (): &mut ()) -> pingora::Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.0, false, String::new())))
    }
}

fn main() {
    let mut ports = std::env::args().skip(1).map(|port| SocketAddr::from(([127, 0, 0, 1], port.parse().expect("a port"))));
    let (listen, upstream) = (ports.next().expect("a port to listen on"), ports.next().expect("the upstream's port"));
    let conf = ServerConf { threads: 1, max_retries: 3, upstream_keepalive_pool_size: 256, ..ServerConf::default() };
    let app = Arc::new(http_proxy(&Arc::new(conf), PassThrough(upstream)));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async move {
        let listener = tokio::net::TcpListener::bind(listen).await.unwrap();
        let (_keep, shutdown) = tokio::sync::watch::channel(false);
        // A task of the runtime's worker: `block_on` itself runs on the main thread.
        let accepting = tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                tcp.set_nodelay(true).unwrap();
                let (app, shutdown) = (Arc::clone(&app), shutdown.clone());
                tokio::spawn(async move {
                    let mut stream = Some(Box::new(buffered::Buffered::new(Stream::from(tcp))) as pingora::protocols::Stream);
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
