//! An upstream that records what reaches it, byte for byte, and answers as it is told.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::events::{Gate, Log};
use super::http::{Body, Head, read_body, read_head};
use super::server::{self, Server};

/// What an upstream does with a request.
#[derive(Clone)]
pub enum Reply {
    /// This status, these headers and this body, with its length.
    Fixed { status: u16, headers: Vec<(String, String)>, body: Vec<u8> },
    /// 200 and the request's own header lines, then as many bytes of no meaning.
    Mirror(usize),
    /// 200 and these chunks.
    Chunked(Vec<Vec<u8>>),
    /// 200 and this many bytes, as [`pattern`] makes them.
    Stream(u64),
    /// 200 and a body of which the second part comes when the gate opens.
    Gated { first: Vec<u8>, gate: Gate, second: Vec<u8> },
    /// 200, and the connection ends with the response.
    Close,
    /// Answers with this status before the body of the request is read, then closes without reading it.
    Early(u16),
    /// These bytes before the body of the request is read; what comes of that is thrown away.
    Ahead(Vec<u8>),
    /// This text, then whatever comes is sent back.
    Echo(String),
    /// These bytes, whatever they are; then closes.
    Raw(Vec<u8>),
    /// A reset before the first byte of an answer.
    Reset,
    /// A reset in the middle of the body.
    ResetMidway,
    /// No answer as long as the connection is open.
    Hang,
}

impl Reply {
    /// This status with an empty body.
    pub fn status(status: u16) -> Self {
        Self::Fixed { status, headers: Vec::new(), body: Vec::new() }
    }

    fn ok() -> Self {
        Self::Fixed { status: 200, headers: vec![("Content-Type".into(), "application/json".into())], body: br#"{"ok":true}"#.to_vec() }
    }
}

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Received {
    /// Which connection it came on, from 0.
    pub connection: usize,
    pub head: Head,
    pub body: Body,
}

impl Received {
    /// The request's method.
    pub fn method(&self) -> &str {
        self.head.word(0)
    }

    /// The request's target, as in the request line.
    pub fn target(&self) -> &str {
        self.head.word(1)
    }
}

#[derive(Clone)]
struct State {
    started: Log<Head>,
    requests: Log<Received>,
    queue: Arc<Mutex<VecDeque<Reply>>>,
    standing: Arc<Mutex<Reply>>,
    continues: Arc<Mutex<bool>>,
}

/// See the module.
pub struct RecordingUpstream {
    server: Server,
    state: State,
}

impl RecordingUpstream {
    /// Listens on a free port; answers 200 with a little JSON until told otherwise.
    pub async fn start() -> Self {
        let state = State {
            started: Log::default(),
            requests: Log::default(),
            queue: Arc::default(),
            standing: Arc::new(Mutex::new(Reply::ok())),
            continues: Arc::new(Mutex::new(true)),
        };
        let theirs = state.clone();
        let server = Server::start(move |number, stream| {
            let state = theirs.clone();
            // The other side may leave at any time: that is no fault of the test.
            async move { drop(serve(number, stream, &state).await) }
        })
        .await;
        Self { server, state }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// The same behind TLS, at an address of its own.
    pub async fn in_tls(&self, acceptor: TlsAcceptor) -> Server {
        let address = self.address();
        Server::start(move |_, stream| {
            let acceptor = acceptor.clone();
            async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let mut inner = TcpStream::connect(address).await.unwrap();
                // Either side may leave at any time.
                let _ = tokio::io::copy_bidirectional(&mut stream, &mut inner).await;
            }
        })
        .await
    }

    /// Does this with the next request that none is queued for.
    pub fn reply_next(&self, reply: Reply) {
        self.state.queue.lock().unwrap().push_back(reply);
    }

    /// Does this with every request that none is queued for.
    pub fn reply_always(&self, reply: Reply) {
        *self.state.standing.lock().unwrap() = reply;
    }

    /// Whether `Expect: 100-continue` is answered with 100 before the body is read. It is, until told otherwise.
    pub fn answer_expect(&self, answers: bool) {
        *self.state.continues.lock().unwrap() = answers;
    }

    /// All requests that arrived whole.
    pub fn requests(&self) -> Vec<Received> {
        self.state.requests.all()
    }

    /// Returns once this many requests arrived whole.
    pub async fn wait_for_requests(&self, wanted: usize) {
        self.state.requests.wait_for(wanted, |_| true).await;
    }

    /// The heads of all requests, whether or not their bodies arrived.
    pub fn started(&self) -> Vec<Head> {
        self.state.started.all()
    }

    /// Returns once this many heads arrived.
    pub async fn wait_for_started(&self, wanted: usize) {
        self.state.started.wait_for(wanted, |_| true).await;
    }

    /// Connections so far.
    pub fn connections(&self) -> usize {
        self.server.connections()
    }

    /// Drops all connections and refuses new ones.
    pub async fn stop(&mut self) {
        self.server.stop().await;
    }

    /// Drops all connections, and neither takes nor refuses new ones.
    pub async fn block(&mut self) {
        self.server.block().await;
    }

