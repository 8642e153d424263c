//! A token as the token service gave it, and the times in it. Pure: `now` is a parameter everywhere.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderValue;
use serde_json::{Map, Value};

use crate::clock::Timestamp;
use crate::secret::Secret;

/// The scheme under which a token is injected (RFC 6750 section 2.1).
const BEARER: &str = "Bearer ";

/// Why text from the token service cannot be used as a token. Holds none of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Bytes in it that no header may carry.
    #[error("the token has characters that no header may carry")]
    Unprintable,
    /// Three parts, but the second is no JSON object in base64url.
    #[error("the token looks like a JWT, but its claims cannot be read")]
    Unreadable,
    /// `exp`, `nbf` or `iat` is there and no number of seconds (RFC 7519 section 2, `NumericDate`).
    #[error("the claim `{0}` of the token is not a number of seconds")]
    WrongType(&'static str),
    /// `exp` is not in the future.
    #[error("the token has expired already")]
    Expired,
    /// `nbf` is not before `exp`: the token is good at no time.
    #[error("the token is never valid: `nbf` is not before `exp`")]
    NeverValid,
}

/// A minted token, ready to be injected.
#[derive(Debug)]
pub struct Token {
    /// `Bearer ` and the token; marked sensitive, so that no `Debug` shows it.
    header: HeaderValue,
    expires: Timestamp,
    not_before: Option<Timestamp>,
}

impl Token {
    /// Takes what `create_token` answered at `now`. A token that shows no `exp` (a psToken) lives `session_lifetime`.
    ///
    /// # Errors
    /// When the text cannot be a header, looks like a JWT and is unreadable, or is good at no time from now on.
    pub fn parse(text: &Secret, now: Timestamp, session_lifetime: Duration) -> Result<Self, Error> {
        let text = text.expose();
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Error::Unprintable);
        }
        let mut header = HeaderValue::try_from(format!("{BEARER}{text}")).map_err(|_| Error::Unprintable)?;
        header.set_sensitive(true);
        let times = Times::of(text)?;
        let expires = times.exp.unwrap_or_else(|| now.plus(session_lifetime));
        if expires <= now {
            return Err(Error::Expired);
        }
        if times.nbf.is_some_and(|nbf| nbf >= expires) {
            return Err(Error::NeverValid);
        }
        Ok(Self { header, expires, not_before: times.nbf })
    }

    /// The value of `Authorization` towards the upstream.
    pub const fn authorization(&self) -> &HeaderValue {
        &self.header
    }

    /// The token alone, for calls to the token service.
    pub fn value(&self) -> Secret {
        // The header was made from visible ASCII behind the scheme.
        Secret::from(self.header.to_str().map_or("", |text| &text[BEARER.len()..]))
    }

    /// Whether it may be used at `now`: `exp` is strict, a token that ends this instant is dead; `nbf` allows for `skew`.
    pub fn is_valid(&self, now: Timestamp, skew: Duration) -> bool {
        now < self.expires && self.not_before.is_none_or(|nbf| now >= nbf.minus(skew))
    }

    /// When it dies.
    pub const fn expires(&self) -> Timestamp {
        self.expires
    }

    /// How long it is from `now` until it may be used; zero if it may be used already.
    pub fn until_valid(&self, now: Timestamp, skew: Duration) -> Duration {
        self.not_before.map_or(Duration::ZERO, |nbf| nbf.minus(skew).since(now))
    }
}

#[derive(Debug, Default)]
struct Times {
    exp: Option<Timestamp>,
    nbf: Option<Timestamp>,
}

impl Times {
    /// Reads the claims of a JWT without a check of its signature: it came from the token service over a trusted connection.
    /// Text that has not three parts is opaque and shows no times.
    fn of(text: &str) -> Result<Self, Error> {
        let mut parts = text.split('.');
        let (Some(_), Some(claims), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
            return Ok(Self::default());
        };
        let json = URL_SAFE_NO_PAD.decode(claims.trim_end_matches('=')).map_err(|_| Error::Unreadable)?;
        let claims = serde_json::from_slice(&json).map_err(|_| Error::Unreadable)?;
        numeric_date(&claims, "iat")?;
        Ok(Self { exp: numeric_date(&claims, "exp")?, nbf: numeric_date(&claims, "nbf")? })
    }
}

