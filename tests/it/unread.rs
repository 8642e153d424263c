//! Answers that an HTTP/2 caller does not take: few of them are read ahead, and what waits for them goes on as soon as it may.

use std::time::Duration;

use bearerd::app::Stop;
use h2::RecvStream;
use http::{Response, StatusCode};

use crate::support::bearerd::Bearerd;
use crate::support::client::Client;
use crate::support::events::Gate;
use crate::support::frames::{
    ACK, DATA, END_HEADERS, END_STREAM, GOOD, HEADERS, PING, PREFACE, RST_STREAM, SETTINGS, WINDOW_UPDATE, field_section, frame, next_frame,
};
use crate::support::http2::{Connection, request, rest, whole};
use crate::support::stage::surroundings;
use crate::support::token_service::ScriptedTokenService;
use crate::support::upstream::{RecordingUpstream, Reply};

/// More than is read ahead of a caller, by itself and by the kernel.
const MUCH: u64 = 16 << 20;

/// A connection holds two answers at a time that its caller does not take.
fn holding_two(service: &ScriptedTokenService, upstream: &RecordingUpstream) -> Bearerd {
    holding(service, upstream, "unread_bytes: 1200KiB")
}

fn holding(service: &ScriptedTokenService, upstream: &RecordingUpstream, limits: &str) -> Bearerd {
    Bearerd::start(&format!(
        "listeners: [{{ address: 127.0.0.1:0, h2c: true, limits: {{ {limits} }} }}, {{ address: 127.0.0.1:0 }}]\n\
         token_services: {{ default: {{ kind: iap, url: \"{}\" }} }}\nupstreams: {{ app: {{ servers: [\"{}\"] }} }}\n\
         logging: {{ access: false }}\nroutes: [{{ upstream: app, on_expiry: close }}]\nshutdown: {{ delay: 0s }}\n",
        service.url(),
        upstream.address()
    ))
}

const KEY: &[(&str, &str)] = &[("x-api-key", "k")];

/// The answers to two requests for `/much`, which have begun.
async fn two_untaken(caller: &mut Connection) -> [Response<RecvStream>; 2] {
    let mut begin = async || caller.begin(request("GET", "/much", KEY), true).await.unwrap().0.await.unwrap();
    [begin().await, begin().await]
}

#[tokio::test]
async fn requests_beyond_those_whose_answers_nobody_takes_wait_and_go_on() {
    let (service, upstream) = surroundings().await;
    let bearerd = holding_two(&service, &upstream);
    upstream.reply_always(Reply::Stream(MUCH));
    let mut caller = Connection::connect(bearerd.address()).await;
    let untaken = two_untaken(&mut caller).await;
    upstream.wait_for_started(2).await;
    let (third, _) = caller.begin(request("GET", "/third", KEY), true).await.unwrap();
    // Others are served meanwhile, and this one is not sent.
    let mut other = Connection::connect(bearerd.address()).await;
    let (answer, _) = other.begin(request("GET", "/other", KEY), true).await.unwrap();
    assert_eq!(whole(answer).await.unwrap().body.len() as u64, MUCH);
    let targets = || upstream.started().iter().map(|head| head.word(1).to_owned()).collect::<Vec<_>>();
    assert_eq!(targets(), ["/much", "/much", "/other"]);
    // One is given up: the next begins.
    let [given_up, _untaken] = untaken;
    drop(given_up);
    assert_eq!(whole(third).await.unwrap().body.len() as u64, MUCH);
    assert_eq!(targets().last().unwrap(), "/third");
}

/// Those that are cut off leave their places to who waits.
#[tokio::test]
async fn who_waits_for_requests_that_outlived_their_token_goes_on_when_they_are_cut_off() {
    let (service, upstream) = surroundings().await;
    let bearerd = holding_two(&service, &upstream);
    upstream.reply_always(Reply::Stream(MUCH));
    service.set_lifetime(Duration::from_secs(600));
    let mut caller = Connection::connect(bearerd.address()).await;
    let untaken = two_untaken(&mut caller).await;
    service.set_lifetime(Duration::from_secs(6000));
    let (third, _) = caller.begin(request("GET", "/third", &[("x-api-key", "other")]), true).await.unwrap();
    bearerd.clock.step(601_000);
    assert_eq!(whole(third).await.unwrap().body.len() as u64, MUCH);
    for answer in untaken {
        let mut body = answer.into_body();
        while body.data().await.is_some_and(|data| data.is_ok()) {}
    }
}

