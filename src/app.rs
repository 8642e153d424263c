//! The composition root: takes a configuration, bound sockets and a stop signal, and runs until told to stop.
//!
//! Two runtimes. The proxy's serves requests and nothing else. The background one mints, resolves names and serves metrics; it outlives the proxy's, so
//! that what a caller waits for can still be had while the last requests are served.

mod assemble;
pub mod doctor;
mod error;
pub mod explain;
mod generation;
mod reload;
mod sockets;

use std::collections::BTreeMap;
use std::future;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use pingora::proxy::{HttpProxy, http_proxy};
use pingora::server::configuration::ServerConf;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time;

use crate::admin::control::Control;
use crate::admin::guard::Guard;
use crate::admin::overview::Watched;
use crate::admin::{self, Readiness, Shown};
use crate::clock::Clock;
use crate::config::{self, Config, Loaded};
use crate::exchange::Exchange;
use crate::http_server;
use crate::issuer::{self, Issuer};
use crate::proxy::accept::{Connections, Listener};
use crate::proxy::{Proxy, upstream};
use crate::refusal::recent::Recent;
use crate::secret::Secret;
use crate::telemetry::metrics::{self, Metrics};
use crate::telemetry::traces::Traces;
use crate::tls::expiry::Certificates;
use generation::{Former, Foundation, Generation, Left};
use reload::{Latest, Reloader};

pub use error::Error;
pub use reload::Source;
pub use sockets::{Addresses, Sockets, bind};

/// How far the end has come. It only goes forward.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stop {
    /// Not at all.
    #[default]
    No,
    /// Finish what is in flight.
    Drain,
    /// End at once.
    Now,
}

/// Longer than any process lives.
const FOR_GOOD: Duration = Duration::from_secs(u32::MAX as u64);

/// Runs until `stop` says so, or an operator. Returns when the last request is served, or when `stop` says [`Stop::Now`]. Where `loaded` is from a file, `source` says
/// which, and it is loaded again when it changes.
///
/// # Errors
/// What keeps it from starting.
pub fn run(loaded: &Loaded, sockets: Sockets, clock: &Clock, stop: watch::Receiver<Stop>, source: Option<Source>) -> Result<(), Error> {
    let background = runtime("bearerd-background", 2)?;
    let workers = runtime("bearerd-proxy", loaded.config.workers.count())?;
    let started = App::start(loaded, sockets, clock, &background, &workers, stop.clone(), source);
    let outcome = started.map(|app| background.block_on(app.serve(stop)));
    // What still runs by now is either idle or over its time.
    workers.shutdown_background();
    background.shutdown_background();
    outcome
}

/// tokio panics where it needs a thread that may wait, has none, and the system gives it none: whatever looks at files or names again and again would
/// end with that. So there is one from the beginning, and none that was made is given back.
///
/// # Errors
/// When the system gives no threads or descriptors.
pub(crate) fn runtime(name: &str, threads: usize) -> io::Result<Runtime> {
    let mut builder = Builder::new_multi_thread();
    let runtime = builder.worker_threads(threads).thread_name(name).thread_keep_alive(FOR_GOOD).enable_all().build()?;
    drop(runtime.spawn_blocking(|| ()));
    Ok(runtime)
}

struct App {
    exchange: Arc<Exchange>,
    /// Of the configuration of the moment.
    latest: Arc<ArcSwap<Latest>>,
    readiness: Arc<Readiness>,
    connections: Arc<Connections>,
    /// `true` makes every answer say `Connection: close`.
    closing: watch::Sender<bool>,
    /// `true` ends the accept loops.
    accepting: watch::Sender<bool>,
    accept_loops: Vec<JoinHandle<()>>,
    /// `true` once an operator wants the end.
    quit: watch::Receiver<bool>,
    /// `true` ends the admin listener.
    over: watch::Sender<bool>,
    admin: JoinHandle<()>,
    traces: Option<Arc<Traces>>,
}

