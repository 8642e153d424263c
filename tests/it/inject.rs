//! `bearerd inject`: manifests in, manifests with the sidecar out, everything else byte for byte.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use bearerd::kubernetes::{Defaults, manifest};
use proptest::prelude::*;
use serde_json::Value;

const IMAGE: &str = "registry.example.com/bearerd:0.1.0";

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/manifests").join(name)
}

fn run(text: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bearerd"));
    command.args(["inject", "--image", IMAGE]).args(arguments).env_clear();
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn injected(text: &str) -> String {
    let output = run(text, &[]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn refused(text: &str) -> String {
    let output = run(text, &[]);
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), output.stdout.is_empty()), (Some(78), true), "{text}\n{told}");
    told
}

fn documents(text: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// A Pod with these lines among its annotations, and these in its `spec`.
fn pod(annotations: &str, spec: &str) -> String {
    let annotations: String = annotations.lines().map(|line| format!("    {line}\n")).collect();
    let spec: String = spec.lines().map(|line| format!("  {line}\n")).collect();
    format!("apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n  annotations:\n    bearerd.dev/inject: \"true\"\n{annotations}spec:\n{spec}")
}

const APP: &str = "containers:\n  - name: app\n    image: app:1";

#[test]
fn manifests_become_what_they_should_and_stay_so() {
    for name in ["deployment.yaml", "outbound.yaml", "ordinary.yaml", "pod.json"] {
        let text = fs::read_to_string(fixture(name)).unwrap();
        let result = injected(&text);
        let expected = fs::read_to_string(fixture("injected").join(name)).unwrap();
        assert!(result == expected, "{name} has become\n{result}");
        assert_eq!(injected(&result), result, "{name}: again");
    }
}

#[test]
fn what_asks_for_nothing_comes_out_as_it_went_in() {
    let text = fs::read_to_string(fixture("untouched.yaml")).unwrap();
    assert_eq!(injected(&text), text);
    let output = run("", &["-f", fixture("untouched.yaml").to_str().unwrap()]);
    assert_eq!(String::from_utf8(output.stdout).unwrap(), text);
    // As deep as the parser goes.
    let block: String = (0..250).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
    let deep = format!("{block}{}{}{}\n", " ".repeat(250), "[".repeat(250), "]".repeat(250));
    assert_eq!(injected(&deep), deep);
    assert!(refused(&"[".repeat(100_000)).contains("not valid YAML"));
    // What Kubernetes would say to it is not asked here.
    let odd = "apiVersion: apps/v1\nkind: Deployment\nkind: Deployment\n? [a]\n: b\n";
    assert_eq!(injected(odd), odd);
    for text in ["", "\n", "# nothing\n", "---\n---\n", "a", "\u{feff}a: b"] {
        assert_eq!(injected(text), text);
    }
}

#[test]
fn lines_are_added_and_none_is_lost() {
    for ending in ["\n", "\r\n"] {
        let text = fs::read_to_string(fixture("deployment.yaml")).unwrap().replace('\n', ending);
        let result = injected(&text);
        let mut lines = result.split_inclusive('\n');
        text.split_inclusive('\n').for_each(|line| assert!(lines.any(|found| found == line), "{line:?} is gone from\n{result}"));
        assert!(result.split_inclusive('\n').all(|line| line.ends_with(ending)));
    }
}

#[test]
fn a_pod_may_be_written_in_many_ways() {
    let ways = [
        pod("bearerd.dev/config: c", APP),
        pod("bearerd.dev/config: c", &format!("{APP}\nvolumes:\nterminationGracePeriodSeconds:\ninitContainers: null # none")),
        pod("bearerd.dev/config: c", &format!("{APP}\nvolumes:\n- name: other\n  emptyDir: {{}}\ninitContainers: []")),
        pod("bearerd.dev/config: c", "# The app.\n\ncontainers: [{name: app, image: app:1}]").trim_end().to_owned(),
        pod("bearerd.dev/config: c", &format!("{APP}\nvolumes:")).trim_end().to_owned(),
        r#"{ "apiVersion":"v1","kind":"Pod","metadata":{"annotations":{"bearerd.dev/inject":"true","bearerd.dev/config":"c"}},"spec":{"containers":[{"name":"app","image":"app:1"}],"volumes":[]}}"#.to_owned(),
        "--- !pod\n\"apiVersion\": v1\n'kind': Pod\nmetadata: &m\n    annotations:   # below\n\n        'bearerd.dev/inject': 'true'\n        bearerd.dev/config: c\nspec:\n    containers:\n    -   name: app\n        image: &i app:1\n        command: [*i]\n...\n".to_owned(),
    ];
    for way in ways {
        let found = &documents(&injected(&way))[0];
        assert_eq!(found["metadata"]["annotations"]["bearerd.dev/status"], "injected", "{way}");
        let spec = &found["spec"];
        assert_eq!(
            (&spec["initContainers"][0]["name"], &spec["initContainers"][0]["restartPolicy"]),
            (&"bearerd".into(), &"Always".into())
        );
        assert_eq!((&spec["initContainers"][1], &spec["containers"][0]["name"]), (&Value::Null, &"app".into()));
        assert_eq!(spec["volumes"][0]["configMap"]["name"], "c");
        assert_eq!(spec["terminationGracePeriodSeconds"], 60);
    }
}

#[test]
fn each_mistake_is_told_with_its_place_and_nothing_is_written() {
    for (annotations, spec, told) in [
        (
            "bearerd.dev/confg: c",
            APP,
            "7:5: Pod `a`: `metadata.annotations['bearerd.dev/confg']`: there is no such annotation, did you mean `bearerd.dev/config`?",
        ),
        ("bearerd.dev/config: c\nbearerd.dev/mode: sideways", APP, "8:5: Pod `a`"),
        ("", APP, "5:3: Pod `a`: `metadata.annotations`: `bearerd.dev/token-service` is missing"),
        (
            "bearerd.dev/config: c",
            "containers:\n  - name: bearerd",
            "10:7: Pod `a`: `spec.containers[0].name`: the name `bearerd` is taken",
        ),
        ("bearerd.dev/config: c", "initContainers: [{ name: bearerd }]\ncontainers: [{ name: a }]", "the name `bearerd` is taken"),
        (
            "bearerd.dev/config: c",
            "containers:\n  - name: a\n    ports:\n      - containerPort: 8080",
            "12:11: Pod `a`: `spec.containers[0].ports[0].containerPort`: port 8080 is taken: give bearerd another one with `bearerd.dev/port`",
        ),
        ("bearerd.dev/config: c", "containers: [{ name: a, ports: [{ containerPort: 9902 }] }]", "move the app's"),
        (
            "bearerd.dev/config: c",
            "containers: [{ name: a, ports: [{ name: bearerd, containerPort: 80 }] }]",
            "the port name `bearerd` is taken",
        ),
        (
            "bearerd.dev/config: c",
            "containers: [{ name: a }]\nvolumes: [{ name: bearerd-state }]",
            "the volume name `bearerd-state` is taken",
        ),
        ("bearerd.dev/config: c", "containers: []", "the pod has no containers"),
        ("bearerd.dev/config: c", "containers: [{ name: a }]\nvolumes: x", "it is not a list"),
        ("bearerd.dev/config: c", "containers: [{ name: a }]\nterminationGracePeriodSeconds: soon", "it is not a number of seconds"),
        ("bearerd.dev/config: c\nbearerd.dev/status: injected", APP, "no container named `bearerd` is"),
        ("bearerd.dev/config: c\nbearerd.dev/config: d", APP, "8:5: the key is there twice"),
        ("bearerd.dev/config: c", "containers: &c [{ name: a }]\ninitContainers: *c", "it is shared with other places of the document"),
        (
            "bearerd.dev/config: c",
            "containers: [{ name: a }]\n? volumes\n: - name: a",
            "it is written in a form that cannot be changed in place",
        ),
    ] {
        let text = pod(annotations, spec);
        let found = refused(&text);
        assert!(found.starts_with("standard input:") && found.contains(told), "{text}\n{found}");
    }
    assert!(refused("a: [\n").contains("not valid YAML"));
    let misplaced = "apiVersion: apps/v1\nkind: Deployment\nmetadata: { name: a, annotations: { bearerd.dev/inject: 'true' } }\nspec: { template: { spec: {} } }\n";
    assert!(refused(misplaced).contains("3:37: Deployment `a`") && refused(misplaced).contains("move it there"), "{}", refused(misplaced));
    // Every document with a mistake is told.
    let text = format!("{}---\n{}", pod("bearerd.dev/x: c", APP), pod("bearerd.dev/y: c", APP));
    assert_eq!(refused(&text).lines().count(), 2);
    let missing = run("", &["-f", "/nowhere.yaml"]);
    assert!(missing.status.code() == Some(1) && String::from_utf8_lossy(&missing.stderr).contains("cannot read /nowhere.yaml"));
}

#[test]
fn flags_stand_in_for_annotations_that_are_not_there() {
    let text = pod("bearerd.dev/upstream-port: \"3000\"", APP);
    let output = run(&text, &["--token-service", "https://tokens.example.com"]);
    let found = &documents(std::str::from_utf8(&output.stdout).unwrap())[0];
    assert_eq!(found["spec"]["initContainers"][0]["image"], IMAGE);
    let configuration = found["metadata"]["annotations"]["bearerd.dev/generated-config"].as_str().unwrap();
    assert!(configuration.contains("https://tokens.example.com") && configuration.contains("127.0.0.1:3000"), "{configuration}");
    let warning = String::from_utf8(output.stderr).unwrap();
    assert!(warning.starts_with("warning: Pod `a`: container `app` has no `lifecycle.preStop`"), "{warning}");
    let output = run(&text, &["--token-service", "https://a:canary@tokens.example.com"]);
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && told.contains("neither user nor query") && !told.contains("canary"), "{told}");
}

