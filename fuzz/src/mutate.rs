//! Inputs from seeds: the same seed and number give the same input.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use fastrand::Rng;

/// What reads inputs.
pub struct Target {
    pub name: &'static str,
    /// Inputs to begin with.
    pub seeds: &'static [&'static [u8]],
    /// Pieces that matter to it.
    pub words: &'static [&'static [u8]],
    /// Reads one; panics where something does not hold.
    pub read: fn(&[u8]),
}

/// Hands inputs to a target while `goes_on`, which is given their count; returns how many.
pub fn run(target: &Target, seed: u64, goes_on: impl Fn(u64) -> bool) -> u64 {
    let mut count = 0;
    while goes_on(count) {
        let input = input(target, seed, count);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (target.read)(&input))) {
            eprintln!("{} fails with seed {seed}, input {count}: {}", target.name, input.escape_ascii());
            resume_unwind(panic);
        }
        count += 1;
    }
    count
}

/// The input of this number. The first ones are the seeds as they are.
fn input(target: &Target, seed: u64, count: u64) -> Vec<u8> {
    if let Some(first) = usize::try_from(count).ok().and_then(|count| target.seeds.get(count)) {
        return first.to_vec();
    }
    let mut random = Rng::with_seed(seed ^ count.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut bytes = target.seeds[random.usize(..target.seeds.len())].to_vec();
    for _ in 0..random.usize(1..6) {
        change(&mut bytes, target, &mut random);
    }
    bytes
}

fn change(bytes: &mut Vec<u8>, target: &Target, random: &mut Rng) {
    let place = random.usize(..=bytes.len());
    let end = (place + random.usize(..=16)).min(bytes.len());
    match random.u8(..8) {
        0 if place < bytes.len() => bytes[place] ^= 1 << random.u8(..8),
        1 if place < bytes.len() => bytes[place] = random.u8(..),
        2 => drop(bytes.drain(place..end)),
        3 => bytes.insert(place, random.u8(..)),
        4 => {
            // A piece of this or another seed.
            let other = target.seeds[random.usize(..target.seeds.len())];
            let from = random.usize(..=other.len());
            let to = (from + random.usize(..=32)).min(other.len());
            drop(bytes.splice(place..end, other[from..to].iter().copied()));
        }
        5 => {
            let piece = bytes[place..end].repeat(random.usize(1..20));
            drop(bytes.splice(place..place, piece));
        }
        _ => drop(bytes.splice(place..place, target.words[random.usize(..target.words.len())].iter().copied())),
    }
}
