//! Whole-process tests: a real bearerd on free ports between a scripted token service and a recording upstream.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod framing;
mod headers;
mod iap_client;
mod proxy;
mod support;
