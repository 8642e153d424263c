//! A mint: from a credential to a token that may be used, or to the reason why there is none.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time;

use super::single_flight::Landing;
use super::{Error, Exchange, Grant, HOLD_OFF, REJECTED_TTL, RETRY, unavailable};
use crate::credential::Credential;
use crate::secret::{KeyedHash, Secret};
use crate::token::Token;
use crate::token_service;

/// One mint, in its own task.
pub(super) struct Mint {
    pub(super) exchange: Arc<Exchange>,
    pub(super) grant: Arc<Grant>,
    pub(super) credential: Credential,
    pub(super) key: KeyedHash,
}

impl Mint {
    /// Asks for the token, checks it, keeps it or remembers the refusal, and tells all who wait.
    pub(super) async fn run(self, landing: Landing) {
        let outcome = self.token().await;
        match &outcome {
            Ok(token) => {
                self.exchange.cache.insert(self.key, Arc::clone(token), self.exchange.clock.now());
                tracing::debug!(entry = %self.key.short(), service = self.grant.service(), "token minted");
            }
            Err(error) => self.remember(error),
        }
        // What is cached must be there before the flight ends: whoever comes next looks there first.
        landing.land(outcome);
    }

    /// A definite no is remembered, an outage never (rule 4 of the design).
    fn remember(&self, error: &Error) {
        let Exchange { negative, clock, .. } = &*self.exchange;
        let service = self.grant.service();
        match error {
            Error::Denied | Error::Forbidden(_) => {
                tracing::info!(entry = %self.key.short(), service, %error, "credential refused");
                negative.remember(self.key, error.clone(), clock.now(), None);
            }
            Error::Rejected(_) => {
                tracing::error!(service, %error, "the route's `token` parameters are wrong for this token service");
                negative.remember(self.key, error.clone(), clock.now(), Some(REJECTED_TTL));
            }
            Error::Unavailable { .. } | Error::Budget => tracing::warn!(service, %error, "no token"),
        }
    }

    async fn token(&self) -> Result<Arc<Token>, Error> {
        let token = self.create("miss").await?;
        match self.checked(&token).await? {
            Verdict::Good => return Ok(Arc::new(token)),
            Verdict::Dead => tracing::warn!(service = self.grant.service(), "get_token_details denied a fresh token; minting once more"),
        }
        let token = self.create("details_401").await?;
        match self.checked(&token).await? {
            Verdict::Good => Ok(Arc::new(token)),
            Verdict::Dead => Err(self.hold_off("get_token_details denied two fresh tokens".to_owned())),
        }
    }

    /// An outage that another call at once would not end: the entry is left alone for a moment.
    fn hold_off(&self, cause: String) -> Error {
        let error = unavailable(cause, HOLD_OFF);
        self.exchange.negative.remember(self.key, error.clone(), self.exchange.clock.now(), Some(HOLD_OFF));
        error
    }

    async fn create(&self, reason: &str) -> Result<Token, Error> {
        let service = &self.grant.service;
        let _permit = time::timeout(service.wait, service.budget.acquire()).await.map_err(|_| Error::Budget)?.map_err(|_| Error::Budget)?;
        self.exchange.metrics.mint(&service.name, reason);
        let began = Instant::now();
        let answer = service.client.create_token(&self.credential, &self.grant.params).await;
        self.count("create", began, answer.as_ref().err());
        let text = answer.map_err(explain)?;
        self.parse(&text)
    }

    fn parse(&self, text: &Secret) -> Result<Token, Error> {
        Token::parse(text, self.exchange.clock.now(), self.grant.session_lifetime).map_err(|error| unavailable(error.to_string(), RETRY))
    }

    /// Waits until the token may be used, then asks for its details where the route wants that. An outage of that call is no verdict:
    /// a minted token is used.
    async fn checked(&self, token: &Token) -> Result<Verdict, Error> {
        self.until_valid(token).await?;
        if !self.grant.check_details {
            return Ok(Verdict::Good);
        }
        let began = Instant::now();
        let answer = self.grant.service.client.get_token_details(&token.value()).await;
        self.count("details", began, answer.as_ref().err());
        match answer {
            Ok(_) => Ok(Verdict::Good),
            Err(token_service::Error::Denied) => Ok(Verdict::Dead),
            Err(error) => {
                tracing::warn!(service = self.grant.service(), %error, "the details of a fresh token could not be had; it is used unchecked");
                Ok(Verdict::Good)
            }
        }
    }

    /// `nbf` can lie a little in the future. The flight goes on meanwhile, so that nobody mints again; not for longer than callers wait.
    async fn until_valid(&self, token: &Token) -> Result<(), Error> {
        let skew = self.grant.service.skew;
        let give_up = time::Instant::now() + self.grant.service.wait;
        loop {
            let now = self.exchange.clock.now();
            if token.is_valid(now, skew) {
                return Ok(());
            }
            let wait = token.until_valid(now, skew);
            if time::Instant::now() + wait > give_up {
                let seconds = wait.as_secs();
                return Err(self.hold_off(format!("a fresh token becomes valid only in {seconds} s: compare the clocks, see `skew`")));
            }
            if wait.is_zero() {
                return Err(unavailable("the token expired before it could be used".to_owned(), RETRY));
            }
            time::sleep(wait.min(MAX_NAP)).await;
        }
    }

    fn count(&self, operation: &str, began: Instant, error: Option<&token_service::Error>) {
        let outcome = error.map_or("ok", token_service::Error::outcome);
        self.exchange.metrics.token_service_call(self.grant.service(), operation, outcome, began.elapsed().as_secs_f64());
    }
}

/// The clock is read again at least this often while a token is not valid yet: it may be stepped.
const MAX_NAP: Duration = Duration::from_secs(1);

enum Verdict {
    Good,
    Dead,
}

fn explain(error: token_service::Error) -> Error {
    use token_service::Error as Service;
    match error {
        Service::Denied => Error::Denied,
        Service::Forbidden(message) => Error::Forbidden(message),
        Service::Rejected(message) => Error::Rejected(message),
        Service::RateLimited { retry_after } => unavailable(error.to_string(), retry_after.unwrap_or(RETRY)),
        Service::Unavailable(cause) => unavailable(cause, RETRY),
        Service::Protocol(_) => unavailable(error.to_string(), RETRY),
    }
}
