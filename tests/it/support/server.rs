//! A TCP server on a free port, a task a connection, that can be stopped and started again where it was.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use super::events::Log;

type Handler = Arc<dyn Fn(usize, TcpStream) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// Hands each connection, with its number from 0 on, to a handler. Stops when dropped.
pub struct Server {
    address: SocketAddr,
    handler: Handler,
    accepted: Log<SocketAddr>,
    accepting: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens on a free port of 127.0.0.1.
    pub async fn start<F: Future<Output = ()> + Send + 'static>(handler: impl Fn(usize, TcpStream) -> F + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let mut server = Self {
            address: listener.local_addr().unwrap(),
            handler: Arc::new(move |number, stream| Box::pin(handler(number, stream))),
            accepted: Log::default(),
            accepting: None,
        };
        server.accept_on(listener);
        server
    }

    fn accept_on(&mut self, listener: TcpListener) {
        let (handler, accepted) = (self.handler.clone(), self.accepted.clone());
        self.accepting = Some(tokio::spawn(async move {
            // Dropped with this task, and the connections with it.
            let mut connections = JoinSet::new();
            loop {
                let (stream, peer) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                connections.spawn(handler(accepted.count(|_| true), stream));
                accepted.push(peer);
                while connections.try_join_next().is_some() {}
            }
        }));
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections so far.
    pub fn connections(&self) -> usize {
        self.accepted.count(|_| true)
    }

    /// Stops listening and drops all connections: new ones are refused.
    pub async fn stop(&mut self) {
        if let Some(task) = self.accepting.take() {
            task.abort();
            let _ = task.await;
        }
    }

    /// Listens again on the same port.
    pub async fn restart(&mut self) {
        self.stop().await;
        self.accept_on(TcpListener::bind(self.address).await.unwrap());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(task) = &self.accepting {
            task.abort();
        }
    }
}

/// Ends a connection by RST in place of FIN.
pub fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO)).unwrap();
}

#[tokio::test]
async fn it_stops_and_comes_back_on_the_same_port() {
    let mut server = Server::start(|_, stream| async move { reset(stream) }).await;
    let address = server.address();
    TcpStream::connect(address).await.unwrap();
    server.accepted.wait_for(1, |_| true).await;
    server.stop().await;
    assert!(TcpStream::connect(address).await.is_err());
    server.restart().await;
    TcpStream::connect(address).await.unwrap();
    server.accepted.wait_for(2, |_| true).await;
    assert_eq!(server.connections(), 2);
}
