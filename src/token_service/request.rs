//! Requests of the token API as a server reads them: the embedded token service, and routes that stand in for a token service.

mod body;
mod credentials;
mod query;

pub use body::{access_token, is_json};
pub use credentials::{bearer, find as credential};
pub use query::{Query, parse as query};

/// 400: what is wrong with the request. Shows nothing of what was sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub String);
