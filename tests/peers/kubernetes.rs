//! The shipped Kubernetes base, as the Kubernetes API's own schemas and as bearerd itself read it.

use std::path::{Path, PathBuf};
use std::process::Command;

fn base() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/kustomize/base")
}

/// Whatever is in the folder, but for what only kustomize and bearerd read.
fn manifests() -> Vec<PathBuf> {
    let others = ["kustomization.yaml", "bearerd.yaml"];
    let mut files: Vec<_> = std::fs::read_dir(base()).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| !others.iter().any(|other| path.ends_with(other)));
    files.sort();
    files
}

#[test]
fn manifests_fit_the_schemas_of_the_kubernetes_api() {
    let validate = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/peers/kubernetes-venv/bin/kubernetes-validate");
    assert!(validate.exists(), "{} is not there: run `make test`, which installs it", validate.display());
    // The oldest version with all that the base uses, and the newest known.
    for version in ["1.30", "1.37"] {
        let output = Command::new(&validate).args(["--strict", "--kubernetes-version", version]).args(manifests()).output().unwrap();
        let report = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{report}");
        // A kind without a schema is only a warning there.
        assert_eq!(report.matches(" passed for resource ").count(), manifests().len(), "{report}");
    }
}

#[test]
fn the_mounted_configuration_is_accepted() {
    let output = Command::new(env!("CARGO_BIN_EXE_bearerd")).args(["check", "-c"]).arg(base().join("bearerd.yaml")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
