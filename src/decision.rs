//! Decisions for proxies that are already there: what the proxy that asks was itself asked for, and how a refusal is put so that it passes it on. Pure.
//!
//! The headers that tell of the original request decide which route's rules hold, so they count only when a trusted peer sends them (CVE-2026-40575,
//! CVE-2026-76835), and only where all that is told agrees: what a caller slipped past the asking proxy must not choose a route.

use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};

use crate::refusal::{Reason, Refusal};
use crate::routing::host_of;

/// The header that tells the reason of a refusal where its status does not.
pub const REASON: &str = "X-Bearerd-Reason";
/// Tells Envoy which of the caller's headers must not go on; Envoy itself keeps it from callers.
pub const REMOVE: &str = "X-Envoy-Auth-Headers-To-Remove";

/// How a listener decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deciding {
    /// Where the original request is told.
    pub told_in: ToldIn,
    /// The statuses of refusals.
    pub statuses: Statuses,
}

/// Where the original request is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToldIn {
    /// Wherever it is; all that is told must agree.
    Anywhere,
    /// `X-Original-URI` or `X-Original-URL`, `X-Original-Method`, `X-Original-Host`.
    XOriginal,
    /// `X-Forwarded-Uri`, `X-Forwarded-Method`, `X-Forwarded-Host`.
    XForwarded,
    /// The request line and `Host`.
    Target,
}

/// The statuses of refusals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statuses {
    /// The table's own.
    Exact,
    /// Those that nginx passes on: 401, 403 and 5xx.
    Nginx,
}

/// What the asking proxy was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Original<'r> {
    /// The method; none where nothing tells it but the asking request itself, which may have another.
    pub method: Option<Method>,
    /// The host, with a port if there was one.
    pub authority: &'r str,
    /// The path as it came.
    pub path: &'r str,
    /// What follows the question mark.
    pub query: Option<&'r str>,
}

/// A decision as it is asked for.
pub struct Question<'r> {
    /// The method of the asking request.
    pub method: &'r Method,
    /// Its target.
    pub uri: &'r Uri,
    /// Its `Host`.
    pub authority: &'r str,
    /// Its headers.
    pub headers: &'r HeaderMap,
    /// Whether the peer's word counts.
    pub trusted: bool,
}

/// One proxy's way to tell.
struct Way {
    uris: &'static [&'static str],
    method: &'static str,
    host: &'static str,
}

const X_ORIGINAL: Way = Way { uris: &["x-original-uri", "x-original-url"], method: "x-original-method", host: "x-original-host" };
const X_FORWARDED: Way = Way { uris: &["x-forwarded-uri"], method: "x-forwarded-method", host: "x-forwarded-host" };

impl<'r> Question<'r> {
    /// Reads what the asking proxy was asked for.
    ///
    /// # Errors
    /// [`Reason::BadRequest`] where it is not told as configured, or in several ways that differ.
    pub fn original(&self, told_in: ToldIn) -> Result<Original<'r>, Refusal> {
        if !self.trusted {
            // Nobody vouches for the headers, so the request speaks for itself; where the target says nothing of it, it cannot.
            return if matches!(told_in, ToldIn::Anywhere | ToldIn::Target) { Ok(self.itself()) } else { Err(bad(UNTRUSTED)) };
        }
        match told_in {
            ToldIn::Target => Ok(self.itself()),
            ToldIn::XOriginal => self.told(&X_ORIGINAL)?.ok_or_else(|| bad(NO_X_ORIGINAL)),
            ToldIn::XForwarded => self.told(&X_FORWARDED)?.ok_or_else(|| bad(NO_X_FORWARDED)),
            ToldIn::Anywhere => match (self.told(&X_ORIGINAL)?, self.told(&X_FORWARDED)?) {
                (None, None) => Ok(self.itself()),
                (Some(told), None) | (None, Some(told)) => Ok(told),
                (Some(one), Some(other)) if one.agrees_with(&other) => Ok(Original { method: one.method.or(other.method), ..one }),
                (Some(_), Some(_)) => Err(bad("`X-Original-*` and `X-Forwarded-*` tell of different requests.")),
            },
        }
    }

    /// Envoy asks with the original's request line.
    fn itself(&self) -> Original<'r> {
        Original { method: Some(self.method.clone()), authority: self.authority, path: self.uri.path(), query: self.uri.query() }
    }

    fn told(&self, way: &Way) -> Result<Option<Original<'r>>, Refusal> {
        let mut found = None;
        let (mut in_url, mut path_alone) = (None, false);
        for name in way.uris {
            let Some(text) = self.only(name)? else { continue };
            let (authority, target) = split(text).ok_or_else(|| bad("The URI of the original request is not one."))?;
            if found.is_some_and(|other| other != target) {
                return Err(bad("`X-Original-URI` and `X-Original-URL` tell of different requests."));
            }
            found = Some(target);
            path_alone |= authority.is_none();
            in_url = one_host(in_url, authority)?;
        }
        let Some(target) = found else { return Ok(None) };
        // A proxy that tells the path alone leaves the host to its own request: a URL beside that is the caller's, unless it says the same.
        let otherwise = self.only(way.host)?.or(path_alone.then_some(self.authority));
        let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        let method = self.only(way.method)?.map(|text| Method::from_bytes(text.as_bytes())).transpose();
        Ok(Some(Original {
            method: method.map_err(|_| bad("The method of the original request is not one."))?,
            authority: one_host(otherwise, in_url)?.unwrap_or(self.authority),
            path,
            query,
        }))
    }

    /// A header that may come once; as text without what no URI has.
    fn only(&self, name: &str) -> Result<Option<&'r str>, Refusal> {
        let mut values = self.headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (None, _) => Ok(None),
            (Some(value), None) => match value.to_str() {
                Ok(text) if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(Some(text)),
                _ => Err(bad("What tells of the original request has bytes that no URL can have; escape them.")),
            },
            (Some(_), Some(_)) => Err(bad("The original request is told of twice.")),
        }
    }
}

