//! Tests of the whole program.

// Clippy lets `#[test]` functions panic, not what they call.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod check;
