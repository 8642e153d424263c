//! Bodies pass byte for byte in both directions, as they come, whoever ends first.

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};

use crate::support::client::Client;
use crate::support::events::{Gate, Log};
use crate::support::http::{Framing, read_body, read_head, sha256};
use crate::support::process::Process;
use crate::support::server::Server;
use crate::support::stage::{Stage, configuration};
use crate::support::token_service::ScriptedTokenService;
use crate::support::upstream::{RecordingUpstream, Reply, pattern};

const ROUTES: &str = "  - { name: api, upstream: app, validate: { details: off } }";
const GET: &str = "GET / HTTP/1.1\r\nHost: app.test\r\nX-API-Key: k\r\n\r\n";

async fn stage() -> Stage {
    Stage::with_routes(ROUTES).await
}

fn post(lines: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: app.test\r\nX-API-Key: k\r\n{lines}\r\n\r\n")
}

async fn some(length: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length);
    pattern(length as u64).read_to_end(&mut bytes).await.unwrap();
    bytes
}

fn chunked(bytes: &[u8], size: usize) -> Vec<u8> {
    let chunks = bytes.chunks(size).flat_map(|chunk| [format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat());
    chunks.chain(*b"0\r\n\r\n").collect()
}

/// Around the sizes of the buffers on the way.
const SIZES: [usize; 9] = [0, 1, 4095, 4096, 4097, 65_535, 65_536, 65_537, 1_000_003];

#[tokio::test]
async fn request_bodies_arrive_byte_for_byte() {
    let stage = stage().await;
    let mut client = stage.client().await;
    for size in SIZES {
        let bytes = some(size).await;
        for (lines, body) in [
            (format!("Content-Length: {size}"), bytes.clone()),
            ("Transfer-Encoding: chunked".to_owned(), chunked(&bytes, 1_000)),
            ("Transfer-Encoding: chunked".to_owned(), chunked(&bytes, 100_000)),
        ] {
            client.send([post(&lines).into_bytes(), body].concat()).await;
            assert_eq!(client.receive().await.status, 200);
            let seen = stage.last();
            assert_eq!((seen.body.length, seen.body.sha256), (size as u64, sha256(&bytes)), "{lines}");
            let (name, value) = lines.split_once(": ").unwrap();
            assert_eq!(seen.head.all(name), [value], "framed as it came");
        }
    }
    assert_eq!(stage.upstream.connections(), 1);
}

#[tokio::test]
async fn response_bodies_arrive_byte_for_byte() {
    let stage = stage().await;
    let mut client = stage.client().await;
    for size in SIZES {
        let bytes = some(size).await;
        let pieces = |length: usize| Reply::Chunked(bytes.chunks(length).map(<[u8]>::to_vec).collect());
        for reply in [Reply::Fixed { status: 200, headers: Vec::new(), body: bytes.clone() }, pieces(1_000), pieces(100_000)] {
            stage.upstream.reply_next(reply);
            let response = client.exchange(GET).await;
            assert_eq!((response.body.length, response.body.sha256), (size as u64, sha256(&bytes)));
        }
    }
    assert_eq!(stage.upstream.connections(), 1);
}

#[tokio::test]
async fn a_gibibyte_each_way_takes_no_memory() {
    const GIBIBYTE: u64 = 1 << 30;
    const GROWTH: u64 = 64 << 20;
    let (service, upstream) = (ScriptedTokenService::start().await, RecordingUpstream::start().await);
    let process = Process::run(&configuration(&service, &upstream, "", ROUTES));
    let mut client = Client::connect(process.addresses().await.callers[0]).await;
    assert_eq!(client.exchange(GET).await.status, 200);
    let before = process.peak_memory();
    let expected = read_body(&mut BufReader::with_capacity(1 << 16, pattern(GIBIBYTE)), Framing::UntilClose).await.unwrap();

    upstream.reply_next(Reply::Stream(GIBIBYTE));
    let response = client.exchange(GET).await;
    assert_eq!((response.body.length, &response.body.sha256), (GIBIBYTE, &expected.sha256));

    client.send(post(&format!("Content-Length: {GIBIBYTE}"))).await;
    client.send_all(BufReader::with_capacity(1 << 16, pattern(GIBIBYTE))).await;
    assert_eq!(client.receive().await.status, 200);
    let seen = upstream.requests().pop().unwrap();
    assert_eq!((seen.body.length, &seen.body.sha256), (GIBIBYTE, &expected.sha256));

    let grown = process.peak_memory() - before;
    assert!(grown < GROWTH, "grew by {grown} bytes from {before}");
}

#[tokio::test]
async fn a_caller_that_expects_100_gets_it_from_the_upstream() {
    let stage = stage().await;
    let mut client = stage.client().await;
    for (lines, body) in [("Content-Length: 5", "hello"), ("Transfer-Encoding: chunked", "5\r\nhello\r\n0\r\n\r\n")] {
        client.send(post(&format!("{lines}\r\nExpect: 100-continue"))).await;
        assert_eq!(client.receive().await.status, 100);
        client.send(body).await;
        assert_eq!(client.receive().await.status, 200);
        assert_eq!(stage.last().body.text(), "hello");
    }
    // An upstream that knows nothing of it: the caller sends after a while of its own choosing.
    stage.upstream.answer_expect(false);
    client.send(post("Content-Length: 5\r\nExpect: 100-continue")).await;
    stage.upstream.wait_for_started(3).await;
    client.send("hello").await;
    assert_eq!(client.receive().await.status, 200);
}

#[tokio::test]
async fn a_refusal_is_not_preceded_by_100() {
    let stage = stage().await;
    let head = "POST / HTTP/1.1\r\nHost: app.test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
    assert_eq!(stage.client().await.exchange(head).await.problem(), "missing_credential");
    stage.upstream.reply_next(Reply::Early(413));
    let mut client = stage.client().await;
    let response = client.exchange(post("Content-Length: 5\r\nExpect: 100-continue")).await;
    assert_eq!(response.status, 413, "the upstream's own refusal");
    assert!(response.head.closes(), "the body may or may not follow");
    drop(client);
    stage.bearerd.until("bearerd_requests_in_flight", 0.0).await;
}

#[tokio::test]
async fn answers_without_a_body_leave_the_connection_in_order() {
    let stage = stage().await;
    let mut client = stage.client().await;
    let fixed = |status| Reply::Fixed { status, headers: vec![("ETag".into(), "\"1\"".into())], body: b"twelve bytes".to_vec() };
    for round in 0..2 {
        stage.upstream.reply_next(fixed(200));
        client.send(GET.replacen("GET", "HEAD", 1)).await;
        let head = client.head().await;
        assert_eq!((head.word(1), head.header("content-length"), head.header("etag")), ("200", Some("12"), Some("\"1\"")), "{round}");
        assert_eq!(stage.last().method(), "HEAD");
        for status in [204, 304] {
            stage.upstream.reply_next(fixed(status));
            let response = client.exchange(GET).await;
            assert_eq!((response.status, response.header("etag")), (status, Some("\"1\"")));
        }
        // A refusal of HEAD has no body either.
        client.send("HEAD / HTTP/1.1\r\nHost: app.test\r\n\r\n").await;
        let head = client.head().await;
        assert_eq!((head.word(1), head.header("content-type")), ("401", Some("application/problem+json")));
    }
    assert_eq!(client.exchange(GET).await.body.json()["ok"], true);
    assert_eq!(stage.upstream.connections(), 1);
}

#[tokio::test]
async fn connections_are_kept_to_both_sides() {
    let stage = stage().await;
    let mut first = stage.client().await;
    for _ in 0..10 {
        assert_eq!(first.exchange(GET).await.status, 200);
    }
    assert_eq!(stage.upstream.connections(), 1);
    let mut second = stage.client().await;
    assert_eq!(second.exchange(post("Content-Length: 2") + "hi").await.status, 200);
    assert_eq!(first.exchange(GET).await.status, 200);
    // The caller may have its answer a moment before the connection is back in the pool.
    assert!(stage.upstream.connections() <= 2, "a connection to the upstream serves whoever is next");
}

#[tokio::test]
async fn an_upstream_that_closes_costs_the_caller_nothing() {
    let stage = stage().await;
    let mut client = stage.client().await;
    stage.upstream.reply_next(Reply::Close);
    assert_eq!(client.exchange(GET).await.body.text(), "ok");
    assert_eq!(client.exchange(GET).await.status, 200);
    assert_eq!(stage.upstream.connections(), 2);
    // A body that ends with the connection, from a server of HTTP/1.0.
    stage.upstream.reply_next(Reply::Raw(b"HTTP/1.0 200 OK\r\n\r\nuntil the end".to_vec()));
    let response = client.exchange(GET).await;
    assert_eq!((response.status, response.body.text().as_str()), (200, "until the end"));
}

/// RFC 9112 section 8: an incomplete answer is never made to look complete.
#[tokio::test]
async fn an_answer_that_breaks_off_does_not_look_whole() {
    let stage = stage().await;
    for reply in [
        Reply::ResetMidway,
        Reply::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf".to_vec()),
        Reply::Raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n".to_vec()),
        Reply::Raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzzzz\r\nhalf\r\n".to_vec()),
    ] {
        stage.upstream.reply_next(reply);
        let mut client = stage.client().await;
        client.send(GET).await;
        // A reset may overtake the head; then the failure has an answer of its own.
        let whole = client.try_receive().await;
        assert!(whole.as_ref().is_none_or(|response| response.status == 502), "{whole:?}");
    }
    assert_eq!(stage.client().await.exchange(GET).await.status, 200);
}

#[tokio::test]
async fn an_upstream_that_answers_before_it_has_read_the_body_is_heard() {
    let stage = stage().await;
    for size in [5, 100_000, 10_000_000] {
        stage.upstream.reply_next(Reply::Early(413));
        let mut client = stage.client().await;
        client.send(post(&format!("Content-Length: {size}"))).await;
        let response = client.receive().await;
        assert_eq!(response.status, 413);
        assert!(response.head.closes());
        // Whatever comes after the body is no request.
        let _ = client.try_send([vec![b'x'; size], GET.repeat(10).into_bytes()].concat()).await;
        client.rest().await;
    }
    assert_eq!(stage.upstream.started().len(), 3);
    assert_eq!(stage.client().await.exchange(GET).await.status, 200);
}

#[tokio::test]
async fn a_caller_that_hangs_up_midway_takes_its_upstream_connection_along() {
    let stage = stage().await;
    for lines in ["Content-Length: 100", "Transfer-Encoding: chunked"] {
        let mut client = stage.client().await;
        client.send(post(lines) + "5\r\nhello\r\n").await;
        stage.upstream.wait_for_started(stage.upstream.requests().len() + 1).await;
        drop(client);
        // On the same connection the upstream would take it for the rest of the body.
        let response = stage.client().await.exchange(post("Content-Length: 4") + "full").await;
        assert_eq!((response.status, stage.last().body.text().as_str()), (200, "full"));
    }
    let served = stage.upstream.requests().len();
    // While it waits for the answer, and in the middle of it.
    let gate = Gate::closed();
    for reply in [Reply::Hang, Reply::Gated { first: b"first".to_vec(), gate: gate.clone(), second: b"second".to_vec() }] {
        stage.upstream.reply_next(reply.clone());
        let mut client = stage.client().await;
        client.send(GET).await;
        stage.upstream.wait_for_requests(stage.upstream.requests().len() + 1).await;
        if matches!(reply, Reply::Gated { .. }) {
            client.head().await;
        }
        drop(client);
        stage.bearerd.until("bearerd_requests_in_flight", 0.0).await;
        assert_eq!(stage.client().await.exchange(GET).await.body.json()["ok"], true);
    }
    gate.open();
    assert_eq!(stage.upstream.requests().len(), served + 4);
}

#[tokio::test]
async fn the_first_part_of_an_answer_does_not_wait_for_the_second() {
    let stage = stage().await;
    let mut client = stage.client().await;
    for _ in 0..2 {
        let gate = Gate::closed();
        stage.upstream.reply_next(Reply::Gated { first: b"first".to_vec(), gate: gate.clone(), second: b"second".to_vec() });
        client.send(GET).await;
        assert_eq!(client.head().await.header("content-length"), Some("11"));
        assert_eq!(client.bytes(5).await, b"first");
        gate.open();
        assert_eq!(client.bytes(6).await, b"second");
    }
}

/// Both directions at once: each side sends its next part only when it has the other's.
#[tokio::test]
async fn parts_pass_in_both_directions_at_once() {
    const ROUNDS: usize = 5;
    let asked = Log::default();
    let seen = asked.clone();
    let upstream = Server::start(move |_, stream| {
        let seen = seen.clone();
        async move {
            let mut stream = BufReader::new(stream);
            let head = read_head(&mut stream).await.unwrap().unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await.unwrap();
            for _ in 0..ROUNDS {
                let mut part = [0; 4 + 3 + 2];
                let size = usize::from(head.header("content-length").is_none()) * 5;
                stream.read_exact(&mut part[..4 + size]).await.unwrap();
                stream.write_all(b"4\r\npong\r\n").await.unwrap();
                seen.push(String::from_utf8_lossy(&part[..4 + size]).into_owned());
            }
            stream.write_all(b"0\r\n\r\n").await.unwrap();
        }
    })
    .await;
    let service = ScriptedTokenService::start().await;
    let bearerd = crate::support::bearerd::Bearerd::start(&format!(
        "token_services: {{ default: {{ kind: iap, url: \"{}\" }} }}\nupstreams: {{ app: {{ servers: [\"{}\"] }} }}\nroutes:\n{ROUTES}\n",
        service.url(),
        upstream.address()
    ));
    for (lines, part) in [(format!("Content-Length: {}", 4 * ROUNDS), "ping"), ("Transfer-Encoding: chunked".into(), "4\r\nping\r\n")] {
        let before = asked.count(|_| true);
        let mut client = Client::connect(bearerd.address()).await;
        client.send(post(&lines)).await;
        assert_eq!(client.head().await.word(1), "200");
        for round in 1..=ROUNDS {
            client.send(part).await;
            assert_eq!(client.bytes(9).await, b"4\r\npong\r\n");
            asked.wait_for(before + round, |_| true).await;
        }
        assert!(asked.all()[before..].iter().all(|seen| seen == part));
    }
}
