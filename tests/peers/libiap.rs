//! The published Python SDK, libiap 0.3.0, against `bearerd token-service`.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};

fn bearerd() -> Command {
    Command::new(env!("CARGO_BIN_EXE_bearerd"))
}

/// The Python that has the SDK.
fn python() -> PathBuf {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers/libiap-venv/bin/python");
    assert!(python.exists(), "{} is not there: run `make test`, which installs it", python.display());
    python
}

fn new_key(keys_file: &Path, arguments: &[&str]) -> String {
    let output = bearerd().args(["keys", "new", "--keys-file"]).arg(keys_file).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A token service that ends with the test.
struct TokenService {
    process: Child,
    url: String,
    /// Open for as long as it runs, or its next line would end it.
    _stderr: BufReader<ChildStderr>,
}

impl TokenService {
    fn start(directory: &Path) -> Self {
        let configuration = format!(
            "token_services:\n  default:\n    kind: embedded\n    address: 127.0.0.1:0\n    keys_file: {0}/keys.yaml\n    \
             signing_key_file: {0}/signing.pem\nupstreams:\n  app: {{ servers: ['127.0.0.1:3000'] }}\nroutes:\n  - {{ upstream: app }}\n",
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
