//! Upstreams: their servers' addresses, resolved in the background, and the next one to ask.

mod balance;
pub mod gauges;
mod greeting;
mod health_check;
mod secured;
mod server;
pub(in crate::proxy) mod upgrade;

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use http::HeaderValue;
use pingora::proxy::Session;
use pingora::upstreams::peer::{ALPN, HttpPeer};
use tokio::{net, time};

use crate::tls::files::{self, Followed};
pub use balance::{Balance, Choice};
pub use health_check::HealthCheck;
use secured::Secured;
pub use secured::Tls;
use server::Peer;
pub use server::{Ejection, Health};

/// Attempts at upstreams for one request: room for a connect failure and a replay.
pub const MAX_ATTEMPTS: usize = 3;

/// Whether a request that was sent in `tries` attempts can be sent once more: by its method (RFC 9110 section 9.2.2), and by what is left of its
/// body. The same as pingora's own policy, which has the last word.
pub(super) fn may_replay(session: &Session, tries: usize) -> bool {
    tries < MAX_ATTEMPTS && is_repeatable(session)
}

/// Whether it does no harm to send a request twice (RFC 9110 section 9.2.2), and all of it is still there to be sent.
pub(super) fn is_repeatable(session: &Session) -> bool {
    session.req_header().method.is_idempotent() && !session.as_ref().retry_buffer_truncated()
}

/// Time-outs of each phase.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// To connect.
    pub connect: Duration,
    /// Between two reads.
    pub read: Duration,
    /// For each write.
    pub write: Duration,
    /// For a pooled connection without a request.
    pub idle: Duration,
}

/// The `Host` that an upstream sees.
#[derive(Clone, Debug)]
pub enum HostPolicy {
    /// The caller's.
    Preserve,
    /// The server's, as it is configured.
    Server,
    /// This one.
    Fixed(HeaderValue),
}

/// How an upstream is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2; without TLS by prior knowledge.
    Http2,
    /// Either, as the server chooses in TLS.
    Any,
}

/// Everything that is configured of an upstream beside its name and servers.
pub struct Manner {
    /// The `Host` that it sees.
    pub host: HostPolicy,
    /// How long each phase may take.
    pub timeouts: Timeouts,
    /// What it speaks.
    pub protocol: Protocol,
    /// TLS towards it.
    pub tls: Option<Tls>,
    /// Which server is asked.
    pub balance: Balance,
    /// What is asked of servers behind requests.
    pub health_check: Option<HealthCheck>,
    /// When a server is left alone.
    pub ejection: Ejection,
    /// How often names are resolved again.
    pub dns_refresh: Duration,
    /// Bytes of a header section that it takes.
    pub header_bytes: usize,
}

/// One or more servers that serve the same.
pub struct Upstream {
    name: String,
    manner: Manner,
    servers: Vec<Server>,
    /// Every address of every server.
    peers: ArcSwap<Vec<Peer>>,
    secured: ArcSwapOption<Secured>,
    /// From before the first read on: no change is missed. Held by whoever keeps it up to date.
    files: tokio::sync::Mutex<Followed>,
    /// Held while `peers` is built anew.
    rebuilding: Mutex<()>,
    next: AtomicUsize,
    generation: u64,
}

/// An address that was picked for a request.
pub struct Picked {
    /// The place of its server, for [`Upstream::host`].
    pub place: usize,
    /// How to connect.
    pub peer: Box<HttpPeer>,
    /// How it does; none where there is no other to ask.
    pub health: Option<Arc<Health>>,
}

struct Server {
    /// `host:port` as configured.
    text: String,
    header: HeaderValue,
    /// The host alone, as a certificate names it.
    host: String,
    addresses: ArcSwap<Vec<SocketAddr>>,
}

/// Why an upstream cannot be made of its configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A server whose name no header can carry.
    #[error("upstream `{upstream}`: `{server}` is not a `host:port`")]
    Server {
        /// The upstream.
        upstream: String,
        /// The text.
        server: String,
    },
    /// A TLS file cannot be used.
    #[error("upstream `{upstream}`: {cause}")]
    Tls {
        /// The upstream.
        upstream: String,
        /// Why.
        cause: files::Error,
    },
}

/// The wait before a name that did not resolve is asked for again.
const DNS_RETRY: Duration = Duration::from_secs(1);
/// Requests at one time on an HTTP/2 connection to a server.
const STREAMS: usize = 100;
/// Bytes that a server may send ahead on one stream, and on all of a connection.
const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;
/// How often an HTTP/2 connection is looked after, so that a dead one is not used again.
const PING: Duration = Duration::from_secs(30);

