//! HTTP/2 in frames made by hand: a caller that sends what no library would.

use std::net::SocketAddr;

use super::client::Client;

/// Kinds of frames (RFC 9113 section 6).
pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const WINDOW_UPDATE: u8 = 8;

/// The flag of an answer to a PING.
pub const ACK: u8 = 1;
/// Flags of DATA and HEADERS.
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// What a connection begins with, before its SETTINGS.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The request that is let through, for `app.test`.
pub const GOOD: [(&str, &str); 5] =
    [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "app.test"), ("x-api-key", "k")];

/// A frame (RFC 9113 section 4.1).
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Literal fields that no table keeps (RFC 7541 section 6.2.2), whatever their names and values are.
pub fn field_section<N: AsRef<[u8]>, V: AsRef<[u8]>>(fields: &[(N, V)]) -> Vec<u8> {
    fields.iter().flat_map(|(name, value)| [&[0], &*literal(name.as_ref()), &*literal(value.as_ref())].concat()).collect()
}

/// RFC 7541 section 5.2, without the Huffman code.
fn literal(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + 3);
    match text.len().checked_sub(127) {
        None => out.push(u8::try_from(text.len()).unwrap()),
        Some(mut rest) => {
            out.push(127);
            while rest >= 128 {
                out.push(u8::try_from(rest % 128).unwrap() | 128);
                rest /= 128;
            }
            out.push(u8::try_from(rest).unwrap());
        }
    }
    out.extend_from_slice(text);
    out
}

/// What a GET for `path` of `app.test` begins with.
pub fn pseudo_headers(path: &str) -> [(&str, &[u8]); 4] {
    [(":method", b"GET"), (":scheme", b"http"), (":path", path.as_bytes()), (":authority", b"app.test")]
}

/// What a connection begins with whose first stream has these flags and fields.
pub fn beginning<N: AsRef<[u8]>, V: AsRef<[u8]>>(flags: u8, fields: &[(N, V)]) -> Vec<u8> {
    [PREFACE, &frame(SETTINGS, 0, 0, &[]), &frame(HEADERS, flags, 1, &field_section(fields))].concat()
}

/// The next frame: kind, flags, stream and payload; none where the connection ends before.
pub async fn next_frame(client: &mut Client) -> Option<(u8, u8, u32, Vec<u8>)> {
    let head = client.try_bytes(9).await?;
    let payload = client.try_bytes(number(&head[..3]) as usize).await?;
    Some((head[3], head[4], number(&head[5..]), payload))
}

fn number(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |number, byte| (number << 8) | u32::from(*byte))
}

/// What became of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    Answer {
        status: u16,
        body: Vec<u8>,
    },
    /// Reset, with this code.
    Reset(u32),
    /// The connection ended before the stream.
    Gone,
}

/// A connection, one request after the other.
pub struct Frames {
    client: Client,
    stream: u32,
}

impl Frames {
    /// Connects and begins.
    pub async fn connect(address: SocketAddr) -> Self {
        let mut client = Client::connect(address).await;
        // Without a table (SETTINGS_HEADER_TABLE_SIZE) each status is spelled out; no number of answers fills this window.
        let settings = frame(SETTINGS, 0, 0, &[0, 1, 0, 0, 0, 0]);
        client.send([PREFACE, &settings, &frame(WINDOW_UPDATE, 0, 0, &(1u32 << 30).to_be_bytes())].concat()).await;
        Self { client, stream: 1 }
    }

    /// A request without a body, of these fields and no others.
    pub async fn ask<N: AsRef<[u8]>, V: AsRef<[u8]>>(&mut self, fields: &[(N, V)]) -> Ending {
        self.exchange(&[(HEADERS, END_HEADERS | END_STREAM, field_section(fields))]).await
    }

    /// A stream of these frames: kind, flags and payload.
    pub async fn exchange(&mut self, frames: &[(u8, u8, Vec<u8>)]) -> Ending {
        let stream = self.stream;
        self.stream += 2;
        let bytes: Vec<u8> = frames.iter().flat_map(|(kind, flags, payload)| frame(*kind, *flags, stream, payload)).collect();
        // It may have ended already.
        let _ = self.client.try_send(bytes).await;
        self.ending(stream).await.unwrap_or(Ending::Gone)
    }

    async fn ending(&mut self, stream: u32) -> Option<Ending> {
        let (mut status, mut body) = (0, Vec::new());
        loop {
            let (kind, flags, of, payload) = next_frame(&mut self.client).await?;
            if of != stream {
                continue;
            }
            match kind {
                RST_STREAM => return Some(Ending::Reset(number(&payload))),
                HEADERS if status < 200 => status = status_of(&payload),
                DATA => body.extend_from_slice(&payload),
                _ => {}
            }
            if matches!(kind, HEADERS | DATA) && flags & END_STREAM != 0 {
                return Some(Ending::Answer { status, body });
            }
        }
    }
}

/// `:status`, which comes first (RFC 9113 section 8.3).
fn status_of(section: &[u8]) -> u16 {
    // The first of a connection says that the table is empty (RFC 7541 section 6.3).
    let section = section.strip_prefix(&[0x20]).unwrap_or(section);
    match section[0] {
        // RFC 7541 appendix A.
        whole @ 0x88..=0x8e => [200, 204, 206, 304, 400, 404, 500][usize::from(whole - 0x88)],
        0x08 => digits(&section[2..2 + usize::from(section[1] & 0x7f)], section[1] & 0x80 != 0),
        other => panic!("no status begins with {other:#x}"),
    }
}

/// In the Huffman code `0`, `1` and `2` have five bits, the other digits six (RFC 7541 appendix B).
fn digits(text: &[u8], is_huffman: bool) -> u16 {
    if !is_huffman {
        return std::str::from_utf8(text).unwrap().parse().unwrap();
    }
    let bits = text.iter().fold(0u32, |bits, byte| (bits << 8) | u32::from(*byte));
    let (mut left, mut status) = (8 * text.len(), 0);
    for _ in 0..3 {
        let short = (bits >> (left - 5)) & 0x1f;
        let (digit, taken) = if short < 3 { (short, 5) } else { (((bits >> (left - 6)) & 0x3f) - 0x16, 6) };
        status = 10 * status + u16::try_from(digit).unwrap();
        left -= taken;
    }
    status
}

#[test]
fn a_status_is_read_however_it_is_spelled() {
    for (section, status) in [
        (&b"\x88\x5f"[..], 200),
        (b"\x20\x8d", 404),
        (b"\x08\x03431", 431),
        // 302 and 307 as in RFC 7541 appendix C.6.
        (b"\x08\x82\x64\x02", 302),
        (b"\x20\x08\x83\x64\x0e\xff", 307),
    ] {
        assert_eq!(status_of(section), status);
    }
}

#[test]
fn long_values_say_their_length() {
    assert_eq!(&field_section(&[("a", "b".repeat(127))])[..5], b"\0\x01a\x7f\0");
    assert_eq!(&field_section(&[("a", "b".repeat(1337))])[..6], b"\0\x01a\x7f\xba\x09");
}
