//! From sections of the configuration to the parts that they describe. `bearerd check` has refused by then what cannot be built.

pub(super) mod kept;
pub(super) mod policy;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, StatusCode};
use tokio::runtime::Handle;

use super::Error;
use crate::clock::Clock;
use crate::config::listener::{DecisionRequest, DecisionStatus};
use crate::config::route::{
    ApiKeyPlace, Auth, CredentialKind, CredentialSource, Details, Mounted, OnExpiry, OnMultiple, OnRevoke as RevokeAs, OnUpstream401,
    Placed,
};
use crate::config::{self, Config};
use crate::credential::Source;
use crate::decision::{Deciding, Statuses, ToldIn};
use crate::exchange::ledger::{Contents, Keys, Ledger};
use crate::exchange::{Bounds, Capacity, Details as Checks, Exchange, Grant, HashKeys, Keep, OwnKey, Service, Sink, Terms};
use crate::issuer::Issuer;
use crate::mounted::MountedKey;
use crate::proxy::accept::Mode;
use crate::proxy::inject::Managed;
use crate::proxy::upstream::{Balance, Ejection, HealthCheck, HostPolicy, Manner, Protocol, Timeouts, Tls, Upstream};
use crate::proxy::{Access, Action, Route, Serving};
use crate::routing::{Conditions, HostPattern, PathPattern};
use crate::secret::HashKey;
use crate::telemetry::metrics::Metrics;
use crate::tls::client::Trust;
use crate::token::Lifetimes;
use crate::token_api::{self, OnRevoke, TokenApi};
use crate::token_service::embedded::EmbeddedTokenService;
use crate::token_service::iap::IapTokenService;
use crate::token_service::{TokenParams, TokenService};
use kept::{Kept, Shelf};
pub(super) use policy::KeySources;

type Services = BTreeMap<String, Kept<Service>>;
type Upstreams = BTreeMap<String, Kept<Upstream>>;

/// The header that an API key comes in unless a route says otherwise.
const API_KEY_HEADER: &str = "x-api-key";
/// The name of requests that no route takes, in metrics.
const UNROUTED: &str = "";

/// The ledger, where one is configured.
pub(super) fn ledger(cache: &config::Cache, clock: &Clock, metrics: &Arc<Metrics>) -> Result<Option<(Ledger, Contents, HashKeys)>, Error> {
    let Some(config::cache::Ledger { path, key_files }) = &cache.ledger else { return Ok(None) };
    let keys = Keys::read(key_files)?;
    let mut index = keys.index().iter().cloned();
    let current = index.next().ok_or_else(|| unchecked("`cache.ledger.key_files` is empty"))?;
    let hash_keys = HashKeys { current, former: index.collect() };
    let (ledger, contents) =
        Ledger::open(path, keys, clock.now(), Arc::clone(metrics)).map_err(|cause| Error::Ledger { path: path.clone(), cause })?;
    Ok(Some((ledger, contents, hash_keys)))
}

/// Keys that name what nobody keeps.
pub(super) fn passing_keys() -> Result<HashKeys, Error> {
    Ok(HashKeys { current: HashKey::random().map_err(|_| Error::Randomness)?, former: Vec::new() })
}

pub(super) fn exchange(cache: &config::Cache, keys: HashKeys, clock: Clock, runtime: Handle, metrics: &Arc<Metrics>) -> Arc<Exchange> {
    let capacity = Capacity {
        tokens: cache.max_tokens,
        negative: cache.negative.max_entries,
        negative_ttl: cache.negative.ttl,
        tombstones: cache.tombstones.max_entries,
        tombstone_ttl: cache.tombstones.ttl,
    };
    Arc::new(Exchange::new(keys, capacity, clock, runtime, Arc::clone(metrics)))
}

/// What a service's section is made into.
pub(super) struct ServiceParts {
    pub(super) kind: &'static str,
    pub(super) url: String,
    pub(super) client: Arc<dyn TokenService>,
    pub(super) bounds: Bounds,
    /// Whom the client trusts, where its files are to be followed.
    pub(super) trust: Option<Arc<Trust>>,
}

pub(super) fn service(
    name: &str,
    service: &config::TokenService,
    issuers: &BTreeMap<String, Arc<Issuer>>,
    clock: &Clock,
) -> Result<ServiceParts, Error> {
    let (mint, breaker) = (service.mint(), service.breaker());
    let bounds = Bounds {
        concurrency: mint.concurrency,
        rate: mint.rate,
        queue: mint.queue,
        wait: mint.wait,
        skew: service.skew(),
        breaker_failures: breaker.failures,
        probe_interval: breaker.probe_interval,
    };
    Ok(match service {
        config::TokenService::Iap(iap) => {
            let client = IapTokenService::new(iap, clock.clone()).map_err(|cause| Error::Client { service: name.to_owned(), cause })?;
            let trust = Some(Arc::clone(client.trust()));
            ServiceParts { kind: "iap", url: iap.url.clone(), client: Arc::new(client), bounds, trust }
        }
        config::TokenService::Embedded(_) => {
            let issuer = issuers.get(name).ok_or_else(|| Error::NewIssuer { service: name.to_owned() })?;
            let client = Arc::new(EmbeddedTokenService::new(Arc::clone(issuer)));
            ServiceParts { kind: "embedded", url: name.to_owned(), client, bounds, trust: None }
        }
    })
}

