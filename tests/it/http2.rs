//! HTTP/2 on either side and on both, and what only it can do.

use bytes::Bytes;
use http::HeaderMap;

use crate::support::bearerd::Bearerd;
use crate::support::client::Client;
use crate::support::frames::{DATA, END_HEADERS, END_STREAM, Ending, Frames, GOOD, HEADERS, field_section};
use crate::support::http2::{Connection, Upstream, request, whole};
use crate::support::protocols::PROTOCOL_ERROR;
use crate::support::stage::surroundings;
use crate::support::tls::Authority;
use crate::support::token_service::{ScriptedTokenService, claims, subject};
use crate::support::upstream::{RecordingUpstream, Reply};
use bearerd::app::Stop;

fn between(service: &ScriptedTokenService, upstream: &str, routes: &str) -> Bearerd {
    Bearerd::start(&format!(
        "listeners: [{{ address: 127.0.0.1:0, h2c: true, limits: {{ header_timeout: 1s }} }}, {{ address: 127.0.0.1:0 }}]\n\
         token_services: {{ default: {{ kind: iap, url: \"{}\" }} }}\nupstreams: {{ app: {{ {upstream} }} }}\nshutdown: {{ delay: 0s }}\n\
         logging: {{ access: false }}\nroutes:\n{routes}\n",
        service.url()
    ))
}

const PROTECTED: &str =
    "  - { upstream: app, credentials: [api_key, api_key: { query: key }], headers: { set: { X-User: \"{claims.sub}\" } } }";

