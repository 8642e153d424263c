//! The faults of the table together, in any order, for as long as `BEARERD_CHAOS_SECONDS` says.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::stand::{Seen, Stand, cached, unavailable};
use super::table::{Fault, Target, faults};

const TARGETS: [Target; 5] = [Target::Mints, Target::Checks, Target::Upstream, Target::KeySet, Target::Ledger];
/// Rounds with one process; the servers around it remember every request.
const ROUNDS: usize = 20;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("a number in {name}")))
}

#[tokio::test]
async fn faults_together_and_in_any_order_do_no_more_than_each_of_them() {
    let (long, rounds) = number("BEARERD_CHAOS_SECONDS").map_or((Duration::ZERO, 3), |seconds| (Duration::from_secs(seconds), ROUNDS));
    let seed = number("BEARERD_CHAOS_SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("BEARERD_CHAOS_SEED={seed} repeats this");
    let mut random = fastrand::Rng::with_seed(seed);
    let (began, mut done) = (Instant::now(), 0);
    loop {
        let mut stand = Stand::new().await;
        for _ in 0..rounds {
            round(&mut stand, &mut random).await;
            done += 1;
        }
        stand.ends().await;
        if began.elapsed() >= long {
            break;
        }
    }
    println!("{done} rounds");
}

/// At most one fault of each target, at least one in all; one service cannot be away and answer.
fn choose(random: &mut fastrand::Rng) -> Vec<Fault> {
    loop {
        let targets: Vec<_> = TARGETS.into_iter().filter(|_| random.bool()).collect();
        let chosen = targets.iter().filter_map(|target| {
            let rows: Vec<_> = faults().into_iter().filter(|fault| fault.target == *target).collect();
            random.choice(rows)
        });
        let chosen: Vec<_> = chosen.collect();
        if !chosen.is_empty() {
            return chosen;
        }
    }
}

async fn round(stand: &mut Stand, random: &mut fastrand::Rng) {
    let mut together = choose(random);
    let names: Vec<_> = together.iter().map(|fault| format!("{:?} {}", fault.target, fault.name)).collect();
    let name = names.join(", ");
    println!("{name}");
    let expected = Expected::of(&together);
    let callers = stand.callers();
    for fault in &together {
        callers.have(random.usize(1..40)).await;
        fault.begin(stand).await;
    }
    for _ in 0..random.usize(1..3) {
        expected.judge(stand, &name).await;
        callers.have(random.usize(1..40)).await;
    }
    random.shuffle(&mut together);
    for fault in &together {
        fault.end(stand).await;
        callers.have(random.usize(1..40)).await;
    }
    let seen = callers.leave().await;
    assert!(seen.iter().all(|seen| *seen == Seen::Served || *seen == expected.cached), "{name}: {seen:?}");
    let meanwhile: Vec<_> = expected.new.iter().cloned().chain([expected.cached, unavailable()]).collect();
    stand.recovers(&name, &meanwhile).await;
}

/// What callers may see while all of them last.
struct Expected {
    cached: Seen,
    new: BTreeSet<Seen>,
}

impl Expected {
    fn of(together: &[Fault]) -> Self {
        let upstream = together.iter().find(|fault| fault.target == Target::Upstream);
        let cached = upstream.map_or(Seen::Served, |fault| fault.cached.clone());
        let mut new: BTreeSet<Seen> = together.iter().flat_map(|fault| fault.new.clone()).collect();
        new.remove(&Seen::Served);
        if together.iter().any(|fault| fault.target == Target::Checks) {
            // Checks that fail one after another open the breaker, for mints too.
            new.insert(unavailable());
        }
        if together.iter().all(|fault| fault.new.contains(&Seen::Served)) {
            new.insert(Seen::Served);
        }
        Self { cached, new }
    }

    async fn judge(&self, stand: &Stand, name: &str) {
        let key = cached(0);
        let (known, new, jwt, new_jwt) = tokio::join!(stand.ask(&key), stand.ask_anew(), stand.ask_with_jwt(), stand.ask_with_new_jwt());
        assert_eq!([&known, &jwt, &new_jwt], [&self.cached; 3], "{name}: those whose tokens are at hand");
        assert!(self.new.contains(&new), "{name}: a new key saw {new:?}");
        assert_eq!(stand.readiness().await, 200, "{name}");
    }
}
