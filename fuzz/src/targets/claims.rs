//! Claims of a token: its times are what they say, or it is refused; and who is let in by them has what is required, as another reader sees it.

use std::sync::LazyLock;
use std::time::Duration;

use bearerd::authorize::{Condition, Policy};
use bearerd::claims::{Claims, Path};
use bearerd::jwks::rules::Rules;
use bearerd::template::Template;
use bearerd::token::{Lifetimes, Token};
use serde_json::{Value, json};

use super::{NOW, Target};

pub const TARGET: Target = Target {
    name: "claims",
    words: &[
        b"\"exp\":",
        b"\"nbf\":",
        b"\"iat\":",
        b"\"iss\":\"joe\"",
        b"\"aud\":[\"app\"]",
        b"\"scope\":\"A B\"",
        b"\"scp\":[\"A\"]",
        b"\"acl\":[\"admin\"]",
        b"\"tid\":\"YWNtZTphY21l\"",
        b"\"mem\":{\"a\":{}}",
        b"1e400",
        b"-1",
        b"-0",
        b"1e18",
        b"9223372036854775807",
        b"9223372036854775808",
        b"0.1",
        b"null",
        b"true",
        b"\"1800003600\"",
        b"[",
        b"]",
        b"{",
        b"}",
        b",",
        b"\\u0065xp",
        b"\\ud800",
        b"\xff",
        b"\0",
        b"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
        b" ",
    ],
    read,
};

fn read(input: &[u8]) {
    let Ok(claims) = Claims::parse(input) else { return };
    let lifetimes = Lifetimes { session: Duration::from_secs(60), max_age: None };
    if let Ok(token) = Token::with_claims("a.b.c", &claims, NOW, lifetimes) {
        times(&token, &claims);
    }
    // Whoever reads JSON reads this in the same way: no name comes twice.
    let other: Value = serde_json::from_slice(input).unwrap_or_else(|error| panic!("no JSON to others: {error}"));
    presented(&claims, &other);
    judged(&claims, &other);
}

fn times(token: &Token, claims: &Claims) {
    assert!(!token.is_dead(NOW));
    assert!(token.until_valid(NOW, Duration::ZERO).is_zero() == token.is_valid(NOW, Duration::ZERO));
    match claims.member("exp") {
        None => assert!(token.is_dead(NOW.plus(Duration::from_secs(60)))),
        // CVE-2026-25537: what is no number is not skipped.
        Some(exp) => assert!(exp.is_number()),
    }
    assert!(claims.member("nbf").is_none_or(Value::is_number));
    let (early, late) = (token.renewal_due(0.8), token.renewal_due(1.0));
    assert!(late <= early && early <= token.dies());
}

/// As a caller's own JWT, once its signature is found good.
fn presented(claims: &Claims, other: &Value) {
    static RULES: LazyLock<Rules> =
        LazyLock::new(|| Rules { issuers: vec!["joe".into()], audiences: vec!["app".into()], leeway: Duration::ZERO });
    let Ok(token) = RULES.accept("a.b.c", claims, NOW, None) else { return };
    assert!(token.is_valid(NOW, Duration::ZERO));
    assert_eq!(other["iss"], "joe");
    assert!(other["aud"] == "app" || other["aud"].as_array().is_some_and(|list| list.contains(&json!("app"))));
    assert!(other["exp"].as_f64().is_some_and(|exp| exp > NOW.wall.as_secs() as f64));
}

fn judged(claims: &Claims, other: &Value) {
    static POLICY: LazyLock<Policy> = LazyLock::new(|| {
        let at = |path| Path::parse(path).unwrap_or_else(|error| panic!("{error}"));
        let conditions = vec![(at("tid"), Condition::Equals(json!("acme"))), (at("acl"), Condition::Equals(json!("admin")))];
        let told = Template::parse("{claims.sub}-{claims.acl}{claims.mem}").unwrap_or_else(|error| panic!("{error}"));
        Policy::new("r", vec!["A".into()], conditions, vec![("X-A", told)])
    });
    let judgement = POLICY.judge(claims);
    if judgement.denial.is_some() {
        return;
    }
    let scopes = if other.get("scope").is_some() { &other["scope"] } else { &other["scp"] };
    let in_text = |text: &str| text.split([',', ' ', '\t', '\n', '\r', '\x0c']).any(|scope| scope == "A");
    assert!(scopes.as_str().is_some_and(in_text) || scopes.as_array().is_some_and(|list| list.contains(&json!("A"))), "{other}");
    assert!(other["acl"] == "admin" || other["acl"].as_array().is_some_and(|list| list.contains(&json!("admin"))), "{other}");
    assert!(other.get("tid").is_some_and(|tid| tid.is_string() || tid.is_array()), "{other}");
}
