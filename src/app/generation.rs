//! What one configuration is made into. The next one takes over every part whose section is the same, with all that the part has learned: only what
//! was changed begins anew.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::runtime::Handle;

use super::Error;
use super::assemble::kept::Kept;
use super::assemble::{self, KeySources, OwnKeys, ServiceParts, Sources};
use crate::clock::Clock;
use crate::config::{self, Config, TokenService};
use crate::exchange::ledger::{Contents, Ledger};
use crate::exchange::{Exchange, Service, Sink};
use crate::issuer::Issuer;
use crate::proxy::accept::{Reception, Transport};
use crate::proxy::limits::Limits;
use crate::proxy::upstream::gauges::Counted;
use crate::proxy::upstream::{self, Upstream};
use crate::proxy::{Access, Route, Serving};
use crate::telemetry::metrics::{self, Metrics};
use crate::tls::expiry::Certificates;
use crate::tls::server::Listening;

/// What stays as it is from the start of the process to its end.
pub(super) struct Foundation {
    pub(super) exchange: Arc<Exchange>,
    pub(super) issuers: BTreeMap<String, Arc<Issuer>>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) clock: Clock,
    pub(super) runtime: Handle,
    pub(super) certificates: Arc<Certificates>,
}

/// The ledger, and what an earlier process left in it.
pub(super) type Left = (Ledger, Contents);

/// What was before.
pub(super) enum Former<'a> {
    /// Another process.
    Process(Option<Left>),
    /// Another configuration of this one.
    Generation(&'a Generation),
}

/// A service that lives on and is called otherwise from now on.
type Retune = (Arc<Service>, ServiceParts);

/// The parts of one configuration.
pub(super) struct Generation {
    pub(super) config: Config,
    services: BTreeMap<String, Kept<Service>>,
    upstreams: BTreeMap<String, Kept<Upstream>>,
    key_sources: KeySources,
    pub(super) own_keys: OwnKeys,
    /// Each with whether bearerd is not ready without its token.
    pub(super) sinks: Vec<(Kept<Sink>, bool)>,
    routes: Vec<Arc<Route>>,
    serving: Arc<Serving>,
    listeners: Vec<Received>,
    retunes: Vec<Retune>,
}

impl Generation {
    /// Makes the parts that `former` does not have. Nothing changes for requests before [`Self::take_over`].
    ///
    /// # Errors
    /// The first part that cannot be made; then `former` goes on as it is.
    pub(super) fn build(foundation: &Foundation, config: Config, former: Former<'_>) -> Result<Self, Error> {
        let Foundation { exchange, metrics, .. } = foundation;
        let (left, former) = match former {
            Former::Process(left) => (left, None),
            Former::Generation(former) => (None, Some(former)),
        };
        let mut retunes = Vec::new();
        let services = services(foundation, &config, former, &mut retunes)?;
        if let Some((ledger, contents)) = left {
            // Before any key of our own asks for a token: it may be in there.
            let services = services.iter().map(|(name, service)| (name.clone(), Arc::clone(&service.part))).collect();
            exchange.go_on(ledger, contents, &services);
        }
        let upstreams = upstreams(foundation, &config, former)?;
        let mut own_keys = OwnKeys::after(former.map(|former| &former.own_keys));
        let mut key_sources = KeySources::after(former.map(|former| &former.key_sources));
        let sources = Sources { config: &config, exchange, services: &services, upstreams: &upstreams, metrics };
        let mut routes = Vec::new();
        for (place, section) in config.routes.iter().enumerate() {
            if let Some((former, route)) = former.and_then(|former| Some((former, former.same_route(section, &sources)?))) {
                if let (Access::Own(key), Some(mounted)) = (&route.access, section.mounted()) {
                    own_keys.go_on(&former.own_keys, key, mounted);
                }
                if let Some(jwt) = &section.validate.jwt {
                    key_sources.of(jwt, &foundation.runtime)?;
                }
                routes.push(route);
                continue;
            }
            let name = section.name_at(place);
            routes.push(Arc::new(assemble::route(section, &name, &sources, &mut own_keys, &mut key_sources)?));
        }
        let sinks = sinks(&sources, former, &mut own_keys)?;
        let serving = Arc::new(assemble::serving(&config, &routes, metrics)?);
        let listeners = received(foundation, &config, former)?;
        own_keys.settle();
        key_sources.settle();
        Ok(Self { services, upstreams, key_sources, own_keys, sinks, routes, serving, listeners, retunes, config })
    }

    /// The route of the same section, if what it refers to is the same too.
    fn same_route(&self, section: &config::Route, now: &Sources<'_>) -> Option<Arc<Route>> {
        let place = self.config.routes.iter().position(|former| former == section)?;
        let service = section.token_api.as_ref().map_or_else(|| section.token.service.clone(), |api| api.details().service);
        let is_same = same_part(self.services.get(&service), now.services.get(&service))
            && section.upstream.as_ref().is_none_or(|name| same_part(self.upstreams.get(name), now.upstreams.get(name)))
            && self.config.only_decides() == now.config.only_decides();
        is_same.then(|| Arc::clone(&self.routes[place]))
    }