#[test]
fn a_job_with_an_ordinary_container_is_told_how_it_ends() {
    let text = "apiVersion: batch/v1\nkind: Job\nmetadata: { name: a }\nspec: { template: { metadata: { annotations: { bearerd.dev/inject: 'true', \
                bearerd.dev/config: c, bearerd.dev/native: 'false' } }, spec: { containers: [{ name: a }] } } }\n";
    let told = String::from_utf8(run(text, &[]).stderr).unwrap();
    assert!(told.contains("/api/quit"), "{told}");
}

/// What is generated is accepted by the program that will read it.
#[test]
fn generated_configurations_pass_the_check() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("api-key");
    fs::write(&key, "a-key").unwrap();
    let service = "bearerd.dev/token-service: https://tokens.example.com/a";
    for annotations in [
        format!("{service}\nbearerd.dev/upstream-port: \"3000\"\nbearerd.dev/port: \"8443\""),
        format!("{service}\nbearerd.dev/api-key-secret: s\nbearerd.dev/upstream: https://platform.example.com"),
        format!("{service}\nbearerd.dev/api-key-secret: s\nbearerd.dev/upstream: http://[::1]:81"),
        format!("{service}\nbearerd.dev/mode: decision\nbearerd.dev/native: \"false\""),
    ] {
        let found = &documents(&injected(&pod(&annotations, APP)))[0];
        let text = found["metadata"]["annotations"]["bearerd.dev/generated-config"].as_str().unwrap();
        let file = folder.path().join("bearerd.yaml");
        fs::write(&file, text.replace("/secrets/api-key", key.to_str().unwrap())).unwrap();
        let variable = &found["spec"]["initContainers"][0]["env"][0];
        let variable = if variable.is_null() { &found["spec"]["containers"][0]["env"][0] } else { variable };
        let (name, value) = (variable["name"].as_str().unwrap(), variable["value"].as_str().unwrap());
        let mut check = Command::new(env!("CARGO_BIN_EXE_bearerd"));
        let checked = check.args(["check", "-c"]).arg(&file).env_clear().env(name, value).output().unwrap();
        assert!(checked.status.success() && checked.stderr.is_empty(), "{text}\n{}", String::from_utf8_lossy(&checked.stderr));
    }
}

