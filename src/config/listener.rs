//! Where bearerd listens: for callers, for the operator, for Prometheus.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::Deserialize;

use super::units::{self, Bytes};

/// A listener for callers.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Listener {
    /// `host:port` with a numeric host; port 0 lets the system choose.
    #[schemars(with = "String", extend("format" = "socket-address"))]
    pub address: SocketAddr,
    /// Peers (addresses or CIDR networks) whose `X-Forwarded-*` headers are kept. Default: none.
    #[schemars(with = "Vec<String>", extend("items" = { "type": "string", "format": "network" }))]
    #[serde(deserialize_with = "networks")]
    pub trusted_peers: Vec<IpNet>,
    /// What a caller may take.
    pub limits: Limits,
}

impl Default for Listener {
    fn default() -> Self {
        Self { address: SocketAddr::from(([127, 0, 0, 1], 8080)), trusted_peers: Vec::new(), limits: Limits::default() }
    }
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

fn networks<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    Vec::<String>::deserialize(deserializer)?.iter().map(|text| parse_network(text).map_err(serde::de::Error::custom)).collect()
}

/// Bounds on what a caller may send and hold open.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Bytes of a request's header section.
    pub header_bytes: Bytes,
    /// Header lines of a request.
    #[schemars(range(min = 1, max = 256))]
    pub headers: usize,
    /// Time for a whole header section to arrive.
    #[serde(deserialize_with = "units::Duration::deserialize")]
    #[schemars(with = "units::Duration")]
    pub header_timeout: Duration,
    /// Time that a kept-alive connection may stay idle, in whole seconds, and that a caller may take nothing of an answer.
    #[serde(deserialize_with = "units::Duration::deserialize")]
    #[schemars(with = "units::Duration")]
    pub idle_timeout: Duration,
    /// Connections at one time; 0 is no limit.
    pub connections: usize,
    /// Connections at one time from one address; 0 is no limit.
    pub connections_per_peer: usize,
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
        }
    }
}

/// The listener that changes state; without a token only on loopback.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
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
#[derive(Clone, Debug, Deserialize, JsonSchema)]
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
