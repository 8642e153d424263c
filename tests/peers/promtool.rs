//! Prometheus's own check of what `/metrics` says, and of the rules that are shipped.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::bearerd::{Bearerd, get};

/// Every port is the system's choice; the fixed answer spares an upstream.
const CONFIGURATION: &str = "
listeners: [{ address: 127.0.0.1:0 }]
admin: { address: 127.0.0.1:0 }
metrics: { address: 127.0.0.1:0 }
token_services: { default: { kind: embedded, keys_file: keys.yaml, signing_key_file: signing.pem } }
routes: [{ respond: { status: 204 } }]
logging: { format: json }
";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn promtool() -> PathBuf {
    let promtool = root().join("target/peers/promtool");
    assert!(promtool.exists(), "{} is not there: run `make test`, which installs it", promtool.display());
    promtool
}

#[test]
fn promtool_finds_nothing_wrong_with_the_metrics() {
    let promtool = promtool();
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

#[test]
fn each_alert_fires_when_it_should_and_not_before() {
    let folder = root().join("deploy/prometheus");
    for arguments in [["check", "rules", "rules.yaml"], ["test", "rules", "rules.test.yaml"]] {
        let output = Command::new(promtool()).args(arguments).current_dir(&folder).output().unwrap();
        let report = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && report.contains("SUCCESS"), "{arguments:?}: {report}");
    }
}

/// What stands behind this on its line, for each line that has it.
fn after<'t>(text: &'t str, mark: &str) -> Vec<&'t str> {
    text.lines().filter_map(|line| line.trim().strip_prefix(mark)).collect()
}

#[test]
fn each_alert_has_a_test_and_an_entry_in_the_runbook_and_reads_families_that_there_are() {
    let read = |path: &str| std::fs::read_to_string(root().join(path)).unwrap();
    let (rules, cases, runbook) =
        (read("deploy/prometheus/rules.yaml"), read("deploy/prometheus/rules.test.yaml"), read("docs/runbook.md"));
    let alerts = after(&rules, "- alert: ");
    assert!(alerts.len() >= 8, "{alerts:?}");
    for alert in &alerts {
        assert!(cases.contains(&format!("alertname: {alert}\n")), "{alert} is tested");
        assert!(rules.contains(&format!("docs/runbook.md#{}\n", alert.to_lowercase())), "{alert} names its entry");
        assert!(after(&runbook, "## ").contains(alert), "{alert} has one");
    }
    assert_eq!(after(&runbook, "## ").iter().filter(|title| title.starts_with("Bearerd")).count(), alerts.len(), "and no other");

    let sources = ["src/telemetry/metrics.rs", "src/proxy/upstream/gauges.rs", "src/tls/expiry.rs"].map(read).concat();
    let mut names = 0;
    let dashboard = read("deploy/grafana/bearerd.json");
    for text in [&rules, &runbook, &dashboard] {
        for name in text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_' && letter != ':') {
            let Some(family) = name.strip_prefix("bearerd_") else { continue };
            let family = ["_bucket", "_count", "_sum"].iter().fold(family, |family, end| family.strip_suffix(end).unwrap_or(family));
            assert!(sources.contains(&format!("\"{family}\"")), "there is no family {name}");
            names += 1;
        }
    }
    assert!(names > 40, "{names}");
}

#[test]
fn every_expression_of_the_dashboard_is_one_that_prometheus_takes() {
    let text = std::fs::read_to_string(root().join("deploy/grafana/bearerd.json")).unwrap();
    let dashboard: serde_json::Value = serde_json::from_str(&text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    // As Grafana fills it in.
    let filled = |expression: &str| expression.replace("$__rate_interval", "1m").replace("$job", ".+");
    let rules: Vec<_> = targets
        .enumerate()
        .map(
            |(number, target)| serde_json::json!({ "record": format!("panel:{number}"), "expr": filled(target["expr"].as_str().unwrap()) }),
        )
        .collect();
    assert!(rules.len() >= panels.len(), "each panel shows something");
    let folder = tempfile::tempdir().unwrap();
    // JSON is YAML.
    std::fs::write(folder.path().join("rules.yaml"), serde_json::json!({ "groups": [{ "name": "panels", "rules": rules }] }).to_string())
        .unwrap();
    let output = Command::new(promtool()).args(["check", "rules", "rules.yaml"]).current_dir(&folder).output().unwrap();
    let report = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && report.contains(&format!("SUCCESS: {} rules found", rules.len())), "{report}");
}