const UNTRUSTED: &str = "Only peers in `trusted_peers` may ask for decisions on other requests.";
const NO_X_ORIGINAL: &str = "`X-Original-URI` is missing: the proxy that asks must set it, and `X-Original-Method`.";
const NO_X_FORWARDED: &str = "`X-Forwarded-Uri` is missing: the proxy that asks must set it, and `X-Forwarded-Method`.";

impl Original<'_> {
    fn agrees_with(&self, other: &Self) -> bool {
        let agree = match (&self.method, &other.method) {
            (Some(one), Some(other)) => one == other,
            _ => true,
        };
        agree && (self.path, self.query) == (other.path, other.query) && self.authority.eq_ignore_ascii_case(other.authority)
    }
}

/// The first of two authorities that are told; routes look at hosts alone, so these must be the same.
fn one_host<'r>(one: Option<&'r str>, other: Option<&'r str>) -> Result<Option<&'r str>, Refusal> {
    match (one, other) {
        (Some(one), Some(other)) if !host_of(one).eq_ignore_ascii_case(host_of(other)) => {
            Err(bad("The headers that tell of the original request name different hosts."))
        }
        _ => Ok(one.or(other)),
    }
}

/// `https://host/path?query` or `/path?query` -> authority, target. A fragment is never sent (RFC 9110 section 7.1).
fn split(text: &str) -> Option<(Option<&str>, &str)> {
    if text.contains('#') {
        return None;
    }
    if text.starts_with('/') {
        return Some((None, text));
    }
    let rest = text.split_once("://").filter(|(scheme, _)| matches!(*scheme, "http" | "https"))?.1;
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, target) = rest.split_at(end);
    match target {
        _ if authority.is_empty() => None,
        "" => Some((Some(authority), "/")),
        target => target.starts_with('/').then_some((Some(authority), target)),
    }
}

/// What a caller's request must lose before it goes on: the names that are managed, except those that the answer sets anew.
pub fn removal<'n>(managed: impl Iterator<Item = &'n str>, set: &[(&'static str, HeaderValue)]) -> Option<HeaderValue> {
    let mut names = String::new();
    for name in managed.filter(|name| !set.iter().any(|(other, _)| other.eq_ignore_ascii_case(name))) {
        if !names.is_empty() {
            names.push(',');
        }
        names.push_str(name);
    }
    if names.is_empty() { None } else { HeaderValue::try_from(names).ok() }
}

impl Statuses {
    /// The refusal as the asking proxy passes it on. nginx's `auth_request` knows yes, 401 and 403, and makes a 500 of the rest.
    pub fn put(self, refusal: Refusal) -> Refusal {
        if self == Self::Exact {
            return refusal;
        }
        let reason = HeaderValue::from_static(refusal.reason.as_str());
        let status = match refusal.status() {
            status if status.is_server_error() => status,
            StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED => StatusCode::UNAUTHORIZED,
            _ => StatusCode::FORBIDDEN,
        };
        refusal.with_status(status).header(REASON, reason)
    }

    /// The same for a route's fixed answer: nobody is asked for a credential that the route does not want.
    pub fn put_fixed(self, status: StatusCode) -> StatusCode {
        let passed_on =
            matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) || status.is_success() || status.is_server_error();
        if self == Self::Exact || passed_on { status } else { StatusCode::FORBIDDEN }
    }
}

