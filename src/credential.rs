//! What a caller presents: an API key, a user and password, or a session token.

use crate::secret::Secret;

/// The ways to present a credential that bearerd knows; also how the token service is asked with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// An API key: `X-API-Key` to the token service.
    ApiKey,
    /// The text after `Basic `: base64 of `user:pass`, or of a bare API key. Forwarded as it came.
    Basic,
    /// A psToken: `Authorization: Bearer` to the token service.
    SessionToken,
}

impl Kind {
    /// Its name in the configuration and in cache keys.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ApiKey => "api_key",
            Self::Basic => "basic",
            Self::SessionToken => "session_token",
        }
    }
}

/// A credential that outlives its request, since renewals need it. It is visible ASCII.
#[derive(Clone, Debug)]
pub struct Credential {
    /// How it is presented to the token service.
    pub kind: Kind,
    /// The key, the base64 text, or the psToken.
    pub value: Secret,
}
