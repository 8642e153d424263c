//! The shipped Kubernetes manifests and what `bearerd inject` makes, as the Kubernetes API's own schemas and as bearerd itself read it.

use std::path::{Path, PathBuf};
use std::process::Command;

use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::{Ingress, NetworkPolicy};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

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

/// The objects of these documents; there is no schema of a List: what is in it counts.
fn objects(text: &str) -> Vec<Value> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).unwrap();
    let items = |document: Value| match &document["items"] {
        Value::Array(items) => items.clone(),
        _ => vec![document],
    };
    documents.into_iter().flat_map(items).collect()
}

/// The objects that there are in the fixtures.
const INJECTED: usize = 13;

/// What `bearerd inject` makes of the fixtures.
fn injected() -> Vec<Value> {
    let one = |name: &str| {
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/manifests").join(name);
        let output = Command::new(env!("CARGO_BIN_EXE_bearerd")).args(["inject", "-f"]).arg(fixture).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        objects(std::str::from_utf8(&output.stdout).unwrap())
    };
    ["deployment.yaml", "outbound.yaml", "ordinary.yaml", "pod.json", "web.yaml", "queue.yaml", "list.yaml"]
        .into_iter()
        .flat_map(one)
        .collect()
}

#[test]
fn injected_manifests_fit_them_too() {
    let folder = tempfile::tempdir().unwrap();
    let mut files = Vec::new();
    for object in injected() {
        files.push(folder.path().join(format!("{}.json", files.len())));
        std::fs::write(files.last().unwrap(), object.to_string()).unwrap();
    }
    // The oldest version with native sidecars, one between, and the newest known.
    for version in ["1.29", "1.33", "1.37"] {
        fits(version, &files, INJECTED);
    }
}

/// The sidecar alone: what the app's containers may is its owner's.
#[test]
fn injected_sidecars_fit_the_restricted_profile() {
    let mut count = 0;
    for object in injected() {
        let templates = ["/spec/jobTemplate/spec/template/spec", "/spec/template/spec", "/spec"];
        let Some(pod) = templates.iter().find_map(|place| object.pointer(place).filter(|pod| pod["containers"].is_array())) else {
            continue;
        };
        let containers = ["initContainers", "containers"].into_iter().flat_map(|key| pod[key].as_array().into_iter().flatten());
        for container in containers.filter(|container| container["name"] == "bearerd") {
            let context = &container["securityContext"];
            for (key, expected) in [
                ("allowPrivilegeEscalation", json!(false)),
                ("capabilities", json!({ "drop": ["ALL"] })),
                ("readOnlyRootFilesystem", json!(true)),
                ("runAsNonRoot", json!(true)),
                ("seccompProfile", json!({ "type": "RuntimeDefault" })),
            ] {
                assert_eq!(context[key], expected, "{key}: {object}");
            }
            assert!(context["runAsUser"].as_u64().is_some_and(|user| user > 0) && context.get("privileged").is_none(), "{object}");
            let ports = container["ports"].as_array().unwrap();
            assert!(ports.iter().all(|port| port.get("hostPort").is_none()), "{object}");
            for wanted in container["volumeMounts"].as_array().unwrap() {
                let volume = pod["volumes"].as_array().unwrap().iter().find(|volume| volume["name"] == wanted["name"]).unwrap();
                let kinds = ["configMap", "secret", "emptyDir", "downwardAPI"];
                assert!(kinds.iter().any(|kind| volume.get(kind).is_some()), "{volume}");
            }
            count += 1;
        }
    }
    assert_eq!(count, 8);
}

/// The object as this type writes it.
fn through<T: DeserializeOwned + Serialize>(object: &Value) -> Value {
    let typed: T = serde_json::from_value(object.clone()).unwrap_or_else(|error| panic!("{error}: {object}"));
    serde_json::to_value(typed).unwrap()
}

/// None for what is not Kubernetes' own.
fn typed(object: &Value) -> Option<Value> {
    let through = match object["kind"].as_str().unwrap() {
        "ConfigMap" => through::<ConfigMap>,
        "CronJob" => through::<CronJob>,
        "DaemonSet" => through::<DaemonSet>,
        "Deployment" => through::<Deployment>,
        "Ingress" => through::<Ingress>,
        "Job" => through::<Job>,
        "MutatingWebhookConfiguration" => through::<MutatingWebhookConfiguration>,
        "Namespace" => through::<Namespace>,
        "NetworkPolicy" => through::<NetworkPolicy>,
        "Pod" => through::<Pod>,
        "PodDisruptionBudget" => through::<PodDisruptionBudget>,
        "ReplicaSet" => through::<ReplicaSet>,
        "Service" => through::<Service>,
        "ServiceAccount" => through::<ServiceAccount>,
        "StatefulSet" => through::<StatefulSet>,
        "Kustomization" | "Middleware" | "PodMonitor" | "PrometheusRule" => return None,
        kind => panic!("no type for {kind}"),
    };
    Some(through(object))
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Object(fields) => fields.values().all(is_empty),
        _ => [Value::Null, Value::from(""), Value::Array(Vec::new())].contains(value),
    }
}

/// Asserts that nothing was lost or changed. A null may go; what must not be missing may come, empty: overlays are patches, without a `selector` and the like.
fn is_whole(place: &str, given: &Value, back: &Value) {
    match (given, back) {
        (Value::Object(given), Value::Object(back)) => {
            for (key, value) in given.iter().filter(|(_, value)| !value.is_null()) {
                is_whole(&format!("{place}.{key}"), value, back.get(key).unwrap_or_else(|| panic!("{place}.{key} is lost")));
            }
            for (key, value) in back.iter().filter(|(key, _)| !given.contains_key(*key)) {
                assert!(is_empty(value), "{place}.{key} has come");
            }
        }
        (Value::Array(given), Value::Array(back)) => {
            assert_eq!(given.len(), back.len(), "{place}");
            given.iter().zip(back).enumerate().for_each(|(index, (given, back))| is_whole(&format!("{place}[{index}]"), given, back));
        }
        _ => assert_eq!(given, back, "{place}"),
    }
}

fn manifests(folder: &Path) -> Vec<PathBuf> {
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths
        .flat_map(|path| if path.is_dir() { manifests(&path) } else { vec![path] })
        .filter(|path| path.extension().is_some_and(|end| end == "yaml"))
        .collect()
}

#[test]
fn injected_and_shipped_manifests_keep_everything_as_typed_objects() {
    let read = |path: PathBuf| objects(&std::fs::read_to_string(path).unwrap());
    let shipped = manifests(&folder("")).into_iter().flat_map(read).filter(|object| object["kind"].is_string());
    let mut count = 0;
    for object in injected().into_iter().chain(shipped) {
        if let Some(back) = typed(&object) {
            is_whole(&format!("{} {}", object["kind"], object["metadata"]["name"]), &object, &back);
            count += 1;
        }
    }
    assert_eq!(count, INJECTED + 19);
}

#[test]
fn the_mounted_configuration_is_accepted() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_bearerd")).args(["check", "-c"]).arg(folder("base").join("bearerd.yaml")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
