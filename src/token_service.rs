//! The token service as the exchange sees it: four calls, and an error that says what can be done.

pub mod embedded;
pub mod iap;
pub mod request;
mod wire;

use std::time::Duration;

use async_trait::async_trait;
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::credential::Credential;
use crate::secret::Secret;

/// The token in an answer of `create_token` or `refresh_token`.
///
/// # Errors
/// Where there is none that a header can carry.
pub fn token_in(status: StatusCode, body: &[u8]) -> Result<Secret, Error> {
    wire::answer::token(status, body)
}

/// The details in an answer of `get_token_details`.
///
/// # Errors
/// Where they cannot be read.
pub fn details_in(status: StatusCode, body: &[u8]) -> Result<TokenDetails, Error> {
    wire::answer::details(status, body)
}

/// What an answer that says no means; none for one that says yes. None of `secrets` is in it, whatever the service says.
pub fn refusal_in(status: StatusCode, headers: &HeaderMap, body: &[u8], secrets: &[Secret], now: Timestamp) -> Option<Error> {
    wire::answer::refusal(status, headers, body, secrets, now)
}

/// What `create_token` takes beside the credential: each one is part of what makes a token another token.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct TokenParams {
    /// `clientId`: becomes the authorised party (`azp`) of the JWT.
    pub client_id: Option<String>,
    /// `domain`: the domain that is logged into.
    pub domain: Option<String>,
    /// `data`: custom metadata, put into the session field of the JWT.
    pub data: Option<String>,
    /// `scopes`: limits the token to these.
    pub scopes: Vec<String>,
    /// `acl`: the access control list of the token.
    pub acl: Vec<String>,
    /// `mem`: the membership list of the token.
    pub mem: Vec<String>,
    /// `cwid`: the current workgroup.
    pub cwid: Option<String>,
    /// `cid`: the current context.
    pub cid: Option<String>,
    /// `returnSessionToken`: a psToken in place of a JWT.
    pub return_session_token: bool,
}

/// What `get_token_details` answers. It shows no expiry.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenDetails {
    /// The user's id.
    pub uid: Option<String>,
    /// The user's name for people.
    pub name: Option<String>,
    /// The user's login name.
    pub username: Option<String>,
    /// The workgroup that the token works in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current_workgroup: Option<Workgroup>,
    /// The tenant's id.
    pub tid: Option<String>,
    /// The access control list.
    #[serde(default)]
    pub acls: Vec<String>,
    /// The domain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<Domain>,
    /// What else the token service says, passed on as it is.
    #[serde(flatten)]
    pub other: serde_json::Map<String, serde_json::Value>,
}

/// A workgroup in [`TokenDetails`].
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Workgroup {
    /// Its id.
    pub id: Option<String>,
    /// Its name.
    pub name: Option<String>,
    /// What it is for.
    pub description: Option<String>,
}

/// A domain in [`TokenDetails`].
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Domain {
    /// Its id.
    pub id: Option<String>,
    /// Its name.
    pub name: Option<String>,
}

/// Why a call failed, by what can be done about it. No variant holds a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// 401: the credential or token is not good. Ask for another one.
    #[error("the token service denied the credential (401)")]
    Denied,
    /// 403: the credential is known, what was asked for is not allowed.
    #[error("the token service forbids this (403): {0}")]
    Forbidden(String),
    /// 400: the parameters are wrong; a fault of the configuration, not of the caller.
    #[error("the token service rejected the request (400): {0}")]
    Rejected(String),
    /// 429: wait at least this long.
    #[error("the token service limits the rate (429)")]
    RateLimited {
        /// `Retry-After`, from seconds or a date (RFC 9110 section 10.2.3).
        retry_after: Option<Duration>,
    },
    /// No connection, a time-out or a 5xx: try again later.
    #[error("the token service is unavailable: {0}")]
    Unavailable(String),
    /// An answer that is none: a wrong status, not JSON, no token in it, an unreadable JWT.
    #[error("the token service answered something unreadable: {0}")]
    Protocol(String),
}

impl Error {
    /// The word that the metrics use for it: the label `outcome` of `token_service_requests_total`.
    pub const fn outcome(&self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::Forbidden(_) => "forbidden",
            Self::Rejected(_) => "rejected",
            Self::RateLimited { .. } => "rate_limited",
            Self::Unavailable(_) => "unavailable",
            Self::Protocol(_) => "protocol",
        }
    }
}

/// The four endpoints of the token API. Implementations bound their own time and size, and follow no redirects.
#[async_trait]
pub trait TokenService: Send + Sync {
    /// `POST /v1/tokens`: a JWT, or a psToken where [`TokenParams::return_session_token`] says so.
    async fn create_token(&self, credential: &Credential, params: &TokenParams) -> Result<Secret, Error>;

    /// `GET /v1/tokens/details`: [`Error::Denied`] means that the token is dead.
    async fn get_token_details(&self, token: &Secret) -> Result<TokenDetails, Error>;

    /// `POST /v1/tokens:refresh`: extends a psToken's session; [`Error::Denied`] means that it cannot be extended any more.
    async fn refresh_token(&self, token: &Secret) -> Result<Secret, Error>;

    /// `DELETE /v1/tokens`: revokes a JWT or psToken.
    async fn revoke_token(&self, token: &Secret) -> Result<(), Error>;
}
