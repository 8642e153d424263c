//! The webhook's own families. Never a namespace or a pod as a label.

use prometheus::{Histogram, HistogramOpts, IntCounterVec, Opts, Registry};

/// A family of such a name exists already.
#[derive(Debug, thiserror::Error)]
#[error("the metrics of the webhook cannot be registered: {0}")]
pub struct Error(#[from] prometheus::Error);

/// Bounds of the histogram in seconds: Kubernetes waits 5 s (`timeoutSeconds`).
const BUCKETS: [f64; 10] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0];

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The object gets the sidecar.
    Injected,
    /// It asks for none, or has it.
    Skipped,
    /// It has mistakes, and is not admitted.
    Refused,
    /// It was no review, or too large, or too slow.
    Error,
}

impl Outcome {
    const ALL: [Self; 4] = [Self::Injected, Self::Skipped, Self::Refused, Self::Error];

    const fn word(self) -> &'static str {
        match self {
            Self::Injected => "injected",
            Self::Skipped => "skipped",
            Self::Refused => "refused",
            Self::Error => "error",
        }
    }
}

/// The families.
#[derive(Clone)]
pub struct Metrics {
    requests: IntCounterVec,
    duration: Histogram,
}

impl Metrics {
    /// Registers them, each outcome with its series, so that the first one of a kind is a rise.
    ///
    /// # Errors
    /// When they are there already.
    pub fn register(registry: &Registry) -> Result<Self, Error> {
        let options = |name: &str, help: &str| Opts::new(name, help).namespace("bearerd").subsystem("webhook");
        let requests = IntCounterVec::new(
            options("requests_total", "Requests to the admission webhook, by outcome: injected, skipped, refused, error."),
            &["outcome"],
        )?;
        let common_opts = options("request_duration_seconds", "Seconds from a request's header to its answer, at the admission webhook.");
        let duration = Histogram::with_opts(HistogramOpts { common_opts, buckets: BUCKETS.to_vec() })?;
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(duration.clone()))?;
        for outcome in Outcome::ALL {
            requests.with_label_values(&[outcome.word()]);
        }
        Ok(Self { requests, duration })
    }

    /// Counts a request.
    pub fn answered(&self, outcome: Outcome, seconds: f64) {
        self.requests.with_label_values(&[outcome.word()]).inc();
        self.duration.observe(seconds);
    }
}
