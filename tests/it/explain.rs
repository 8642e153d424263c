//! `bearerd explain`, the real binary: the whole decision in words, and nothing secret in them.

use std::process::{Command, Output};

use serde_json::json;
use tempfile::TempDir;

use crate::support::jwt::{Signer, in_seconds, key_set};

fn folder(routes: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "token_services:\n  default: {{ kind: iap, url: \"https://tokens.example.com\" }}\nupstreams:\n  app: {{ servers: [\"127.0.0.1:3000\"] }}\nroutes:\n{routes}\n"
    );
    std::fs::write(folder.path().join("bearerd.yaml"), text).unwrap();
    folder
}

fn run(folder: &TempDir, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bearerd")).arg("explain").args(arguments).current_dir(folder.path()).env_clear().output().unwrap()
}

fn explain(folder: &TempDir, arguments: &[&str]) -> String {
    let output = run(folder, arguments);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

const ROUTES: &str = "
  - { name: public, match: { path_prefix: /public }, upstream: app, auth: none }
  - name: api
    match: { path_prefix: /api, methods: [GET] }
    upstream: app
    credentials: [api_key, { api_key: { query: key } }]
    token: { scopes: [A, B], client_id: legacy }
    require: { scopes: [A], claims: { tid: acme } }
    headers: { set: { X-User: \"{claims.sub}\" }, remove: [Cookie] }
  - { name: shadow, match: { path: /shadow }, upstream: app, enforce: false }";

#[test]
fn the_whole_decision_in_readable_lines() {
    let folder = folder(ROUTES);
    let told = explain(&folder, &["GET", "/api/x?key=canary&a=b", "-H", "Host: h.test", "-H", "Cookie: canary", "-H", "X-User: me"]);
    assert_eq!(
        told,
        "\
request     GET /api/x for the host `h.test`, from 127.0.0.1
not         public (routes[0]): the path does not fit
route       api (routes[1])
credential  api_key of 6 characters
exchange    a token at hand, or create_token at `default` (https://tokens.example.com) client_id=legacy scopes=A,B
            checked by get_token_details before its first use
require     the scope A
require     the claim tid is `acme`
            open: the token would tell; give its claims with --claims
upstream    app: 127.0.0.1:3000
sends       GET /api/x?a=b
            host: h.test
            authorization: Bearer <the token>
            x-forwarded-for: 127.0.0.1
            x-forwarded-proto: http
            x-forwarded-host: h.test
            x-request-id: <its id>
            via: 1.1 bearerd
            x-user: {claims.sub}
strips      cookie, x-user
answer      what the upstream answers
"
    );
}

#[test]
fn claims_settle_what_is_open() {
    let folder = folder(ROUTES);
    let ask = |claims: &str| explain(&folder, &["GET", "/api", "-H", "X-API-Key: canary", "--claims", claims]);
    let good = ask(r#"{"scope":"A,B","tid":"acme","sub":"alice"}"#);
    assert!(good.contains("x-user: alice\n") && good.contains("strips      x-api-key\n") && !good.contains("canary"), "{good}");
    let bad = ask(r#"{"scope":"B"}"#);
    assert!(bad.contains("answer      403 insufficient_scope: The token lacks the scope `A`") && bad.contains("scope=\"A\""), "{bad}");
}

#[test]
fn refusals_are_those_that_the_caller_would_get() {
    let folder = folder(ROUTES);
    for (arguments, expected) in [
        (
            &["GET", "/api"][..],
            "answer      401 missing_credential: Send a credential in the header `x-api-key`, or the query parameter `key`.",
        ),
        (&["GET", "/api", "-H", "X-API-Key: a", "-H", "X-API-Key: b"], "answer      400 invalid_credential: "),
        (&["POST", "/api"], "not         api (routes[1]): the method does not fit"),
        (&["POST", "/api"], "answer      404 no_route: "),
        (&["GET", "/public/../api"], "answer      400 bad_request: "),
        (&["GET", "/shadow"], "shadow      would be refused (401 missing_credential), but `enforce` is false"),
        (&["GET", "/public", "-H", "Authorization: Basic dTpw"], "strips      authorization"),
    ] {
        let told = explain(&folder, arguments);
        assert!(told.contains(expected), "{arguments:?}: {told}");
    }
}

#[test]
fn a_jwt_is_checked_where_its_keys_are_at_hand() {
    let (signer, stranger) = (Signer::new("k1"), Signer::new("k1"));
    let folder = folder(
        "  - { upstream: app, validate: { jwt: { jwks_file: keys.json, algorithms: [ES256], audiences: [app] } }, require: { claims: { sub: alice } } }",
    );
    std::fs::write(folder.path().join("keys.json"), key_set(&[&signer])).unwrap();
    let ask = |token: String| explain(&folder, &["GET", "/", "-H", &format!("Authorization: Bearer {token}")]);
    let good = signer.token(&json!({ "sub": "alice" }));
    let told = ask(good.clone());
    assert!(told.contains("jwt         signed by a key of ") && told.contains("answer      what the upstream answers"), "{told}");
    assert!(!told.contains(&good), "{told}");
    assert!(ask(signer.token(&json!({ "sub": "bob" }))).contains("403 insufficient_scope"));
    assert!(
        ask(signer.token(&json!({ "sub": "alice", "aud": "x" }))).contains("401 invalid_token: The JWT is not accepted: its claim `aud`")
    );
    assert!(
        ask(signer.token(&json!({ "sub": "alice", "nbf": in_seconds(3600) })))
            .contains("401 invalid_token: The JWT is not accepted: its claim `nbf`")
    );
    let unending = signer.sign(r#"{"alg":"ES256","kid":"k1"}"#, r#"{"sub":"alice","aud":"app"}"#);
    assert!(ask(unending).contains("401 invalid_token: The JWT is not accepted: its claim `exp`"));
    assert!(ask(stranger.token(&json!({ "sub": "alice" }))).contains("401 invalid_token: The JWT is not accepted: its signature is wrong"));
}

#[test]
fn a_request_that_cannot_be_one_is_told_without_its_secrets() {
    let folder = folder(ROUTES);
    for arguments in [
        &["GET", "/x y"][..],
        &["GET", "/", "-H", "X-API-Key canary"],
        &["GET", "/", "-H", "X Y: canary"],
        &["GET", "/", "--claims", "canary"],
    ] {
        let output = run(&folder, arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(!String::from_utf8_lossy(&output.stderr).contains("canary"), "{arguments:?}");
    }
    assert_eq!(run(&folder, &["G@T", "/"]).status.code(), Some(2));
    std::fs::write(folder.path().join("bearerd.yaml"), "routs: []\n").unwrap();
    assert_eq!(run(&folder, &["GET", "/"]).status.code(), Some(78));
}

#[test]
fn a_decision_is_explained_as_what_the_asking_proxy_gets() {
    let folder = tempfile::tempdir().unwrap();
    let text = "listeners: [{ address: 127.0.0.1:0, mode: decision }]\ntoken_services: { default: { kind: iap, url: \"https://tokens.example.com\" } }\n\
                routes: [{ headers: { set: { X-User: \"{claims.sub}\" } } }]\n";
    std::fs::write(folder.path().join("bearerd.yaml"), text).unwrap();
    let told = explain(&folder, &["GET", "/", "-H", "X-API-Key: canary", "--claims", r#"{"sub":"alice"}"#]);
    for line in ["tells       authorization: Bearer <the token>", "X-User: alice", "answer      200, to the proxy that asks"] {
        assert!(told.contains(line), "{told}");
    }
    assert!(!told.contains("canary"));
}
