//! Mistakes in how listeners and upstreams are spoken to, and in the files of TLS.

use std::fs;

use super::{BASE, check, stderr, stdout};
use crate::support::tls::Authority;

/// What a whole configuration is told, and its exit code.
fn told(text: &str) -> (Option<i32>, String) {
    let output = check(text, &[]);
    (output.status.code(), stderr(&output))
}

#[test]
fn files_of_certificates_are_read_matched_and_dated() {
    let authority = Authority::new();
    let listener = |pair: &str| {
        format!("listeners: [{{ address: 127.0.0.1:0, tls: {{ certificates: [{pair}] }} }}]\n{BASE}routes: [{{ upstream: app }}]\n")
    };
    let good = authority.issue("app.test");
    assert_eq!(told(&listener(&authority.yaml_pair("good", &good))), (Some(0), String::new()));
    let (code, text) = told(&listener(&authority.yaml_pair("mixed", &(good.0.clone(), authority.issue("app.test").1))));
    assert_eq!(code, Some(78));
    assert!(text.contains("mixed.key") && text.contains("does not go with the certificate"), "{text}");
    let (code, text) = told(&listener("{ certificate: missing.crt, private_key: missing.key }"));
    assert_eq!(code, Some(78));
    assert!(text.matches("there is no such file").count() == 2, "{text}");
    // Out of date: told by `check` with its exit code, and no reason not to start.
    let expired = listener(&authority.yaml_pair("expired", &authority.issue_expired("app.test")));
    let output = check(&expired, &[]);
    assert_eq!((output.status.code(), stdout(&output)), (Some(78), String::new()));
    assert!(stderr(&output).contains("expired on Jan  1") && stderr(&output).contains("bearerd.yaml:1:"), "{}", stderr(&output));
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("bearerd.yaml"), &expired).unwrap();
    let loaded = bearerd::config::load(&folder.path().join("bearerd.yaml")).expect("it starts");
    assert_eq!(loaded.lapsed.len(), 1);
    // The same of what is shown to servers.
    let (certificate, key) = authority.issue_expired("bearerd");
    let (certificate, key) = (authority.file("c.crt", &certificate), authority.file("c.key", &key));
    let tls = format!("tls: {{ certificate: {}, private_key: {} }}", certificate.display(), key.display());
    let upstream = BASE.replace("servers: [\"127.0.0.1:3000\"]", &format!("servers: [\"app:3000\"], {tls}"));
    assert_eq!(told(&format!("{upstream}routes: [{{ upstream: app }}]\n")).0, Some(78));
    let service = BASE.replace("com\" }", &format!("com\", {tls} }}"));
    assert_eq!(told(&format!("{service}routes: [{{ upstream: app }}]\n")).0, Some(78));
}

#[test]
fn what_contradicts_itself_is_told() {
    let authority = Authority::new();
    let pair = authority.yaml_pair("a", &authority.issue("app.test"));
    let route = "routes: [{ upstream: app }]\n";
    let listener = |text: &str| format!("listeners: [{{ address: 127.0.0.1:0, {text} }}]\n{BASE}{route}");
    let upstream = |text: &str| format!("{}{route}", BASE.replace("3000\"]", &format!("3000\"], {text}")));
    for (text, words) in [
        (listener(&format!("h2c: true, tls: {{ certificates: [{pair}] }}")), "remove one of them"),
        (listener(&format!("tls: {{ certificates: [{pair}], client_certificates: optional }}")), "add `client_ca`"),
        (listener("tls: { certificates: [] }"), "certificates"),
        (upstream("protocol: http2"), "add `tls: {}`, or write `h2c`"),
        (upstream("protocol: h2c, tls: {}"), "write `http2`, or remove `tls`"),
        (upstream("protocol: auto"), "there is no `tls`"),
        (upstream("protocol: http3"), "http3"),
        (upstream("tls: { certificate: /dev/null }"), "`certificate` without `private_key`"),
        (upstream("tls: { sni: \"a b\" }"), "not the name of a host"),
        (upstream("balance: fastest"), "round_robin"),
        (upstream("health_check: { path: healthz }"), "healthz"),
        (upstream("health_check: { path: /, interval: 1ms }"), "too short"),
        (
            format!("{BASE}routes: [{{ upstream: app, require: {{ client_certificate: {{ common_name: a }} }} }}]\n"),
            "no listener asks callers for certificates",
        ),
        (
            format!("{BASE}routes: [{{ upstream: app, require: {{ client_certificate: {{ comon_name: a }} }} }}]\n"),
            "did you mean `common_name`?",
        ),
        (format!("{BASE}routes: [{{ upstream: app, on_expiry: end }}]\n"), "close"),
        (
            format!("{BASE}routes: [{{ upstream: app, headers: {{ set: {{ X-C: \"{{client_certificate.uri}}\" }} }} }}]\n"),
            "leave the certificate out",
        ),
    ] {
        let (code, told) = told(&text);
        assert_eq!(code, Some(78), "{text}\n{told}");
        assert!(told.contains(words), "{text}\n{told}");
    }
    let (code, text) = told(&upstream("tls: { verify: false }"));
    assert_eq!(code, Some(0));
    assert!(text.contains("any certificate is taken"), "{text}");
}
