//! An upstream that tells each caller the token that came with its request, records nothing, and costs little.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::load::{find, header};
use crate::support::server::Server;
use crate::support::token_service::claims;

/// Bytes after the token on `/long`, which is where callers hang up midway.
const LONG: usize = 64 * 1024;

#[derive(Default)]
struct Counts {
    requests: AtomicU64,
    wrong: AtomicU64,
}

/// See the module.
pub struct Echo {
    server: Server,
    counts: Arc<Counts>,
}

impl Echo {
    pub async fn start() -> Self {
        let counts = Arc::<Counts>::default();
        let theirs = Arc::clone(&counts);
        let server = Server::start(move |_, stream| {
            let counts = Arc::clone(&theirs);
            // The other side may leave at any time.
            async move { drop(serve(stream, &counts).await) }
        })
        .await;
        Self { server, counts }
    }

    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    pub fn requests(&self) -> u64 {
        self.counts.requests.load(Ordering::SeqCst)
    }

    /// Requests whose token was not of the key that the caller says it sent, those of callers who hung up too.
    pub fn wrong(&self) -> u64 {
        self.counts.wrong.load(Ordering::SeqCst)
    }
}

async fn serve(mut stream: TcpStream, counts: &Counts) -> std::io::Result<()> {
    let (mut buffer, mut subjects, mut answer) = (Vec::with_capacity(16 * 1024), HashMap::new(), Vec::new());
    loop {
        let end = loop {
            if let Some(end) = find(&buffer, b"\r\n\r\n") {
                break end + 4;
            }
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        };
        let head = std::str::from_utf8(&buffer[..end]).expect("ASCII alone is sent here");
        let length: usize = header(head, "content-length").map_or(0, |text| text.parse().unwrap());
        let token = header(head, "authorization").and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default().to_owned();
        counts.requests.fetch_add(1, Ordering::Relaxed);
        if subjects.len() > 10_000 {
            subjects.clear();
        }
        let subject = subjects.entry(token.clone()).or_insert_with_key(|token| claims(token)["sub"].as_str().unwrap().to_owned());
        if header(head, "x-expected") != Some(subject) {
            counts.wrong.fetch_add(1, Ordering::Relaxed);
        }
        let (is_long, upgrades) = (head.starts_with("GET /long"), header(head, "upgrade").is_some());
        while buffer.len() < end + length {
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        }
        buffer.drain(..end + length);
        answer.clear();
        if upgrades {
            answer.extend(
                format!("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX-Token: {token}\r\n\r\n")
                    .bytes(),
            );
            stream.write_all(&answer).await?;
            let (mut reader, mut writer) = stream.split();
            tokio::io::copy(&mut reader, &mut writer).await?;
            return Ok(());
        }
        let more = if is_long { LONG } else { 0 };
        answer.extend(format!("HTTP/1.1 200 OK\r\nX-Token: {token}\r\nX-Length: {length}\r\nContent-Length: {more}\r\n\r\n").bytes());
        answer.resize(answer.len() + more, b'.');
        stream.write_all(&answer).await?;
    }
}