/// Retries of an impatient client, on the connection of its downloads.
#[tokio::test]
async fn requests_that_wait_and_are_given_up_by_their_caller_go_at_once() {
    let (service, upstream) = surroundings().await;
    let bearerd = holding_two(&service, &upstream);
    upstream.reply_always(Reply::Stream(MUCH));
    let mut caller = Connection::connect(bearerd.address()).await;
    let untaken = two_untaken(&mut caller).await;
    upstream.wait_for_started(2).await;
    // More than may be under way at one time.
    for _ in 0..5 {
        let mut given_up = Vec::new();
        for _ in 0..50 {
            given_up.push(caller.begin(request("GET", "/third", KEY), true).await.unwrap());
        }
        bearerd.until("bearerd_requests_in_flight", 52.0).await;
        drop(given_up);
        bearerd.until("bearerd_requests_in_flight", 2.0).await;
    }
    assert_eq!(upstream.started().len(), 2);
    for answer in untaken {
        assert_eq!(rest(answer.into_body()).await.unwrap().0.len() as u64, MUCH);
    }
}

/// A caller whose windows are as wide as they get, with so many requests: what holds their answers back is that it does not read.
async fn deaf(bearerd: &Bearerd, requests: u32) -> Client {
    let mut caller = Client::connect_with_room(64 * 1024, bearerd.address()).await;
    let wide = (1u32 << 31) - 1;
    let mut frames = [PREFACE, &frame(SETTINGS, 0, 0, &[&[0, 4], &wide.to_be_bytes()[..]].concat())].concat();
    frames.extend(frame(WINDOW_UPDATE, 0, 0, &(wide - 65_535).to_be_bytes()));
    for number in 0..requests {
        frames.extend(frame(HEADERS, END_HEADERS | END_STREAM, 2 * number + 1, &field_section(&GOOD)));
    }
    caller.send(&frames).await;
    caller
}

/// The series that counts those that ended with this status.
fn requests_of(status: u16) -> String {
    format!("bearerd_requests_total{{code=\"{status}\",method=\"GET\",route=\"route-1\"}}")
}

/// What has been written to it outlives its requests, and those that wait would wait forever.
#[tokio::test]
async fn who_takes_nothing_at_all_loses_its_connection() {
    const REQUESTS: u32 = 20;
    let (service, upstream) = surroundings().await;
    let bearerd = holding(&service, &upstream, "unread_bytes: 1200KiB, idle_timeout: 1s");
    upstream.reply_always(Reply::Stream(4 * MUCH));
    let _caller = deaf(&bearerd, REQUESTS).await;
    upstream.wait_for_started(2).await;
    bearerd.until("bearerd_connections", 0.0).await;
    bearerd.until("bearerd_requests_in_flight", 0.0).await;
    // Whoever still waited counts as given up by its caller.
    let answered = bearerd.value(&requests_of(200)).await;
    assert!(answered > 0.0);
    assert_eq!(answered + bearerd.value(&requests_of(499)).await, f64::from(REQUESTS));
}

