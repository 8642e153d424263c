//! Upstreams: their servers' addresses, resolved in the background, and the next one to ask.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::HeaderValue;
use pingora::proxy::Session;
use pingora::upstreams::peer::HttpPeer;
use tokio::{net, time};

/// Attempts at upstreams for one request: room for a connect failure and a replay.
pub const MAX_ATTEMPTS: usize = 3;

/// Whether a request that was sent in `tries` attempts can be sent once more: by its method (RFC 9110 section 9.2.2), and by what is left of its
/// body. The same as pingora's own policy, which has the last word.
pub(super) fn may_replay(session: &Session, tries: usize) -> bool {
    tries < MAX_ATTEMPTS && session.req_header().method.is_idempotent() && !session.as_ref().retry_buffer_truncated()
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

/// One or more servers that serve the same.
pub struct Upstream {
    name: String,
    host: HostPolicy,
    timeouts: Timeouts,
    servers: Vec<Server>,
    /// Every address of every server, with its place in `servers`.
    peers: ArcSwap<Vec<(usize, HttpPeer)>>,
    next: AtomicUsize,
    dns_refresh: Duration,
    header_bytes: usize,
}

struct Server {
    /// `host:port` as configured.
    text: String,
    header: HeaderValue,
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
}

/// The wait before a name that did not resolve is asked for again.
const DNS_RETRY: Duration = Duration::from_secs(1);

impl Upstream {
    /// Addresses among `servers` can be used at once; names once [`Upstream::keep_resolving`] runs.
    ///
    /// # Errors
    /// When a server cannot be a `Host`.
    pub fn new(
        name: &str,
        servers: &[String],
        host: HostPolicy,
        timeouts: Timeouts,
        dns_refresh: Duration,
        header_bytes: usize,
    ) -> Result<Self, Error> {
        let servers = servers.iter().map(|text| Server::new(name, text)).collect::<Result<Vec<_>, _>>()?;
        let upstream = Self {
            name: name.to_owned(),
            host,
            timeouts,
            servers,
            peers: ArcSwap::default(),
            next: AtomicUsize::new(0),
            dns_refresh,
            header_bytes,
        };
        upstream.rebuild();
        Ok(upstream)
    }

    /// Bytes of a header section that it takes.
    pub const fn header_bytes(&self) -> usize {
        self.header_bytes
    }

    /// Its name in the configuration.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The next address in turn and the place of its server; none while no name has resolved.
    pub fn pick(&self) -> Option<(usize, Box<HttpPeer>)> {
        let peers = self.peers.load();
        let turn = if peers.len() > 1 { self.next.fetch_add(1, Ordering::Relaxed) } else { 0 };
        let (server, peer) = peers.get(turn % peers.len().max(1))?;
        Some((*server, Box::new(peer.clone())))
    }

    /// How many addresses there are to try.
    pub fn addresses(&self) -> usize {
        self.peers.load().len()
    }

    /// The `Host` to send to the server at `place`; none to leave the caller's. A caller of HTTP/1.0 may have none, but the server is spoken to in
    /// HTTP/1.1, which demands one (RFC 9112 section 3.2).
    pub fn host(&self, place: usize, caller_has_one: bool) -> Option<&HeaderValue> {
        match &self.host {
            HostPolicy::Preserve if caller_has_one => None,
            HostPolicy::Preserve | HostPolicy::Server => self.servers.get(place).map(|server| &server.header),
            HostPolicy::Fixed(name) => Some(name),
        }
    }

    /// Resolves names for as long as the process lives; returns at once where there are none. A name that fails keeps its last addresses.
    pub async fn keep_resolving(self: Arc<Self>) {
        if self.servers.iter().all(|server| server.text.parse::<SocketAddr>().is_ok()) {
            return;
        }
        loop {
            let wait = if self.resolve().await { self.dns_refresh } else { self.dns_refresh.min(DNS_RETRY) };
            time::sleep(wait).await;
        }
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

    /// Interleaves the servers, so that turns go round servers first, then round each one's addresses.
    fn rebuild(&self) {
        let addresses: Vec<_> = self.servers.iter().map(|server| server.addresses.load_full()).collect();
        let most = addresses.iter().map(|list| list.len()).max().unwrap_or(0);
        let mut peers = Vec::new();
        for turn in 0..most {
            for (place, list) in addresses.iter().enumerate() {
                if let Some(address) = list.get(turn) {
                    peers.push((place, self.peer(*address)));
                }
            }
        }
        self.peers.store(Arc::new(peers));
    }

    fn peer(&self, address: SocketAddr) -> HttpPeer {
        let mut peer = HttpPeer::new(address, false, String::new());
        peer.options.connection_timeout = Some(self.timeouts.connect);
        peer.options.total_connection_timeout = Some(self.timeouts.connect);
        peer.options.read_timeout = Some(self.timeouts.read);
        peer.options.write_timeout = Some(self.timeouts.write);
        peer.options.idle_timeout = Some(self.timeouts.idle);
        peer
    }
}

impl Server {
    fn new(upstream: &str, text: &str) -> Result<Self, Error> {
        let refused = || Error::Server { upstream: upstream.to_owned(), server: text.to_owned() };
        // The default port goes without saying (RFC 9110 section 4.2.1).
        let host = text.strip_suffix(":80").filter(|host| !host.is_empty()).unwrap_or(text);
        let header = HeaderValue::try_from(host).map_err(|_| refused())?;
        let addresses = text.parse::<SocketAddr>().map(|address| vec![address]).unwrap_or_default();
        if addresses.is_empty()
            && text.rsplit_once(':').is_none_or(|(host, port)| host.parse::<IpAddr>().is_ok() || port.parse::<u16>().is_err())
        {
            return Err(refused());
        }
        Ok(Self { text: text.to_owned(), header, addresses: ArcSwap::from_pointee(addresses) })
    }
}