impl App {
    fn start(
        Loaded { config, resolved, .. }: &Loaded,
        sockets: Sockets,
        clock: &Clock,
        background: &Runtime,
        workers: &Runtime,
        stop: watch::Receiver<Stop>,
        source: Option<Source>,
    ) -> Result<Self, Error> {
        let (foundation, left) = found(config, clock, background)?;
        let traces = traces(config, background)?;
        let Foundation { exchange, metrics, issuers, .. } = &foundation;
        let generation = Generation::build(&foundation, config.clone(), Former::Process(left))?;
        let current = generation.current();
        current.register(metrics)?;
        foundation.certificates.watch(config.certificates());

        let readiness = Arc::new(Readiness::default());
        await_own_tokens(&generation, &readiness);
        let shown = Shown { metrics: Arc::clone(metrics), exchange: Arc::clone(exchange), readiness: Arc::clone(&readiness) };
        let (ask, asked) = mpsc::channel(1);
        let levels = source.as_ref().and_then(|source| source.levels.clone());
        let served = generation.served(resolved.clone());
        let control = Arc::new(Control::new(ask, served, levels, clock.clone(), Arc::clone(metrics)));
        let guard = Arc::new(Guard::new(admin_token(config)?, clock.clone()));
        let recent = Arc::new(Recent::new(clock.clone()));
        let watched = Arc::new(Watched::new(shown.clone(), Arc::clone(&control), Arc::clone(&recent), clock.clone()));
        let over = watch::Sender::new(false);
        let _entered = background.enter();
        background.spawn(Arc::clone(&watched).keep(over.subscribe()));
        serve_http(background.handle(), sockets.metrics, admin::metrics_listener(shown.clone()), future::pending())?;
        let router = admin::admin_listener(shown, Arc::clone(&guard), Arc::clone(&control), watched);
        let mut ended = over.subscribe();
        let admin = serve_http(background.handle(), sockets.admin, router, async move {
            let _ = ended.wait_for(|over| *over).await;
        })?;
        for (name, socket) in sockets.issuers {
            let Some(issuer) = issuers.get(&name).cloned() else { continue };
            let listener = tokio::net::TcpListener::from_std(socket)?;
            let mut stop = stop.clone();
            background.spawn(issuer::server::serve(issuer::server::router(issuer), listener, async move {
                let _ = stop.wait_for(|stop| *stop == Stop::Now).await;
            }));
        }

        let connections = Arc::new(Connections::new(Arc::clone(metrics)));
        let (closing, accepting) = (watch::Sender::new(false), watch::Sender::new(false));
        let app = pingora_app(
            config,
            Proxy::new(Arc::clone(&current.serving), Arc::clone(exchange), Arc::clone(metrics), recent, traces.clone()),
        );
        let _entered = workers.enter();
        workers.spawn(Arc::clone(&connections).sweep());
        let mut accept_loops = Vec::new();
        for (socket, reception) in sockets.callers.into_iter().zip(&current.receptions) {
            let socket = tokio::net::TcpListener::from_std(socket)?;
            let listener = Listener { socket, reception: Arc::clone(reception), app: Arc::clone(&app) };
            accept_loops.push(workers.spawn(listener.run(Arc::clone(&connections), closing.subscribe(), accepting.subscribe())));
        }
        readiness.started();
        let exchange = Arc::clone(exchange);
        let latest = Arc::new(ArcSwap::from_pointee(generation.latest()));
        let quit = control.quit();
        match source {
            Some(source) => {
                let (running, latest) = (config.clone(), Arc::clone(&latest));
                background.spawn(Reloader { source, foundation, current, running, generation, latest, control, guard }.run(asked));
            }
            None => {
                background.spawn(async move {
                    // Its parts look after themselves for as long as it is there.
                    let _generation = generation;
                    future::pending::<()>().await;
                });
            }
        }
        Ok(Self { exchange, latest, readiness, connections, quit, closing, accepting, accept_loops, over, admin, traces })
    }

    /// Serves until told to stop, then ends in order; [`Stop::Now`] cuts every step short.
    async fn serve(mut self, mut stop: watch::Receiver<Stop>) {
        // A sender that is gone can never say stop: then the process is ending anyway.
        tokio::select! {
            _ = stop.wait_for(|stop| *stop >= Stop::Drain) => {}
            _ = self.quit.wait_for(|quit| *quit) => {}
        }
        let mut now = stop.clone();
        let is_drained = tokio::select! {
            _ = now.wait_for(|stop| *stop == Stop::Now) => false,
            () = self.drain() => true,
        };
        tracing::info!("{}", if is_drained { "drained" } else { "ended at once" });
        self.latest.load().sinks.iter().for_each(|sink| sink.remove());
        self.exchange.close();
        if let Some(traces) = self.traces.filter(|_| is_drained) {
            // It blocks for a moment, and the last spans travel by this runtime.
            let _ = tokio::task::spawn_blocking(move || traces.end()).await;
        }
    }

