//! Attacks by framing: where one request ends and the next begins is never in doubt, and what was a body is never a request.

use crate::support::client::{Client, Response};
use crate::support::events::Gate;
use crate::support::stage::Stage;
use crate::support::upstream::Reply;

const ROUTES: &str = "  - { match: { path_prefix: /fixed }, auth: none, respond: { status: 204 } }
  - { match: { path_prefix: /api }, upstream: app }";

/// Has no key: should it reach the upstream, it got past the door.
const SMUGGLED: &str = "GET /api/smuggled HTTP/1.1\r\nHost: app.test\r\n\r\n";

async fn stage() -> Stage {
    Stage::with_routes(ROUTES).await
}

/// A request line and lines of a header section that would be let through if it were well formed.
fn request(start: &str, lines: &str) -> String {
    format!("{start}\r\n{lines}X-API-Key: k\r\n\r\n")
}

fn post(lines: &str, body: &str) -> String {
    format!("{}{body}", request("POST /api HTTP/1.1", &format!("Host: app.test\r\n{lines}")))
}

impl Stage {
    /// Sends `bytes`, and asserts that they are one request that is refused with `status`, and that the connection ends there.
    async fn refuses(&self, status: u16, bytes: impl AsRef<[u8]>) -> Response {
        let shown = bytes.as_ref().escape_ascii().to_string();
        let mut client = self.client().await;
        client.send(&bytes).await;
        let response = client.receive().await;
        assert_eq!(response.status, status, "{shown}");
        assert!(response.head.closes(), "{shown}");
        client.closed().await;
        assert!(self.upstream.requests().is_empty(), "{shown} reached the upstream");
        response
    }
}

#[tokio::test]
async fn a_host_is_demanded_once_and_must_be_one() {
    let stage = stage().await;
    let missing = stage.refuses(400, request("GET /api HTTP/1.1", "")).await;
    assert_eq!(missing.problem(), "bad_request");
    for host in [
        "",
        "a b",
        "a/b",
        "a\\b",
        "a?b",
        "a#b",
        "a@b",
        "a:b",
        "a:80:80",
        ":80",
        "[::1",
        "a\tb",
        "\u{e9}.test",
        "http://app.test",
        "<a>",
        "a\"b",
    ] {
        stage.refuses(400, request("GET /api HTTP/1.1", &format!("Host: {host}\r\n"))).await;
    }
    for twice in ["Host: app.test\r\nHost: app.test\r\n", "Host: app.test\r\nhOST: other.test\r\n"] {
        stage.refuses(400, request("GET /api HTTP/1.1", twice)).await;
    }
}

#[tokio::test]
async fn cve_2026_73547_every_form_of_target_is_answered() {
    let stage = stage().await;
    for target in [
        "http://other.test/api",
        "http://app.test@other.test/api",
        "http://user:pass@app.test/api",
        "http:///api",
        "http:\\\\app.test/api",
        "app.test/api",
        "api",
    ] {
        let status = Client::connect(stage.bearerd.address())
            .await
            .exchange(request(&format!("GET {target} HTTP/1.1"), "Host: app.test\r\n"))
            .await
            .status;
        assert!((400..500).contains(&status), "{target}: {status}");
    }
    for target in ["app.test:443", "app.test", "/api", "*", "http://app.test/api", ":443"] {
        let status = Client::connect(stage.bearerd.address())
            .await
            .exchange(request(&format!("CONNECT {target} HTTP/1.1"), "Host: app.test\r\n"))
            .await
            .status;
        assert!(matches!(status, 400 | 405), "CONNECT {target}: {status}");
    }
    stage.refuses(405, request("CONNECT app.test:443 HTTP/1.1", "Host: app.test:443\r\n") + SMUGGLED).await;
    let status = Client::connect(stage.bearerd.address()).await.exchange("OPTIONS * HTTP/1.1\r\nHost: app.test\r\n\r\n").await.status;
    assert_eq!(status, 404, "no route takes `*`");
    assert!(stage.upstream.requests().is_empty());
}

