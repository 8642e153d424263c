//! Tests with clients that were not written here; `make test` installs them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "a test ends that way, and is its own document")]

mod bearerd;
mod deploy;
mod faults;
mod frames;
mod framing;
mod kubernetes;
mod libiap;
mod mirror;
mod openapi;
mod page;
mod pod;
mod prometheus;
mod promtool;
mod protocols;
mod schema;
mod slow;
mod proxies;