    async fn drain(&mut self) {
        let config::Shutdown { delay, drain_timeout, revoke } = self.latest.load().shutdown;
        tracing::info!(?delay, ?drain_timeout, open = self.connections.open(), "draining");
        self.readiness.draining();
        self.closing.send_replace(true);
        time::sleep(delay).await;
        self.accepting.send_replace(true);
        for accept_loop in self.accept_loops.drain(..) {
            // A loop that panicked accepts no more either.
            let _ = accept_loop.await;
        }
        let cut_off = self.connections.drain(drain_timeout).await;
        if cut_off > 0 {
            tracing::warn!(cut_off, ?drain_timeout, "connections did not finish within `shutdown.drain_timeout`");
        }
        if revoke {
            // After the last request: it may still need its token.
            let left = self.exchange.revoke_all(drain_timeout).await;
            tracing::info!(left, "tokens revoked");
        }
        // Whoever asked for the end is still to be told that it comes.
        self.over.send_replace(true);
        let _ = time::timeout(LAST_ANSWERS, &mut self.admin).await;
    }
}

/// What is there before any configuration's parts: the exchange with what an earlier process left, and the embedded token services.
fn found(config: &Config, clock: &Clock, background: &Runtime) -> Result<(Foundation, Option<Left>), Error> {
    let metrics = Arc::new(Metrics::new()?);
    let issuers = open_issuers(config, clock, &metrics)?;
    for (name, embedded) in config.embedded() {
        let Some(issuer) = issuers.get(name).cloned() else { continue };
        let embedded = embedded.clone();
        background.spawn(async move { issuer.follow(&embedded).await });
    }
    let (left, hash_keys) = match assemble::ledger(&config.cache, clock, &metrics)? {
        Some((ledger, contents, hash_keys)) => (Some((ledger, contents)), hash_keys),
        None => (None, assemble::passing_keys()?),
    };
    let exchange = assemble::exchange(&config.cache, hash_keys, clock.clone(), background.handle().clone(), &metrics);
    background.spawn(clock.clone().keep_in_step());
    let certificates = Certificates::register(metrics.registry()).map_err(metrics::Error::from)?;
    background.spawn(Arc::clone(&certificates).keep());
    Ok((Foundation { exchange, issuers, metrics, clock: clock.clone(), runtime: background.handle().clone(), certificates }, left))
}

/// Where requests are traced to.
fn traces(config: &Config, background: &Runtime) -> Result<Option<Arc<Traces>>, Error> {
    let Some(endpoint) = &config.tracing.otlp_endpoint else { return Ok(None) };
    let _entered = background.enter();
    Ok(Some(Arc::new(Traces::to_collector(endpoint, config.tracing.sample)?)))
}

/// Not ready before the first token of each mounted key and sink that is awaited.
fn await_own_tokens(generation: &Generation, readiness: &Readiness) {
    for (key, _) in generation.own_keys.uses.iter().filter(|(_, is_awaited)| *is_awaited) {
        let key = Arc::clone(&key.part);
        readiness.wait_for(move || key.has_token());
    }
    for (sink, _) in generation.sinks.iter().filter(|(_, is_awaited)| *is_awaited) {
        let sink = Arc::clone(&sink.part);
        readiness.wait_for(move || sink.has_token());
    }
}

fn open_issuers(config: &Config, clock: &Clock, metrics: &Metrics) -> Result<BTreeMap<String, Arc<Issuer>>, Error> {
    let families = issuer::metrics::Families::new(metrics.registry())?;
    config
        .embedded()
        .map(|(name, embedded)| {
            let issuer = Issuer::open(embedded, clock.clone()).map_err(|cause| Error::Issuer { service: name.to_owned(), cause })?;
            issuer.count_in(families.of(name));
            Ok((name.to_owned(), issuer))
        })
        .collect()
}

fn admin_token(config: &Config) -> Result<Option<Secret>, Error> {
    let Some(file) = &config.admin.token_file else { return Ok(None) };
    let text = std::fs::read_to_string(file).map_err(|cause| Error::AdminToken { file: file.clone(), cause })?;
    Ok(Some(Secret::from(text.trim())))
}

/// Connections at one time to the metrics or the admin listener: few call there, and they must not use up what callers need.
const OWN_CONNECTIONS: usize = 256;

/// Time for the admin listener's last answers.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// Serves until `shutdown`, or until its runtime ends.
fn serve_http(
    handle: &Handle,
    socket: TcpListener,
    router: Router,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let listener = tokio::net::TcpListener::from_std(socket)?;
    Ok(handle.spawn(http_server::serve(router, listener, OWN_CONNECTIONS, shutdown)))
}

fn pingora_app(config: &Config, proxy: Proxy) -> Arc<HttpProxy<Proxy>> {
    let conf = ServerConf {
        threads: config.workers.count(),
        max_retries: upstream::MAX_ATTEMPTS,
        upstream_keepalive_pool_size: config.upstreams.values().map(|upstream| upstream.pool.idle).max().unwrap_or(0),
        ..ServerConf::default()
    };
    Arc::new(http_proxy(&Arc::new(conf), proxy))
}