/// What is no form of a target is nobody's path: it is not read as `/`.
#[tokio::test]
async fn a_target_in_no_form_is_refused() {
    let stage = Stage::with_routes("  - { upstream: app, auth: none }").await;
    for target in [
        "x /api",
        "x",
        "api",
        "x?/api",
        "?",
        "\\api",
        "app.test:443/api",
        "ftp://app.test/api",
        "http:/api",
        "http:///api",
        "http://///api?x",
        "https://?/api",
        "http://",
        "x:/api",
        "**",
        "*/api",
        "*?x",
    ] {
        stage.refuses(400, request(&format!("GET {target} HTTP/1.1"), "Host: app.test\r\n") + SMUGGLED).await;
    }
    stage.refuses(400, request("GET * HTTP/1.1", "Host: app.test\r\n") + SMUGGLED).await;
}

#[tokio::test]
async fn an_absolute_form_reaches_the_upstream_in_origin_form() {
    let stage = stage().await;
    for (target, lines) in
        [("http://app.test/api/x?y=http://z/", "Host: app.test\r\n"), ("http://app.test:8080/api/x?y=http://z/", "Host: app.test:8080\r\n")]
    {
        assert_eq!(stage.client().await.exchange(request(&format!("GET {target} HTTP/1.1"), lines)).await.status, 200);
        let seen = stage.last();
        assert_eq!(seen.target(), "/api/x?y=http://z/");
        assert_eq!(seen.head.all("host"), [&lines[6..lines.len() - 2]]);
    }
    let any = Stage::with_routes("  - { upstream: app }").await;
    assert_eq!(any.client().await.exchange(request("OPTIONS * HTTP/1.1", "Host: app.test\r\n")).await.status, 200);
    assert_eq!((any.last().method(), any.last().target()), ("OPTIONS", "*"));
    assert_eq!(any.client().await.exchange("OPTIONS * HTTP/1.1\r\nHost: app.test\r\n\r\n").await.status, 401);
}

#[tokio::test]
async fn http_1_0_is_served_and_closed_unless_it_asks_otherwise() {
    let stage = stage().await;
    let own = stage.upstream.address().to_string();
    for (lines, host) in [("", own.as_str()), ("Host: old.test\r\n", "old.test")] {
        let mut client = stage.client().await;
        let response = client.exchange(request("GET /api HTTP/1.0", lines)).await;
        assert_eq!(response.status, 200);
        client.closed().await;
        assert_eq!(stage.last().head.all("host"), [host], "an upstream that speaks HTTP/1.1 demands a Host");
    }
    let mut client = stage.client().await;
    for _ in 0..2 {
        assert_eq!(client.exchange(request("GET /api HTTP/1.0", "Connection: keep-alive\r\n")).await.status, 200);
    }
}

#[tokio::test]
async fn malformed_start_lines_and_header_lines_are_refused() {
    let stage = stage().await;
    for start in [
        "GET /api",
        "GET /api HTTP/0.9",
        "GET /api HTTP/1.2",
        "GET /api HTTP/2.0",
        "GET /api HTTP/1.1x",
        "GET /api http/1.1",
        "G@T /api HTTP/1.1",
        "GET\t/api\tHTTP/1.1",
        "GET  HTTP/1.1",
        " GET /api HTTP/1.1",
    ] {
        stage.refuses(400, request(start, "Host: app.test\r\n") + SMUGGLED).await;
    }
    // A space within the target is escaped; what is left is another path, and one request.
    for start in ["GET /api  HTTP/1.1", "GET  /api HTTP/1.1", "GET /api HTTP/1.1 HTTP/1.1"] {
        assert!(matches!(stage.client().await.exchange(request(start, "Host: app.test\r\n")).await.status, 400 | 404), "{start}");
    }
    for line in [
        "X-Folded: a\r\n b",
        "X-Folded: a\r\n\tb",
        " X-Leading: a",
        "X-Space : a",
        "X-Tab\t: a",
        "Host : other.test",
        "Transfer-Encoding : chunked",
        "Content-Length : 5",
        "X-Bare: a\rb",
        "X-Bare: a\rX-API-Key: other",
        "X-Null: a\0b",
        "X-Control: a\x01b",
        "X-Delete: a\x7fb",
        "X-Nu\0ll: a",
        "X-Name(): a",
        "X-N\u{e9}m: a",
        "no colon",
    ] {
        stage.refuses(400, post(&format!("{line}\r\n"), SMUGGLED)).await;
    }
}

#[tokio::test]
async fn cve_2023_25725_an_empty_header_name_is_refused() {
    let stage = stage().await;
    for line in [":", ": a", " : a", ":a\r\nTransfer-Encoding: chunked"] {
        stage.refuses(400, post(&format!("{line}\r\n"), SMUGGLED)).await;
    }
}

