//! Mutates inputs and hands them to the parts of bearerd that read what strangers write, for as long as is asked.
//!
//! `bearerd-fuzz SECONDS [SEED] [TARGET]`: so many seconds a target. A failure panics with the target, the seed and the number of the input, which the same
//! arguments reach again.

mod manifests;
mod mutate;
mod targets;

use std::time::{Duration, Instant};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let seconds: u64 = arguments.next().and_then(|text| text.parse().ok()).expect("the first argument is seconds a target");
    let seed = arguments.next().and_then(|text| text.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    let only = arguments.next();
    for target in targets::ALL.iter().filter(|target| only.as_deref().is_none_or(|only| only == target.name)) {
        let begun = Instant::now();
        let runs = mutate::run(target, seed, |_| begun.elapsed() < Duration::from_secs(seconds));
        let rate = runs as f64 / begun.elapsed().as_secs_f64();
        println!("{:15} seed {seed} {runs:10} inputs {rate:10.0} a second", target.name);
    }
}