    /// Looks up the names of new upstreams, so that no request is led to one without an address.
    pub(super) async fn look_up(&self, former: &Self, timeout: Duration) {
        let new = self.upstreams.iter().filter(|(name, upstream)| !same_part(former.upstreams.get(*name), Some(upstream)));
        for (_, upstream) in new {
            upstream.part.look_up(timeout).await;
        }
    }

    /// From now on requests and connections that begin are served by this. What nothing wants any more is let go of.
    pub(super) fn take_over(&mut self, current: &Current, former: &Self, exchange: &Exchange) {
        for (service, ServiceParts { client, bounds, .. }) in self.retunes.drain(..) {
            service.retune(client, bounds);
        }
        current.upstreams.store(Arc::new(self.counted()));
        current.serving.store(Arc::clone(&self.serving));
        for (at, listener) in current.receptions.iter().zip(&self.listeners) {
            at.store(Arc::clone(&listener.reception));
        }
        let wanted: BTreeSet<_> = self.config.sinks.iter().map(|sink| &sink.path).collect();
        for ((sink, _), section) in former.sinks.iter().zip(&former.config.sinks) {
            if !wanted.contains(&section.path) {
                sink.part.remove();
            }
        }
        let names: Vec<_> = self.own_keys.uses.iter().map(|(key, _)| key.part.name()).collect();
        for (key, _) in &former.own_keys.uses {
            let name = key.part.name();
            if !names.contains(&name) {
                exchange.let_go(name);
            }
        }
    }

    fn counted(&self) -> Vec<Arc<Upstream>> {
        self.upstreams.values().map(|upstream| Arc::clone(&upstream.part)).collect()
    }

    /// What accept loops, the proxy and metrics read, beginning with this.
    pub(super) fn current(&self) -> Current {
        Current {
            serving: Arc::new(ArcSwap::new(Arc::clone(&self.serving))),
            receptions: self.listeners.iter().map(|listener| Arc::new(ArcSwap::new(Arc::clone(&listener.reception)))).collect(),
            upstreams: Arc::new(ArcSwap::from_pointee(self.counted())),
        }
    }
}

/// What is read anew by each request, connection and scrape.
pub(super) struct Current {
    pub(super) serving: Arc<ArcSwap<Serving>>,
    /// In the order of the listeners at the start.
    pub(super) receptions: Vec<Arc<ArcSwap<Reception>>>,
    pub(super) upstreams: Counted,
}

impl Current {
    /// Has upstreams counted.
    ///
    /// # Errors
    /// Never in practice: the names are fixed.
    pub(super) fn register(&self, metrics: &Metrics) -> Result<(), Error> {
        Ok(upstream::gauges::register(metrics.registry(), Arc::clone(&self.upstreams)).map_err(metrics::Error::from)?)
    }
}

fn same_part<T>(one: Option<&Kept<T>>, other: Option<&Kept<T>>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => Arc::ptr_eq(&one.part, &other.part),
        (None, None) => true,
        _ => false,
    }
}

/// A service whose URL stays is the same service, however it is called: its tokens, revocations and what is known of its health stay with it.
fn services(
    foundation: &Foundation,
    config: &Config,
    former: Option<&Generation>,
    retunes: &mut Vec<Retune>,
) -> Result<BTreeMap<String, Kept<Service>>, Error> {
    let Foundation { exchange, issuers, metrics, clock, runtime, .. } = foundation;
    let mut services = BTreeMap::new();
    for (name, section) in &config.token_services {
        let known = former.and_then(|former| Some((former.services.get(name)?, former.config.token_services.get(name)?)));
        if let Some((kept, _)) = known.filter(|(_, before)| *before == section) {
            services.insert(name.clone(), kept.clone());
            continue;
        }
        let parts = assemble::service(name, section, issuers, clock)?;
        let keep = |service: &Arc<Service>| match &parts.trust {
            Some(trust) => {
                let trust = Arc::clone(trust);
                Kept::new(service, runtime, async move { trust.keep().await })
            }
            None => Kept::at_rest(service),
        };
        let kept = match known.filter(|(kept, _)| kept.part.is_at(parts.kind, &parts.url)) {
            Some((kept, _)) => {
                let again = keep(&kept.part);
                retunes.push((Arc::clone(&kept.part), parts));
                again
            }
            None => {
                let service = Arc::new(Service::new(name, parts.kind, &parts.url, Arc::clone(&parts.client), parts.bounds, metrics));
                exchange.attend(&service);
                keep(&service)
            }
        };
        services.insert(name.clone(), kept);
    }
    Ok(services)
}

fn upstreams(foundation: &Foundation, config: &Config, former: Option<&Generation>) -> Result<BTreeMap<String, Kept<Upstream>>, Error> {
    let upstream = |(name, section): (&String, &config::Upstream)| {
        let known = former.filter(|former| former.config.upstreams.get(name) == Some(section));
        if let Some(kept) = known.and_then(|former| former.upstreams.get(name)) {
            return Ok((name.clone(), kept.clone()));
        }
        let upstream = Arc::new(assemble::upstream(name, section)?);
        Ok((name.clone(), Kept::new(&upstream, &foundation.runtime, Arc::clone(&upstream).keep())))
    };
    config.upstreams.iter().map(upstream).collect()
}

