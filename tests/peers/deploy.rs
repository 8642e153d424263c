//! What is shipped to be deployed: every overlay as kustomize builds it, the chart as Helm renders it, the image as it runs.

mod chart;
mod ends;
mod image;
mod kustomize;
mod resources;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use chart::rendered;
use kustomize::{builders, built, overlays_with_keys};

/// The oldest Kubernetes with native sidecars, one in between, and the newest known.
const VERSIONS: [&str; 3] = ["1.29", "1.33", "1.37"];
const OVERLAYS: [&str; 4] = ["inbound", "outbound", "decision", "webhook"];
/// Kinds that Kubernetes itself does not know, and that are looked at here instead.
const CUSTOM: [&str; 3] = ["PodMonitor", "PrometheusRule", "Middleware"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn peer(path: &str) -> PathBuf {
    let program = root().join("target/peers").join(path);
    assert!(program.exists(), "{} is not there: run `make test`, which installs it", program.display());
    program
}

/// What it printed; a failure is the test's.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let (printed, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {printed}{error}");
    printed.into_owned()
}

fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// The documents of a stream; what is only a comment is none.
fn documents(text: &str) -> Vec<Value> {
    let mut parts = vec![String::new()];
    for line in text.lines() {
        if line == "---" {
            parts.push(String::new());
        } else {
            let part = parts.last_mut().unwrap();
            part.push_str(line);
            part.push('\n');
        }
    }
    parts.retain(|part| part.lines().any(|line| !line.trim().is_empty() && !line.starts_with('#')));
    parts.iter().map(|part| yaml(part)).collect()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let (folders, mut found): (Vec<_>, Vec<_>) =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).partition(|path| path.is_dir());
    found.extend(folders.iter().flat_map(|folder| files(folder)));
    found
}

fn of_kind<'d>(documents: &'d [Value], kind: &'d str) -> impl Iterator<Item = &'d Value> {
    documents.iter().filter(move |document| document["kind"] == kind)
}

