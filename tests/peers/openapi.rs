//! The admin API against its own description, by a tool that makes up requests, good and bad.

use std::path::Path;
use std::process::Command;

use crate::bearerd::{Bearerd, new_key};

const CONFIGURATION: &str = "
listeners: [{ address: 127.0.0.1:0 }]
admin: { address: 127.0.0.1:0 }
metrics: { address: 127.0.0.1:0 }
logging: { format: json, access: false }
token_services: { default: { kind: embedded, keys_file: keys.yaml, signing_key_file: signing.pem } }
routes: [{ name: app, respond: { status: 204 } }]
";

#[test]
fn the_admin_api_does_what_its_description_says() {
    let runner = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers/openapi-venv/bin/schemathesis");
    assert!(runner.exists(), "{} is not there: run `make test`, which installs it", runner.display());
    let folder = tempfile::tempdir().unwrap();
    new_key(&folder.path().join("keys.yaml"), &["--name", "alice"]);
    let bearerd = Bearerd::start(folder.path(), CONFIGURATION);
    // A stream has no end, and whoever quits is not there any more: tests of their own ask for both.
    let output = Command::new(runner)
        .args(["run", &format!("http://{}/api/openapi.json", bearerd.admin), "--header", "X-Bearerd-Admin: 1"])
        .args(["--exclude-path", "/api/quit", "--exclude-path", "/api/events"])
        .args(["--max-examples", "50", "--seed", "1", "--no-color"])
        .current_dir(&folder)
        .output()
        .unwrap();
    let report = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{report}{}", String::from_utf8_lossy(&output.stderr));
    // Not a run that asked for nothing.
    assert!(report.contains("Operations:       11 selected / 13 total"), "{report}");
}
