//! Which route serves a request: the first whose conditions all hold.
//!
//! A path is matched in every form that an upstream may make of it. Where the forms pick different routes nobody can say what the upstream will
//! serve, so the request is refused; else it is forwarded as it came.

mod path;

use std::collections::BTreeSet;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use regex::bytes::Regex;

use crate::path_regex;
use crate::refusal::{Reason, Refusal};

/// The conditions of one route; all that are set must hold.
#[derive(Clone, Debug, Default)]
pub struct Conditions {
    /// Hosts; any where empty.
    pub hosts: Vec<HostPattern>,
    /// The path.
    pub path: PathPattern,
    /// Methods; any where empty.
    pub methods: Vec<Method>,
    /// Headers that must be there with exactly this value.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

impl Conditions {
    /// Which condition keeps a request from this route, in words; none where all hold.
    pub fn mismatch(&self, target: &Target<'_>) -> Option<&'static str> {
        if !self.path.fits(target.path.as_bytes()) {
            Some("the path does not fit")
        } else if !self.fits_host(host_of(target.authority)) {
            Some("the host does not fit")
        } else if !self.fits_method(target.method) {
            Some("the method does not fit")
        } else if !self.fits_headers(target.headers) {
            Some("a header is missing or different")
        } else {
            None
        }
    }

    fn fits_host(&self, host: &str) -> bool {
        self.hosts.is_empty() || self.hosts.iter().any(|pattern| pattern.fits(host))
    }

    fn fits_method(&self, method: &Method) -> bool {
        self.methods.is_empty() || self.methods.contains(method)
    }

    fn fits_headers(&self, headers: &HeaderMap) -> bool {
        self.headers.iter().all(|(name, value)| headers.get_all(name).iter().any(|found| found == value))
    }
}

/// A host, in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostPattern {
    /// This one.
    Exact(String),
    /// One or more labels before this suffix, which starts with a dot.
    Suffix(String),
}

impl HostPattern {
    /// Reads `example.com` or `*.example.com`.
    pub fn new(text: &str) -> Self {
        match text.strip_prefix('*') {
            Some(suffix) => Self::Suffix(suffix.to_ascii_lowercase()),
            None => Self::Exact(text.to_ascii_lowercase()),
        }
    }

    fn fits(&self, host: &str) -> bool {
        match self {
            Self::Exact(exact) => host.eq_ignore_ascii_case(exact),
            Self::Suffix(suffix) => {
                host.len() > suffix.len() && host.as_bytes()[host.len() - suffix.len()..].eq_ignore_ascii_case(suffix.as_bytes())
            }
        }
    }
}

/// A condition on the path.
#[derive(Clone, Debug, Default)]
pub enum PathPattern {
    /// Any path.
    #[default]
    Any,
    /// This path.
    Exact(String),
    /// Whole leading segments; kept without a slash at its end.
    Prefix(String),
    /// One of these paths.
    OneOf(&'static [&'static str]),
    /// The whole path fits this; the second ignores case.
    Regex(Regex, Regex),
}

impl PathPattern {
    /// A prefix; one slash at its end makes no difference.
    pub fn prefix(text: &str) -> Self {
        Self::Prefix(text.strip_suffix('/').unwrap_or(text).to_owned())
    }

    /// A regular expression over the whole path, byte by byte.
    ///
    /// # Errors
    /// When it is none.
    pub fn regex(text: &str) -> Result<Self, regex::Error> {
        Ok(Self::Regex(path_regex::compile(text, false)?, path_regex::compile(text, true)?))
    }