#[tokio::test]
async fn a_length_and_chunks_together_are_refused() {
    let stage = stage().await;
    let body = format!("0\r\n\r\n{SMUGGLED}");
    let length = body.len();
    for lines in [
        format!("Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n"),
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n".into(),
        "transfer-encoding: CHUNKED\r\ncontent-LENGTH:5\r\n".into(),
        "Transfer-Encoding: chunked\r\nContent-Length: x\r\n".into(),
        "Transfer-Encoding: chunked\r\nContent-Length:\r\n".into(),
    ] {
        stage.refuses(400, post(&lines, &body)).await;
    }
}

#[tokio::test]
async fn cve_2026_2835_transfer_codings_other_than_one_chunked_are_refused() {
    let stage = stage().await;
    let body = format!("5\r\nhello\r\n0\r\n\r\n{SMUGGLED}");
    for coding in [
        "chunked\r\nTransfer-Encoding: chunked",
        "chunked\r\nTransfer-Encoding: identity",
        "identity\r\nTransfer-Encoding: chunked",
        "gzip, chunked",
        "identity, chunked",
        "chunked, identity",
        "chunked, chunked",
        "chunked,",
        ",chunked",
        "xchunked",
        "chunked;q=1",
        "\"chunked\"",
        "gzip",
        "identity",
        "",
        "\x0bchunked",
    ] {
        stage.refuses(400, post(&format!("Transfer-Encoding: {coding}\r\n"), &body)).await;
    }
    for version in ["HTTP/1.0", "HTTP/1.0\r\nConnection: keep-alive"] {
        let lines = "Host: app.test\r\nTransfer-Encoding: chunked\r\n";
        stage.refuses(400, request(&format!("POST /api {version}"), lines) + &body).await;
    }
    // Optional white space around the value and letters in any case are the same coding.
    let mut client = stage.client().await;
    assert_eq!(client.exchange(post("Transfer-Encoding: \t CHUNKED \t\r\n", "5\r\nhello\r\n0\r\n\r\n")).await.status, 200);
    assert_eq!(stage.last().body.text(), "hello");
}

#[tokio::test]
async fn cve_2023_40225_a_length_is_one_number_or_refused() {
    let stage = stage().await;
    let body = format!("hello{SMUGGLED}");
    for length in [
        "",
        "-1",
        "+5",
        "0x5",
        "5 5",
        "5,6",
        "5,5",
        "5, 5",
        "5,",
        ",5",
        "5\r\nContent-Length: 6",
        "5\r\nContent-Length: 5",
        "5.0",
        "1e0",
        "5;",
        "18446744073709551616",
        "99999999999999999999999",
        "\u{0665}",
    ] {
        stage.refuses(400, post(&format!("Content-Length: {length}\r\n"), &body)).await;
    }
    let mut client = stage.client().await;
    assert_eq!(client.exchange(post("Content-Length: 5\r\n", "hello")).await.status, 200);
    assert_eq!(stage.last().head.all("content-length"), ["5"]);
}

#[tokio::test]
async fn malformed_chunks_are_never_passed_on() {
    let stage = stage().await;
    for chunks in [
        "-1\r\nhello\r\n",
        "+5\r\nhello\r\n",
        "0x5\r\nhello\r\n",
        "5_0\r\nhello\r\n",
        "g\r\nhello\r\n",
        "ffffffffffffffff\r\nhello\r\n",
        "10000000000000005\r\nhello\r\n",
        "5\nhello\r\n",
        "5\rhello\r\n",
        "5;a\rb\r\nhello\r\n",
        "5\r\nhelloX\r\n",
        "5\r\nhello\n",
        "5\r\nhello",
        "5\r\nhell\r\n",
    ] {
        let mut client = stage.client().await;
        client.send(post("Transfer-Encoding: chunked\r\n", &format!("{chunks}0\r\n\r\n{SMUGGLED}"))).await;
        assert_eq!(client.receive().await.status, 400, "{}", chunks.escape_debug());
        client.closed().await;
        assert!(stage.upstream.requests().is_empty(), "{} was passed on", chunks.escape_debug());
    }
    assert!(stage.upstream.started().iter().all(|head| head.word(1) == "/api"));
}

