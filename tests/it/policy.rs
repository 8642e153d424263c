//! What a token must say, and what the upstream is told of its holder: decided on each request, for each route.

use serde_json::{Value, json};

use crate::support::bearerd::Bearerd;
use crate::support::client::{Client, Response, get};
use crate::support::jwt::unsigned;
use crate::support::stage::{Stage, surroundings};
use crate::support::token_service::{Behaviour, Operation};
use crate::support::upstream::Reply;

/// A stage whose token service mints tokens of these claims.
async fn minting(claims: &Value, routes: &str) -> Stage {
    let stage = Stage::with_routes(routes).await;
    stage.service.always(Operation::Create, Behaviour::Token(unsigned(claims)));
    stage
}

async fn ask(stage: &Stage, path: &str) -> Response {
    get(stage.bearerd.address(), path, &[("X-API-Key", "k")]).await
}

#[tokio::test]
async fn scopes_and_claims_decide_and_a_refusal_names_what_is_missing() {
    let claims = json!({
        "sub": "alice", "scope": "GDS.READ,GDS.WRITE", "tid": "dXJuOmlsbW46aWFwOnRlbmFudDphY21l", "acl": ["team-a"], "mem": { "cid:7": {} },
        "realm": { "roles": ["admin", "user"] }, "level": 7,
    });
    let routes = "
  - { name: good, match: { path: /good }, upstream: app, require: { scopes: [GDS.READ], claims: { tid: acme, acl: \"team-*\", mem: \"cid:7\", realm.roles: [x, admin], level: 7, sub: { present: true }, x: { present: false } } } }
  - { name: scope, match: { path: /scope }, upstream: app, require: { scopes: [GDS.READ, GDS.ADMIN] } }
  - { name: tenant, match: { path: /tenant }, upstream: app, require: { claims: { tid: other } } }
  - { name: type, match: { path: /type }, upstream: app, require: { claims: { level: \"7\" } } }";
    let stage = minting(&claims, routes).await;
    assert_eq!(ask(&stage, "/good").await.status, 200);
    for _ in 0..2 {
        let refused = ask(&stage, "/scope").await;
        assert_eq!((refused.status, refused.problem().as_str()), (403, "insufficient_scope"));
        assert_eq!(
            refused.header("www-authenticate"),
            Some("Bearer realm=\"bearerd\", error=\"insufficient_scope\", scope=\"GDS.READ GDS.ADMIN\"")
        );
        assert!(refused.body.json()["detail"].as_str().unwrap().contains("`GDS.ADMIN`"));
    }
    for path in ["/tenant", "/type"] {
        let refused = ask(&stage, path).await;
        assert_eq!((refused.status, refused.problem().as_str()), (403, "insufficient_scope"), "{path}");
        assert_eq!(refused.header("www-authenticate"), Some("Bearer realm=\"bearerd\", error=\"insufficient_scope\""));
    }
    assert_eq!(stage.upstream.requests().len(), 1);
    assert_eq!(
        stage.bearerd.value(r#"bearerd_auth_decisions_total{reason="insufficient_scope",result="denied",route="scope"}"#).await,
        2.0
    );
}

/// One token, several routes: what one lets through says nothing about another. Also CVE-2021-32701.
#[tokio::test]
async fn cve_2026_33496_a_hit_is_judged_by_its_own_route() {
    let routes = "
  - { name: open, match: { path_prefix: /open }, upstream: app }
  - { name: narrow, match: { path_prefix: /narrow }, upstream: app, require: { scopes: [ADMIN] } }
  - { name: wide, match: { path_prefix: /wide }, upstream: app, require: { scopes: [READ] } }";
    let stage = minting(&json!({ "sub": "a", "scope": "READ" }), routes).await;
    for _ in 0..3 {
        assert_eq!(ask(&stage, "/open").await.status, 200);
        assert_eq!(ask(&stage, "/narrow").await.status, 403);
        assert_eq!(ask(&stage, "/wide").await.status, 200);
    }
    assert_eq!(stage.service.calls(Operation::Create), 1, "one token serves all three");
}

/// A renewed token that says less is judged by what it says.
#[tokio::test]
async fn another_token_is_another_verdict() {
    let routes = "  - { upstream: app, require: { scopes: [READ] } }";
    let stage = minting(&json!({ "scope": "READ" }), routes).await;
    assert_eq!(ask(&stage, "/").await.status, 200);
    stage.service.always(Operation::Create, Behaviour::Token(unsigned(&json!({ "scope": "NONE" }))));
    stage.upstream.reply_next(Reply::status(401));
    assert_eq!(ask(&stage, "/").await.status, 401, "what comes in its place may not be sent");
    assert_eq!(ask(&stage, "/").await.status, 403);
}

#[tokio::test]
async fn tokens_without_claims_satisfy_nothing() {
    let stage = Stage::with_routes("  - { upstream: app, require: { claims: { sub: \"*\" } } }").await;
    stage.service.always(Operation::Create, Behaviour::Token("pst_opaque".to_owned()));
    assert_eq!(ask(&stage, "/").await.problem(), "insufficient_scope");
}

#[tokio::test]
async fn the_upstream_is_told_who_calls_and_callers_cannot_say_it() {
    let claims = json!({ "sub": "alice", "name": "Jürgen", "acl": ["a", "b"], "mem": { "cid:7": {} }, "evil": "a\r\nX-Admin: 1", "list": ["a,b"], "blank": " root" });
    let routes = "
  - name: api
    match: { path_prefix: /api }
    upstream: app
    headers:
      set:
        X-Remote-User: \"{claims.sub}\"
        X-Name: \"{claims.name}\"
        X-Groups: \"{claims.acl}\"
        X-Projects: \"{claims.mem}\"
        X-Origin: \"{route} {peer} {request_id}\"
        X-Braces: \"{{literal}}\"
        X-Missing: \"{claims.nobody}\"
        X-Evil: \"{claims.evil}\"
        X-List: \"{claims.list}\"
        X-Blank: \"{claims.blank}\"
      remove: [Cookie]
  - { name: public, match: { path_prefix: /public }, auth: none, upstream: app }";
    let stage = minting(&claims, routes).await;
    let forged: Vec<(String, &str)> = ["Remote-User", "Name", "Groups", "Projects", "Origin", "Braces", "Missing", "Evil", "List", "Blank"]
        .iter()
        .flat_map(|name| [format!("X-{name}"), format!("x_{}", name.to_lowercase()), format!("X.{name}")])
        .map(|name| (name, "canary"))
        .collect();
    let mut headers: Vec<(&str, &str)> = forged.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    headers.extend([("X-API-Key", "k"), ("X-Request-Id", "id-1"), ("Cookie", "canary")]);
    for path in ["/api", "/public"] {
        assert_eq!(get(stage.bearerd.address(), path, &headers).await.status, 200);
        let seen = stage.last();
        assert!(!seen.head.headers.iter().any(|(name, value)| value == "canary" && name != "Cookie"), "{path}: {:?}", seen.head);
    }
    assert_eq!(get(stage.bearerd.address(), "/api", &headers).await.status, 200);
    let seen = stage.last();
    for (name, value) in [
        ("x-remote-user", "alice"),
        // The head is read as Latin-1; these are the two bytes of UTF-8.
        ("x-name", "J\u{c3}\u{bc}rgen"),
        ("x-groups", "a,b"),
        ("x-projects", "cid:7"),
        ("x-braces", "{literal}"),
    ] {
        assert_eq!(seen.head.all(name), [value], "{name}");
    }
    let request_id = seen.head.header("x-request-id").unwrap();
    assert_eq!(seen.head.all("x-origin"), [format!("api 127.0.0.1 {request_id}")]);
    for left_out in ["x-missing", "x-evil", "x-admin", "x-list", "x-blank", "cookie"] {
        assert!(seen.head.header(left_out).is_none(), "{left_out}");
    }
}

#[tokio::test]
async fn answers_are_edited_too() {
    let routes = "
  - { name: api, match: { path: / }, upstream: app, auth: none, headers: { response: { set: { X-Request-Id: \"{request_id}\", X-Frame-Options: DENY }, remove: [Server, Set-Cookie] } } }
  - { name: fixed, respond: { status: 204 }, auth: none, headers: { response: { set: { X-Route: \"{route}\" } } } }";
    let stage = Stage::with_routes(routes).await;
    let lines = [("Server", "secret/1.0"), ("Set-Cookie", "a"), ("Set-Cookie", "b"), ("X-Frame-Options", "ALLOW"), ("X-Kept", "1")];
    let headers = lines.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    stage.upstream.reply_next(Reply::Fixed { status: 200, headers, body: Vec::new() });
    let answer = get(stage.bearerd.address(), "/", &[]).await;
    assert_eq!(answer.head.all("x-frame-options"), ["DENY"]);
    assert_eq!(answer.header("x-request-id"), stage.last().head.header("x-request-id"));
    assert_eq!((answer.header("server"), answer.header("set-cookie"), answer.header("x-kept")), (None, None, Some("1")));
    assert_eq!(get(stage.bearerd.address(), "/other", &[]).await.header("x-route"), Some("fixed"));
}

#[tokio::test]
async fn a_header_section_that_the_upstream_does_not_take_is_not_sent() {
    let (service, upstream) = surroundings().await;
    let bearerd = Bearerd::start(&format!(
        "token_services: {{ default: {{ kind: iap, url: \"{}\" }} }}\nupstreams: {{ app: {{ servers: [\"{}\"], header_bytes: 2KiB }} }}\nroutes: [{{ upstream: app }}]\n",
        service.url(),
        upstream.address()
    ));
    service.always(Operation::Create, Behaviour::Token(unsigned(&json!({ "pad": "x".repeat(900) }))));
    let of = |length: usize| "y".repeat(length);
    let mut client = Client::connect(bearerd.address()).await;
    assert_eq!(client.get("/", &[("X-API-Key", "k"), ("X-Pad", &of(100))]).await.status, 200);
    // Alone it would fit; with the token it does not.
    let ours = client.get("/", &[("X-API-Key", "k"), ("X-Pad", &of(1500))]).await;
    assert_eq!((ours.status, ours.problem().as_str()), (502, "header_too_large"));
    let theirs = get(bearerd.address(), "/", &[("X-API-Key", "k"), ("X-Pad", &of(3000))]).await;
    assert_eq!((theirs.status, theirs.problem().as_str()), (431, "header_too_large"));
    assert_eq!(upstream.requests().len(), 1);
    assert_eq!(get(bearerd.address(), "/", &[("X-API-Key", "k")]).await.status, 200);
}

#[tokio::test]
async fn a_rate_limit_is_told_and_kept() {
    let routes = "
  - { name: by-key, match: { path_prefix: /key }, upstream: app, rate_limit: { requests: 3, per: 1h } }
  - { name: by-peer, match: { path_prefix: /peer }, upstream: app, rate_limit: { requests: 2, per: 1h, by: peer } }
  - { name: by-route, match: { path_prefix: /route }, upstream: app, auth: none, rate_limit: { requests: 1, per: 1h, by: route } }";
    let stage = Stage::with_routes(routes).await;
    let at = stage.bearerd.address();
    for left in ["2", "1", "0"] {
        let answer = get(at, "/key", &[("X-API-Key", "k")]).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("ratelimit-policy"), Some("\"bearerd\";q=3;w=3600"));
        assert!(answer.header("ratelimit").unwrap().starts_with(&format!("\"bearerd\";r={left};t=")), "{answer:?}");
    }
    let refused = get(at, "/key", &[("X-API-Key", "k")]).await;
    assert_eq!((refused.status, refused.problem().as_str()), (429, "rate_limited"));
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=1200).contains(&wait), "{wait}");
    assert!(refused.header("ratelimit").unwrap().starts_with("\"bearerd\";r=0;t="));
    assert_eq!(get(at, "/key", &[("X-API-Key", "other")]).await.status, 200, "another key has its own");
    // CVE-2026-110726: nobody's word about who called counts.
    for (number, forwarded) in ["1.1.1.1", "2.2.2.2", "3.3.3.3"].into_iter().enumerate() {
        let answer = get(at, "/peer", &[("X-API-Key", &format!("k{number}")), ("X-Forwarded-For", forwarded)]).await;
        assert_eq!(answer.status, if number < 2 { 200 } else { 429 }, "{forwarded}");
    }
    assert_eq!((get(at, "/route", &[]).await.status, get(at, "/route", &[]).await.status), (200, 429));
}

/// Also before the token service: whoever guesses keys is stopped by their address.
#[tokio::test]
async fn a_limit_by_peer_stops_guessing_before_the_token_service_hears_of_it() {
    let stage = Stage::configured(
        "listeners: [{ address: 127.0.0.1:0, trusted_peers: [127.0.0.1] }]",
        "  - { upstream: app, rate_limit: { requests: 5, per: 1h, by: peer } }",
    )
    .await;
    stage.service.always(Operation::Create, Behaviour::status(401));
    let mut client = stage.client().await;
    for number in 0..20 {
        let key = format!("guess-{number}");
        let answer = client.get("/", &[("X-API-Key", &key), ("X-Forwarded-For", "9.9.9.9, 10.1.1.1")]).await;
        assert_eq!(answer.status, if number < 5 { 401 } else { 429 });
    }
    assert_eq!(stage.service.calls(Operation::Create), 5);
    // Behind a trusted peer, the address that it names has the allowance, not the peer.
    assert_eq!(client.get("/", &[("X-API-Key", "k"), ("X-Forwarded-For", "9.9.9.9, 10.1.1.2")]).await.status, 401);
}

#[tokio::test]
async fn in_shadow_mode_everything_is_counted_and_nothing_is_changed() {
    let routes = "
  - { name: shadow, match: { path_prefix: /shadow }, upstream: app, enforce: false, require: { scopes: [READ] }, headers: { set: { X-User: \"{claims.sub}\" }, remove: [Cookie] } }
  - { name: api, upstream: app }";
    let stage = minting(&json!({ "sub": "a", "scope": "NONE" }), routes).await;
    let decisions =
        |result: &str, reason: &str| format!("bearerd_auth_decisions_total{{reason=\"{reason}\",result=\"{result}\",route=\"shadow\"}}");
    let raw = "GET /shadow/x?api_key=q HTTP/1.1\r\nHost: app.test\r\nX-API-Key: k\r\nX-User: me\r\nCookie: c\r\nX-Forwarded-For: 1.2.3.4\r\nAuthorization: Basic abc\r\n\r\n";
    let mut client = stage.client().await;
    assert_eq!(client.exchange(raw).await.status, 200);
    let seen = stage.last();
    let expected = [
        ("Host", "app.test"),
        ("X-API-Key", "k"),
        ("X-User", "me"),
        ("Cookie", "c"),
        ("X-Forwarded-For", "1.2.3.4"),
        ("Authorization", "Basic abc"),
    ];
    let expected: Vec<(String, String)> = expected.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    assert_eq!((seen.target(), &seen.head.headers), ("/shadow/x?api_key=q", &expected));
    stage.bearerd.until(&decisions("would_deny", "invalid_credential"), 1.0).await;
    assert_eq!(client.get("/shadow", &[]).await.status, 200);
    stage.bearerd.until(&decisions("would_deny", "missing_credential"), 1.0).await;
    // The first time behind the request, then from the cache.
    for count in [1.0, 2.0] {
        assert_eq!(client.get("/shadow", &[("X-API-Key", "k")]).await.status, 200);
        stage.bearerd.until(&decisions("would_deny", "insufficient_scope"), count).await;
    }
    stage.service.always(Operation::Create, Behaviour::Token(unsigned(&json!({ "scope": "READ" }))));
    assert_eq!(client.get("/shadow", &[("X-API-Key", "good")]).await.status, 200);
    stage.bearerd.until(&decisions("allowed", ""), 1.0).await;
    assert!(stage.upstream.requests().iter().all(|seen| !seen.head.all("authorization").iter().any(|value| value.starts_with("Bearer"))));
}

/// Whoever tries it out is not held up by a token service that does not answer.
#[tokio::test]
async fn in_shadow_mode_nobody_waits_for_the_token_service() {
    let stage = Stage::with_routes("  - { name: shadow, upstream: app, enforce: false }").await;
    stage.service.always(Operation::Create, Behaviour::Hang);
    assert_eq!(ask(&stage, "/").await.status, 200);
    stage.service.wait_for_calls(Operation::Create, 1).await;
}