fn name(document: &Value) -> &str {
    document["metadata"]["name"].as_str().unwrap()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Against the API's own schemas; a kind without one must be one that is looked at here.
fn assert_fits_the_api(what: &str, documents: &[Value]) {
    let (custom, known): (Vec<&Value>, Vec<&Value>) =
        documents.iter().partition(|document| CUSTOM.contains(&document["kind"].as_str().unwrap()));
    for document in custom {
        assert_has_its_shape(document);
    }
    if known.is_empty() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("manifests.yaml");
    let text: Vec<String> = known.iter().map(ToString::to_string).collect();
    fs::write(&file, text.join("\n---\n")).unwrap();
    for version in VERSIONS {
        let output = Command::new(peer("kubernetes-venv/bin/kubernetes-validate"))
            .args(["--strict", "--kubernetes-version", version])
            .arg(&file)
            .output()
            .unwrap();
        let report = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{what}: {report}");
        // A kind without a schema is only a warning there.
        assert_eq!(report.matches(" passed for resource ").count(), known.len(), "{what}: {report}");
    }
}

/// No key but these, and all that have no question mark.
fn assert_keys(value: &Value, keys: &[&str]) {
    let given: BTreeSet<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    let known: BTreeSet<&str> = keys.iter().map(|key| key.trim_end_matches('?')).collect();
    assert!(given.is_subset(&known), "{given:?} has others than {known:?}");
    for key in keys.iter().filter(|key| !key.ends_with('?')) {
        assert!(given.contains(key), "{key} is missing in {value}");
    }
}

/// As much of the custom resources' definitions as is used here.
fn assert_has_its_shape(document: &Value) {
    assert_keys(document, &["apiVersion", "kind", "metadata", "spec"]);
    let spec = &document["spec"];
    match document["kind"].as_str().unwrap() {
        "PodMonitor" => {
            assert_eq!(document["apiVersion"], "monitoring.coreos.com/v1");
            assert_keys(spec, &["selector", "podMetricsEndpoints", "namespaceSelector?"]);
            assert_keys(&spec["selector"], &["matchLabels"]);
            for endpoint in list(&spec["podMetricsEndpoints"]) {
                assert_keys(endpoint, &["portNumber", "path", "interval"]);
                assert_eq!((&endpoint["portNumber"], &endpoint["path"]), (&json!(9902), &json!("/metrics")));
            }
        }
        "PrometheusRule" => {
            assert_eq!(document["apiVersion"], "monitoring.coreos.com/v1");
            assert_eq!(*spec, rules(), "the rules are those of deploy/prometheus/rules.yaml: run `make rules`");
            for rule in list(&spec["groups"]).iter().flat_map(|group| list(&group["rules"])) {
                let what = if rule.get("alert").is_some() { "alert" } else { "record" };
                assert_keys(rule, &[what, "expr", "for?", "labels?", "annotations?"]);
            }
        }
        "Middleware" => {
            assert_eq!(document["apiVersion"], "traefik.io/v1alpha1");
            assert_keys(spec, &["forwardAuth?", "headers?"]);
            assert_eq!(spec.as_object().unwrap().len(), 1, "one thing each");
            if let Some(ask) = spec.get("forwardAuth") {
                assert_keys(ask, &["address", "trustForwardHeader", "authResponseHeaders"]);
            } else {
                assert_keys(&spec["headers"], &["customRequestHeaders"]);
            }
        }
        other => panic!("{other}"),
    }
}

fn rules() -> Value {
    yaml(&fs::read_to_string(root().join("deploy/prometheus/rules.yaml")).unwrap())
}

/// What the restricted profile of pod security asks for, and some more.
fn assert_restricted(what: &str, documents: &[Value]) {
    for deployment in of_kind(documents, "Deployment") {
        let pod = &deployment["spec"]["template"]["spec"];
        assert_eq!(pod["automountServiceAccountToken"], false, "{what}");
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{what}");
        assert_eq!(pod["securityContext"]["seccompProfile"], json!({ "type": "RuntimeDefault" }), "{what}");
        for key in ["hostNetwork", "hostPID", "hostIPC"] {
            assert!(pod.get(key).is_none(), "{what}: {key}");
        }
        for volume in list(&pod["volumes"]) {
            let kinds = ["configMap", "secret", "emptyDir"];
            assert!(kinds.iter().any(|kind| volume.get(kind).is_some()), "{what}: {volume}");
        }
        let containers = list(&pod["initContainers"]).iter().chain(list(&pod["containers"]));
        let mut seen = 0;
        for container in containers {
            let context = &container["securityContext"];
            assert_eq!(context["allowPrivilegeEscalation"], false, "{what}: {container}");
            assert_eq!(context["readOnlyRootFilesystem"], true, "{what}: {container}");
            assert_eq!(context["capabilities"], json!({ "drop": ["ALL"] }), "{what}: {container}");
            assert!(context.get("privileged").is_none() && context["runAsUser"] != 0, "{what}: {container}");
            for port in list(&container["ports"]) {
                assert!(port.get("hostPort").is_none(), "{what}: {port}");
            }
            assert!(container["resources"]["requests"]["memory"].is_string(), "{what}: {container}");
            assert!(container["resources"]["limits"]["memory"].is_string(), "{what}: {container}");
            seen += 1;
        }
        assert!(seen > 0);
    }
}

/// bearerd's own container: beside an app it is a native sidecar.
fn bearerd_of(pod: &Value) -> &Value {
    let find = |key: &str| list(&pod[key]).iter().find(|container| container["name"] == "bearerd");
    if let Some(sidecar) = find("initContainers") {
        assert_eq!(sidecar["restartPolicy"], "Always", "a native sidecar");
        assert!(sidecar["startupProbe"]["httpGet"]["path"].is_string(), "the app waits for it");
        return sidecar;
    }
    find("containers").unwrap()
}

/// What refers to something else finds it: services and policies their pods, volumes their sources, files their mounts.
fn assert_hangs_together(what: &str, documents: &[Value]) {
    let Some(deployment) = of_kind(documents, "Deployment").next() else { return };
    let template = &deployment["spec"]["template"];
    let (labels, pod) = (template["metadata"]["labels"].as_object().unwrap(), &template["spec"]);
    let selects = |selector: &Value| {
        let wanted = selector.as_object().unwrap();
        assert!(!wanted.is_empty() && wanted.iter().all(|(key, value)| labels.get(key) == Some(value)), "{what}: {selector}");
    };
    selects(&deployment["spec"]["selector"]["matchLabels"]);
    let bearerd = bearerd_of(pod);
    let ports: Vec<&Value> = list(&bearerd["ports"]).iter().map(|port| &port["containerPort"]).collect();
    for service in of_kind(documents, "Service") {
        selects(&service["spec"]["selector"]);
        for port in list(&service["spec"]["ports"]) {
            assert!(ports.contains(&&port["targetPort"]), "{what}: {port}");
        }
    }
    for policy in of_kind(documents, "NetworkPolicy") {
        selects(&policy["spec"]["podSelector"]["matchLabels"]);
        for port in list(&policy["spec"]["ingress"]).iter().flat_map(|rule| list(&rule["ports"])) {
            assert!(ports.contains(&&port["port"]), "{what}: {port}");
        }
    }
    assert!(of_kind(documents, "NetworkPolicy").next().is_some(), "{what}");
    for budget in of_kind(documents, "PodDisruptionBudget") {
        selects(&budget["spec"]["selector"]["matchLabels"]);
    }

    let configuration = of_kind(documents, "ConfigMap").next();
    let secrets: Vec<&Value> = of_kind(documents, "Secret").collect();
    for volume in list(&pod["volumes"]) {
        if let Some(source) = volume.get("configMap") {
            assert_eq!(source["name"], name(configuration.unwrap()), "{what}");
        } else if let Some(source) = volume.get("secret") {
            // A chart's secrets are made by whoever installs it.
            assert!(secrets.is_empty() || secrets.iter().any(|secret| source["secretName"] == name(secret)), "{what}: {volume}");
            assert_eq!(source["defaultMode"], 0o440, "{what}: {volume}");
        }
    }
    let mounts: Vec<&str> = list(&bearerd["volumeMounts"]).iter().map(|mount| mount["mountPath"].as_str().unwrap()).collect();
    let others = list(&pod["containers"]).iter().filter(|container| container["name"] != "bearerd");
    for mount in others.flat_map(|container| list(&container["volumeMounts"])) {
        assert!(!mount["name"].as_str().unwrap().starts_with("bearerd"), "{what}: bearerd's keys are for bearerd alone");
    }
    let arguments: Vec<&str> = list(&bearerd["args"]).iter().map(|argument| argument.as_str().unwrap()).collect();
    assert_eq!(labels["bearerd.dev/metrics"], "true", "{what}: the PodMonitor finds it");
    assert!(ports.contains(&&json!(9902)), "{what}: and its metrics");
    if arguments[0] == "webhook" {
        assert_webhook_can_start(what, &arguments, &mounts, configuration);
        return;
    }
    assert_eq!(arguments, ["run", "-c", "/etc/bearerd/bearerd.yaml"], "{what}");
    assert!(mounts.contains(&"/etc/bearerd"), "{what}");
    let text = configuration.unwrap()["data"]["bearerd.yaml"].as_str().unwrap();
    assert_configuration_is_accepted(what, text, &mounts, &ports);
}

/// Its files are mounted, its variables there, and its flags those that bearerd has.
fn assert_webhook_can_start(what: &str, arguments: &[&str], mounts: &[&str], variables: Option<&Value>) {
    let help = Command::new(env!("CARGO_BIN_EXE_bearerd")).args(["webhook", "--help"]).output().unwrap();
    let help = String::from_utf8_lossy(&help.stdout);
    for argument in &arguments[1..] {
        let (flag, value) = argument.split_once('=').unwrap();
        assert!(help.contains(flag), "{what}: {flag} is none of `bearerd webhook`");
        if value.starts_with('/') {
            assert!(mounts.contains(&Path::new(value).parent().unwrap().to_str().unwrap()), "{what}: {value}");
        }
        if let Some(variable) = value.strip_prefix("$(").and_then(|rest| rest.strip_suffix(')')) {
            assert!(variables.unwrap()["data"][variable].is_string(), "{what}: {variable}");
        }
    }
}

/// By `bearerd check`, with the mounted folders elsewhere; and its listeners are the ports that are declared.
fn assert_configuration_is_accepted(what: &str, text: &str, mounts: &[&str], ports: &[&Value]) {
    let folder = tempfile::tempdir().unwrap();
    let mut text = text.to_owned();
    for mount in mounts {
        let there = folder.path().join(mount.trim_start_matches('/'));
        fs::create_dir_all(&there).unwrap();
        text = text.replace(&format!("{mount}/"), &format!("{}/", there.display()));
    }
    if mounts.contains(&"/secrets") {
        fs::write(folder.path().join("secrets/ledger.key"), [7; 32]).unwrap();
        fs::write(folder.path().join("secrets/api-key"), "key").unwrap();
    }
    let file = folder.path().join("bearerd.yaml");
    fs::write(&file, &text).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_bearerd")).args(["check", "-c"]).arg(&file).output().unwrap();
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && complaints.is_empty(), "{what}: {complaints}");
    let document = yaml(&text);
    assert_eq!(document["metrics"]["address"], "0.0.0.0:9902", "{what}: probes come from outside the pod");
    for listener in list(&document["listeners"]) {
        let (host, port) = listener["address"].as_str().unwrap().rsplit_once(':').unwrap();
        let declared = ports.contains(&&json!(port.parse::<u64>().unwrap()));
        assert_eq!(declared, host == "0.0.0.0", "{what}: {listener}");
    }
}

