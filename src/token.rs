//! A token as the token service gave it, and the times in it. Pure: `now` is a parameter everywhere.

use std::ops::RangeInclusive;
use std::time::Duration;

use http::HeaderValue;

use crate::authorize::{Judged, Judgement, Policy};
use crate::claims::Claims;
use crate::clock::{Reading, Timestamp};
use crate::secret::Secret;

/// The scheme under which a token is injected (RFC 6750 section 2.1).
const BEARER: &str = "Bearer ";

/// Why text from the token service cannot be used as a token. Holds none of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Bytes in it that no header may carry.
    #[error("the token has characters that no header may carry")]
    Unprintable,
    /// Three parts, but the second is no JSON object in base64url, or one with a name that comes twice.
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

/// How long tokens live beside what they say themselves.
#[derive(Clone, Copy, Debug)]
pub struct Lifetimes {
    /// The life of a token that shows no `exp` (a psToken).
    pub session: Duration,
    /// No token outlives this; off where there is none.
    pub max_age: Option<Duration>,
}

/// A minted token, ready to be injected.
#[derive(Debug)]
pub struct Token {
    /// `Bearer ` and the token; marked sensitive, so that no `Debug` shows it.
    header: HeaderValue,
    /// When it was minted.
    minted: Timestamp,
    /// What it had to live then.
    lifetime: Duration,
    expires: Timestamp,
    /// When it dies, in [`Reading::uptime`].
    dies: Duration,
    not_before: Option<NotBefore>,
    judged: Judged,
}

/// When a token may be used first.
#[derive(Clone, Copy, Debug)]
struct NotBefore {
    wall: Timestamp,
    /// How long that was after it came.
    delay: Duration,
    /// When it came, in [`Reading::uptime`].
    came: Duration,
}

impl Token {
    /// Takes what `create_token` answered at `now`. Claims are read without a check of the signature: the text came from the token service over a trusted
    /// connection. One that has not three parts is opaque and shows no times.
    ///
    /// # Errors
    /// When the text cannot be a header, looks like a JWT and is unreadable, or is good at no time from now on.
    pub fn parse(text: &Secret, now: Reading, lifetimes: Lifetimes) -> Result<Self, Error> {
        let text = text.expose();
        Self::of(text, || Claims::of(text).map_err(|_| Error::Unreadable)?.as_ref().map_or(Ok(Times::default()), Times::of), now, lifetimes)
    }

    /// Takes a JWT whose claims were read already.
    ///
    /// # Errors
    /// As [`Token::parse`].
    pub fn with_claims(text: &str, claims: &Claims, now: Reading, lifetimes: Lifetimes) -> Result<Self, Error> {
        Self::of(text, || Times::of(claims), now, lifetimes)
    }

