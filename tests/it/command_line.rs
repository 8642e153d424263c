//! What the command line prints: starters, the schema, completions, manual pages; and where.

use std::fs;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::tempdir;

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bearerd")).args(arguments).env_clear().output().unwrap()
}

fn printed(arguments: &[&str]) -> String {
    let output = run(arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.is_empty(), "{arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn each_starter_passes_the_check_once_its_key_files_are_there() {
    let folder = tempdir().unwrap();
    fs::write(folder.path().join("api-key"), "a-key").unwrap();
    fs::write(folder.path().join("ledger.key"), [7; 32]).unwrap();
    for stance in ["inbound", "outbound", "decision"] {
        let file = folder.path().join(format!("{stance}.yaml"));
        let starter = printed(&["config", "init", stance]);
        assert!(starter.starts_with("# yaml-language-server: $schema="), "{starter}");
        fs::write(&file, starter).unwrap();
        assert!(printed(&["check", "-c", file.to_str().unwrap()]).contains("ok: "), "{stance}");
    }
    let output = run(&["config", "init", "sideways"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty() && String::from_utf8_lossy(&output.stderr).contains("decision"));
}

#[test]
fn commands_that_read_a_configuration_take_bearerd_yaml_where_none_is_named() {
    let folder = tempdir().unwrap();
    fs::write(folder.path().join("bearerd.yaml"), "routes: [{ auth: none, respond: { status: 204 } }]\n").unwrap();
    for arguments in [&["check"][..], &["config", "show"], &["explain", "GET", "/"]] {
        let output = Command::new(env!("CARGO_BIN_EXE_bearerd")).args(arguments).current_dir(&folder).env_clear().output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn the_schema_describes_every_section_and_allows_no_other() {
    let schema: Value = serde_json::from_str(&printed(&["config", "schema"])).unwrap();
    assert_eq!(schema["additionalProperties"], Value::Bool(false));
    for section in
        ["listeners", "admin", "metrics", "token_services", "upstreams", "routes", "sinks", "cache", "shutdown", "logging", "workers"]
    {
        assert!(schema["properties"][section]["description"].is_string(), "{section}: {schema}");
    }
}

#[test]
fn shells_and_man_know_every_command() {
    let commands = [
        "run",
        "check",
        "doctor",
        "explain",
        "config",
        "keys",
        "token-service",
        "demo",
        "inject",
        "webhook",
        "probe",
        "wait",
        "completions",
        "man",
    ];
    for shell in ["bash", "zsh", "fish"] {
        let script = printed(&["completions", shell]);
        commands.iter().for_each(|command| assert!(script.contains(command), "{shell}: {command}"));
    }
    let page = printed(&["man"]);
    commands.iter().for_each(|command| assert!(page.contains(&command.replace('-', "\\-")), "{command}"));
    let folder = tempdir().unwrap();
    assert!(printed(&["man", "--to", folder.path().to_str().unwrap()]).is_empty());
    for page in ["bearerd.1", "bearerd-run.1", "bearerd-config.1"] {
        assert!(fs::read_to_string(folder.path().join(page)).unwrap().contains(".SH"), "{page}");
    }
}

/// The commands of a help text.
fn commands(help: &str) -> Vec<String> {
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| line.starts_with("  "));
    listed.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help").map(str::to_owned).collect()
}

#[test]
fn the_help_of_every_command_has_an_example() {
    let mut asked = 0;
    let mut left = vec![Vec::new()];
    while let Some(command) = left.pop() {
        let arguments: Vec<&str> = command.iter().map(String::as_str).chain(["--help"]).collect();
        let help = printed(&arguments);
        let example = help.split("Example").nth(1).unwrap_or_else(|| panic!("{command:?} has no example:\n{help}"));
        assert!(example.contains(&format!("\n  bearerd {}", command.join(" ").trim())) || example.contains("bearerd "), "{help}");
        left.extend(commands(&help).into_iter().map(|name| [command.clone(), vec![name]].concat()));
        asked += 1;
    }
    assert!(asked >= 18, "{asked}");
}
