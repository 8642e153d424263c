//! The life of pods with the injected sidecar: started, probed, rolled and ended as the kubelet does it, by what the manifest says, each in a network of its own.

mod app;
mod callers;
mod http;
mod kubelet;
mod network;
mod waiting;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::Value;
use tempfile::TempDir;

use crate::bearerd::new_key;
use crate::libiap::TokenService;
use app::App;
use callers::{Leaves, Service, call};
use http::{Connection, ask};
use kubelet::{Objects, Pod, mount};
use network::{Cluster, in_a_cluster};
use waiting::{PATIENCE, Shared};

const ORDINARY: &str = "bearerd.dev/native: \"false\"";

/// What the pods of this fixture are made from, once bearerd is injected.
fn injected(fixture: &str, changes: &[(&str, &str)]) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/manifests").join(fixture);
    let mut text = std::fs::read_to_string(path).unwrap();
    for (from, to) in changes {
        assert!(text.contains(from), "{from}");
        text = text.replace(from, to);
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, text).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_bearerd")).args(["inject", "-f"]).arg(file.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let documents: Vec<Value> = serde_saphyr::from_multiple(std::str::from_utf8(&output.stdout).unwrap()).unwrap();
    let template =
        |document: &Value| ["/spec/template", "/spec/jobTemplate/spec/template"].iter().find_map(|place| document.pointer(place).cloned());
    documents.iter().find_map(template).unwrap()
}

/// A token service with the keys of `names`, and the keys.
fn token_service<const N: usize>(cluster: &Cluster, names: [&str; N]) -> (TempDir, TokenService, [String; N]) {
    let folder = tempfile::tempdir().unwrap();
    let keys = names.map(|name| new_key(&folder.path().join("keys.yaml"), &["--name", name]));
    let service = TokenService::start_at(folder.path(), cluster.node());
    (folder, service, keys)
}

/// The Deployment `shop`, whose callers bring a key.
struct Shop<'a> {
    cluster: &'a Cluster,
    template: Value,
    config_map: String,
    headers: String,
    service: Arc<Shared<Service>>,
    _tokens: (TempDir, TokenService),
}

impl<'a> Shop<'a> {
    fn open(cluster: &'a Cluster, native: bool, shutdown: &str) -> Self {
        let (folder, tokens, [key]) = token_service(cluster, ["alice"]);
        let config_map = format!(
            "listeners: [{{ address: 0.0.0.0:8080 }}]\ntoken_services: {{ default: {{ kind: iap, url: '{}' }} }}\n\
             upstreams: {{ app: {{ servers: ['127.0.0.1:${{UPSTREAM_PORT}}'] }} }}\nroutes: [{{ upstream: app }}]\nshutdown: {{ {shutdown} }}\n",
            tokens.url
        );
        let port = "bearerd.dev/upstream-port: \"3000\"";
        let ordinary = format!("{port}\n        {ORDINARY}");
        let changes = [(port, ordinary.as_str())];
        let template = injected("deployment.yaml", if native { &[] } else { &changes });
        Self { cluster, template, config_map, headers: format!("X-API-Key: {key}\r\n"), service: Arc::default(), _tokens: (folder, tokens) }
    }

    fn pod(&self) -> Pod {
        let objects = Objects { config_map: &self.config_map, ..Objects::default() };
        let pod = Pod::start(self.cluster, &self.template, &objects, &self.service).ready();
        if self.cluster.is_namespaced() {
            // The app and the operator's listener are on the pod's loopback: nobody outside comes past bearerd.
            for port in [pod.app.address.port(), pod.listens.admin.port()] {
                assert!(Connection::open((pod.network.address, port).into()).is_err(), "port {port} is reached from outside");
            }
        }
        pod
    }

    fn call(&self) {
        call(&self.service, &self.headers);
    }

    /// What comes of a request to this pod for a path that the app does not answer yet, once it has it.
    fn begins<'s>(&'s self, scope: &'s thread::Scope<'s, '_>, pod: &Pod, line: &'static str) -> thread::ScopedJoinHandle<'s, u16> {
        let (address, headers) = (pod.listens.callers, &self.headers);
        let asked = scope.spawn(move || ask(address, line, headers));
        pod.app.has_seen(line.trim_start_matches("GET "));
        asked
    }
}

fn rolls(cluster: &Cluster, native: bool, shutdown: &str) {
    let shop = Shop::open(cluster, native, shutdown);
    let mut old = shop.pod();
    let mut pods = Vec::new();
    thread::scope(|scope| {
        let _leaves = Leaves(&shop.service);
        for _ in 0..3 {
            scope.spawn(|| shop.call());
        }
        for _ in 0..2 {
            shop.service.serves(old.number, 50);
            let slow = shop.begins(scope, &old, "GET /slow");
            let new = shop.pod();
            shop.service.serves(new.number, 50);
            old.delete();
            assert_eq!(slow.join().unwrap(), 200, "what is in flight is finished");
            pods.push(std::mem::replace(&mut old, new));
        }
    });
    pods.push(old);
    let service = shop.service.lock();
    assert_eq!(service.failed, [""; 0]);
    for pod in &pods {
        let (first, _) = pod.app.state.lock().seen[0];
        assert!(service.pods[pod.number].first_ready.unwrap() <= first, "a request before it was ready");
    }
    println!("{} requests to {} pods, none failed", service.pods.iter().map(|pod| pod.served).sum::<usize>(), pods.len());
}

#[test]
fn a_rolling_restart_loses_no_request() {
    in_a_cluster(|cluster| rolls(cluster, true, "delay: 0s, drain_timeout: 20s"));
}