/// A chunk's extension ends with CR LF and nothing else; what the upstream gets is in chunks of our own, without extensions. So there is nothing left in
/// it that the upstream could read otherwise.
#[tokio::test]
async fn cve_2025_22871_cve_2025_55315_cve_2026_2332_a_bare_lf_in_a_chunk_extension_ends_nothing() {
    let stage = stage().await;
    for extension in [";\n", ";a\n", ";a=\"\n\"", ";\nxx\n"] {
        let length = SMUGGLED.len() + 7;
        for (chunks, body) in [
            (format!("5{extension}\r\nhello\r\n0\r\n\r\n"), "hello".to_owned()),
            (format!("{length:x}{extension}\r\n0\r\n\r\n{SMUGGLED}\r\n\r\n0{extension}\r\n\r\n"), format!("0\r\n\r\n{SMUGGLED}\r\n")),
        ] {
            let mut client = stage.client().await;
            client.send(post("Transfer-Encoding: chunked\r\n", &chunks)).await;
            let status = client.receive().await.status;
            assert!(matches!(status, 200 | 400), "{}: {status}", chunks.escape_debug());
            if status == 200 {
                assert_eq!(stage.last().body.text(), body, "{}", chunks.escape_debug());
                assert_eq!(stage.last().head.all("transfer-encoding"), ["chunked"]);
            }
        }
    }
    assert!(stage.upstream.requests().iter().all(|request| request.target() == "/api"));
}

/// An empty size is read as the last chunk, and what follows as trailers, which go nowhere.
#[tokio::test]
async fn a_chunk_without_a_size_passes_nothing_on() {
    let stage = stage().await;
    for chunks in ["\r\n", ";a\r\n"] {
        let mut client = stage.client().await;
        client.send(post("Transfer-Encoding: chunked\r\n", &format!("{chunks}{SMUGGLED}"))).await;
        assert!(matches!(client.receive().await.status, 200 | 400));
        assert!(stage.upstream.requests().iter().all(|request| request.target() == "/api" && request.body.length == 0));
    }
}

#[tokio::test]
async fn ghsa_fghv_69vj_qj49_quotes_in_chunk_extensions_hide_nothing() {
    // Whatever is made of the extension, the upstream gets either nothing or the body that RFC 9112 section 7.1.1 sees, in chunks of our own.
    let stage = stage().await;
    for extension in [";a=b", ";a=\"b\"", ";a=\"", ";a=\"\\\"", ";a=\";b", "; a = b"] {
        let mut client = stage.client().await;
        client.send(post("Transfer-Encoding: chunked\r\n", &format!("5{extension}\r\nhello\r\n0{extension}\r\n\r\n"))).await;
        let response = client.receive().await;
        assert!(matches!(response.status, 200 | 400), "{extension}: {}", response.status);
        if response.status == 200 {
            assert_eq!(stage.last().body.text(), "hello", "{extension}");
        }
    }
    // The quote that opens in one line and closes in another hides a request from a reader that honours quotes.
    let mut client = stage.client().await;
    let hidden = format!("5;a=\"\r\nhello\r\n{:x}\r\n\"\r\n0\r\n\r\n{SMUGGLED}\r\n0\r\n\r\n", SMUGGLED.len() + 8);
    client.send(post("Transfer-Encoding: chunked\r\n", &hidden)).await;
    assert!(matches!(client.receive().await.status, 200 | 400));
    assert!(stage.upstream.started().iter().all(|head| head.word(1) == "/api"));
}

