//! Whole-process tests: a real bearerd on free ports between a scripted token service and a recording upstream.
// Clippy lets `#[test]` functions panic, not what they call.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::type_complexity)]

mod admin;
mod bodies;
mod check;
mod command_line;
mod decision;
mod demo;
mod doctor;
mod documents;
mod drain;
mod endurance;
mod explain;
mod flights;
mod framing;
mod fuzz;
mod http2;
mod headers;
mod iap_client;
mod inject;
mod issuer;
mod jwt;
mod known_attacks;
mod life;
mod limits;
mod observe;
mod odd_manifests;
mod own_keys;
mod paths;
mod policy;
mod probe;
mod proxy;
mod purge;
mod references;
mod reload;
mod restart;
mod secrets;
mod slow;
mod streams;
mod support;
mod tls;
mod token_api;
mod traces;
mod upstream_401;
mod upstreams;
mod webhook;
