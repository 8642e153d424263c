//! Answers on their way to callers: what was said to bearerd alone stays with it, and each 401 of its own says how to do better.

use crate::support::bearerd::Bearerd;
use crate::support::client::{Client, get};
use crate::support::http2::Connection;
use crate::support::stage::{configuration, surroundings};
use crate::support::token_service::{ScriptedTokenService, subject};
use crate::support::upstream::{RecordingUpstream, Reply};

const ROUTES: &str = "  - { match: { path: /login }, auth: none, respond: { status: 401 } }
  - { match: { path: /basic }, auth: none, respond: { status: 401 }, headers: { response: { set: { WWW-Authenticate: Basic } } } }
  - { upstream: app, headers: { response: { set: { X-Team: blue } } } }";

/// The first listener speaks HTTP/1.1, the second HTTP/2.
fn both(service: &ScriptedTokenService, upstream: &RecordingUpstream) -> Bearerd {
    let listeners = "listeners: [{ address: 127.0.0.1:0 }, { address: 127.0.0.1:0, h2c: true }]";
    Bearerd::start(&configuration(service, upstream, listeners, ROUTES))
}

fn reply(status: u16, headers: &[(&str, &str)]) -> Reply {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Reply::Fixed { status, headers, body: b"whole".to_vec() }
}

/// RFC 9110 section 7.6.1, as seen from the other side.
#[tokio::test]
async fn what_an_upstream_says_of_its_own_connection_goes_no_further() {
    let (service, upstream) = surroundings().await;
    let bearerd = both(&service, &upstream);
    let hop = ["x-hop", "x-other", "keep-alive", "proxy-connection", "upgrade"];
    let mut client = Client::connect(bearerd.addresses().callers[0]).await;
    let mut multiplexed = Connection::connect(bearerd.addresses().callers[1]).await;
    for nominated in
        ["X-Hop, keep-alive, x-oTHER", "Keep-Alive\r\nConnection: X-Team ,X-Hop,,\"x\", x-other", "X-Hop, X-Other, Content-Length, Upgrade"]
    {
        let said = [
            ("Connection", nominated),
            ("X-Hop", "canary"),
            ("X-Other", "canary"),
            ("X-Other", "canary again"),
            ("Keep-Alive", "timeout=1"),
            ("Proxy-Connection", "keep-alive"),
            ("Upgrade", "h2c"),
            ("X-Stays", "1"),
        ];
        upstream.reply_next(reply(200, &said));
        upstream.reply_next(reply(200, &said));
        // On one connection: its end was not the caller's.
        let answer = client.get("/", &[("X-API-Key", "k")]).await;
        assert_eq!((answer.status, answer.body.text(), answer.header("connection")), (200, "whole".into(), Some("keep-alive")));
        assert_eq!((answer.head.all("x-team"), answer.header("x-stays")), (vec!["blue"], Some("1")), "{nominated}");
        assert!(hop.iter().all(|name| answer.header(name).is_none()), "{nominated}: {answer:?}");
        let answer = multiplexed.get("/", &[("x-api-key", "k")]).await;
        assert_eq!(
            (answer.head.status.as_u16(), &answer.body[..], answer.head.headers["x-team"].to_str().unwrap()),
            (200, &b"whole"[..], "blue")
        );
        assert!(hop.iter().all(|name| !answer.head.headers.contains_key(*name)), "{nominated}: {:?}", answer.head);
    }
    assert_eq!(upstream.requests().pop().unwrap().subject(), subject("k"));
    upstream.reply_next(reply(426, &[("Connection", "Upgrade"), ("Upgrade", "websocket")]));
    let answer = client.get("/", &[("X-API-Key", "k")]).await;
    assert_eq!((answer.status, answer.header("upgrade")), (426, Some("websocket")), "what is asked for is said");
}

/// RFC 9110 section 11.6.1.
#[tokio::test]
async fn a_configured_401_says_how_too() {
    let (service, upstream) = surroundings().await;
    let bearerd = both(&service, &upstream);
    for (path, challenge) in [("/login", "Bearer realm=\"bearerd\""), ("/basic", "Basic")] {
        let answer = get(bearerd.addresses().callers[0], path, &[]).await;
        assert_eq!((answer.status, answer.head.all("www-authenticate")), (401, vec![challenge]));
        let answer = Connection::connect(bearerd.addresses().callers[1]).await.get(path, &[]).await;
        assert_eq!((answer.head.status.as_u16(), answer.head.headers["www-authenticate"].to_str().unwrap()), (401, challenge));
    }
}
