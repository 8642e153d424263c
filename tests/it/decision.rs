//! `mode: decision`: a proxy that is already there asks, and the answer is all that it gets.

use crate::support::bearerd::Bearerd;
use crate::support::client::{Client, Response, get};
use crate::support::jwt::unsigned;
use crate::support::process::Process;
use crate::support::stage::surroundings;
use crate::support::token_service::{Behaviour, Operation, ScriptedTokenService, claims, subject};

const ROUTES: &str = "
  - { name: public, match: { path_prefix: /public }, auth: none }
  - { name: read, match: { path_prefix: /read, methods: [GET] }, headers: { set: { X-User: \"{claims.sub}\" }, remove: [Cookie] } }
  - { name: gone, match: { path: /gone }, auth: none, respond: { status: 410 } }
  - { name: query, match: { path: /query }, credentials: [api_key: { query: key }] }
  - { name: shadow, match: { path: /shadow }, enforce: false }
  - { name: scoped, match: { path: /scoped, hosts: [app.test] }, require: { scopes: [ADMIN] } }
  - { name: often, match: { path: /often }, rate_limit: { requests: 1, per: 1h } }";

async fn deciding(listener: &str) -> (Bearerd, ScriptedTokenService) {
    let (service, _) = surroundings().await;
    let text = format!(
        "listeners: [{{ address: 127.0.0.1:0, mode: decision{listener} }}]\ntoken_services: {{ default: {{ kind: iap, url: \"{}\" }} }}\n\
         logging: {{ access: false }}\nroutes:{ROUTES}\n",
        service.url()
    );
    (Bearerd::start(&text), service)
}

fn bearer_subject(response: &Response) -> String {
    let lines = response.head.all("authorization");
    assert_eq!(lines.len(), 1, "{response:?}");
    claims(lines[0].strip_prefix("Bearer ").expect("a Bearer"))["sub"].as_str().unwrap().to_owned()
}

fn removed(response: &Response) -> Vec<String> {
    let mut names: Vec<String> =
        response.header("x-envoy-auth-headers-to-remove").unwrap_or_default().split(',').map(str::to_owned).collect();
    names.sort();
    names
}

#[tokio::test]
async fn yes_comes_with_a_token_and_with_what_must_not_go_on() {
    let (bearerd, service) = deciding("").await;
    for telling in [
        &[("X-Original-URI", "/read/a?b"), ("X-Original-Method", "GET")][..],
        &[("X-Original-URL", "https://app.test/read/a"), ("X-Original-Method", "GET")],
        &[("X-Forwarded-Uri", "/read/a"), ("X-Forwarded-Method", "GET"), ("X-Forwarded-Host", "app.test")],
    ] {
        let answer = get(bearerd.address(), "/auth", &[telling, &[("X-API-Key", "alice"), ("X_User", "root")]].concat()).await;
        assert_eq!((answer.status, bearer_subject(&answer).as_str()), (200, subject("alice").as_str()), "{telling:?}");
        assert_eq!(answer.header("x-user"), Some(subject("alice").as_str()));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert!(answer.header("x-request-id").is_none() && answer.body.text().is_empty());
        assert_eq!(removed(&answer), ["cookie", "x-api-key", "x_user"]);
    }
    // Envoy asks with the request line of the original.
    let answer = get(bearerd.address(), "/read/b", &[("X-API-Key", "alice")]).await;
    assert_eq!(bearer_subject(&answer), subject("alice"));
    assert_eq!(service.calls(Operation::Create), 1);
    assert_eq!(bearerd.value(r#"bearerd_auth_decisions_total{reason="",result="allowed",route="read"}"#).await, 4.0);
}

#[tokio::test]
async fn no_is_the_tables_row_and_outages_stay_outages() {
    let (bearerd, service) = deciding("").await;
    let mut client = Client::connect(bearerd.address()).await;
    let mut ask = async |path: &str, headers: &[(&str, &str)]| {
        let answer = client.get(path, headers).await;
        assert!(answer.header("authorization").is_none());
        (answer.status, answer.problem())
    };
    assert_eq!(ask("/nowhere", &[]).await, (404, "no_route".to_owned()));
    assert_eq!(ask("/read", &[]).await, (401, "missing_credential".to_owned()));
    assert_eq!(ask("/read", &[("X-API-Key", "a"), ("X-API-Key", "b")]).await, (400, "invalid_credential".to_owned()));
    service.always(Operation::Create, Behaviour::status(500));
    assert_eq!(ask("/read", &[("X-API-Key", "a")]).await, (503, "token_service_unavailable".to_owned()));
}

#[tokio::test]
async fn nginx_gets_statuses_that_it_passes_on() {
    let (bearerd, service) = deciding(", decision_status: nginx, decision_request: x_original").await;
    let ask = async |uri: &str, headers: &[(&str, &str)]| {
        let told = [&[("X-Original-URI", uri), ("X-Original-Method", "GET")], headers].concat();
        let answer = get(bearerd.address(), "/auth", &told).await;
        assert!(answer.status != 401 || answer.header("www-authenticate").is_some());
        assert_eq!(answer.header("x-bearerd-reason"), Some(answer.problem().as_str()));
        (answer.status, answer.problem())
    };
    assert_eq!(ask("/nowhere", &[]).await, (403, "no_route".to_owned()));
    assert_eq!(ask("/read", &[]).await, (401, "missing_credential".to_owned()));
    assert_eq!(ask("/read", &[("X-API-Key", "a"), ("X-API-Key", "b")]).await, (401, "invalid_credential".to_owned()));
    assert_eq!(ask("/public/..%2fread", &[]).await, (401, "bad_request".to_owned()));
    assert_eq!(
        get(bearerd.address(), "/auth", &[("X-Original-URI", "/often"), ("X-Original-Method", "GET"), ("X-API-Key", "a")]).await.status,
        200
    );
    assert_eq!(ask("/often", &[("X-API-Key", "a")]).await, (403, "rate_limited".to_owned()));
    service.always(Operation::Create, Behaviour::status(500));
    assert_eq!(ask("/read", &[("X-API-Key", "b")]).await, (503, "token_service_unavailable".to_owned()));
    // A proxy that does not tell what it was asked for is told so.
    assert_eq!(get(bearerd.address(), "/public", &[]).await.header("x-bearerd-reason"), Some("bad_request"));
}

/// nginx makes a 500 of every status that it does not know, also of those that a route answers by itself.
#[tokio::test]
async fn nginx_gets_fixed_answers_that_it_passes_on_and_no_token_with_a_no() {
    let (service, _) = surroundings().await;
    for (listener, is_nginx) in [("exact", false), ("nginx", true)] {
        let mut routes = String::new();
        for status in [204, 302, 400, 401, 403, 404, 410, 503] {
            routes.push_str(&format!("  - {{ match: {{ path: /{status} }}, respond: {{ status: {status} }} }}\n"));
        }
        let bearerd = Bearerd::start(&format!(
            "listeners: [{{ address: 127.0.0.1:0, mode: decision, decision_status: {listener} }}]\n\
             token_services: {{ default: {{ kind: iap, url: \"{}\" }} }}\nlogging: {{ access: false }}\nroutes:\n{routes}",
            service.url()
        ));
        for (status, nginx) in [(204, 204), (302, 403), (400, 403), (401, 401), (403, 403), (404, 403), (410, 403), (503, 503)] {
            let uri = format!("/{status}");
            let answer = get(bearerd.address(), "/auth", &[("X-Original-URI", &uri), ("X-API-Key", "a")]).await;
            assert_eq!(answer.status, if is_nginx { nginx } else { status }, "{listener} {status}");
            // Some proxies pass all of a no on to the caller, who has no business with the token.
            assert_eq!(answer.header("authorization").is_some(), answer.status == 204, "{listener} {status}");
        }
    }
}

#[tokio::test]
async fn methods_hosts_queries_and_fixed_answers_count_as_they_do_in_a_proxy() {
    let (bearerd, service) = deciding("").await;
    service.always(Operation::Create, Behaviour::Token(unsigned(&serde_json::json!({ "sub": "a", "scope": "READ" }))));
    let ask = async |headers: &[(&str, &str)]| get(bearerd.address(), "/auth", headers).await;
    let get_method = ("X-Forwarded-Method", "GET");
    assert_eq!(ask(&[("X-Forwarded-Uri", "/read"), ("X-Forwarded-Method", "POST"), ("X-API-Key", "a")]).await.problem(), "no_route");
    // Routes differ by method, and nothing tells it.
    assert_eq!(ask(&[("X-Forwarded-Uri", "/read"), ("X-API-Key", "a")]).await.problem(), "bad_request");
    assert_eq!(ask(&[("X-Forwarded-Uri", "/gone"), get_method]).await.status, 410);
    assert_eq!(ask(&[("X-Forwarded-Uri", "/query?x=1&key=carol"), get_method]).await.status, 200);
    let shadow = ask(&[("X-Forwarded-Uri", "/shadow"), get_method]).await;
    assert_eq!((shadow.status, shadow.header("authorization")), (200, None));
    let scoped = [("X-Forwarded-Uri", "/scoped"), get_method, ("X-API-Key", "a")];
    assert_eq!(ask(&[&scoped[..], &[("X-Forwarded-Host", "app.test:443")]].concat()).await.problem(), "insufficient_scope");
    assert_eq!(ask(&[&scoped[..], &[("X-Forwarded-Host", "other.test")]].concat()).await.problem(), "no_route");
    // A public path: no token, and the caller's credential does not go on.
    let public = ask(&[("X-Forwarded-Uri", "/public"), get_method, ("Authorization", "Basic YTpi")]).await;
    assert_eq!((public.status, public.header("authorization")), (200, None));
    assert!(removed(&public).contains(&"x-api-key".to_owned()) && removed(&public).contains(&"authorization".to_owned()));
}

/// The asking proxy is a trusted peer: who called is whom it names.
#[tokio::test]
async fn the_peer_is_the_caller_whom_the_asking_proxy_names() {
    let (service, _) = surroundings().await;
    let configuration = |trusted: &str| {
        format!(
            "listeners: [{{ address: 127.0.0.1:0, mode: decision{trusted} }}]\ntoken_services: {{ default: {{ kind: iap, url: \"{}\" }} }}\n\
             routes: [{{ headers: {{ set: {{ X-Peer: \"{{peer}}\" }} }} }}]\n",
            service.url()
        )
    };
    for (trusted, names) in [("", "203.0.113.9"), (", trusted_peers: [10.0.0.1]", "127.0.0.1")] {
        let process = Process::run(&configuration(trusted));
        let addresses = process.addresses().await;
        let forwarded = [("X-Forwarded-For", "198.51.100.1, 203.0.113.9"), ("X-API-Key", "a")];
        assert_eq!(get(addresses.callers[0], "/a", &forwarded).await.header("x-peer"), Some(names), "{trusted}");
        assert_eq!(get(addresses.callers[0], "/a", &forwarded[..1]).await.status, 401);
        let lines = process.output().stderr.clone();
        lines.wait_for(2, |line| line.contains("bearerd::access")).await;
        let lines = lines.all().into_iter().filter(|line| line.contains("bearerd::access"));
        for line in lines {
            assert!(line.contains(&format!("\"peer\":\"{names}\"")), "{line}");
        }
    }
}

/// A caller's word on what it asks for decides nothing.
#[tokio::test]
async fn cve_2026_40575_and_cve_2026_76835_only_trusted_peers_tell_of_other_requests() {
    let (bearerd, _) = deciding(", trusted_peers: [10.0.0.1]").await;
    for name in ["X-Forwarded-Uri", "X-Original-URI", "X-Original-URL"] {
        let answer =
            get(bearerd.address(), "/read", &[(name, "/public"), ("X-Original-Method", "GET"), ("X-Forwarded-Method", "GET")]).await;
        assert_eq!(answer.problem(), "missing_credential", "{name}");
    }
    let (bearerd, _) = deciding("").await;
    let both = [("X-Original-URI", "/read"), ("X-Original-Method", "GET"), ("X-Forwarded-Uri", "/public")];
    assert_eq!(get(bearerd.address(), "/auth", &both).await.problem(), "bad_request");
}

/// nginx passes on what it is not told to replace: a host beside the path that it tells.
#[tokio::test]
async fn a_host_that_contradicts_what_the_proxy_tells_chooses_no_route() {
    let (service, _) = surroundings().await;
    let bearerd = Bearerd::start(&format!(
        "listeners: [{{ address: 127.0.0.1:0, mode: decision, decision_request: x_original }}]\n\
         token_services: {{ default: {{ kind: iap, url: \"{}\" }} }}\nlogging: {{ access: false }}\n\
         routes: [{{ match: {{ hosts: [open.test] }}, auth: none }}, {{ name: api }}]\n",
        service.url()
    ));
    let ask = async |more: &[(&str, &str)]| {
        let told = [&[("X-Original-URI", "/a"), ("X-Original-Method", "GET")], more].concat();
        get(bearerd.address(), "/auth", &told).await
    };
    assert_eq!(ask(&[]).await.problem(), "missing_credential");
    assert_eq!(ask(&[("X-Original-URL", "http://open.test/a")]).await.problem(), "bad_request");
    assert_eq!(ask(&[("X-Original-URL", "http://open.test/a"), ("X-Original-Host", "app.test")]).await.problem(), "bad_request");
    assert_eq!(ask(&[("X-Original-URL", "http://app.test/a"), ("X-Original-Host", "open.test")]).await.problem(), "bad_request");
    assert_eq!(ask(&[("X-Original-Host", "open.test")]).await.status, 200, "which is why the proxy must set it");
}

/// No body is waited for, and none is taken for another request.
#[tokio::test]
async fn a_body_is_neither_waited_for_nor_taken_for_a_request() {
    let (bearerd, _) = deciding("").await;
    let mut client = Client::connect(bearerd.address()).await;
    client.send("POST /public HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nGET /public HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.receive().await.status, 200);
    client.closed().await;
}
