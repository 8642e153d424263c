//! Callers over HTTP/1.1: plain requests, bodies, WebSockets, and those who hang up before the answer or within it.

use std::net::SocketAddr;
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Key, Shared, Tally, Who, find, header};
use crate::support::events::PATIENCE;

/// A connection, and what came over it that has not been read.
struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// An answer without its body.
struct Answer {
    status: u16,
    token: Option<String>,
    /// The length of the request's body, as the upstream counted it.
    counted: Option<usize>,
    closes: bool,
}

impl Connection {
    async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, buffer: Vec::with_capacity(16 * 1024) }
    }

    async fn send(&mut self, line: &str, key: &Key, more: &str, body: &[u8]) -> std::io::Result<()> {
        let Key { text, subject } = key;
        let mut message =
            format!("{line} HTTP/1.1\r\nHost: app.test\r\nX-API-Key: {text}\r\nX-Expected: {subject}\r\n{more}\r\n").into_bytes();
        message.extend_from_slice(body);
        self.stream.write_all(&message).await
    }

    /// None where the connection ends first.
    async fn receive(&mut self) -> Option<Answer> {
        tokio::time::timeout(PATIENCE, self.try_receive()).await.expect("an answer within a minute").ok()
    }

    async fn try_receive(&mut self) -> std::io::Result<Answer> {
        let end = loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                break end + 4;
            }
            self.read().await?;
        };
        let head = std::str::from_utf8(&self.buffer[..end]).map_err(std::io::Error::other)?;
        let answer = Answer {
            status: head[9..12].parse().map_err(std::io::Error::other)?,
            token: header(head, "x-token").map(str::to_owned),
            counted: header(head, "x-length").and_then(|text| text.parse().ok()),
            closes: header(head, "connection").is_some_and(|value| value.contains("close")),
        };
        let length: usize = header(head, "content-length").map_or(0, |text| text.parse().unwrap());
        while self.buffer.len() < end + length {
            self.read().await?;
        }
        self.buffer.drain(..end + length);
        Ok(answer)
    }

    async fn read(&mut self) -> std::io::Result<()> {
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

/// Gives each key its token.
pub(super) async fn fetch_all(address: SocketAddr, pool: &[Key]) {
    let mut connection = Connection::open(address).await;
    for key in pool {
        connection.send("GET /", key, "", b"").await.unwrap();
        assert_eq!(connection.receive().await.unwrap().status, 200);
    }
}

/// Calls, and connects anew where it hung up or was told to, until it is to leave.
pub(super) async fn call(address: SocketAddr, shared: Shared, mut random: fastrand::Rng) -> Tally {
    let mut tally = Tally::default();
    while !shared.is_over() {
        let mut connection = Connection::open(address).await;
        while !shared.is_over() && once(&mut connection, &shared, &mut random, &mut tally).await {}
    }
    tally
}

/// One request; whether the connection can be used again.
async fn once(connection: &mut Connection, shared: &Shared, random: &mut fastrand::Rng, tally: &mut Tally) -> bool {
    let mut other = None;
    let (who, key) = shared.pick(random, &mut other);
    let began = Instant::now();
    let kind = random.u16(..1000);
    let (body, sent) = match kind {
        0..50 => {
            tally.cancelled += 1;
            // It may be told to close in the same moment.
            let _ = connection.send("GET /long", key, "", b"").await;
            return false;
        }
        50..100 => return leave_midway(connection, key, tally).await,
        100 => return speak_websocket(connection, &shared.pool[random.usize(..shared.pool.len())], tally).await,
        101..120 => {
            let body = vec![b'b'; random.usize(1..8192)];
            tally.bodies += 1;
            let more = format!("Content-Length: {}\r\n", body.len());
            (body.len(), connection.send("POST /", key, &more, &body).await)
        }
        _ => (0, connection.send("GET /", key, "", b"").await),
    };
    let answer = if sent.is_ok() { connection.receive().await } else { None };
    let Some(answer) = answer else {
        tally.note(format!("{who:?} {} was cut off after {:?}", key.text, began.elapsed()));
        return false;
    };
    tally.judge(who, key, answer.status, answer.token.as_deref(), &shared.weather, began);
    if answer.status == 200 && answer.counted != Some(body) {
        tally.note(format!("{body} bytes of a body, {:?} arrived", answer.counted));
    }
    !answer.closes
}

/// Hangs up with most of the answer unread.
async fn leave_midway(connection: &mut Connection, key: &Key, tally: &mut Tally) -> bool {
    tally.cancelled += 1;
    if connection.send("GET /long", key, "", b"").await.is_ok() {
        let _ = tokio::time::timeout(PATIENCE, connection.read()).await.expect("an answer within a minute");
    }
    false
}

/// Some bytes there and back.
async fn speak_websocket(connection: &mut Connection, key: &Key, tally: &mut Tally) -> bool {
    const ASK: &str =
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n";
    tally.websockets += 1;
    let sent = connection.send("GET /", key, ASK, b"").await;
    let answer = if sent.is_ok() { connection.receive().await } else { None };
    let switched = answer.filter(|answer| answer.status == 101);
    let Some(token) = switched.and_then(|answer| answer.token) else {
        tally.note("no WebSocket".to_owned());
        return false;
    };
    let began = Instant::now();
    tally.judge(Who::Known, key, 200, Some(&token), &super::Weather::default(), began);
    let echoed = async {
        connection.stream.write_all(b"there and back").await?;
        while connection.buffer.len() < 14 {
            connection.read().await?;
        }
        std::io::Result::Ok(())
    };
    if tokio::time::timeout(PATIENCE, echoed).await.expect("an echo within a minute").is_err() || connection.buffer != b"there and back" {
        tally.note("a WebSocket broke".to_owned());
    }
    false
}
