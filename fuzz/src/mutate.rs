//! Inputs from a corpus: the same corpus, seed and number give the same input.

use std::panic::{AssertUnwindSafe, catch_unwind};

use fastrand::Rng;

/// What reads inputs.
pub struct Target {
    pub name: &'static str,
    /// Pieces that matter to it.
    pub words: &'static [&'static [u8]],
    /// Reads one; panics where something does not hold.
    pub read: fn(&[u8]),
}

/// What came of a run.
#[derive(Default)]
pub struct Outcome {
    /// How many inputs were read.
    pub inputs: u64,
    /// The input that broke something: the last one.
    pub broken_by: Option<Vec<u8>>,
}

/// Hands inputs to a target while `goes_on`, which is given their count, and until one breaks something.
pub fn run(target: &Target, corpus: &[Vec<u8>], seed: u64, goes_on: impl Fn(u64) -> bool) -> Outcome {
    let mut outcome = Outcome::default();
    while goes_on(outcome.inputs) {
        let input = input(target, corpus, seed, outcome.inputs);
        outcome.inputs += 1;
        if catch_unwind(AssertUnwindSafe(|| (target.read)(&input))).is_err() {
            outcome.broken_by = Some(input);
            break;
        }
    }
    outcome
}

/// The input of this number. The first ones are the corpus as it is.
fn input(target: &Target, corpus: &[Vec<u8>], seed: u64, count: u64) -> Vec<u8> {
    if let Some(first) = usize::try_from(count).ok().and_then(|count| corpus.get(count)) {
        return first.clone();
    }
    let mut random = Rng::with_seed(seed ^ count.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut bytes = corpus[random.usize(..corpus.len())].clone();
    for _ in 0..random.usize(1..6) {
        change(&mut bytes, target, corpus, &mut random);
    }
    bytes
}

fn change(bytes: &mut Vec<u8>, target: &Target, corpus: &[Vec<u8>], random: &mut Rng) {
    let place = random.usize(..=bytes.len());
    let end = (place + random.usize(..=16)).min(bytes.len());
    match random.u8(..8) {
        0 if place < bytes.len() => bytes[place] ^= 1 << random.u8(..8),
        1 if place < bytes.len() => bytes[place] = random.u8(..),
        2 => drop(bytes.drain(place..end)),
        3 => bytes.insert(place, random.u8(..)),
        4 => {
            // A piece of this or another input.
            let other = &corpus[random.usize(..corpus.len())];
            let from = random.usize(..=other.len());
            let to = (from + random.usize(..=32)).min(other.len());
            drop(bytes.splice(place..end, other[from..to].iter().copied()));
        }
        5 => {
            let piece = bytes[place..end].repeat(random.usize(1..20));
            drop(bytes.splice(place..place, piece));
        }
        _ if target.words.is_empty() => {}
        _ => drop(bytes.splice(place..place, target.words[random.usize(..target.words.len())].iter().copied())),
    }
}
