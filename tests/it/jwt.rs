//! Callers who bring a JWT: it is validated for the route, passed on as it is, and found again without a second look at its signature.

mod details;
mod refresh;
mod source;

use serde_json::{Value, json};

use crate::support::bearerd::Bearerd;
use crate::support::client::{Client, Response, get};
use crate::support::jwt::{Signer, in_seconds, key_set, publishes};
use crate::support::server::Server;
use crate::support::upstream::RecordingUpstream;

/// An issuer that publishes keys, an upstream, and bearerd between them; no token service.
struct Issued {
    bearerd: Bearerd,
    keys: RecordingUpstream,
    upstream: RecordingUpstream,
}

const RULES: &str = "algorithms: [ES256], issuers: [\"https://issuer.test\"], audiences: [app]";

impl Issued {
    /// Publishes the keys of `signers`; `more` joins the route.
    async fn by(signers: &[&Signer], more: &str) -> Self {
        let (keys, upstream) = (RecordingUpstream::start().await, RecordingUpstream::start().await);
        keys.reply_always(publishes(signers));
        let bearerd = Bearerd::start(&format!(
            "upstreams: {{ app: {{ servers: [\"{}\"] }} }}\nroutes:\n  - {{ name: api, upstream: app, credentials: [jwt], validate: {{ jwt: {{ jwks_url: \"http://{}/keys\", {RULES} }} }}{more} }}\n",
            upstream.address(),
            keys.address(),
        ));
        Self { bearerd, keys, upstream }
    }

    async fn ask(&self, token: &str) -> Response {
        get(self.bearerd.address(), "/", &[("Authorization", &format!("Bearer {token}"))]).await
    }

    async fn refuses(&self, token: &str, why: &str) {
        let refused = self.ask(token).await;
        assert_eq!((refused.status, refused.problem().as_str()), (401, "invalid_token"), "{why}");
        assert_eq!(refused.header("www-authenticate"), Some("Bearer realm=\"bearerd\", error=\"invalid_token\""));
        assert_eq!(self.upstream.requests().len(), 0, "{why}");
    }
}

