//! A mint: from a credential to a token that may be used, or to the reason why there is none.

use std::sync::Arc;
use std::time::Duration;

use tokio::time;

use super::budget::{Priority, Turn};
use super::entry::Entry;
use super::grant::{Details, Grant};
use super::service::Failure;
use super::single_flight::Landing;
use super::{Error, Exchange, Granted, HOLD_OFF, REJECTED_TTL, RETRY, unavailable};
use crate::credential::Credential;
use crate::secret::{KeyedHash, Secret};
use crate::token::{self, Token};
use crate::token_service;

/// What makes a mint necessary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Occasion {
    /// A caller has no token.
    Miss,
    /// The token at hand nears its end.
    Renewal,
    /// An upstream said 401 to it.
    UpstreamDenied,
    /// `get_token_details` said 401 to it.
    DetailsDenied,
}

impl Occasion {
    /// The word that the metrics use.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Miss => "miss",
            Self::Renewal => "renewal",
            Self::UpstreamDenied => "upstream_401",
            Self::DetailsDenied => "details_401",
        }
    }

    const fn priority(self) -> Priority {
        match self {
            Self::Miss => Priority::Caller,
            Self::Renewal | Self::UpstreamDenied | Self::DetailsDenied => Priority::Renewal,
        }
    }
}

/// One mint, in its own task.
pub(super) struct Mint {
    exchange: Arc<Exchange>,
    grant: Arc<Grant>,
    /// As the caller presented it.
    credential: Credential,
    key: KeyedHash,
    occasion: Occasion,
    /// Whose token is to be replaced.
    predecessor: Option<Arc<Entry>>,
}

impl Mint {
    /// For a caller without a token.
    pub(super) fn first(exchange: &Arc<Exchange>, grant: &Arc<Grant>, credential: Credential, key: KeyedHash) -> Self {
        let (exchange, grant) = (Arc::clone(exchange), Arc::clone(grant));
        Self { exchange, grant, credential, key, occasion: Occasion::Miss, predecessor: None }
    }

    /// For an entry that needs another token.
    pub(super) fn renewal(exchange: &Arc<Exchange>, entry: &Arc<Entry>, occasion: Occasion) -> Self {
        Self {
            exchange: Arc::clone(exchange),
            grant: Arc::clone(&entry.grant),
            credential: entry.credential.clone(),
            key: entry.key,
            occasion,
            predecessor: Some(Arc::clone(entry)),
        }
    }

    /// Asks for the token, checks it, keeps it or remembers the refusal, and tells all who wait.
    pub(super) async fn run(self, landing: Landing) -> Result<Granted, Error> {
        let outcome = self.token().await.and_then(|fresh| self.keep(fresh));
        if let Err(error) = &outcome {
            self.remember(error);
        }
        // What is cached must be there before the flight ends: whoever comes next looks there first.
        landing.land(outcome.clone());
        outcome
    }

    /// Keeps the token, unless its session was revoked meanwhile.
    fn keep(&self, fresh: Fresh) -> Result<Granted, Error> {
        self.session_goes_on()?;
        let granted = self.publish(fresh);
        // Once more, now that the token is where a revocation looks for it: one of both sees the other.
        self.session_goes_on().inspect_err(|_| self.exchange.drop_entry(&granted.entry))?;
        Ok(granted)
    }

    fn session_goes_on(&self) -> Result<(), Error> {
        if self.exchange.is_revoked_session(&self.grant.service, &self.credential) { Err(Error::Denied) } else { Ok(()) }
    }

    fn publish(&self, fresh: Fresh) -> Granted {
        let Exchange { cache, clock, .. } = &*self.exchange;
        let now = clock.reading();
        let held = self.predecessor.clone().filter(|entry| !entry.agenda().gone).or_else(|| cache.get(&self.key));
        let entry = match held {
            Some(entry) => {
                entry.replace(fresh.token, fresh.checked, now);
                self.exchange.metrics.eviction("replaced");
                self.exchange.note_token(&entry, &entry.token(), now.wall);
                entry
            }
            None => {
                let (grant, credential) = (Arc::clone(&self.grant), self.credential.clone());
                let entry = Arc::new(Entry::new(self.key, grant, credential, fresh.token, fresh.checked, now));
                self.exchange.take_in(&entry, now.wall);
                entry
            }
        };
        tracing::debug!(entry = %self.key.short(), service = self.grant.service(), occasion = self.occasion.as_str(), "token minted");
        Granted { token: entry.token(), entry }
    }

    /// A definite no is remembered, an outage never (rule 4 of the design).
    fn remember(&self, error: &Error) {
        let Exchange { negative, clock, .. } = &*self.exchange;
        let service = self.grant.service();
        match error {
            // Of presented JWTs; no mint ends so.
            Error::InvalidToken(_) | Error::Revoked => {}
            Error::Denied | Error::Forbidden(_) => {
                tracing::info!(entry = %self.key.short(), service, %error, "credential refused");
                negative.remember(self.key, error.clone(), clock.now(), None);
            }
            Error::Rejected(_) => {
                tracing::error!(service, %error, "the route's `token` parameters are wrong for this token service");
                negative.remember(self.key, error.clone(), clock.now(), Some(REJECTED_TTL));
            }
            Error::Unavailable { .. } | Error::Budget if self.grant.service.is_failing() => tracing::debug!(service, %error, "no token"),
            Error::Unavailable { .. } | Error::Budget => tracing::warn!(service, %error, "no token"),
        }
    }

