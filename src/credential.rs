//! What a caller presents: an API key, a user and password, or a session token. Pure: headers and query in, credential or refusal out.

mod jwt;

use std::borrow::Cow;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::refusal::{Reason, Refusal};
use crate::secret::Secret;

/// The ways to present a credential that bearerd knows; also how the token service is asked with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// An API key: `X-API-Key` to the token service.
    ApiKey,
    /// The text after `Basic `: base64 of `user:pass`, or of a bare API key. Forwarded as it came.
    Basic,
    /// A psToken: `Authorization: Bearer` to the token service.
    SessionToken,
    /// A JWT: validated, and passed on; no token service mints from it.
    Jwt,
}

impl Kind {
    /// Its name in the configuration and in cache keys.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ApiKey => "api_key",
            Self::Basic => "basic",
            Self::SessionToken => "session_token",
            Self::Jwt => "jwt",
        }
    }
}

/// A credential that outlives its request, since renewals need it. It is visible ASCII.
#[derive(Clone, Debug)]
pub struct Credential {
    /// How it is presented to the token service.
    pub kind: Kind,
    /// The key, the base64 text, or the psToken.
    pub value: Secret,
}

/// A credential as it lies in the request. No `Debug`: it is a secret.
pub struct Presented<'a> {
    /// What it is.
    pub kind: Kind,
    /// The text: visible ASCII without commas.
    pub value: Cow<'a, str>,
}

impl Presented<'_> {
    /// A copy that outlives the request.
    pub fn to_owned(&self) -> Credential {
        Credential { kind: self.kind, value: Secret::from(&*self.value) }
    }
}

/// Where a route looks for a credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// An API key in this header.
    Header(HeaderName),
    /// An API key in this query parameter; the name is compared without regard to case.
    Query(String),
    /// `Authorization: Basic`.
    Basic,
    /// `Authorization: Bearer` with what is not a JWT.
    SessionToken,
    /// `Authorization: Bearer` with a JWT.
    Jwt,
}

/// What an `Authorization` value holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// `Basic`.
    Basic,
    /// `Bearer` with three base64url parts whose first is a JSON object with `alg`.
    Jwt,
    /// Any other `Bearer`.
    SessionToken,
    /// Anything else: no credential that bearerd knows.
    Unknown,
}

/// Looks for a credential at the `sources` in their order.
///
/// # Errors
/// [`Reason::MissingCredential`] where there is none; [`Reason::InvalidCredential`] where one is malformed, comes twice, or, with `one_only`,
/// where several sources hold one; [`Reason::InvalidToken`] for a JWT where only session tokens are taken, or the other way round.
pub fn extract<'a>(sources: &[Source], one_only: bool, headers: &'a HeaderMap, query: Option<&'a str>) -> Result<Presented<'a>, Refusal> {
    let mut chosen = None;
    for source in sources {
        let Some(found) = find(source, headers, query)? else { continue };
        match chosen {
            None => chosen = Some(found),
            Some(_) if one_only => return Err(invalid("The request brings several credentials; send exactly one.")),
            Some(_) => {}
        }
    }
    // Where a Bearer was chosen there is no other one.
    let is_bearer = chosen.as_ref().is_some_and(|(kind, _)| matches!(kind, Kind::SessionToken | Kind::Jwt));
    if !is_bearer && (chosen.is_none() || one_only) {
        refuse_other_bearer(sources, headers)?;
    }
    let (kind, value) = chosen.ok_or_else(|| Refusal::new(Reason::MissingCredential, expected(sources)))?;
    Ok(Presented { kind, value: checked(value)? })
}

type Found<'a> = (Kind, Cow<'a, [u8]>);

/// The raw value at one source, not yet checked: a malformed one that is not chosen does no harm.
fn find<'a>(source: &Source, headers: &'a HeaderMap, query: Option<&'a str>) -> Result<Option<Found<'a>>, Refusal> {
    Ok(match source {
        Source::Header(name) => single(headers, name)?.map(|value| (Kind::ApiKey, Cow::Borrowed(value.as_bytes()))),
        Source::Query(name) => query_parameter(query, name)?.map(|value| (Kind::ApiKey, value)),
        Source::Basic => authorization(headers, Scheme::Basic)?.map(|value| (Kind::Basic, value)),
        Source::SessionToken => authorization(headers, Scheme::SessionToken)?.map(|value| (Kind::SessionToken, value)),
        Source::Jwt => authorization(headers, Scheme::Jwt)?.map(|value| (Kind::Jwt, value)),
    })
}