/// A system with large buffers says that it takes more only when a third of them is free: that nothing was written meanwhile says nothing.
#[tokio::test]
async fn who_takes_some_all_the_time_keeps_its_connection() {
    let (service, upstream) = surroundings().await;
    let bearerd = holding(&service, &upstream, "idle_timeout: 1s");
    upstream.reply_next(Reply::Hang);
    upstream.reply_always(Reply::Stream(2 * MUCH));
    let mut caller = deaf(&bearerd, 1).await;
    upstream.wait_for_started(1).await;
    caller.send(frame(HEADERS, END_HEADERS | END_STREAM, 3, &field_section(&GOOD))).await;
    let mut taken = 0;
    while taken < MUCH / 4 {
        let (kind, _, _, payload) = next_frame(&mut caller).await.expect("a frame, and no end");
        // That one is too slow for its own good: the others are not.
        if kind == RST_STREAM {
            break;
        }
        taken += payload.len() as u64;
        // Less than a MiB a second.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(bearerd.value("bearerd_connections").await, 1.0);
    assert!(bearerd.value("bearerd_requests_in_flight").await >= 1.0);
}

/// Its requests have ended, and bearerd has to: but what they were answered is still on its way. Who answers the PING ahead of it (RFC 9113 section 6.8) is
/// told at once that no more is taken.
#[tokio::test]
async fn who_is_slow_to_take_its_answers_gets_all_of_them_before_bearerd_ends() {
    const REQUESTS: u32 = 100;
    const ANSWER: usize = 128 * 1024;
    for answers_ping in [false, true] {
        let (service, upstream) = surroundings().await;
        let bearerd = holding(&service, &upstream, "unread_bytes: 64MiB");
        upstream.reply_always(Reply::Stream(ANSWER as u64));
        let mut caller = deaf(&bearerd, REQUESTS).await;
        bearerd.until(&requests_of(200), f64::from(REQUESTS)).await;
        bearerd.stop(Stop::Drain);
        let (mut bytes, mut ends) = (0, 0);
        while ends < REQUESTS {
            let (kind, flags, _, payload) = next_frame(&mut caller).await.expect("the end of each answer");
            if kind == PING && answers_ping {
                caller.send(frame(PING, ACK, 0, &payload)).await;
            }
            if kind == DATA {
                bytes += payload.len();
                ends += u32::from(flags & END_STREAM);
                // As whoever reads does: a connection that was closed already would be reset by it.
                caller.send(frame(WINDOW_UPDATE, 0, 0, &u32::try_from(payload.len()).unwrap().to_be_bytes())).await;
                // A line of some three MiB a second.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        assert_eq!(bytes, REQUESTS as usize * ANSWER);
        drop(caller);
        bearerd.ended().await;
    }
}

#[tokio::test]
async fn many_long_answers_at_once_all_arrive_whole() {
    let (service, upstream) = surroundings().await;
    let bearerd = holding_two(&service, &upstream);
    upstream.reply_always(Reply::Stream(1 << 20));
    let mut caller = Connection::connect(bearerd.address()).await;
    let mut asked = Vec::new();
    for _ in 0..50 {
        asked.push(tokio::spawn(whole(caller.begin(request("GET", "/", KEY), true).await.unwrap().0)));
    }
    for answer in asked {
        assert_eq!(answer.await.unwrap().unwrap().body.len(), 1 << 20);
    }
}

/// Who has taken all that there was holds no place, however long the rest takes; nor does who waits for an answer.
#[tokio::test]
async fn streams_that_are_quiet_and_slow_answers_keep_nobody_waiting() {
    let (service, upstream) = surroundings().await;
    let bearerd = holding_two(&service, &upstream);
    let gate = Gate::closed();
    let (first, second) = (b"data: 1\n\n".to_vec(), b"data: 2\n\n".to_vec());
    let mut caller = Connection::connect(bearerd.address()).await;
    let mut streams = Vec::new();
    for _ in 0..20 {
        upstream.reply_next(Reply::Gated { first: first.clone(), gate: gate.clone(), second: second.clone() });
        let mut body = caller.begin(request("GET", "/events", KEY), true).await.unwrap().0.await.unwrap().into_body();
        assert_eq!(body.data().await.unwrap().unwrap(), first);
        streams.push(body);
    }
    upstream.reply_always(Reply::Hang);
    let mut slow = Vec::new();
    for number in 1..=20 {
        slow.push(caller.begin(request("GET", "/slow", KEY), true).await.unwrap());
        upstream.wait_for_started(20 + number).await;
    }
    upstream.reply_always(Reply::status(204));
    assert_eq!(caller.get("/quick", KEY).await.head.status, StatusCode::NO_CONTENT);
    gate.open();
    for mut body in streams {
        assert_eq!(body.data().await.unwrap().unwrap(), second);
    }
}
