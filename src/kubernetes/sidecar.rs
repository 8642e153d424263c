//! The sidecar itself: its container and its volumes.

use serde_json::{Value, json};

use super::annotations::{GENERATED, METRICS_PORT, Mode, Source, Wanted};

/// The container's name.
pub const NAME: &str = "bearerd";
/// The port for callers, by which a Service finds it.
pub const CALLERS: &str = "bearerd";
/// The port of metrics and probes. Kubernetes takes at most 15 characters.
pub const METRICS: &str = "bearerd-metrics";
/// The volume with `bearerd.yaml`.
pub const CONFIG_VOLUME: &str = "bearerd-config";
/// The volume with the key.
pub const SECRET_VOLUME: &str = "bearerd-secrets";
/// The volume that outlives the container, and ends with the pod: for a ledger.
pub const STATE_VOLUME: &str = "bearerd-state";

/// The user of the image.
const USER: u32 = 65532;

/// The container. `ends` says whether the pod ends by itself.
pub fn container(wanted: &Wanted, ends: bool) -> Value {
    let mut container = json!({
        "name": NAME,
        "image": wanted.image,
    });
    let mut add = |key: &str, value: Value| container[key] = value;
    if wanted.native {
        add("restartPolicy", json!("Always"));
    }
    add("args", json!(["run", "-c", "/etc/bearerd/bearerd.yaml"]));
    add("env", environment(wanted, ends));
    add("ports", ports(wanted));
    probes().into_iter().for_each(|(key, probe)| add(key, probe));
    add("resources", wanted.resources.clone());
    // Pod Security Standards, profile `restricted`.
    let security = json!({
        "runAsNonRoot": true,
        "runAsUser": USER,
        "runAsGroup": USER,
        "readOnlyRootFilesystem": true,
        "allowPrivilegeEscalation": false,
        "capabilities": { "drop": ["ALL"] },
        "seccompProfile": { "type": "RuntimeDefault" },
    });
    add("securityContext", security);
    add("volumeMounts", mounts(wanted));
    container
}

/// Its volumes.
pub fn volumes(wanted: &Wanted) -> Vec<Value> {
    let config = match &wanted.source {
        Source::ConfigMap(name) => json!({ "name": CONFIG_VOLUME, "configMap": { "name": name } }),
        _ => {
            let item = json!({ "path": "bearerd.yaml", "fieldRef": { "fieldPath": format!("metadata.annotations['{GENERATED}']") } });
            json!({ "name": CONFIG_VOLUME, "downwardAPI": { "items": [item] } })
        }
    };
    // All keys of the Secret, so that one for a ledger can lie beside the API key.
    let secret = wanted.secret.as_ref().map(|name| json!({ "name": SECRET_VOLUME, "secret": { "secretName": name } }));
    let state = json!({ "name": STATE_VOLUME, "emptyDir": {} });
    [config].into_iter().chain(secret).chain([state]).collect()
}

fn mounts(wanted: &Wanted) -> Value {
    let mut mounts = vec![json!({ "name": CONFIG_VOLUME, "mountPath": "/etc/bearerd", "readOnly": true })];
    if wanted.secret.is_some() {
        mounts.push(json!({ "name": SECRET_VOLUME, "mountPath": "/secrets", "readOnly": true }));
    }
    mounts.push(json!({ "name": STATE_VOLUME, "mountPath": "/var/lib/bearerd" }));
    mounts.into()
}

/// The kubelet probes from outside the pod, so metrics and probes must not be on loopback, whatever the configuration says: the environment goes before it.
/// `bearerd probe` by `exec` would do without, at the price of a process each time and of Prometheus, which comes from outside as well.
fn environment(wanted: &Wanted, ends: bool) -> Value {
    let variable = |name: &str, value: String| json!({ "name": name, "value": value });
    let mut variables = vec![variable("BEARERD__METRICS__ADDRESS", format!("0.0.0.0:{METRICS_PORT}"))];
    if let Source::ConfigMap(_) = wanted.source {
        // No endpoint leads to a Job's pod: it would wait for nobody before it is complete.
        if ends {
            variables.push(variable("BEARERD__SHUTDOWN__DELAY", "0s".to_owned()));
        }
        variables.extend(wanted.upstream_port.map(|port| variable("UPSTREAM_PORT", port.to_string())));
    }
    variables.into()
}

fn ports(wanted: &Wanted) -> Value {
    let mut ports = Vec::new();
    // Nobody outside the pod reaches the others.
    if wanted.mode == Mode::Inbound {
        ports.push(json!({ "name": CALLERS, "containerPort": wanted.port, "protocol": "TCP" }));
    }
    ports.push(json!({ "name": METRICS, "containerPort": METRICS_PORT, "protocol": "TCP" }));
    ports.into()
}

/// Where it is native, the app starts once the first of them is answered. An outage of the token service keeps no pod from starting; it is not ready then,
/// where a key of bearerd's own has no token yet.
fn probes() -> [(&'static str, Value); 3] {
    let get = |path: &str| json!({ "path": path, "port": METRICS });
    [
        ("startupProbe", json!({ "httpGet": get("/startupz"), "periodSeconds": 1, "failureThreshold": 60 })),
        ("livenessProbe", json!({ "httpGet": get("/livez"), "periodSeconds": 10, "timeoutSeconds": 2 })),
        ("readinessProbe", json!({ "httpGet": get("/readyz"), "periodSeconds": 2, "failureThreshold": 1 })),
    ]
}