    fn of(text: &str, times: impl FnOnce() -> Result<Times, Error>, now: Reading, lifetimes: Lifetimes) -> Result<Self, Error> {
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Error::Unprintable);
        }
        let mut header = HeaderValue::try_from(format!("{BEARER}{text}")).map_err(|_| Error::Unprintable)?;
        header.set_sensitive(true);
        let times = times()?;
        let expires = times.exp.unwrap_or_else(|| now.wall.plus(lifetimes.session));
        let expires = lifetimes.max_age.map_or(expires, |age| expires.min(now.wall.plus(age)));
        if expires <= now.wall {
            return Err(Error::Expired);
        }
        if times.nbf.is_some_and(|nbf| nbf >= expires) {
            return Err(Error::NeverValid);
        }
        let lifetime = expires.since(now.wall);
        let not_before = times.nbf.map(|wall| NotBefore { wall, delay: wall.since(now.wall), came: now.uptime });
        Ok(Self {
            header,
            minted: now.wall,
            lifetime,
            expires,
            dies: now.uptime.saturating_add(lifetime),
            not_before,
            judged: Judged::default(),
        })
    }

    /// Takes a token that an earlier process minted at `minted` and that ends at `expires` at the latest. It lives on as if it had been here all the
    /// time.
    ///
    /// # Errors
    /// As [`Token::parse`].
    pub fn restore(text: &Secret, minted: Timestamp, expires: Timestamp, now: Reading) -> Result<Self, Error> {
        let left = expires.since(now.wall);
        let token = Self::parse(text, now, Lifetimes { session: left, max_age: Some(left) })?;
        Ok(Self { minted, lifetime: token.expires.since(minted), ..token })
    }

    /// The value of `Authorization` towards the upstream.
    pub const fn authorization(&self) -> &HeaderValue {
        &self.header
    }

    /// The token alone, for calls to the token service.
    pub fn value(&self) -> Secret {
        Secret::from(self.text())
    }

    /// The header was made from visible ASCII behind the scheme.
    fn text(&self) -> &str {
        self.header.to_str().map_or("", |text| &text[BEARER.len()..])
    }

    /// Whether it may be used at `now`: `exp` is strict, a token that ends this instant is dead; `nbf` allows for `skew`.
    pub fn is_valid(&self, now: Reading, skew: Duration) -> bool {
        !self.is_dead(now) && self.until_valid(now, skew).is_zero()
    }

    /// Whether it can never be used again: its `exp` has come, or as much time has passed since the mint as it had to live then. The latter holds
    /// when the wall clock was stepped back meanwhile.
    pub fn is_dead(&self, now: Reading) -> bool {
        now.wall >= self.expires || now.uptime >= self.dies
    }

    /// What a route's policy makes of the claims. They are read the first time; a token that is no JWT has none.
    pub fn judged_by(&self, policy: &Policy) -> &Judgement {
        // What can be read was seen when the token came.
        self.judged.by(policy, || Claims::of(self.text()).ok().flatten().unwrap_or_default())
    }

    /// When it was minted.
    pub const fn minted(&self) -> Timestamp {
        self.minted
    }

    /// When it dies, by the wall clock.
    pub const fn expires(&self) -> Timestamp {
        self.expires
    }

    /// When it dies, in [`Reading::uptime`].
    pub const fn dies(&self) -> Duration {
        self.dies
    }

    /// What it had to live when it was minted.
    pub const fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// When it should be renewed, in [`Reading::uptime`]: ahead of its end by min(L/2, max(60 s, L/5)) x `jitter`, which is from 0.8 to 1.
    pub fn renewal_due(&self, jitter: f64) -> Duration {
        let lifetime = self.lifetime();
        let lead = (lifetime / 2).min(LEAST_LEAD.max(lifetime / 5));
        self.dies().saturating_sub(lead.mul_f64(jitter.clamp(*JITTER.start(), *JITTER.end())))
    }

    /// How long it is from `now` until it may be used; zero if it may be used already. Once it could be, a wall clock that is stepped back takes
    /// nothing from it.
    pub fn until_valid(&self, now: Reading, skew: Duration) -> Duration {
        let Some(NotBefore { wall, delay, came }) = self.not_before else { return Duration::ZERO };
        let begins = came.saturating_add(delay.saturating_sub(skew));
        wall.minus(skew).since(now.wall).min(begins.saturating_sub(now.uptime))
    }
}

/// Renewals begin at least this long ahead of the end of a token that lives long enough.
const LEAST_LEAD: Duration = Duration::from_secs(60);
/// By which part of its lead a renewal comes early or late, so that tokens minted together are not renewed together.
pub const JITTER: RangeInclusive<f64> = 0.8..=1.0;

#[derive(Debug, Default)]
struct Times {
    exp: Option<Timestamp>,
    nbf: Option<Timestamp>,
}

impl Times {
    fn of(claims: &Claims) -> Result<Self, Error> {
        numeric_date(claims, "iat")?;
        Ok(Self { exp: numeric_date(claims, "exp")?, nbf: numeric_date(claims, "nbf")? })
    }
}