impl Upstream {
    /// Addresses among `servers` can be used at once; names once [`Upstream::keep`] runs.
    ///
    /// # Errors
    /// When a server cannot be a `Host`, or a TLS file cannot be used.
    pub fn new(name: &str, servers: &[String], manner: Manner) -> Result<Self, Error> {
        let servers = servers.iter().map(|text| Server::new(name, text, manner.tls.is_some())).collect::<Result<Vec<_>, _>>()?;
        let files = tokio::sync::Mutex::new(Followed::new(manner.tls.as_ref().map(Tls::paths).unwrap_or_default()));
        let secured = manner.tls.as_ref().map(Tls::read).transpose().map_err(|cause| Error::Tls { upstream: name.to_owned(), cause })?;
        let upstream = Self {
            name: name.to_owned(),
            manner,
            servers,
            peers: ArcSwap::default(),
            secured: ArcSwapOption::from_pointee(secured),
            files,
            rebuilding: Mutex::default(),
            next: AtomicUsize::new(0),
            generation: secured::next_generation(),
        };
        upstream.rebuild();
        Ok(upstream)
    }

    /// Bytes of a header section that it takes.
    pub const fn header_bytes(&self) -> usize {
        self.manner.header_bytes
    }

    /// Whether it may be sent compressed header sections.
    pub fn compresses(&self) -> bool {
        self.manner.protocol != Protocol::Http1
    }

    /// When its servers are left alone.
    pub const fn ejection(&self) -> Ejection {
        self.manner.ejection
    }

    /// Its name in the configuration.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The next address; none while no name has resolved. Those that have failed this request come last, those that do badly before them.
    pub fn pick(&self, choice: Choice<'_>) -> Option<Picked> {
        let peers = self.peers.load();
        let only = peers.len() == 1;
        let peer = if only { peers.first()? } else { balance::choose(self.manner.balance, &self.next, &peers, choice)? };
        Some(Picked { place: peer.place, peer: Box::new(peer.address.clone()), health: (!only).then(|| Arc::clone(&peer.health)) })
    }

    /// Whether there is an address that has not failed this request.
    pub fn has_other(&self, tried: &[SocketAddr]) -> bool {
        self.peers.load().iter().any(|peer| !tried.contains(&peer.health.address()))
    }

    /// How many addresses there are to try.
    pub fn addresses(&self) -> usize {
        self.peers.load().len()
    }

    /// The `Host` to send to the server at `place`; none to leave the caller's. A caller of HTTP/1.0 may have none, but the server is spoken to in
    /// HTTP/1.1, which demands one (RFC 9112 section 3.2).
    pub fn host(&self, place: usize, caller_has_one: bool) -> Option<&HeaderValue> {
        match &self.manner.host {
            HostPolicy::Preserve if caller_has_one => None,
            HostPolicy::Preserve | HostPolicy::Server => self.servers.get(place).map(|server| &server.header),
            HostPolicy::Fixed(name) => Some(name),
        }
    }

    /// Asks for each name once, for at most this long: whoever is led to this upstream from now on finds addresses where there are any.
    pub async fn look_up(&self, timeout: Duration) {
        if !self.has_names() {
            return;
        }
        // What does not come in time is asked for again by `keep`.
        let _ = time::timeout(timeout, self.resolve()).await;
    }

    fn has_names(&self) -> bool {
        self.servers.iter().any(|server| server.text.parse::<SocketAddr>().is_err())
    }

    /// Resolves names, follows TLS files and checks health for as long as the process lives.
    pub async fn keep(self: Arc<Self>) {
        tokio::join!(self.keep_resolving(), self.keep_secured(), health_check::keep(Arc::clone(&self)));
    }

    /// Returns at once where there are no names. A name that fails keeps its last addresses.
    async fn keep_resolving(&self) {
        if !self.has_names() {
            return;
        }
        let refresh = self.manner.dns_refresh;
        loop {
            let wait = if self.resolve().await { refresh } else { refresh.min(DNS_RETRY) };
            time::sleep(wait).await;
        }
    }

    /// Returns at once where there is no TLS.
    async fn keep_secured(&self) {
        let Some(tls) = &self.manner.tls else { return };
        let take = || {
            self.secured.store(Some(Arc::new(tls.read()?)));
            self.rebuild();
            Ok(())
        };
        self.files.lock().await.keep(&self.name, take).await;
    }

    /// Asks for each name once; `false` where one failed.
    async fn resolve(&self) -> bool {
        let mut resolved = true;
        for server in &self.servers {
            let found = net::lookup_host(&server.text).await.map(Iterator::collect::<Vec<_>>);
            match found {
                Ok(mut addresses) if !addresses.is_empty() => {
                    addresses.sort_unstable();
                    addresses.dedup();
                    server.addresses.store(Arc::new(addresses));
                }
                Ok(_) => resolved = false,
                Err(error) => {
                    resolved = false;
                    tracing::warn!(upstream = self.name, server = server.text, %error, "name not resolved");
                }
            }
        }
        self.rebuild();
        resolved
    }

