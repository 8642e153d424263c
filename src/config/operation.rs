//! How bearerd runs and ends: shutdown, logging, workers.

use std::num::NonZeroUsize;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::units;

/// How bearerd ends after SIGTERM.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Shutdown {
    /// Go on accepting for this long, not ready: endpoints take time to leave.
    #[serde(with = "units::Duration")]
    #[schemars(with = "units::Duration")]
    pub delay: Duration,
    /// Then wait at most this long for what is in flight.
    #[serde(with = "units::Duration")]
    #[schemars(with = "units::Duration")]
    pub drain_timeout: Duration,
    /// Then revoke all tokens.
    pub revoke: bool,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self { delay: Duration::from_secs(5), drain_timeout: Duration::from_secs(20), revoke: false }
    }
}

/// What is logged.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Logging {
    /// The least level that is logged.
    pub level: Level,
    /// Text or JSON.
    pub format: Format,
    /// One line a request.
    pub access: bool,
    /// The share of those lines that is written; requests that are refused or fail always leave theirs.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub sample: f64,
}

/// Traces of requests, sent to an OpenTelemetry collector.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Tracing {
    /// Where a collector takes OTLP over gRPC, as `http://127.0.0.1:4317`. Without it nothing is traced, and callers' trace headers go on as they came.
    #[schemars(with = "Option<String>", extend("format" = "http-url"))]
    pub otlp_endpoint: Option<String>,
    /// The share of requests that is traced; a caller who sends a `traceparent` decides for its own.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub sample: f64,
}

impl Default for Tracing {
    fn default() -> Self {
        Self { otlp_endpoint: None, sample: 0.01 }
    }
}

impl Level {
    /// As the log takes it.
    pub const fn of_log(self) -> tracing::Level {
        match self {
            Self::Error => tracing::Level::ERROR,
            Self::Warn => tracing::Level::WARN,
            Self::Info => tracing::Level::INFO,
            Self::Debug => tracing::Level::DEBUG,
            Self::Trace => tracing::Level::TRACE,
        }
    }
}

impl Default for Logging {
    fn default() -> Self {
        Self { level: Level::Info, format: Format::Auto, access: true, sample: 1.0 }
    }
}

/// A log level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Something failed that an operator must see.
    Error,
    /// Something is off.
    Warn,
    /// What happens.
    Info,
    /// How it happens.
    Debug,
    /// Everything but secrets.
    Trace,
}

/// The form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// Text.
    Text,
    /// One JSON object a line.
    Json,
}

/// Threads of the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Workers {
    /// As many as there are processors for this process.
    Named(Auto),
    /// This many.
    Fixed(#[schemars(range(min = 1, max = 1024))] NonZeroUsize),
}

/// The word `auto`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Auto {
    /// As many as there are processors.
    Auto,
}

impl Default for Workers {
    fn default() -> Self {
        Self::Named(Auto::Auto)
    }
}

impl Workers {
    /// The number of threads.
    pub fn count(self) -> usize {
        match self {
            Self::Fixed(count) => count.get(),
            Self::Named(Auto::Auto) => std::thread::available_parallelism().map_or(1, NonZeroUsize::get),
        }
    }
}
