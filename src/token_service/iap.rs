//! The IAP token API over HTTP(S): one pooled client per token service.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use http::StatusCode;
use http::header::DATE;
use http::response::Parts;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy::{Client, Error as ClientError};
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::wire::{self, Base, Outgoing, answer};
use super::{Error, TokenDetails, TokenParams, TokenService};
use crate::clock::Clock;
use crate::config;
use crate::credential::Credential;
use crate::http_client::connect::{self, Connector};
use crate::http_client::failure::{self, Failure};
use crate::secret::Secret;
use crate::telemetry::traces;
use crate::tls::client::{self, Trust};

/// The longest answer that is read.
const BODY_BYTES: usize = 256 * 1024;
/// Idle connections are closed before usual servers and balancers close theirs (60 s and more).
const POOL_IDLE: Duration = Duration::from_secs(30);

/// Why a token service cannot even be set up. The text says what to change.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The URL cannot be called.
    #[error("token service url `{url}`: {fault}")]
    Url {
        /// What was written.
        url: String,
        /// What is wrong with it.
        fault: &'static str,
    },
    /// The files of its TLS section cannot be used.
    #[error(transparent)]
    Tls(#[from] client::Error),
}

/// A client of the IAP token API. It follows no redirects, reads at most 256 KiB of an answer, and ends every call in time.
pub struct IapTokenService {
    base: Base,
    pooled: Client<Connector, Full<Bytes>>,
    /// Keeps no connections: for the one retry that must not meet another stale one.
    trust: Arc<Trust>,
    fresh: Client<Connector, Full<Bytes>>,
    timeout: Duration,
    clock: Clock,
}

impl IapTokenService {
    /// Reads the TLS files; whoever follows them keeps [`IapTokenService::trust`]. Connects to nothing yet. `clock` reads dates in `Retry-After`.
    ///
    /// # Errors
    /// When the URL or a TLS file cannot be used.
    pub fn new(config: &config::token_service::Iap, clock: Clock) -> Result<Self, SetupError> {
        let base = Base::parse(&config.url).map_err(|fault| SetupError::Url { url: config.url.clone(), fault })?;
        let trust = Arc::new(Trust::new(&config.tls, base.is_https())?);
        let connector = Connector::new(Arc::clone(&trust), config.connect_timeout);
        let mut builder = Client::builder(TokioExecutor::new());
        builder.pool_timer(TokioTimer::new()).pool_idle_timeout(POOL_IDLE);
        let pooled = builder.pool_max_idle_per_host(config.mint.concurrency).build(connector.clone());
        let fresh = builder.pool_max_idle_per_host(0).build(connector);
        Ok(Self { base, trust, pooled, fresh, timeout: config.timeout, clock })
    }

    /// Its TLS, to be kept in step with its files.
    pub const fn trust(&self) -> &Arc<Trust> {
        &self.trust
    }

    /// Asks for the details of nobody's token: whether the service answers at all, a no included, and what time it is there by its `Date`.
    pub async fn greet(&self) -> (Result<(), Error>, Option<SystemTime>) {
        let nobodys = Secret::from("bearerd-doctor");
        let mut date = None;
        let outcome = match wire::details(&self.base, &nobodys) {
            Ok(request) => self.dated_call(request, std::slice::from_ref(&nobodys), &mut date).await,
            Err(error) => Err(error),
        };
        (outcome.and_then(|(status, body)| answer::details(status, &body)).map(drop), date)
    }

    /// One call: the answer's status and the body, if it is one that is looked at; or the error that the answer stands for.
    async fn call(&self, request: Outgoing, secrets: &[Secret]) -> Result<(StatusCode, Bytes), Error> {
        self.dated_call(request, secrets, &mut None).await
    }

    /// The same; `date` becomes the time at which the answer was made, where it says so (RFC 9110 section 6.6.1).
    async fn dated_call(
        &self,
        mut request: Outgoing,
        secrets: &[Secret],
        date: &mut Option<SystemTime>,
    ) -> Result<(StatusCode, Bytes), Error> {
        request.headers_mut().extend(traces::current_headers());
        let deadline = tokio::time::Instant::now() + self.timeout;
        let late = |_| Error::Unavailable(format!("timed out after {}", humantime::format_duration(self.timeout)));
        let response = tokio::time::timeout_at(deadline, self.send(request)).await.map_err(late)?;
        let (head, body) = response.map_err(|error| failure::of(&error))?.into_parts();
        *date = head.headers.get(DATE).and_then(|date| httpdate::parse_http_date(date.to_str().ok()?).ok());
        let body = tokio::time::timeout_at(deadline, read(&head, body)).await.map_err(late).and_then(|read| read);
        // A refusal's status stands, even where its body does not arrive.
        let said = body.as_deref().unwrap_or_default();
        match answer::refusal(head.status, &head.headers, said, secrets, self.clock.now()) {
            Some(refusal) => Err(refusal),
            None => Ok((head.status, body?)),
        }
    }

    /// A pooled connection may be closed by the other side just when a request goes out on it. Nothing of an answer has arrived
    /// then, and the request goes out once more on a new one (RFC 9112 section 9.3.1). The worst of it is a token minted for nothing.
    async fn send(&self, request: Outgoing) -> Result<http::Response<Incoming>, ClientError> {
        match self.pooled.request(request.clone()).await {
            Err(error) if connect::went_stale(&error) => self.fresh.request(request).await,
            result => result,
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Unavailable(cause) => Self::Unavailable(cause),
            Failure::Protocol(cause) => Self::Protocol(cause),
        }
    }
}

async fn read(head: &Parts, body: Incoming) -> Result<Bytes, Error> {
    if !answer::has_readable_body(head.status) {
        return Ok(Bytes::new());
    }
    let read = Limited::new(body, BODY_BYTES).collect().await;
    read.map(http_body_util::Collected::to_bytes).map_err(|error| {
        if error.is::<LengthLimitError>() {
            Error::Protocol("an answer longer than 256 KiB".to_owned())
        } else {
            failure::of(error.as_ref()).into()
        }
    })
}

#[async_trait]
impl TokenService for IapTokenService {
    async fn create_token(&self, credential: &Credential, params: &TokenParams) -> Result<Secret, Error> {
        let request = wire::create(&self.base, credential, params)?;
        let (status, body) = self.call(request, &answer::secrets_of(credential)).await?;
        answer::token(status, &body)
    }

    async fn get_token_details(&self, token: &Secret) -> Result<TokenDetails, Error> {
        let (status, body) = self.call(wire::details(&self.base, token)?, &answer::secrets_of_token(token)).await?;
        answer::details(status, &body)
    }

    async fn refresh_token(&self, token: &Secret) -> Result<Secret, Error> {
        let (status, body) = self.call(wire::refresh(&self.base, token)?, &answer::secrets_of_token(token)).await?;
        answer::token(status, &body)
    }

    async fn revoke_token(&self, token: &Secret) -> Result<(), Error> {
        let (status, _) = self.call(wire::revoke(&self.base, token)?, &answer::secrets_of_token(token)).await?;
        answer::revoked(status)
    }
}