#[test]
fn every_overlay_is_built_fits_the_api_and_is_restricted() {
    built(|what, documents| {
        assert!(documents.len() >= 2, "{what}");
        assert_fits_the_api(what, documents);
        assert_restricted(what, documents);
        assert_hangs_together(what, documents);
    });
    let ingress = fs::read_to_string(root().join("deploy/kustomize/overlays/decision/ingress.yaml")).unwrap();
    assert_fits_the_api("ingress.yaml", &documents(&ingress));
}

#[test]
fn overlays_are_what_their_names_say() {
    built(|what, documents| {
        let mode = what.split(' ').next().unwrap();
        let kinds: BTreeSet<&str> = documents.iter().map(|document| document["kind"].as_str().unwrap()).collect();
        assert_eq!(kinds.contains("Service"), !["outbound", "monitoring"].contains(&mode), "{what}: {kinds:?}");
        assert_eq!(kinds.contains("MutatingWebhookConfiguration"), mode == "webhook", "{what}");
        for document in of_kind(documents, "Deployment") {
            let pod = &document["spec"]["template"]["spec"];
            assert_eq!(list(&pod["initContainers"]).len(), usize::from(["inbound", "outbound"].contains(&mode)), "{what}");
            let probe = &bearerd_of(pod)["startupProbe"]["httpGet"]["path"];
            let path = match mode {
                "outbound" => "/readyz",
                "webhook" => "/healthz",
                _ => "/startupz",
            };
            assert_eq!(*probe, path, "{what}");
        }
        for middleware in of_kind(documents, "Middleware").filter(|middleware| name(middleware) == "bearerd") {
            let service = of_kind(documents, "Service").next().unwrap();
            let namespace = service["metadata"]["namespace"].as_str().unwrap();
            let address = format!("http://{}.{namespace}.svc:{}/", name(service), service["spec"]["ports"][0]["port"]);
            assert_eq!(middleware["spec"]["forwardAuth"]["address"], address);
        }
    });
}