fn bearer(headers: &HeaderMap) -> String {
    let lines: Vec<_> = headers.get_all("authorization").iter().collect();
    assert_eq!(lines.len(), 1, "exactly one Authorization: {headers:?}");
    claims(lines[0].to_str().unwrap().strip_prefix("Bearer ").unwrap())["sub"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn bodies_tokens_and_the_trailers_of_answers_travel_over_http2_on_both_sides() {
    let (service, upstream) = (ScriptedTokenService::start().await, Upstream::start(None).await);
    let bearerd = between(&service, &format!("servers: [\"{}\"], protocol: h2c", upstream.address()), PROTECTED);
    let mut caller = Connection::connect(bearerd.address()).await;
    let asked =
        request("POST", "/svc.Echo/Call?key=alice&x=1", &[("te", "trailers"), ("content-type", "application/grpc"), ("x-user", "root")]);
    let (answer, mut body) = caller.begin(asked, false).await.unwrap();
    body.send_data(Bytes::from_static(b"hello"), true).unwrap();
    let answer = whole(answer).await.unwrap();
    assert_eq!((answer.head.status.as_u16(), &answer.body[..]), (200, &b"hello"[..]));
    assert_eq!(answer.trailers.unwrap()["grpc-status"], "0");
    let received = upstream.last();
    assert_eq!((received.authority.as_deref(), received.target.as_str()), (Some("app.test"), "/svc.Echo/Call?x=1"));
    assert_eq!((received.method.as_str(), &received.body[..]), ("POST", &b"hello"[..]));
    assert_eq!(bearer(&received.headers), subject("alice"));
    assert_eq!(received.headers["te"], "trailers");
    assert_eq!(received.headers.get_all("x-user").iter().collect::<Vec<_>>(), [&*subject("alice")]);
    assert_eq!(
        (&received.headers["via"], &received.headers["x-forwarded-host"]),
        (&"2.0 bearerd".parse().unwrap(), &"app.test".parse().unwrap())
    );
    assert!(received.headers.get("host").is_none());
    // From HTTP/1.1 to the same upstream.
    let mut plain = Client::connect(bearerd.addresses().callers[1]).await;
    assert_eq!(plain.get("/plain", &[("X-API-Key", "bob")]).await.status, 200);
    assert_eq!((bearer(&upstream.last().headers), upstream.last().authority.as_deref()), (subject("bob"), Some("app.test")));
}

#[tokio::test]
async fn a_large_body_goes_both_ways() {
    let (service, upstream) = (ScriptedTokenService::start().await, Upstream::start(None).await);
    let bearerd = between(&service, &format!("servers: [\"{}\"], protocol: h2c", upstream.address()), "  - { upstream: app, auth: none }");
    let mut caller = Connection::connect(bearerd.address()).await;
    let (answer, mut body) = caller.begin(request("POST", "/", &[]), false).await.unwrap();
    let sent: Vec<u8> = (0..8 * 1024 * 1024_u32).map(|place| (place % 251) as u8).collect();
    // The library keeps what the windows do not let go yet.
    body.send_data(Bytes::from(sent.clone()), true).unwrap();
    assert!(whole(answer).await.unwrap().body == sent);
}

/// The upstream chooses in TLS; where it may be either, both work.
#[tokio::test]
async fn upstreams_in_tls_speak_what_they_choose() {
    let authority = Authority::new();
    let service = ScriptedTokenService::start().await;
    let upstream = Upstream::start(Some((&authority, "localhost", &[b"h2"]))).await;
    for protocol in ["http2", "auto"] {
        let text = format!(
            "servers: [\"localhost:{}\"], protocol: {protocol}, tls: {{ ca: {} }}",
            upstream.address().port(),
            authority.ca().display()
        );
        let bearerd = between(&service, &text, PROTECTED);
        let mut caller = Connection::connect(bearerd.address()).await;
        assert_eq!(caller.get("/", &[("x-api-key", "k")]).await.head.status, 200);
        assert_eq!(upstream.last().authority.unwrap(), format!("localhost:{}", upstream.address().port()));
    }
    let plain = RecordingUpstream::start().await;
    let old = plain.in_tls(authority.acceptor("localhost", false, &[b"http/1.1"])).await;
    let text = format!("servers: [\"localhost:{}\"], protocol: auto, tls: {{ ca: {} }}", old.address().port(), authority.ca().display());
    let bearerd = between(&service, &text, PROTECTED);
    assert_eq!(Connection::connect(bearerd.address()).await.get("/", &[("x-api-key", "k")]).await.head.status, 200);
}

#[tokio::test]
async fn many_streams_at_once_each_with_its_own_token() {
    let (service, upstream) = surroundings().await;
    let bearerd = between(&service, &format!("servers: [\"{}\"]", upstream.address()), PROTECTED);
    upstream.reply_always(Reply::Mirror(0));
    let mut caller = Connection::connect(bearerd.address()).await;
    let mut asked = Vec::new();
    for number in 0..90 {
        let key = format!("key-{number}");
        let (answer, _) = caller.begin(request("GET", "/", &[("x-api-key", &key)]), true).await.unwrap();
        asked.push((key, answer));
    }
    for (key, answer) in asked {
        let answer = whole(answer).await.unwrap();
        let text = String::from_utf8(answer.body).unwrap();
        let token = text.lines().find_map(|line| line.to_lowercase().starts_with("authorization:").then(|| line[15..].trim())).unwrap();
        assert_eq!(claims(token.strip_prefix("Bearer ").unwrap())["sub"], subject(&key));
    }
}

#[tokio::test]
async fn refusals_are_problems_and_hop_by_hop_headers_break_the_stream() {
    let (service, upstream) = surroundings().await;
    let bearerd = between(&service, &format!("servers: [\"{}\"]", upstream.address()), PROTECTED);
    let mut caller = Connection::connect(bearerd.address()).await;
    let refused = caller.get("/", &[]).await;
    assert_eq!((refused.head.status.as_u16(), &refused.head.headers["content-type"]), (401, &"application/problem+json".parse().unwrap()));
    assert!(refused.head.headers.contains_key("www-authenticate"));
    let body: serde_json::Value = serde_json::from_slice(&refused.body).unwrap();
    assert_eq!(body["type"], "urn:bearerd:problem:missing_credential");
    for headers in [[("x-api-key", "a"), ("x-api-key", "b")], [("x_api_key", "a"), ("authorization", "Bearer a.b.c")]] {
        let refused = caller.get("/", &headers).await.head;
        assert!(refused.status.is_client_error() && refused.headers.contains_key("www-authenticate"), "{refused:?}");
    }
    assert_eq!(caller.get("/public/..%2fx", &[("x-api-key", "k")]).await.head.status, 200);
    let answer = caller.get(&format!("/{}", "x".repeat(100)), &[("x-filler", &"y".repeat(70_000))]).await;
    assert_eq!(answer.head.status, 431);
    // CVE-2026-105299 and its kind: a caller nominates what we inject. On HTTP/2 that is a malformed request (RFC 9113 section 8.2.2).
    let mut frames = Frames::connect(bearerd.address()).await;
    for hop_by_hop in [("connection", "authorization"), ("keep-alive", "x"), ("transfer-encoding", "chunked"), ("upgrade", "websocket")] {
        let fields: Vec<_> = GOOD.into_iter().chain([hop_by_hop]).collect();
        assert_eq!(frames.ask(&fields).await, Ending::Reset(PROTOCOL_ERROR), "{hop_by_hop:?}");
    }
    assert_eq!(upstream.requests().len(), 1);
    assert!(matches!(frames.ask(&GOOD).await, Ending::Answer { status: 200, .. }), "the connection goes on");
}

/// A caller who speaks HTTP/1, little or nothing on a listener for HTTP/2 does not hang it.
#[tokio::test]
async fn the_h2c_listener_is_guarded() {
    let (service, upstream) = surroundings().await;
    let bearerd = between(&service, &format!("servers: [\"{}\"]", upstream.address()), PROTECTED);
    let told = Client::connect(bearerd.address()).await.exchange("GET / HTTP/1.0\r\n\r\n").await;
    assert_eq!(told.status, 400);
    assert!(told.body.text().contains("HTTP/2"));
    for beginning in ["", "PRI * HT"] {
        let mut client = Client::connect(bearerd.address()).await;
        client.send(beginning).await;
        client.rest().await;
    }
    assert_eq!(Connection::connect(bearerd.address()).await.get("/", &[("x-api-key", "k")]).await.head.status, 200);
}

/// GOAWAY at once, and what was asked is answered.
#[tokio::test]
async fn a_drain_ends_connections_in_order() {
    let (service, upstream) = (ScriptedTokenService::start().await, Upstream::start(None).await);
    let bearerd = between(&service, &format!("servers: [\"{}\"], protocol: h2c", upstream.address()), PROTECTED);
    let mut caller = Connection::connect(bearerd.address()).await;
    let (answer, _) = caller.begin(request("GET", "/wait", &[("x-api-key", "k")]), true).await.unwrap();
    let head = answer.await.unwrap();
    let idle = Connection::connect(bearerd.address()).await;
    bearerd.stop(Stop::Drain);
    // Refused by now, where it was taken before: the GOAWAY has come.
    while let Ok((answer, _)) = caller.begin(request("GET", "/", &[("x-api-key", "k")]), true).await {
        if whole(answer).await.is_err() {
            break;
        }
    }
    upstream.gate.open();
    let mut body = head.into_body();
    let mut text = Vec::new();
    while let Some(data) = body.data().await {
        text.extend_from_slice(&data.unwrap());
    }
    assert_eq!(text, b"begun");
    assert!(caller.ended().await.is_ok());
    let _ = idle.ended().await;
    bearerd.ended().await;
}

/// A caller who gives up a request is no fault of anybody, and the upstream learns of it.
#[tokio::test]
async fn a_stream_that_is_given_up_is_given_up_towards_the_upstream() {
    let (service, upstream) = (ScriptedTokenService::start().await, Upstream::start(None).await);
    let bearerd = between(&service, &format!("servers: [\"{}\"], protocol: h2c", upstream.address()), PROTECTED);
    let mut caller = Connection::connect(bearerd.address()).await;
    let (answer, mut body) = caller.begin(request("POST", "/wait", &[("x-api-key", "k")]), false).await.unwrap();
    body.send_data(Bytes::from_static(b"x"), true).unwrap();
    let begun = answer.await.unwrap();
    drop(begun);
    body.send_reset(h2::Reason::CANCEL);
    bearerd.until("bearerd_requests_in_flight", 0.0).await;
    let series = bearerd.series().await;
    assert!(!series.keys().any(|name| name.starts_with("bearerd_upstream_errors_total")), "{series:?}");
    assert_eq!(caller.get("/", &[("x-api-key", "k")]).await.head.status, 200, "the connection goes on");
}

/// Over HTTP/2 a quiet caller may be one half of a quiet stream: what ends a body that does not go on is that no answer comes.
#[tokio::test]
async fn a_body_that_stops_is_waited_for_as_long_as_its_answer() {
    let (service, upstream) = surroundings().await;
    let timeouts = format!("servers: [\"{}\"], timeouts: {{ read: 1s }}", upstream.address());
    let bearerd = between(&service, &timeouts, PROTECTED);
    let mut caller = Connection::connect(bearerd.address()).await;
    let (answer, mut body) = caller.begin(request("POST", "/", &[("x-api-key", "k"), ("content-length", "10")]), false).await.unwrap();
    body.send_data(Bytes::from_static(b"half"), false).unwrap();
    let answer = whole(answer).await.unwrap();
    assert_eq!(answer.head.status, 504);
    assert_eq!(caller.get("/", &[("x-api-key", "k")]).await.head.status, 200);
    assert_eq!(upstream.requests().len(), 1, "half a request is none");
}

/// With a credential that opens the one route, which takes every path: what is malformed gets there in no form, and costs no other request anything.
#[tokio::test]
async fn cve_2026_73547_every_form_of_target_is_answered_or_its_stream_reset() {
    let (service, upstream) = surroundings().await;
    let bearerd = between(&service, &format!("servers: [\"{}\"]", upstream.address()), PROTECTED);
    let (get, scheme, path, authority) = ((":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "app.test"));
    let connect = (":method", "CONNECT");
    let reset = None;
    for (fields, expected) in [
        (&[connect, (":authority", "app.test:443")][..], Some(405)),
        (&[connect, authority], Some(405)),
        (&[connect], Some(400)),
        (&[connect, (":authority", "")], reset),
        (&[connect, path, authority], reset),
        (&[connect, scheme, path, authority], reset),
        (&[connect, scheme, path, authority, (":protocol", "websocket")], reset),
        (&[connect, scheme, authority, (":protocol", "websocket")], reset),
        (&[get, scheme, path, authority, (":protocol", "websocket")], reset),
        (&[(":method", "OPTIONS"), scheme, (":path", "*"), authority], Some(200)),
        (&[get, scheme, (":path", "*"), authority], Some(400)),
        (&[get, scheme, (":path", "http://app.test/"), authority], reset),
        (&[get, scheme, (":path", "HTTP://other.test/"), authority], reset),
        (&[get, scheme, (":path", "app.test/x"), authority], reset),
        (&[get, scheme, (":path", "x"), authority], reset),
        (&[get, scheme, (":path", "?x"), authority], Some(400)),
        (&[get, scheme, (":path", ""), authority], reset),
        (&[get, scheme, authority], reset),
        (&[get, path, authority], reset),
        (&[scheme, path, authority], reset),
        (&[get, scheme, path], Some(400)),
        (&[get, scheme, path, authority, ("host", "other.test")], Some(400)),
        (&[get, scheme, path, authority, ("host", "app.test:80")], Some(400)),
        (&[get, scheme, path, authority, ("host", "")], Some(400)),
        (&[get, scheme, path, authority, ("host", "app.test"), ("host", "app.test")], Some(400)),
        (&[get, scheme, path, ("host", "app.test"), ("host", "other.test")], Some(400)),
        (&[get, scheme, path, (":authority", "root@app.test")], Some(400)),
        (&[get, scheme, path, (":authority", "app.test:x")], Some(400)),
        (&[get, scheme, path, authority, authority], reset),
        (&[get, scheme, path, path, authority], reset),
        (&[get, scheme, path, ("x-team", "red"), authority], reset),
        (&[get, scheme, path, authority, (":status", "200")], reset),
    ] {
        let before = upstream.started().len();
        let mut frames = Frames::connect(bearerd.address()).await;
        let fields: Vec<_> = fields.iter().copied().chain([("x-api-key", "k")]).collect();
        let ending = match frames.ask(&fields).await {
            Ending::Answer { status, .. } => Some(status),
            ending => {
                assert_eq!(ending, Ending::Reset(PROTOCOL_ERROR), "{fields:?}");
                reset
            }
        };
        assert_eq!(ending, expected, "{fields:?}");
        let arrived: Vec<String> = upstream.started()[before..].iter().map(|head| head.start.clone()).collect();
        assert_eq!(arrived, if expected == Some(200) { &["OPTIONS * HTTP/1.1"][..] } else { &[] }, "{fields:?}");
        assert!(matches!(frames.ask(&GOOD).await, Ending::Answer { status: 200, .. }), "the next one after {fields:?}");
    }
}

/// The window of the connection is 1 MiB: bodies that nobody reads must give back what they took of it.
#[tokio::test]
async fn cve_2025_4366_unread_bodies_of_refused_requests_take_nothing_from_the_next_one() {
    let (service, upstream) = surroundings().await;
    let bearerd = between(&service, &format!("servers: [\"{}\"]", upstream.address()), PROTECTED);
    let post = GOOD.map(|(name, value)| (name, if name == ":method" { "POST" } else { value }));
    let unread = b"GET /smuggled HTTP/1.1\r\nHost: app.test\r\n\r\n".repeat(350);
    let mut frames = Frames::connect(bearerd.address()).await;
    for _ in 0..80 {
        let begun = (HEADERS, END_HEADERS, field_section(&post[..4]));
        let refused = frames.exchange(&[begun, (DATA, 0, unread.clone()), (DATA, END_STREAM, unread.clone())]).await;
        assert!(matches!(refused, Ending::Answer { status: 401, .. }), "{refused:?}");
    }
    let served = frames.exchange(&[(HEADERS, END_HEADERS, field_section(&post)), (DATA, END_STREAM, b"hello".to_vec())]).await;
    assert!(matches!(served, Ending::Answer { status: 200, .. }), "{served:?}");
    let arrived: Vec<_> = upstream.requests().into_iter().map(|request| (request.head.start, request.body.text())).collect();
    assert_eq!((arrived, upstream.started().len()), (vec![("POST / HTTP/1.1".to_owned(), "hello".to_owned())], 1));
}
