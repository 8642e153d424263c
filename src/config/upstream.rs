//! Upstreams: where requests go.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::units;

/// One or more servers that serve the same.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Upstream {
    /// `host:port` each; a name is resolved in the background, again every `dns_refresh`.
    #[schemars(length(min = 1), extend("items" = { "type": "string", "format": "host-port" }))]
    pub servers: Vec<String>,
    /// The `Host` that the upstream sees: `preserve` (the caller's), `upstream` (the server as it is written in `servers`), or a name. Default:
    /// `preserve`; with `tls`, `upstream`.
    #[serde(default)]
    #[schemars(extend("format" = "upstream-host"))]
    pub host: Option<String>,
    /// TLS towards it.
    #[serde(default)]
    pub tls: Option<UpstreamTls>,
    /// What it speaks.
    #[serde(default)]
    pub protocol: Protocol,
    /// Which of its servers is asked.
    #[serde(default)]
    pub balance: Balance,
    /// Asks each server again and again; off without it.
    #[serde(default)]
    pub health_check: Option<HealthCheck>,
    /// When a server is left alone because requests to it fail.
    #[serde(default)]
    pub ejection: Ejection,
    /// How often names are resolved again.
    #[serde(default = "thirty_seconds", with = "units::Duration")]
    #[schemars(with = "units::Duration")]
    pub dns_refresh: Duration,
    /// Kept-alive connections.
    #[serde(default)]
    pub pool: Pool,
    /// Bounds on time.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// What it takes in a header section. What would be longer is refused before it is sent.
    #[serde(default = "thirty_two_kib")]
    pub header_bytes: units::Bytes,
}

const fn thirty_two_kib() -> units::Bytes {
    units::Bytes(32 * 1024)
}

impl Upstream {
    /// What `host` says, or stands for where it says nothing.
    pub fn host(&self) -> &str {
        let default = if self.tls.is_some() { "upstream" } else { "preserve" };
        self.host.as_deref().unwrap_or(default)
    }
}

/// TLS towards an upstream. Its files are read again when they change.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct UpstreamTls {
    /// The name that is asked for and must be in the certificate; by default the server's host as it is written in `servers`.
    pub sni: Option<String>,
    /// PEM file of the authorities to trust in place of the system's.
    #[schemars(with = "Option<String>", extend("format" = "path"))]
    pub ca: Option<PathBuf>,
    /// PEM file of the client certificate, with its chain.
    #[schemars(with = "Option<String>", extend("format" = "path"))]
    pub certificate: Option<PathBuf>,
    /// PEM file of the client certificate's key.
    #[schemars(with = "Option<String>", extend("format" = "path"))]
    pub private_key: Option<PathBuf>,
    /// `false` takes any certificate: whoever sits between can read and change everything.
    pub verify: bool,
}

impl Default for UpstreamTls {
    fn default() -> Self {
        Self { sni: None, ca: None, certificate: None, private_key: None, verify: true }
    }
}

/// What an upstream speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2 in TLS.
    Http2,
    /// HTTP/2 without TLS.
    H2c,
    /// HTTP/2 or HTTP/1.1, as the server chooses in TLS.
    Auto,
}

/// Which of several servers is asked. Those that fail are passed over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Balance {
    /// Each in its turn.
    #[default]
    RoundRobin,
    /// Any.
    Random,
    /// The same one for each credential, or each peer where there is none; few change their server when one comes or goes.
    Consistent,
}

/// A request that is sent to each server again and again. 2xx and 3xx are good.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HealthCheck {
    /// What is asked for, with GET.
    #[schemars(extend("format" = "absolute-path"))]
    pub path: String,
    /// The time between two requests to a server.
    #[serde(default = "five_seconds", with = "units::Duration")]
    #[schemars(with = "units::Duration")]
    pub interval: Duration,
    /// Time for the whole answer.
    #[serde(default = "one_second", with = "units::Duration")]
    #[schemars(with = "units::Duration")]
    pub timeout: Duration,
    /// Bad answers in a row after which a server is passed over. One good answer brings it back.
    #[serde(default = "two")]
    #[schemars(range(min = 1))]
    pub failures: u32,
}

const fn five_seconds() -> Duration {
    Duration::from_secs(5)
}

const fn one_second() -> Duration {
    Duration::from_secs(1)
}

const fn two() -> u32 {
    2
}

/// When a server is left alone: requests that it did not take, or did not begin to answer, count.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Ejection {
    /// Failures in a row; 0 never leaves it alone.
    pub failures: u32,
    /// For how long.
    #[serde(rename = "for", with = "units::Duration")]
    #[schemars(with = "units::Duration")]
    pub period: Duration,
}

impl Default for Ejection {
    fn default() -> Self {
        Self { failures: 5, period: Duration::from_secs(10) }
    }
}

const fn thirty_seconds() -> Duration {
    Duration::from_secs(30)
}

/// The pool of kept-alive connections.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Pool {
    /// Idle connections kept, over all servers of all upstreams the largest such figure counts.
    pub idle: usize,
}

impl Default for Pool {
    fn default() -> Self {
        Self { idle: 128 }
    }
}

/// Time-outs of each phase towards an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Timeouts {
    /// To connect.
    #[serde(with = "units::Duration")]
    #[schemars(with = "units::Duration")]
    pub connect: Duration,
    /// Between two reads of the answer.
    #[serde(with = "units::Duration")]
    #[schemars(with = "units::Duration")]
    pub read: Duration,
    /// For each write of the request.
    #[serde(with = "units::Duration")]
    #[schemars(with = "units::Duration")]
    pub write: Duration,
    /// For a kept-alive connection without a request.
    #[serde(with = "units::Duration")]
    #[schemars(with = "units::Duration")]
    pub idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let minute = Duration::from_secs(60);
        Self { connect: Duration::from_secs(1), read: minute, write: minute, idle: minute }
    }
}
