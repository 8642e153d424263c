//! Many callers who are slow, idle or too many: the others are served.

use std::future::poll_fn;
use std::io::Write;
use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::timeout;

use crate::support::bearerd::{Bearerd, until};
use crate::support::client::Client;
use crate::support::events::PATIENCE;
use crate::support::frames::{END_HEADERS, END_STREAM, PRIORITY, beginning, frame, pseudo_headers};
use crate::support::http2::{Connection, request, whole};
use crate::support::process::{Process, allow_descriptors_up_to};
use crate::support::stage::{Stage, configuration, surroundings};
use crate::support::tls::Authority;
use crate::support::upstream::{Reply, pattern};

const ROUTES: &str = "  - { upstream: app }";
const GET: &str = "GET / HTTP/1.1\r\nHost: app.test\r\nX-API-Key: k\r\n\r\n";

fn limited(limits: &str) -> String {
    format!("listeners: [{{ address: 127.0.0.1:0, limits: {{ {limits} }} }}]")
}

/// Half of them have been served before. As many as the system lets this process have, where that is fewer, but thousands.
#[tokio::test]
async fn ten_thousand_idle_connections_cost_little_and_keep_nobody_from_being_served() {
    const IDLE: u64 = 10_000;
    const FEWEST: u64 = 4000;
    const OTHERS: u64 = 1000;
    // What one may take: its task, its buffers, its place in the list.
    const EACH: u64 = 64 * 1024;
    let idle = allow_descriptors_up_to(IDLE + OTHERS).saturating_sub(OTHERS);
    assert!(idle >= FEWEST, "only {idle} connections: this test needs a hard limit of {} descriptors (`ulimit -Hn`)", FEWEST + OTHERS);
    let (service, upstream) = surroundings().await;
    let limits = limited("connections: 0, header_timeout: 10m, idle_timeout: 10m");
    let process = Process::run(&configuration(&service, &upstream, &limits, ROUTES));
    let addresses = process.addresses().await;
    let mut caller = Client::connect(addresses.callers[0]).await;
    assert_eq!(caller.exchange(GET).await.status, 200);
    let before = process.peak_memory();
    let mut open = Vec::new();
    for number in 0..idle {
        let mut client = Client::connect(addresses.callers[0]).await;
        if number % 2 == 0 {
            assert_eq!(client.exchange(GET).await.status, 200);
        }
        open.push(client);
    }
    until(addresses.metrics, "bearerd_connections", |connections| connections == (idle + 1) as f64).await;
    for _ in 0..100 {
        assert_eq!(caller.exchange(GET).await.status, 200);
        assert_eq!(Client::connect(addresses.callers[0]).await.exchange(GET).await.status, 200);
    }
    let each = (process.peak_memory() - before) / idle;
    println!("{idle} idle connections, {each} bytes each");
    assert!(each < EACH, "{each} bytes for each of {idle}");
    drop(open);
    until(addresses.metrics, "bearerd_connections", |connections| connections <= 2.0).await;
}

