//! Prometheus's own check of what `/metrics` says.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::bearerd::Bearerd;

/// Every port is the system's choice; the fixed answer spares an upstream.
const CONFIGURATION: &str = "
listeners: [{ address: 127.0.0.1:0 }]
admin: { address: 127.0.0.1:0 }
metrics: { address: 127.0.0.1:0 }
token_services: { default: { kind: embedded, keys_file: keys.yaml, signing_key_file: signing.pem } }
routes: [{ respond: { status: 204 } }]
logging: { format: json }
";

/// Status line and headers, and the body.
fn get(address: &str, path: &str, headers: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{headers}\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

#[test]
fn promtool_finds_nothing_wrong_with_the_metrics() {
    let promtool = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers/promtool");
    assert!(promtool.exists(), "{} is not there: run `make test`, which installs it", promtool.display());
    let folder = tempfile::tempdir().unwrap();
    let keys_file = folder.path().join("keys.yaml");
    let made = Command::new(env!("CARGO_BIN_EXE_bearerd"))
        .args(["keys", "new", "--name", "alice", "--keys-file"])
        .arg(keys_file)
        .output()
        .unwrap();
    let key = String::from_utf8(made.stdout).unwrap();
    let bearerd = Bearerd::start(folder.path(), CONFIGURATION);

    // A mint, a hit and refusals, so that the families have series.
    for (header, status) in [
        (format!("X-API-Key: {key}"), "204"),
        (format!("X-API-Key: {key}"), "204"),
        ("X-API-Key: other\n".to_owned(), "401"),
        (String::new(), "401"),
    ] {
        let (head, _) = get(&bearerd.callers, "/", &header.replace('\n', "\r\n"));
        assert_eq!(head.split(' ').nth(1), Some(status), "{head}");
    }
    let (head, exposition) = get(&bearerd.metrics, "/metrics", "");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(exposition.contains("bearerd_auth_decisions_total{"), "{exposition}");

    let mut check = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    check.stdin.take().unwrap().write_all(exposition.as_bytes()).unwrap();
    let output = check.wait_with_output().unwrap();
    let report = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && report.is_empty(), "{report}");
}