/// A webhook that guards itself, or the whole cluster, could stop it.
fn assert_bounded(configuration: &Value, service: &Value) {
    let webhook = &configuration["webhooks"][0];
    let (client, selector) = (&webhook["clientConfig"]["service"], &webhook["namespaceSelector"]);
    assert_eq!((&webhook["failurePolicy"], &webhook["sideEffects"]), (&json!("Fail"), &json!("None")));
    assert_eq!(selector["matchLabels"], json!({ "bearerd.dev/injection": "enabled" }));
    let own = &selector["matchExpressions"][0];
    assert_eq!((&own["key"], &own["operator"]), (&json!("kubernetes.io/metadata.name"), &json!("NotIn")));
    assert!(list(&own["values"]).contains(&client["namespace"]), "never the namespace of the webhook itself");
    assert!(webhook["matchConditions"][0]["expression"].as_str().unwrap().contains("name.startsWith('bearerd.dev/')"));
    let exempt = json!({ "key": "bearerd.dev/injection", "operator": "NotIn", "values": ["disabled"] });
    assert_eq!(webhook["objectSelector"]["matchExpressions"], json!([exempt]));
    assert_eq!(client["path"], "/inject");
    assert_eq!(client["name"], name(service));
    assert_eq!(client["port"], service["spec"]["ports"][0]["port"]);
}

