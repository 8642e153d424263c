//! Mutated inputs for what reads strangers' bytes. `tests/it` takes these modules in, for a short run.

pub mod corpus;
pub mod mutate;
pub mod readings;
pub mod targets;
