//! bearerd: callers come with API keys, upstreams get short-lived Bearer tokens.

pub mod clock;
pub mod config;
pub mod credential;
pub mod secret;
pub mod token_service;
