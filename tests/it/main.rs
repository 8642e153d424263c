//! Tests of bearerd from outside, in one binary.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "a test ends that way, and is its own document")]

mod issuer;
