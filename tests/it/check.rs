//! `bearerd check`, the real binary, over files with one kind of mistake each.

mod policy;
mod transport;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};
use tempfile::TempDir;

/// Four lines that every case may begin with, so that its routes begin on line 5.
const BASE: &str = "\
token_services:
  default: { kind: iap, url: \"https://tokens.example.com\" }
upstreams:
  app: { servers: [\"127.0.0.1:3000\"] }
";

fn check_in(folder: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bearerd"))
        .arg("check")
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .envs(environment.iter().copied())
        .output()
        .unwrap()
}

/// A folder with `bearerd.yaml` in it.
fn folder_with(text: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("bearerd.yaml"), text).unwrap();
    folder
}

fn check(text: &str, environment: &[(&str, &str)]) -> Output {
    check_in(folder_with(text).path(), &["-c", "bearerd.yaml"], environment)
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// What a mistake must look like: line, column, the text over the carets, message, help.
type Mistake<'a> = (usize, usize, &'a str, &'a str, &'a str);

/// Reads one block of the output back.
fn parsed(block: &str) -> (usize, usize, String, String, String) {
    let mut lines = block.lines();
    let head = lines.next().unwrap();
    let mut parts = head.strip_prefix("bearerd.yaml:").unwrap_or_else(|| panic!("{head}")).splitn(3, ':');
    let mut number = || parts.next().unwrap().parse().unwrap();
    let (line, column) = (number(), number());
    let rest = parts.next().unwrap().trim_start();
    let (message, asked) =
        rest.split_once(", did you mean ").map_or((rest, String::new()), |(message, word)| (message, format!("did you mean {word}")));
    let lines: Vec<&str> = lines.collect();
    let offending = match lines[..] {
        [source, carets, ..] if carets.contains('^') => {
            let marked = source.chars().zip(carets.chars().chain(std::iter::repeat(' ')));
            marked.filter(|(_, mark)| *mark == '^').map(|(char, _)| char).collect()
        }
        _ => String::new(),
    };
    let help = lines.iter().find_map(|line| line.trim_start().strip_prefix("= help: ")).map_or(asked, str::to_owned);
    (line, column, offending, message.to_owned(), help)
}

#[track_caller]
fn assert_mistakes(text: &str, expected: &[Mistake<'_>]) {
    let output = check(text, &[]);
    assert_eq!(output.status.code(), Some(78), "accepted:\n{text}{}", stdout(&output));
    assert_eq!(stdout(&output), "");
    let shown = stderr(&output);
    let found: Vec<_> = shown.trim_end().split("\n\n").map(parsed).collect();
    let expected: Vec<_> = expected
        .iter()
        .map(|(line, column, text, message, help)| (*line, *column, (*text).to_owned(), (*message).to_owned(), (*help).to_owned()))
        .collect();
    assert_eq!(found, expected, "\n{text}\n{shown}");
}

/// A file that is good but for what `rest` adds, which begins on line 5.
#[track_caller]
fn assert_rest(rest: &str, expected: &[Mistake<'_>]) {
    assert_mistakes(&format!("{BASE}{rest}"), expected);
}

/// A file with one good route, and `rest` from line 6 on.
#[track_caller]
fn assert_section(rest: &str, expected: &[Mistake<'_>]) {
    assert_rest(&format!("routes: [{{ upstream: app }}]\n{rest}"), expected);
}

/// A good file with one route, of which `keys` are part; they begin on line 6, column 20.
#[track_caller]
fn assert_route(keys: &str, expected: &[Mistake<'_>]) {
    assert_rest(&format!("routes:\n - {{upstream: app, {keys}}}\n"), expected);
}

#[test]
fn every_example_passes() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in [("keys.yaml", "keys: []\n"), ("api-key", "key\n"), ("ledger.key", "thirty-two bytes are enough for it")] {
        fs::write(folder.path().join(name), content).unwrap();
    }
    let mut count = 0;
    for entry in fs::read_dir(examples).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if !name.ends_with(".yaml") || name == "keys.yaml" {
            continue;
        }
        fs::copy(&path, folder.path().join(name)).unwrap();
        let output = check_in(folder.path(), &["-c", name], &[]);
        assert_eq!(output.status.code(), Some(0), "{name}: {}", stderr(&output));
        assert_eq!(stderr(&output), "", "{name} has warnings");
        assert!(stdout(&output).starts_with(&format!("{name}: ok: ")) && stdout(&output).contains(" listener"), "{}", stdout(&output));
        count += 1;
    }
    assert!(count >= 9, "{count} examples");
}

#[test]
fn keys_of_our_own_and_what_is_written_for_others() {
    let folder = folder_with("");
    let file = |name: &str, content: &str| fs::write(folder.path().join(name), content).unwrap();
    file("key", "canary-key\n");
    file("two", "canary one\ncanary two\n");
    file("short", "canary");
    let mistakes = |rest: &str| {
        file("bearerd.yaml", &format!("{BASE}{rest}"));
        let output = check_in(folder.path(), &["-c", "bearerd.yaml"], &[]);
        let shown = stderr(&output);
        assert!(!shown.contains("canary"), "{shown}");
        // Without the place, which all mistakes have.
        let first = |block: &str| {
            let line = block.lines().next().unwrap();
            let (kind, told) = line.split_once("bearerd.yaml:").unwrap();
            format!("{kind}{}", told.splitn(3, ':').nth(2).unwrap().trim_start())
        };
        shown.trim_end().split("\n\n").filter(|block| !block.is_empty()).map(first).collect::<Vec<_>>()
    };
    let route = |keys: &str| mistakes(&format!("routes:\n - {{upstream: app, {keys}}}\n"));
    assert_eq!(route("credentials: [mounted: { file: key }]"), [""; 0]);
    assert_eq!(route("credentials: [mounted: { file: none }]"), ["cannot read `none`: there is no such file"]);
    assert_eq!(route("credentials: [mounted: { file: two }]"), ["`two` holds more than an API key: one line of visible ASCII is expected"]);
    assert_eq!(route("credentials: [api_key, mounted: { file: key }]"), ["`mounted` beside other credentials"]);
    assert_eq!(route("auth: none, credentials: [mounted: { file: key }]"), ["`mounted` does nothing with `auth: none`"]);
    assert_eq!(
        route("credentials: [mounted: { file: key, revoke_on_change: true }]"),
        ["warning: a revocation that is pending when bearerd ends is lost"]
    );
    let sinks = |sinks: &str| mistakes(&format!("routes: [{{ upstream: app }}]\nsinks:\n{sinks}"));
    let sink = |keys: &str| sinks(&format!(" - {{credential: {{ mounted: {{ file: key }} }}, {keys}}}\n"));
    assert_eq!(sink("path: token"), [""; 0]);
    assert_eq!(sink("path: none/token"), ["`none/token` is in a folder that does not exist: make it first"]);
    assert_eq!(sink("path: key"), ["this file holds a key: it would be overwritten"]);
    assert_eq!(sink("path: token, mode: 256"), ["`256` is not the mode of a file that its owner can read"]);
    assert_eq!(sink("path: token, mode: \"0444\""), ["warning: every user of this machine may read the token"]);
    assert_eq!(sink("path: token, token: { service: other }"), ["there is no token service `other`"]);
    let twice = " - {credential: { mounted: { file: key } }, path: token}\n".repeat(2);
    assert_eq!(sinks(&twice), ["sinks[0] writes this file too"]);
    let ledger = |keys: &str| mistakes(&format!("routes: [{{ upstream: app }}]\ncache: {{ ledger: {{ path: ledger.redb, {keys} }} }}\n"));
    assert_eq!(ledger("key_files: [short]"), ["`short` is too short for a key: make one of 32 bytes with `head -c 32 /dev/urandom`"]);
    assert_eq!(ledger("key_files: []"), ["`key_files` is empty"]);
}

#[test]
fn routes_that_stand_in_for_a_token_service() {
    assert_eq!(check(&format!("{BASE}routes: [{{ token_api: default }}, {{ upstream: app }}]\n"), &[]).status.code(), Some(0));
    assert_rest(
        "routes: [{ token_api: defualt }, { upstream: app }]\n",
        &[(5, 23, "defualt", "there is no token service `defualt`", "did you mean `default`?")],
    );
    assert_rest(
        "routes: [{ token_api: { min_remaining: 50 } }, { upstream: app }]\n",
        &[(5, 40, "50", "`50` is not a percentage", "write a whole number from `0%` to `100%`")],
    );
    assert_rest(
        "routes: [{ token_api: default, match: { path_prefix: /v1 } }, { upstream: app }]\n",
        &[(
            5,
            41,
            "path_prefix",
            "`path_prefix` does nothing beside `token_api`",
            "remove it: the route takes `/v1/tokens`, `/v1/tokens/details` and `/v1/tokens:refresh`, and leaves others to later routes",
        )],
    );
    assert_route("token_api: default", &[(6, 20, "token_api", "the route has both `upstream` and `token_api`", "remove one of them")]);
}

#[test]
fn success_is_one_line() {
    let output = check(&format!("{BASE}routes: [{{ upstream: app }}]\n"), &[]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(stdout(&output), "bearerd.yaml: ok: 1 listener, 1 route, 1 token service, 1 upstream\n");
    assert_eq!(stderr(&output), "");
}

#[test]
fn a_missing_file_is_a_bad_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let output = check_in(folder.path(), &["-c", "none.yaml"], &[]);
    assert_eq!(output.status.code(), Some(78));
    assert_eq!(stderr(&output), "none.yaml: cannot read the configuration: No such file or directory (os error 2)\n");
    let output = check_in(folder.path(), &["-c", "none.yaml", "--format", "json"], &[]);
    assert_eq!(output.status.code(), Some(78));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["diagnostics"][0]["file"], "none.yaml");
}

#[test]
fn the_text_is_that_of_a_compiler() {
    let output = check(&format!("{BASE}routes:\n  - upstrem: app\n"), &[]);
    assert_eq!(
        stderr(&output),
        "bearerd.yaml:6:5: unknown key `upstrem`, did you mean `upstream`?\n 6 |   - upstrem: app\n   |     ^^^^^^^\n"
    );
}

#[test]
fn json_is_for_programs() {
    let folder = folder_with(&format!("{BASE}routes:\n  - upstrem: app\n"));
    let output = check_in(folder.path(), &["-c", "bearerd.yaml", "--format", "json"], &[]);
    assert_eq!(output.status.code(), Some(78));
    assert_eq!(stderr(&output), "");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let diagnostic = json!({
        "file": "bearerd.yaml", "line": 6, "column": 5, "key": "routes[0].upstrem",
        "message": "unknown key `upstrem`", "help": "did you mean `upstream`?",
    });
    assert_eq!(report, json!({ "ok": false, "diagnostics": [diagnostic] }));
    let folder = folder_with(&format!("{BASE}routes: [{{ upstream: app }}]\n"));
    let output = check_in(folder.path(), &["-c", "bearerd.yaml", "--format", "json"], &[]);
    assert_eq!(serde_json::from_slice::<Value>(&output.stdout).unwrap(), json!({ "ok": true, "diagnostics": [], "warnings": [] }));
}

#[test]
fn all_mistakes_come_at_once_in_order() {
    assert_mistakes(
        "admin: { address: 127.0.0.1 }\nupstreams:\n  app: { servers: [app] }\nroutes:\n  - upstream: ap\n    session_lifetime: 30\nlogging: { level: loud }\n",
        &[
            (1, 19, "127.0.0.1", "`127.0.0.1` is not an address and port", "the port is missing: write `127.0.0.1:8080`"),
            (3, 20, "app", "`app` has no port", "write `app:80`"),
            (
                5,
                5,
                "u",
                "the route needs the token service `default`, which is not there",
                "add it under `token_services`, name another in `token: { service: NAME }`, or write `auth: none`",
            ),
            (5, 15, "ap", "there is no upstream `ap`", "did you mean `app`?"),
            (6, 23, "30", "a duration needs a unit", "write `30s`"),
            (7, 19, "loud", "`loud` is not a value of `level`", "write one of `error`, `warn`, `info`, `debug`, `trace`"),
        ],
    );
}

#[test]
fn yaml_itself() {
    assert_mistakes("routes: [\n  { upstream: app }\n", &[(1, 9, "[", "not valid YAML: unclosed bracket '['", "")]);
    assert_mistakes("a: b: c\n", &[(1, 5, ":", "not valid YAML: mapping values are not allowed in this context", "")]);
    assert_mistakes(
        "a: 1\n---\nb: 1\n",
        &[(3, 1, "b", "a second document begins here: a configuration is one document", "remove the `---`")],
    );
    assert_mistakes(
        "shutdown: { delay: ${DELAY} }\n",
        &[(
            1,
            21,
            "{",
            "not valid YAML: while parsing a flow mapping, did not find expected ',' or '}'",
            "inside `{ }` and `[ ]`, put values with `${NAME}` in quotes",
        )],
    );
    assert_section(
        "workers: 1\nworkers: 2\n",
        &[(7, 1, "workers", "the key `workers` is there twice", "the first is on line 6: keep one of them")],
    );
    assert_mistakes("- a\n", &[(1, 1, "-", "the configuration must be a map, not a list", "")]);
}

#[test]
fn keys() {
    assert_section("cahe: {}\n", &[(6, 1, "cahe", "unknown key `cahe`", "did you mean `cache`?")]);
    assert_section("shutdown: { foo: 1s }\n", &[(6, 13, "foo", "unknown key `foo`", "known keys: `delay`, `drain_timeout`, `revoke`")]);
    assert_section("metrics:\n", &[(6, 1, "metrics", "`metrics` has no value", "write a map with the key `address`, or remove the key")]);
    assert_mistakes(
        "token_services:\n  default: { kind: iap }\nupstreams:\n  app: {}\nroutes: [{ upstream: app }]\n",
        &[
            (2, 3, "default", "the key `url` is missing", "write `url:` and a URL such as `https://tokens.example.com`"),
            (4, 3, "app", "the key `servers` is missing", "write `servers:` and a list"),
        ],
    );
}

#[test]
fn types() {
    assert_section("cache: 5\n", &[(6, 8, "5", "`cache` must be a map, not `5`", "")]);
    assert_section("cache: { max_tokens: [1] }\n", &[(6, 10, "max_tokens", "`max_tokens` must be a whole number, not a list", "")]);
    assert_section("cache: { max_tokens: 1.5 }\n", &[(6, 22, "1.5", "`max_tokens` must be a whole number, not `1.5`", "")]);
    assert_section("logging: { access: yes }\n", &[(6, 20, "yes", "`access` must be `true` or `false`, not `yes`", "")]);
    assert_section("workers: many\n", &[(6, 10, "many", "`many` is not a value of `workers`", "write `auto` or a whole number")]);
    assert_section("workers: 0\n", &[(6, 10, "0", "`0` is out of range", "write a number from 1 to 1024")]);
    assert_section("cache: { max_tokens: 0 }\n", &[(6, 22, "0", "`0` is out of range", "write a number of at least 1")]);
    assert_section("cache: { max_tokens: -1 }\n", &[(6, 22, "-1", "`-1` is out of range", "write a number of at least 1")]);
    assert_section(
        "listeners: [{ limits: { headers: 257 } }]\n",
        &[(6, 34, "257", "`257` is out of range", "write a number from 1 to 256")],
    );
}

#[test]
fn units() {
    assert_section("shutdown: { delay: 30 }\n", &[(6, 20, "30", "a duration needs a unit", "write `30s`")]);
    assert_section("shutdown: { delay: \"5\" }\n", &[(6, 20, "\"5\"", "a duration needs a unit", "write `5s`")]);
    assert_section(
        "shutdown: { delay: soon }\n",
        &[(6, 20, "soon", "`soon` is not a duration", "write a number with a unit, as `500ms`, `30s`, `5m` or `24h`")],
    );
    assert_section("shutdown: { delay: 2h }\n", &[(6, 20, "2h", "`delay` is too long", "write at most `1h`")]);
    assert_section("listeners: [{ limits: { header_bytes: 65536 } }]\n", &[(6, 39, "65536", "a size needs a unit", "write `65536B`")]);
    assert_section(
        "listeners: [{ limits: { header_bytes: 1GiB } }]\n",
        &[(6, 39, "1GiB", "`header_bytes` is out of range", "write a size from `1KiB` to `1MiB`")],
    );
    assert_section(
        "listeners: [{ limits: { idle_timeout: 900ms } }]\n",
        &[(6, 39, "900ms", "`idle_timeout` is too short", "write at least `1s`")],
    );
    assert_section(
        "listeners: [{ limits: { header_timeout: 0s } }]\n",
        &[(6, 41, "0s", "`header_timeout` is too short", "write at least `1ms`")],
    );
}

#[test]
fn addresses() {
    assert_section(
        "listeners: [{ address: \"localhost:80\" }]\n",
        &[(6, 24, "\"localhost:80\"", "`localhost:80` is not an address and port", "write `127.0.0.1:80`")],
    );
    assert_section(
        "listeners: [{ trusted_peers: [10.0.0.0/33] }]\n",
        &[(6, 31, "10.0.0.0/33", "`10.0.0.0/33` is not a network", "write an address or a CIDR range, as `10.0.0.7` or `10.0.0.0/8`")],
    );
    let own = "give each an address or port of its own";
    assert_section(
        "listeners:\n  - address: 127.0.0.1:80\n  - address: 0.0.0.0:80\n",
        &[(8, 14, "0.0.0.0:80", "`0.0.0.0:80` is used twice: `listeners[0].address` has it too", own)],
    );
    assert_section(
        "listeners: [{ address: 127.0.0.1:9902 }]\n",
        &[(6, 24, "127.0.0.1:9902", "`127.0.0.1:9902` is used twice: `metrics.address` has it too by default", own)],
    );
    assert_section(
        "listeners: []\n",
        &[(6, 1, "listeners", "`listeners` is empty: nobody could call", "remove the key for the default, 127.0.0.1:8080")],
    );
    assert_section(
        "admin: { address: 0.0.0.0:9901 }\n",
        &[(
            6,
            19,
            "0.0.0.0:9901",
            "the admin listener is open to the network without a token",
            "give it `token_file`, or an address on loopback such as `127.0.0.1:9901`",
        )],
    );
    let output =
        check(&format!("{BASE}routes: [{{ upstream: app }}]\nlisteners: [{{ address: 127.0.0.1:0 }}, {{ address: 127.0.0.1:0 }}]\n"), &[]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

/// A token service in place of the good one, on line 2 from column 14 on.
#[track_caller]
fn assert_service(keys: &str, expected: &[Mistake<'_>]) {
    assert_mistakes(&format!("token_services:\n  default: {{ {keys} }}\nroutes: [{{ respond: {{ status: 204 }} }}]\n"), expected);
}

#[test]
fn token_services() {
    assert_service("url: \"https://x\"", &[(2, 3, "default", "the key `kind` is missing", "write `kind:` and one of `iap`, `embedded`")]);
    assert_service("kind: ipa", &[(2, 20, "ipa", "`ipa` is not a value of `kind`", "did you mean `iap`?")]);
    assert_service(
        "kind: iap, url: tokens.example.com",
        &[(2, 30, "tokens.example.com", "`tokens.example.com` is a URL without a scheme", "write `https://tokens.example.com`")],
    );
    assert_service(
        "kind: iap, url: \"https://x?y=1\"",
        &[(2, 30, "\"https://x?y=1\"", "a URL with a query or fragment", "end it before the `?` or `#`")],
    );
    assert_service(
        "kind: iap, url: \"https://u:canary@x\", timeout: 5",
        &[
            (2, 30, "", "a URL with a user name or password in it", "remove what stands before the `@`: callers bring the credentials"),
            (2, 61, "", "a duration needs a unit", "write `5s`"),
        ],
    );
    assert_service("kind: iap, url: \"https://x\", timeout: 0s", &[(2, 52, "0s", "`timeout` is too short", "write at least `1ms`")]);
    assert_service(
        "kind: iap, url: \"https://x\", mint: { concurrency: 0 }",
        &[(2, 64, "0", "`0` is out of range", "write a number of at least 1")],
    );
    assert_service(
        "kind: iap, url: \"https://x\", keys_file: k",
        &[(
            2,
            43,
            "keys_file",
            "unknown key `keys_file`",
            "known keys: `kind`, `url`, `timeout`, `connect_timeout`, `skew`, `tls`, `mint`, `breaker`",
        )],
    );
    assert_service(
        "kind: iap, url: \"http://127.0.0.1\", tls: {}",
        &[(2, 50, "tls", "`tls` does nothing for an `http://` URL", "write `https://` in `url`, or remove `tls`")],
    );
}

#[test]
fn files() {
    let here = "relative paths start at the configuration file's folder, `.`";
    assert_service(
        "kind: iap, url: \"https://x\", tls: { ca: ca.crt }",
        &[(2, 54, "ca.crt", "cannot read `ca.crt`: there is no such file", here)],
    );
    assert_service(
        "kind: iap, url: \"https://x\", tls: { ca: bearerd.yaml }",
        &[(2, 54, "bearerd.yaml", "`bearerd.yaml` has no certificate in it: PEM is expected", "")],
    );
    assert_service(
        "kind: iap, url: \"https://x\", tls: { private_key: bearerd.yaml }",
        &[
            (2, 50, "private_key", "`private_key` without `certificate`", "a client certificate needs both: add `certificate`"),
            (2, 63, "bearerd.yaml", "`bearerd.yaml` has no private key in it: PEM is expected", ""),
        ],
    );
    assert_service(
        "kind: embedded, keys_file: keys.yaml, signing_key_file: none/key.pem",
        &[
            (2, 41, "keys.yaml", "cannot read `keys.yaml`: there is no such file", here),
            (2, 70, "none/key.pem", "`none/key.pem` is in a folder that does not exist: make it first", ""),
        ],
    );
    assert_section("admin: { token_file: /dev/null }\n", &[(6, 22, "/dev/null", "`/dev/null` is empty: it must hold a token", "")]);
}

#[test]
fn relative_paths_start_at_the_files_folder() {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("inner");
    fs::create_dir(&inner).unwrap();
    let text = "token_services:\n  default: { kind: embedded, address: 127.0.0.1:0, keys_file: keys.yaml, signing_key_file: key.pem }\n";
    fs::write(inner.join("bearerd.yaml"), text).unwrap();
    fs::write(inner.join("keys.yaml"), "keys: []\n").unwrap();
    let output = check_in(folder.path(), &["-c", "inner/bearerd.yaml"], &[]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(!inner.join("key.pem").exists(), "check writes nothing");
}

#[test]
fn client_certificates_are_read() {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let folder = folder_with(
        "token_services:\n  default: { kind: iap, url: \"https://x\", tls: { ca: c.pem, certificate: c.pem, private_key: k.pem } }\nupstreams: { app: { servers: [\"a:1\"] } }\nroutes: [{ upstream: app }]\n",
    );
    fs::write(folder.path().join("c.pem"), certified.cert.pem()).unwrap();
    fs::write(folder.path().join("k.pem"), certified.signing_key.serialize_pem()).unwrap();
    let output = check_in(folder.path(), &["-c", "bearerd.yaml"], &[]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

#[test]
fn upstreams() {
    let case = |keys: &str, expected: &[Mistake<'_>]| {
        assert_mistakes(&format!("upstreams:\n  app: {{ {keys} }}\nroutes: [{{ upstream: app, auth: none }}]\n"), expected);
    };
    case("servers: [app]", &[(2, 20, "app", "`app` has no port", "write `app:80`")]);
    case(
        "servers: [\"http://app:80/\"]",
        &[(2, 20, "\"http://app:80/\"", "`http://app:80/` is not a host and port", "leave the scheme out: write `app:80`")],
    );
    case("servers: []", &[(2, 10, "servers", "`servers` is empty", "it needs a host and port such as `app:3000`")]);
    case("servers: \"app:80\"", &[(2, 19, "\"app:80\"", "`servers` must be a list, not `app:80`", "")]);
    case(
        "servers: [\"app:80\"], host: \"a b\"",
        &[(2, 37, "\"a b\"", "`a b` is not a host", "write `preserve`, `upstream`, or a name such as `app.internal`")],
    );
    case("servers: [\"app:80\"], timeouts: { read: 0s }", &[(2, 49, "0s", "`read` is too short", "write at least `1ms`")]);
    case("servers: [\"app:80\"], dns_refresh: 0s", &[(2, 44, "0s", "`dns_refresh` is too short", "write at least `1s`")]);
}

#[test]
fn routes_and_where_they_go() {
    let none = "add one such as `routes: [{ upstream: app }]`; without routes, only sinks and an embedded token service with an `address` have work to do";
    assert_mistakes("", &[(1, 1, "", "there are no routes", none)]);
    assert_rest("routes: []\n", &[(5, 1, "routes", "there are no routes", none)]);
    assert_rest(
        "routes: [{ name: a }]\n",
        &[(5, 10, "{", "the route has nowhere to go", "add `upstream: NAME`, `token_api: SERVICE`, or `respond: { status: 204 }`")],
    );
    assert_route("respond: { status: 204 }", &[(6, 20, "respond", "the route has both `upstream` and `respond`", "remove one of them")]);
    assert_rest("routes: [{ respond: { status: 99 } }]\n", &[(5, 31, "99", "`99` is out of range", "write a number from 200 to 599")]);
    assert_rest("routes: [{ upstream: backend }]\n", &[(5, 22, "backend", "there is no upstream `backend`", "known upstreams: `app`")]);
    assert_route("token: { service: deflt }", &[(6, 38, "deflt", "there is no token service `deflt`", "did you mean `default`?")]);
    assert_mistakes(
        "upstreams: { app: { servers: [\"a:1\"] } }\nroutes: [{ upstream: app }]\n",
        &[(
            2,
            10,
            "{",
            "the route needs the token service `default`, which is not there",
            "add it under `token_services`, name another in `token: { service: NAME }`, or write `auth: none`",
        )],
    );
    let own = "give each a name of its own";
    assert_rest(
        "routes: [{ name: a, upstream: app, match: { path: / } }, { name: a, upstream: app }]\n",
        &[(5, 66, "a", "`a` is the name of routes[0] too", own)],
    );
    assert_rest(
        "routes: [{ name: route-2, upstream: app, match: { path: / } }, { upstream: app }]\n",
        &[(5, 18, "route-2", "`route-2` is the name of routes[1] too, which has none of its own", own)],
    );
}

#[test]
fn what_routes_match() {
    assert_route(
        "match: { path: /a, path_prefix: /b }",
        &[(
            6,
            39,
            "path_prefix",
            "`path` and `path_prefix` together",
            "keep one: `path` is the whole path, `path_prefix` its first segments, `path_regex` what the whole path must fit",
        )],
    );
    assert_route("match: { path: api }", &[(6, 35, "api", "the path `api` does not begin with `/`", "write `/api`")]);
    assert_route("match: { path: \"/a?b\" }", &[(6, 35, "\"/a?b\"", "`/a?b` is more than a path", "leave out query, fragment and spaces")]);
    assert_route("match: { methods: [get] }", &[(6, 39, "get", "the method `get` is not in capitals", "write `GET`")]);
    assert_route(
        "match: { hosts: [\"a.example.com:80\"] }",
        &[(6, 37, "\"a.example.com:80\"", "the host `a.example.com:80` has a port", "ports do not count here: write `a.example.com`")],
    );
    assert_route(
        "match: { hosts: [\"a*.com\"] }",
        &[(6, 37, "\"a*.com\"", "`a*.com` is not a host", "write a name such as `app.example.com` or `*.example.com`")],
    );
    assert_route(
        "match: { headers: { \"X Y\": a } }",
        &[(6, 40, "\"X Y\"", "`X Y` is not the name of a header", "names have letters, digits and `-`")],
    );
}

#[test]
fn credentials() {
    assert_route("auth: optional", &[(6, 26, "optional", "`optional` is not a value of `auth`", "write one of `required`, `none`")]);
    assert_route("credentials: [apikey]", &[(6, 34, "apikey", "`apikey` is not a value of `credentials[0]`", "did you mean `api_key`?")]);
    assert_route(
        "credentials: [5]",
        &[(6, 34, "5", "`credentials[0]` must be one of `api_key`, `basic`, `session_token`, `jwt` or a map, not `5`", "")],
    );
    assert_route("credentials: [{ api_key: { heder: X } }]", &[(6, 47, "heder", "unknown key `heder`", "did you mean `header`?")]);
    assert_route("credentials: [{ api_key: {} }]", &[(6, 36, "api_key", "`api_key` is empty", "write one of `header`, `query`")]);
    assert_route(
        "credentials: [{ api_key: { header: X, query: y } }]",
        &[(6, 58, "query", "only one of `header`, `query` can be given", "remove the other")],
    );
    assert_route("credentials: [{ apikey: { header: X } }]", &[(6, 36, "apikey", "unknown key `apikey`", "did you mean `api_key`?")]);
    assert_route(
        "credentials: []",
        &[(
            6,
            20,
            "credentials",
            "`credentials` is empty: nobody could be let in",
            "list some, as `[api_key]`; or write `auth: none` for a public route",
        )],
    );
    assert_route(
        "credentials: [api_key, { api_key: { header: x-api-key } }]",
        &[(6, 43, "{", "the same credential as credentials[0]", "remove one of them")],
    );
    assert_route("credentials: [basic, basic]", &[(6, 41, "basic", "the same credential as credentials[0]", "remove one of them")]);
    assert_route(
        "credentials: [{ api_key: { header: Authorization } }]",
        &[(6, 55, "Authorization", "no API key is read from `Authorization`", "list `basic` or `session_token` for what stands there")],
    );
    assert_route(
        "credentials: [{ api_key: { header: Host } }]",
        &[(6, 55, "Host", "`Host` is not for credentials", "name a header of your own, as `X-API-Key`")],
    );
    assert_route("on_multiple: last", &[(6, 33, "last", "`last` is not a value of `on_multiple`", "write one of `reject`, `first`")]);
}

#[test]
fn token_parameters() {
    assert_route(
        "token: { scopes: [\"a,b\"] }",
        &[(
            6,
            38,
            "\"a,b\"",
            "`a,b` has a comma in it: the token service would take it for several items",
            "write each as an item of its own",
        )],
    );
    assert_route("token: { mem: [\"\"] }", &[(6, 35, "\"\"", "an empty item", "remove it")]);
    assert_route("token: { scopes: a }", &[(6, 37, "a", "`scopes` must be a list, not `a`", "")]);
    assert_route(
        "validate: { details: on_mnt }",
        &[(6, 41, "on_mnt", "`on_mnt` is neither `off`, `on_mint` nor a duration", "did you mean `on_mint`?")],
    );
    assert_route("session_lifetime: 0s", &[(6, 38, "0s", "`session_lifetime` is too short", "write at least `1s`")]);
    assert_route("token: { max_age: 10 }", &[(6, 38, "10", "a duration needs a unit", "write `10s`")]);
    assert_route(
        "session_lifetime: 10m, session_refresh: 10m",
        &[(6, 60, "10m", "a session would end before it is refreshed", "write less than `session_lifetime`, which is `10m`")],
    );
    assert_route("validate: { details: 100ms }", &[(6, 41, "100ms", "`100ms` is too short", "write `off`, `on_mint`, or at least `1s`")]);
    assert_route("on_upstream_401: renw", &[(6, 37, "renw", "`renw` is not a value of `on_upstream_401`", "did you mean `renew`?")]);
}

#[test]
fn header_changes() {
    assert_route(
        "headers: { set: { Authorization: x } }",
        &[(6, 38, "Authorization", "the header `Authorization` cannot be set", "the token goes there")],
    );
    assert_route(
        "headers: { set: { host: x } }",
        &[(6, 38, "host", "the header `host` cannot be set", "set the upstream's `host` instead")],
    );
    for name in [
        "Content-Length",
        "Transfer-Encoding",
        "Connection",
        "Keep-Alive",
        "TE",
        "Trailer",
        "Upgrade",
        "Proxy-Authorization",
        "Via",
        "X-Forwarded-For",
        "X_Forwarded_Proto",
        "X-Forwarded-Host",
        "X-Request-Id",
    ] {
        let message = format!("the header `{name}` cannot be set");
        assert_route(
            &format!("headers: {{ set: {{ {name}: x }} }}"),
            &[(6, 38, name, &message, "remove it: bearerd writes it where it is due")],
        );
    }
    assert_route(
        "headers: { set: { X-User: \"a\\nb\" } }",
        &[(6, 46, "\"a\\nb\"", "`a\\nb` cannot be the value of a header", "leave out line breaks and control characters")],
    );
    assert_route("headers: { set: { X-A: a, x-a: b } }", &[(6, 46, "x-a", "`x-a` is the same header as `X-A`", "remove one of them")]);
    assert_route(
        "headers: { remove: [Content-Length] }",
        &[(6, 40, "Content-Length", "the header `Content-Length` cannot be removed", "remove it from the list: bearerd deals with it")],
    );
    assert_route(
        "headers: { remove: [Authorization] }",
        &[(6, 40, "Authorization", "the header `Authorization` cannot be removed", "the token goes there")],
    );
    assert_route(
        "headers: { set: { X-A: a }, remove: [x-a] }",
        &[(6, 57, "x-a", "`x-a` is both set and removed", "remove it from this list: what the caller sent is gone anyway")],
    );
}

#[test]
fn environment_variables_are_expanded_and_never_shown() {
    let text = format!("{BASE}routes: [{{ upstream: \"${{APP}}\" }}]\nshutdown:\n  delay: ${{DELAY}}\nworkers: ${{WORKERS}}\n");
    let good = check(&text, &[("APP", "app"), ("DELAY", "1s"), ("WORKERS", "2")]);
    assert_eq!(good.status.code(), Some(0), "{}", stderr(&good));
    let bad = check(&text, &[("APP", "canary"), ("DELAY", "canary"), ("WORKERS", "canary")]);
    assert_eq!(bad.status.code(), Some(78));
    assert!(!stderr(&bad).contains("canary"), "{}", stderr(&bad));
    let found: Vec<_> =
        stderr(&bad).trim_end().split("\n\n").map(parsed).map(|(line, _, text, message, _)| (line, text, message)).collect();
    let of = |line, text: &str, message: &str| (line, text.to_owned(), message.to_owned());
    assert_eq!(
        found,
        [
            of(5, "\"${APP}\"", "there is no upstream `${APP}`"),
            of(7, "${DELAY}", "`${DELAY}` is not a duration"),
            of(8, "${WORKERS}", "`${WORKERS}` is not a value of `workers`"),
        ]
    );
    assert_section(
        "shutdown:\n  delay: ${DELAY}\n",
        &[(7, 10, "${DELAY}", "the environment variable `DELAY` is not set", "set it, or write `$${DELAY}` if the text itself is meant")],
    );
    assert_route("token: { data: \"$x\" }", &[(6, 35, "\"$x\"", "a `$` begins `${NAME}`", "write `$$` for a dollar")]);
}

#[test]
fn environment_variables_override_the_file() {
    let text = format!("{BASE}routes: [{{ upstream: app }}]\nshutdown: {{ delay: wrong }}\n");
    let output = check(
        &text,
        &[
            ("BEARERD__SHUTDOWN__DELAY", "1s"),
            ("BEARERD__TOKEN_SERVICES__DEFAULT__URL", "https://other.example.com"),
            ("BEARERD__WORKERS", "3"),
        ],
    );
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let output = check(&text, &[("BEARERD__SHUTDOWN__DELAY", "canary"), ("BEARERD__LOGING__LEVEL", "info")]);
    assert_eq!(output.status.code(), Some(78));
    assert_eq!(
        stderr(&output),
        "environment variable BEARERD__LOGING__LEVEL: there is no key `LOGING`, did you mean `LOGGING`?\n\n\
         environment variable BEARERD__SHUTDOWN__DELAY: its value is not a duration\n  = help: write a number with a unit, as `500ms`, `30s`, `5m` or `24h`\n"
    );
}

#[test]
fn warnings_do_not_fail() {
    let text = "token_services:\n  default: { kind: iap, url: \"http://tokens.example.com\" }\nupstreams:\n  app: { servers: [\"a:1\"] }\n  other: { servers: [\"a:1\"] }\nroutes:\n  - upstream: app\n  - upstream: app\n";
    let output = check(text, &[]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let heads: Vec<String> = stderr(&output).lines().filter(|line| line.starts_with("warning")).map(str::to_owned).collect();
    assert_eq!(
        heads,
        [
            "warning: bearerd.yaml:2:30: API keys and tokens travel to this token service in the clear",
            "warning: bearerd.yaml:5:3: no route uses the upstream `other`",
            "warning: bearerd.yaml:8:5: this route is never reached: routes[0] takes every request",
        ]
    );
}
