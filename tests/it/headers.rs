//! Attacks by header: what is nominated, aliased, doubled or claimed by a caller never reaches a decision or an upstream.

use crate::support::client::{Client, get};
use crate::support::protocols::{Outcome, PROTOCOL_ERROR, Protocol, refused};
use crate::support::stage::Stage;
use crate::support::token_service::{Behaviour, Operation, subject};

/// Routes that list every kind of credential and set two names, one of them oddly cased; and a public one.
const ROUTES: &str = "  - { name: public, match: { path_prefix: /public }, auth: none, upstream: app }
  - name: api
    upstream: app
    credentials: [api_key, { api_key: { header: x-LEGACY-key } }, { api_key: { query: api_key } }, basic, session_token]
    headers: { set: { x-REMOTE-uSER: bearerd, X-Team: blue } }";

/// Options of a listener.
const TRUSTED_PEERS: &str = ", trusted_peers: [127.0.0.1]";

async fn stage() -> Stage {
    Stage::with_routes(ROUTES).await
}

async fn stage_of_each_protocol() -> Stage {
    Stage::of_each_protocol("", ROUTES).await
}

/// Also GHSA-w9mr-28mw-j8hg and CVE-2024-45410. On HTTP/2 a nomination is no part of a request (RFC 9113 section 8.2.2).
#[tokio::test]
async fn cve_2026_105299_a_nomination_takes_no_injected_header_away() {
    let stage = stage_of_each_protocol().await;
    for nominated in [
        &["close, Authorization"][..],
        &["Authorization"],
        &["keep-alive, X-API-Key"],
        &["X-Request-Id, X-Team"],
        &["x-remote-user, VIA, aUTHORIZATION"],
        &["close", "Authorization, X-Team"],
        &["Upgrade, Authorization, X-Remote-User"],
    ] {
        let lines: Vec<_> = [("X-API-Key", "k"), ("X-Team", "red"), ("X-Request-Id", "id-1")]
            .into_iter()
            .chain(nominated.iter().map(|names| ("Connection", *names)))
            .collect();
        for protocol in Protocol::ALL {
            let before = stage.upstream.requests().len();
            let outcome = stage.ask(protocol, "/", &lines).await;
            if protocol == Protocol::Http2 {
                assert_eq!((outcome, stage.upstream.requests().len()), (Outcome::Reset(PROTOCOL_ERROR), before), "{nominated:?}");
                continue;
            }
            assert_eq!(outcome, Outcome::Served, "{nominated:?} {protocol:?}");
            let seen = stage.last();
            assert_eq!(seen.subject(), subject("k"), "{nominated:?} {protocol:?}");
            for (name, value) in
                [("x-team", "blue"), ("x-remote-user", "bearerd"), ("x-forwarded-for", "127.0.0.1"), ("via", "1.1 bearerd")]
            {
                assert_eq!(seen.head.all(name), [value], "{nominated:?} {protocol:?}");
            }
            assert_eq!(seen.head.all("x-request-id").len(), 1, "{nominated:?} {protocol:?}");
            assert!(seen.head.header("x-api-key").is_none(), "{nominated:?} {protocol:?}");
        }
    }
}

#[tokio::test]
async fn a_nomination_of_host_or_of_a_forwarded_name_is_refused() {
    let stage = stage_of_each_protocol().await;
    for nominated in ["Host", "X-Forwarded-For", "close, x-forwarded-host", "\"Authorization\""] {
        for protocol in Protocol::ALL {
            let outcome = stage.ask(protocol, "/", &[("X-API-Key", "k"), ("Connection", nominated)]).await;
            let expected = if protocol == Protocol::Http2 { Outcome::Reset(PROTOCOL_ERROR) } else { refused(400, "bad_request") };
            assert_eq!(outcome, expected, "{nominated} {protocol:?}");
        }
    }
    assert_eq!(stage.upstream.requests().len(), 0);
}

