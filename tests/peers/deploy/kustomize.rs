//! The overlays, as every kustomize at hand builds them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::{OVERLAYS, documents, files, peer, root, run, yaml};

/// A copy of `deploy/kustomize` in which keys and certificates have been made as its comments say.
pub(super) fn overlays_with_keys() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    run(Command::new("cp").arg("-r").arg(root().join("deploy/kustomize")).arg(folder.path()));
    let overlays = folder.path().join("kustomize/overlays");
    for overlay in ["inbound", "outbound", "decision"] {
        fs::write(overlays.join(overlay).join("ledger.key"), [7; 32]).unwrap();
    }
    fs::write(overlays.join("outbound/api-key"), "key").unwrap();
    run(&mut Command::new(overlays.join("webhook/certificate.sh")));
    folder
}

/// A `kubectl kustomize`; an old one reads fewer words.
pub(super) struct Kustomize {
    kubectl: PathBuf,
    old: bool,
}

/// Debian's, which is of the time before `resources` took folders and `patches` files; and the one at hand where it is newer.
pub(super) fn builders() -> Vec<Kustomize> {
    let mut builders = vec![Kustomize { kubectl: peer("kubectl"), old: true }];
    if let Ok(output) = Command::new("kubectl").args(["version", "--client"]).output() {
        let version = String::from_utf8_lossy(&output.stdout).into_owned();
        if version.lines().any(|line| line.starts_with("Kustomize Version: v5")) {
            builders.push(Kustomize { kubectl: "kubectl".into(), old: false });
        }
    }
    builders
}

impl Kustomize {
    pub(super) fn build(&self, folder: &Path) -> Vec<Value> {
        documents(&run(Command::new(&self.kubectl).arg("kustomize").arg(folder)))
    }

    /// The same in the words of the old one: folders are `bases`, files of patches have a list of their own, and names of secrets have hashes.
    pub(super) fn prepare(&self, folder: &Path) {
        if !self.old {
            return;
        }
        for file in files(folder).iter().filter(|file| file.ends_with("kustomization.yaml")) {
            let here = file.parent().unwrap();
            let mut document = yaml(&fs::read_to_string(file).unwrap());
            let given = document["resources"].as_array().unwrap().clone();
            let (bases, resources): (Vec<_>, Vec<_>) = given.into_iter().partition(|name| here.join(name.as_str().unwrap()).is_dir());
            document["bases"] = bases.into();
            document["resources"] = resources.into();
            if let Some(patches) = document.as_object_mut().unwrap().remove("patches") {
                document["patchesStrategicMerge"] = patches.as_array().unwrap().iter().map(|patch| patch["path"].clone()).collect();
            }
            for generator in document.get_mut("secretGenerator").and_then(Value::as_array_mut).into_iter().flatten() {
                generator.as_object_mut().unwrap().remove("options");
            }
            // JSON is YAML.
            fs::write(file, document.to_string()).unwrap();
        }
    }
}

/// Every overlay by every builder, with a name to tell by.
pub(super) fn built(each: impl Fn(&str, &[Value])) {
    for builder in builders() {
        let folder = overlays_with_keys();
        builder.prepare(folder.path());
        let kustomize = folder.path().join("kustomize");
        for overlay in OVERLAYS {
            let documents = builder.build(&kustomize.join("overlays").join(overlay));
            each(&format!("{overlay} by {}", builder.kubectl.display()), &documents);
        }
        let documents = builder.build(&kustomize.join("monitoring"));
        each(&format!("monitoring by {}", builder.kubectl.display()), &documents);
    }
}
