//! Trailers of requests: whatever they hold, none goes on (RFC 9110 sections 6.5.1 and 7.6.1).

use crate::support::bearerd::Bearerd;
use crate::support::client::Client;
use crate::support::frames::{DATA, END_HEADERS, END_STREAM, Ending, Frames, GOOD, HEADERS, field_section};
use crate::support::http2::Upstream;
use crate::support::protocols::PROTOCOL_ERROR;
use crate::support::stage::surroundings;
use crate::support::token_service::{ScriptedTokenService, claims, subject};
use crate::support::upstream::RecordingUpstream;

/// What a caller claims behind its body, and what it announces.
const TRAILERS: [(&str, &str); 5] =
    [("authorization", "Bearer root"), ("x-api-key", "canary"), ("x-team", "red"), ("via", "1.1 canary"), ("x-checksum", "canary")];
const ANNOUNCED: (&str, &str) = ("trailer", "authorization, x-api-key");

/// A bearerd with a listener for HTTP/1.1 and one for HTTP/2.
fn before(service: &ScriptedTokenService, upstream: &str) -> Bearerd {
    Bearerd::start(&format!(
        "listeners: [{{ address: 127.0.0.1:0 }}, {{ address: 127.0.0.1:0, h2c: true }}]\n\
         token_services: {{ default: {{ kind: iap, url: \"{}\" }} }}\nupstreams: {{ app: {{ {upstream} }} }}\nlogging: {{ access: false }}\n\
         routes: [{{ upstream: app, headers: {{ set: {{ X-Team: blue }} }} }}]\n",
        service.url()
    ))
}

/// A POST of `hello` with these trailers, over HTTP/1.1; its status.
async fn post(bearerd: &Bearerd, trailers: &[(&str, &str)]) -> u16 {
    let lines: String = trailers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let (name, value) = ANNOUNCED;
    let request = format!(
        "POST / HTTP/1.1\r\nHost: app.test\r\nX-API-Key: k\r\nTransfer-Encoding: chunked\r\n{name}: {value}\r\n\r\n5\r\nhello\r\n0\r\n{lines}\r\n"
    );
    let mut client = Client::connect(bearerd.address()).await;
    let status = client.exchange(request).await.status;
    assert_eq!(client.get("/", &[("X-API-Key", "k")]).await.status, 200, "the next request on the connection is served");
    status
}

/// The same over HTTP/2.
async fn post_over_http2(bearerd: &Bearerd, trailers: &[(&str, &str)]) -> Ending {
    let mut fields = GOOD.to_vec();
    fields[0].1 = "POST";
    fields.push(ANNOUNCED);
    let mut frames = Frames::connect(bearerd.addresses().callers[1]).await;
    let body = (DATA, 0, b"hello".to_vec());
    let end = (HEADERS, END_HEADERS | END_STREAM, field_section(trailers));
    let ending = frames.exchange(&[(HEADERS, END_HEADERS, field_section(&fields)), body, end]).await;
    assert!(matches!(frames.ask(&GOOD).await, Ending::Answer { status: 200, .. }), "the next request on the connection is served");
    ending
}

/// What reached an upstream that speaks HTTP/1.1: our token alone, and no trailer.
fn only_ours(upstream: &RecordingUpstream, posts: usize) {
    let requests = upstream.requests();
    assert_eq!(requests.iter().filter(|request| request.method() == "POST").count(), posts);
    for request in requests {
        assert_eq!((request.subject(), request.head.all("x-team")), (subject("k"), vec!["blue"]));
        assert_eq!((request.head.all("trailer").len(), request.head.all("x-api-key").len()), (0, 0), "{:?}", request.head);
        assert_eq!(request.body.trailers, Vec::<String>::new());
        assert_eq!(request.body.text(), if request.method() == "POST" { "hello" } else { "" });
    }
}

/// The same of one that speaks HTTP/2.
fn only_ours_over_http2(upstream: &Upstream, posts: usize) {
    let requests = upstream.requests.all();
    assert_eq!(requests.iter().filter(|request| request.method == "POST").count(), posts);
    for request in requests {
        let lines = |name: &str| request.headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect::<Vec<_>>();
        let [token] = lines("authorization")[..] else { panic!("exactly one Authorization: {request:?}") };
        assert_eq!(claims(token.strip_prefix("Bearer ").unwrap())["sub"], subject("k"));
        assert_eq!((lines("x-team"), lines("trailer").len(), lines("x-api-key").len()), (vec!["blue"], 0, 0), "{request:?}");
        assert_eq!(request.trailers.unwrap_or_default().len(), 0);
        assert_eq!(request.body, if request.method == "POST" { &b"hello"[..] } else { b"" });
    }
}

#[tokio::test]
async fn no_trailer_of_a_request_goes_on_over_http1() {
    let (service, upstream) = surroundings().await;
    let bearerd = before(&service, &format!("servers: [\"{}\"]", upstream.address()));
    assert_eq!(post(&bearerd, &TRAILERS).await, 200);
    assert_eq!(post(&bearerd, &[("Connection", "Authorization"), ("Authorization", "Bearer root")]).await, 200);
    assert_eq!(post(&bearerd, &[("Content-Length", "3"), ("Transfer-Encoding", "chunked"), ("Host", "other.test")]).await, 200);
    let answer = post_over_http2(&bearerd, &TRAILERS).await;
    assert!(matches!(answer, Ending::Answer { status: 200, .. }), "{answer:?}");
    only_ours(&upstream, 4);
}

#[tokio::test]
async fn no_trailer_of_a_request_goes_on_over_http2() {
    let (service, upstream) = (ScriptedTokenService::start().await, Upstream::start(None).await);
    let bearerd = before(&service, &format!("servers: [\"{}\"], protocol: h2c", upstream.address()));
    assert_eq!(post(&bearerd, &TRAILERS).await, 200);
    assert_eq!(post(&bearerd, &[("Connection", "Authorization"), ("Authorization", "Bearer root")]).await, 200);
    let answer = post_over_http2(&bearerd, &TRAILERS).await;
    assert!(matches!(answer, Ending::Answer { status: 200, .. }), "{answer:?}");
    only_ours_over_http2(&upstream, 3);
}

/// RFC 9113 section 8.2.2: such trailers make the request malformed.
#[tokio::test]
async fn over_http2_trailers_that_nominate_or_frame_break_their_stream() {
    let (service, upstream) = surroundings().await;
    let bearerd = before(&service, &format!("servers: [\"{}\"]", upstream.address()));
    for malformed in [("connection", "authorization"), ("transfer-encoding", "chunked")] {
        let ending = post_over_http2(&bearerd, &[malformed, ("authorization", "Bearer root")]).await;
        assert_eq!(ending, Ending::Reset(PROTOCOL_ERROR), "{malformed:?}");
    }
    // Of these none arrived whole.
    only_ours(&upstream, 0);
}