/// Also CVE-2023-27487: what is ours alone is not taken from outside. The names of HTTP/2 are in lower case, and so are these.
#[tokio::test]
async fn cve_2025_64484_cve_2026_54763_cve_2026_88011_no_alias_of_a_managed_name_arrives() {
    let mut lines = vec![("X-API-Key".to_owned(), "k"), ("X-Other_Key".to_owned(), "kept"), ("Forwarded".to_owned(), "for=canary")];
    lines.extend(["x-api_KEY", "X_Api-Key"].map(|name| (name.to_owned(), "canary")));
    for name in ["api-key", "legacy-key", "remote-user", "team", "request-id", "forwarded-for", "forwarded-proto", "forwarded-host"] {
        lines.extend(
            ["_", ".", "~", "!", "'", "|"].map(|glue| (format!("X{glue}{}", name.replacen('-', glue, 1).to_uppercase()), "canary")),
        );
    }
    for options in ["", ", trusted_peers: [10.0.0.0/8]"] {
        let stage = Stage::of_each_protocol(options, ROUTES).await;
        for (path, protocol) in ["/", "/public"].into_iter().flat_map(|path| Protocol::ALL.map(|protocol| (path, protocol))) {
            // The limit on lines allows for all of them.
            assert_eq!(stage.ask(protocol, path, &lines).await, Outcome::Served, "{path} {protocol:?}");
            let seen = stage.last();
            assert!(!seen.head.headers.iter().any(|(_, value)| value.contains("canary")), "{path} {protocol:?}: {:?}", seen.head);
            assert_eq!(seen.head.header("x-other_key"), Some("kept"));
        }
    }
}

#[tokio::test]
async fn cve_2026_33433_an_oddly_cased_configured_name_is_one_line() {
    let stage = stage_of_each_protocol().await;
    let mut lines = vec![("X-LEGACY-KEY", "k"), ("X-TEAM", "red"), ("AUTHORIZATION", "Digest root")];
    lines.extend(["X-Remote-User", "x-remote-user", "X-REMOTE-USER"].map(|name| (name, "root")));
    for protocol in Protocol::ALL {
        assert_eq!(stage.ask(protocol, "/", &lines).await, Outcome::Served, "{protocol:?}");
        let seen = stage.last();
        assert_eq!(seen.subject(), subject("k"), "{protocol:?}");
        assert_eq!((seen.head.all("x-remote-user"), seen.head.all("x-team")), (vec!["bearerd"], vec!["blue"]), "{protocol:?}");
        assert!(seen.head.header("x-legacy-key").is_none(), "{protocol:?}");
        for name in ["host", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-request-id"] {
            assert_eq!(seen.head.all(name).len(), 1, "{name} {protocol:?}");
        }
    }
}

#[tokio::test]
async fn cve_2026_40575_cve_2026_76835_a_forwarded_header_never_decides() {
    let routes = "  - { match: { path_prefix: /public }, auth: none, upstream: app }
  - { match: { hosts: [public.test] }, auth: none, upstream: app }
  - { match: { methods: [OPTIONS] }, auth: none, upstream: app }
  - { upstream: app }";
    for options in ["", TRUSTED_PEERS] {
        let stage = Stage::of_each_protocol(options, routes).await;
        let claims = [
            ("X-Forwarded-Uri", "/public"),
            ("X-Forwarded-Path", "/public"),
            ("X-Original-URL", "/public"),
            ("X-Original-URI", "/public"),
            ("X-Rewrite-URL", "/public"),
            ("X-Forwarded-Prefix", "/public"),
            ("X-Envoy-Original-Path", "/public"),
            ("X-Forwarded-Host", "public.test"),
            ("Forwarded", "host=public.test"),
            ("X-Forwarded-Method", "OPTIONS"),
            ("X-HTTP-Method-Override", "OPTIONS"),
        ];
        for protocol in Protocol::ALL {
            for claimed in claims.chunks(1).chain([&claims[..]]) {
                assert_eq!(stage.ask(protocol, "/", claimed).await, refused(401, "missing_credential"), "{claimed:?} {protocol:?}");
            }
        }
        assert_eq!(stage.upstream.requests().len(), 0);
    }
}

