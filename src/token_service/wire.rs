//! The token API on the wire: what is sent. What comes back is [`answer`]'s.
//!
//! Pure: from parameters to an HTTP request, with no connection in sight.

pub(super) mod answer;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, USER_AGENT};
use http::{Method, Request, Uri};
use http_body_util::Full;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use url::Url;

use super::{Error, TokenParams};
use crate::credential::{Credential, Kind};
use crate::secret::Secret;

/// A request that can be sent twice: its body is in memory.
pub(super) type Outgoing = Request<Full<Bytes>>;

/// Everything but the unreserved characters of RFC 3986 section 2.3, so that every server decodes the same: a space is `%20`, never `+`.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const AGENT: HeaderValue = HeaderValue::from_static(concat!("bearerd/", env!("CARGO_PKG_VERSION")));
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// Where a token service is: scheme, host, port and perhaps a path prefix, without the last slash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Base(String);

impl Base {
    /// Reads what the operator wrote.
    ///
    /// # Errors
    /// What is wrong with it and what to write instead.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        let url = Url::parse(text).map_err(|_| "it is not a URL: write it as `https://host` or `https://host:port/prefix`")?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err("its scheme must be `https` or `http`");
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("it must not hold a user or password: callers bring their own credentials");
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err("it must end with the path: take away what follows `?` or `#`");
        }
        Ok(Self(url.as_str().trim_end_matches('/').to_owned()))
    }

    /// Whether calls go over TLS.
    pub(super) fn is_https(&self) -> bool {
        self.0.starts_with("https:")
    }

    fn at(&self, path: &str) -> Result<Uri, Error> {
        let too_long = |_| Error::Rejected("the parameters make a URL that is too long to send".to_owned());
        format!("{}{path}", self.0).parse().map_err(too_long)
    }
}

/// `POST /v1/tokens`, parameters in the query, no body.
pub(super) fn create(base: &Base, credential: &Credential, params: &TokenParams) -> Result<Outgoing, Error> {
    let value = &credential.value;
    let (name, value) = match credential.kind {
        Kind::ApiKey => (API_KEY, sensitive("", value)?),
        Kind::Basic => (AUTHORIZATION, sensitive("Basic ", value)?),
        Kind::SessionToken | Kind::Jwt => (AUTHORIZATION, sensitive("Bearer ", value)?),
    };
    let mut request = request(Method::POST, base.at(&format!("/v1/tokens{}", query(params)))?, Bytes::new());
    request.headers_mut().insert(name, value);
    // An empty body has no length of its own in hyper, and servers want one with POST (RFC 9110 section 8.6).
    request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    Ok(request)
}

/// `GET /v1/tokens/details`.
pub(super) fn details(base: &Base, token: &Secret) -> Result<Outgoing, Error> {
    let mut request = request(Method::GET, base.at("/v1/tokens/details")?, Bytes::new());
    request.headers_mut().insert(AUTHORIZATION, sensitive("Bearer ", token)?);
    Ok(request)
}

/// `POST /v1/tokens:refresh`.
pub(super) fn refresh(base: &Base, token: &Secret) -> Result<Outgoing, Error> {
    with_token_body(Method::POST, base.at("/v1/tokens:refresh")?, token)
}

/// `DELETE /v1/tokens`.
pub(super) fn revoke(base: &Base, token: &Secret) -> Result<Outgoing, Error> {
    with_token_body(Method::DELETE, base.at("/v1/tokens")?, token)
}

/// The token goes in the body alone: like the API's own SDK, without `Authorization`.
fn with_token_body(method: Method, uri: Uri, token: &Secret) -> Result<Outgoing, Error> {
    #[derive(Serialize)]
    struct AccessTokenRequest<'a> {
        access_token: &'a str,
    }
    let body = serde_json::to_vec(&AccessTokenRequest { access_token: token.expose() })
        .map_err(|_| Error::Rejected("the token cannot be written as JSON".to_owned()))?;
    let mut request = request(method, uri, body.into());
    request.headers_mut().insert(CONTENT_TYPE, JSON);
    Ok(request)
}

fn request(method: Method, uri: Uri, body: Bytes) -> Outgoing {
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    request.headers_mut().insert(ACCEPT, JSON);
    request.headers_mut().insert(USER_AGENT, AGENT);
    request
}

/// A header value that no formatter shows. One that no header can carry is no credential that the service could know.
fn sensitive(scheme: &str, value: &Secret) -> Result<HeaderValue, Error> {
    let mut header = HeaderValue::try_from(format!("{scheme}{}", value.expose())).map_err(|_| Error::Denied)?;
    header.set_sensitive(true);
    Ok(header)
}

/// `?name=value&...` in the order of the API's reference, or nothing. Lists are joined by commas, then encoded.
fn query(params: &TokenParams) -> String {
    let (scopes, acl, mem) = (joined(&params.scopes), joined(&params.acl), joined(&params.mem));
    let fields = [
        ("clientId", params.client_id.as_deref()),
        ("domain", params.domain.as_deref()),
        ("data", params.data.as_deref()),
        ("scopes", scopes.as_deref()),
        ("acl", acl.as_deref()),
        ("mem", mem.as_deref()),
        ("cwid", params.cwid.as_deref()),
        ("cid", params.cid.as_deref()),
        ("returnSessionToken", params.return_session_token.then_some("true")),
    ];
    let mut text = String::new();
    for (name, value) in fields {
        if let Some(value) = value {
            text.push(if text.is_empty() { '?' } else { '&' });
            text.push_str(name);
            text.push('=');
            text.extend(utf8_percent_encode(value, QUERY));
        }
    }
    text
}

