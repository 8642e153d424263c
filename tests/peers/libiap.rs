//! The published Python SDK, libiap 0.3.0, against `bearerd token-service`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};

use crate::bearerd::{Bearerd, new_key};
use crate::mirror::mirror;

fn bearerd() -> Command {
    Command::new(env!("CARGO_BIN_EXE_bearerd"))
}

/// The Python that has the SDK.
fn python() -> PathBuf {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers/libiap-venv/bin/python");
    assert!(python.exists(), "{} is not there: run `make test`, which installs it", python.display());
    python
}

/// A token service that ends with the test.
pub struct TokenService {
    process: Child,
    pub url: String,
    /// Open for as long as it runs, or its next line would end it.
    _stderr: BufReader<ChildStderr>,
}

impl TokenService {
    pub fn start(directory: &Path) -> Self {
        Self::start_at(directory, Ipv4Addr::LOCALHOST)
    }

    /// Where others than those on this machine reach it.
    pub fn start_at(directory: &Path, address: Ipv4Addr) -> Self {
        let configuration = format!(
            "token_services:\n  default:\n    kind: embedded\n    address: {address}:0\n    keys_file: {0}/keys.yaml\n    \
             signing_key_file: {0}/signing.pem\n    state_file: {0}/state.redb\nupstreams:\n  app: {{ servers: ['127.0.0.1:3000'] }}\nroutes:\n  - {{ upstream: app }}\n",
            directory.display()
        );
        let path = directory.join("bearerd.yaml");
        std::fs::write(&path, configuration).unwrap();
        let mut process = bearerd().args(["token-service", "-c"]).arg(path).stderr(Stdio::piped()).spawn().unwrap();
        let mut stderr = BufReader::new(process.stderr.take().unwrap());
        let mut said = String::new();
        while stderr.read_line(&mut said).unwrap() > 0 && !said.contains("token service on ") {}
        let url = said.split("token service on ").nth(1).and_then(|rest| rest.split(',').next()).unwrap_or_default().to_owned();
        assert!(url.starts_with("http://"), "not ready: {said}");
        Self { process, url, _stderr: stderr }
    }
}

impl Drop for TokenService {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn all_four_methods_of_the_tokens_api() {
    let python = python();
    let directory = tempfile::tempdir().unwrap();
    let keys_file = directory.path().join("keys.yaml");
    let grants = ["--scopes", "GDS.READ,GDS.WRITE", "--acl", "x,y", "--mem", "cid:1,cid:2", "--tenant", "acme"];
    let alice = new_key(&keys_file, &[&["--name", "alice"], grants.as_slice()].concat());
    let bob = new_key(&keys_file, &["--name", "bob"]);
    let service = TokenService::start(directory.path());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/libiap_tokens.py");
    let output = Command::new(python).arg(script).args([&service.url, &alice, &bob]).output().unwrap();
    assert!(output.status.success(), "{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
}

/// Its tokens, sessions and revocations are as they were after a restart, a key that was replaced meanwhile, and one that is replaced while it runs.
#[test]
fn a_service_that_is_restarted_and_whose_key_is_rotated() {
    let python = python();
    let directory = tempfile::tempdir().unwrap();
    let key = new_key(&directory.path().join("keys.yaml"), &["--name", "alice", "--scopes", "GDS.READ"]);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/libiap_restart.py");
    let run = |service: &TokenService, phase: &str| {
        let kept = directory.path().join("kept.json");
        let output = Command::new(&python).arg(&script).args([&service.url, &key]).arg(kept).arg(phase).output().unwrap();
        assert!(output.status.success(), "{phase}: {}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    };
    let first = TokenService::start(directory.path());
    run(&first, "before");
    drop(first);
    // Another key is made in its place.
    std::fs::remove_file(directory.path().join("signing.pem")).unwrap();
    let second = TokenService::start(directory.path());
    run(&second, "after");
    // And another, while it runs.
    let other = tempfile::tempdir().unwrap();
    std::fs::copy(directory.path().join("keys.yaml"), other.path().join("keys.yaml")).unwrap();
    drop(TokenService::start(other.path()));
    let before = published(&second);
    std::fs::rename(other.path().join("signing.pem"), directory.path().join("signing.pem")).unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while published(&second) == before {
        assert!(std::time::Instant::now() < deadline, "the other key is not taken");
    }
    run(&second, "after");
}

/// The key set, as it is on the wire.
fn published(service: &TokenService) -> String {
    let mut stream = std::net::TcpStream::connect(service.url.trim_start_matches("http://")).unwrap();
    write!(stream, "GET /.well-known/jwks.json HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text.split_once("\r\n\r\n").unwrap().1.to_owned()
}

#[test]
fn a_call_through_the_proxy_with_an_api_key() {
    let python = python();
    let directory = tempfile::tempdir().unwrap();
    let key = new_key(&directory.path().join("keys.yaml"), &["--name", "alice"]);
    let configuration = format!(
        "listeners: [{{ address: 127.0.0.1:0 }}]\nadmin: {{ address: 127.0.0.1:0 }}\nmetrics: {{ address: 127.0.0.1:0 }}\n\
         token_services: {{ default: {{ kind: embedded, keys_file: keys.yaml, signing_key_file: signing.pem }} }}\n\
         upstreams: {{ app: {{ servers: ['{}'] }} }}\nroutes: [{{ upstream: app }}]\nlogging: {{ format: json }}\n",
        mirror()
    );
    let bearerd = Bearerd::start(directory.path(), &configuration);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/libiap_upstream.py");
    let host = format!("http://{}", bearerd.callers);
    let output = Command::new(python).arg(script).args([&host, &key]).output().unwrap();
    assert!(output.status.success(), "{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_sdk_points_its_host_at_a_token_api_route() {
    let python = python();
    let (directory, proxy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let key = new_key(&directory.path().join("keys.yaml"), &["--name", "alice", "--scopes", "GDS.READ,GDS.WRITE"]);
    let service = TokenService::start(directory.path());
    let configuration = format!(
        "listeners: [{{ address: 127.0.0.1:0 }}]\nadmin: {{ address: 127.0.0.1:0 }}\nmetrics: {{ address: 127.0.0.1:0 }}\n\
         token_services: {{ default: {{ kind: iap, url: '{}' }} }}\nroutes: [{{ token_api: default }}]\nlogging: {{ format: json }}\n",
        service.url
    );
    let bearerd = Bearerd::start(proxy.path(), &configuration);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/libiap_token_api.py");
    let urls = [format!("http://{}", bearerd.callers), format!("http://{}", bearerd.metrics)];
    let output = Command::new(python).arg(script).args(urls).arg(&key).output().unwrap();
    assert!(output.status.success(), "{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
}