    fn fits(&self, path: &[u8]) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(exact) => path == exact.as_bytes(),
            Self::OneOf(paths) => paths.iter().any(|one| path == one.as_bytes()),
            Self::Prefix(prefix) => path.strip_prefix(prefix.as_bytes()).is_some_and(|rest| rest.is_empty() || rest[0] == b'/'),
            Self::Regex(regex, _) => regex.is_match(path),
        }
    }

    /// The same as an upstream sees it that ignores case.
    fn fits_in_any_case(&self, path: &[u8]) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(exact) => path.eq_ignore_ascii_case(exact.as_bytes()),
            Self::OneOf(paths) => paths.iter().any(|one| path.eq_ignore_ascii_case(one.as_bytes())),
            Self::Prefix(prefix) => path
                .split_at_checked(prefix.len())
                .is_some_and(|(lead, rest)| lead.eq_ignore_ascii_case(prefix.as_bytes()) && (rest.is_empty() || rest[0] == b'/')),
            Self::Regex(_, regex) => regex.is_match(path),
        }
    }
}

/// What of a request is matched.
pub struct Target<'a> {
    /// `Host`, or the authority of an absolute-form target; empty where there is none.
    pub authority: &'a str,
    /// The method.
    pub method: &'a Method,
    /// The path as it came, without the query.
    pub path: &'a str,
    /// The headers.
    pub headers: &'a HeaderMap,
}

/// A path that several routes would take, depending on who reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ambiguous;

/// All routes, in order.
pub struct Table {
    conditions: Vec<Conditions>,
    /// Beside each route how the paths that it takes begin: most routes are passed over by one look at this, without a look at the route.
    heads: Vec<Head>,
}

/// The first bytes of a path, in lower case, as far as they are fixed.
#[derive(Clone, Copy)]
struct Head {
    bytes: u64,
    mask: u64,
}

impl Head {
    const BYTES: usize = 8;

    fn of(pattern: &PathPattern) -> Self {
        let fixed = match pattern {
            PathPattern::Exact(text) | PathPattern::Prefix(text) => &text.as_bytes()[..text.len().min(Self::BYTES)],
            PathPattern::Any | PathPattern::OneOf(_) | PathPattern::Regex(..) => &[],
        };
        let mask = if fixed.len() == Self::BYTES { u64::MAX } else { (1 << (8 * fixed.len())) - 1 };
        Self { bytes: Self::word(fixed), mask }
    }

    fn word(path: &[u8]) -> u64 {
        let mut word = [0; Self::BYTES];
        for (byte, found) in word.iter_mut().zip(path) {
            *byte = found.to_ascii_lowercase();
        }
        u64::from_le_bytes(word)
    }
}

/// Routes that are passed over at one time.
const BLOCK: usize = 8;

impl Table {
    /// Whether the method of a request makes a difference.
    pub fn reads_methods(&self) -> bool {
        self.conditions.iter().any(|conditions| !conditions.methods.is_empty())
    }

    /// The routes, by their conditions.
    pub fn new(conditions: Vec<Conditions>) -> Self {
        let heads = conditions.iter().map(|route| Head::of(&route.path)).collect();
        Self { conditions, heads }
    }

    /// Finds the route: its place.
    ///
    /// # Errors
    /// [`Reason::NoRoute`] where none fits; [`Reason::BadRequest`] where forms of the path pick different routes.
    pub fn find(&self, target: &Target<'_>) -> Result<usize, Refusal> {
        let picked = self.pick(target.path.as_bytes(), target);
        let agree = |forms: BTreeSet<Vec<u8>>| forms.iter().all(|form| !form.contains(&0) && self.pick(form, target) == picked);
        let same = path::is_plain(target.path) || path::forms(target.path).is_some_and(agree);
        let Some(picked) = picked.ok().filter(|_| same) else {
            return Err(Refusal::new(
                Reason::BadRequest,
                "The path can be read in several ways that this proxy would treat differently. Send it in the case of the service behind it, without dot segments, doubled slashes and needless escapes.",
            ));
        };
        picked.ok_or_else(|| Refusal::new(Reason::NoRoute, "No route of this proxy serves this host, path and method."))
    }