#[test]
fn the_api_server_trusts_the_webhook_and_is_never_blocked_beyond_what_asked() {
    for builder in builders() {
        let folder = overlays_with_keys();
        builder.prepare(folder.path());
        let overlay = folder.path().join("kustomize/overlays/webhook");
        let documents = builder.build(&overlay);
        let configuration = of_kind(&documents, "MutatingWebhookConfiguration").next().unwrap();
        let service = of_kind(&documents, "Service").next().unwrap();
        assert_bounded(configuration, service);
        let client = &configuration["webhooks"][0]["clientConfig"];
        assert_eq!(client["service"]["namespace"], service["metadata"]["namespace"]);
        // The authority is in there, and it signed a certificate for the name that the API server asks for.
        let authority = folder.path().join("ca.crt");
        let encoded = folder.path().join("ca.base64");
        fs::write(&encoded, client["caBundle"].as_str().unwrap()).unwrap();
        fs::write(&authority, run(Command::new("base64").arg("-d").arg(&encoded))).unwrap();
        let host = format!("{}.{}.svc", name(service), service["metadata"]["namespace"].as_str().unwrap());
        let verify = ["verify", "-purpose", "sslserver", "-verify_hostname", &host, "-CAfile"];
        run(Command::new("openssl").args(verify).arg(&authority).arg(overlay.join("tls.crt")));
    }
}

#[test]
fn whole_configurations_in_the_guide_are_accepted() {
    let guide = fs::read_to_string(root().join("docs/kubernetes.md")).unwrap();
    let mut seen = 0;
    for (_, rest) in guide.match_indices("```yaml\n").map(|(at, mark)| guide.split_at(at + mark.len())) {
        let text = rest.split("```").next().unwrap();
        let metrics = json!(9902);
        assert_configuration_is_accepted("docs/kubernetes.md", text, &["/secrets", "/var/lib/bearerd"], &[&metrics]);
        seen += 1;
    }
    assert!(seen > 0);
}

#[test]
fn keys_are_ignored_by_git() {
    for file in ["inbound/ledger.key", "outbound/api-key", "webhook/tls.key", "webhook/tls.crt", "webhook/authority.yaml"] {
        let path = Path::new("deploy/kustomize/overlays").join(file);
        run(Command::new("git").current_dir(root()).args(["check-ignore", "--no-index"]).arg(path));
    }
}

#[test]
fn rules_are_the_same_in_every_format() {
    let read = |path: &str| fs::read_to_string(root().join("deploy").join(path)).unwrap();
    assert_eq!(read("prometheus/rules.yaml"), read("helm/bearerd/rules.yaml"), "run `make rules`");
    let rule = yaml(&read("kustomize/monitoring/prometheus-rule.yaml"));
    assert_eq!(rule["spec"], rules(), "run `make rules`");
    assert!(list(&rules()["groups"]).len() >= 2);
}