pub(super) fn upstream(name: &str, upstream: &config::Upstream) -> Result<Upstream, Error> {
    let host = match upstream.host() {
        "preserve" => HostPolicy::Preserve,
        "upstream" => HostPolicy::Server,
        fixed => HostPolicy::Fixed(HeaderValue::try_from(fixed).map_err(unchecked)?),
    };
    let config::upstream::Timeouts { connect, read, write, idle } = upstream.timeouts;
    let tls = upstream.tls.as_ref().map(|tls| Tls {
        sni: tls.sni.clone(),
        ca: tls.ca.clone(),
        certificate: tls.certificate.clone().zip(tls.private_key.clone()),
        verify: tls.verify,
    });
    let manner = Manner {
        host,
        timeouts: Timeouts { connect, read, write, idle },
        protocol: match upstream.protocol {
            config::upstream::Protocol::Http1 => Protocol::Http1,
            config::upstream::Protocol::Http2 | config::upstream::Protocol::H2c => Protocol::Http2,
            config::upstream::Protocol::Auto => Protocol::Any,
        },
        tls,
        balance: match upstream.balance {
            config::upstream::Balance::RoundRobin => Balance::RoundRobin,
            config::upstream::Balance::Random => Balance::Random,
            config::upstream::Balance::Consistent => Balance::Consistent,
        },
        health_check: upstream.health_check.as_ref().map(|check| HealthCheck {
            path: check.path.clone(),
            interval: check.interval,
            timeout: check.timeout,
            failures: check.failures,
        }),
        ejection: Ejection { failures: upstream.ejection.failures, period: upstream.ejection.period },
        dns_refresh: upstream.dns_refresh,
        header_bytes: upstream.header_bytes.0,
    };
    Ok(Upstream::new(name, &upstream.servers, manner)?)
}

/// Where the parts of routes come from.
pub(super) struct Sources<'a> {
    pub(super) config: &'a Config,
    pub(super) exchange: &'a Arc<Exchange>,
    pub(super) services: &'a Services,
    pub(super) upstreams: &'a Upstreams,
    pub(super) metrics: &'a Arc<Metrics>,
}

pub(super) fn route(
    section: &config::Route,
    name: &str,
    sources: &Sources<'_>,
    own_keys: &mut OwnKeys,
    key_sources: &mut KeySources,
) -> Result<Route, Error> {
    let Sources { config, exchange, services, upstreams, metrics } = *sources;
    Ok(Route {
        access: access(section, name, exchange, services, own_keys, key_sources)?,
        action: action(config, section, name, exchange, services, upstreams)?,
        renew_on_401: section.on_upstream_401 == OnUpstream401::Renew,
        ends_with_token: section.on_expiry == OnExpiry::Close,
        enforce: section.enforce,
        rate_limit: policy::rate_limit(section),
        policy: policy::policy(section, name)?,
        removed: policy::removed(section),
        response: policy::response(section, name)?,
        metrics: metrics.route(name, section.upstream.as_deref()),
        name: name.to_owned(),
    })
}

/// What requests are served by, over these routes in the order of the configuration.
pub(super) fn serving(config: &Config, routes: &[Arc<Route>], metrics: &Arc<Metrics>) -> Result<Serving, Error> {
    let routes = config.routes.iter().zip(routes).map(|(section, route)| Ok((conditions(section)?, Arc::clone(route))));
    let routes = routes.collect::<Result<_, Error>>()?;
    Ok(Serving::new(routes, metrics.route(UNROUTED, None), managed(config)?, config.logging.access.then_some(config.logging.sample)))
}

/// What becomes of a listener's requests.
pub(super) const fn mode(listener: &config::Listener) -> Mode {
    let told_in = match listener.decision_request {
        DecisionRequest::Auto => ToldIn::Anywhere,
        DecisionRequest::XOriginal => ToldIn::XOriginal,
        DecisionRequest::XForwarded => ToldIn::XForwarded,
        DecisionRequest::Target => ToldIn::Target,
    };
    let statuses = match listener.decision_status {
        DecisionStatus::Exact => Statuses::Exact,
        DecisionStatus::Nginx => Statuses::Nginx,
    };
    match listener.mode {
        config::listener::Mode::Proxy => Mode::Proxy,
        config::listener::Mode::Decision => Mode::Decision(Deciding { told_in, statuses }),
    }
}