/// A `NumericDate`: seconds, perhaps with a fraction. A wrong type is an error, never "no date" (CVE-2026-25537).
fn numeric_date(claims: &Claims, name: &'static str) -> Result<Option<Timestamp>, Error> {
    let Some(value) = claims.member(name) else { return Ok(None) };
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
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use proptest::prelude::*;

    const NOW: Reading = Reading { wall: Timestamp::from_secs(1_700_000_000), uptime: Duration::from_secs(1000) };
    const HOUR: Duration = Duration::from_secs(3600);
    const LIFETIMES: Lifetimes = Lifetimes { session: HOUR, max_age: None };

    fn jwt(claims: &str) -> Secret {
        Secret::from(format!("eyJhbGciOiJSUzI1NiJ9.{}.c2ln", URL_SAFE_NO_PAD.encode(claims)))
    }

    fn parse(claims: &str) -> Result<Token, Error> {
        Token::parse(&jwt(claims), NOW, LIFETIMES)
    }

    fn stepped(mut reading: Reading, millis: i64) -> Reading {
        reading.wall = Timestamp::from_millis(reading.wall.as_millis().saturating_add(millis));
        reading
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
        let token = Token::parse(&Secret::from("pst_abc"), NOW, LIFETIMES).unwrap();
        assert_eq!(token.lifetime(), HOUR);
        assert_eq!(token.authorization(), "Bearer pst_abc");
        assert_eq!(token.value().expose(), "pst_abc");
    }

    #[test]
    fn a_token_of_an_earlier_process_lives_on_as_it_would_have() {
        let text = jwt(r#"{"exp":1700003600,"nbf":1700000000}"#);
        let started = Reading { wall: Timestamp::from_secs(1_700_003_000), uptime: Duration::from_secs(1) };
        let token = Token::restore(&text, NOW.wall, Timestamp::from_secs(1_700_003_600), started).unwrap();
        assert_eq!((token.lifetime(), token.dies()), (HOUR, Duration::from_secs(601)));
        assert_eq!(token.renewal_due(1.0), Duration::ZERO, "its time to be renewed has come");
        assert!(token.is_valid(started, Duration::ZERO));
        let opaque = Token::restore(&Secret::from("pst_1"), NOW.wall, Timestamp::from_secs(1_700_003_100), started).unwrap();
        assert_eq!(opaque.dies(), Duration::from_secs(101), "what shows no end ends when it was to");
    }

    #[test]
    fn no_token_outlives_max_age() {
        let aged = |max_age| Token::parse(&jwt(r#"{"exp":1700003600}"#), NOW, Lifetimes { session: HOUR, max_age: Some(max_age) }).unwrap();
        assert_eq!(aged(Duration::from_secs(600)).lifetime(), Duration::from_secs(600));
        assert_eq!(aged(2 * HOUR).lifetime(), HOUR);
    }

    #[test]
    fn an_hour_is_renewed_a_fifth_of_it_ahead_of_its_end() {
        let token = parse(r#"{"exp":1700003600}"#).unwrap();
        assert_eq!(token.renewal_due(1.0), NOW.uptime + Duration::from_secs(3600 - 720));
        assert_eq!(token.renewal_due(0.8), NOW.uptime + Duration::from_secs(3600 - 576));
        assert_eq!(parse(r#"{"exp":1700000100}"#).unwrap().renewal_due(1.0), NOW.uptime + Duration::from_secs(50));
        assert_eq!(parse(r#"{"exp":1700000200}"#).unwrap().renewal_due(1.0), NOW.uptime + Duration::from_secs(140));
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
        assert!(parse(r#"{"exp":253402300799.5}"#).is_ok());
        assert_eq!(parse(r#"{"exp":253402300800.0}"#).unwrap_err(), Error::WrongType("exp"), "the year 10000");
    }

    #[test]
    fn tokens_that_are_good_at_no_time_are_refused() {
        assert_eq!(parse(r#"{"exp":1700000000}"#).unwrap_err(), Error::Expired);
        assert_eq!(parse(r#"{"exp":1700000060,"nbf":1700000060}"#).unwrap_err(), Error::NeverValid);
        assert_eq!(parse("[1]").unwrap_err(), Error::Unreadable);
        assert_eq!(Token::parse(&Secret::from("a.%%%.c"), NOW, LIFETIMES).unwrap_err(), Error::Unreadable);
        assert_eq!(Token::parse(&Secret::from("a b"), NOW, LIFETIMES).unwrap_err(), Error::Unprintable);
        assert_eq!(Token::parse(&Secret::from(""), NOW, LIFETIMES).unwrap_err(), Error::Unprintable);
    }

    proptest! {
        #[test]
        fn whatever_comes_is_never_valid_past_its_exp(text in "\\PC{0,40}", exp in any::<i64>(), nbf in any::<i64>(), later in 0u64..1 << 40) {
            let _ = Token::parse(&Secret::from(text), NOW, LIFETIMES);
            if let Ok(token) = parse(&format!(r#"{{"exp":{exp},"nbf":{nbf}}}"#)) {
                let at = NOW.plus(Duration::from_secs(later));
                prop_assert!(!token.is_valid(at, Duration::ZERO) || (at.wall < Timestamp::from_secs(exp) && at.wall >= Timestamp::from_secs(nbf)));
            }
        }

        #[test]
        fn renewal_is_never_before_half_the_life_nor_at_its_end(secs in 1i64..=30 * 24 * 3600, jitter in JITTER, skew in 0u64..7200) {
            let token = parse(&format!(r#"{{"exp":{}}}"#, NOW.wall.as_secs() + secs)).unwrap();
            let due = token.renewal_due(jitter);
            prop_assert!(due >= NOW.uptime + token.lifetime() / 2);
            prop_assert!(due < token.dies());
            let at = NOW.plus(due - NOW.uptime);
            prop_assert!(token.is_valid(at, Duration::from_secs(skew)));
        }

        #[test]
        fn no_step_of_the_wall_clock_lengthens_a_life_or_moves_a_renewal(secs in 1i64..=30 * 24 * 3600, step in -7_200_000i64..=7_200_000, later in 0u64..60 * 24 * 3600) {
            let token = parse(&format!(r#"{{"exp":{}}}"#, NOW.wall.as_secs() + secs)).unwrap();
            let steady = NOW.plus(Duration::from_secs(later));
            let now = stepped(steady, step);
            prop_assert!(!token.is_valid(now, Duration::ZERO) || token.is_valid(steady, Duration::ZERO));
            prop_assert!(!token.is_valid(now, Duration::ZERO) || now.wall < token.expires());
            prop_assert!(token.renewal_due(1.0) > NOW.uptime);
        }
    }
}
