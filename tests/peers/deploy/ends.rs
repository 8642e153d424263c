//! The time that pods have to end, against all that may be taken of it: what comes before bearerd is told, `shutdown`, and what comes last.

use std::path::Path;
use std::process::Command;

use bearerd::config::Shutdown;
use serde_json::Value;

use super::{bearerd_of, built, documents, list, name, of_kind, rendered, root, run, yaml};

/// After the drain: the admin listener's last answers (1 s), the last traces (2 s).
const LAST: u64 = 3;
/// What the webhook takes at most for what is in flight.
const WEBHOOK: u64 = 5;
/// What our manifests give an app to stop in, after its `preStop`.
const APP: u64 = 30;
/// What Kubernetes gives a pod that says nothing.
const DEFAULT_GRACE: u64 = 30;

/// From SIGTERM to the end, at most; variables go before the configuration.
fn own_end(configuration: &str, container: &Value) -> u64 {
    let mut section = yaml(configuration)["shutdown"].take();
    let variable =
        |name: &str| list(&container["env"]).iter().find(|variable| variable["name"] == name).map(|found| found["value"].clone());
    for (name, key) in [("BEARERD__SHUTDOWN__DELAY", "delay"), ("BEARERD__SHUTDOWN__DRAIN_TIMEOUT", "drain_timeout")] {
        if let Some(value) = variable(name) {
            section[key] = value;
        }
    }
    let shutdown: Shutdown = if section.is_null() { Shutdown::default() } else { serde_json::from_value(section).unwrap() };
    let drains = if shutdown.revoke { 2 } else { 1 };
    shutdown.delay.as_secs() + drains * shutdown.drain_timeout.as_secs() + LAST
}

/// The longest of these containers' sleeps before they are told to stop.
fn pre_stop(containers: &[Value]) -> u64 {
    containers.iter().filter_map(|container| container["lifecycle"]["preStop"]["sleep"]["seconds"].as_u64()).max().unwrap_or(0)
}

fn grace(pod: &Value) -> u64 {
    pod["terminationGracePeriodSeconds"].as_u64().unwrap_or(DEFAULT_GRACE)
}

fn is_native(pod: &Value) -> bool {
    list(&pod["initContainers"]).iter().any(|container| container["name"] == "bearerd")
}

fn fits(what: &str, needed: u64, pod: &Value) {
    println!("{what}: {needed} s of {} s", grace(pod));
    assert!(needed <= grace(pod), "{what}: its end takes {needed} s, and it has {} s", grace(pod));
}

fn shipped(what: &str, documents: &[Value]) {
    for deployment in of_kind(documents, "Deployment") {
        let pod = &deployment["spec"]["template"]["spec"];
        let bearerd = bearerd_of(pod);
        let before = pre_stop(list(&pod["containers"]));
        if bearerd["args"][0] == "webhook" {
            fits(what, before + WEBHOOK, pod);
            continue;
        }
        let configuration = of_kind(documents, "ConfigMap").next().unwrap()["data"]["bearerd.yaml"].as_str().unwrap();
        let app = if is_native(pod) { APP } else { 0 };
        fits(what, before + app + own_end(configuration, bearerd), pod);
    }
}

#[test]
fn shipped_pods_end_within_their_grace_period() {
    built(shipped);
    rendered(|values, documents, _| shipped(values.file_name().unwrap().to_str().unwrap(), documents));
}

/// Pods of these documents, with the names of their objects.
fn pods(documents: &[Value]) -> Vec<(String, Value)> {
    let objects = documents
        .iter()
        .flat_map(|document| if document["kind"] == "List" { list(&document["items"]).to_vec() } else { vec![document.clone()] });
    let places = ["/spec/jobTemplate/spec/template", "/spec/template", ""];
    let pod =
        |object: &Value| places.iter().find_map(|place| object.pointer(place).filter(|pod| pod["spec"]["containers"].is_array()).cloned());
    objects.filter_map(|object| Some((format!("{} {}", object["kind"], name(&object)), pod(&object)?))).collect()
}

/// A native sidecar ends when the app's time is over, whatever the app makes of it; an ordinary one beside the app.
#[test]
fn injected_pods_end_within_their_grace_period() {
    let manifests = root().join("tests/it/manifests");
    let mut seen = 0;
    for file in ["deployment.yaml", "outbound.yaml", "ordinary.yaml", "pod.json", "web.yaml", "queue.yaml", "list.yaml"] {
        let path = manifests.join(file);
        let given = documents(&std::fs::read_to_string(&path).unwrap());
        let injected = documents(&run(Command::new(env!("CARGO_BIN_EXE_bearerd")).args(["inject", "-f"]).arg(Path::new(&path))));
        for ((what, before), (_, after)) in pods(&given).into_iter().zip(pods(&injected)) {
            let pod = &after["spec"];
            // A ConfigMap without `shutdown` has the defaults.
            let generated = after["metadata"]["annotations"]["bearerd.dev/generated-config"].as_str().unwrap_or("shutdown:");
            let own = own_end(generated, bearerd_of(pod));
            fits(&format!("{file}: {what}"), own + if is_native(pod) { grace(&before["spec"]) } else { 0 }, pod);
            assert!(grace(pod) >= grace(&before["spec"]), "{what}: the app keeps its time");
            seen += 1;
        }
    }
    assert_eq!(seen, 8);
}
