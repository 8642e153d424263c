//! Upstreams: where requests go.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::units;

/// One or more servers that serve the same.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Upstream {
    /// `host:port` each; a name is resolved in the background, again every `dns_refresh`.
    #[schemars(length(min = 1), extend("items" = { "type": "string", "format": "host-port" }))]
    pub servers: Vec<String>,
    /// The `Host` that the upstream sees: `preserve` (the caller's), `upstream` (the server as it is written in `servers`), or a name.
    #[serde(default = "preserve")]
    #[schemars(extend("format" = "upstream-host"))]
    pub host: String,
    /// How often names are resolved again.
    #[serde(default = "thirty_seconds", deserialize_with = "units::Duration::deserialize")]
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

fn preserve() -> String {
    "preserve".to_owned()
}

const fn thirty_seconds() -> Duration {
    Duration::from_secs(30)
}

/// The pool of kept-alive connections.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
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
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Timeouts {
    /// To connect.
    #[serde(deserialize_with = "units::Duration::deserialize")]
    #[schemars(with = "units::Duration")]
    pub connect: Duration,
    /// Between two reads of the answer.
    #[serde(deserialize_with = "units::Duration::deserialize")]
    #[schemars(with = "units::Duration")]
    pub read: Duration,
    /// For each write of the request.
    #[serde(deserialize_with = "units::Duration::deserialize")]
    #[schemars(with = "units::Duration")]
    pub write: Duration,
    /// For a kept-alive connection without a request.
    #[serde(deserialize_with = "units::Duration::deserialize")]
    #[schemars(with = "units::Duration")]
    pub idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let minute = Duration::from_secs(60);
        Self { connect: Duration::from_secs(1), read: minute, write: minute, idle: minute }
    }
}
