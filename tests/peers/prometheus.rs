//! A real Prometheus scrapes a running bearerd, and its alert fires in an outage of the token service.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::bearerd::{Bearerd, new_key};
use crate::proxies::free_port;

const PATIENCE: Duration = Duration::from_secs(120);

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn get(address: &str, path: &str, headers: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n{headers}\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// What its HTTP API answers; nothing where it does not answer yet.
fn asked(port: u16, path: &str) -> Option<Value> {
    TcpStream::connect(("127.0.0.1", port)).ok()?;
    let answer = get(&format!("127.0.0.1:{port}"), path, "");
    serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::yield_now();
    }
}

/// The embedded token service, on its own: its tokens live for forty seconds.
fn token_service(folder: &Path) -> (Running, BufReader<ChildStderr>, String) {
    let file = folder.join("service.yaml");
    let text = "token_services: { default: { kind: embedded, address: \"127.0.0.1:0\", keys_file: keys.yaml, signing_key_file: signing.pem, lifetime: 40s } }\n\
                routes: [{ respond: { status: 204 } }]\n";
    fs::write(&file, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_bearerd"));
    let mut process = command.args(["token-service", "-c"]).arg(file).stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = BufReader::new(process.stderr.take().unwrap());
    let mut said = String::new();
    while stderr.read_line(&mut said).unwrap() > 0 && !said.contains("token service on ") {}
    let url = said.split("token service on ").nth(1).and_then(|rest| rest.split(',').next()).unwrap_or_default().to_owned();
    assert!(url.starts_with("http://"), "not ready: {said}");
    (Running(process), stderr, url)
}

#[test]
fn the_alert_on_tokens_that_are_not_renewed_fires_in_an_outage() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let prometheus = root.join("target/peers/prometheus");
    assert!(prometheus.exists(), "{} is not there: run `make test`, which installs it", prometheus.display());
    let folder = tempfile::tempdir().unwrap();
    let key = new_key(&folder.path().join("keys.yaml"), &["--name", "alice"]);
    let (service, _stderr, url) = token_service(folder.path());
    let bearerd = Bearerd::start(
        folder.path(),
        &format!(
            "listeners: [{{ address: 127.0.0.1:0 }}]\nadmin: {{ address: 127.0.0.1:0 }}\nmetrics: {{ address: 127.0.0.1:0 }}\n\
             logging: {{ format: json, access: false }}\ntoken_services: {{ default: {{ kind: iap, url: \"{url}\" }} }}\n\
             routes: [{{ name: app, respond: {{ status: 204 }}, keep_warm: true }}]\n"
        ),
    );
    let credential = format!("X-API-Key: {key}\r\n");
    assert!(get(&bearerd.callers, "/", &credential).starts_with("HTTP/1.1 204"));

    // The rules as they are shipped; only that an alert has held for a while takes less time here.
    let rules = fs::read_to_string(root.join("deploy/prometheus/rules.yaml")).unwrap().replace("for: 1m", "for: 1s");
    fs::write(folder.path().join("rules.yaml"), rules).unwrap();
    let configuration = format!(
        "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\nrule_files: [rules.yaml]\n\
         scrape_configs: [{{ job_name: bearerd, static_configs: [{{ targets: [\"{}\"] }}] }}]\n",
        bearerd.metrics
    );
    fs::write(folder.path().join("prometheus.yml"), configuration).unwrap();
    let port = free_port();
    let _prometheus = Running(
        Command::new(prometheus)
            .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data", &format!("--web.listen-address=127.0.0.1:{port}")])
            .current_dir(&folder)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    let target = || Some(asked(port, "/api/v1/targets")?["data"]["activeTargets"][0].clone());
    until("a scrape that succeeds", || target().is_some_and(|target| target["health"] == "up"));
    assert_eq!(target().unwrap()["lastError"], "");

    let alerts =
        || asked(port, "/api/v1/alerts").map_or_else(Vec::new, |answer| answer["data"]["alerts"].as_array().cloned().unwrap_or_default());
    assert_eq!(alerts(), [Value::Null; 0], "no alarm while all is well");
    drop(service);
    // Somebody goes on calling: the token is in use, and serves until its end.
    until("BearerdTokenNotRenewing", || {
        let answer = get(&bearerd.callers, "/", &credential);
        assert!(answer.starts_with("HTTP/1.1 204") || answer.starts_with("HTTP/1.1 503"), "an outage is never a 401: {answer}");
        alerts().iter().any(|alert| {
            alert["labels"]["alertname"] == "BearerdTokenNotRenewing" && alert["labels"]["route"] == "app" && alert["state"] == "firing"
        })
    });
}