/// CVE-2023-27487.
#[tokio::test]
async fn forwarded_headers_are_written_anew_unless_the_peer_is_trusted() {
    const CLAIMS: [(&str, &str); 6] = [
        ("X-API-Key", "k"),
        ("X-Forwarded-For", "203.0.113.7"),
        ("x-forwarded-for", "198.51.100.1"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "outside.test"),
        ("Forwarded", "for=203.0.113.7;proto=https"),
    ];
    let stage = stage_of_each_protocol().await;
    for protocol in Protocol::ALL {
        assert_eq!(stage.ask(protocol, "/", &CLAIMS).await, Outcome::Served, "{protocol:?}");
        let seen = stage.last().head;
        assert_eq!((seen.all("x-forwarded-for"), seen.all("x-forwarded-proto")), (vec!["127.0.0.1"], vec!["http"]), "{protocol:?}");
        assert_eq!((seen.all("x-forwarded-host"), seen.header("forwarded")), (vec!["app.test"], None), "{protocol:?}");
    }
    let stage = Stage::of_each_protocol(TRUSTED_PEERS, ROUTES).await;
    for protocol in Protocol::ALL {
        assert_eq!(stage.ask(protocol, "/", &CLAIMS).await, Outcome::Served, "{protocol:?}");
        let seen = stage.last().head;
        assert_eq!(seen.all("x-forwarded-for"), ["203.0.113.7, 198.51.100.1, 127.0.0.1"], "{protocol:?}");
        assert_eq!((seen.all("x-forwarded-proto"), seen.all("x-forwarded-host")), (vec!["https"], vec!["outside.test"]), "{protocol:?}");
        assert_eq!(seen.all("forwarded"), ["for=203.0.113.7;proto=https"], "{protocol:?}");
        // A trusted peer that says nothing is itself the caller.
        assert_eq!(stage.ask(protocol, "/", &CLAIMS[..1]).await, Outcome::Served, "{protocol:?}");
        let seen = stage.last().head;
        assert_eq!((seen.all("x-forwarded-for"), seen.all("x-forwarded-proto")), (vec!["127.0.0.1"], vec!["http"]), "{protocol:?}");
        assert_eq!(seen.all("x-forwarded-host"), ["app.test"], "{protocol:?}");
    }
}

/// `{peer}` is whom rate limits count: the address that a trusted peer names, and nobody else's word.
#[tokio::test]
async fn the_peer_that_is_told_is_the_one_that_a_trusted_peer_names() {
    const TOLD: &str = "  - { upstream: app, auth: none, headers: { set: { X-Peer: \"{peer}\" }, remove: [X-Forwarded-For], response: { set: { X-Seen: \"{peer}\" } } } }";
    let named = [("X-Forwarded-For", "198.51.100.1"), ("X-Forwarded-For", "203.0.113.7, 203.0.113.9"), ("X-Peer", "192.0.2.1")];
    for (options, headers, expected) in [
        ("", &named[..], "127.0.0.1"),
        (TRUSTED_PEERS, &named[..], "203.0.113.9"),
        (TRUSTED_PEERS, &named[2..], "127.0.0.1"),
        (TRUSTED_PEERS, &[("X-Forwarded-For", "unknown")], "127.0.0.1"),
    ] {
        let stage = Stage::of_each_protocol(options, TOLD).await;
        let answer = get(stage.bearerd.address(), "/", headers).await;
        assert_eq!((answer.status, answer.header("x-seen")), (200, Some(expected)), "{options} {headers:?}");
        for protocol in Protocol::ALL {
            assert_eq!(stage.ask(protocol, "/", headers).await, Outcome::Served, "{options} {headers:?} {protocol:?}");
            assert_eq!(stage.last().head.all("x-peer"), [expected], "{options} {headers:?} {protocol:?}");
        }
    }
}

