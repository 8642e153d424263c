//! Callers who speak HTTP/1.1: good keys, refused and malformed ones, and what fails behind them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::canary::{CANARY, escaped, secret};
use super::scene::Scene;
use crate::support::jwt::Signer;
use crate::support::token_service::{Behaviour, Operation};
use crate::support::upstream::Reply;

/// Every place for a credential, with a secret of its own: target, header lines, the secret.
pub fn credentials(name: &str) -> [(String, String, String); 6] {
    let [header, legacy, query, basic, bare, session] =
        ["header", "legacy", "query", "basic", "bare", "session"].map(|place| secret(&format!("{name}-{place}")));
    let api = || "/api".to_owned();
    [
        (api(), format!("X-API-Key: {header}\r\n"), header),
        (api(), format!("X-Legacy-Key: {legacy}\r\n"), legacy),
        (format!("/api?a=b&key={}&c=d", escaped(&query)), String::new(), query),
        (api(), format!("Authorization: Basic {}\r\n", STANDARD.encode(format!("user:{basic}"))), basic),
        (api(), format!("Authorization: Basic {}\r\n", STANDARD.encode(&bare)), bare),
        (api(), format!("Authorization: Bearer {session}\r\n"), session),
    ]
}

/// An error of the service that repeats what it was sent, in more ways than one.
pub fn echo(status: u16, key: &str, received: &str) -> Behaviour {
    let message = format!("{key} {} user:{key} {} {} {}", escaped(key), STANDARD.encode(key), received.trim(), &key[..key.len() - 3]);
    let body = json!({ "code": key, "message": message, "details": [key] }).to_string();
    Behaviour::Status(
        status,
        body,
        vec![("X-Echo".into(), key.to_owned()), ("Location".into(), format!("/?{key}")), ("Retry-After".into(), "0".into())],
    )
}

pub async fn served(scene: &mut Scene) {
    for (target, headers, _) in credentials("good") {
        for what in ["a miss", "a hit"] {
            assert_eq!(scene.ask(&target, &headers).await, 200, "{what} with {target} {headers}");
        }
    }
    scene.service.next(Operation::Create, Behaviour::Token(secret("minted")));
    assert_eq!(scene.ask("/session", &format!("X-API-Key: {}\r\n", secret("session"))).await, 200);
    // A public route: nobody's credential is looked at.
    assert_eq!(scene.ask(&format!("/public?key={}", secret("public")), &format!("X-API-Key: {}\r\n", secret("public"))).await, 200);
}

pub async fn refused_by_the_service(scene: &mut Scene) {
    for (status, expected) in [(401, 401), (403, 403), (400, 502), (429, 503), (500, 503), (302, 503), (200, 503)] {
        let name = format!("refused{status}");
        for (target, headers, key) in credentials(&name) {
            scene.service.next(Operation::Create, echo(status, &key, &headers));
            assert_eq!(scene.ask(&target, &headers).await, expected, "{status}");
            // A definite no is remembered, and told again.
            scene.service.next(Operation::Create, echo(status, &key, &headers));
            assert_eq!(scene.ask(&target, &headers).await, expected, "{status}");
            scene.service.forget_next(Operation::Create);
        }
    }
    for (place, behaviour) in [
        Behaviour::Garbage,
        Behaviour::Reset,
        Behaviour::Hang,
        Behaviour::Token(format!("{CANARY}.{CANARY}.{CANARY}")),
        Behaviour::Token(format!("eyJhbGciOiJub25lIn0.{}.{CANARY}", STANDARD.encode(secret("claims")))),
        Behaviour::Status(201, secret("body"), Vec::new()),
        Behaviour::Status(201, json!({ "access_token": [secret("body")] }).to_string(), Vec::new()),
    ]
    .into_iter()
    .enumerate()
    {
        scene.service.next(Operation::Create, behaviour);
        assert_eq!(scene.ask("/api", &format!("X-API-Key: {}\r\n", secret(&format!("odd{place}")))).await, 503, "{place}");
    }
    for name in ["details-denied", "details-down"] {
        let status = if name == "details-down" { 500 } else { 401 };
        scene.service.next(Operation::Details, echo(status, &secret(name), ""));
        assert_eq!(scene.ask("/api", &format!("X-API-Key: {}\r\n", secret(name))).await, 200);
    }
}