#[tokio::test]
async fn a_good_jwt_goes_on_alone_and_is_looked_up_from_then_on() {
    let signer = Signer::new("k1");
    let issued = Issued::by(&[&signer], ", headers: { set: { X-User: \"{claims.sub}\" } }, require: { claims: { sub: alice } }").await;
    let token = signer.token(&json!({ "sub": "alice" }));
    for _ in 0..3 {
        // Written anew by us, whatever the spelling of the scheme.
        let headers = [("Authorization", &*format!("bEaReR  {token}")), ("X-User", "root")];
        assert_eq!(get(issued.bearerd.address(), "/", &headers).await.status, 200);
        let seen = issued.upstream.requests().pop().unwrap();
        assert_eq!(seen.head.all("authorization"), [format!("Bearer {token}")]);
        assert_eq!(seen.head.all("x-user"), ["alice"]);
    }
    let series = issued.bearerd.series().await;
    assert_eq!(series[r#"bearerd_auth_duration_seconds_count{source="jwt"}"#], 1.0);
    assert_eq!(series[r#"bearerd_auth_duration_seconds_count{source="hit"}"#], 2.0);
    let other = issued.ask(&signer.token(&json!({ "sub": "bob" }))).await;
    assert_eq!((other.status, other.problem().as_str()), (403, "insufficient_scope"));
    assert_eq!(issued.keys.requests().len(), 1, "the keys were fetched once");
}

#[tokio::test]
async fn what_is_not_signed_by_the_issuer_is_refused() {
    let (signer, attacker) = (Signer::new("k1"), Signer::new("k1"));
    let issued = Issued::by(&[&signer], "").await;
    let good = signer.token(&json!({}));
    let (signed, _) = good.rsplit_once('.').unwrap();
    let header = |text: &str| {
        let payload = json!({ "iss": "https://issuer.test", "aud": "app", "exp": in_seconds(60) }).to_string();
        signer.sign(text, &payload)
    };
    for (token, why) in [
        (attacker.token(&json!({})), "another key"),
        (format!("{signed}.{}", "A".repeat(86)), "CVE-2022-21449: r = s = 0"),
        (header(r#"{"alg":"none","kid":"k1"}"#), "alg none"),
        (header(r#"{"alg":"NONE"}"#), "alg NONE"),
        (header(r#"{"alg":"HS256","kid":"k1"}"#), "CVE-2026-22817: the header's algorithm"),
        (header(r#"{"alg":"ES256","kid":"k1","crit":["x"],"x":1}"#), "CVE-2026-32597: crit"),
        (header(r#"{"alg":"ES256","kid":"k1","alg":"ES256"}"#), "doubled alg"),
    ] {
        issued.refuses(&token, why).await;
    }
    // An empty signature makes three parts all the same.
    issued.refuses(&format!("{signed}."), "no signature").await;
    assert_eq!(issued.ask(&good).await.status, 200);
}

/// CVE-2018-0114, CVE-2026-32301, CVE-2026-48522, CVE-2026-102267: what a token names is never called.
#[tokio::test]
async fn nothing_in_a_token_makes_a_connection() {
    let (signer, attacker) = (Signer::new("k1"), Signer::new("evil"));
    let issued = Issued::by(&[&signer], "").await;
    let lure = Server::start(|_, _| async {}).await;
    let url = format!("http://{}/", lure.address());
    let payload = json!({ "iss": url, "aud": "app", "exp": in_seconds(60), "jku": url, "jwks_uri": url }).to_string();
    for header in [
        json!({ "alg": "ES256", "kid": "evil", "jku": url }),
        json!({ "alg": "ES256", "kid": url }),
        json!({ "alg": "ES256", "x5u": url, "x5c": [url] }),
        json!({ "alg": "ES256", "kid": "file:///etc/passwd", "jku": "file:///etc/passwd" }),
        json!({ "alg": "ES256", "kid": "../../keys" }),
        json!({ "alg": "ES256", "kid": "k1' OR '1'='1" }),
    ] {
        issued.refuses(&attacker.sign(&header.to_string(), &payload), &header.to_string()).await;
    }
    assert_eq!(lure.connections(), 0);
}

#[tokio::test]
async fn claims_must_be_right_and_of_the_right_type() {
    let signer = Signer::new("k1");
    let issued = Issued::by(&[&signer], "").await;
    for (claims, why) in [
        (json!({ "iss": "https://other.test" }), "another issuer"),
        (json!({ "aud": "other" }), "another audience"),
        (json!({ "aud": ["x", "y"] }), "none of its audiences"),
        (json!({ "exp": in_seconds(-1) }), "expired"),
        (json!({ "nbf": in_seconds(120) }), "not yet"),
        (json!({ "iat": in_seconds(120) }), "made in the future"),
    ] {
        issued.refuses(&signer.token(&claims), why).await;
    }
    let raw = |claim: &str, value: &str| {
        let members = [("iss", "\"https://issuer.test\""), ("aud", "\"app\""), ("exp", "9999999999")];
        let others = members.iter().filter(|(name, _)| *name != claim).map(|(name, value)| format!("\"{name}\":{value}"));
        format!("{{{},\"{claim}\":{value}}}", others.collect::<Vec<_>>().join(","))
    };
    let header = r#"{"alg":"ES256","kid":"k1"}"#;
    // CVE-2026-25537: a wrong type is never "not there".
    for claim in ["exp", "nbf", "iat", "iss", "aud", "sub", "jti"] {
        for value in ["null", "[]", "{}", "true", "1e400", "[1]", "{\"a\":1}", "\"\\ud800\""] {
            issued.refuses(&signer.sign(header, &raw(claim, value)), &format!("{claim}: {value}")).await;
        }
    }
    for claim in ["exp", "nbf", "iat"] {
        for value in ["\"9999999999\"", "\"0\"", "18446744073709551615"] {
            issued.refuses(&signer.sign(header, &raw(claim, value)), &format!("{claim}: {value}")).await;
        }
    }
    for (claim, value) in [("exp", "-1"), ("exp", "0"), ("exp", "0.5"), ("iss", "1"), ("aud", "1"), ("sub", "1")] {
        issued.refuses(&signer.sign(header, &raw(claim, value)), &format!("{claim}: {value}")).await;
    }
    issued.refuses(&signer.sign(header, r#"{"iss":"https://issuer.test","aud":"app"}"#), "no exp").await;
    issued.refuses(&signer.sign(header, &raw("sub", "\"a\",\"sub\":\"b\"")), "a doubled claim").await;
    issued.refuses(&signer.sign(header, "[]"), "no object").await;
    for good in [json!({ "aud": ["x", "app"] }), json!({ "nbf": in_seconds(10), "iat": in_seconds(10) }), json!({ "exp": 1e10 })] {
        assert_eq!(issued.ask(&signer.token(&good)).await.status, 200, "{good}");
    }
}

/// On every use, hits too, by our own clock.
#[tokio::test]
async fn a_jwt_that_was_good_ends_with_its_exp() {
    let signer = Signer::new("k1");
    let issued = Issued::by(&[&signer], "").await;
    let token = signer.token(&json!({ "exp": in_seconds(600) }));
    assert_eq!(issued.ask(&token).await.status, 200);
    // Half a minute before, then after: the time that the test itself takes is no part of it.
    issued.bearerd.clock.step(570_000);
    assert_eq!(issued.ask(&token).await.status, 200);
    issued.bearerd.clock.step(31_000);
    assert_eq!(issued.ask(&token).await.problem(), "invalid_token");
}

#[tokio::test]
async fn cve_2022_29226_kinds_of_bearers_are_not_mixed_up() {
    let signer = Signer::new("k1");
    let issued = Issued::by(&[&signer], "").await;
    let token = signer.token(&json!({}));
    for random in ["random", "a.b.c", "pst_123", &token.replace('.', "-")] {
        issued.refuses(random, random).await;
    }
    let mut client = Client::connect(issued.bearerd.address()).await;
    let joined = format!("Bearer {token}, Bearer {token}");
    for (header, status, problem) in [
        (("X-Other", "x"), 401, "missing_credential"),
        (("X-API-Key", "k"), 401, "missing_credential"),
        (("Authorization", joined.as_str()), 400, "invalid_credential"),
    ] {
        let refused = client.get("/", &[header]).await;
        assert_eq!((refused.status, refused.problem().as_str()), (status, problem), "{header:?}");
    }
}

/// Two routes with different rules: a verdict of one is none of the other's.
#[tokio::test]
async fn a_verdict_is_for_one_route() {
    let (signer, upstream, keys) = (Signer::new("k1"), RecordingUpstream::start().await, RecordingUpstream::start().await);
    keys.reply_always(publishes(&[&signer]));
    let route = |name: &str, audience: &str| {
        format!(
            "  - {{ name: {name}, match: {{ path: /{name} }}, upstream: app, credentials: [jwt], validate: {{ jwt: {{ jwks_url: \"http://{}/\", algorithms: [ES256], audiences: [{audience}] }} }} }}\n",
            keys.address()
        )
    };
    let bearerd = Bearerd::start(&format!(
        "upstreams: {{ app: {{ servers: [\"{}\"] }} }}\nroutes:\n{}{}",
        upstream.address(),
        route("one", "one"),
        route("other", "other")
    ));
    let bearer = format!("Bearer {}", signer.token(&json!({ "aud": "one" })));
    for _ in 0..2 {
        assert_eq!(get(bearerd.address(), "/one", &[("Authorization", &bearer)]).await.status, 200);
        assert_eq!(get(bearerd.address(), "/other", &[("Authorization", &bearer)]).await.status, 401);
    }
}

fn claims_of_another_kind() -> Value {
    json!({ "iss": "https://issuer.test", "aud": "app", "exp": in_seconds(60) })
}

/// A public route strips what some route would take for a credential.
#[tokio::test]
async fn a_jwt_does_not_travel_on_through_a_public_route() {
    let (signer, upstream) = (Signer::new("k1"), RecordingUpstream::start().await);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("keys.json"), key_set(&[&signer])).unwrap();
    let bearerd = Bearerd::start(&format!(
        "upstreams: {{ app: {{ servers: [\"{}\"] }} }}\nroutes:\n  - {{ name: public, match: {{ path: /public }}, auth: none, upstream: app }}\n  - {{ upstream: app, credentials: [jwt], validate: {{ jwt: {{ jwks_file: \"{}\", {RULES} }} }} }}\n",
        upstream.address(),
        folder.path().join("keys.json").display(),
    ));
    let bearer = format!("Bearer {}", signer.sign(r#"{"alg":"ES256"}"#, &claims_of_another_kind().to_string()));
    assert_eq!(get(bearerd.address(), "/public", &[("Authorization", &bearer)]).await.status, 200);
    assert!(upstream.requests()[0].head.header("authorization").is_none());
    assert_eq!(get(bearerd.address(), "/", &[("Authorization", &bearer)]).await.status, 200);
    assert_eq!(upstream.requests()[1].head.all("authorization"), [bearer]);
}
