//! `bearerd probe` and `bearerd wait`, against a bearerd that starts, is ready, and ends.

use std::net::{SocketAddr, TcpListener};
use std::process::Output;

use tokio::process::Command;

use crate::support::process::Process;

async fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bearerd")).args(arguments).env_clear().output().await.unwrap()
}

fn told(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Somewhere nobody listens: bound, and given back.
fn nowhere() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// A route whose own key nobody can turn into a token: alive and started, never ready.
fn unready(service: SocketAddr, directory: &std::path::Path) -> String {
    let key = directory.join("key");
    std::fs::write(&key, "k").unwrap();
    format!(
        "token_services: {{ default: {{ kind: iap, url: \"http://{service}\" }} }}\nupstreams: {{ app: {{ servers: [\"127.0.0.1:1\"] }} }}\n\
         routes: [{{ upstream: app, keep_warm: true, credentials: [{{ mounted: {{ file: {} }} }}] }}]\n",
        key.display()
    )
}

#[tokio::test]
async fn yes_is_0_on_the_metrics_listener_and_on_the_admin_one() {
    let process = Process::run("routes: [{ auth: none, respond: { status: 204 } }]\n");
    let addresses = process.addresses().await;
    for address in [addresses.metrics, addresses.admin] {
        let address = address.to_string();
        assert_eq!(told(&run(&["wait", "--address", &address]).await), (Some(0), String::new()));
        for probe in ["live", "ready", "startup"] {
            assert_eq!(told(&run(&["probe", probe, "--address", &address]).await), (Some(0), String::new()), "{probe}");
        }
    }
}

#[tokio::test]
async fn no_is_1_or_69_with_what_was_said() {
    let directory = tempfile::tempdir().unwrap();
    let process = Process::run(&unready(nowhere().parse().unwrap(), directory.path()));
    let address = process.addresses().await.metrics.to_string();
    // It listens a moment before it serves.
    while told(&run(&["probe", "startup", "--address", &address]).await).0 != Some(0) {}
    assert_eq!(told(&run(&["probe", "live", "--address", &address]).await).0, Some(0));
    // Without a word on what is asked, it is whether it is ready.
    let (code, text) = told(&run(&["probe", "--address", &address]).await);
    assert_eq!((code, text.lines().count()), (Some(1), 1), "{text}");
    assert!(text.contains("/readyz: 503 Service Unavailable: not ready: starting, draining"), "{text}");
    let (code, text) = told(&run(&["wait", "--address", &address, "--timeout", "300ms"]).await);
    assert_eq!(code, Some(69), "{text}");
    assert!(text.contains("is not ready after 300ms: 503 Service Unavailable: not ready"), "{text}");
}

#[tokio::test]
async fn silence_and_absence_are_told_apart() {
    let (code, text) = told(&run(&["probe", "--address", &nowhere()]).await);
    assert_eq!(code, Some(1));
    assert!(text.contains("cannot connect: Connection refused"), "{text}");
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let (code, text) = told(&run(&["probe", "live", "--address", &address, "--timeout", "200ms"]).await);
    assert_eq!(code, Some(1));
    assert!(text.contains("/livez: no answer within 200ms"), "{text}");
    let (code, text) = told(&run(&["wait", "--address", &address, "--timeout", "200ms"]).await);
    assert_eq!(code, Some(69));
    assert!(text.contains("not ready after 200ms: no answer within"), "{text}");
    let output = run(&["probe", "alive"]).await;
    assert_eq!(output.status.code(), Some(2), "a usage error");
}

/// Nobody is there at first: it goes on asking.
#[tokio::test]
async fn waiting_ends_when_it_is_ready() {
    let address = nowhere();
    let waiting = tokio::spawn({
        let address = address.clone();
        async move { run(&["wait", "--address", &address, "--timeout", "50s"]).await }
    });
    assert_eq!(told(&run(&["probe", "--address", &address]).await).0, Some(1));
    let _process =
        Process::run(&format!("metrics: {{ address: \"{address}\" }}\nroutes: [{{ auth: none, respond: {{ status: 204 }} }}]\n"));
    assert_eq!(told(&waiting.await.unwrap()), (Some(0), String::new()));
}
