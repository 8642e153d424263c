//! Memory and descriptors over time: flat, or not.

use std::fmt;

/// What may come on top: caches of the allocator, and connections that happen to be open.
const MORE_MEMORY: u64 = 16 << 20;
const MORE_DESCRIPTORS: usize = 32;

/// One a second.
#[derive(Default)]
pub struct Samples {
    memory: Vec<u64>,
    descriptors: Vec<usize>,
}

impl Samples {
    pub fn add(&mut self, memory: u64, descriptors: usize) {
        self.memory.push(memory);
        self.descriptors.push(descriptors);
    }

    /// Panics where the last fifth, after warming up, has a tenth more than the first.
    pub fn are_flat(&self) {
        let (first, last) = ends(&self.memory);
        assert!(last <= first + first / 10 + MORE_MEMORY, "memory grows: {self}");
        let (first, last) = ends(&self.descriptors);
        assert!(last <= first + first / 10 + MORE_DESCRIPTORS, "descriptors grow: {self}");
    }
}

/// The medians of the first and the last fifth.
fn ends<T: Copy + Ord>(samples: &[T]) -> (T, T) {
    let fifths = fifths(samples);
    (fifths[0], fifths[fifths.len() - 1])
}

/// The median of each fifth, the first fifth of all being left out: that is to warm up.
fn fifths<T: Copy + Ord>(samples: &[T]) -> Vec<T> {
    let warm = &samples[samples.len() / 5..];
    warm.chunks(warm.len().div_ceil(5)).map(median).collect()
}

fn median<T: Copy + Ord>(samples: &[T]) -> T {
    let mut sorted = samples.to_vec();
    sorted.sort();
    sorted[sorted.len() / 2]
}

impl fmt::Display for Samples {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mebibytes: Vec<_> = fifths(&self.memory).into_iter().map(|bytes| bytes >> 20).collect();
        write!(formatter, "medians of fifths, warm: memory {mebibytes:?} MiB, descriptors {:?}", fifths(&self.descriptors))
    }
}

#[test]
fn what_grows_is_told_from_what_varies() {
    let mut steady = Samples::default();
    let mut growing = Samples::default();
    for second in 0..200 {
        steady.add((100 << 20) + ((second % 7) << 20), 100 + second as usize % 5);
        growing.add((100 << 20) + (second << 20), 100);
    }
    steady.are_flat();
    assert!(std::panic::catch_unwind(|| growing.are_flat()).is_err());
}
