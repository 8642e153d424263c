//! The embedded token service's own families. Never a key's name as a label.

use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry};

/// A family of such a name exists already.
#[derive(Debug, thiserror::Error)]
#[error("the metrics of the embedded token service cannot be registered: {0}")]
pub struct Error(#[from] prometheus::Error);

/// The families of all embedded token services of a process.
#[derive(Clone)]
pub struct Families {
    requests: IntCounterVec,
    tokens: IntCounterVec,
    reloads: IntCounterVec,
    held: IntGaugeVec,
}

impl Families {
    /// Registers them.
    ///
    /// # Errors
    /// When they are there already.
    pub fn new(registry: &Registry) -> Result<Self, Error> {
        let options = |name: &str, help: &str| Opts::new(name, help).namespace("bearerd").subsystem("issuer");
        let families = Self {
            requests: IntCounterVec::new(
                options("requests_total", "Requests to an embedded token service, by operation and outcome."),
                &["service", "operation", "outcome"],
            )?,
            tokens: IntCounterVec::new(
                options("tokens_total", "Tokens that an embedded token service made, by kind."),
                &["service", "kind"],
            )?,
            reloads: IntCounterVec::new(
                options("reloads_total", "Changes of an embedded token service's files, by file and outcome."),
                &["service", "file", "outcome"],
            )?,
            held: IntGaugeVec::new(
                options("held", "What an embedded token service holds: API keys, sessions, signing keys that verify."),
                &["service", "what"],
            )?,
        };
        for family in [&families.requests, &families.tokens, &families.reloads] {
            registry.register(Box::new(family.clone()))?;
        }
        registry.register(Box::new(families.held.clone()))?;
        Ok(families)
    }

    /// The series of one service.
    pub fn of(&self, service: &str) -> Metrics {
        Metrics { service: service.to_owned(), families: self.clone() }
    }
}

/// The series of one embedded token service.
pub struct Metrics {
    service: String,
    families: Families,
}

impl Metrics {
    /// Counts a request.
    pub fn request(&self, operation: &str, outcome: &str) {
        self.families.requests.with_label_values(&[&self.service, operation, outcome]).inc();
    }

    /// Counts a token.
    pub fn issued(&self, kind: &str) {
        self.families.tokens.with_label_values(&[&self.service, kind]).inc();
    }

    /// Counts a change of a file.
    pub fn reload(&self, file: &str, outcome: &str) {
        self.families.reloads.with_label_values(&[&self.service, file, outcome]).inc();
    }

    /// Tells how many there are of something.
    pub fn held(&self, what: &str, count: usize) {
        self.families.held.with_label_values(&[&self.service, what]).set(i64::try_from(count).unwrap_or(i64::MAX));
    }
}