/// The value of a header that may come once.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a HeaderValue>, Refusal> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() {
        return Err(invalid(format!("The header `{name}` comes more than once; send it once.")));
    }
    Ok(first)
}

fn authorization(headers: &HeaderMap, wanted: Scheme) -> Result<Option<Cow<'_, [u8]>>, Refusal> {
    let Some(value) = single(headers, &AUTHORIZATION)? else { return Ok(None) };
    if value.is_empty() {
        return Err(invalid("The header `authorization` is empty."));
    }
    let (scheme, text) = scheme(value.as_bytes());
    Ok((scheme == wanted).then_some(Cow::Borrowed(text)))
}

/// A JWT is never tried as a session token, nor the other way round. Where no Bearer is listed at all, one is no credential.
fn refuse_other_bearer(sources: &[Source], headers: &HeaderMap) -> Result<(), Refusal> {
    let wrong = match (sources.contains(&Source::SessionToken), sources.contains(&Source::Jwt)) {
        (true, false) => (Scheme::Jwt, "This route takes no JWT; send the API key or session token from which bearerd gets one."),
        (false, true) => (Scheme::SessionToken, "This route takes a JWT as a Bearer, and this is none."),
        _ => return Ok(()),
    };
    match headers.get(AUTHORIZATION).map(|value| scheme(value.as_bytes())) {
        Some((found, text)) if found == wrong.0 => {
            // Several joined by a comma are no token of any kind.
            checked(Cow::Borrowed(text))?;
            Err(Refusal::new(Reason::InvalidToken, wrong.1))
        }
        _ => Ok(()),
    }
}

/// Splits an `Authorization` value into its scheme, which ignores case (RFC 9110 section 11.1), and the rest.
pub fn scheme(value: &[u8]) -> (Scheme, &[u8]) {
    let value = value.trim_ascii();
    let end = value.iter().position(|byte| *byte == b' ' || *byte == b'\t').unwrap_or(value.len());
    let (word, rest) = (&value[..end], value[end..].trim_ascii());
    let scheme = if word.eq_ignore_ascii_case(b"basic") {
        Scheme::Basic
    } else if !word.eq_ignore_ascii_case(b"bearer") {
        Scheme::Unknown
    } else if jwt::is_jwt(rest) {
        Scheme::Jwt
    } else {
        Scheme::SessionToken
    };
    (scheme, rest)
}

/// The decoded value of a query parameter that may come once. Its name ignores case, since some backends do.
fn query_parameter<'a>(query: Option<&'a str>, name: &str) -> Result<Option<Cow<'a, [u8]>>, Refusal> {
    let Some(query) = query else { return Ok(None) };
    let mut values =
        url::form_urlencoded::parse(query.as_bytes()).filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value);
    let first = values.next();
    if values.next().is_some() {
        return Err(invalid(format!("The query parameter `{name}` comes more than once; send it once.")));
    }
    Ok(first.map(|value| match value {
        Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
        Cow::Owned(text) => Cow::Owned(text.into_bytes()),
    }))
}

