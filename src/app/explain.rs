//! The whole decision on a request, step by step, in words. It takes the very steps that the proxy takes, without the calls: what only a token
//! service could say is told as open.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use http::header::{AUTHORIZATION, HOST};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, Version};
use pingora::http::RequestHeader;

use super::Error;
use super::assemble::{self, policy, unchecked};
use crate::authorize::{Circumstances, Judgement};
use crate::claims::Claims;
use crate::clock::Clock;
use crate::config::policy::{Expected, Scalar, Told};
use crate::config::route::{Auth, Details, OnMultiple};
use crate::config::{Config, Route, TokenService};
use crate::credential::{self, Kind, Presented, Source};
use crate::exchange;
use crate::jwks::rules::Rules;
use crate::jwks::{Fault, KeySet};
use crate::proxy::inject::{self, Caller, Facts, Managed};
use crate::refusal::Refusal;
use crate::routing::{Conditions, Table, Target};
use crate::secret::Secret;
use crate::token::{Lifetimes, Token};

/// A request to be explained.
pub struct Asked {
    /// Its method.
    pub method: Method,
    /// Its target; the host may stand there.
    pub uri: Uri,
    /// Its headers.
    pub headers: HeaderMap,
    /// What a minted token would say.
    pub claims: Option<Claims>,
    /// Where it comes from.
    pub peer: IpAddr,
}

/// The explanation, a line each.
///
/// # Errors
/// When the configuration is not one that `check` accepts.
pub fn explain(config: &Config, asked: &Asked) -> Result<Vec<String>, Error> {
    let mut told = Explanation { lines: Vec::new() };
    if let Err(refusal) = told.decide(config, asked)? {
        told.answer(&refusal);
    }
    Ok(told.lines)
}

struct Explanation {
    lines: Vec<String>,
}

/// What the steps come to: the inner error is what the caller would get.
type Outcome<T> = Result<Result<T, Refusal>, Error>;

impl Explanation {
    fn line(&mut self, label: &str, text: impl AsRef<str>) {
        self.lines.push(format!("{label:<11} {}", text.as_ref()).trim_end().to_owned());
    }

    fn answer(&mut self, refusal: &Refusal) {
        let status = refusal.status();
        self.line("answer", format!("{} {}: {}", status.as_u16(), refusal.reason.as_str(), refusal.detail));
        for (name, value) in refusal.headers().iter().filter(|(name, _)| !matches!(*name, "Content-Type" | "Cache-Control")) {
            self.line("", format!("{name}: {}", value.to_str().unwrap_or_default()));
        }
    }

    fn decide(&mut self, config: &Config, asked: &Asked) -> Outcome<()> {
        let host = asked.headers.get(HOST).and_then(|host| host.to_str().ok());
        let authority = host.or_else(|| asked.uri.authority().map(http::uri::Authority::as_str)).unwrap_or_default();
        self.line("request", format!("{} {} for the host `{authority}`, from {}", asked.method, asked.uri.path(), asked.peer));
        let conditions = config.routes.iter().map(assemble::conditions).collect::<Result<Vec<Conditions>, _>>()?;
        let target = Target { authority, method: &asked.method, path: asked.uri.path(), headers: &asked.headers };
        let place = match Table::new(conditions.clone()).find(&target) {
            Ok(place) => place,
            Err(refusal) => {
                self.passed_over(config, &conditions, &target);
                return Ok(Err(refusal));
            }
        };
        self.passed_over(config, &conditions[..place], &target);
        let route = &config.routes[place];
        let name = route.name_at(place);
        self.line("route", format!("{name} (routes[{place}])"));
        if let Some(limit) = route.rate_limit {
            let by = format!("{:?}", limit.by).to_lowercase();
            self.line("rate limit", format!("{} in {}, by {by}", limit.requests, humantime::format_duration(limit.per)));
        }
        let outcome = self.judge(config, route, &name, asked)?;
        match outcome {
            Err(refusal) if !route.enforce => {
                let reason = refusal.reason.as_str();
                self.line("shadow", format!("would be refused ({} {reason}), but `enforce` is false", refusal.status().as_u16()));
                self.line("answer", "what the upstream answers to the request exactly as it came");
                Ok(Ok(()))
            }
            outcome => Ok(outcome),
        }
    }