/// What no request may carry on, whatever its route.
pub(super) fn managed(config: &Config) -> Result<Managed, Error> {
    let mut managed = Managed::new();
    for section in &config.routes {
        if section.token_api.is_some() {
            token_api_sources().iter().for_each(|source| managed.add_source(source));
        } else if section.auth == Auth::Required && section.mounted().is_none() {
            // A public route's list of credentials says nothing: it is the default that nobody wrote.
            for listed in section.credentials().iter() {
                managed.add_source(&source(listed)?);
            }
        }
        section.headers.set.keys().for_each(|name| managed.headers.insert(name));
    }
    Ok(managed)
}

pub(super) fn conditions(section: &config::Route) -> Result<Conditions, Error> {
    let matches = &section.matches;
    let path = match (&matches.path, &matches.path_prefix, &matches.path_regex) {
        _ if section.token_api.is_some() => PathPattern::OneOf(&token_api::PATHS),
        (Some(exact), _, _) => PathPattern::Exact(exact.clone()),
        (None, Some(prefix), _) => PathPattern::prefix(prefix),
        (None, None, Some(regex)) => PathPattern::regex(regex).map_err(unchecked)?,
        (None, None, None) => PathPattern::Any,
    };
    let header = |(name, value): (&String, &String)| {
        Ok((HeaderName::try_from(name.as_str()).map_err(unchecked)?, HeaderValue::try_from(value.as_str()).map_err(unchecked)?))
    };
    Ok(Conditions {
        hosts: matches.hosts.iter().map(|text| HostPattern::new(text)).collect(),
        path,
        methods: matches.methods.iter().map(|method| Method::try_from(method.as_str()).map_err(unchecked)).collect::<Result<_, _>>()?,
        headers: matches.headers.iter().map(header).collect::<Result<_, Error>>()?,
    })
}

fn access(
    section: &config::Route,
    name: &str,
    exchange: &Arc<Exchange>,
    services: &Services,
    own_keys: &mut OwnKeys,
    key_sources: &mut KeySources,
) -> Result<Access, Error> {
    if section.auth == Auth::None || section.token_api.is_some() {
        return Ok(Access::Public);
    }
    let sources = || section.credentials().iter().map(source).collect::<Result<Vec<_>, _>>();
    let grant =
        || -> Result<_, Error> { Ok(Arc::new(exchange.grant(name, service_of(services, &section.token.service)?, terms(section)))) };
    if let Some(mounted) = section.mounted() {
        return own_keys.add(mounted, grant()?, section.keep_warm, exchange).map(Access::Own);
    }
    let sources = sources()?;
    let mints = sources.iter().any(|source| *source != Source::Jwt);
    Ok(Access::Protected {
        one_only: section.on_multiple == OnMultiple::Reject,
        grant: if mints { Some(grant()?) } else { None },
        verifier: policy::verifier(section, name, exchange, services, key_sources)?,
        sources,
    })
}

pub(super) fn source(source: &CredentialSource) -> Result<Source, Error> {
    Ok(match source {
        CredentialSource::Kind(CredentialKind::ApiKey) => Source::Header(HeaderName::from_static(API_KEY_HEADER)),
        CredentialSource::Kind(CredentialKind::Basic) => Source::Basic,
        CredentialSource::Kind(CredentialKind::SessionToken) => Source::SessionToken,
        CredentialSource::Kind(CredentialKind::Jwt) => Source::Jwt,
        CredentialSource::Placed(Placed::ApiKey(ApiKeyPlace::Header(name))) => {
            Source::Header(HeaderName::try_from(name.as_str()).map_err(unchecked)?)
        }
        CredentialSource::Placed(Placed::ApiKey(ApiKeyPlace::Query(name))) => Source::Query(name.clone()),
        CredentialSource::Placed(Placed::Mounted(_)) => return Err(unchecked("`mounted` stands beside other credentials")),
    })
}

/// Where callers of the token API bring what no other route may pass on.
fn token_api_sources() -> [Source; 3] {
    [Source::Header(HeaderName::from_static(API_KEY_HEADER)), Source::Basic, Source::SessionToken]
}

fn service_of<'s>(services: &'s Services, name: &str) -> Result<&'s Arc<Service>, Error> {
    services.get(name).map(|service| &service.part).ok_or_else(|| unchecked(format!("there is no token service `{name}`")))
}

pub(super) fn terms(section: &config::Route) -> Terms {
    let keep = match section.keep_warm {
        _ if section.mounted().is_some() => Keep::Always,
        true => Keep::Warm,
        false => Keep::InUse,
    };
    Terms { session_refresh: section.session_refresh, keep, ..token_terms(&section.token, &section.validate, section.session_lifetime) }
}

