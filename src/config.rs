//! What the operator writes: one YAML file, environment overrides, defaults. Imports nothing of bearerd but `secret`.
//!
//! The structures are the single source of truth: their JSON Schema drives the check that finds every mistake at once,
//! and serde then reads the checked document.

pub mod cache;
mod check;
mod diagnostic;
mod document;
mod environment;
mod files;
mod formats;
pub mod listener;
mod load;
pub mod operation;
mod place;
pub mod policy;
mod positions;
mod resolved;
pub mod route;
mod schema;
pub mod sink;
pub mod token_service;
pub mod units;
pub mod upstream;
mod validate;

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use cache::Cache;
pub use diagnostic::{Diagnostic, closest, quoted};
pub use environment::Environment;
pub use listener::{Admin, Listener, Metrics};
pub use load::{Error, Loaded, fingerprint, from_text, load};
pub use operation::{Logging, Shutdown, Tracing, Workers};
pub use resolved::Resolved;
pub use route::Route;
pub use schema::schema;
pub use sink::Sink;
pub use token_service::TokenService;
pub use upstream::Upstream;

/// The whole configuration. Every key but `token_services`, `upstreams` and `routes` has a default.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where callers come in. Default: one listener on 127.0.0.1:8080.
    pub listeners: Vec<Listener>,
    /// The listener that changes state.
    pub admin: Admin,
    /// The listener for `/metrics`, `/livez`, `/readyz` and `/startupz`, nothing else.
    pub metrics: Metrics,
    /// Token services by name; routes use the one named `default` unless they say otherwise.
    #[schemars(extend("propertyNames" = { "format": "name" }))]
    pub token_services: BTreeMap<String, TokenService>,
    /// Upstreams by name.
    #[schemars(extend("propertyNames" = { "format": "name" }))]
    pub upstreams: BTreeMap<String, Upstream>,
    /// Routes in order: the first whose `match` fits serves the request.
    pub routes: Vec<Route>,
    /// Tokens written to files.
    pub sinks: Vec<Sink>,
    /// What is remembered, and how much of it.
    pub cache: Cache,
    /// How bearerd ends.
    pub shutdown: Shutdown,
    /// What is logged, and how.
    pub logging: Logging,
    /// What is traced, and where to.
    pub tracing: Tracing,
    /// Threads of the proxy.
    pub workers: Workers,
}

impl Config {
    /// Whether requests go on from no listener: then routes need nowhere to go.
    pub fn only_decides(&self) -> bool {
        !self.listeners.is_empty() && self.listeners.iter().all(|listener| listener.mode == listener::Mode::Decision)
    }

    /// The files of bearerd's own certificates: those that it shows to callers, to upstreams and to servers that it calls.
    pub fn certificates(&self) -> Vec<PathBuf> {
        let listeners = self.listeners.iter().filter_map(|listener| listener.tls.as_ref());
        let listeners = listeners.flat_map(|tls| tls.certificates.iter().map(|pair| &pair.certificate));
        let upstreams = self.upstreams.values().filter_map(|upstream| upstream.tls.as_ref()?.certificate.as_ref());
        let services = self.token_services.values().filter_map(|service| match service {
            TokenService::Iap(iap) => iap.tls.certificate.as_ref(),
            TokenService::Embedded(_) => None,
        });
        let key_sets = self.routes.iter().filter_map(|route| route.validate.jwt.as_ref()?.tls.certificate.as_ref());
        listeners.chain(upstreams).chain(services).chain(key_sets).cloned().collect()
    }

    /// The token services that run in this process, by name.
    pub fn embedded(&self) -> impl Iterator<Item = (&str, &token_service::Embedded)> {
        self.token_services.iter().filter_map(|(name, service)| match service {
            TokenService::Embedded(embedded) => Some((name.as_str(), embedded)),
            TokenService::Iap(_) => None,
        })
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listeners: vec![Listener::default()],
            admin: Admin::default(),
            metrics: Metrics::default(),
            token_services: BTreeMap::new(),
            upstreams: BTreeMap::new(),
            routes: Vec::new(),
            sinks: Vec::new(),
            cache: Cache::default(),
            shutdown: Shutdown::default(),
            logging: Logging::default(),
            tracing: Tracing::default(),
            workers: Workers::default(),
        }
    }
}
