//! The schema of the configuration, as another implementation of JSON Schema reads it.

use std::path::Path;
use std::process::Command;

/// Prints each file with its mistakes.
const VALIDATE: &str = "
import json, sys, yaml, jsonschema
schema = json.load(open(sys.argv[1]))
jsonschema.Draft202012Validator.check_schema(schema)
validator = jsonschema.Draft202012Validator(schema)
for name in sys.argv[2:]:
    mistakes = list(validator.iter_errors(yaml.safe_load(open(name))))
    print(name, 'ok' if not mistakes else [mistake.message for mistake in mistakes])
";

fn validate(files: &[&Path]) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join("target/peers/schema-venv/bin/python");
    assert!(python.exists(), "{} is not there: run `make test`, which installs it", python.display());
    let folder = tempfile::tempdir().unwrap();
    let schema = folder.path().join("schema.json");
    let printed = Command::new(env!("CARGO_BIN_EXE_bearerd")).args(["config", "schema"]).output().unwrap();
    std::fs::write(&schema, printed.stdout).unwrap();
    let output = Command::new(python).args(["-c", VALIDATE]).arg(&schema).args(files).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn every_example_fits_the_schema() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let files: Vec<_> = std::fs::read_dir(examples).unwrap().map(|entry| entry.unwrap().path()).collect();
    let files: Vec<&Path> =
        files.iter().map(|path| path.as_path()).filter(|path| path.extension().is_some_and(|kind| kind == "yaml")).collect();
    assert!(files.len() >= 9, "{files:?}");
    let report = validate(&files);
    assert_eq!(report.lines().filter(|line| line.ends_with(" ok")).count(), files.len(), "{report}");
}

#[test]
fn what_the_check_refuses_by_its_form_the_schema_refuses_too() {
    let folder = tempfile::tempdir().unwrap();
    for (number, text) in [
        "routes: [{ upstrem: app }]",
        "routes: [{ upstream: app, auth: maybe }]",
        "listeners: [{ mode: sideways }]",
        "workers: many",
        "token_services: { default: { kind: iap } }",
        "cache: { max_tokens: -1 }",
    ]
    .iter()
    .enumerate()
    {
        let file = folder.path().join(format!("{number}.yaml"));
        std::fs::write(&file, text).unwrap();
        let report = validate(&[&file]);
        assert!(!report.trim_end().ends_with(" ok"), "{text}");
    }
}