    /// Listens again on the same port.
    pub async fn restart(&mut self) {
        self.server.restart().await;
    }
}

/// The bytes of [`Reply::Stream`]: what position holds what tells a shift from a loss.
pub fn pattern(length: u64) -> impl AsyncRead + Unpin {
    let table = (0..PERIOD).cycle().take(64 * 1024 + usize::from(PERIOD)).collect();
    Pattern { at: 0, length, table }
}

/// Prime, so that no power of two is a multiple of it.
const PERIOD: u8 = 251;

struct Pattern {
    at: u64,
    length: u64,
    /// The pattern, long enough to copy from in large pieces: a gibibyte takes a while otherwise.
    table: Vec<u8>,
}

impl AsyncRead for Pattern {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        let left = usize::try_from(self.length - self.at).unwrap_or(usize::MAX);
        let start = usize::try_from(self.at % u64::from(PERIOD)).unwrap();
        let part = buffer.remaining().min(left).min(self.table.len() - start);
        buffer.put_slice(&self.table[start..start + part]);
        self.at += part as u64;
        std::task::Poll::Ready(Ok(()))
    }
}

/// What becomes of a connection after an answer.
enum After {
    Kept,
    Closed,
    Reset,
}

async fn serve(number: usize, stream: TcpStream, state: &State) -> std::io::Result<()> {
    let mut stream = BufReader::with_capacity(64 * 1024, stream);
    while let Some(head) = read_head(&mut stream).await? {
        match exchange(number, &mut stream, head, state).await? {
            After::Kept => {}
            After::Closed => return stream.shutdown().await,
            After::Reset => {
                server::reset(stream.into_inner());
                return Ok(());
            }
        }
    }
    Ok(())
}

async fn exchange(number: usize, stream: &mut BufReader<TcpStream>, head: Head, state: &State) -> std::io::Result<After> {
    state.started.push(head.clone());
    let queued = state.queue.lock().unwrap().pop_front();
    let reply = queued.unwrap_or_else(|| state.standing.lock().unwrap().clone());
    if let Reply::Early(status) = reply {
        stream.write_all(format!("HTTP/1.1 {status} Told\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").as_bytes()).await?;
        return Ok(After::Closed);
    }
    if let Reply::Ahead(answer) = reply {
        stream.write_all(&answer).await?;
        tokio::io::copy(stream, &mut tokio::io::sink()).await?;
        return Ok(After::Closed);
    }
    let continues = *state.continues.lock().unwrap();
    if continues && head.header("expect").is_some() {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
    }
    let body = read_body(stream, head.request_framing()).await?;
    let (closes, bodiless) = (head.closes(), head.word(0) == "HEAD");
    let reply = if let Reply::Mirror(padding) = reply { mirrored(&head, padding) } else { reply };
    state.requests.push(Received { connection: number, head, body });
    let after = answer(stream, reply, bodiless).await?;
    Ok(if closes && matches!(after, After::Kept) { After::Closed } else { after })
}

fn mirrored(head: &Head, padding: usize) -> Reply {
    let mut body: Vec<u8> = head.headers.iter().flat_map(|(name, value)| format!("{name}: {value}\n").into_bytes()).collect();
    body.resize(body.len() + padding, b'.');
    Reply::Fixed { status: 200, headers: Vec::new(), body }
}

async fn answer(stream: &mut BufReader<TcpStream>, reply: Reply, bodiless: bool) -> std::io::Result<After> {
    match reply {
        Reply::Fixed { status, headers, body } => {
            let lines: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
            // RFC 9110 section 8.6: no length with 1xx and 204.
            let length = if status == 204 { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
            let mut message = format!("HTTP/1.1 {status} Told\r\n{lines}{length}\r\n").into_bytes();
            if !bodiless && !matches!(status, 204 | 304) {
                message.extend(body);
            }
            stream.write_all(&message).await?;
        }
        Reply::Chunked(chunks) => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await?;
            for chunk in chunks.iter().filter(|chunk| !chunk.is_empty()) {
                stream.write_all(&[format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat()).await?;
            }
            stream.write_all(b"0\r\n\r\n").await?;
        }
        Reply::Stream(length) => {
            stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").as_bytes()).await?;
            let mut bytes = BufReader::with_capacity(64 * 1024, pattern(length));
            tokio::io::copy_buf(&mut bytes, stream).await?;
        }
        Reply::Gated { first, gate, second } => {
            let length = first.len() + second.len();
            stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").as_bytes()).await?;
            stream.write_all(&first).await?;
            gate.passed().await;
            stream.write_all(&second).await?;
        }
        Reply::Close => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok").await?;
            return Ok(After::Closed);
        }
        Reply::Echo(head) => {
            stream.write_all(head.as_bytes()).await?;
            let mut some = [0; 1024];
            loop {
                let count = stream.read(&mut some).await?;
                if count == 0 {
                    return Ok(After::Closed);
                }
                stream.write_all(&some[..count]).await?;
            }
        }
        Reply::Raw(bytes) => {
            stream.write_all(&bytes).await?;
            return Ok(After::Closed);
        }
        Reply::ResetMidway => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf").await?;
            return Ok(After::Reset);
        }
        Reply::Early(_) | Reply::Ahead(_) | Reply::Mirror(_) | Reply::Reset => return Ok(After::Reset),
        Reply::Hang => {
            // Ends when the other side does.
            tokio::io::copy_buf(stream, &mut tokio::io::sink()).await?;
            return Ok(After::Closed);
        }
    }
    Ok(After::Kept)
}

