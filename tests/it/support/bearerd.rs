//! A whole bearerd on free ports.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::thread::{self, JoinHandle};

use bearerd::app::{self, Addresses, Sockets, Stop};
use bearerd::clock::Clock;
use bearerd::config::{self, Environment};
use bearerd::telemetry::metrics;
use tokio::sync::watch;

use super::client;
use super::token_service::ScriptedTokenService;
use super::upstream::RecordingUpstream;

/// A bearerd that runs until it is dropped.
pub struct Bearerd {
    addresses: Addresses,
    pub clock: Clock,
    stop: watch::Sender<Stop>,
    thread: Option<JoinHandle<Result<(), app::Error>>>,
}

impl Bearerd {
    /// Starts with `configuration`, to which free ports are added.
    pub fn start(configuration: &str) -> Self {
        let ports = "admin: { address: 127.0.0.1:0 }\nmetrics: { address: 127.0.0.1:0 }\n";
        let listeners = if configuration.contains("listeners:") { "" } else { "listeners: [{ address: 127.0.0.1:0 }]\n" };
        let text = format!("{listeners}{ports}{configuration}");
        let loaded =
            config::from_text(&text, "test.yaml", &Environment::default(), Path::new(".")).unwrap_or_else(|error| panic!("{error}"));
        let clock = Clock::steppable();
        let sockets = Sockets::bind(&loaded.config).unwrap();
        let addresses = sockets.addresses().unwrap();
        let (stop, stopped) = watch::channel(Stop::No);
        let thread = {
            let clock = clock.clone();
            thread::spawn(move || app::run(&loaded.config, sockets, &clock, stopped))
        };
        Self { addresses, clock, stop, thread: Some(thread) }
    }

    /// Starts with one token service, one upstream and these routes, in YAML.
    pub fn between(service: &ScriptedTokenService, upstream: &RecordingUpstream, routes: &str) -> Self {
        Self::start(&format!(
            "token_services: {{ default: {{ kind: iap, url: \"{}\" }} }}\nupstreams: {{ app: {{ servers: [\"{}\"] }} }}\nroutes:\n{routes}\nlogging: {{ access: false }}\n",
            service.url(),
            upstream.address(),
        ))
    }

    /// Where callers come in.
    pub fn address(&self) -> SocketAddr {
        self.addresses.callers[0]
    }

    /// All listeners.
    pub const fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// All series of `/metrics`.
    pub async fn series(&self) -> BTreeMap<String, f64> {
        let text = client::get(self.addresses.metrics, "/metrics", &[]).await.body.text();
        metrics::series(&text).into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// One series; 0 where there is none.
    pub async fn value(&self, name: &str) -> f64 {
        self.series().await.get(name).copied().unwrap_or(0.0)
    }

    /// The status of a probe.
    pub async fn probe(&self, path: &str) -> u16 {
        client::get(self.addresses.metrics, path, &[]).await.status
    }

    /// Asks it to stop.
    pub fn stop(&self, how: Stop) {
        self.stop.send_replace(how);
    }

    /// Waits until it has ended.
    pub async fn ended(mut self) {
        let thread = self.thread.take().unwrap();
        tokio::task::spawn_blocking(move || thread.join().unwrap().unwrap()).await.unwrap();
    }
}

impl Drop for Bearerd {
    fn drop(&mut self) {
        self.stop.send_replace(Stop::Now);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