/// A `NumericDate`: seconds, perhaps with a fraction. A wrong type is an error, never "no date" (CVE-2026-25537).
fn numeric_date(claims: &Map<String, Value>, name: &'static str) -> Result<Option<Timestamp>, Error> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    if let Some(seconds) = value.as_i64() {
        return Ok(Some(Timestamp::from_secs(seconds)));
    }
    match value.as_f64() {
        // Past the year 10000 no date is meant.
        Some(seconds) if seconds.is_finite() && seconds.abs() < 253_402_300_800.0 => {
            Ok(Some(Timestamp::from_millis((seconds * 1000.0) as i64)))
        }
        _ => Err(Error::WrongType(name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);
    const HOUR: Duration = Duration::from_secs(3600);

    fn jwt(claims: &str) -> Secret {
        Secret::from(format!("eyJhbGciOiJSUzI1NiJ9.{}.c2ln", URL_SAFE_NO_PAD.encode(claims)))
    }

    fn parse(claims: &str) -> Result<Token, Error> {
        Token::parse(&jwt(claims), NOW, HOUR)
    }

    #[test]
    fn exp_is_strict_and_nbf_allows_for_skew() {
        let token = parse(r#"{"exp":1700000060,"nbf":1700000010}"#).unwrap();
        let at = |secs| NOW.plus(Duration::from_secs(secs));
        assert!(!token.is_valid(at(9), Duration::ZERO));
        assert!(token.is_valid(at(9), Duration::from_secs(1)));
        assert!(token.is_valid(at(10), Duration::ZERO));
        assert!(token.is_valid(at(59), Duration::ZERO));
        assert!(!token.is_valid(at(60), HOUR), "no leeway on exp");
        assert_eq!(token.until_valid(NOW, Duration::ZERO), Duration::from_secs(10));
    }

    #[test]
    fn an_opaque_token_lives_the_session_lifetime() {
        let token = Token::parse(&Secret::from("pst_abc"), NOW, HOUR).unwrap();
        assert_eq!(token.expires(), NOW.plus(HOUR));
        assert_eq!(token.authorization(), "Bearer pst_abc");
        assert_eq!(token.value().expose(), "pst_abc");
    }

    #[test]
    fn debug_shows_no_token() {
        assert!(!format!("{:?}", parse(r#"{"exp":1700000060}"#).unwrap()).contains("eyJ"));
    }

    #[test]
    fn cve_2026_25537_wrong_typed_times_are_refused() {
        for wrong in [r#""1800000000""#, "null", "[]", "1e400", "18446744073709551615", "{}", "true"] {
            for claim in ["exp", "nbf", "iat"] {
                let claims = format!(r#"{{"exp":1800000000,"{claim}":{wrong}}}"#);
                let claims = if claim == "exp" { format!(r#"{{"exp":{wrong}}}"#) } else { claims };
                let outcome = parse(&claims);
                assert!(matches!(outcome, Err(Error::WrongType(_) | Error::Unreadable)), "{claims}: {outcome:?}");
            }
        }
        assert_eq!(parse(r#"{"exp":-1}"#).unwrap_err(), Error::Expired);
        assert!(parse(r#"{"exp":1800000000.5}"#).is_ok());
    }

    #[test]
    fn tokens_that_are_good_at_no_time_are_refused() {
        assert_eq!(parse(r#"{"exp":1700000000}"#).unwrap_err(), Error::Expired);
        assert_eq!(parse(r#"{"exp":1700000060,"nbf":1700000060}"#).unwrap_err(), Error::NeverValid);
        assert_eq!(parse("[1]").unwrap_err(), Error::Unreadable);
        assert_eq!(Token::parse(&Secret::from("a.%%%.c"), NOW, HOUR).unwrap_err(), Error::Unreadable);
        assert_eq!(Token::parse(&Secret::from("a b"), NOW, HOUR).unwrap_err(), Error::Unprintable);
        assert_eq!(Token::parse(&Secret::from(""), NOW, HOUR).unwrap_err(), Error::Unprintable);
    }

    proptest! {
        #[test]
        fn whatever_comes_is_never_valid_past_its_exp(text in "\\PC{0,40}", exp in any::<i64>(), nbf in any::<i64>(), later in 0u64..1 << 40) {
            let _ = Token::parse(&Secret::from(text), NOW, HOUR);
            if let Ok(token) = parse(&format!(r#"{{"exp":{exp},"nbf":{nbf}}}"#)) {
                let at = NOW.plus(Duration::from_secs(later));
                prop_assert!(!token.is_valid(at, Duration::ZERO) || (at < Timestamp::from_secs(exp) && at >= Timestamp::from_secs(nbf)));
            }
        }
    }
}