#[cfg(test)]
mod tests {
    use super::super::client::{Client, get};
    use super::super::http::sha256;
    use super::*;
    use tokio::io::AsyncReadExt;

    #[tokio::test]
    async fn it_records_what_came_and_keeps_the_connection() {
        let upstream = RecordingUpstream::start().await;
        let mut client = Client::connect(upstream.address()).await;
        let response = client.get("/a?b=c", &[("X-One", "1"), ("x-one", "2")]).await;
        assert_eq!((response.status, response.body.json()["ok"].as_bool()), (200, Some(true)));
        client.send("POST /chunked HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n").await;
        assert_eq!(client.receive().await.header("content-type"), Some("application/json"));
        upstream.wait_for_requests(2).await;
        let requests = upstream.requests();
        assert_eq!((requests[0].method(), requests[0].target(), requests[0].connection), ("GET", "/a?b=c", 0));
        assert_eq!(requests[0].head.headers[1..], [("X-One".to_owned(), "1".to_owned()), ("x-one".to_owned(), "2".to_owned())]);
        assert_eq!((requests[1].body.text().as_str(), requests[1].body.sha256.clone()), ("hello", sha256(b"hello")));
        assert_eq!(upstream.connections(), 1);
    }

    #[tokio::test]
    async fn it_answers_as_it_is_told() {
        let upstream = RecordingUpstream::start().await;
        let address = upstream.address();
        upstream.reply_always(Reply::status(418));
        upstream.reply_next(Reply::Chunked(vec![b"ab".to_vec(), b"c".to_vec()]));
        upstream.reply_next(Reply::Stream(300_000));
        upstream.reply_next(Reply::Close);
        upstream.reply_next(Reply::status(204));
        assert_eq!(get(address, "/", &[]).await.body.text(), "abc");
        let mut expected = Vec::new();
        pattern(300_000).read_to_end(&mut expected).await.unwrap();
        assert!(expected.iter().enumerate().all(|(at, byte)| at % 251 == usize::from(*byte)));
        assert_eq!(get(address, "/", &[]).await.body.sha256, sha256(&expected));
        let mut client = Client::connect(address).await;
        assert_eq!(client.get("/", &[]).await.body.text(), "ok");
        assert!(client.rest().await.is_empty());
        assert_eq!(get(address, "/", &[]).await.status, 204);
        assert_eq!(get(address, "/", &[]).await.status, 418);
    }

    #[tokio::test]
    async fn it_fails_as_it_is_told() {
        let upstream = RecordingUpstream::start().await;
        // A reset may overtake what was sent before it.
        for (reply, all) in [(Reply::Reset, false), (Reply::ResetMidway, false), (Reply::Raw(b"garbage".to_vec()), true)] {
            upstream.reply_next(reply);
            let mut client = Client::connect(upstream.address()).await;
            client.send("GET / HTTP/1.1\r\n\r\n").await;
            let rest = client.rest().await;
            assert!(if all { rest == b"garbage" } else { !rest.ends_with(b"\r\n\r\n") });
        }
    }

    #[tokio::test]
    async fn a_gate_holds_the_second_part_back_and_a_hang_answers_never() {
        let mut upstream = RecordingUpstream::start().await;
        let gate = Gate::closed();
        upstream.reply_next(Reply::Gated { first: b"one".to_vec(), gate: gate.clone(), second: b"two".to_vec() });
        upstream.reply_next(Reply::Hang);
        let mut client = Client::connect(upstream.address()).await;
        client.send("GET / HTTP/1.1\r\n\r\n").await;
        client.head().await;
        assert_eq!(client.bytes(3).await, b"one");
        gate.open();
        assert_eq!(client.bytes(3).await, b"two");
        client.send("GET /hangs HTTP/1.1\r\n\r\n").await;
        upstream.wait_for_started(2).await;
        assert_eq!(upstream.started()[1].word(1), "/hangs");
        upstream.stop().await;
        assert!(client.rest().await.is_empty());
        upstream.restart().await;
        assert_eq!(get(upstream.address(), "/", &[]).await.status, 200);
    }

    #[tokio::test]
    async fn expectations_are_answered_or_not() {
        const HEAD: &str = "PUT / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
        let upstream = RecordingUpstream::start().await;
        let mut client = Client::connect(upstream.address()).await;
        client.send(HEAD).await;
        assert_eq!(client.receive().await.status, 100);
        client.send("ok").await;
        assert_eq!(client.receive().await.status, 200);
        upstream.answer_expect(false);
        client.send(format!("{HEAD}ok")).await;
        assert_eq!(client.receive().await.status, 200);
        upstream.reply_next(Reply::Early(413));
        client.send(HEAD).await;
        assert_eq!(client.receive().await.status, 413);
        assert!(client.rest().await.is_empty());
    }
}