pub async fn failed_by_the_upstream(scene: &mut Scene) {
    let key = format!("X-API-Key: {}\r\n", secret("good-header"));
    let replies = [
        (Reply::Raw(format!("{CANARY}\r\n\r\n").into_bytes()), 502),
        (Reply::Raw(format!("HTTP/1.1 {CANARY} OK\r\n\r\n").into_bytes()), 502),
        (Reply::Raw(format!("HTTP/1.1 200 OK\r\nX {CANARY}\r\n\r\n").into_bytes()), 502),
        (Reply::Raw(format!("HTTP/1.1 200 OK\r\nContent-Length: {CANARY}\r\n\r\n").into_bytes()), 502),
        (Reply::Hang, 504),
        (Reply::Early(503), 503),
    ];
    for (place, (reply, status)) in replies.into_iter().enumerate() {
        scene.upstream.reply_next(reply);
        assert_eq!(scene.ask("/api", &key).await, status, "reply {place}");
    }
    scene.upstream.reply_next(Reply::ResetMidway);
    scene.send_to(scene.callers[0], format!("GET /api HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{key}\r\n")).await;
    assert_eq!(scene.ask("/gone", &format!("X-API-Key: {}\r\n", secret("gone"))).await, 502);
}

/// Claims are no secrets, but nobody's business either.
pub async fn bringing_a_jwt(scene: &mut Scene, signer: &Signer) {
    let claims = |more: serde_json::Value| {
        let mut claims =
            json!({ "sub": secret("sub"), "email": secret("email"), "odd": format!(" {}", secret("odd")), "jti": secret("jti") });
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        claims
    };
    let stranger = Signer::new(&secret("kid"));
    for (token, status) in [
        (signer.token(&claims(json!({ "role": "x" }))), 200),
        (signer.token(&claims(json!({}))), 403),
        (signer.token(&claims(json!({ "aud": secret("aud") }))), 401),
        (signer.token(&claims(json!({ "exp": secret("exp") }))), 401),
        (stranger.token(&claims(json!({}))), 401),
        (signer.sign(&json!({ "alg": "ES256", "crit": [secret("crit")] }).to_string(), "{}"), 401),
        (signer.sign(r#"{"alg":"ES256","kid":"k1"}"#, &secret("payload")), 401),
    ] {
        assert_eq!(scene.ask("/jwt", &format!("Authorization: Bearer {token}\r\n")).await, status);
        assert_eq!(scene.ask("/shadow", &format!("Authorization: Bearer {token}\r\n")).await, 200);
    }
    assert_eq!(scene.ask("/shadow", &format!("X-API-Key: {}\r\n", secret("shadow"))).await, 200);
}

/// Requests with a key that are wrong in one way each.
pub fn malformed(key: &str) -> Vec<String> {
    let large = format!("{key}{}", "x".repeat(10_000));
    let header = |line: String| format!("GET /api HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{line}\r\n\r\n");
    vec![
        header(format!("X-API-Key {key}")),
        header(format!("X-API-Key : {key}")),
        header(format!("X-API-Key: {key}\0{key}")),
        header(format!("X-API-Key: {key}\r{key}")),
        header(format!("X-API-Key: {key}\r\n {key}")),
        header(format!("X-API-Key: {key}\r\nX-API-Key: {key}")),
        header(format!("X-API-Key: {key}\r\nAuthorization: Basic {}", STANDARD.encode(key))),
        header(format!("X-API-Key: {key} \u{e9}")),
        header(format!("X-API-Key: {large}")),
        header(format!("Cookie: {large}")),
        header(format!("Authorization: Basic !{key}!")),
        header(format!("Authorization: Basic {}", STANDARD.encode([key.as_bytes(), b"\xff\xfe"].concat()))),
        header(format!("Authorization: Digest {key}")),
        header(format!("Authorization: {key}")),
        header(format!("Authorization: Bearer eyJhbGciOiJSUzI1NiJ9.{}.{CANARY}", STANDARD.encode(key))),
        header(format!("Authorization: Bearer {key} {key}")),
        header(format!("Content-Length: {key}")),
        header(format!("Transfer-Encoding: {key}")),
        header(format!("Host: {key}")),
        header(format!("Expect: {key}")),
        header(format!("X-Request-Id: {key}")),
        format!("GET /api?key={key}&key={key} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"),
        format!("GET /api?key={key}%zz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"),
        format!("GET /api?key={key} x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"),
        format!("GET /api?key={key} HTTP/9.9\r\nHost: a\r\n\r\n"),
        format!("GET /api?key={key}\r\n\r\n"),
        format!("GET /api/..%2f?key={key} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"),
        format!("GET /nowhere?key={key} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"),
        format!("GET http://user:{key}@a/api HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"),
        format!("CONNECT {key}:443 HTTP/1.1\r\nHost: a\r\nX-API-Key: {key}\r\n\r\n"),
        format!("TRACE /api HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-API-Key: {key}\r\n\r\n"),
        format!("POST /api HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{key}", key.len()),
        format!(
            "POST /api HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-API-Key: {}\r\nTransfer-Encoding: chunked\r\n\r\n{key}\r\n",
            secret("good-header")
        ),
        format!("\r\n{key}\r\n\r\n"),
        // Never completed: 408.
        format!("GET /api HTTP/1.1\r\nHost: a\r\nX-API-Key: {key}\r\n"),
    ]
}
