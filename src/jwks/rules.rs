//! What the claims of a presented JWT must be, whoever vouches for it. Pure.

use std::time::Duration;

use serde_json::Value;

use super::Fault;
use crate::claims::Claims;
use crate::clock::{Reading, Timestamp};
use crate::token::{self, Lifetimes, Token};

/// What a route accepts.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// What `iss` may be; anything where empty.
    pub issuers: Vec<String>,
    /// What `aud` must have one of; anything where empty.
    pub audiences: Vec<String>,
    /// How far `nbf` and `iat` may be ahead of our clock.
    pub leeway: Duration,
}

impl Rules {
    /// Makes a token of a JWT with these claims, where they are what they must be at `now`. One without `exp` is taken only where `unending` says for how
    /// long: where whoever vouches for it is asked again by then.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn accept(&self, text: &str, claims: &Claims, now: Reading, unending: Option<Duration>) -> Result<Token, Fault> {
        self.check(claims, now.wall)?;
        let session = match unending {
            None if claims.member("exp").is_none() => return Err(Fault::Claim("exp")),
            unending => unending.unwrap_or_default(),
        };
        let token = Token::with_claims(text, claims, now, Lifetimes { session, max_age: None }).map_err(|error| match error {
            token::Error::Expired => Fault::Expired,
            token::Error::WrongType(claim) => Fault::Claim(claim),
            token::Error::NeverValid => Fault::Claim("nbf"),
            token::Error::Unprintable | token::Error::Unreadable => Fault::Malformed,
        })?;
        if token.is_valid(now, self.leeway) { Ok(token) } else { Err(Fault::Claim("nbf")) }
    }

    /// Checks the types of the registered claims (RFC 7519 section 4.1), whether they are required or not: one of a wrong type is an error and never "not
    /// there" (CVE-2026-25537). Then issuer, audience and `iat`.
    ///
    /// # Errors
    /// The claim that is not what it must be.
    fn check(&self, claims: &Claims, now: Timestamp) -> Result<(), Fault> {
        for name in ["iss", "sub", "jti"] {
            if claims.member(name).is_some_and(|value| !value.is_string()) {
                return Err(Fault::Claim(name));
            }
        }
        let audiences = audiences(claims).ok_or(Fault::Claim("aud"))?;
        let issuer = claims.member("iss").and_then(Value::as_str);
        if !self.issuers.is_empty() && !issuer.is_some_and(|issuer| self.issuers.iter().any(|known| known == issuer)) {
            return Err(Fault::Claim("iss"));
        }
        if !self.audiences.is_empty() && !audiences.iter().any(|audience| self.audiences.iter().any(|known| known == audience)) {
            return Err(Fault::Claim("aud"));
        }
        let issued = claims.member("iat").and_then(Value::as_f64);
        if issued.is_some_and(|issued| issued * 1000.0 > now.plus(self.leeway).as_millis() as f64) {
            return Err(Fault::Claim("iat"));
        }
        Ok(())
    }
}

/// A text or a list of texts; `None` for anything else.
fn audiences(claims: &Claims) -> Option<Vec<&str>> {
    match claims.member("aud") {
        None => Some(Vec::new()),
        Some(Value::String(only)) => Some(vec![only]),
        Some(Value::Array(all)) => all.iter().map(Value::as_str).collect(),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);

    fn check(rules: &Rules, claims: &Value) -> Result<(), Fault> {
        rules.check(&Claims::parse(claims.to_string().as_bytes()).unwrap(), NOW)
    }

    #[test]
    fn issuer_and_audience_must_be_known_where_any_are_listed() {
        let rules = Rules { issuers: vec!["https://a".into()], audiences: vec!["x".into(), "y".into()], leeway: Duration::from_secs(30) };
        for good in [json!({ "iss": "https://a", "aud": "x" }), json!({ "iss": "https://a", "aud": ["z", "y"] })] {
            assert_eq!(check(&rules, &good), Ok(()), "{good}");
        }
        for (claim, bad) in [
            ("iss", json!({ "aud": "x" })),
            ("iss", json!({ "iss": "https://a/", "aud": "x" })),
            ("aud", json!({ "iss": "https://a" })),
            ("aud", json!({ "iss": "https://a", "aud": [] })),
            ("aud", json!({ "iss": "https://a", "aud": "xy" })),
            ("iat", json!({ "iss": "https://a", "aud": "x", "iat": 1_700_000_031 })),
        ] {
            assert_eq!(check(&rules, &bad), Err(Fault::Claim(claim)), "{bad}");
        }
        assert_eq!(check(&rules, &json!({ "iss": "https://a", "aud": "x", "iat": 1_700_000_030 })), Ok(()), "as far ahead as may be");
        assert_eq!(check(&Rules::default(), &json!({})), Ok(()));
    }

    #[test]
    fn cve_2026_25537_claims_of_a_wrong_type_are_refused_even_where_nothing_is_required() {
        for wrong in [json!(null), json!(1), json!([]), json!({}), json!(true), json!(-1.5)] {
            for claim in ["iss", "sub", "jti", "aud"] {
                if claim == "aud" && wrong == json!([]) {
                    continue;
                }
                assert_eq!(check(&Rules::default(), &json!({ claim: wrong })), Err(Fault::Claim(claim)), "{claim} {wrong}");
            }
        }
        assert_eq!(check(&Rules::default(), &json!({ "aud": ["x", 1] })), Err(Fault::Claim("aud")));
    }
}