#[tokio::test]
async fn a_flood_of_connections_from_one_address_takes_no_more_than_its_share() {
    const SHARE: usize = 20;
    const FLOOD: usize = 3000;
    let stage = Stage::configured(&limited(&format!("connections: 100, connections_per_peer: {SHARE}")), ROUTES).await;
    let mut caller = stage.client().await;
    let mut kept = Vec::new();
    for number in 0..FLOOD {
        kept.push(Client::connect_from(Ipv4Addr::new(127, 0, 0, 2), stage.bearerd.address()).await);
        if kept.len() > 200 {
            // As long as it keeps its seats, nobody of this address gets another.
            kept.truncate(SHARE);
        }
        if number % 100 == 0 {
            assert_eq!(caller.exchange(GET).await.status, 200);
            assert_eq!(stage.client().await.exchange(GET).await.status, 200);
        }
    }
    let refused = r#"bearerd_connections_refused_total{limit="connections_per_peer"}"#;
    stage.bearerd.until(refused, (FLOOD - SHARE) as f64).await;
    assert_eq!(stage.bearerd.value(r#"bearerd_connections_refused_total{limit="connections"}"#).await, 0.0);
}

/// Slowloris in each of its forms: each caller begins, and does nothing more.
#[tokio::test]
async fn callers_who_stop_in_headers_bodies_and_answers_are_gone_after_their_time_and_others_served_meanwhile() {
    const EACH: usize = 200;
    let stage = Stage::configured(&limited("header_timeout: 2s, idle_timeout: 2s"), ROUTES).await;
    let mut slow = Vec::new();
    for number in 0..EACH / 4 {
        let mut client = stage.client().await;
        stage.upstream.reply_next(Reply::Stream(1 << 30));
        client.send(GET).await;
        stage.upstream.wait_for_requests(number + 1).await;
        slow.push(client);
    }
    for _ in 0..EACH {
        for begun in [
            "GET / HTTP/1.1\r\nHost: app.test\r\nX-",
            "POST / HTTP/1.1\r\nHost: app.test\r\nX-API-Key: k\r\nContent-Length: 5\r\n\r\nhell",
            "POST / HTTP/1.1\r\nHost: app.test\r\nX-API-Key: k\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
            "POST /none HTTP/1.1\r\nHost: app.test\r\nContent-Length: 5\r\n\r\nhell",
        ] {
            let mut client = stage.client().await;
            client.send(begun).await;
            slow.push(client);
        }
    }
    let mut caller = stage.client().await;
    let mut served = 0;
    while stage.bearerd.value("bearerd_connections").await > 1.0 {
        assert_eq!(caller.exchange(GET).await.status, 200);
        served += 1;
    }
    assert!(served > 0);
    assert_eq!(stage.bearerd.value("bearerd_requests_in_flight").await, 0.0);
    drop(slow);
}

/// The time between two bytes of a caller who drips.
const DRIP: Duration = Duration::from_millis(50);
const HANDSHAKES: &str = r#"bearerd_connections_refused_total{limit="tls_handshake"}"#;

/// `header_timeout` is the time for a whole handshake too, however it is spent.
#[tokio::test]
async fn tls_handshakes_that_do_not_come_to_an_end_are_cut_off_and_others_served_meanwhile() {
    const EACH: usize = 20;
    let authority = Authority::new();
    let tls = format!("tls: {{ certificates: [{}] }}", authority.yaml_pair("a", &authority.issue("app.test")));
    let stage =
        Stage::configured(&format!("listeners: [{{ address: 127.0.0.1:0, {tls}, limits: {{ header_timeout: 2s }} }}]"), ROUTES).await;
    let mut callers = JoinSet::new();
    for number in 0..3 * EACH {
        let mut client = stage.client().await;
        callers.spawn(async move {
            // A record that holds the beginning of a ClientHello of 508 bytes.
            if number % 3 > 0 {
                client.send([0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]).await;
            }
            if number % 3 > 1 {
                drip(&mut client, b"\0").await;
            }
            assert!(client.rest().await.is_empty(), "nothing is answered");
        });
    }
    let mut served = 0;
    while stage.bearerd.value(HANDSHAKES).await < (3 * EACH) as f64 {
        let stream = authority.connect(stage.bearerd.address(), "app.test", None, &[b"http/1.1"]).await.unwrap();
        assert_eq!(Client::over(stream).exchange(GET).await.status, 200);
        served += 1;
    }
    assert!(served > 0);
    while let Some(caller) = callers.join_next().await {
        caller.unwrap();
    }
    stage.bearerd.until("bearerd_connections", 0.0).await;
}

/// Sends the same bytes over and over, slowly, until the other side answers or closes.
async fn drip(client: &mut Client, bytes: &[u8]) {
    while timeout(DRIP, client.heard()).await.is_err() {
        if client.try_send(bytes).await.is_err() {
            return;
        }
    }
}

fn in_h2c(limits: &str) -> String {
    format!("listeners: [{{ address: 127.0.0.1:0, h2c: true, limits: {{ {limits} }} }}]")
}

/// Half a header section is no request: the connection is idle, and ends as such, however its bytes come.
#[tokio::test]
async fn http2_header_sections_that_do_not_come_to_an_end_are_cut_off_as_idle_and_others_served_meanwhile() {
    const EACH: usize = 20;
    let stage = Stage::configured(&in_h2c("header_timeout: 2s, idle_timeout: 2s"), ROUTES).await;
    let unended = beginning(END_STREAM, &[&pseudo_headers("/")[..], &[("x-api-key", b"k")]].concat());
    // An empty CONTINUATION: no progress either.
    let continuation = [0, 0, 0, 9, 0, 0, 0, 0, 1];
    let mut callers = JoinSet::new();
    for number in 0..3 * EACH {
        let mut client = stage.client().await;
        let unended = unended.clone();
        callers.spawn(async move {
            match number % 3 {
                0 => client.send(&unended).await,
                1 => client.send(&unended[..unended.len() - 5]).await,
                _ => {
                    client.send(&unended).await;
                    // What the server says first.
                    client.heard().await;
                    while client.try_send(continuation).await.is_ok() && timeout(DRIP, client.rest()).await.is_err() {}
                }
            }
            client.rest().await;
        });
    }
    let mut caller = Connection::connect(stage.bearerd.address()).await;
    let mut served = 0;
    while served == 0 || stage.bearerd.value("bearerd_connections").await > 1.0 {
        assert_eq!(caller.get("/", &[("x-api-key", "k")]).await.head.status, 200);
        served += 1;
    }
    while let Some(caller) = callers.join_next().await {
        caller.unwrap();
    }
    assert_eq!(stage.upstream.requests().len(), served, "none of the others was a request");
}

/// With the word that nothing went wrong, whether or not there has been a request.
#[tokio::test]
async fn idle_http2_connections_end_after_their_time() {
    let stage = Stage::configured(&in_h2c("idle_timeout: 1s"), ROUTES).await;
    let unused = Connection::connect(stage.bearerd.address()).await;
    let mut used = Connection::connect(stage.bearerd.address()).await;
    assert_eq!(used.get("/", &[("x-api-key", "k")]).await.head.status, 200);
    stage.bearerd.until("bearerd_connections", 0.0).await;
    for caller in [unused, used] {
        caller.ended().await.unwrap();
    }
}

/// `idle_timeout` is for those who send nothing: a body may take as long as it likes, as long as it comes.
#[tokio::test]
async fn a_body_that_drips_arrives_whole() {
    // Longer than the timeout in all, and much shorter from one to the next.
    const BYTES: usize = 60;
    let stage = Stage::configured(&limited("idle_timeout: 2s"), ROUTES).await;
    for framing in [format!("Content-Length: {BYTES}"), "Transfer-Encoding: chunked".to_owned()] {
        let mut client = stage.client().await;
        client.send(format!("POST / HTTP/1.1\r\nHost: app.test\r\nX-API-Key: k\r\n{framing}\r\n\r\n")).await;
        let is_chunked = framing.ends_with("chunked");
        for _ in 0..BYTES {
            assert!(timeout(DRIP, client.heard()).await.is_err(), "no answer yet");
            client.send(if is_chunked { "1\r\nx\r\n" } else { "x" }).await;
        }
        if is_chunked {
            client.send("0\r\n\r\n").await;
        }
        assert_eq!(client.receive().await.status, 200);
        assert_eq!(stage.last().body.text(), "x".repeat(BYTES));
    }
}

/// Nor is an answer without a body written for longer than one with it.
#[tokio::test]
async fn who_reads_nothing_loses_its_connection_whatever_it_is_answered() {
    let stage = Stage::configured(&limited("idle_timeout: 1s"), ROUTES).await;
    stage.upstream.reply_always(Reply::status(204));
    for request in ["HEAD / HTTP/1.1\r\nHost: app.test\r\n\r\n", GET] {
        let mut deaf = Client::connect_with_room(4096, stage.bearerd.address()).await;
        let requests = request.repeat(100);
        while timeout(PATIENCE, deaf.try_send(&requests)).await.expect("the end of the connection").is_ok() {}
        stage.bearerd.until("bearerd_connections", 0.0).await;
        assert_eq!(stage.bearerd.value("bearerd_requests_in_flight").await, 0.0);
    }
}

/// Whoever takes some of an answer again and again gets all of it; a byte now and then is nothing to a connection whose buffers are full.
#[tokio::test]
async fn a_reader_of_single_bytes_gets_its_answer_where_it_keeps_up_and_is_cut_off_where_it_does_not() {
    const ANSWER: u64 = 100_000;
    let stage = Stage::configured(&limited("idle_timeout: 1s"), ROUTES).await;
    let ends = GET.replace("Host", "Connection: close\r\nHost");
    // Without a buffer of our own.
    let mut keeping_up = TcpStream::connect(stage.bearerd.address()).await.unwrap();
    stage.upstream.reply_next(Reply::Stream(ANSWER));
    keeping_up.write_all(ends.as_bytes()).await.unwrap();
    let (mut answer, mut byte) = (Vec::new(), [0]);
    while keeping_up.read(&mut byte).await.unwrap() > 0 {
        answer.extend(byte);
    }
    let mut expected = Vec::new();
    pattern(ANSWER).read_to_end(&mut expected).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200") && answer.ends_with(&expected));

    let mut lagging = TcpStream::connect(stage.bearerd.address()).await.unwrap();
    stage.upstream.reply_next(Reply::Stream(1 << 30));
    lagging.write_all(GET.as_bytes()).await.unwrap();
    lagging.read_exact(&mut byte).await.unwrap();
    while stage.bearerd.value("bearerd_connections").await > 0.0 {
        lagging.read_exact(&mut byte).await.unwrap();
        assert_eq!(stage.client().await.exchange(&ends).await.status, 200);
    }
    assert_eq!(stage.bearerd.value("bearerd_requests_in_flight").await, 0.0);
}

/// Over HTTP/2 a request may go on when its answer has come; who leaves it open and says no more holds its upstream's connection no longer than that may be
/// silent.
#[tokio::test]
async fn a_request_that_does_not_end_after_its_answer_is_cut_off() {
    let (service, upstream) = surroundings().await;
    let bearerd = Bearerd::start(&format!(
        "listeners: [{{ address: 127.0.0.1:0, h2c: true, limits: {{ idle_timeout: 1s }} }}]\ntoken_services: {{ default: {{ kind: iap, url: \"{}\" }} }}\n\
         upstreams: {{ app: {{ servers: [\"{}\"], timeouts: {{ read: 1s, write: 1s }} }} }}\nroutes: [{{ upstream: app }}]\n",
        service.url(),
        upstream.address()
    ));
    let answers = [
        "200 OK\r\nContent-Length: 1\r\n\r\na",
        "200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
        "200 OK\r\nContent-Length: 0\r\n\r\n",
        "204 No Content\r\n\r\n",
    ];
    let mut caller = Connection::connect(bearerd.address()).await;
    let mut open = Vec::new();
    for answer in answers {
        upstream.reply_next(Reply::Ahead(format!("HTTP/1.1 {answer}").into_bytes()));
        let (answer, body) = caller.begin(request("GET", "/", &[("x-api-key", "k")]), false).await.unwrap();
        whole(answer).await.unwrap();
        open.push(body);
    }
    assert_eq!(bearerd.value("bearerd_requests_in_flight").await, 4.0);
    upstream.reply_always(Reply::status(202));
    // Others on the connection make no difference.
    let ended = async {
        while bearerd.value("bearerd_requests_in_flight").await > 0.0 {
            assert_eq!(caller.get("/", &[("x-api-key", "k")]).await.head.status, 202);
        }
    };
    timeout(PATIENCE, ended).await.expect("the end of those that say no more");
    for mut body in open {
        // Nothing is wrong with its answer (RFC 9113 section 8.1).
        assert_eq!(poll_fn(|context| body.poll_reset(context)).await.unwrap(), h2::Reason::NO_ERROR);
    }
    // Each counts once.
    for (status, count) in [(200, 3.0), (204, 1.0), (202, upstream.requests().len() as f64)] {
        assert_eq!(bearerd.value(&format!("bearerd_requests_total{{code=\"{status}\",method=\"GET\",route=\"route-1\"}}")).await, count);
    }
}

#[tokio::test]
async fn frames_without_pause_and_without_a_request_keep_no_connection() {
    let (service, upstream) = surroundings().await;
    let process = Process::run(&configuration(&service, &upstream, &in_h2c("idle_timeout: 1s"), ROUTES));
    let mut busy = std::net::TcpStream::connect(process.addresses().await.callers[0]).unwrap();
    busy.write_all(&beginning(END_HEADERS | END_STREAM, &[&pseudo_headers("/")[..], &[("x-api-key", b"k")]].concat())).unwrap();
    upstream.wait_for_requests(1).await;
    // More than can be read at a time, from a thread of its own: there is always some to read.
    let flood = spawn_blocking(move || {
        let frames = frame(PRIORITY, 0, 3, &[0, 0, 0, 0, 1]).repeat(4000);
        while busy.write_all(&frames).is_ok() {}
    });
    timeout(PATIENCE, flood).await.expect("the end of the connection").unwrap();
}

/// The same on HTTP/2, where callers say themselves how much they take.
#[tokio::test]
async fn a_window_that_opens_byte_by_byte_holds_no_answer_for_longer_than_a_shut_one() {
    let stage = Stage::configured(&in_h2c("idle_timeout: 1s"), ROUTES).await;
    let mut lagging = TcpStream::connect(stage.bearerd.address()).await.unwrap();
    stage.upstream.reply_next(Reply::Stream(1 << 30));
    lagging.write_all(&beginning(END_HEADERS | END_STREAM, &[&pseudo_headers("/")[..], &[("x-api-key", b"k")]].concat())).await.unwrap();
    stage.upstream.wait_for_requests(1).await;
    let mut caller = Connection::connect(stage.bearerd.address()).await;
    // A byte more, on the connection and on the stream.
    let update = |stream| [0, 0, 4, 8, 0, 0, 0, 0, stream, 0, 0, 0, 1];
    while stage.bearerd.value("bearerd_requests_in_flight").await > 0.0 {
        lagging.write_all(&[update(0), update(1)].concat()).await.unwrap();
        assert_eq!(caller.get("/", &[("x-api-key", "k")]).await.head.status, 200);
    }
    // RST_STREAM, behind what was taken.
    let mut seen = Vec::new();
    while !seen.windows(9).any(|head| head == [0, 0, 4, 3, 0, 0, 0, 0, 1]) {
        assert!(timeout(PATIENCE, lagging.read_buf(&mut seen)).await.unwrap().unwrap() > 0, "it ended without a word");
    }
}