fn in_process(text: &str) -> Result<String, String> {
    let defaults = Defaults { image: IMAGE.to_owned(), token_service: None };
    let told = |errors: Vec<manifest::Error>| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    manifest::inject(text, &defaults).map(|injected| injected.text).map_err(told)
}

/// A document that has nothing to do with bearerd, in odd spelling.
fn other() -> impl Strategy<Value = String> {
    let soup = "[ \\-:a-c\\[\\]{}#&*!|>'\"%@`?,~<0-9.\t\n\ré]{0,40}";
    prop_oneof![Just("a: [1, {b: c}] # x\n".to_owned()), Just("- |\n  x\n\n".to_owned()), Just("\"q\": 'x'\r\n".to_owned()), soup]
}

/// A Pod that asks for a sidecar, in odd spelling.
fn asking() -> impl Strategy<Value = String> {
    let comment = || prop_oneof![Just(""), Just(" # c"), Just("\t# c"), Just(" &a"), Just(" !t"), Just("   ")];
    let between = || prop_oneof![Just(""), Just("\n"), Just("# c\n"), Just("          # c\n"), Just("  \n"), Just("\t\n")];
    let indent = || prop_oneof![Just("  "), Just("    "), Just(" ")];
    let list = prop_oneof![
        Just(""),
        Just("volumes:\n"),
        Just("volumes: []\n"),
        Just("volumes: [\n]\n"),
        Just("volumes: ~ # c\n"),
        Just("volumes: [ {name: v, emptyDir: {}} ]\n"),
        Just("volumes:\n- name: v\n"),
        Just("volumes:\n# c\n   - &b name: v\n"),
        Just("volumes:\n  -\n    name: v\n"),
        Just("volumes: !!seq\n  - name: v\n"),
        Just("volumes: &v\n  - name: v\n"),
        Just("? volumes\n: - name: v\n"),
        Just("'volumes' :\n- {name: v}\n"),
        Just("initContainers: {}\n"),
        Just("terminationGracePeriodSeconds:\n"),
        Just("terminationGracePeriodSeconds : 40 # c\n"),
    ];
    let annotations = prop_oneof![
        Just("{bearerd.dev/inject: 'true', bearerd.dev/config: c}"),
        Just("{ \"bearerd.dev/inject\":\"true\",\n        \"bearerd.dev/config\":\"c\" }"),
        Just("\n        bearerd.dev/inject: \"true\"\n        bearerd.dev/config: c"),
        Just(" &x\n        bearerd.dev/inject: >-\n          true\n        'bearerd.dev/config': c # c"),
    ];
    let end = prop_oneof![Just(""), Just("\n"), Just("\n...\n"), Just("\n\n\n")];
    let parts = (comment(), between(), indent(), list, annotations, end, any::<bool>());
    parts.prop_map(|(comment, between, indent, list, annotations, end, crlf)| {
        let list: String = list.lines().map(|line| format!("{indent}{line}\n")).collect();
        let text = format!(
            "apiVersion: v1\nkind: Pod\nmetadata:{comment}\n    annotations: {annotations}\nspec:{comment}\n{between}{list}{indent}containers: [{{name: a}}]{end}"
        );
        if crlf { text.replace('\n', "\r\n") } else { text }
    })
}

