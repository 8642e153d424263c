//! Callers over HTTP/2: several requests at once on a connection, some of them reset.

use std::net::SocketAddr;
use std::time::Instant;

use super::{Key, Shared, Tally, Who};
use crate::support::http2::{Answer, Connection, request, whole};

/// Requests at once.
const STREAMS: usize = 8;

/// Calls, and connects anew where the connection ended in order, until it is to leave.
pub(super) async fn call(address: SocketAddr, shared: Shared, mut random: fastrand::Rng) -> Tally {
    let mut tally = Tally::default();
    while !shared.is_over() {
        let mut connection = Connection::connect(address).await;
        while !shared.is_over() && together(&mut connection, &shared, &mut random, &mut tally).await {}
    }
    tally
}

/// Some requests at one time; whether the connection can be used again.
async fn together(connection: &mut Connection, shared: &Shared, random: &mut fastrand::Rng, tally: &mut Tally) -> bool {
    let mut begun = Vec::new();
    for _ in 0..STREAMS {
        let mut other = None;
        let (who, key) = shared.pick(random, &mut other);
        let headers = [("x-api-key", &*key.text), ("x-expected", &*key.subject)];
        let began = Instant::now();
        match connection.begin(request("GET", "/", &headers), true).await {
            // It is reset with this.
            Ok((answer, _)) if random.u8(..10) == 0 => {
                tally.cancelled += 1;
                drop(answer);
            }
            Ok((answer, _)) => begun.push((who, Key { text: key.text.clone(), subject: key.subject.clone() }, began, answer)),
            Err(error) => {
                if !error.is_go_away() {
                    tally.note(format!("HTTP/2: {error}"));
                }
                return false;
            }
        }
    }
    for (who, key, began, answer) in begun {
        match whole(answer).await {
            Ok(answer) => {
                tally.over_http2 += 1;
                judge(&answer, who, &key, shared, began, tally);
            }
            Err(error) => tally.note(format!("HTTP/2: {error}")),
        }
    }
    true
}

fn judge(answer: &Answer, who: Who, key: &Key, shared: &Shared, began: Instant, tally: &mut Tally) {
    let token = answer.head.headers.get("x-token").and_then(|value| value.to_str().ok());
    tally.judge(who, key, answer.head.status.as_u16(), token, &shared.weather, began);
}