    fn passed_over(&mut self, config: &Config, conditions: &[Conditions], target: &Target<'_>) {
        for (place, conditions) in conditions.iter().enumerate() {
            if let Some(mismatch) = conditions.mismatch(target) {
                self.line("not", format!("{} (routes[{place}]): {mismatch}", config.routes[place].name_at(place)));
            }
        }
    }

    fn judge(&mut self, config: &Config, route: &Route, name: &str, asked: &Asked) -> Outcome<()> {
        if route.token_api.is_some() {
            self.line("answer", "what the token service's own API answers, from the cache where it can");
            return Ok(Ok(()));
        }
        let mut token = None;
        if route.auth == Auth::None {
            self.line("credential", "none is needed (`auth: none`)");
        } else {
            let claims = match self.token(config, route, asked)? {
                Ok(claims) => claims,
                Err(refusal) => return Ok(Err(refusal)),
            };
            match self.authorize(route, name, claims)? {
                Ok(found) => token = Some(found),
                Err(refusal) => return Ok(Err(refusal)),
            }
        }
        self.served(config, route, name, asked, token.flatten())?;
        Ok(Ok(()))
    }

    /// The credential, and what it is exchanged for; the claims as far as they are known.
    fn token(&mut self, config: &Config, route: &Route, asked: &Asked) -> Outcome<Option<Claims>> {
        if let Some(mounted) = route.mounted() {
            self.line("credential", format!("bearerd's own, in {}", mounted.file.display()));
            self.minted(config, route);
            return Ok(Ok(asked.claims.clone()));
        }
        let sources = route.credentials().iter().map(assemble::source).collect::<Result<Vec<Source>, _>>()?;
        let one_only = route.on_multiple == OnMultiple::Reject;
        let presented = match credential::extract(&sources, one_only, &asked.headers, asked.uri.query()) {
            Ok(presented) => presented,
            Err(refusal) => return Ok(Err(refusal)),
        };
        self.line("credential", format!("{} of {} characters", presented.kind.as_str(), presented.value.len()));
        if presented.kind == Kind::Jwt {
            return self.presented(route, &presented);
        }
        self.minted(config, route);
        Ok(Ok(asked.claims.clone()))
    }

    fn minted(&mut self, config: &Config, route: &Route) {
        let token = &route.token;
        let place = match config.token_services.get(&token.service) {
            Some(TokenService::Iap(iap)) => format!("`{}` ({})", token.service, iap.url),
            _ => format!("`{}` (embedded)", token.service),
        };
        let mut call = format!("a token at hand, or create_token at {place}");
        let texts =
            [("client_id", &token.client_id), ("domain", &token.domain), ("data", &token.data), ("cwid", &token.cwid), ("cid", &token.cid)];
        let lists = [("scopes", &token.scopes), ("acl", &token.acl), ("mem", &token.mem)];
        let texts = texts.into_iter().filter_map(|(name, value)| Some((name, value.clone()?)));
        let lists = lists.into_iter().filter(|(_, items)| !items.is_empty()).map(|(name, items)| (name, items.join(",")));
        let session = token.return_session_token.then(|| ("return_session_token", "true".to_owned()));
        for (name, value) in texts.chain(lists).chain(session) {
            let _ = write!(call, " {name}={value}");
        }
        self.line("exchange", call);
        self.line(
            "",
            match route.validate.details_of_minted() {
                Details::Off => "not checked by get_token_details".to_owned(),
                Details::OnMint => "checked by get_token_details before its first use".to_owned(),
                Details::Every(span) => {
                    format!("checked by get_token_details before its first use, then every {}", humantime::format_duration(span))
                }
            },
        );
    }

