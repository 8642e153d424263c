//! `bearerd keys` and `bearerd token-service` as processes.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Output, Stdio};

use tempfile::TempDir;

fn bearerd(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bearerd"));
    command.current_dir(directory).args(arguments);
    command
}

fn run(directory: &TempDir, arguments: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = bearerd(directory.path(), arguments).output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

fn configure(directory: &TempDir, address: &str) {
    let service = format!("{{ kind: embedded, address: '{address}', keys_file: keys.yaml, signing_key_file: signing.pem }}");
    let text = format!(
        "token_services:\n  default: {service}\nupstreams:\n  app: {{ servers: ['127.0.0.1:3000'] }}\nroutes:\n  - {{ upstream: app }}\n"
    );
    std::fs::write(directory.path().join("bearerd.yaml"), text).unwrap();
}

/// A process that ends with its test, however that ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A token service that is ready, and the line that said so.
fn start(directory: &TempDir) -> (Running, String, BufReader<ChildStderr>) {
    let mut running = Running(bearerd(directory.path(), &["token-service"]).stderr(Stdio::piped()).spawn().unwrap());
    let mut stderr = BufReader::new(running.0.stderr.take().unwrap());
    let mut line = String::new();
    stderr.read_line(&mut line).unwrap();
    (running, line, stderr)
}

#[test]
fn a_new_key_alone_is_on_standard_output() {
    let directory = tempfile::tempdir().unwrap();
    let arguments = ["keys", "new", "--name", "alice", "--scopes", "A,B", "--mem", "cid:1", "--tenant", "acme", "--expires", "90d"];
    let (code, out, err) = run(&directory, &arguments);
    assert_eq!(code, Some(0));
    let key = out.strip_suffix('\n').unwrap();
    assert!(key.starts_with("brd_") && key.len() == 47 && !err.contains(key), "{out}{err}");
    for text in ["- name: \"alice\"", "hash: \"sha256:", "scopes: [\"A\",\"B\"]", "tenant: \"acme\"", "expires: "] {
        assert!(err.contains(text), "{err}");
    }
}

#[test]
fn a_new_key_goes_into_the_file_and_a_second_of_its_name_does_not() {
    let directory = tempfile::tempdir().unwrap();
    let arguments = ["keys", "new", "--name", "alice", "--keys-file", "keys.yaml"];
    let (code, out, _) = run(&directory, &arguments);
    let text = std::fs::read_to_string(directory.path().join("keys.yaml")).unwrap();
    assert!(code == Some(0) && !text.contains(out.trim()));
    let (code, out, err) = run(&directory, &arguments);
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(err.contains("keys.yaml has a key named `alice` already"), "{err}");
    assert_eq!(std::fs::read_to_string(directory.path().join("keys.yaml")).unwrap(), text);
}

#[test]
fn wrong_arguments_are_a_usage_error() {
    let directory = tempfile::tempdir().unwrap();
    for rest in [&["--name", "a:b"][..], &["--name", "a", "--expires", "2020-01-01"], &["--name", "a", "--expires", "soon"], &[]] {
        assert_eq!(run(&directory, &[&["keys", "new"], rest].concat()).0, Some(2));
    }
}

#[test]
fn the_service_says_when_it_is_ready_and_ends_when_told_to() {
    for signal in ["-TERM", "-INT"] {
        let directory = tempfile::tempdir().unwrap();
        configure(&directory, "127.0.0.1:0");
        run(&directory, &["keys", "new", "--name", "alice", "--keys-file", "keys.yaml"]);
        run(&directory, &["keys", "new", "--name", "bob", "--keys-file", "keys.yaml"]);
        let (mut running, line, mut stderr) = start(&directory);
        assert!(line.starts_with("token service on http://127.0.0.1:") && line.ends_with(", 2 keys\n"), "{line}");
        assert!(Command::new("kill").args([signal, &running.0.id().to_string()]).status().unwrap().success());
        let mut rest = String::new();
        stderr.read_to_string(&mut rest).unwrap();
        assert_eq!((running.0.wait().unwrap().code(), rest.as_str()), (Some(0), ""));
    }
}

#[test]
fn an_address_that_is_taken_is_a_failure() {
    let directory = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    configure(&directory, &address);
    std::fs::write(directory.path().join("keys.yaml"), "keys: []\n").unwrap();
    let (code, _, err) = run(&directory, &["token-service"]);
    assert!(code == Some(1) && err.contains(&format!("cannot listen on {address}")), "{err}");
}

#[test]
fn a_mistake_in_a_file_is_a_bad_configuration_with_its_place() {
    let directory = tempfile::tempdir().unwrap();
    assert_eq!(run(&directory, &["token-service"]).0, Some(78));
    configure(&directory, "127.0.0.1:0");
    let (code, _, err) = run(&directory, &["token-service"]);
    assert!(code == Some(78) && err.contains("cannot read") && err.contains("keys.yaml"), "{err}");
    std::fs::write(directory.path().join("keys.yaml"), "keys:\n  - name: alice\n    hash: plain\n").unwrap();
    let (code, _, err) = run(&directory, &["token-service"]);
    assert!(code == Some(78) && err.contains("keys.yaml:3:11: this is not the hash of a key"), "{err}");
    assert!(!err.contains("plain"), "{err}");
}

#[test]
fn keys_are_listed_without_their_hashes_and_revoked_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let file = ["--keys-file", "keys.yaml"];
    run(&directory, &[&["keys", "new", "--name", "alice", "--scopes", "A,B", "--tenant", "acme"], &file[..]].concat());
    run(&directory, &[&["keys", "new", "--name", "bob", "--expires", "2999-12-31"], &file[..]].concat());
    let (code, out, err) = run(&directory, &[&["keys", "revoke", "bob"], &file[..]].concat());
    assert_eq!((code, out.as_str()), (Some(0), ""));
    assert!(err.starts_with("revoked `bob` in keys.yaml"), "{err}");
    assert!(run(&directory, &[&["keys", "revoke", "bob"], &file[..]].concat()).2.contains("already"));
    let (code, _, err) = run(&directory, &[&["keys", "revoke", "bop"], &file[..]].concat());
    assert_eq!(code, Some(1));
    assert!(err.ends_with("keys.yaml has no key named `bop`: did you mean `bob`?\n"), "{err}");
    let (code, out, _) = run(&directory, &[&["keys", "list"], &file[..]].concat());
    assert_eq!(code, Some(0));
    let expected = "\
NAME   STATE    SUBJECT  TENANT   EXPIRES               SCOPES
alice  good     alice    acme     -                     A,B
bob    revoked  bob      default  2999-12-31T00:00:00Z  -
";
    assert_eq!(out, expected);
    let (_, out, _) = run(&directory, &[&["keys", "list", "--format", "json"], &file[..]].concat());
    let listed: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&listed[1]["state"], &listed[0]["scopes"][1]), (&"revoked".into(), &"B".into()));
    assert!(!out.contains("sha256") && listed[0].get("hash").is_none());
}