proptest! {
    #[test]
    fn odd_manifests_stay_whole(before in other(), asking in asking(), after in other()) {
        let separator = if asking.ends_with('\n') || asking.is_empty() { "---\n" } else { "\n---\n" };
        let head = if before.ends_with('\n') || before.is_empty() { before } else { format!("{before}\n") };
        let head = if head.is_empty() { head } else { format!("{head}---\n") };
        let text = format!("{head}{asking}{separator}{after}");
        if let Ok(result) = in_process(&text) {
            // What went in is still there, before and after, and the result is what it says of itself.
            prop_assert!(result.starts_with(&head) && result.ends_with(&format!("{separator}{after}")), "{result}");
            prop_assert_eq!(in_process(&result), Ok(result.clone()));
            let found: Vec<Value> = serde_saphyr::from_multiple(&asking).unwrap();
            prop_assert!(found[0]["spec"]["initContainers"].is_null(), "{}", asking);
            let own = &result[head.len()..result.len() - separator.len() - after.len()];
            let found: Vec<Value> = serde_saphyr::from_multiple(own).unwrap();
            prop_assert_eq!(&found[0]["spec"]["initContainers"][0]["name"], "bearerd");
        }
    }

    #[test]
    fn most_odd_manifests_can_be_changed(asking in asking()) {
        let is_odd = ["? volumes", "initContainers: {}", "\t"].iter().any(|odd| asking.contains(odd));
        let result = in_process(&asking);
        prop_assert!(is_odd || result.is_ok(), "{asking}\n{result:?}");
    }

    #[test]
    fn no_text_panics_or_changes_unasked(text in "[ \\-:a-c\\[\\]{}#&*!|>'\"%@`?,~<0-9.\t\n\r\u{feff}é$]{0,120}") {
        if let Ok(result) = in_process(&text) {
            prop_assert_eq!(result, text);
        }
    }
}
