//! Request headers -> the credential for `create_token`, the token for `get_token_details`.

use http::{HeaderMap, HeaderName, header};

use super::Malformed;
use crate::credential::{Credential, Kind};
use crate::secret::Secret;

const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// The one credential of a request: `X-API-Key`, `Authorization`, or the obsolete query parameter `api_key`.
/// A scheme that nobody here knows is none.
///
/// # Errors
/// [`Malformed`] for several, for an empty one, and for one that is not visible ASCII without commas, wherever it stands: a comma joins two header lines
/// into one (RFC 9110 section 5.3), and blanks at an end get lost on the way.
pub fn find(headers: &HeaderMap, query: Option<Secret>) -> Result<Option<Credential>, Malformed> {
    let key = single(headers, &X_API_KEY)?.map(|value| Credential { kind: Kind::ApiKey, value });
    let query = query.map(|value| Credential { kind: Kind::ApiKey, value });
    let authorization = single(headers, &header::AUTHORIZATION)?;
    let mut found = [key, query].into_iter().flatten().chain(match authorization {
        Some(text) => parse_authorization(text.expose())?,
        None => None,
    });
    let first = found.next();
    if found.next().is_some() {
        return Err(Malformed("there are several credentials: send one".to_owned()));
    }
    match first {
        Some(credential) if !is_clean(&credential.value) => {
            Err(Malformed("the credential has characters that none can have: only visible ASCII without spaces and commas".to_owned()))
        }
        first => Ok(first),
    }
}

fn is_clean(value: &Secret) -> bool {
    value.expose().bytes().all(|byte| byte.is_ascii_graphic() && byte != b',')
}

/// The token of the one `Authorization: Bearer`; `None` for everything else.
pub fn bearer(headers: &HeaderMap) -> Option<Secret> {
    let text = single(headers, &header::AUTHORIZATION).ok()??;
    let credential = parse_authorization(text.expose()).ok()??;
    (credential.kind == Kind::SessionToken && is_clean(&credential.value)).then_some(credential.value)
}

/// Schemes ignore case (RFC 9110 section 11.1). Text without a scheme is a bare key: the reference's own example sends it.
fn parse_authorization(text: &str) -> Result<Option<Credential>, Malformed> {
    let (scheme, rest) = text.split_once([' ', '\t']).map_or((text, None), |(scheme, rest)| (scheme, Some(rest.trim())));
    let known = [("basic", Kind::Basic), ("bearer", Kind::SessionToken)];
    let kind = known.into_iter().find(|(name, _)| scheme.eq_ignore_ascii_case(name)).map(|(_, kind)| kind);
    match (kind, rest) {
        (Some(_), None | Some("")) => Err(Malformed(format!("nothing comes after `{}` in Authorization", scheme.to_ascii_lowercase()))),
        (Some(_), Some(rest)) if rest.contains([' ', '\t']) => Err(Malformed("there is a blank in the credential".to_owned())),
        (Some(kind), Some(rest)) => Ok(Some(Credential { kind, value: Secret::from(rest) })),
        (None, None) => Ok(Some(Credential { kind: Kind::ApiKey, value: Secret::from(text) })),
        (None, Some(_)) => Ok(None),
    }
}

fn single(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Secret>, Malformed> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Malformed(format!("the header {name} is there more than once")));
    }
    let text = value.to_str().map_err(|_| Malformed(format!("the header {name} is not visible ASCII")))?.trim();
    if text.is_empty() {
        return Err(Malformed(format!("the header {name} is empty")));
    }
    Ok(Some(Secret::from(text)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    fn authorization(text: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_str(text).unwrap())])
    }

    fn found(text: &str) -> Option<(Kind, String)> {
        find(&authorization(text), None).unwrap().map(|credential| (credential.kind, credential.value.expose().to_owned()))
    }

    #[test]
    fn each_form_of_authorization_is_told_apart() {
        assert_eq!(found("Basic YTpi"), Some((Kind::Basic, "YTpi".to_owned())));
        assert_eq!(found("bEARER  pst_1 "), Some((Kind::SessionToken, "pst_1".to_owned())));
        assert_eq!(found("brd_key"), Some((Kind::ApiKey, "brd_key".to_owned())));
        assert_eq!(found("Digest a=b"), None);
        for malformed in ["Basic", "Bearer ", "Bearer a b", "", "a,b", "Basic a,b"] {
            assert!(matches!(find(&authorization(malformed), None), Err(Malformed(_))), "{malformed}");
        }
        for malformed in ["é", "k ", "k,l", "k\n"] {
            assert!(matches!(find(&HeaderMap::new(), Some(Secret::from(malformed))), Err(Malformed(_))), "{malformed}");
        }
    }

    #[test]
    fn several_credentials_are_none() {
        let mut headers = authorization("Bearer a");
        headers.insert(X_API_KEY, HeaderValue::from_static("k"));
        assert!(find(&headers, None).is_err());
        assert!(find(&authorization("Bearer a"), Some(Secret::from("k"))).is_err());
        let mut twice = authorization("Bearer a");
        twice.append(header::AUTHORIZATION, HeaderValue::from_static("Bearer a"));
        assert!(find(&twice, None).is_err() && bearer(&twice).is_none());
    }

    #[test]
    fn details_take_a_bearer_alone() {
        assert_eq!(bearer(&authorization("Bearer t")), Some(Secret::from("t")));
        assert_eq!(bearer(&authorization("t")), None);
        assert_eq!(bearer(&authorization("Basic t")), None);
        assert_eq!(bearer(&authorization("Bearer t,u")), None);
        assert_eq!(bearer(&HeaderMap::new()), None);
    }

    proptest! {
        #[test]
        fn no_header_breaks_the_reader(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                let headers = HeaderMap::from_iter([(header::AUTHORIZATION, value)]);
                if let Ok(Some(credential)) = find(&headers, None) {
                    prop_assert!(credential.value.expose().bytes().all(|byte| byte.is_ascii_graphic()));
                }
            }
        }
    }
}