#[test]
fn a_key_from_standard_input_is_hashed() {
    let hash = |input: &str| {
        let directory = tempfile::tempdir().unwrap();
        let mut child = bearerd(directory.path(), &["keys", "hash"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(!String::from_utf8_lossy(&output.stderr).contains("canary"));
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    assert_eq!(hash("abc\n"), (Some(0), "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\n".to_owned()));
    for wrong in ["", "\n", "two canary", "canary\u{e9}"] {
        assert_eq!(hash(wrong), (Some(1), String::new()));
    }
}

/// Each token leaves a line that says who, with what, for what; `/metrics` counts. No key and no token in either.
#[test]
fn every_token_is_audited_and_counted() {
    let directory = tempfile::tempdir().unwrap();
    configure(&directory, "127.0.0.1:0");
    let (_, key, _) = run(&directory, &["keys", "new", "--name", "alice", "--scopes", "A,B", "--keys-file", "keys.yaml"]);
    let (_running, line, mut stderr) = start(&directory);
    let address = line.split("http://").nth(1).unwrap().split(',').next().unwrap().to_owned();
    let ask = |request: String| {
        let mut stream = std::net::TcpStream::connect(&address).unwrap();
        std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let created =
        ask(format!("POST /v1/tokens HTTP/1.1\r\nHost: x\r\nX-API-Key: {}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", key.trim()));
    assert!(created.starts_with("HTTP/1.1 201"), "{created}");
    let token = created.split("access_token\":\"").nth(1).unwrap().split('"').next().unwrap();
    let mut audit = String::new();
    while !audit.contains("token made") {
        audit.clear();
        assert!(stderr.read_line(&mut audit).unwrap() > 0, "it ended without a word of the token");
    }
    let said: serde_json::Value = serde_json::from_str(&audit).unwrap();
    assert_eq!(
        (&said["target"], &said["holder"], &said["subject"], &said["scopes"]),
        (&"audit".into(), &"alice".into(), &"alice".into(), &"A,B".into())
    );
    assert!(said["key"].is_string() && said["id"].is_string());
    let shown = ask("GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".to_owned());
    for series in [
        "bearerd_issuer_requests_total{operation=\"create\",outcome=\"ok\",service=\"default\"} 1",
        "bearerd_issuer_tokens_total{kind=\"jwt\",service=\"default\"} 1",
        "bearerd_issuer_held{service=\"default\",what=\"keys\"} 1",
    ] {
        assert!(shown.contains(series), "{series}: {shown}");
    }
    for text in [&audit, &shown] {
        assert!(!text.contains(token) && !text.contains(key.trim()));
    }
}
