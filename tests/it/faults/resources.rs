//! What the system gives runs out: descriptors, memory, the processor; and the clock jumps.

use std::process::{Child, Command};

use rustix::process::Resource;
use tokio::task::JoinSet;

use super::stand::{Seen, Stand, ask, cached, refused, unavailable};
use crate::support::client::Client;

/// New callers wait in the listener's queue, or are told that the upstream or the token service cannot be reached; never more than that.
#[tokio::test]
async fn without_descriptors_connections_that_are_open_are_served_and_others_wait_or_are_told() {
    let stand = Stand::new().await;
    let callers = stand.callers();
    callers.have(20).await;
    let mut metrics = Client::connect(stand.addresses.metrics).await;
    assert_eq!(metrics.get("/readyz", &[]).await.status, 200);
    // Not one more, whatever is opened.
    stand.process.limit(Resource::Nofile, Some(stand.process.descriptors() as u64));
    let mut waiting: JoinSet<Seen> = (0..50).map(|number| ask_owned(&stand, number)).collect();
    callers.have(100).await;
    assert_eq!(metrics.get("/readyz", &[]).await.status, 200);
    stand.process.limit(Resource::Nofile, None);
    while let Some(seen) = waiting.join_next().await {
        let seen = seen.unwrap();
        assert!([Seen::Served, unavailable(), refused(502, "upstream_connect")].contains(&seen), "{seen:?}");
    }
    drop(metrics);
    let seen = callers.leave().await;
    assert!(seen.iter().all(|seen| [Seen::Served, refused(502, "upstream_connect")].contains(seen)), "{seen:?}");
    stand.recovers("the lack of descriptors", &[unavailable()]).await;
    stand.ends().await;
}

fn ask_owned(stand: &Stand, number: usize) -> impl Future<Output = Seen> + Send + 'static {
    let address = stand.addresses.callers[0];
    let key = if number.is_multiple_of(2) { cached(number) } else { format!("crowd-{number}") };
    async move { ask(address, &key).await }
}

/// No answer is a wrong one: a caller is served, told what is lacking, or cut off with the process, which says why it ended.
#[tokio::test]
async fn without_memory_nobody_is_told_anything_wrong_and_an_end_is_explained() {
    let stand = Stand::new().await;
    stand.process.limit(Resource::As, Some(stand.process.address_space()));
    let mut crowd: JoinSet<Seen> = (0..300).map(|number| ask_owned(&stand, number)).collect();
    let told = [Seen::Served, Seen::CutOff, unavailable(), refused(503, "mint_budget"), refused(502, "upstream_connect")];
    let mut seen = std::collections::BTreeSet::new();
    while let Some(one) = crowd.join_next().await {
        seen.insert(one.unwrap());
    }
    assert!(seen.iter().all(|seen| told.contains(seen)), "{seen:?}");
    if seen.contains(&Seen::CutOff) {
        let ended = stand.process.ended().await;
        assert!(ended.stderr.iter().any(|line| line.contains("memory allocation of")), "{:?}", ended.stderr);
    } else {
        stand.process.limit(Resource::As, None);
        stand.recovers("the lack of memory", &[]).await;
        stand.ends().await;
    }
}

/// A program that never pauses, for as long as this lives.
struct Busy(Child);

impl Busy {
    fn on(processor: &str) -> Self {
        Self(Command::new("taskset").args(["-c", processor, "/bin/sh", "-c", "while :; do :; done"]).spawn().unwrap())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// On one processor with others that take nearly all of it.
#[tokio::test]
async fn without_the_processor_answers_are_late_and_right() {
    let mut stand = Stand::cold(&["taskset", "-c", "0", "nice", "-n", "10"]).await;
    stand.warm().await;
    let busy: Vec<Busy> = (0..4).map(|_| Busy::on("0")).collect();
    let callers = stand.callers();
    callers.have(40).await;
    for _ in 0..3 {
        let new = stand.ask_anew().await;
        assert!(new == Seen::Served || new == unavailable() || new == refused(504, "upstream_timeout"), "{new:?}");
    }
    assert_eq!(stand.readiness().await, 200);
    drop(busy);
    let seen = callers.leave().await;
    assert!(seen.iter().all(|seen| *seen == Seen::Served || *seen == refused(504, "upstream_timeout")), "{seen:?}");
    stand.recovers("the lack of a processor", &[unavailable(), refused(504, "upstream_timeout")]).await;
    stand.ends().await;
}