/// A chosen credential must be visible ASCII (bytes 0x80-0xFF never pass: CVE-2026-73552) without a comma, which joins two header lines into one
/// (RFC 9110 section 5.3).
fn checked(value: Cow<'_, [u8]>) -> Result<Cow<'_, str>, Refusal> {
    if value.is_empty() {
        return Err(invalid("The credential is empty."));
    }
    // Without an early end, a long token is checked many bytes at a time.
    let is_odd = |byte: u8| !byte.is_ascii_graphic() || byte == b',';
    if value.iter().fold(false, |odd, byte| odd | is_odd(*byte)) {
        return Err(invalid("The credential has characters that none can have: only visible ASCII without spaces and commas."));
    }
    let text = match value {
        Cow::Borrowed(bytes) => std::str::from_utf8(bytes).ok().map(Cow::Borrowed),
        Cow::Owned(bytes) => String::from_utf8(bytes).ok().map(Cow::Owned),
    };
    text.ok_or_else(|| invalid("The credential is not ASCII."))
}

fn invalid(detail: impl Into<Cow<'static, str>>) -> Refusal {
    Refusal::new(Reason::InvalidCredential, detail)
}

/// What a caller without a credential should send.
fn expected(sources: &[Source]) -> String {
    let places: Vec<String> = sources
        .iter()
        .map(|source| match source {
            Source::Header(name) => format!("the header `{name}`"),
            Source::Query(name) => format!("the query parameter `{name}`"),
            Source::Basic => "`Authorization: Basic`".to_owned(),
            Source::SessionToken => "`Authorization: Bearer` with a session token".to_owned(),
            Source::Jwt => "`Authorization: Bearer` with a JWT".to_owned(),
        })
        .collect();
    format!("Send a credential in {}.", places.join(", or "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all() -> Vec<Source> {
        vec![Source::Header(HeaderName::from_static("x-api-key")), Source::Query("api_key".into()), Source::Basic, Source::SessionToken]
    }

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).unwrap())).collect()
    }

    fn run(sources: &[Source], one_only: bool, lines: &[(&'static str, &str)], query: Option<&str>) -> Result<(Kind, String), Reason> {
        extract(sources, one_only, &headers(lines), query)
            .map(|found| (found.kind, found.value.into_owned()))
            .map_err(|refusal| refusal.reason)
    }

    const JWT: &str = "Bearer eyJhbGciOiJSUzI1NiJ9.e30.c2ln";

    #[test]
    fn each_kind_is_found_where_it_belongs() {
        assert_eq!(run(&all(), true, &[("x-api-key", "k1")], None), Ok((Kind::ApiKey, "k1".into())));
        assert_eq!(run(&all(), true, &[], Some("a=b&API%5Fkey=k%31")), Ok((Kind::ApiKey, "k1".into())));
        assert_eq!(run(&all(), true, &[("authorization", "bAsIc  dTpw")], None), Ok((Kind::Basic, "dTpw".into())));
        assert_eq!(run(&all(), true, &[("authorization", "BEARER pst_1.2")], None), Ok((Kind::SessionToken, "pst_1.2".into())));
        assert_eq!(
            run(&all(), true, &[("authorization", "Bearer a.b.c")], None),
            Ok((Kind::SessionToken, "a.b.c".into())),
            "no header, no JWT"
        );
    }

    #[test]
    fn a_header_that_was_seen_before_makes_no_other_one_a_jwt() {
        let kind = |text: &str| scheme(format!("Bearer {text}").as_bytes()).0;
        for _ in 0..2 {
            assert_eq!(kind("eyJhbGciOiJSUzI1NiJ9.e30.c2ln"), Scheme::Jwt);
            assert_eq!(kind(".e30.c2ln"), Scheme::SessionToken);
            assert_eq!(kind("eyJhbGciOiJSUzI1NiJ.e30.c2ln"), Scheme::SessionToken);
            assert_eq!(kind("eyJhbGciOiJSUzI1NiJ9.e30"), Scheme::SessionToken);
        }
    }

    #[test]
    fn unknown_and_missing_schemes_are_no_credential() {
        for value in ["Digest x", "k1", "Bearerx k1"] {
            assert_eq!(run(&all(), true, &[("authorization", value)], None), Err(Reason::MissingCredential), "{value}");
        }
        assert_eq!(run(&all(), true, &[], None), Err(Reason::MissingCredential));
        assert_eq!(
            run(&[Source::Basic], true, &[("authorization", JWT)], None),
            Err(Reason::MissingCredential),
            "no Bearer kind is listed"
        );
    }

    #[test]
    fn an_unlisted_jwt_is_refused_and_never_tried_as_a_session() {
        assert_eq!(run(&all(), true, &[("authorization", JWT)], None), Err(Reason::InvalidToken));
        assert_eq!(run(&[Source::SessionToken], true, &[("authorization", JWT)], None), Err(Reason::InvalidToken));
        assert_eq!(run(&all(), false, &[("authorization", JWT)], None), Err(Reason::InvalidToken));
        let beside_a_key = [("x-api-key", "k"), ("authorization", JWT)];
        assert_eq!(run(&all(), true, &beside_a_key, None), Err(Reason::InvalidToken));
        assert_eq!(run(&all(), false, &beside_a_key, None), Ok((Kind::ApiKey, "k".into())), "the first is taken, whatever comes beside it");
    }

    #[test]
    fn a_jwt_is_found_where_it_is_listed_and_a_session_token_is_none() {
        let sources = [Source::Header(HeaderName::from_static("x-api-key")), Source::Jwt];
        let token = JWT.strip_prefix("Bearer ").unwrap();
        assert_eq!(run(&sources, true, &[("authorization", JWT)], None), Ok((Kind::Jwt, token.into())));
        assert_eq!(run(&sources, true, &[("authorization", "Bearer pst_1")], None), Err(Reason::InvalidToken));
        let both = [Source::SessionToken, Source::Jwt];
        assert_eq!(run(&both, true, &[("authorization", "Bearer pst_1")], None), Ok((Kind::SessionToken, "pst_1".into())));
        assert_eq!(run(&both, true, &[("authorization", JWT)], None), Ok((Kind::Jwt, token.into())));
        assert_eq!(run(&sources, true, &[("x-api-key", "k"), ("authorization", JWT)], None), Err(Reason::InvalidCredential));
        assert_eq!(run(&sources, false, &[("x-api-key", "k"), ("authorization", JWT)], None), Ok((Kind::ApiKey, "k".into())));
    }

    #[test]
    fn rfc_6750_two_of_anything_is_refused() {
        for lines in [
            &[("x-api-key", "a"), ("x-api-key", "b")][..],
            &[("authorization", "Bearer a"), ("authorization", "Bearer b")],
            &[("authorization", "Bearer a, Bearer b")],
            &[("x-api-key", "a,b")],
            &[("x-api-key", "a"), ("authorization", "Basic b")],
            &[("authorization", "Basic")],
            &[("authorization", "")],
            &[("x-api-key", "")],
        ] {
            assert_eq!(run(&all(), true, lines, None), Err(Reason::InvalidCredential), "{lines:?}");
        }
        assert_eq!(run(&all(), true, &[("x-api-key", "a")], Some("api_key=a")), Err(Reason::InvalidCredential));
        assert_eq!(run(&all(), true, &[], Some("api_key=a&api_key=a")), Err(Reason::InvalidCredential));
    }

    #[test]
    fn first_takes_the_first_and_looks_away_from_a_malformed_other() {
        assert_eq!(run(&all(), false, &[("x-api-key", "a"), ("authorization", "Basic b c")], None), Ok((Kind::ApiKey, "a".into())));
        let reversed: Vec<_> = all().into_iter().rev().collect();
        assert_eq!(run(&reversed, false, &[("x-api-key", "a"), ("authorization", "Basic b c")], None), Err(Reason::InvalidCredential));
    }

    #[test]
    fn cve_2026_73552_high_bytes_never_pass() {
        let mut map = HeaderMap::new();
        for byte in (0x80..=0xFFu8).chain([b' ', b'\t']) {
            map.insert("x-api-key", HeaderValue::from_bytes(&[b'a', byte, b'b']).unwrap());
            assert_eq!(extract(&all(), true, &map, None).err().map(|refusal| refusal.reason), Some(Reason::InvalidCredential), "{byte:#x}");
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_in_is_refused_or_clean(key in proptest::option::of("[\\x20-\\x7e\\x80-\\xff]{0,20}"), auth in proptest::option::of("(Basic|Bearer|x) ?[\\x20-\\x7e]{0,30}"),
                                                 query in proptest::option::of("[\\x21-\\x7e]{0,30}"), one_only: bool) {
            let mut map = HeaderMap::new();
            if let Some(value) = key.as_ref().and_then(|text| HeaderValue::from_bytes(text.as_bytes()).ok()) { map.insert("x-api-key", value); }
            if let Some(value) = auth.as_ref().and_then(|text| HeaderValue::from_bytes(text.as_bytes()).ok()) { map.insert("authorization", value); }
            if let Ok(found) = extract(&all(), one_only, &map, query.as_deref()) {
                prop_assert!(!found.value.is_empty() && found.value.bytes().all(|byte| byte.is_ascii_graphic() && byte != b','));
            }
        }
    }
}
