//! A short run of what `make fuzz` runs for minutes: the same inputs each time.

use std::path::Path;

#[path = "../../fuzz/src/lib.rs"]
pub mod inputs;

use inputs::{corpus, mutate, targets};

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus");

#[test]
fn mutated_inputs_break_nothing_that_reads_them() {
    for target in targets::ALL {
        let corpus = corpus::of(Path::new(CORPUS), target.name);
        // A ledger is a file, and a configuration a schema: each input takes a thousand times as long.
        let inputs = match target.name {
            "ledger" | "configuration" => 60,
            "path" => 2000,
            _ => 5000,
        };
        let outcome = mutate::run(target, &corpus, 1, |count| count < inputs.max(corpus.len() as u64));
        if let Some(input) = outcome.broken_by {
            panic!("{} is broken by input {}: {}", target.name, outcome.inputs - 1, input.escape_ascii());
        }
    }
}
