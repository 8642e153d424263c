//! bearerd: callers come with API keys, upstreams get short-lived Bearer tokens.

pub mod admin;
pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod credential;
pub mod exchange;
pub mod issuer;
pub mod proxy;
pub mod refusal;
pub mod routing;
pub mod secret;
pub mod telemetry;
pub mod token;
pub mod token_service;
