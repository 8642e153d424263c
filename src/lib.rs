//! bearerd: callers come with API keys, upstreams get short-lived Bearer tokens.
//!
//! A request's path, in the order of the modules that it meets:
//!
//! 1. [`proxy::accept`] takes the connection within the listener's limits and hands it to pingora, which calls [`proxy::Proxy`] phase by phase.
//! 2. [`routing`] picks the route, or refuses a path that can be read in several ways.
//! 3. [`credential`] finds the one credential that the route takes.
//! 4. [`exchange`] turns it into a token: from its cache, or by a mint that all who wait for the same share. It asks a [`token_service`]: the IAP API
//!    over HTTP, or the [`issuer`] in this process. What comes back is a [`token`], used only while our [`clock`] says that it is valid.
//!    Behind requests it renews what is in use, checks it, and revokes what must die. Routes of [`token_api`] show it as a token service itself.
//! 5. [`proxy::inject`] takes out what the caller must not send on, and puts the token in.
//!    For a proxy that is already there, [`decision`] reads what that one was asked for, and nothing goes on from here.
//! 6. Whatever goes wrong becomes a row of the table in [`refusal`].
//!
//! Around it: [`config`] is what the operator writes, [`app`] builds everything from it and ends it in order, [`admin`] shows probes and metrics
//! (on [`http_server`]),
//! [`telemetry`] counts and logs, [`secret`] keeps what must not be shown, [`mounted`] follows a key of bearerd's own, [`kubernetes`] puts
//! bearerd into pods, [`cli`] is the command line.

pub mod cli;
pub mod app;
pub mod proxy;
pub mod routing;
pub mod authorize;
pub mod claims;
pub mod template;
pub mod path_regex;
pub mod rate_limit;
pub mod decision;
pub mod token_api;
pub mod exchange;
pub mod token_service;
pub mod issuer;
pub mod jwks;
pub mod tls;
pub mod http_client;
pub mod token;
pub mod credential;
pub mod mounted;
pub mod database_file;
pub mod refusal;
pub mod kubernetes;
pub mod admin;
pub mod http_server;
pub mod config;
pub mod clock;
pub mod secret;
pub mod telemetry;
