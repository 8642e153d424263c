//! The same request in each protocol that a caller may speak.

use super::client::{Client, Response};
use super::frames::{Ending, Frames, pseudo_headers};
use super::http::SWITCHED;
use super::stage::Stage;
use super::upstream::Reply;

/// How a caller asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    Http2,
    /// An upgrade over HTTP/1.1.
    WebSocket,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The upstream's answer.
    Served,
    /// Refused: the status, and the word of the problem where the answer is one.
    Refused(u16, String),
    /// Its stream was reset, with this code of HTTP/2.
    Reset(u32),
    /// The connection ended without an answer.
    Gone,
}

/// A refusal with this status and word.
pub fn refused(status: u16, word: &str) -> Outcome {
    Outcome::Refused(status, word.to_owned())
}

/// RFC 9113 section 7.
pub const PROTOCOL_ERROR: u32 = 1;

/// What a caller says that wants to switch.
pub const UPGRADING: &str =
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

impl Protocol {
    pub const ALL: [Self; 3] = [Self::Http1, Self::Http2, Self::WebSocket];
}

impl Stage {
    /// With a listener for HTTP/1.1 and WebSockets, and one for HTTP/2; `options` are of both.
    pub async fn of_each_protocol(options: &str, routes: &str) -> Self {
        let listeners = format!("listeners: [{{ address: 127.0.0.1:0{options} }}, {{ address: 127.0.0.1:0, h2c: true{options} }}]");
        Self::configured(&listeners, routes).await
    }

    /// A GET for `app.test` with these header lines, on a connection of its own. Where it reaches the upstream, that answers as the protocol has it.
    pub async fn ask<N: AsRef<str>, V: AsRef<[u8]>>(&self, protocol: Protocol, path: &str, headers: &[(N, V)]) -> Outcome {
        if protocol == Protocol::Http2 {
            let mut fields: Vec<(String, &[u8])> = pseudo_headers(path).map(|(name, value)| (name.to_owned(), value)).into();
            fields.extend(headers.iter().map(|(name, value)| (name.as_ref().to_lowercase(), value.as_ref())));
            self.upstream.reply_always(Reply::status(200));
            return Frames::connect(self.bearerd.addresses().callers[1]).await.ask(&fields).await.into();
        }
        let is_upgrade = protocol == Protocol::WebSocket;
        let mut bytes = format!("GET {path} HTTP/1.1\r\nHost: app.test\r\n{}", if is_upgrade { UPGRADING } else { "" }).into_bytes();
        for (name, value) in headers {
            bytes.extend([name.as_ref().as_bytes(), b": ", value.as_ref(), b"\r\n"].concat());
        }
        bytes.extend(b"\r\n");
        self.upstream.reply_always(if is_upgrade { Reply::Echo(SWITCHED.into()) } else { Reply::status(200) });
        match Client::connect(self.bearerd.address()).await.exchange_or_end(bytes).await {
            None => Outcome::Gone,
            Some(response) if response.status == if is_upgrade { 101 } else { 200 } => Outcome::Served,
            Some(response) => Outcome::Refused(response.status, Response::problem(&response)),
        }
    }
}

impl From<Ending> for Outcome {
    fn from(ending: Ending) -> Self {
        match ending {
            Ending::Answer { status: 200, .. } => Self::Served,
            // What pingora refuses, before it is a request.
            Ending::Answer { status, body } if body.is_empty() => Self::Refused(status, String::new()),
            Ending::Answer { status, body } => {
                let problem: serde_json::Value = serde_json::from_slice(&body).expect("a problem");
                assert_eq!(problem["status"], status);
                Self::Refused(status, problem["type"].as_str().unwrap().strip_prefix("urn:bearerd:problem:").unwrap().to_owned())
            }
            Ending::Reset(code) => Self::Reset(code),
            Ending::Gone => Self::Gone,
        }
    }
}
