//! A short run of what `make fuzz` runs for minutes: the same inputs each time.

#[path = "../../fuzz/src/manifests.rs"]
mod manifests;
#[path = "../../fuzz/src/mutate.rs"]
mod mutate;
#[path = "../../fuzz/src/targets.rs"]
mod targets;

#[test]
fn mutated_inputs_break_nothing_that_reads_them() {
    for target in targets::ALL {
        // A ledger is a file, and a configuration a schema: each input takes a thousand times as long.
        let inputs = match target.name {
            "ledger" | "configuration" => 60,
            "path" => 2000,
            _ => 5000,
        };
        let runs = mutate::run(target, 1, |count| count < inputs);
        assert_eq!(runs, inputs, "{}", target.name);
    }
}
