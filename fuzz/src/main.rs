//! Mutates inputs and hands them to the parts of bearerd that read what strangers write, for as long as is asked.
//!
//! `bearerd-fuzz SECONDS [SEED] [TARGET]`: so many seconds a target. A finding is told with its input, which the same arguments reach again.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bearerd_fuzz::{corpus, mutate, targets};

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/corpus");

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let seconds: u64 = arguments.next().and_then(|text| text.parse().ok()).expect("the first argument is seconds a target");
    let seed = arguments.next().and_then(|text| text.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    let only = arguments.next();
    let chosen: Vec<_> = targets::ALL.iter().filter(|target| only.as_deref().is_none_or(|only| only == target.name)).collect();
    assert!(!chosen.is_empty(), "no target has this name");
    println!("seed {seed}, {seconds} s a target\n{:15} {:>12} {:>12}  findings", "target", "inputs", "a second");
    let (mut inputs, mut findings) = (0, 0);
    for target in chosen {
        let begun = Instant::now();
        let corpus = corpus::of(Path::new(CORPUS), target.name);
        let outcome = mutate::run(target, &corpus, seed, |_| begun.elapsed() < Duration::from_secs(seconds));
        let rate = outcome.inputs as f64 / begun.elapsed().as_secs_f64();
        let found = u64::from(outcome.broken_by.is_some());
        println!("{:15} {:12} {rate:12.0}  {found}", target.name, outcome.inputs);
        if let Some(input) = outcome.broken_by {
            println!("    broken by input {}: {}", outcome.inputs - 1, input.escape_ascii());
        }
        (inputs, findings) = (inputs + outcome.inputs, findings + found);
    }
    println!("{:15} {inputs:12}", "in all");
    if findings > 0 {
        println!("{findings} targets broken");
        return ExitCode::FAILURE;
    }
    println!("0 panics, 0 bypasses");
    ExitCode::SUCCESS
}
