//! Which objects have pods, and where in them these are described.

use serde_json::Value;

use super::edit::Path;
use crate::config::quoted;

/// An object that is a pod, or that pods are made from.
#[derive(Debug, PartialEq, Eq)]
pub struct Workload {
    /// As messages name it: its kind and its name.
    pub object: String,
    /// Where the object stands in what was searched: deeper where that is a list.
    pub place: Path,
    /// Where, from there, what has the pod's `metadata` and `spec` stands.
    pub template: Path,
    /// Whether its pods end by themselves.
    pub ends: bool,
}

/// How deep a list of lists is followed.
const DEPTH: usize = 8;

/// The workloads in an object, in order: at most one, unless it is a `List`.
pub fn workloads(object: &Value) -> Vec<Workload> {
    let mut found = Vec::new();
    collect(object, &Path::default(), DEPTH, &mut found);
    found
}

/// Whether an object of this version and kind may have pods, or objects that have.
pub fn may_have_pods(version: &str, kind: &str) -> bool {
    (version, kind) == ("v1", "List") || template(version, kind).is_some()
}

fn collect(object: &Value, place: &Path, depth: usize, found: &mut Vec<Workload>) {
    let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
    let (version, kind) = (text("apiVersion"), text("kind"));
    if (version, kind) == ("v1", "List") && depth > 0 {
        for (index, item) in object.get("items").and_then(Value::as_array).into_iter().flatten().enumerate() {
            collect(item, &place.key("items").item(index), depth - 1, found);
        }
    }
    let Some(template) = template(version, kind) else { return };
    let metadata = |key: &str| object.get("metadata").and_then(|metadata| metadata.get(key)).and_then(Value::as_str);
    // Pods that a controller makes have no name yet when they are admitted.
    let name = metadata("name").or_else(|| metadata("generateName"));
    let shown = name.map_or_else(|| format!("{kind} without a name"), |name| format!("{kind} {}", quoted(name)));
    let ends = matches!(kind, "Job" | "CronJob") || (kind == "Pod" && is_of_a_job(object));
    found.push(Workload { object: shown, place: place.clone(), template: Path::of(template), ends });
}

/// As it is admitted, a Job's pod says whose it is.
fn is_of_a_job(pod: &Value) -> bool {
    let owners = Path::of(&["metadata", "ownerReferences"]).find(pod).and_then(Value::as_array);
    let is_job = |owner: &Value| owner.get("kind").and_then(Value::as_str) == Some("Job");
    owners.is_some_and(|owners| owners.iter().any(is_job))
}

/// Groups count: other projects have kinds of these names, too.
fn template(version: &str, kind: &str) -> Option<&'static [&'static str]> {
    let group = version.split_once('/').map_or("", |(group, _)| group);
    match (group, kind) {
        ("", "Pod") => Some(&[]),
        ("apps", "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet") | ("batch", "Job") => Some(&["spec", "template"]),
        ("batch", "CronJob") => Some(&["spec", "jobTemplate", "spec", "template"]),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn places(object: &Value) -> Vec<String> {
        workloads(object).iter().map(|found| format!("{} {}", found.object, found.place.join(&found.template))).collect()
    }

    #[test]
    fn pods_are_found_in_every_kind_and_in_lists() {
        let named = |version: &str, kind: &str| json!({ "apiVersion": version, "kind": kind, "metadata": { "name": "a" } });
        assert_eq!(places(&named("v1", "Pod")), ["Pod `a` "]);
        for kind in ["Deployment", "StatefulSet", "DaemonSet", "ReplicaSet"] {
            assert_eq!(places(&named("apps/v1", kind)), [format!("{kind} `a` spec.template")]);
        }
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": [named("v1", "Service"), named("batch/v1", "CronJob"), 1] });
        assert_eq!(places(&list), ["CronJob `a` items[1].spec.jobTemplate.spec.template"]);
        assert!(workloads(&list)[0].ends);
    }

    #[test]
    fn kinds_of_other_projects_are_none_of_these() {
        for (version, kind) in
            [("batch.volcano.sh/v1alpha1", "Job"), ("v1", "Service"), ("apps.kruise.io/v1", "DaemonSet"), ("v1", "Deployment")]
        {
            assert!(places(&json!({ "apiVersion": version, "kind": kind })).is_empty(), "{version} {kind}");
        }
        assert_eq!(places(&json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "generateName": "a-" } })), ["Pod `a-` "]);
    }
}
