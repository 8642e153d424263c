//! Where bearerd listens: for callers, for the operator, for Prometheus.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::units::{self, Bytes};

/// A listener for callers.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Listener {
    /// `host:port` with a numeric host; port 0 lets the system choose.
    #[schemars(with = "String", extend("format" = "socket-address"))]
    pub address: SocketAddr,
    /// Whether requests go on from here, or are only decided on for another proxy.
    pub mode: Mode,
    /// Takes HTTP/2 without TLS, and nothing else.
    pub h2c: bool,
    /// TLS towards callers, who may choose HTTP/2 in it. Its files are read again when they change.
    pub tls: Option<Tls>,
    /// Peers (addresses or CIDR networks) whose word on who called and for what counts. Default: none; with `mode: decision`, loopback.
    #[schemars(with = "Option<Vec<String>>", extend("items" = { "type": "string", "format": "network" }))]
    #[serde(deserialize_with = "networks", serialize_with = "network_texts")]
    pub trusted_peers: Option<Vec<IpNet>>,
    /// The statuses that decisions have.
    pub decision_status: DecisionStatus,
    /// Where a proxy that asks for a decision says what it was itself asked for.
    pub decision_request: DecisionRequest,
    /// What a caller may take.
    pub limits: Limits,
}

impl Default for Listener {
    fn default() -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], 8080)),
            mode: Mode::default(),
            h2c: false,
            tls: None,
            trusted_peers: None,
            decision_status: DecisionStatus::default(),
            decision_request: DecisionRequest::default(),
            limits: Limits::default(),
        }
    }
}

impl Listener {
    /// Whose word counts here: what is configured, or the default of the mode.
    pub fn trusted(&self) -> Vec<IpNet> {
        match (&self.trusted_peers, self.mode) {
            (Some(written), _) => written.clone(),
            (None, Mode::Proxy) => Vec::new(),
            (None, Mode::Decision) => [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)].map(IpNet::from).to_vec(),
        }
    }
}

/// What a listener does with requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// They go on to their route's upstream.
    #[default]
    Proxy,
    /// A proxy that is already there asks whether one may go on: nginx `auth_request`, Envoy `ext_authz` over HTTP, Traefik and Caddy forward auth.
    Decision,
}

/// The statuses that decisions have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DecisionStatus {
    /// Those that callers of the proxy itself get.
    #[default]
    Exact,
    /// Only those that nginx passes on: 400 becomes 401, other refusals 403, and so do other statuses of `respond`; outages stay 5xx.
    /// `X-Bearerd-Reason` says what a refusal was.
    Nginx,
}

/// Where a proxy that asks for a decision says what it was itself asked for. Only what trusted peers say counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DecisionRequest {
    /// In whichever of the others is there; where two are and differ, the request is refused.
    #[default]
    Auto,
    /// In `X-Original-URI` or `X-Original-URL`, with `X-Original-Method` and `X-Original-Host`: nginx, as it is usually set up.
    XOriginal,
    /// In `X-Forwarded-Uri`, `X-Forwarded-Method` and `X-Forwarded-Host`: Traefik and Caddy.
    XForwarded,
    /// In its own request line and `Host`: Envoy.
    Target,
}

/// Reads an address or a CIDR network; a bare address is the network of it alone.
///
/// # Errors
/// When it is neither.
pub fn parse_network(text: &str) -> Result<IpNet, String> {
    text.parse::<IpNet>()
        .or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from))
        .map_err(|_| format!("`{text}` is not a network: write an address or a CIDR range, as `10.0.0.7` or `10.0.0.0/8`"))
}

fn networks<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<IpNet>>, D::Error> {
    let Some(texts) = Option::<Vec<String>>::deserialize(deserializer)? else { return Ok(None) };
    texts.iter().map(|text| parse_network(text).map_err(serde::de::Error::custom)).collect::<Result<_, _>>().map(Some)
}

