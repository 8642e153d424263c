//! The embedded token service as a [`TokenService`]: called in process, without HTTP.

use std::sync::Arc;

use async_trait::async_trait;

use super::{Error, TokenDetails, TokenParams, TokenService};
use crate::credential::Credential;
use crate::issuer::Issuer;
use crate::issuer::refusal::Refusal;
use crate::secret::Secret;

/// Calls an [`Issuer`]. Only what goes to its state file waits: a signature takes microseconds.
pub struct EmbeddedTokenService {
    issuer: Arc<Issuer>,
}

impl EmbeddedTokenService {
    /// Calls `issuer`, which may be served over HTTP too.
    pub const fn new(issuer: Arc<Issuer>) -> Self {
        Self { issuer }
    }
}

#[async_trait]
impl TokenService for EmbeddedTokenService {
    async fn create_token(&self, credential: &Credential, params: &TokenParams) -> Result<Secret, Error> {
        Ok(self.issuer.create_token(credential, params).await?)
    }

    async fn get_token_details(&self, token: &Secret) -> Result<TokenDetails, Error> {
        Ok(self.issuer.get_token_details(token)?)
    }

    async fn refresh_token(&self, token: &Secret) -> Result<Secret, Error> {
        Ok(self.issuer.refresh_token(token).await?)
    }

    async fn revoke_token(&self, token: &Secret) -> Result<(), Error> {
        Ok(self.issuer.revoke_token(token).await?)
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Invalid(message) => Self::Rejected(message),
            Refusal::Denied => Self::Denied,
            Refusal::NotGranted(refused) => Self::Forbidden(refused.to_string()),
            Refusal::TooMany(wait) => Self::RateLimited { retry_after: Some(wait) },
            Refusal::Unavailable(message) => Self::Unavailable(message.to_owned()),
        }
    }
}