    /// Interleaves the servers, so that turns go round servers first, then round each one's addresses. What is known of an address stays.
    fn rebuild(&self) {
        let _rebuilding = self.rebuilding.lock().unwrap_or_else(PoisonError::into_inner);
        let (known, secured) = (self.peers.load_full(), self.secured.load_full());
        let addresses: Vec<_> = self.servers.iter().map(|server| server.addresses.load_full()).collect();
        let most = addresses.iter().map(|list| list.len()).max().unwrap_or(0);
        let mut peers = Vec::new();
        for turn in 0..most {
            for (place, list) in addresses.iter().enumerate() {
                let Some(&address) = list.get(turn) else { continue };
                let health = known.iter().find(|peer| peer.health.address() == address).map(|peer| Arc::clone(&peer.health));
                let health = health.unwrap_or_else(|| Health::new(address));
                peers.push(Peer::new(place, self.peer(address, &self.servers[place].host, secured.as_deref()), health));
            }
        }
        self.peers.store(Arc::new(peers));
    }

    fn peer(&self, address: SocketAddr, host: &str, secured: Option<&Secured>) -> HttpPeer {
        let Manner { timeouts, protocol, tls, .. } = &self.manner;
        // Never without a name in TLS: pingora would not look at the certificate then.
        let sni = tls.as_ref().map(|tls| tls.sni.clone().unwrap_or_else(|| host.to_owned())).unwrap_or_default();
        let mut peer = HttpPeer::new(address, tls.is_some(), sni);
        peer.group_key = self.generation;
        if let (Some(tls), Some(secured)) = (tls, secured) {
            secured.apply(&mut peer, tls.verify);
        }
        peer.options.alpn = match protocol {
            Protocol::Http1 => ALPN::H1,
            Protocol::Http2 => ALPN::H2,
            Protocol::Any => ALPN::H2H1,
        };
        peer.options.max_h2_streams = STREAMS;
        peer.options.h2_stream_window_size = Some(STREAM_WINDOW);
        peer.options.h2_connection_window_size = Some(CONNECTION_WINDOW);
        peer.options.h2_ping_interval = (*protocol != Protocol::Http1).then_some(PING);
        peer.options.connection_timeout = Some(timeouts.connect);
        peer.options.total_connection_timeout = Some(timeouts.connect);
        peer.options.read_timeout = Some(timeouts.read);
        peer.options.write_timeout = Some(timeouts.write);
        peer.options.idle_timeout = Some(timeouts.idle);
        peer
    }
}

impl Server {
    fn new(upstream: &str, text: &str, in_tls: bool) -> Result<Self, Error> {
        let refused = || Error::Server { upstream: upstream.to_owned(), server: text.to_owned() };
        // The scheme's own port goes without saying (RFC 9110 sections 4.2.1 and 4.2.2).
        let default_port = if in_tls { ":443" } else { ":80" };
        let host = text.strip_suffix(default_port).filter(|host| !host.is_empty()).unwrap_or(text);
        let header = HeaderValue::try_from(host).map_err(|_| refused())?;
        let addresses = text.parse::<SocketAddr>().map(|address| vec![address]).unwrap_or_default();
        if addresses.is_empty()
            && text.rsplit_once(':').is_none_or(|(host, port)| host.parse::<IpAddr>().is_ok() || port.parse::<u16>().is_err())
        {
            return Err(refused());
        }
        let host = text.rsplit_once(':').map_or(text, |(host, _)| host).trim_start_matches('[').trim_end_matches(']').trim_end_matches('.');
        Ok(Self { text: text.to_owned(), header, host: host.to_owned(), addresses: ArcSwap::from_pointee(addresses) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_port_of_the_scheme_goes_without_saying_in_host() {
        for (text, plain, in_tls) in [
            ("app.test:80", "app.test", "app.test:80"),
            ("app.test:443", "app.test:443", "app.test"),
            ("app.test:8080", "app.test:8080", "app.test:8080"),
            ("app.test:8443", "app.test:8443", "app.test:8443"),
            ("[::1]:80", "[::1]", "[::1]:80"),
            ("[::1]:443", "[::1]:443", "[::1]"),
            ("127.0.0.1:443", "127.0.0.1:443", "127.0.0.1"),
        ] {
            for (is_in_tls, expected) in [(false, plain), (true, in_tls)] {
                let server = Server::new("u", text, is_in_tls).unwrap();
                assert_eq!(server.header, expected, "{text} {is_in_tls}");
            }
        }
    }
}