#[test]
fn a_rolling_restart_with_an_ordinary_container_loses_no_request() {
    in_a_cluster(|cluster| rolls(cluster, false, "delay: 5s, drain_timeout: 20s"));
}

/// Beside an app that is told to end at the same time, and does not.
#[test]
fn a_stream_that_does_not_end_is_cut_off_within_the_grace_period() {
    in_a_cluster(|cluster| {
        let shop = Shop::open(cluster, false, "delay: 5s, drain_timeout: 20s");
        let (old, other) = (shop.pod(), shop.pod());
        thread::scope(|scope| {
            let _leaves = Leaves(&shop.service);
            for _ in 0..3 {
                scope.spawn(|| shop.call());
            }
            let stuck = shop.begins(scope, &old, "GET /stuck");
            shop.service.serves(old.number, 50);
            let since = Instant::now();
            old.signal();
            shop.service.have_left(old.number);
            old.has_ended(since);
            assert_ne!(stuck.join().unwrap(), 200);
            shop.service.serves(other.number, 50);
        });
        assert_eq!(shop.service.lock().failed, [""; 0]);
    });
}

/// A pod of the CronJob, which calls a platform through bearerd.
fn job(cluster: &Cluster, tokens: &TokenService, platform: &App, key: &str, more: &str) -> Pod {
    let upstream = format!("http://{}", platform.address);
    let inject = format!("{{bearerd.dev/inject: \"true\"{more}");
    let changes = [
        ("https://tokens.example.com", tokens.url.as_str()),
        ("https://platform.example.com", &upstream),
        ("{bearerd.dev/inject: \"true\"", &inject),
    ];
    let objects = Objects { api_key: key, ..Objects::default() };
    let pod = Pod::start(cluster, &injected("outbound.yaml", &changes), &objects, &Arc::default());
    if pod.network.is_own() {
        // Whoever reaches it acts with the key: nobody outside the pod does.
        assert!(Connection::open((pod.network.address, pod.listens.callers.port()).into()).is_err());
    }
    pod
}

/// The Job's app, from its first moment: it calls the platform through bearerd, and ends.
fn works(pod: &Pod) {
    pod.network.within(|| {
        let mut connection = Connection::open(pod.listens.callers).unwrap();
        for _ in 0..100 {
            assert_eq!(connection.exchange("GET /", "").unwrap().status, 200);
        }
    });
}

#[test]
fn a_job_is_complete_when_its_app_has_ended() {
    in_a_cluster(|cluster| {
        let (_folder, tokens, [key]) = token_service(cluster, ["alice"]);
        let platform = App::platform(cluster);
        let pod = job(cluster, &tokens, &platform, &key, "");
        assert!(pod.native);
        works(&pod);
        let since = Instant::now();
        pod.signal();
        pod.has_ended(since);
        assert_eq!(platform.tokens().len(), 1);
    });
}

#[test]
fn a_job_ends_an_ordinary_container_by_the_admin_api() {
    in_a_cluster(|cluster| {
        let (_folder, tokens, [key]) = token_service(cluster, ["alice"]);
        let platform = App::platform(cluster);
        let pod = job(cluster, &tokens, &platform, &key, &format!(", {ORDINARY}"));
        assert!(!pod.native);
        let mut wait = Command::new(env!("CARGO_BIN_EXE_bearerd"));
        wait.args(["wait", "--address", &pod.listens.metrics.to_string()]);
        assert!(pod.network.within(|| wait.status()).unwrap().success());
        works(&pod);
        let since = Instant::now();
        let quit = || ask(pod.listens.admin, "POST /api/quit", "X-Bearerd-Admin: 1\r\nContent-Length: 0\r\n");
        assert_eq!(pod.network.within(quit) / 100, 2);
        pod.has_ended(since);
        assert_eq!(platform.tokens().len(), 1);
    });
}

#[test]
fn a_key_that_is_rotated_by_the_kubelet_loses_no_request() {
    in_a_cluster(|cluster| {
        let (_folder, tokens, [old, new]) = token_service(cluster, ["alice", "bob"]);
        let platform = App::platform(cluster);
        let pod = job(cluster, &tokens, &platform, &old, "").ready();
        thread::scope(|scope| {
            let _leaves = Leaves(&pod.service);
            scope.spawn(|| pod.network.within(|| call(&pod.service, "")));
            pod.service.serves(0, 50);
            mount(&pod.folder.path().join("secrets"), "second", &[("api-key".to_owned(), new)]);
            let deadline = Instant::now() + PATIENCE;
            while platform.tokens().len() < 2 {
                assert!(Instant::now() < deadline, "the new key is not used");
                let seen = platform.state.lock().seen.len();
                platform.state.until("more requests", |state| state.seen.len() > seen + 50);
            }
            // The old token is no good to anybody, although no ConfigMap says so.
            while !metrics(&pod).contains("bearerd_revocations_total{outcome=\"ok\"} 1\n") {
                assert!(Instant::now() < deadline, "the old token is not revoked: {}", metrics(&pod));
            }
            pod.service.serves(0, 50);
        });
        assert_eq!(pod.service.lock().failed, [""; 0]);
        // Never the old one again.
        assert_eq!(platform.tokens().iter().map(|token| subject(token)).collect::<Vec<_>>(), ["alice", "bob"]);
        let since = Instant::now();
        pod.signal();
        pod.has_ended(since);
    });
}

fn subject(token: &str) -> String {
    let claims: Value = serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap()).unwrap();
    claims["sub"].as_str().unwrap().to_owned()
}

fn metrics(pod: &Pod) -> String {
    Connection::open(pod.listens.metrics).unwrap().exchange("GET /metrics", "Connection: close\r\n").unwrap().body
}