/// The rest of a refused request's bytes is never read as a request, and the answer arrives whole.
#[tokio::test]
async fn cve_2025_4366_what_follows_a_refused_request_with_an_unread_body_is_never_a_request() {
    let stage = stage().await;
    let length = SMUGGLED.len();
    let bodies = [
        (format!("Content-Length: {length}\r\n"), SMUGGLED.to_owned()),
        ("Content-Length: 5\r\n".into(), "hello".into()),
        ("Content-Length: 0\r\n".into(), String::new()),
        ("Transfer-Encoding: chunked\r\n".into(), format!("{length:x}\r\n{SMUGGLED}\r\n0\r\n\r\n")),
        ("Transfer-Encoding: chunked\r\n".into(), format!("0\r\nX: y\r\n\r\n{SMUGGLED}")),
        ("Content-Length: 200000\r\n".into(), SMUGGLED.repeat(200_000 / length + 1)),
    ];
    for (start, status) in
        [("POST /api", 401), ("POST /other", 404), ("POST /api/%2e%2e/fixed", 400), ("POST /fixed", 204), ("TRACE /api", 400)]
    {
        for expect in ["", "Expect: 100-continue\r\n"] {
            for (lines, body) in &bodies {
                let mut client = stage.client().await;
                let key = if status == 401 { "" } else { "X-API-Key: k\r\n" };
                client.send(format!("{start} HTTP/1.1\r\nHost: app.test\r\n{key}{expect}{lines}\r\n{body}{SMUGGLED}")).await;
                let response = client.receive().await;
                assert_eq!(response.status, status, "{start} {expect}{lines}");
                if status != 204 {
                    response.problem();
                }
                if !response.head.closes() {
                    // Nothing was unread, so the next request is one: it has no key.
                    assert!(lines.contains(": 0"), "{start} {expect}{lines}");
                    assert_eq!(client.receive().await.status, 401);
                } else {
                    client.closed().await;
                }
            }
        }
    }
    assert_eq!((stage.upstream.started().len(), stage.service.recorded().len()), (0, 0));
}

#[tokio::test]
async fn a_refusal_reaches_a_caller_who_is_still_sending() {
    let stage = stage().await;
    for lines in ["Content-Length: 1000000\r\n", "Content-Length: 1000000\r\nX-Broken : x\r\n"] {
        let mut client = stage.client().await;
        client.send(format!("POST /other HTTP/1.1\r\nHost: app.test\r\n{lines}\r\n")).await;
        let response = client.receive().await;
        assert!(matches!(response.status, 400 | 404));
        assert!(client.try_send(vec![b'x'; 1_000_000]).await.is_ok(), "{lines}");
        client.closed().await;
    }
}

/// Also CVE-2026-73548.
#[tokio::test]
async fn cve_2026_2833_bytes_after_an_upgrade_request_do_not_pass_before_a_101() {
    let stage = stage().await;
    let upgrade =
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n";
    let mut client = stage.client().await;
    client.send(request("GET /api HTTP/1.1", &format!("Host: app.test\r\n{upgrade}")) + SMUGGLED).await;
    assert_eq!(client.receive().await.status, 200);
    let next = client.try_send("GET /other HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n").await;
    assert!(next.is_err() || !client.rest().await.windows(8).any(|window| window == b" 200 OK\r"));
    assert!(stage.upstream.started().iter().all(|head| head.word(1) == "/api"));
}

/// RFC 9112 section 9.3.2: answers come in the order of requests, each to its own.
#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let stage = stage().await;
    for word in ["one", "two", "three"] {
        stage.upstream.reply_next(Reply::Chunked(vec![word.into()]));
    }
    let mut client = stage.client().await;
    let get = |path: &str| request(&format!("GET {path} HTTP/1.1"), "Host: app.test\r\n");
    client
        .send(
            get("/api/1")
                + &post("Content-Length: 5\r\n", "hello")
                + &get("/other")
                + &post("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n"),
        )
        .await;
    assert_eq!(client.receive().await.body.text(), "one");
    assert_eq!(client.receive().await.body.text(), "two");
    assert_eq!(client.receive().await.problem(), "no_route");
    assert_eq!(client.receive().await.body.text(), "three");
    let seen: Vec<_> = stage.upstream.requests().iter().map(|request| (request.target().to_owned(), request.body.text())).collect();
    assert_eq!(seen, [("/api/1", ""), ("/api", "hello"), ("/api", "hello")].map(|(target, body)| (target.to_owned(), body.to_owned())));
}

#[tokio::test]
async fn a_request_that_comes_while_another_is_served_does_no_harm_to_it() {
    let stage = stage().await;
    let gate = Gate::closed();
    stage.upstream.reply_next(Reply::Gated { first: b"fir".to_vec(), gate: gate.clone(), second: b"st".to_vec() });
    let mut client = stage.client().await;
    client.send(request("GET /api/1 HTTP/1.1", "Host: app.test\r\n")).await;
    client.head().await;
    client.send(request("GET /api/2 HTTP/1.1", "Host: app.test\r\n")).await;
    assert_eq!(client.bytes(3).await, b"fir");
    gate.open();
    assert_eq!(client.bytes(2).await, b"st");
    assert_eq!(client.receive().await.body.json()["ok"], true);
    assert_eq!(stage.upstream.requests().len(), 2);
}