/// What routes and sinks have in common, for a sink.
fn token_terms(token: &config::route::Token, validate: &config::route::Validate, session: Duration) -> Terms {
    let config::route::Token { service: _, client_id, domain, data, scopes, acl, mem, cwid, cid, return_session_token, max_age } =
        token.clone();
    Terms {
        params: TokenParams { client_id, domain, data, scopes, acl, mem, cwid, cid, return_session_token },
        details: details(validate.details_of_minted()),
        lifetimes: Lifetimes { session, max_age },
        session_refresh: session,
        keep: Keep::Always,
    }
}

/// The keys that are bearerd's own, as routes and sinks use them.
#[derive(Default)]
pub(super) struct OwnKeys {
    /// By file.
    files: Shelf<PathBuf, MountedKey>,
    /// Each use, and whether bearerd is not ready without its token.
    pub(super) uses: Vec<(Kept<OwnKey>, bool)>,
}

impl OwnKeys {
    pub(super) fn after(former: Option<&Self>) -> Self {
        Self { files: Shelf::after(former.map(|former| &former.files)), uses: Vec::new() }
    }

    fn add(&mut self, mounted: &Mounted, grant: Arc<Grant>, is_awaited: bool, exchange: &Arc<Exchange>) -> Result<Arc<OwnKey>, Error> {
        let file = self.files.of(mounted.file.clone(), |path| {
            let file = Arc::new(MountedKey::open(path)?);
            Ok::<_, Error>(Kept::new(&file, exchange.runtime(), Arc::clone(&file).keep_reading()))
        })?;
        let key = Arc::new(OwnKey::new(file, grant, mounted.revoke_on_change));
        let kept = Kept::new(&key, exchange.runtime(), Arc::clone(&key).keep(Arc::clone(exchange)));
        self.uses.push((kept, is_awaited));
        Ok(key)
    }

    /// Goes on with what a route or sink of the configuration before used.
    pub(super) fn go_on(&mut self, former: &Self, key: &Arc<OwnKey>, mounted: &Mounted) {
        self.files.go_on(&mounted.file);
        self.uses.extend(former.uses.iter().find(|(kept, _)| Arc::ptr_eq(&kept.part, key)).cloned());
    }

    /// All routes and sinks are there.
    pub(super) fn settle(&mut self) {
        self.files.settle();
    }
}

/// How long a sink's psToken is used, as on routes that say nothing of it.
const SINK_SESSION: Duration = Duration::from_secs(12 * 3600);

pub(super) fn sink_terms(section: &config::Sink) -> Terms {
    token_terms(&section.token, &section.validate, SINK_SESSION)
}

pub(super) fn sink(
    place: usize,
    section: &config::Sink,
    exchange: &Arc<Exchange>,
    services: &Services,
    own_keys: &mut OwnKeys,
) -> Result<Arc<Sink>, Error> {
    let service = service_of(services, &section.token.service)?;
    let grant = exchange.grant(&format!("sink-{}", place + 1), service, sink_terms(section));
    let key = own_keys.add(&section.credential.mounted, Arc::new(grant), false, exchange)?;
    Ok(Arc::new(Sink::new(section.path.clone(), section.mode.0, key)))
}

fn action(
    config: &Config,
    section: &config::Route,
    name: &str,
    exchange: &Arc<Exchange>,
    services: &Services,
    upstreams: &Upstreams,
) -> Result<Action, Error> {
    match (&section.upstream, section.respond, &section.token_api) {
        (None, None, Some(token_api)) => {
            let details = token_api.details();
            Ok(Action::TokenApi(Box::new(TokenApi {
                exchange: Arc::clone(exchange),
                service: Arc::clone(service_of(services, &details.service)?),
                route: name.to_owned(),
                terms: terms(section),
                on_revoke: match details.on_revoke {
                    RevokeAs::Revoke => OnRevoke::Revoke,
                    RevokeAs::Release => OnRevoke::Release,
                },
                min_remaining: details.min_remaining.as_fraction(),
            })))
        }
        (Some(name), None, None) => upstreams
            .get(name)
            .map(|upstream| Action::Forward(Arc::clone(&upstream.part)))
            .ok_or_else(|| unchecked(format!("there is no upstream `{name}`"))),
        (None, None, None) if config.only_decides() => Ok(Action::Elsewhere),
        (None, Some(respond), None) => StatusCode::from_u16(respond.status).map(Action::Respond).map_err(unchecked),
        _ => Err(unchecked("a route needs one of `upstream`, `token_api` and `respond`")),
    }
}

const fn details(details: Details) -> Checks {
    match details {
        Details::Off => Checks::Off,
        Details::OnMint => Checks::OnMint,
        Details::Every(span) => Checks::Every(span),
    }
}

pub(super) fn unchecked(what: impl Display) -> Error {
    Error::Unchecked(what.to_string())
}
