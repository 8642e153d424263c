//! HTTP/1.1 messages as they are on the wire: header lines in order and unchanged, bodies of any size.

use std::io;

use aws_lc_rs::digest::{Context, SHA256};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt};

/// The most of a body that is kept; length and hash are of the whole.
const KEPT: usize = 4 << 20;
const SECTION_LIMIT: usize = 1 << 20;

/// A request for a WebSocket, with the key `k`.
pub const UPGRADE: &str = "GET /chat HTTP/1.1\r\nHost: app.test\r\nX-API-Key: k\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
/// The answer that agrees to it.
pub const SWITCHED: &str =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n";

/// A start line and header lines. Text is Latin-1, a character a byte, so that nothing is lost.
#[derive(Clone, Debug, Default)]
pub struct Head {
    pub start: String,
    pub headers: Vec<(String, String)>,
}

impl Head {
    /// The first value of a header, whatever the case of its name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }

    /// Every value of a header, in order.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str()).collect()
    }

    /// A word of the start line: method, target and version, or version, status and reason.
    pub fn word(&self, index: usize) -> &str {
        self.start.split(' ').nth(index).unwrap_or_default()
    }

    fn is_chunked(&self) -> bool {
        self.header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked"))
    }

    fn length(&self) -> Option<u64> {
        self.header("content-length").map(|value| value.parse().expect("a length"))
    }

    /// Whether the sender closes after this message.
    pub fn closes(&self) -> bool {
        self.header("connection").is_some_and(|value| value.to_ascii_lowercase().contains("close"))
    }

    /// How a request with this head is framed.
    pub fn request_framing(&self) -> Framing {
        if self.is_chunked() { Framing::Chunked } else { Framing::Length(self.length().unwrap_or(0)) }
    }

    /// How a response with this head, to any method but HEAD, is framed.
    pub fn response_framing(&self) -> Framing {
        match (self.word(1), self.length()) {
            ("204" | "304", _) => Framing::Length(0),
            (status, _) if status.starts_with('1') => Framing::Length(0),
            _ if self.is_chunked() => Framing::Chunked,
            (_, Some(length)) => Framing::Length(length),
            (_, None) => Framing::UntilClose,
        }
    }
}

/// Where a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    Length(u64),
    Chunked,
    UntilClose,
}

/// A body: its beginning, and length and hash of all of it.
#[derive(Clone, Debug, Default)]
pub struct Body {
    pub bytes: Vec<u8>,
    pub length: u64,
    pub sha256: String,
    /// The lines behind the last chunk.
    pub trailers: Vec<String>,
}

impl Body {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.bytes).expect("a JSON body")
    }
}

/// The SHA-256 of `bytes` in hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
    let mut context = Context::new(&SHA256);
    context.update(bytes);
    hex(context)
}

fn hex(context: Context) -> String {
    context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads up to the empty line. None where the connection ends before the first byte.
pub async fn read_head(reader: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<Head>> {
    let Some(start) = read_line(reader).await? else { return Ok(None) };
    let mut head = Head { start, headers: Vec::new() };
    loop {
        let line = read_line(reader).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        if line.is_empty() {
            return Ok(Some(head));
        }
        let (name, value) = line.split_once(':').ok_or_else(|| io::Error::other(format!("no colon in `{line}`")))?;
        head.headers.push((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()));
    }
}

/// Reads a body to its end, chunks put together.
pub async fn read_body(reader: &mut (impl AsyncBufRead + Unpin), framing: Framing) -> io::Result<Body> {
    let mut body = Collector { bytes: Vec::new(), length: 0, hash: Context::new(&SHA256) };
    let mut trailers = Vec::new();
    match framing {
        Framing::Length(length) => body.take(reader, length).await?,
        Framing::UntilClose => while body.take_some(reader, usize::MAX).await? > 0 {},
        Framing::Chunked => loop {
            let line = read_line(reader).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
            let size = u64::from_str_radix(line.split(';').next().unwrap_or_default().trim(), 16).map_err(io::Error::other)?;
            if size == 0 {
                loop {
                    let line = read_line(reader).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
                    if line.is_empty() {
                        break;
                    }
                    trailers.push(line);
                }
                break;
            }
            body.take(reader, size).await?;
            if read_line(reader).await?.is_none_or(|line| !line.is_empty()) {
                return Err(io::Error::other("a chunk is longer than it says"));
            }
        },
    }
    Ok(Body { bytes: body.bytes, length: body.length, sha256: hex(body.hash), trailers })
}

struct Collector {
    bytes: Vec<u8>,
    length: u64,
    hash: Context,
}

impl Collector {
    async fn take(&mut self, reader: &mut (impl AsyncBufRead + Unpin), length: u64) -> io::Result<()> {
        let end = self.length + length;
        while self.length < end {
            let left = usize::try_from(end - self.length).unwrap_or(usize::MAX);
            if self.take_some(reader, left).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }

    async fn take_some(&mut self, reader: &mut (impl AsyncBufRead + Unpin), most: usize) -> io::Result<usize> {
        let available = reader.fill_buf().await?;
        let part = &available[..available.len().min(most)];
        let kept = part.len().min(KEPT - self.bytes.len());
        self.bytes.extend_from_slice(&part[..kept]);
        self.hash.update(part);
        let taken = part.len();
        self.length += taken as u64;
        reader.consume(taken);
        Ok(taken)
    }
}

/// One line without its end. None at the end of the connection.
async fn read_line(reader: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    reader.take(SECTION_LIMIT as u64).read_until(b'\n', &mut line).await?;
    if line.is_empty() {
        return Ok(None);
    }
    if line.pop() != Some(b'\n') || line.pop() != Some(b'\r') {
        return Err(io::Error::other("a line that does not end with CR LF"));
    }
    Ok(Some(line.into_iter().map(char::from).collect()))
}

#[tokio::test]
async fn lines_stay_as_they_came() {
    let mut raw: &[u8] = b"GET /a?b HTTP/1.1\r\nX-a: 1\r\nx-A:\xe9 \r\n\r\nrest";
    let head = read_head(&mut raw).await.unwrap().unwrap();
    assert_eq!((head.word(0), head.word(1)), ("GET", "/a?b"));
    assert_eq!(head.headers, [("X-a".to_owned(), "1".to_owned()), ("x-A".to_owned(), "\u{e9}".to_owned())]);
    assert_eq!(head.all("X-A"), ["1", "\u{e9}"]);
    assert_eq!(raw, b"rest");
    assert!(read_head(&mut &b""[..]).await.unwrap().is_none());
    assert!(read_head(&mut &b"GET / HT"[..]).await.is_err());
}

#[tokio::test]
async fn each_framing_ends_where_it_should() {
    for (framing, raw, left) in [
        (Framing::Length(5), "hello, world", ", world"),
        (Framing::Chunked, "2;x=y\r\nhe\r\n3\r\nllo\r\n0\r\nTrailer: 1\r\n\r\nmore", "more"),
        (Framing::UntilClose, "hello", ""),
    ] {
        let mut reader = raw.as_bytes();
        let body = read_body(&mut reader, framing).await.unwrap();
        assert_eq!((body.text().as_str(), body.length, reader), ("hello", 5, left.as_bytes()));
        assert_eq!(body.sha256, sha256(b"hello"));
        assert_eq!(body.trailers.len(), usize::from(framing == Framing::Chunked));
    }
    assert!(read_body(&mut &b"hel"[..], Framing::Length(5)).await.is_err());
    assert!(read_body(&mut &b"5\r\nhel"[..], Framing::Chunked).await.is_err());
}
