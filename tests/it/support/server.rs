//! A TCP server on a free port, a task a connection, that can be stopped and started again where it was.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use socket2::SockRef;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use super::events::{Log, PATIENCE};

/// A connection that takes longer on loopback finds the queue full.
const FULL: std::time::Duration = std::time::Duration::from_millis(300);

type Handler = Arc<dyn Fn(usize, TcpStream) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// Hands each connection, with its number from 0 on, to a handler. Stops when dropped.
pub struct Server {
    address: SocketAddr,
    handler: Handler,
    accepted: Log<SocketAddr>,
    accepting: Option<JoinHandle<()>>,
    /// What fills the queue of a listener that accepts nobody.
    blocking: Option<(TcpListener, Vec<TcpStream>)>,
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
            blocking: None,
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
        self.blocking = None;
        if let Some(task) = self.accepting.take() {
            task.abort();
            let _ = task.await;
        }
    }

    /// Drops all connections, and neither takes nor refuses new ones, as a firewall that drops packets: its queue is full.
    pub async fn block(&mut self) {
        self.stop().await;
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(self.address).unwrap();
        let listener = socket.listen(0).unwrap();
        let mut waiting = Vec::new();
        // The kernel answers on loopback at once as long as there is room, and never after that.
        while let Ok(stream) = tokio::time::timeout(FULL, TcpStream::connect(self.address)).await {
            waiting.push(stream.unwrap());
        }
        self.blocking = Some((listener, waiting));
    }

    /// Listens again on the same port.
    pub async fn restart(&mut self) {
        self.stop().await;
        // Who was in the queue of a listener before may still hold the port for a moment.
        let bound = async {
            loop {
                if let Ok(listener) = TcpListener::bind(self.address).await {
                    return listener;
                }
                tokio::task::yield_now().await;
            }
        };
        let listener = tokio::time::timeout(PATIENCE, bound).await.expect("the port again");
        self.accept_on(listener);
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
    server.block().await;
    assert!(tokio::time::timeout(FULL, TcpStream::connect(address)).await.is_err(), "neither taken nor refused");
    server.restart().await;
    TcpStream::connect(address).await.unwrap();
    server.accepted.wait_for(3, |_| true).await;
}
