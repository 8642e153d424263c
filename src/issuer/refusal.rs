//! Why the embedded token service does not do what it was asked, by what the caller can do about it.

use std::time::Duration;

use super::grants::NotGranted;
use crate::token_service::request::Malformed;

/// A refusal. No variant holds a secret: the text goes to the caller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// 400: mend the request.
    #[error("{0}")]
    Invalid(String),
    /// 401: bring another credential. Unknown, expired and revoked look alike.
    #[error("the credential is not valid")]
    Denied,
    /// 403: ask for less, or with another key.
    #[error(transparent)]
    NotGranted(#[from] NotGranted),
    /// 429: come less often; try again after this.
    #[error("this key asks for tokens too often")]
    TooMany(Duration),
    /// 503: try again later.
    #[error("{0}")]
    Unavailable(&'static str),
}

impl Refusal {
    /// The word that the metrics use for it.
    pub const fn outcome(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "rejected",
            Self::Denied => "denied",
            Self::NotGranted(_) => "forbidden",
            Self::TooMany(_) => "rate_limited",
            Self::Unavailable(_) => "unavailable",
        }
    }
}

impl From<Malformed> for Refusal {
    fn from(malformed: Malformed) -> Self {
        Self::Invalid(malformed.0)
    }
}
