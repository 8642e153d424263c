//! Protocols as others speak them: gRPC, WebSockets, HTTP/2 by curl and h2load, TLS by openssl.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

use crate::bearerd::{Bearerd, new_key};
use crate::mirror::mirror;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A bearerd with an embedded token service and a key for it, with these listeners and this upstream.
struct Stand {
    bearerd: Bearerd,
    key: String,
    folder: TempDir,
}

impl Stand {
    fn start(folder: TempDir, listeners: &str, upstream: &str) -> Self {
        let key = new_key(&folder.path().join("keys.yaml"), &["--name", "alice"]);
        let configuration = format!(
            "listeners: [{listeners}]\nadmin: {{ address: 127.0.0.1:0 }}\nmetrics: {{ address: 127.0.0.1:0 }}\n\
             token_services: {{ default: {{ kind: embedded, keys_file: keys.yaml, signing_key_file: signing.pem }} }}\n\
             upstreams: {{ app: {{ {upstream} }} }}\nroutes: [{{ upstream: app }}]\nlogging: {{ format: json, access: false }}\n"
        );
        Self { bearerd: Bearerd::start(folder.path(), &configuration), key, folder }
    }

    fn callers(&self) -> Vec<&str> {
        self.bearerd.callers.split(", ").collect()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

fn python() -> PathBuf {
    let python = root().join("target/peers/protocols-venv/bin/python");
    assert!(python.exists(), "{} is not there: run `make test`, which installs it", python.display());
    python
}

/// Runs a script that starts a server on a port of ours and then, given the key, calls it through bearerd.
fn run_script(name: &str, listener: &str, upstream: impl Fn(u16) -> String) {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let stand = Stand::start(tempfile::tempdir().unwrap(), listener, &upstream(port));
    let mut script = Command::new(python());
    let script = script.arg(root().join("tests/peers").join(name)).arg(port.to_string()).arg(stand.callers()[0]);
    let mut child = script.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    // Where it ended before this line, its errors tell why.
    let _ = writeln!(child.stdin.as_mut().unwrap(), "{}", stand.key);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn grpcio_calls_grpcio() {
    run_script("grpc_streams.py", "{ address: 127.0.0.1:0, h2c: true }", |port| format!("servers: ['127.0.0.1:{port}'], protocol: h2c"));
}

#[test]
fn websockets_talk_to_websockets() {
    run_script("websocket_echo.py", "{ address: 127.0.0.1:0 }", |port| format!("servers: ['127.0.0.1:{port}']"));
}

/// Files of an authority, a server's and a client's certificate.
fn certificates(folder: &Path) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "An authority");
    let key = KeyPair::generate().unwrap();
    std::fs::write(folder.join("ca.crt"), params.self_signed(&key).unwrap().pem()).unwrap();
    let issuer = Issuer::new(params, key);
    for name in ["localhost", "client"] {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
        std::fs::write(folder.join(format!("{name}.crt")), certificate.pem()).unwrap();
        std::fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
}

/// In the clear for HTTP/2, in TLS, and in TLS with a client certificate.
fn in_tls() -> Stand {
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path());
    let tls = "certificates: [{ certificate: localhost.crt, private_key: localhost.key }]";
    let listeners = format!(
        "{{ address: 127.0.0.1:0, h2c: true }}, {{ address: 127.0.0.1:0, tls: {{ {tls} }} }}, {{ address: 127.0.0.1:0, tls: {{ {tls}, client_ca: ca.crt }} }}"
    );
    Stand::start(folder, &listeners, &format!("servers: ['{}']", mirror()))
}

fn port(address: &str) -> &str {
    address.rsplit_once(':').unwrap().1
}

#[test]
fn curl_speaks_http2_in_the_clear_and_in_tls() {
    let stand = in_tls();
    let (clear, tls) = (format!("http://{}/a", stand.callers()[0]), format!("https://localhost:{}/a", port(stand.callers()[1])));
    let ca = stand.file("ca.crt");
    for (arguments, url, version) in [
        (vec!["--http2-prior-knowledge"], &clear, "2"),
        (vec!["--http2", "--cacert", ca.to_str().unwrap()], &tls, "2"),
        (vec!["--http1.1", "--cacert", ca.to_str().unwrap()], &tls, "1.1"),
    ] {
        let key = format!("X-API-Key: {}", stand.key);
        let common = ["--silent", "--show-error", "--fail", "--max-time", "60", "--write-out", "\n%{http_version}", "--header", &key];
        let output = Command::new("curl").args(common).args(arguments).arg(url).output().unwrap();
        let said = text(&output);
        assert!(output.status.success() && said.ends_with(&format!("\n{version}")), "{said}");
        assert!(said.to_lowercase().contains("authorization: bearer ey") && !said.contains(&stand.key), "{said}");
    }
}

#[test]
fn h2load_finds_no_failure() {
    let stand = in_tls();
    let key = format!("X-API-Key: {}", stand.key);
    for url in [format!("http://{}/", stand.callers()[0]), format!("https://localhost:{}/", port(stand.callers()[1]))] {
        let output = Command::new("h2load").args(["-n", "2000", "-c", "8", "-m", "10", "-H", &key]).arg(&url).output().unwrap();
        let said = text(&output);
        assert!(said.contains("2000 succeeded, 0 failed, 0 errored"), "{said}");
        assert!(said.contains("2000 2xx"), "{said}");
    }
}

#[test]
fn openssl_finds_the_versions_and_certificates_that_are_wanted() {
    let stand = in_tls();
    let handshake = |listener: usize, arguments: &[&str]| -> String {
        let address = format!("localhost:{}", port(stand.callers()[listener]));
        let mut openssl = Command::new("openssl");
        openssl.args(["s_client", "-connect", &address, "-servername", "localhost", "-verify_return_error", "-CAfile"]);
        let mut child = openssl
            .arg(stand.file("ca.crt"))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let request = format!("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX-API-Key: {}\r\n\r\n", stand.key);
        // A handshake that failed leaves nobody to write to.
        let _ = child.stdin.as_mut().unwrap().write_all(request.as_bytes());
        let mut said = String::new();
        // Without an end of input the program waits for the server to close.
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        while stdout.read_line(&mut said).unwrap_or_default() > 0 {}
        drop(child.stdin.take());
        said + &text(&child.wait_with_output().unwrap())
    };
    for version in ["-tls1_2", "-tls1_3"] {
        let said = handshake(1, &[version, "-quiet"]);
        assert!(said.contains("HTTP/1.1 200"), "{version}: {said}");
    }
    for version in ["-tls1", "-tls1_1"] {
        assert!(!handshake(1, &[version, "-cipher", "ALL:@SECLEVEL=0"]).contains("HTTP/1.1"), "{version}");
    }
    assert!(handshake(1, &["-alpn", "h2,http/1.1"]).contains("ALPN protocol: h2"));
    let (certificate, key) = (stand.file("client.crt"), stand.file("client.key"));
    let shown = ["-cert", certificate.to_str().unwrap(), "-key", key.to_str().unwrap()];
    assert!(handshake(2, &[&shown[..], &["-quiet"]].concat()).contains("HTTP/1.1 200"));
    assert!(!handshake(2, &["-quiet"]).contains("HTTP/1.1"), "no certificate");
}
