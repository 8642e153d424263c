//! Prometheus's own check of what `/metrics` says.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};

/// Every port is the system's choice; the fixed answer spares an upstream.
const CONFIGURATION: &str = "
listeners: [{ address: 127.0.0.1:0 }]
admin: { address: 127.0.0.1:0 }
metrics: { address: 127.0.0.1:0 }
token_services: { default: { kind: embedded, keys_file: keys.yaml, signing_key_file: signing.pem } }
routes: [{ respond: { status: 204 } }]
logging: { format: json }
";

/// A bearerd that ends with the test.
struct Bearerd {
    process: Child,
    callers: String,
    metrics: String,
    /// Open for as long as it runs, or its next line would end it.
    _stderr: BufReader<ChildStderr>,
}

impl Bearerd {
    fn start(folder: &Path) -> Self {
        let file = folder.join("bearerd.yaml");
        std::fs::write(&file, CONFIGURATION).unwrap();
        let mut process = Command::new(env!("CARGO_BIN_EXE_bearerd")).args(["run", "-c"]).arg(file).stderr(Stdio::piped()).spawn().unwrap();
        let mut stderr = BufReader::new(process.stderr.take().unwrap());
        let (mut line, mut said) = (String::new(), serde_json::Value::Null);
        while said["message"] != "listening" {
            line.clear();
            assert!(stderr.read_line(&mut line).unwrap() > 0, "it ended before it listened");
            said = serde_json::from_str(&line).unwrap();
        }
        let callers = said["callers"].as_str().unwrap().trim_matches(['[', ']']).to_owned();
        let metrics = said["metrics"].as_str().unwrap().to_owned();
        Self { process, callers, metrics, _stderr: stderr }
    }
}

impl Drop for Bearerd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

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
    let bearerd = Bearerd::start(folder.path());

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