fn joined(items: &[String]) -> Option<String> {
    (!items.is_empty()).then(|| items.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;
    use proptest::prelude::*;

    fn base() -> Base {
        Base::parse("https://tokens.test").unwrap()
    }

    fn credential(kind: Kind, value: &str) -> Credential {
        Credential { kind, value: value.into() }
    }

    async fn body(request: Outgoing) -> Bytes {
        request.into_body().collect().await.unwrap().to_bytes()
    }

    #[test]
    fn all_parameters_stand_in_the_order_of_the_reference() {
        let params = TokenParams {
            client_id: Some("app".into()),
            domain: Some("a domain".into()),
            data: Some("k=v&x".into()),
            scopes: vec!["A".into(), "B".into()],
            acl: vec!["x".into(), "y".into()],
            mem: vec!["m".into()],
            cwid: Some("w".into()),
            cid: Some("c".into()),
            return_session_token: true,
        };
        assert_eq!(
            query(&params),
            "?clientId=app&domain=a%20domain&data=k%3Dv%26x&scopes=A%2CB&acl=x%2Cy&mem=m&cwid=w&cid=c&returnSessionToken=true"
        );
    }

    #[test]
    fn no_parameters_make_no_query() {
        let request = create(&base(), &credential(Kind::ApiKey, "k"), &TokenParams::default()).unwrap();
        assert_eq!(request.uri(), "https://tokens.test/v1/tokens");
    }

    #[test]
    fn each_kind_of_credential_has_its_header_and_it_is_sensitive() {
        for (kind, name, value) in [
            (Kind::ApiKey, "x-api-key", "canary"),
            (Kind::Basic, "authorization", "Basic canary"),
            (Kind::SessionToken, "authorization", "Bearer canary"),
        ] {
            let request = create(&base(), &credential(kind, "canary"), &TokenParams::default()).unwrap();
            assert_eq!(request.headers()[name], value);
            assert_eq!(request.headers().len(), 4, "accept, user-agent, content-length and the credential");
            assert!(!format!("{request:?}").contains("canary"));
        }
    }

    #[tokio::test]
    async fn refresh_and_revoke_carry_the_token_in_the_body_alone() {
        for request in [refresh(&base(), &"t\"1".into()).unwrap(), revoke(&base(), &"t\"1".into()).unwrap()] {
            assert!(!request.headers().contains_key(AUTHORIZATION));
            assert_eq!(request.headers()[CONTENT_TYPE], "application/json");
            assert_eq!(body(request).await, r#"{"access_token":"t\"1"}"#);
        }
    }

    #[test]
    fn a_prefix_and_a_last_slash_are_fine() {
        for text in ["https://host/iap/", "https://host/iap"] {
            let request = details(&Base::parse(text).unwrap(), &"t".into()).unwrap();
            assert_eq!(request.uri(), "https://host/iap/v1/tokens/details");
        }
    }

    #[test]
    fn a_base_that_cannot_be_called_is_refused() {
        for text in [
            "tokens.test",
            "tokens.test:80",
            "ftp://host",
            "https://u:p@host",
            "https://u@host",
            "https://host/?q",
            "https://host/#f",
            "https://",
        ] {
            assert!(Base::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_no_header_can_carry_is_denied_and_not_sent() {
        for kind in [Kind::ApiKey, Kind::Basic, Kind::SessionToken] {
            let refused = create(&base(), &credential(kind, "key\r\nX-Admin: 1"), &TokenParams::default());
            assert_eq!(refused.unwrap_err(), Error::Denied);
        }
    }

    #[test]
    fn parameters_too_long_for_a_url_are_rejected() {
        let params = TokenParams { data: Some("x".repeat(70_000)), ..TokenParams::default() };
        assert!(matches!(create(&base(), &credential(Kind::ApiKey, "k"), &params), Err(Error::Rejected(_))));
    }

    fn any_params() -> impl Strategy<Value = TokenParams> {
        let one = || proptest::option::of(any::<String>());
        let list = || proptest::collection::vec("[^,]{0,12}", 0..4);
        (one(), one(), one(), list(), list(), list(), one(), one(), any::<bool>()).prop_map(
            |(client_id, domain, data, scopes, acl, mem, cwid, cid, return_session_token)| TokenParams {
                client_id,
                domain,
                data,
                scopes,
                acl,
                mem,
                cwid,
                cid,
                return_session_token,
            },
        )
    }

    proptest! {
        #[test]
        fn a_query_decodes_to_what_went_in(params in any_params()) {
            let text = query(&params);
            let decoded: Vec<_> = url::form_urlencoded::parse(text.trim_start_matches('?').as_bytes()).into_owned().collect();
            let find = |name: &str| decoded.iter().find(|(found, _)| found == name).map(|(_, value)| value.clone());
            prop_assert_eq!(find("clientId"), params.client_id.clone());
            prop_assert_eq!(find("domain"), params.domain.clone());
            prop_assert_eq!(find("data"), params.data.clone());
            prop_assert_eq!(find("scopes"), joined(&params.scopes));
            prop_assert_eq!(find("acl"), joined(&params.acl));
            prop_assert_eq!(find("mem"), joined(&params.mem));
            prop_assert_eq!(find("cwid"), params.cwid.clone());
            prop_assert_eq!(find("cid"), params.cid.clone());
            prop_assert_eq!(find("returnSessionToken"), params.return_session_token.then(|| "true".to_owned()));
        }

        #[test]
        fn a_query_holds_nothing_but_unreserved_characters(params in any_params()) {
            prop_assert!(query(&params).bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%?&=".contains(&byte)));
        }

        #[test]
        fn a_base_is_never_a_panic(text in ".{0,40}") {
            let _ = Base::parse(&text);
        }
    }
}
