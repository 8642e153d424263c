//! Token services: who is asked for tokens, and how hard.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::units;

/// A token service, by kind.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum TokenService {
    /// The IAP token API over HTTP(S).
    Iap(Iap),
    /// bearerd's own token service, in this process.
    Embedded(Embedded),
}

impl TokenService {
    /// The bounds on mints.
    pub const fn mint(&self) -> Mint {
        match self {
            Self::Iap(service) => service.mint,
            Self::Embedded(service) => service.mint,
        }
    }

    /// When it is left alone because it fails.
    pub const fn breaker(&self) -> Breaker {
        match self {
            Self::Iap(service) => service.breaker,
            Self::Embedded(service) => service.breaker,
        }
    }

    /// How far the service's clock may be ahead of ours: a token counts as valid from `nbf - skew`.
    pub const fn skew(&self) -> Duration {
        match self {
            Self::Iap(service) => service.skew,
            Self::Embedded(_) => Duration::ZERO,
        }
    }
}

/// The IAP token API (`/v1/tokens`).
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Iap {
    /// Where it is: `https://host`, a port and a path prefix if need be.
    #[schemars(extend("format" = "http-url"))]
    pub url: String,
    /// Time for a whole call.
    #[serde(default = "five_seconds", with = "units::Duration")]
    #[schemars(with = "units::Duration")]
    pub timeout: Duration,
    /// Time to connect, TLS included.
    #[serde(default = "two_seconds", with = "units::Duration")]
    #[schemars(with = "units::Duration")]
    pub connect_timeout: Duration,
    /// How far its clock may be ahead of ours.
    #[serde(default, with = "units::Duration")]
    #[schemars(with = "units::Duration")]
    pub skew: Duration,
    /// Private CA and client certificate.
    #[serde(default)]
    pub tls: ClientTls,
    /// Bounds on calls to `create_token`.
    #[serde(default)]
    pub mint: Mint,
    /// When it is left alone because it fails.
    #[serde(default)]
    pub breaker: Breaker,
}

const fn five_seconds() -> Duration {
    Duration::from_secs(5)
}

const fn two_seconds() -> Duration {
    Duration::from_secs(2)
}

/// TLS towards a server that bearerd calls.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ClientTls {
    /// PEM file of the authorities to trust in place of the system's.
    #[schemars(with = "Option<String>", extend("format" = "path"))]
    pub ca: Option<PathBuf>,
    /// PEM file of the client certificate, with its chain.
    #[schemars(with = "Option<String>", extend("format" = "path"))]
    pub certificate: Option<PathBuf>,
    /// PEM file of the client certificate's key.
    #[schemars(with = "Option<String>", extend("format" = "path"))]
    pub private_key: Option<PathBuf>,
}

/// Bounds on calls to `create_token` of one service.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Mint {
    /// Calls at one time.
    #[schemars(range(min = 1))]
    pub concurrency: usize,
    /// Calls a second.
    #[schemars(range(min = 1))]
    pub rate: u32,
    /// Mints that may wait for their turn.
    pub queue: usize,
    /// Time that a request waits for a token.
    #[serde(with = "units::Duration")]
    #[schemars(with = "units::Duration")]
    pub wait: Duration,
}

impl Default for Mint {
    fn default() -> Self {
        Self { concurrency: 32, rate: 500, queue: 10_000, wait: Duration::from_secs(10) }
    }
}

/// When a token service is left alone because it fails: connect errors, time-outs, 5xx and garbage count, a definite no does not.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Breaker {
    /// Consecutive failures after which only probes are sent, until one succeeds.
    #[schemars(range(min = 1))]
    pub failures: u32,
    /// The time between two probes.
    #[serde(with = "units::Duration")]
    #[schemars(with = "units::Duration")]
    pub probe_interval: Duration,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { failures: 5, probe_interval: Duration::from_secs(1) }
    }
}

/// bearerd's own token service.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Embedded {
    /// Where it is served over HTTP too, for SDKs and for its key set; not at all by default. `bearerd token-service` uses 127.0.0.1:8090 then.
    #[serde(default)]
    #[schemars(with = "Option<String>", extend("format" = "socket-address"))]
    pub address: Option<SocketAddr>,
    /// YAML file of hashed API keys, made by `bearerd keys new`.
    #[schemars(with = "String", extend("format" = "path"))]
    pub keys_file: PathBuf,
    /// PEM file of the signing key; made, with mode 0600, where it does not exist. Another key takes over when the file changes.
    #[schemars(with = "String", extend("format" = "new-path"))]
    pub signing_key_file: PathBuf,
    /// What the signing key is for.
    #[serde(default)]
    pub algorithm: SigningAlgorithm,
    /// How long a signing key that was replaced verifies at most: it does for as long as its tokens live. 0s ends them at once, for a key that leaked.
    #[serde(default = "one_day", with = "units::Duration")]
    #[schemars(with = "units::Duration")]
    pub key_overlap: Duration,
    /// File that keeps sessions, revocations and signing keys that were replaced across restarts; without it they end with the process.
    #[serde(default)]
    #[schemars(with = "Option<String>", extend("format" = "new-path"))]
    pub state_file: Option<PathBuf>,
    /// Tokens a second for one API key over HTTP; twice as many may come at once.
    #[serde(default = "hundred")]
    #[schemars(range(min = 1))]
    pub rate_per_key: u32,
    /// How long a JWT lives.
    #[serde(default = "one_hour", with = "units::Duration")]
    #[schemars(with = "units::Duration")]
    pub lifetime: Duration,
    /// How long a psToken's session lives without a refresh.
    #[serde(default = "twelve_hours", with = "units::Duration")]
    #[schemars(with = "units::Duration")]
    pub session_lifetime: Duration,
    /// `iss` of the tokens.
    #[serde(default = "bearerd")]
    pub issuer: String,
    /// `aud` of the tokens.
    #[serde(default = "bearerd")]
    pub audience: String,
    /// Bounds on mints.
    #[serde(default)]
    pub mint: Mint,
    /// When it is left alone because it fails.
    #[serde(default)]
    pub breaker: Breaker,
}

/// How the embedded token service signs (RFC 7518 section 3.1, RFC 8037).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[allow(missing_docs, reason = "the names are the standard's")]
pub enum SigningAlgorithm {
    #[default]
    ES256,
    EdDSA,
    RS256,
}

const fn one_day() -> Duration {
    Duration::from_secs(24 * 3600)
}

const fn hundred() -> u32 {
    100
}

const fn one_hour() -> Duration {
    Duration::from_secs(3600)
}

const fn twelve_hours() -> Duration {
    Duration::from_secs(12 * 3600)
}

fn bearerd() -> String {
    "bearerd".to_owned()
}