    fn presented(&mut self, route: &Route, presented: &Presented<'_>) -> Outcome<Option<Claims>> {
        let claims = match &route.validate.jwt {
            None => Claims::of(&presented.value).ok().flatten(),
            Some(jwt) => match &jwt.jwks_file {
                None => {
                    self.line(
                        "jwt",
                        format!("its signature would be checked by the keys of {}", jwt.jwks_url.as_deref().unwrap_or_default()),
                    );
                    Claims::of(&presented.value).ok().flatten()
                }
                Some(file) => {
                    let keys = std::fs::read(file).map_err(unchecked)?;
                    let keys = KeySet::parse(&keys).map_err(unchecked)?;
                    let allowed: Vec<_> = jwt.algorithms.iter().map(|algorithm| policy::signature(*algorithm)).collect();
                    match keys.verify(&presented.value, &allowed) {
                        Ok(claims) => {
                            self.line("jwt", format!("signed by a key of {}", file.display()));
                            Some(claims)
                        }
                        Err(fault) => return Ok(Err(invalid(fault))),
                    }
                }
            },
        };
        let (rules, unending) = match &route.validate.jwt {
            Some(jwt) => (policy::rules(jwt), None),
            None => (Rules::default(), Some(Duration::from_secs(60))),
        };
        let known = claims.as_ref().ok_or(Fault::Malformed);
        if let Err(fault) = known.and_then(|claims| rules.accept(&presented.value, claims, Clock::system().reading(), unending)) {
            return Ok(Err(invalid(fault)));
        }
        if route.validate.details_of_presented() != Details::Off {
            self.line("jwt", format!("get_token_details at `{}` would be asked about it", route.token.service));
        }
        Ok(Ok(claims))
    }

    /// What the route requires, judged where the claims are known.
    fn authorize(&mut self, route: &Route, name: &str, claims: Option<Claims>) -> Outcome<Option<Judgement>> {
        for scope in &route.require.scopes {
            self.line("require", format!("the scope {scope}"));
        }
        for (path, expected) in &route.require.client_certificate {
            self.line("require", format!("the client certificate's {path} {}", in_words(expected)));
        }
        for (path, expected) in &route.require.claims {
            self.line("require", format!("the claim {path} {}", in_words(expected)));
        }
        let Some(claims) = claims else {
            if !route.require.is_empty() {
                self.line("", "open: the token would tell; give its claims with --claims");
            }
            return Ok(Ok(None));
        };
        let judgement = policy::policy(route, name)?.judge(&claims);
        Ok(match judgement.denial.clone() {
            Some(refusal) => Err(refusal),
            None => Ok(Some(judgement)),
        })
    }

    fn served(&mut self, config: &Config, route: &Route, name: &str, asked: &Asked, judgement: Option<Judgement>) -> Result<(), Error> {
        if let Some(respond) = route.respond {
            let status = StatusCode::from_u16(respond.status).map_err(unchecked)?;
            self.line("answer", format!("{status}, a fixed answer"));
            return Ok(());
        }
        let Some((upstream, section)) = route.upstream.as_ref().and_then(|name| Some((name, config.upstreams.get(name)?))) else {
            return self.decided(route, name, asked, judgement);
        };
        self.line("upstream", format!("{upstream}: {}", section.servers.join(", ")));
        if route.enforce {
            let Sent { lines, gone } = sent(config, route, name, asked, judgement)?;
            for (place, line) in lines.iter().enumerate() {
                self.line(if place == 0 { "sends" } else { "" }, line);
            }
            if !gone.is_empty() {
                self.line("strips", gone.join(", "));
            }
        } else {
            self.line("shadow", "the request goes on exactly as it came");
        }
        self.line("answer", "what the upstream answers");
        Ok(())
    }

    /// The request goes on from elsewhere: the answer to the proxy that asks.
    fn decided(&mut self, route: &Route, name: &str, asked: &Asked, judgement: Option<Judgement>) -> Result<(), Error> {
        if route.enforce {
            let policy = policy::policy(route, name)?;
            let peer = HeaderValue::try_from(asked.peer.to_string()).map_err(unchecked)?;
            let circumstances = Circumstances { peer: &peer, request_id: &HeaderValue::from_static("<its id>"), certificate: None };
            let told = judgement.as_ref().map_or_else(|| policy.without_token(), |judgement| &judgement.headers[..]);
            let told =
                told.iter().filter_map(|(name, rendered)| Some(format!("{name}: {}", rendered.value(&circumstances)?.to_str().ok()?)));
            let token = (route.auth == Auth::Required).then(|| "authorization: Bearer <the token>".to_owned());
            for (place, line) in token.into_iter().chain(told).enumerate() {
                self.line(if place == 0 { "tells" } else { "" }, line);
            }
        } else {
            self.line("shadow", "the request goes on exactly as it came");
        }
        self.line("answer", "200, to the proxy that asks");
        Ok(())
    }
}