fn bad(detail: &'static str) -> Refusal {
    Refusal::new(Reason::BadRequest, detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderName;
    use proptest::prelude::*;

    fn ask(
        headers: &[(&'static str, &str)],
        told_in: ToldIn,
        trusted: bool,
    ) -> Result<(Option<String>, String, String, Option<String>), String> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        }
        let question =
            Question { method: &Method::GET, uri: &"/auth?k=1".parse().unwrap(), authority: "asked.test", headers: &map, trusted };
        question
            .original(told_in)
            .map(|told| {
                (told.method.map(|m| m.to_string()), told.authority.to_owned(), told.path.to_owned(), told.query.map(str::to_owned))
            })
            .map_err(|refusal| refusal.detail.into_owned())
    }

    fn told(method: Option<&str>, authority: &str, path: &str, query: Option<&str>) -> (Option<String>, String, String, Option<String>) {
        (method.map(str::to_owned), authority.to_owned(), path.to_owned(), query.map(str::to_owned))
    }

    #[test]
    fn each_proxys_way_to_tell_is_read() {
        let nginx = [("x-original-uri", "/a?b=1"), ("x-original-method", "POST")];
        assert_eq!(ask(&nginx, ToldIn::Anywhere, true), Ok(told(Some("POST"), "asked.test", "/a", Some("b=1"))));
        assert_eq!(ask(&nginx, ToldIn::XOriginal, true), Ok(told(Some("POST"), "asked.test", "/a", Some("b=1"))));
        let ingress = [("x-original-url", "https://app.test:8443/a"), ("x-original-method", "PUT")];
        assert_eq!(ask(&ingress, ToldIn::Anywhere, true), Ok(told(Some("PUT"), "app.test:8443", "/a", None)));
        let traefik = [("x-forwarded-uri", "/a"), ("x-forwarded-method", "GET"), ("x-forwarded-host", "app.test")];
        assert_eq!(ask(&traefik, ToldIn::Anywhere, true), Ok(told(Some("GET"), "app.test", "/a", None)));
        assert_eq!(ask(&[], ToldIn::Anywhere, true), Ok(told(Some("GET"), "asked.test", "/auth", Some("k=1"))));
        assert_eq!(ask(&[("x-original-uri", "/a")], ToldIn::Anywhere, true), Ok(told(None, "asked.test", "/a", None)));
    }

    #[test]
    fn cve_2026_40575_an_untrusted_peer_chooses_no_route() {
        let forged = [("x-forwarded-uri", "/public"), ("x-original-uri", "/public")];
        for told_in in [ToldIn::Anywhere, ToldIn::Target] {
            assert_eq!(ask(&forged, told_in, false), Ok(told(Some("GET"), "asked.test", "/auth", Some("k=1"))));
        }
        for told_in in [ToldIn::XOriginal, ToldIn::XForwarded] {
            assert!(ask(&forged, told_in, false).unwrap_err().contains("trusted_peers"));
        }
    }

    #[test]
    fn what_a_caller_slips_past_the_asking_proxy_chooses_no_route() {
        let slipped = [("x-original-uri", "/admin"), ("x-forwarded-uri", "/public")];
        assert!(ask(&slipped, ToldIn::Anywhere, true).unwrap_err().contains("different"));
        assert_eq!(ask(&slipped, ToldIn::XOriginal, true), Ok(told(None, "asked.test", "/admin", None)));
        assert_eq!(ask(&slipped, ToldIn::Target, true), Ok(told(Some("GET"), "asked.test", "/auth", Some("k=1"))));
        assert!(ask(&[("x-original-uri", "/a"), ("x-original-uri", "/a")], ToldIn::Anywhere, true).unwrap_err().contains("twice"));
        assert!(ask(&[("x-original-uri", "/a"), ("x-original-url", "http://h/b")], ToldIn::Anywhere, true).is_err());
        for unfit in ["/a#b", "a", "", "/a b", "ftp://h/a", "http:///a", "http://h?a"] {
            assert!(ask(&[("x-original-uri", unfit)], ToldIn::Anywhere, true).is_err(), "{unfit}");
        }
    }

    #[test]
    fn a_host_that_a_caller_slips_past_the_asking_proxy_chooses_no_route() {
        let nginx = |more: &[(&'static str, &str)], told_in| ask(&[&[("x-original-uri", "/a")], more].concat(), told_in, true);
        for told_in in [ToldIn::XOriginal, ToldIn::Anywhere] {
            // The proxy tells the path alone, so the host is that of its own request.
            let slipped = nginx(&[("x-original-url", "http://open.test/a")], told_in);
            assert!(slipped.unwrap_err().contains("hosts"), "the URL is the caller's");
            let slipped = nginx(&[("x-original-url", "http://open.test/a"), ("x-original-host", "app.test")], told_in);
            assert!(slipped.unwrap_err().contains("hosts"));
            // The proxy tells the URL, and the caller a host.
            let slipped = ask(&[("x-original-url", "https://app.test/a"), ("x-original-host", "open.test")], told_in, true);
            assert!(slipped.unwrap_err().contains("hosts"));
            let slipped = ask(&[("x-original-uri", "http://a.test/a"), ("x-original-url", "http://b.test/a")], told_in, true);
            assert!(slipped.unwrap_err().contains("hosts"));
            // What agrees is no contradiction; routes look at neither port nor case.
            let agrees = nginx(&[("x-original-url", "https://App.test:8443/a"), ("x-original-host", "app.test")], told_in);
            assert_eq!(agrees, Ok(told(None, "app.test", "/a", None)));
            assert_eq!(nginx(&[("x-original-url", "http://asked.test/a")], told_in), Ok(told(None, "asked.test", "/a", None)));
        }
        let slipped = ask(&[("x-forwarded-uri", "http://open.test/a"), ("x-forwarded-host", "app.test")], ToldIn::XForwarded, true);
        assert!(slipped.unwrap_err().contains("hosts"));
    }

    #[test]
    fn nginx_gets_only_what_it_passes_on() {
        for reason in Reason::ALL {
            let put = Statuses::Nginx.put(Refusal::new(reason, "x"));
            let own = reason.status();
            let expected = match own.as_u16() {
                500.. => own.as_u16(),
                400 | 401 => 401,
                _ => 403,
            };
            assert_eq!(put.status().as_u16(), expected, "{reason:?}");
            let has = |wanted: &str| put.headers().iter().any(|(name, _)| *name == wanted);
            assert!(has(REASON));
            assert!(expected != 401 || has(crate::refusal::CHALLENGE), "{reason:?}");
            assert_eq!(Statuses::Exact.put(Refusal::new(reason, "x")).status(), own);
        }
    }

    #[test]
    fn nginx_gets_fixed_answers_that_it_passes_on() {
        for status in (200..600).filter_map(|status| StatusCode::from_u16(status).ok()) {
            let expected = match status.as_u16() {
                200..300 | 401 | 403 | 500.. => status.as_u16(),
                _ => 403,
            };
            assert_eq!(Statuses::Nginx.put_fixed(status).as_u16(), expected, "{status}");
            assert_eq!(Statuses::Exact.put_fixed(status), status);
        }
    }

    #[test]
    fn what_is_set_anew_is_not_removed() {
        let set = [("X-User", HeaderValue::from_static("a"))];
        assert_eq!(removal(["x-api-key", "x-user", "cookie"].into_iter(), &set).unwrap(), "x-api-key,cookie");
        assert_eq!(removal(["x-user"].into_iter(), &set), None);
    }

    proptest! {
        #[test]
        fn a_split_target_is_what_was_written(text in "(https?://[a-z.:0-9]{1,9})?/[!-~]{0,20}") {
            match split(&text) {
                Some((authority, target)) => {
                    prop_assert!(target.starts_with('/'));
                    prop_assert!(text.ends_with(target));
                    prop_assert_eq!(text.len() - target.len(), authority.map_or(0, |authority| text.find("://").unwrap() + 3 + authority.len()));
                }
                None => prop_assert!(text.contains('#')),
            }
        }
    }
}
