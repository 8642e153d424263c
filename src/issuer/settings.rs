//! What an issuer is told by its operator.

use std::time::Duration;

use crate::config::token_service::Embedded;

/// What the tokens of an [`Issuer`](super::Issuer) have in common.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `iss`.
    pub issuer: String,
    /// `aud`.
    pub audience: String,
    /// How long a JWT lives; at least a second.
    pub lifetime: Duration,
    /// How long a session lives since it was made or last refreshed; at least a second.
    pub session_lifetime: Duration,
    /// How long a signing key that was replaced verifies at most.
    pub key_overlap: Duration,
    /// Tokens a second for one API key over HTTP.
    pub rate_per_key: u32,
}

impl Default for Settings {
    /// What the configuration has where it says nothing.
    fn default() -> Self {
        let bearerd = || "bearerd".to_owned();
        Self {
            issuer: bearerd(),
            audience: bearerd(),
            lifetime: Duration::from_secs(3600),
            session_lifetime: Duration::from_secs(12 * 3600),
            key_overlap: Duration::from_secs(24 * 3600),
            rate_per_key: 100,
        }
    }
}

impl From<&Embedded> for Settings {
    fn from(config: &Embedded) -> Self {
        Self {
            issuer: config.issuer.clone(),
            audience: config.audience.clone(),
            lifetime: config.lifetime,
            session_lifetime: config.session_lifetime,
            key_overlap: config.key_overlap,
            rate_per_key: config.rate_per_key,
        }
    }
}