    /// The places of routes that a path may fit which begins with `word`. Looked for in blocks: most have none.
    fn candidates(&self, word: u64) -> impl Iterator<Item = usize> {
        let fits = move |head: &Head| word & head.mask == head.bytes;
        let blocks = self.heads.chunks(BLOCK).enumerate().filter(move |(_, block)| block.iter().fold(false, |any, head| any | fits(head)));
        blocks.flat_map(move |(number, block)| {
            block.iter().enumerate().filter(move |(_, head)| fits(head)).map(move |(place, _)| number * BLOCK + place)
        })
    }

    /// The first route that takes the path; none where a route before it would take it in another case: to the upstream it may be that one's.
    fn pick(&self, path: &[u8], target: &Target<'_>) -> Result<Option<usize>, Ambiguous> {
        let (host, word) = (host_of(target.authority), Head::word(path));
        let mut in_another_case = false;
        for place in self.candidates(word) {
            let route = &self.conditions[place];
            let others_fit = || route.fits_method(target.method) && route.fits_host(host) && route.fits_headers(target.headers);
            if route.path.fits_in_any_case(path) && others_fit() {
                if route.path.fits(path) {
                    return if in_another_case { Err(Ambiguous) } else { Ok(Some(place)) };
                }
                in_another_case = true;
            }
        }
        Ok(None)
    }
}

