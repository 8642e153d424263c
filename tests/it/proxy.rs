//! The main job: what the upstream receives, and what callers get.

use crate::support::bearerd::Bearerd;
use crate::support::client::{Client, get};
use crate::support::stage::surroundings;
use crate::support::token_service::{Behaviour, Operation, ScriptedTokenService, claims, subject};
use crate::support::upstream::{RecordingUpstream, Reply};

const ONE_ROUTE: &str = "  - { name: api, upstream: app, validate: { details: off } }";

/// `sub` of the token that the upstream got last.
fn injected_subject(upstream: &RecordingUpstream) -> String {
    upstream.requests().pop().expect("the upstream was asked").subject()
}

#[tokio::test]
async fn a_key_becomes_a_bearer_and_is_minted_once() {
    let (service, upstream) = surroundings().await;
    let bearerd = Bearerd::between(&service, &upstream, ONE_ROUTE);
    for _ in 0..3 {
        let response = get(bearerd.address(), "/x?y=%20z", &[("X-API-Key", "key-1"), ("X-Other", "kept")]).await;
        assert_eq!(response.status, 200);
    }
    assert_eq!(injected_subject(&upstream), subject("key-1"));
    assert_eq!(service.calls(Operation::Create), 1);
    let seen = upstream.requests().pop().unwrap();
    assert_eq!(seen.target(), "/x?y=%20z");
    assert_eq!(seen.head.header("x-other"), Some("kept"));
    assert_eq!(seen.head.header("host"), Some("app.test"));
    assert_eq!(seen.head.all("x-api-key"), Vec::<&str>::new());
    assert_eq!(seen.head.header("via"), Some("1.1 bearerd"));
    assert_eq!(bearerd.value(r#"bearerd_cache_requests_total{result="hit"}"#).await, 2.0);
    bearerd.until(r#"bearerd_requests_total{code="200",method="GET",route="api"}"#, 3.0).await;
}

#[tokio::test]
async fn every_kind_of_credential_is_forwarded_as_the_service_wants_it() {
    let (service, upstream) = surroundings().await;
    let bearerd = Bearerd::between(
        &service,
        &upstream,
        "  - { upstream: app, credentials: [api_key, { api_key: { header: X-Legacy-Key } }, { api_key: { query: key } }, basic, session_token] }",
    );
    let cases: [(&str, &[(&str, &str)], &str); 6] = [
        ("/", &[("x-api-key", "first-secret")], "first-secret"),
        ("/", &[("X-Legacy-Key", "second-secret")], "second-secret"),
        ("/a?b=1&key=third%2Dsecret&c", &[], "third-secret"),
        ("/", &[("Authorization", "Basic dXNlcjpwYXNz")], "Basic dXNlcjpwYXNz"),
        ("/", &[("Authorization", "basic YmFyZWtleQ==")], "Basic YmFyZWtleQ=="),
        ("/", &[("Authorization", "Bearer pst_1")], "Bearer pst_1"),
    ];
    for (path, headers, credential) in cases {
        assert_eq!(get(bearerd.address(), path, headers).await.status, 200);
        let call = service.recorded().into_iter().rfind(|call| call.operation == Operation::Create).unwrap();
        assert_eq!(call.credential(), credential);
        assert_eq!(injected_subject(&upstream), subject(credential));
        let seen = upstream.requests().pop().unwrap();
        assert!(!seen.target().contains("key"), "{}", seen.target());
        assert!(!seen.head.headers.iter().any(|(_, value)| value.contains(credential)), "{:?}", seen.head);
    }
    assert_eq!(upstream.requests()[2].target(), "/a?b=1&c");
    // The header and the query spell the same key: one entry.
    get(bearerd.address(), "/?key=first-secret", &[]).await;
    assert_eq!(service.calls(Operation::Create), 6);
}

#[tokio::test]
async fn every_parameter_reaches_create_token_and_makes_another_token() {
    let (service, upstream) = surroundings().await;
    let bearerd = Bearerd::between(
        &service,
        &upstream,
        "  - { match: { path: /plain }, upstream: app }
  - upstream: app
    token: { client_id: c, domain: d, data: '{\"a\": 1}', scopes: [A.READ, B], acl: [x, y], mem: ['cid:1', m], cwid: w, cid: i }",
    );
    get(bearerd.address(), "/plain", &[("x-api-key", "k")]).await;
    get(bearerd.address(), "/full", &[("x-api-key", "k")]).await;
    let calls: Vec<_> = service.recorded().into_iter().filter(|call| call.operation == Operation::Create).collect();
    assert_eq!(calls.len(), 2, "other parameters are another token");
    let expected = [
        ("clientId", "c"),
        ("domain", "d"),
        ("data", r#"{"a": 1}"#),
        ("scopes", "A.READ,B"),
        ("acl", "x,y"),
        ("mem", "cid:1,m"),
        ("cwid", "w"),
        ("cid", "i"),
    ];
    for (name, value) in expected {
        assert_eq!(calls[0].parameter(name), None);
        assert_eq!(calls[1].parameter(name).as_deref(), Some(value), "{name}");
    }
    assert_eq!(calls[1].parameter("returnSessionToken"), None);
}

#[tokio::test]
async fn a_session_token_answer_is_injected_as_it_is() {
    let (service, upstream) = surroundings().await;
    service.always(Operation::Create, Behaviour::Token("pst_opaque".into()));
    let bearerd = Bearerd::between(&service, &upstream, "  - { upstream: app, token: { return_session_token: true } }");
    assert_eq!(get(bearerd.address(), "/", &[("x-api-key", "k")]).await.status, 200);
    assert_eq!(upstream.requests()[0].head.all("authorization"), ["Bearer pst_opaque"]);
    assert!(service.recorded()[0].parameter("returnSessionToken").is_some_and(|value| value.eq_ignore_ascii_case("true")));
}

#[tokio::test]
async fn services_are_chosen_by_route_and_never_share_a_token() {
    let (one, upstream) = surroundings().await;
    let two = ScriptedTokenService::start().await;
    let bearerd = Bearerd::start(&format!(
        "token_services:\n  one: {{ kind: iap, url: \"{}\" }}\n  two: {{ kind: iap, url: \"{}\" }}\nupstreams: {{ app: {{ servers: [\"{}\"] }} }}\nroutes:\n  - {{ match: {{ path_prefix: /one }}, upstream: app, token: {{ service: one }} }}\n  - {{ upstream: app, token: {{ service: two }} }}\n",
        one.url(),
        two.url(),
        upstream.address()
    ));
    for path in ["/one", "/two", "/one/again"] {
        assert_eq!(get(bearerd.address(), path, &[("x-api-key", "k")]).await.status, 200);
    }
    assert_eq!((one.calls(Operation::Create), two.calls(Operation::Create)), (1, 1));
}

#[tokio::test]
async fn refusals_before_any_service_is_asked() {
    let (service, upstream) = surroundings().await;
    let bearerd =
        Bearerd::between(&service, &upstream, "  - { match: { path_prefix: /api }, upstream: app, credentials: [api_key, session_token] }");
    let jwt = "Bearer eyJhbGciOiJSUzI1NiJ9.e30.c2ln";
    let cases: [(&str, &[(&str, &str)], u16, &str, Option<&str>); 8] = [
        ("/other", &[("x-api-key", "k")], 404, "no_route", None),
        ("/api", &[], 401, "missing_credential", Some(r#"Bearer realm="bearerd""#)),
        ("/api", &[("authorization", "Basic dTpw")], 401, "missing_credential", Some(r#"Bearer realm="bearerd""#)),
        (
            "/api",
            &[("x-api-key", "a"), ("x-api-key", "b")],
            400,
            "invalid_credential",
            Some(r#"Bearer realm="bearerd", error="invalid_request""#),
        ),
        (
            "/api",
            &[("x-api-key", "a"), ("authorization", "Bearer pst")],
            400,
            "invalid_credential",
            Some(r#"Bearer realm="bearerd", error="invalid_request""#),
        ),
        ("/api", &[("x-api-key", "")], 400, "invalid_credential", Some(r#"Bearer realm="bearerd", error="invalid_request""#)),
        ("/api", &[("authorization", jwt)], 401, "invalid_token", Some(r#"Bearer realm="bearerd", error="invalid_token""#)),
        ("/api/..%2fx", &[("x-api-key", "k")], 400, "bad_request", None),
    ];
    for (path, headers, status, word, challenge) in cases {
        let response = get(bearerd.address(), path, headers).await;
        assert_eq!(
            (response.status, response.problem().as_str(), response.header("www-authenticate")),
            (status, word, challenge),
            "{path} {headers:?}"
        );
    }
    assert_eq!(service.recorded().len(), 0);
    assert_eq!(upstream.requests().len(), 0);
}

#[tokio::test]
async fn the_first_listed_credential_counts_where_the_route_says_so() {
    let (service, upstream) = surroundings().await;
    let bearerd = Bearerd::between(&service, &upstream, "  - { upstream: app, on_multiple: first, credentials: [basic, api_key] }");
    assert_eq!(get(bearerd.address(), "/", &[("x-api-key", "k"), ("authorization", "Basic dTpw")]).await.status, 200);
    assert_eq!(injected_subject(&upstream), subject("Basic dTpw"));
    assert!(upstream.requests()[0].head.header("x-api-key").is_none(), "the rest is stripped");
}

#[tokio::test]
async fn what_the_service_says_becomes_the_right_status_and_an_outage_is_never_the_callers_fault() {
    let (service, upstream) = surroundings().await;
    let bearerd = Bearerd::between(&service, &upstream, ONE_ROUTE);
    let cases = [
        (Behaviour::status(401), 401, "denied", false),
        (Behaviour::status(403), 403, "forbidden", false),
        (Behaviour::status(400), 502, "token_request_rejected", false),
        (Behaviour::status(500), 503, "token_service_unavailable", true),
        (Behaviour::status(302), 503, "token_service_unavailable", true),
        (Behaviour::Garbage, 503, "token_service_unavailable", true),
        (Behaviour::Reset, 503, "token_service_unavailable", true),
        (Behaviour::Token("not.a.jwt".into()), 503, "token_service_unavailable", true),
    ];
    for (place, (behaviour, status, word, retry)) in cases.into_iter().enumerate() {
        service.next(Operation::Create, behaviour);
        let response = get(bearerd.address(), "/", &[("x-api-key", &format!("key-{place}"))]).await;
        assert_eq!(
            (response.status, response.problem().as_str(), response.header("retry-after").is_some()),
            (status, word, retry),
            "case {place}"
        );
        assert_eq!(response.header("www-authenticate").is_some(), status == 401);
    }
    assert_eq!(upstream.requests().len(), 0);
    // A definite no is remembered, an outage is not.
    let before = service.calls(Operation::Create);
    for place in 0..8 {
        get(bearerd.address(), "/", &[("x-api-key", &format!("key-{place}"))]).await;
    }
    assert_eq!(service.calls(Operation::Create) - before, 5, "three definite answers are remembered, five outages are asked again");
    assert_eq!(bearerd.value(r#"bearerd_cache_requests_total{result="negative"}"#).await, 3.0);
    // Remembered for a while only.
    bearerd.clock.step(31_000);
    assert_eq!(get(bearerd.address(), "/", &[("x-api-key", "key-0")]).await.status, 200);
    service.next(Operation::Create, Behaviour::Status(429, "{}".into(), vec![("Retry-After".into(), "7".into())]));
    for key in ["limited", "another"] {
        let response = get(bearerd.address(), "/", &[("x-api-key", key)]).await;
        assert_eq!((response.status, response.problem().as_str()), (503, "token_service_unavailable"));
        assert!(matches!(response.header("retry-after"), Some("6" | "7")), "{:?}", response.header("retry-after"));
    }
    assert_eq!(service.calls(Operation::Create) - before, 7, "a 429 holds all calls off");
}

#[tokio::test]
async fn a_service_that_is_gone_is_a_503_and_its_return_is_noticed_at_once() {
    let (mut service, upstream) = surroundings().await;
    let bearerd = Bearerd::between(&service, &upstream, ONE_ROUTE);
    assert_eq!(get(bearerd.address(), "/", &[("x-api-key", "early")]).await.status, 200);
    service.stop().await;
    let response = get(bearerd.address(), "/", &[("x-api-key", "late")]).await;
    assert_eq!((response.status, response.problem().as_str()), (503, "token_service_unavailable"));
    assert_eq!(get(bearerd.address(), "/", &[("x-api-key", "early")]).await.status, 200, "a valid token is served through an outage");
    service.restart().await;
    assert_eq!(get(bearerd.address(), "/", &[("x-api-key", "late")]).await.status, 200);
}

#[tokio::test]
async fn no_expired_and_no_early_token_is_injected() {
    let (service, upstream) = surroundings().await;
    let bearerd = Bearerd::between(&service, &upstream, ONE_ROUTE);
    get(bearerd.address(), "/", &[("x-api-key", "k")]).await;
    bearerd.clock.step(3_600_000);
    service.set_lifetime(std::time::Duration::from_secs(3 * 3600));
    assert_eq!(get(bearerd.address(), "/", &[("x-api-key", "k")]).await.status, 200);
    assert_eq!(service.calls(Operation::Create), 2, "the first token has expired by our clock");
    // A token that becomes valid in a second: the caller waits for it, and gets it.
    service.set_nbf_offset(3601);
    assert_eq!(get(bearerd.address(), "/", &[("x-api-key", "early")]).await.status, 200);
    let seen = upstream.requests().pop().unwrap();
    let nbf = claims(&seen.head.header("authorization").unwrap()[7..])["nbf"].as_i64().unwrap();
    assert!(bearerd.clock.now().as_secs() >= nbf);
    // Expired when it comes: as if it had not come.
    service.set_nbf_offset(0);
    service.set_lifetime(std::time::Duration::from_secs(1));
    let response = get(bearerd.address(), "/", &[("x-api-key", "dead")]).await;
    assert_eq!((response.status, response.problem().as_str()), (503, "token_service_unavailable"));
}

/// A clock that is off must not hold up the key once it is mended.
#[tokio::test]
async fn a_token_that_is_not_valid_for_long_is_an_outage_at_once_and_its_end_is_noticed() {
    let (service, upstream) = surroundings().await;
    let bearerd = Bearerd::between(&service, &upstream, ONE_ROUTE);
    service.set_nbf_offset(1800);
    for _ in 0..2 {
        let response = get(bearerd.address(), "/", &[("x-api-key", "k")]).await;
        assert_eq!((response.status, response.problem().as_str()), (503, "token_service_unavailable"));
        assert!(response.header("retry-after").is_some());
    }
    assert_eq!(service.calls(Operation::Create), 1, "it is left alone for a moment");
    service.set_nbf_offset(0);
    bearerd.clock.step(5_000);
    assert_eq!(get(bearerd.address(), "/", &[("x-api-key", "k")]).await.status, 200);
}

#[tokio::test]
async fn routes_that_check_tokens_differently_do_not_share_them() {
    let (service, upstream) = surroundings().await;
    service.always(Operation::Details, Behaviour::status(401));
    let bearerd = Bearerd::between(
        &service,
        &upstream,
        "  - { match: { path: /unchecked }, upstream: app, validate: { details: off } }\n  - { upstream: app }",
    );
    assert_eq!(get(bearerd.address(), "/unchecked", &[("x-api-key", "k")]).await.status, 200);
    assert_eq!(get(bearerd.address(), "/checked", &[("x-api-key", "k")]).await.status, 503);
    assert_eq!(get(bearerd.address(), "/unchecked", &[("x-api-key", "k")]).await.status, 200);
}

#[tokio::test]
async fn details_are_asked_once_before_first_use_and_a_dead_token_is_minted_anew() {
    let (service, upstream) = surroundings().await;
    let bearerd = Bearerd::between(&service, &upstream, "  - { upstream: app, validate: { details: on_mint } }");
    for _ in 0..2 {
        assert_eq!(get(bearerd.address(), "/", &[("x-api-key", "good")]).await.status, 200);
    }
    assert_eq!((service.calls(Operation::Create), service.calls(Operation::Details)), (1, 1));

    service.next(Operation::Details, Behaviour::status(401));
    assert_eq!(get(bearerd.address(), "/", &[("x-api-key", "unlucky")]).await.status, 200);
    assert_eq!((service.calls(Operation::Create), service.calls(Operation::Details)), (3, 3));

    for _ in 0..2 {
        service.next(Operation::Details, Behaviour::status(401));
    }
    for _ in 0..2 {
        let response = get(bearerd.address(), "/", &[("x-api-key", "doomed")]).await;
        assert_eq!((response.status, response.problem().as_str()), (503, "token_service_unavailable"));
    }
    assert_eq!((service.calls(Operation::Create), service.calls(Operation::Details)), (5, 5), "after two it is left alone for a while");

    service.next(Operation::Details, Behaviour::status(500));
    assert_eq!(get(bearerd.address(), "/", &[("x-api-key", "unchecked")]).await.status, 200, "an outage of details is no verdict");
}

#[tokio::test]
async fn upstream_failures_have_their_own_rows() {
    let (service, mut upstream) = surroundings().await;
    let bearerd = Bearerd::start(&format!(
        "token_services: {{ default: {{ kind: iap, url: \"{}\" }} }}\nupstreams: {{ app: {{ servers: [\"{}\"], timeouts: {{ read: 300ms }} }} }}\nroutes:\n  - {{ name: api, upstream: app, validate: {{ details: off }} }}\n",
        service.url(),
        upstream.address()
    ));
    let key = [("x-api-key", "k")];
    upstream.reply_next(Reply::Reset);
    let response = get(bearerd.address(), "/", &key).await;
    assert_eq!((response.status, response.problem().as_str()), (502, "upstream_reset"));
    upstream.reply_always(Reply::Hang);
    let response = get(bearerd.address(), "/", &key).await;
    assert_eq!((response.status, response.problem().as_str()), (504, "upstream_timeout"));
    upstream.stop().await;
    let response = get(bearerd.address(), "/", &key).await;
    assert_eq!((response.status, response.problem().as_str()), (502, "upstream_connect"));
    for word in ["upstream_reset", "upstream_timeout", "upstream_connect"] {
        assert_eq!(bearerd.value(&format!(r#"bearerd_upstream_errors_total{{reason="{word}",upstream="app"}}"#)).await, 1.0, "{word}");
    }
    upstream.restart().await;
    upstream.reply_always(Reply::status(401));
    let response = get(bearerd.address(), "/", &key).await;
    assert_eq!((response.status, response.header("content-type")), (401, None), "the upstream's own 401 is passed on as it is");
}

#[tokio::test]
async fn hosts_and_fixed_headers_and_routes_are_as_configured() {
    let (service, upstream) = surroundings().await;
    let address = upstream.address();
    let bearerd = Bearerd::start(&format!(
        "token_services: {{ default: {{ kind: iap, url: \"{}\" }} }}
upstreams:
  same: {{ servers: [\"{address}\"] }}
  theirs: {{ servers: [\"{address}\"], host: upstream }}
  named: {{ servers: [\"localhost:{}\"], host: legacy.internal }}
routes:
  - {{ name: theirs, match: {{ hosts: [\"*.Example.com\"], methods: [GET], path_prefix: /v1 }}, upstream: theirs, headers: {{ set: {{ X-Team: blue }}, remove: [Cookie] }} }}
  - {{ name: named, match: {{ headers: {{ X-Pick: named }} }}, auth: none, upstream: named }}
  - {{ name: fixed, match: {{ path: /health }}, auth: none, respond: {{ status: 204 }} }}
  - {{ name: same, upstream: same }}
",
        service.url(),
        address.port(),
    ));
    let mut client = Client::connect(bearerd.address()).await;
    client
        .send("GET /v1/a HTTP/1.1\r\nHost: a.b.EXAMPLE.com:8080\r\nX-API-Key: k\r\nX-Team: red\r\nx_team: red\r\nCookie: a=b\r\n\r\n")
        .await;
    assert_eq!(client.receive().await.status, 200);
    let seen = upstream.requests().pop().unwrap();
    assert_eq!(seen.head.all("host"), [address.to_string()]);
    assert_eq!(seen.head.all("x-team"), ["blue"]);
    assert!(seen.head.header("x_team").is_none() && seen.head.header("cookie").is_none());

    // A name is resolved in the background: the first requests may come too early.
    while client.get("/", &[("X-Pick", "named")]).await.status == 502 {}
    assert_eq!(upstream.requests().pop().unwrap().head.all("host"), ["legacy.internal"]);

    let health = client.get("/health", &[]).await;
    assert_eq!((health.status, health.body.length), (204, 0));

    client.send("GET /v1 HTTP/1.1\r\nHost: other.test\r\nX-API-Key: k\r\nX-Team: red\r\nCookie: a=b\r\n\r\n").await;
    client.receive().await;
    let seen = upstream.requests().pop().unwrap();
    assert_eq!((seen.head.all("host"), seen.head.header("cookie")), (vec!["other.test"], Some("a=b")));
    assert!(seen.head.header("x-team").is_none(), "a header that any route may set is taken from callers on every route");
}

#[tokio::test]
async fn two_servers_take_turns_and_one_that_refuses_costs_nobody_a_request() {
    let (service, one) = surroundings().await;
    let mut two = RecordingUpstream::start().await;
    let bearerd = Bearerd::start(&format!(
        "token_services: {{ default: {{ kind: iap, url: \"{}\" }} }}\nupstreams: {{ app: {{ servers: [\"{}\", \"{}\"] }} }}\nroutes:\n  - {{ upstream: app }}\n",
        service.url(),
        one.address(),
        two.address()
    ));
    let key = [("x-api-key", "k")];
    for _ in 0..4 {
        assert_eq!(get(bearerd.address(), "/", &key).await.status, 200);
    }
    assert_eq!((one.requests().len(), two.requests().len()), (2, 2));
    two.stop().await;
    let mut client = Client::connect(bearerd.address()).await;
    for _ in 0..4 {
        client.send("POST / HTTP/1.1\r\nHost: a\r\nX-API-Key: k\r\nContent-Length: 2\r\n\r\nhi").await;
        assert_eq!(client.receive().await.status, 200, "nothing was sent to the server that refused, so a POST goes to the other");
    }
    assert_eq!(one.requests().len(), 6);
}