/// What the upstream would get.
struct Sent {
    /// Request line and headers, secrets masked.
    lines: Vec<String>,
    /// Headers that came and do not go on.
    gone: Vec<String>,
}

fn sent(config: &Config, route: &Route, name: &str, asked: &Asked, judgement: Option<Judgement>) -> Result<Sent, Error> {
    let path = asked.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let mut request = RequestHeader::build(asked.method.clone(), path.as_bytes(), None).map_err(unchecked)?;
    for (name, value) in &asked.headers {
        request.append_header(name.clone(), value.clone()).map_err(unchecked)?;
    }
    let came: Vec<String> = request.headers.keys().map(|name| name.as_str().to_owned()).collect();
    let policy = policy::policy(route, name)?;
    let told = match &judgement {
        Some(judgement) => &judgement.headers[..],
        None => policy.without_token(),
    };
    let lifetimes = Lifetimes { session: Duration::from_secs(60), max_age: None };
    let token = Token::parse(&Secret::from("token"), Clock::system().reading(), lifetimes).map_err(unchecked)?;
    let caller = Caller::new(
        asked.peer,
        config.listeners.first().is_some_and(|listener| listener.trusted().iter().any(|net| net.contains(&asked.peer))),
        config.listeners.first().is_some_and(|listener| listener.tls.is_some()),
    );
    let request_id = HeaderValue::from_static("<its id>");
    let facts = Facts {
        caller: &caller,
        request_id: &request_id,
        token: (route.auth == Auth::Required).then_some(&token),
        compressed: false,
        told,
        host: None,
        certificate: None,
        version: Version::HTTP_11,
    };
    let managed: Managed = assemble::managed(config)?;
    inject::apply(&mut request, &managed, &policy::removed(route), &facts).map_err(unchecked)?;
    let mut lines = vec![format!("{} {}", request.method, String::from_utf8_lossy(request.raw_path()))];
    for (name, value) in &request.headers {
        let shown = match value.to_str() {
            _ if *name == AUTHORIZATION && route.auth == Auth::Required => "Bearer <the token>".to_owned(),
            Ok(text) if !may_be_secret(name.as_str()) => text.to_owned(),
            _ => "<as it came>".to_owned(),
        };
        lines.push(format!("{name}: {shown}"));
    }
    // Without claims, templates over them are shown as they are written.
    for (name, template) in &route.headers.set {
        if judgement.is_none() && !request.headers.contains_key(name) {
            lines.push(format!("{}: {template}", name.to_lowercase()));
        }
    }
    // What came under a name that bearerd sets is gone too.
    let set = |name: &String| route.headers.set.keys().any(|set| set.eq_ignore_ascii_case(name));
    let gone = came.into_iter().filter(|name| !request.headers.contains_key(name) || set(name)).collect();
    Ok(Sent { lines, gone })
}

/// Whether a header that goes on as it came should not be shown.
fn may_be_secret(name: &str) -> bool {
    ["auth", "cookie", "key", "token", "secret", "pass", "session", "cred"].iter().any(|part| name.contains(part))
}

fn invalid(fault: Fault) -> Refusal {
    exchange::Error::InvalidToken(fault).refusal()
}

fn in_words(expected: &Expected) -> String {
    let one = |scalar: &Scalar| match scalar {
        Scalar::Bool(value) => value.to_string(),
        Scalar::Integer(value) => value.to_string(),
        Scalar::Text(text) => format!("`{text}`"),
    };
    let all = |values: &[Scalar]| values.iter().map(one).collect::<Vec<_>>().join(", ");
    match expected {
        Expected::Value(Scalar::Text(text)) if text.contains('*') => format!("like `{text}`"),
        Expected::Told(Told::Glob(pattern)) => format!("like `{pattern}`"),
        Expected::Value(value) | Expected::Told(Told::Equals(value)) => format!("is {}", one(value)),
        Expected::OneOf(values) | Expected::Told(Told::OneOf(values)) => format!("is one of {}", all(values)),
        Expected::Told(Told::Present(true)) => "is there".to_owned(),
        Expected::Told(Told::Present(false)) => "is not there".to_owned(),
    }
}
