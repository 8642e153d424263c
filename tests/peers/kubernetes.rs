//! The shipped Kubernetes manifests and what `bearerd inject` makes, as the Kubernetes API's own schemas and as bearerd itself read it.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/kustomize").join(name)
}

/// Every object in these files fits the schemas of this version, fields that it does not know included.
fn fits(version: &str, files: &[PathBuf], objects: usize) {
    let validate = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers/kubernetes-venv/bin/kubernetes-validate");
    assert!(validate.exists(), "{} is not there: run `make test`, which installs it", validate.display());
    let output = Command::new(&validate).args(["--strict", "--kubernetes-version", version]).args(files).output().unwrap();
    let report = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{report}");
    // A kind without a schema is only a warning there.
    assert_eq!(report.matches(" passed for resource ").count(), objects, "{report}");
}

#[test]
fn injected_manifests_fit_them_too() {
    let folder = tempfile::tempdir().unwrap();
    let mut files = Vec::new();
    for name in ["deployment.yaml", "outbound.yaml", "ordinary.yaml", "pod.json"] {
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/manifests").join(name);
        let output = Command::new(env!("CARGO_BIN_EXE_bearerd")).args(["inject", "-f"]).arg(fixture).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let documents: Vec<Value> = serde_saphyr::from_multiple(std::str::from_utf8(&output.stdout).unwrap()).unwrap();
        // There is no schema of a List: what is in it counts.
        for object in documents.into_iter().flat_map(|document| match &document["items"] {
            Value::Array(items) => items.clone(),
            _ => vec![document],
        }) {
            files.push(folder.path().join(format!("{}.json", files.len())));
            std::fs::write(files.last().unwrap(), object.to_string()).unwrap();
        }
    }
    // The oldest version with native sidecars, one between, and the newest known.
    for version in ["1.29", "1.33", "1.37"] {
        fits(version, &files, 7);
    }
}

#[test]
fn the_mounted_configuration_is_accepted() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_bearerd")).args(["check", "-c"]).arg(folder("base").join("bearerd.yaml")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