    async fn token(&self) -> Result<Fresh, Error> {
        let token = self.create(self.occasion).await?;
        match self.checked(&token).await? {
            Verdict::Good => return Ok(Fresh { token, checked: true }),
            Verdict::Unknown => return Ok(Fresh { token, checked: false }),
            Verdict::Dead => tracing::warn!(service = self.grant.service(), "get_token_details denied a fresh token; minting once more"),
        }
        let token = self.create(Occasion::DetailsDenied).await?;
        match self.checked(&token).await? {
            Verdict::Good => Ok(Fresh { token, checked: true }),
            Verdict::Unknown => Ok(Fresh { token, checked: false }),
            Verdict::Dead => Err(self.hold_off("get_token_details denied two fresh tokens".to_owned())),
        }
    }

    /// An outage that another call at once would not end: the entry is left alone for a moment.
    fn hold_off(&self, cause: String) -> Error {
        let error = unavailable(cause, HOLD_OFF);
        self.exchange.negative.remember(self.key, error.clone(), self.exchange.clock.now(), Some(HOLD_OFF));
        error
    }

    async fn create(&self, occasion: Occasion) -> Result<Token, Error> {
        let service = &self.grant.service;
        let _turn = self.turn().await?;
        let credential = self.exchange.sessions.present(service, &self.credential);
        let text = service.create_token(&credential, &self.grant.params, occasion.as_str()).await.map_err(explain)?;
        self.parse(&text)
    }

    async fn turn(&self) -> Result<Turn, Error> {
        let service = &self.grant.service;
        let turn = service.turn(self.occasion.priority());
        match self.occasion.priority() {
            Priority::Caller => time::timeout(service.wait(), turn).await.map_err(|_| Error::Budget)?,
            Priority::Renewal => turn.await,
        }
        .map_err(|_| Error::Budget)
    }

    fn parse(&self, text: &Secret) -> Result<Token, Error> {
        Token::parse(text, self.exchange.clock.reading(), self.grant.lifetimes).map_err(|error| match error {
            token::Error::Expired => self.hold_off(format!("{error}: compare the clocks of this machine and of the token service")),
            _ => unavailable(error.to_string(), RETRY),
        })
    }

    /// Waits until the token may be used, then asks for its details where the route wants that. An outage of that call is no verdict:
    /// a minted token is used, and checked later.
    async fn checked(&self, token: &Token) -> Result<Verdict, Error> {
        self.until_valid(token).await?;
        if self.exchange.is_revoked(&self.grant.service, &token.value()) {
            // A service that caches may answer what was revoked a moment ago.
            return Ok(Verdict::Dead);
        }
        if self.grant.details == Details::Off {
            return Ok(Verdict::Good);
        }
        match self.grant.service.get_token_details(&token.value()).await {
            Ok(_) => Ok(Verdict::Good),
            Err(failure) if failure.is_denial() => Ok(Verdict::Dead),
            Err(failure) => {
                tracing::warn!(service = self.grant.service(), %failure, "the details of a fresh token could not be had; it is checked later");
                Ok(Verdict::Unknown)
            }
        }
    }

    /// `nbf` can lie a little in the future. The flight goes on meanwhile, so that nobody mints again; not for longer than callers wait, or than the
    /// old token serves.
    async fn until_valid(&self, token: &Token) -> Result<(), Error> {
        let skew = self.grant.service.skew();
        let now = self.exchange.clock.reading();
        let old = self.predecessor.as_ref().map_or(Duration::ZERO, |entry| entry.token().dies().saturating_sub(now.uptime));
        let give_up = now.uptime + old.max(self.grant.service.wait());
        loop {
            let now = self.exchange.clock.reading();
            if token.is_valid(now, skew) {
                return Ok(());
            }
            let wait = token.until_valid(now, skew);
            if now.uptime + wait > give_up {
                let seconds = wait.as_secs();
                return Err(self.hold_off(format!("a fresh token becomes valid only in {seconds} s: compare the clocks, see `skew`")));
            }
            if wait.is_zero() {
                return Err(unavailable("the token expired before it could be used".to_owned(), RETRY));
            }
            time::sleep(wait.min(MAX_NAP)).await;
        }
    }
}

/// The clock is read again at least this often while a token is not valid yet: it may be stepped.
const MAX_NAP: Duration = Duration::from_secs(1);

/// A token that may be used from now on.
struct Fresh {
    token: Token,
    /// Where the route wants a check: whether there was a verdict.
    checked: bool,
}

enum Verdict {
    Good,
    Dead,
    /// The service could not be asked.
    Unknown,
}

fn explain(failure: Failure) -> Error {
    use token_service::Error as Service;
    match failure {
        Failure::Shut(shut) => unavailable(shut.cause, shut.retry_after),
        Failure::Call(Service::Denied) => Error::Denied,
        Failure::Call(Service::Forbidden(message)) => Error::Forbidden(message),
        Failure::Call(Service::Rejected(message)) => Error::Rejected(message),
        Failure::Call(error @ Service::RateLimited { retry_after }) => unavailable(error.to_string(), retry_after.unwrap_or(RETRY)),
        Failure::Call(Service::Unavailable(cause)) => unavailable(cause, RETRY),
        Failure::Call(error @ Service::Protocol(_)) => unavailable(error.to_string(), RETRY),
    }
}
