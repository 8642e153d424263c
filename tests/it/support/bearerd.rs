//! A whole bearerd on free ports.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::thread::{self, JoinHandle};

use bearerd::app::{self, Addresses, Sockets, Stop};
use bearerd::clock::Clock;
use bearerd::config::{self, Environment};
use tokio::sync::watch;

use super::client::{self, Client};
use super::events::PATIENCE;
use super::process::on_free_ports;
use super::stage::configuration;
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
    /// Starts with `configuration`, to which free ports are added where it names no listeners.
    pub fn start(configuration: &str) -> Self {
        let loaded = config::from_text(&on_free_ports(configuration), "test.yaml", &Environment::default(), Path::new("."))
            .unwrap_or_else(|error| panic!("{error}"));
        let clock = Clock::steppable();
        let sockets = Sockets::bind(&loaded.config).unwrap();
        let addresses = sockets.addresses().unwrap();
        let (stop, stopped) = watch::channel(Stop::No);
        let thread = {
            let clock = clock.clone();
            thread::spawn(move || app::run(&loaded, sockets, &clock, stopped, None))
        };
        Self { addresses, clock, stop, thread: Some(thread) }
    }

    /// Starts with one token service, one upstream and these routes, in YAML.
    pub fn between(service: &ScriptedTokenService, upstream: &RecordingUpstream, routes: &str) -> Self {
        Self::start(&configuration(service, upstream, "", routes))
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
        series(self.addresses.metrics).await
    }

    /// One series; 0 where there is none.
    pub async fn value(&self, name: &str) -> f64 {
        self.series().await.get(name).copied().unwrap_or(0.0)
    }

    /// Asks until one series is `wanted`.
    pub async fn until(&self, name: &str, wanted: f64) {
        until(self.addresses.metrics, name, |value| value == wanted).await;
    }

    /// Asks until one series is at least `wanted`.
    pub async fn until_at_least(&self, name: &str, wanted: f64) {
        until(self.addresses.metrics, name, |value| value >= wanted).await;
    }

    /// The status of a probe.
    pub async fn probe(&self, path: &str) -> u16 {
        client::get(self.addresses.metrics, path, &[]).await.status
    }

    /// Asks it to stop.
    pub fn stop(&self, how: Stop) {
        self.stop.send_replace(how);
    }

    /// Waits until it has ended; panics when that takes a minute.
    pub async fn ended(mut self) {
        let thread = self.thread.take().unwrap();
        let joined = tokio::task::spawn_blocking(move || thread.join().unwrap().unwrap());
        tokio::time::timeout(PATIENCE, joined).await.expect("the end within a minute").unwrap();
    }
}

/// All series that a metrics listener shows.
pub async fn series(metrics: SocketAddr) -> BTreeMap<String, f64> {
    parsed(&mut Client::connect(metrics).await).await
}

/// Asks a metrics listener until one series is as `wanted`; panics when that takes a minute.
pub async fn until(metrics: SocketAddr, name: &str, wanted: impl Fn(f64) -> bool) {
    let mut client = Client::connect(metrics).await;
    let mut last = None;
    let met = async {
        while !last.is_some_and(&wanted) {
            last = parsed(&mut client).await.get(name).copied();
        }
    };
    let met = tokio::time::timeout(PATIENCE, met).await;
    assert!(met.is_ok(), "waited for {name}, which is {last:?}");
}

async fn parsed(client: &mut Client) -> BTreeMap<String, f64> {
    let text = client.get("/metrics", &[]).await.body.text();
    let lines = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' '));
    lines.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect()
}

impl Drop for Bearerd {
    fn drop(&mut self) {
        self.stop.send_replace(Stop::Now);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
