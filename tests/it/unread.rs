//! Answers that an HTTP/2 caller does not take: few of them are read ahead, and what waits for them goes on as soon as it may.

use std::time::Duration;

use http::StatusCode;

use crate::support::bearerd::Bearerd;
use crate::support::events::Gate;
use crate::support::http2::{Connection, request, whole};
use crate::support::stage::surroundings;
use crate::support::token_service::ScriptedTokenService;
use crate::support::upstream::{RecordingUpstream, Reply};

/// More than is read ahead of a caller, by itself and by the kernel.
const MUCH: u64 = 16 << 20;

/// A connection holds two answers at a time that its caller does not take.
fn holding_two(service: &ScriptedTokenService, upstream: &RecordingUpstream) -> Bearerd {
    Bearerd::start(&format!(
        "listeners: [{{ address: 127.0.0.1:0, h2c: true, limits: {{ unread_bytes: 1200KiB }} }}, {{ address: 127.0.0.1:0 }}]\n\
         token_services: {{ default: {{ kind: iap, url: \"{}\" }} }}\nupstreams: {{ app: {{ servers: [\"{}\"] }} }}\n\
         logging: {{ access: false }}\nroutes: [{{ upstream: app, on_expiry: close }}]\n",
        service.url(),
        upstream.address()
    ))
}

const KEY: &[(&str, &str)] = &[("x-api-key", "k")];

#[tokio::test]
async fn requests_beyond_those_whose_answers_nobody_takes_wait_and_go_on() {
    let (service, upstream) = surroundings().await;
    let bearerd = holding_two(&service, &upstream);
    upstream.reply_always(Reply::Stream(MUCH));
    let mut caller = Connection::connect(bearerd.address()).await;
    let mut untaken = Vec::new();
    for _ in 0..2 {
        let (answer, _) = caller.begin(request("GET", "/much", KEY), true).await.unwrap();
        untaken.push(answer.await.unwrap());
    }
    upstream.wait_for_started(2).await;
    let (third, _) = caller.begin(request("GET", "/third", KEY), true).await.unwrap();
    // Others are served meanwhile, and this one is not sent.
    let mut other = Connection::connect(bearerd.address()).await;
    let (answer, _) = other.begin(request("GET", "/other", KEY), true).await.unwrap();
    assert_eq!(whole(answer).await.unwrap().body.len() as u64, MUCH);
    let targets = || upstream.started().iter().map(|head| head.word(1).to_owned()).collect::<Vec<_>>();
    assert_eq!(targets(), ["/much", "/much", "/other"]);
    // One is given up: the next begins.
    drop(untaken.remove(0));
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
    let mut untaken = Vec::new();
    for _ in 0..2 {
        let (answer, _) = caller.begin(request("GET", "/much", KEY), true).await.unwrap();
        untaken.push(answer.await.unwrap());
    }
    service.set_lifetime(Duration::from_secs(6000));
    let (third, _) = caller.begin(request("GET", "/third", &[("x-api-key", "other")]), true).await.unwrap();
    bearerd.clock.step(601_000);
    assert_eq!(whole(third).await.unwrap().body.len() as u64, MUCH);
    for answer in untaken {
        let mut body = answer.into_body();
        while body.data().await.is_some_and(|data| data.is_ok()) {}
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