fn sinks(sources: &Sources<'_>, former: Option<&Generation>, own_keys: &mut OwnKeys) -> Result<Vec<(Kept<Sink>, bool)>, Error> {
    let Sources { config, exchange, services, .. } = *sources;
    let mut sinks = Vec::new();
    for (place, section) in config.sinks.iter().enumerate() {
        let name = &section.token.service;
        let known = former
            .filter(|former| former.config.sinks.get(place) == Some(section) && same_part(former.services.get(name), services.get(name)));
        if let Some((former, (kept, _))) = known.and_then(|former| Some((former, former.sinks.get(place)?))) {
            own_keys.go_on(&former.own_keys, kept.part.key(), &section.credential.mounted);
            sinks.push((kept.clone(), section.keep_warm));
            continue;
        }
        let sink = assemble::sink(place, section, exchange, services, own_keys)?;
        let kept = Kept::new(&sink, exchange.runtime(), Arc::clone(&sink).keep(Arc::clone(exchange)));
        sinks.push((kept, section.keep_warm));
    }
    Ok(sinks)
}

/// A listener that is bound, and how it receives.
#[derive(Clone)]
struct Received {
    section: config::Listener,
    listening: Option<Kept<Listening>>,
    reception: Arc<Reception>,
}

/// Every listener that was bound at the start, by its section now. One whose section is gone, or at another address, stays as it was.
fn received(foundation: &Foundation, config: &Config, former: Option<&Generation>) -> Result<Vec<Received>, Error> {
    let Some(former) = former else {
        return config.listeners.iter().enumerate().map(|(place, section)| receive(foundation, section, place, None)).collect();
    };
    let again = |(place, before): (usize, &Received)| match config.listeners.get(place) {
        Some(now) if now.address == before.section.address && *now != before.section => receive(foundation, now, place, Some(before)),
        _ => Ok(before.clone()),
    };
    former.listeners.iter().enumerate().map(again).collect()
}

fn receive(foundation: &Foundation, section: &config::Listener, place: usize, before: Option<&Received>) -> Result<Received, Error> {
    let listening = match (&section.tls, before.filter(|before| before.section.tls == section.tls)) {
        (None, _) => None,
        (Some(_), Some(before)) => before.listening.clone(),
        (Some(tls), None) => {
            let listening = Arc::new(Listening::new(tls).map_err(|cause| Error::Tls { key: format!("listeners[{place}].tls"), cause })?);
            Some(Kept::new(&listening, &foundation.runtime, Arc::clone(&listening).keep()))
        }
    };
    let transport = match &listening {
        Some(listening) => Transport::Tls(Arc::clone(&listening.part)),
        None if section.h2c => Transport::H2c,
        None => Transport::Plain,
    };
    let reception = Arc::new(Reception { mode: assemble::mode(section), transport, limits: limits(section) });
    Ok(Received { section: section.clone(), listening, reception })
}

fn limits(listener: &config::Listener) -> Limits {
    let limits = listener.limits;
    Limits {
        header_bytes: limits.header_bytes.0,
        headers: limits.headers,
        header_timeout: limits.header_timeout,
        idle_timeout: limits.idle_timeout,
        connections: limits.connections,
        connections_per_peer: limits.connections_per_peer,
        streams: limits.streams,
        unread_bytes: limits.unread_bytes.0,
        trusted_peers: listener.trusted(),
    }
}

/// What of `wanted` is only done by a new start: it was bound, sized or opened when the process began, as `running` says.
pub(super) fn needs_restart(running: &Config, wanted: &Config) -> Vec<String> {
    let addresses = |config: &Config| config.listeners.iter().map(|listener| listener.address).collect::<Vec<_>>();
    let embedded = |config: &Config| {
        let sections = config.token_services.iter().filter(|(_, service)| matches!(service, TokenService::Embedded(_)));
        sections.map(|(name, service)| (name.clone(), service.clone())).collect::<BTreeMap<_, _>>()
    };
    let pool = |config: &Config| config.upstreams.values().map(|upstream| upstream.pool.idle).max();
    let changes = [
        ("listeners.*.address", addresses(running) != addresses(wanted)),
        ("admin.address", running.admin.address != wanted.admin.address),
        ("metrics.address", running.metrics.address != wanted.metrics.address),
        ("workers", running.workers != wanted.workers),
        ("cache", running.cache != wanted.cache),
        ("tracing", running.tracing != wanted.tracing),
        ("logging.format", running.logging.format != wanted.logging.format),
        ("token_services.*, kind embedded", embedded(running) != embedded(wanted)),
        ("upstreams.*.pool.idle", pool(running) != pool(wanted)),
    ];
    changes.into_iter().filter(|(_, is_changed)| *is_changed).map(|(key, _)| key.to_owned()).collect()
}