#[tokio::test]
async fn cve_2026_34457_a_health_checker_is_asked_for_a_credential_too() {
    let stage = stage_of_each_protocol().await;
    for agent in
        ["kube-probe/1.33", "GoogleHC/1.0", "ELB-HealthChecker/2.0", "Amazon-Route53-Health-Check-Service", "HealthChecker", "Envoy/HC"]
    {
        for path in ["/", "/ping", "/healthz", "/oauth2/ping"] {
            for protocol in Protocol::ALL {
                let outcome = stage.ask(protocol, path, &[("User-Agent", agent)]).await;
                assert_eq!(outcome, refused(401, "missing_credential"), "{agent} {path} {protocol:?}");
            }
        }
    }
    assert_eq!(stage.upstream.requests().len(), 0);
}

#[tokio::test]
async fn cve_2022_29226_an_attached_token_is_no_admission() {
    let jwt = "Bearer eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJyb290In0.c2ln";
    for protocol in Protocol::ALL {
        let stage = stage_of_each_protocol().await;
        stage.service.always(Operation::Create, Behaviour::status(401));
        for (bearer, word) in [("Bearer anything", "denied"), ("bearer a.b.c", "denied"), (jwt, "invalid_token")] {
            assert_eq!(stage.ask(protocol, "/", &[("Authorization", bearer)]).await, refused(401, word), "{bearer} {protocol:?}");
        }
        assert_eq!(stage.service.calls(Operation::Create), 2, "a JWT is not even asked about");
        let keys_only = Stage::of_each_protocol("", "  - { upstream: app, credentials: [api_key] }").await;
        assert_eq!(keys_only.ask(protocol, "/", &[("Authorization", jwt)]).await, refused(401, "missing_credential"), "{protocol:?}");
        assert_eq!((stage.upstream.requests().len(), keys_only.upstream.requests().len()), (0, 0));
    }
}

#[tokio::test]
async fn cve_2026_73552_no_byte_above_ascii_passes_in_a_credential() {
    let stage = stage_of_each_protocol().await;
    let expected = refused(400, "invalid_credential");
    for (byte, protocol) in (0x80..=0xFFu8).flat_map(|byte| Protocol::ALL.map(|protocol| (byte, protocol))) {
        for (name, lead) in [("X-API-Key", "a"), ("Authorization", "Basic YQ"), ("Authorization", "Bearer pst"), ("x-legacy-key", "")] {
            let value = [lead.as_bytes(), &[byte], b"b"].concat();
            assert_eq!(stage.ask(protocol, "/", &[(name, value)]).await, expected, "{name} {byte:#x} {protocol:?}");
        }
        let path = format!("/?api_key=a%{byte:02X}");
        assert_eq!(stage.ask::<&str, &str>(protocol, &path, &[]).await, expected, "query {byte:#x} {protocol:?}");
    }
    assert_eq!((stage.service.recorded().len(), stage.upstream.requests().len()), (0, 0));
}

#[tokio::test]
async fn a_target_with_raw_bytes_above_ascii_does_not_hide_a_credential() {
    let stage = stage().await;
    for byte in [0x80, 0xC0, 0xFF] {
        let mut client = stage.client().await;
        client.send([b"GET /public?api_key=canary&x=".as_slice(), &[byte], b" HTTP/1.1\r\nHost: app.test\r\n\r\n"].concat()).await;
        assert_eq!(client.receive().await.status, 400, "{byte:#x}");
    }
    assert_eq!(stage.upstream.requests().len(), 0);
}

