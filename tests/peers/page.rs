//! The admin page in a real browser.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::bearerd::{Bearerd, new_key};
use crate::mirror::mirror;

/// A configuration whose token service is bearerd's own.
fn configuration(admin: &str) -> String {
    format!(
        "listeners: [{{ address: 127.0.0.1:0 }}]\nadmin: {{ address: 127.0.0.1:0{admin} }}\nmetrics: {{ address: 127.0.0.1:0 }}\n\
         logging: {{ format: json }}\nshutdown: {{ delay: 0s }}\n\
         token_services: {{ default: {{ kind: embedded, keys_file: keys.yaml, signing_key_file: signing.pem }} }}\n\
         upstreams: {{ app: {{ servers: [\"{}\"] }} }}\n\
         routes:\n  - {{ name: public, match: {{ path_prefix: /public }}, auth: none, upstream: app }}\n  - {{ name: app, upstream: app }}\n",
        mirror()
    )
}

/// Runs the script against a bearerd with `admin` in its section; `scenario` is its part. Screenshots stay in `target/page`.
fn look(scenario: &str, admin: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let modules = root.join("target/peers/page/node_modules");
    assert!(modules.exists(), "{} is not there: run `make test`, which installs it", modules.display());
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("token"), "admin-canary").unwrap();
    let key = new_key(&folder.path().join("keys.yaml"), &["--name", "alice"]);
    let bearerd = Bearerd::start(folder.path(), &configuration(admin));
    let screenshots = root.join("target/page");
    std::fs::create_dir_all(&screenshots).unwrap();
    // A module is looked for beside the script that wants it.
    let script = modules.parent().unwrap().join(format!("{scenario}.mjs"));
    std::fs::copy(root.join("tests/peers/page.mjs"), &script).unwrap();
    let output = Command::new("node")
        .arg(&script)
        .arg(scenario)
        .env("ADMIN", format!("http://{}", bearerd.admin))
        .env("CALLERS", format!("http://{}", bearerd.callers))
        .env("KEY", &key)
        .env("FILE", folder.path().join("bearerd.yaml"))
        .env("SCREENSHOTS", &screenshots)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}\n{}", said(&output.stdout), said(&output.stderr));
    println!("{}", said(&output.stdout));
}

#[test]
fn an_operator_sees_a_token_come_and_revokes_it() {
    look("tokens", "");
}

#[test]
fn an_operator_sees_refusals_and_a_reload_that_fails() {
    look("refusals", "");
}

#[test]
fn an_operator_logs_in_and_out() {
    look("login", ", token_file: token");
}