fn network_texts<S: serde::Serializer>(networks: &Option<Vec<IpNet>>, serializer: S) -> Result<S::Ok, S::Error> {
    let texts = networks.as_ref().map(|networks| networks.iter().map(IpNet::to_string).collect::<Vec<_>>());
    texts.serialize(serializer)
}

/// TLS towards callers: 1.2 and 1.3.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// Certificates, found by the name that the caller asks for (SNI); the first serves all other names.
    #[schemars(length(min = 1))]
    pub certificates: Vec<CertificatePair>,
    /// PEM file of the authorities whose certificates callers may show.
    #[serde(default)]
    #[schemars(with = "Option<String>", extend("format" = "path"))]
    pub client_ca: Option<PathBuf>,
    /// Whether callers must show one; counts where `client_ca` is set.
    #[serde(default)]
    pub client_certificates: ClientCertificates,
}

/// A certificate and its key.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CertificatePair {
    /// PEM file of the certificate, followed by its chain.
    #[schemars(with = "String", extend("format" = "path"))]
    pub certificate: PathBuf,
    /// PEM file of its key.
    #[schemars(with = "String", extend("format" = "path"))]
    pub private_key: PathBuf,
}

/// Whether callers must show a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClientCertificates {
    /// Without one there is no connection.
    #[default]
    Required,
    /// Routes say who needs one: `require.client_certificate`.
    Optional,
}

/// Bounds on what a caller may send and hold open.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Bytes of a request's header section.
    pub header_bytes: Bytes,
    /// Header lines of a request.
    #[schemars(range(min = 1, max = 256))]
    pub headers: usize,
    /// Time for a TLS handshake, and for a whole header section to arrive; on HTTP/2, one that does not end is bounded by `idle_timeout`.
    #[serde(with = "units::Duration")]
    #[schemars(with = "units::Duration")]
    pub header_timeout: Duration,
    /// Time, in whole seconds, that a kept-alive connection may stay idle, that a caller may need for the next piece of an answer (64 KiB at most), and
    /// over HTTP/1.1 that it may send nothing of a body. A connection whose caller takes nothing at all ends after twice that at most.
    /// Over HTTP/2, where both sides of a stream may be quiet, `upstreams.*.timeouts.read` bounds the wait for an answer to such a body.
    #[serde(with = "units::Duration")]
    #[schemars(with = "units::Duration")]
    pub idle_timeout: Duration,
    /// Connections at one time; 0 is no limit.
    pub connections: usize,
    /// Connections at one time from one address; 0 is no limit.
    pub connections_per_peer: usize,
    /// Requests at one time on an HTTP/2 connection.
    #[schemars(range(min = 1, max = 10_000))]
    pub streams: u32,
    /// Bytes of answers that an HTTP/2 connection may hold which its caller has not taken. Each answer may hold 600 KiB; requests beyond wait, until the
    /// caller takes some or `idle_timeout` ends one.
    pub unread_bytes: Bytes,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_bytes: Bytes(64 * 1024),
            headers: 100,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            connections: 10_000,
            connections_per_peer: 0,
            streams: 100,
            unread_bytes: Bytes(8 * 1024 * 1024),
        }
    }
}

/// The listener that changes state; without a token only on loopback.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Admin {
    /// `host:port`.
    #[schemars(with = "String", extend("format" = "socket-address"))]
    pub address: SocketAddr,
    /// A file with the token that admin calls must bring.
    #[schemars(with = "Option<String>", extend("format" = "path"))]
    pub token_file: Option<PathBuf>,
}

impl Default for Admin {
    fn default() -> Self {
        Self { address: SocketAddr::from(([127, 0, 0, 1], 9901)), token_file: None }
    }
}

/// The listener for `/metrics`, `/livez`, `/readyz` and `/startupz`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Metrics {
    /// `host:port`.
    #[schemars(with = "String", extend("format" = "socket-address"))]
    pub address: SocketAddr,
}

impl Default for Metrics {
    fn default() -> Self {
        Self { address: SocketAddr::from(([127, 0, 0, 1], 9902)) }
    }
}