#[tokio::test]
async fn rfc_6750_several_credentials_are_refused() {
    let stage = stage_of_each_protocol().await;
    let key = ("X-API-Key", "k");
    for (path, lines) in [
        ("/", &[("Authorization", "Basic dTpw"), ("Authorization", "Basic dTpw")][..]),
        ("/", &[("Authorization", "Basic dTpw"), ("authorization", "Bearer pst")]),
        ("/", &[("Authorization", "Bearer a, Bearer b")]),
        ("/", &[("Authorization", "Basic dTpw,Bearer b")]),
        ("/", &[key, ("Authorization", "Basic dTpw")]),
        ("/", &[key, ("Authorization", "Bearer pst")]),
        ("/", &[key, ("X-Legacy-Key", "k")]),
        ("/", &[("X-API-Key", "k, k")]),
        ("/", &[key, ("x-api-key", "k")]),
        ("/?api_key=k", &[key]),
    ] {
        for protocol in Protocol::ALL {
            assert_eq!(stage.ask(protocol, path, lines).await, refused(400, "invalid_credential"), "{lines:?} {protocol:?}");
        }
        let challenge = get(stage.bearerd.address(), path, lines).await;
        assert_eq!(challenge.header("www-authenticate"), Some(r#"Bearer realm="bearerd", error="invalid_request""#), "{lines:?}");
    }
    assert_eq!((stage.service.recorded().len(), stage.upstream.requests().len()), (0, 0));
}

#[tokio::test]
async fn authorization_lines_that_the_route_does_not_look_at_are_replaced_by_ours() {
    let stage = Stage::of_each_protocol("", "  - { upstream: app, credentials: [api_key] }").await;
    let lines = [("Authorization", "Bearer a"), ("X-API-Key", "k"), ("AUTHORIZATION", "Basic b"), ("Authorization", "")];
    for protocol in Protocol::ALL {
        assert_eq!(stage.ask(protocol, "/", &lines).await, Outcome::Served, "{protocol:?}");
        assert_eq!(stage.last().subject(), subject("k"), "{protocol:?}");
    }
}

#[tokio::test]
async fn a_public_route_passes_what_is_no_credential_and_strips_what_is() {
    let stage = stage_of_each_protocol().await;
    let jwt = "Bearer eyJhbGciOiJSUzI1NiJ9.e30.c2ln";
    for (sent, arrives) in [
        (&["Digest username=\"a\""][..], &["Digest username=\"a\""][..]),
        (&[jwt], &[jwt]),
        (&["Basic dTpw"], &[]),
        (&["bASIC dTpw"], &[]),
        (&["Bearer pst_1"], &[]),
        (&["Digest a", "Basic dTpw"], &[]),
        (&["Digest a, Basic dTpw"], &[]),
    ] {
        let lines: Vec<_> =
            sent.iter().map(|value| ("Authorization", *value)).chain([("X-API-Key", "canary"), ("X_Legacy_Key", "canary")]).collect();
        for protocol in Protocol::ALL {
            let outcome = stage.ask(protocol, "/public/a?b=1&api_key=canary&API%5Fkey=canary;c", &lines).await;
            assert_eq!(outcome, Outcome::Served, "{sent:?} {protocol:?}");
            let seen = stage.last();
            assert_eq!(seen.head.all("authorization"), arrives, "{sent:?} {protocol:?}");
            assert_eq!(seen.target(), "/public/a?b=1;c", "{protocol:?}");
            assert!(!seen.head.headers.iter().any(|(_, value)| value.contains("canary")), "{:?}", seen.head);
        }
    }
    assert_eq!(stage.service.recorded().len(), 0);

    // Where no route takes Basic or session tokens, they are the upstream's own business.
    let keys_only =
        Stage::with_routes("  - { match: { path: /public }, auth: none, upstream: app }\n  - { upstream: app, credentials: [api_key] }")
            .await;
    for own in ["Basic dTpw", "Bearer theirs"] {
        get(keys_only.bearerd.address(), "/public", &[("Authorization", own)]).await;
        assert_eq!(keys_only.last().head.all("authorization"), [own]);
    }
}

#[tokio::test]
async fn rfc_9110_7_6_3_via_is_added_to_those_before() {
    let stage = stage().await;
    get(stage.bearerd.address(), "/", &[("X-API-Key", "k"), ("Via", "1.0 fred"), ("Via", "1.1 p.example (x)")]).await;
    assert_eq!(stage.last().head.all("via"), ["1.0 fred", "1.1 p.example (x)", "1.1 bearerd"]);
    let mut client = stage.client().await;
    client.send("GET / HTTP/1.0\r\nX-API-Key: k\r\n\r\n").await;
    assert_eq!(client.receive().await.status, 200);
    assert_eq!(stage.last().head.all("via"), ["1.0 bearerd"]);
}

#[tokio::test]
async fn a_request_id_is_taken_over_if_fit_and_made_if_not() {
    let stage = stage().await;
    let key = ("X-API-Key", "k");
    get(stage.bearerd.address(), "/", &[key, ("x-request-ID", "Abc-1.2:3/4+5=")]).await;
    assert_eq!(stage.last().head.all("x-request-id"), ["Abc-1.2:3/4+5="]);
    let long = "x".repeat(129);
    for unfit in [
        &[("X-Request-Id", "a b")][..],
        &[("X-Request-Id", "a\"b")],
        &[("X-Request-Id", &long)],
        &[("X-Request-Id", "a"), ("X-Request-Id", "b")],
        &[("X-Request-Id", "")],
        &[],
    ] {
        get(stage.bearerd.address(), "/", &[&[key], unfit].concat()).await;
        let seen = stage.last().head;
        let ids = seen.all("x-request-id");
        assert!(ids.len() == 1 && ids[0].len() == 32 && ids[0].bytes().all(|byte| byte.is_ascii_hexdigit()), "{unfit:?} became {ids:?}");
    }
    // A refusal says the same id.
    for (path, headers) in [
        ("/", &[("X-Request-Id", "id-1")][..]),
        ("/", &[key, key, ("X-Request-Id", "id-1")]),
        ("/%2e%2e/public", &[("X-Request-Id", "id-1")]),
    ] {
        assert_eq!(get(stage.bearerd.address(), path, headers).await.body.json()["request_id"], "id-1", "{path}");
    }
    let made = get(stage.bearerd.address(), "/", &[("X-Request-Id", "a b")]).await.body.json();
    assert_eq!(made["request_id"].as_str().map(str::len), Some(32));
}

#[tokio::test]
async fn trace_is_refused_since_its_answer_would_show_the_token() {
    let stage = stage().await;
    for path in ["/", "/public"] {
        let mut client = Client::connect(stage.bearerd.address()).await;
        client.send(format!("TRACE {path} HTTP/1.1\r\nHost: app.test\r\nX-API-Key: k\r\n\r\n")).await;
        let response = client.receive().await;
        assert_eq!((response.status, response.problem().as_str()), (400, "bad_request"));
    }
    assert_eq!(stage.upstream.requests().len(), 0);
}

#[tokio::test]
async fn rfc_9110_7_6_2_options_goes_no_further_than_it_may() {
    let stage = stage().await;
    let ask = async |method: &str, key: &str, most: &str| {
        let request = format!("{method} / HTTP/1.1\r\nHost: h\r\nX-API-Key: {key}\r\nMax-Forwards: {most}\r\nConnection: close\r\n\r\n");
        let status = stage.client().await.exchange(&request).await.status;
        let told = stage.upstream.requests().pop().and_then(|request| request.head.header("max-forwards").map(str::to_owned));
        (status, stage.upstream.requests().len(), told)
    };
    let told = |text: &str| Some(text.to_owned());
    assert_eq!(ask("OPTIONS", "k", "0").await, (204, 0, None), "the last that it may reach answers");
    assert_eq!(ask("OPTIONS", "", "0").await.0, 400, "whose credential is looked at first");
    assert_eq!(ask("OPTIONS", "k", "2").await, (200, 1, told("1")));
    assert_eq!(ask("OPTIONS", "k", "1").await, (200, 2, told("0")));
    for (count, (method, most)) in
        [("OPTIONS", "x"), ("OPTIONS", "-1"), ("OPTIONS", "99999999999999999999"), ("GET", "0")].into_iter().enumerate()
    {
        assert_eq!(ask(method, "k", most).await, (200, 3 + count, told(most)), "{method} {most}");
    }
}
