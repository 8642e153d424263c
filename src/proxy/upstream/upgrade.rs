//! Connections for requests that ask for an upgrade (RFC 9110 section 7.8): WebSockets.
//!
//! pingora 0.9.1 takes an upstream's 101 for the end of the stream when it reads it before it has taken note that the request has no body: both are ready
//! at once when the upstream is quick or we are slow, and then chance decides. So what answers a request is readable only at the second look, by when the
//! first has dealt with the body.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use async_trait::async_trait;
use pingora::connectors::L4Connect;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::protocols::l4::stream::Stream;
use pingora::protocols::l4::virt::{VirtualSockOpt, VirtualSocket, VirtualSocketStream};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Has a peer be connected to in this way, on a connection that no other request uses.
pub(in crate::proxy) fn prepare(peer: &mut HttpPeer) {
    /// Unlike any generation: those count up from one.
    const APART: u64 = 1 << 63;
    peer.group_key |= APART;
    peer.options.custom_l4 = Some(Arc::new(Dial));
}

#[derive(Debug)]
struct Dial;

#[async_trait]
impl L4Connect for Dial {
    async fn connect(&self, address: &SocketAddr) -> pingora::Result<Stream> {
        let SocketAddr::Inet(address) = address else { return Error::e_explain(ErrorType::ConnectError, "not an address of the network") };
        let kind = |error: &io::Error| match error.kind() {
            io::ErrorKind::ConnectionRefused => ErrorType::ConnectRefused,
            _ => ErrorType::ConnectError,
        };
        let tcp = TcpStream::connect(address).await;
        let tcp = tcp.map_err(|error| Error::because(kind(&error), format!("Fail to connect to {address}"), error).into_up())?;
        Ok(VirtualSocketStream::new(Box::new(SecondLook { tcp, wrote: false })).into())
    }
}

/// A stream whose answers are there at the second look only.
#[derive(Debug)]
struct SecondLook {
    tcp: TcpStream,
    /// Something was written since the last read.
    wrote: bool,
}

impl VirtualSocket for SecondLook {
    fn set_socket_option(&self, option: VirtualSockOpt) -> io::Result<()> {
        match option {
            VirtualSockOpt::NoDelay => self.tcp.set_nodelay(true),
            _ => Ok(()),
        }
    }
}

impl AsyncRead for SecondLook {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if std::mem::take(&mut self.wrote) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Pin::new(&mut self.tcp).poll_read(cx, buf)
    }
}

impl AsyncWrite for SecondLook {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(&mut self.tcp).poll_write(cx, bytes))?;
        self.wrote = true;
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}
