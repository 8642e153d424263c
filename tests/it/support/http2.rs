//! HTTP/2 at both ends: a client, and an upstream that records.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::client::Transport;
use super::events::{Gate, Log, PATIENCE};
use super::server::Server;
use super::tls::Authority;

/// A caller's connection.
pub struct Connection {
    pub requests: SendRequest<Bytes>,
    ended: JoinHandle<Result<(), h2::Error>>,
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    pub head: http::response::Parts,
    pub body: Vec<u8>,
    pub trailers: Option<HeaderMap>,
}

impl Connection {
    pub async fn over(transport: impl Transport + 'static) -> Self {
        // A stream that is not read must not take all of the connection's window from the others.
        let (requests, connection) = h2::client::Builder::new().initial_connection_window_size(1 << 20).handshake(transport).await.unwrap();
        Self { requests, ended: tokio::spawn(connection) }
    }

    /// Without TLS.
    pub async fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.unwrap()).await
    }

    /// Begins a request; the body goes on through the stream.
    pub async fn begin(&mut self, request: Request<()>, end: bool) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
        tokio::time::timeout(PATIENCE, self.requests.clone().ready()).await.unwrap()?.send_request(request, end)
    }

    /// A request without a body.
    pub async fn get(&mut self, path: &str, headers: &[(&str, &str)]) -> Answer {
        let request = request("GET", path, headers);
        let (answer, _) = self.begin(request, true).await.unwrap();
        whole(answer).await.unwrap()
    }

    /// How the connection ended; panics where it goes on for a minute.
    pub async fn ended(self) -> Result<(), h2::Error> {
        drop(self.requests);
        tokio::time::timeout(PATIENCE, self.ended).await.expect("the end of the connection").unwrap()
    }
}

/// A request for `app.test`.
pub fn request(method: &str, path: &str, headers: &[(&str, &str)]) -> Request<()> {
    let mut request = Request::builder().method(method).uri(format!("http://app.test{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap()
}

/// The rest of an answer.
pub async fn whole(answer: ResponseFuture) -> Result<Answer, h2::Error> {
    let (head, body) = tokio::time::timeout(PATIENCE, answer).await.expect("an answer")?.into_parts();
    let (body, trailers) = rest(body).await?;
    Ok(Answer { head, body, trailers })
}

/// What is still to come of a body, and its trailers.
pub async fn rest(mut stream: RecvStream) -> Result<(Vec<u8>, Option<HeaderMap>), h2::Error> {
    let mut body = Vec::new();
    while let Some(data) = tokio::time::timeout(PATIENCE, stream.data()).await.expect("the rest of the body") {
        let data = data?;
        stream.flow_control().release_capacity(data.len())?;
        body.extend_from_slice(&data);
    }
    Ok((body, stream.trailers().await?))
}

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Received {
    pub method: String,
    pub authority: Option<String>,
    pub target: String,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    pub trailers: Option<HeaderMap>,
}

/// An upstream that speaks HTTP/2: it answers 200 with the body that it got, and the trailer `grpc-status: 0`. On `/wait` the answer's body waits.
pub struct Upstream {
    pub server: Server,
    pub requests: Log<Received>,
    pub gate: Gate,
}

impl Upstream {
    pub async fn start(tls: Option<(&Authority, &str, &'static [&'static [u8]])>) -> Self {
        let (requests, gate) = (Log::default(), Gate::closed());
        let acceptor = tls.map(|(authority, name, protocols)| authority.acceptor(name, false, protocols));
        let (log, wait) = (requests.clone(), gate.clone());
        let server = Server::start(move |_, stream| {
            let (acceptor, log, wait) = (acceptor.clone(), log.clone(), wait.clone());
            async move {
                match acceptor {
                    Some(acceptor) => {
                        if let Ok(stream) = acceptor.accept(stream).await {
                            serve(stream, log, wait).await;
                        }
                    }
                    None => serve(stream, log, wait).await,
                }
            }
        })
        .await;
        Self { server, requests, gate }
    }

    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    pub fn last(&self) -> Received {
        self.requests.all().pop().expect("the upstream was asked")
    }
}

async fn serve(stream: impl Transport + 'static, log: Log<Received>, gate: Gate) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let (log, gate) = (log.clone(), gate.clone());
        tokio::spawn(async move {
            let (head, body) = request.into_parts();
            let Ok((body, trailers)) = rest(body).await else { return };
            // The other side may be gone.
            let Ok(mut answer) = respond.send_response(Response::new(()), false) else { return };
            if head.uri.path() == "/wait" {
                let _ = answer.send_data("begun".into(), false);
                gate.passed().await;
            }
            log.push(Received {
                method: head.method.to_string(),
                authority: head.uri.authority().map(ToString::to_string),
                target: head.uri.path_and_query().unwrap().to_string(),
                headers: head.headers,
                body: body.clone(),
                trailers,
            });
            let _ = answer.send_data(body.into(), false);
            let _ = answer.send_trailers(HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())]));
        });
    }
}
