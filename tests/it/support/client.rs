//! A client that sends exactly the bytes it is given.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufStream};
use tokio::net::{TcpSocket, TcpStream};

use super::events::PATIENCE;
use super::http::{Body, Head, read_body, read_head};

/// One connection, kept alive.
pub struct Client(BufStream<Box<dyn Transport>>);

/// What bytes go over: TCP, or TLS in it.
pub trait Transport: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Transport for T {}

/// A whole response.
#[derive(Clone, Debug)]
pub struct Response {
    pub status: u16,
    pub head: Head,
    pub body: Body,
}

impl Response {
    /// The first value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.header(name)
    }
}

impl Client {
    /// Connects, over TCP.
    pub async fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).await.unwrap()
    }

    /// Speaks over a connection that is there.
    pub fn over(transport: impl Transport + 'static) -> Self {
        Self(BufStream::new(Box::new(transport)))
    }

    /// Connects to a server that may have stopped listening.
    pub async fn try_connect(address: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self::over(stream))
    }

    /// Connects from this address of our own.
    pub async fn connect_from(own: Ipv4Addr, address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((own, 0).into()).unwrap();
        Self::over(socket.connect(address).await.unwrap())
    }

    /// Connects as one for whom the system takes few bytes ahead, so that what is not read stays with the other side.
    pub async fn connect_with_room(bytes: u32, address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(bytes).unwrap();
        Self::over(socket.connect(address).await.unwrap())
    }

    /// Sends raw bytes.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).await.unwrap();
    }

    /// Sends raw bytes to a server that may have closed.
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.0.write_all(bytes.as_ref()).await?;
        self.0.flush().await
    }

    /// Sends all that `bytes` has.
    pub async fn send_all(&mut self, mut bytes: impl AsyncBufRead + Unpin) {
        tokio::io::copy_buf(&mut bytes, &mut self.0).await.unwrap();
        self.0.flush().await.unwrap();
    }

    /// The head of the next response, an interim one (100) too.
    pub async fn head(&mut self) -> Head {
        patient(read_head(&mut self.0)).await.unwrap().expect("a response, not the end of the connection")
    }

    /// The next response with its body, an interim one (100) too. Not for HEAD: see [`Client::head`].
    pub async fn receive(&mut self) -> Response {
        self.try_receive().await.expect("a whole response, not the end of the connection")
    }

    /// The next response with its body; none where the connection ends before or within it.
    pub async fn try_receive(&mut self) -> Option<Response> {
        let head = patient(read_head(&mut self.0)).await.ok()??;
        let body = patient(read_body(&mut self.0, head.response_framing())).await.ok()?;
        Some(Response { status: head.word(1).parse().unwrap(), head, body })
    }

    /// Reads exactly this many bytes, of a body that is still coming.
    pub async fn bytes(&mut self, count: usize) -> Vec<u8> {
        self.try_bytes(count).await.expect("bytes, not the end of the connection")
    }

    /// As [`Client::bytes`]; none where the connection ends before.
    pub async fn try_bytes(&mut self, count: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; count];
        patient(self.0.read_exact(&mut bytes)).await.ok().map(|_| bytes)
    }

    /// All bytes until the other side closes or resets.
    pub async fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let _ = patient(self.0.read_to_end(&mut bytes)).await;
        bytes
    }

    /// Returns once there is something to read, or the end of the connection; takes nothing of it.
    pub async fn heard(&mut self) {
        let _ = patient(self.0.fill_buf()).await;
    }

    /// Returns once the other side has closed in order, without another byte; a reset could have cost the caller the answer before it.
    pub async fn closed(&mut self) {
        let mut bytes = Vec::new();
        let read = patient(self.0.read_to_end(&mut bytes)).await;
        assert!(read.is_ok() && bytes.is_empty(), "{read:?} after `{}`", bytes.escape_ascii());
    }

    /// Sends raw bytes and receives the response.
    pub async fn exchange(&mut self, bytes: impl AsRef<[u8]>) -> Response {
        self.send(bytes).await;
        self.receive().await
    }

    /// Sends raw bytes and receives the response; none where the connection ends before or within it.
    pub async fn exchange_or_end(&mut self, bytes: impl AsRef<[u8]>) -> Option<Response> {
        // It may have ended already.
        let _ = self.try_send(bytes).await;
        self.try_receive().await
    }

    /// Sends a request without a body and receives the response.
    pub async fn get(&mut self, path: &str, headers: &[(&str, &str)]) -> Response {
        let lines: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        self.send(format!("GET {path} HTTP/1.1\r\nHost: app.test\r\n{lines}\r\n")).await;
        self.receive().await
    }
}

/// One GET on a connection of its own.
pub async fn get(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Response {
    Client::connect(address).await.get(path, headers).await
}

/// A peer that goes silent fails the test, in place of hanging it.
async fn patient<T>(reading: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, reading).await.expect("an answer or the end of the connection within a minute")
}