/// The host without its port and without the dot at its end.
pub fn host_of(authority: &str) -> &str {
    let host = match authority.rfind(']') {
        Some(end) => &authority[..=end],
        None => authority.split_once(':').map_or(authority, |(host, _)| host),
    };
    host.strip_suffix('.').unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn route(path: PathPattern) -> Conditions {
        Conditions { path, ..Conditions::default() }
    }

    fn at(routes: &[Conditions], authority: &str, path: &str) -> Result<usize, Reason> {
        let target = Target { authority, method: &Method::GET, path, headers: &HeaderMap::new() };
        Table::new(routes.to_vec()).find(&target).map_err(|refusal| refusal.reason)
    }

    #[test]
    fn of_many_routes_the_first_that_fits_is_found() {
        let routes: Vec<_> = (0..30).map(|number| route(PathPattern::prefix(&format!("/r/{number}")))).collect();
        for (place, path) in (0..30).map(|number| (number, format!("/r/{number}/x"))) {
            assert_eq!(at(&routes, "", &path), Ok(place));
        }
        let twice: Vec<_> = routes.iter().chain(&routes).cloned().collect();
        assert_eq!((at(&twice, "", "/r/29"), at(&twice, "", "/r/30")), (Ok(29), Err(Reason::NoRoute)));
    }

    #[test]
    fn prefixes_match_whole_segments() {
        let routes = [route(PathPattern::prefix("/api/")), route(PathPattern::Exact("/x".into()))];
        assert_eq!(at(&routes, "", "/api"), Ok(0));
        assert_eq!(at(&routes, "", "/api/"), Ok(0));
        assert_eq!(at(&routes, "", "/api/v1"), Ok(0));
        assert_eq!(at(&routes, "", "/apix"), Err(Reason::NoRoute));
        assert_eq!(at(&routes, "", "/x"), Ok(1));
        assert_eq!(at(&routes, "", "/x/"), Err(Reason::NoRoute));
    }

    #[test]
    fn another_case_is_another_route_only_where_none_would_take_it() {
        let routes =
            [route(PathPattern::prefix("/Admin")), route(PathPattern::Exact("/longer-than-a-word".into())), route(PathPattern::Any)];
        assert_eq!(at(&routes, "", "/Admin/x"), Ok(0));
        for ambiguous in ["/admin/x", "/ADMIN", "/LONGER-than-a-word"] {
            assert_eq!(at(&routes, "", ambiguous), Err(Reason::BadRequest), "{ambiguous}");
        }
        for other in ["/administrator", "/adm", "/longer-than-a-words", "/", "/longer-t"] {
            assert_eq!(at(&routes, "", other), Ok(2), "{other}");
        }
        assert_eq!(at(&routes, "", "/longer-than-a-word"), Ok(1));
        assert_eq!(at(&routes[..2], "", "/admin"), Err(Reason::NoRoute), "nothing is forwarded");
    }

    #[test]
    fn hosts_ignore_case_port_and_final_dot() {
        let mut only = route(PathPattern::Any);
        only.hosts = vec![HostPattern::new("App.example.com"), HostPattern::new("*.Wild.example.com"), HostPattern::new("[::1]")];
        for good in ["app.EXAMPLE.com:8080", "app.example.com.", "a.b.wild.example.com", "[::1]:80"] {
            assert_eq!(at(std::slice::from_ref(&only), good, "/"), Ok(0), "{good}");
        }
        for bad in ["wild.example.com", "example.com", "", "app.example.com.evil"] {
            assert_eq!(at(std::slice::from_ref(&only), bad, "/"), Err(Reason::NoRoute), "{bad}");
        }
    }

    /// The path line of attacks: a public prefix beside a protected one must not lead into it, whatever the spelling.
    #[test]
    fn spellings_that_an_upstream_may_read_otherwise_are_refused() {
        let routes = [route(PathPattern::prefix("/public")), route(PathPattern::prefix("/admin")), route(PathPattern::Any)];
        for path in [
            "/public/../admin",
            "/public/..;a=b/admin",
            "/public/%2e%2e/admin",
            "/public/%2E./admin",
            "/public/..%2fadmin",
            "/public/..%252fadmin",
            "/public%2f..%2fadmin",
            "/public/..\\admin",
            "/public/%5c..%5cadmin",
            "//admin",
            "/x//../admin",
            "/;/admin",
            "/./admin",
            "/%61dmin",
            "/%2561dmin",
            "/admin;x",
            "/admin%3fx",
            "/admin%23",
            "/public/%00",
            "/public/%2500",
            "/public/%23/../../admin",
            "/public//../admin/../../admin",
            "/public/a%2fb/%2e%2e/%2e%2e/admin",
            "/public/a%2Fb%2fc/%2e./.%2E/admin",
        ] {
            assert_eq!(at(&routes, "", path), Err(Reason::BadRequest), "{path}");
        }
        for path in ["/public/a.b/..c", "/public/a%20b", "/public/;a", "/public//x", "/public/%E2%82%AC"] {
            assert_eq!(at(&routes, "", path), Ok(0), "{path}: all forms agree");
        }
    }

    proptest! {
        #[test]
        fn whatever_the_path_a_normalising_upstream_serves_the_route_that_was_picked(path in "/(public|admin|\\.|%2e|%2f|%5c|/|;|\\\\|a){0,8}") {
            let routes = [route(PathPattern::prefix("/public")), route(PathPattern::prefix("/admin")), route(PathPattern::Any)];
            if let Ok(picked) = at(&routes, "", &path) {
                let decoded = percent_encoding::percent_decode_str(&path).decode_utf8_lossy().replace('\\', "/");
                let mut served = Vec::new();
                for segment in decoded.split('/') {
                    match segment.split(';').next().unwrap_or("") {
                        "" | "." => {}
                        ".." => { served.pop(); }
                        other => served.push(other.to_owned()),
                    }
                }
                let expected = match served.first().map(String::as_str) { Some("public") => 0, Some("admin") => 1, _ => 2 };
                prop_assert_eq!(picked, expected, "{} served as {:?}", path, served);
            }
        }

        /// As `new URL(request.url)` reads it, which is how many an app finds its handler.
        #[test]
        fn whatever_the_path_a_url_parser_finds_the_route_that_was_picked(path in "/(public|admin|\\.|%2e|%2E|%2f|%5c|/|;|\\\\|a){0,10}") {
            let routes = [route(PathPattern::prefix("/public")), route(PathPattern::prefix("/admin")), route(PathPattern::Any)];
            if let Ok(picked) = at(&routes, "", &path) {
                let parsed = url::Url::parse(&format!("http://app.test{path}")).unwrap();
                prop_assert_eq!(at(&routes, "", parsed.path()), Ok(picked), "{} read as {}", path, parsed.path());
            }
        }
    }
}
