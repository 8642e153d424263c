//! Revocation: a token is dead here at once, and the token service is told until it knows.
//!
//! Possession is the authority (RFC 7009 section 2.1). A token that bearerd minted is queued; a stranger's is passed on at once and never queued, so that
//! strangers can fill neither the queue nor the tombstones without the token service's word.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time;

use super::backoff::Backoff;
use super::budget::Priority;
use super::entry::Entry;
use super::issued::Origin;
use super::on_behalf;
use super::service::{Failure, Service};
use super::timetable::Plan;
use super::{Error, Exchange, unavailable};
use crate::clock::Timestamp;
use crate::credential::{Credential, Kind};
use crate::secret::{KeyedHash, Secret};
use crate::token_service;

/// Revocations that wait for the disk together.
const AT_ONCE: usize = 256;
/// After which a revocation that found no room may be tried again.
const FULL_RETRY: Duration = Duration::from_secs(60);

/// A revocation that was accepted and is to be carried out.
pub(super) struct Revocation {
    /// The token's name, now or in the ledger.
    pub(super) name: KeyedHash,
    pub(super) service: Arc<Service>,
    pub(super) token: Secret,
    /// When the token ends by itself.
    pub(super) until: Timestamp,
    backoff: Mutex<Backoff>,
}

/// How a revocation that a caller asked for came out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The token service said no to a token that bearerd did not mint; this is its word.
    #[error(transparent)]
    Relayed(#[from] token_service::Error),
    /// It cannot be accepted now.
    #[error(transparent)]
    Unavailable(Error),
}

impl Exchange {
    /// Revokes a token for whoever holds it. One that bearerd minted is dead here when this returns, and the token service is told in the background;
    /// any other is passed on at once.
    ///
    /// # Errors
    /// What the token service said to a token that is not bearerd's, or that the revocation cannot be accepted now.
    pub async fn revoke(self: &Arc<Self>, service: &Arc<Service>, token: &Secret) -> Result<(), Refused> {
        let name = self.tombstones.name(&service.identity, token);
        let now = self.clock.now();
        if self.tombstones.has(&name, now) {
            // It is dead: that is what the caller wants (RFC 7009 section 2.2).
            return Ok(());
        }
        match self.issued.origin(&name).filter(|origin| origin.expires > now) {
            Some(origin) => self.accept(service, token, name, origin).await.map_err(Refused::Unavailable),
            None => self.pass_on(service, token, name).await,
        }
    }

    /// Revokes an entry's token.
    ///
    /// # Errors
    /// When it cannot be accepted now.
    pub(super) async fn revoke_entry(self: &Arc<Self>, entry: &Arc<Entry>) -> Result<(), Error> {
        let token = entry.token();
        let value = token.value();
        let origin = Origin { entry: entry.key, expires: token.expires() };
        self.accept(&entry.grant.service, &value, self.tombstones.name(&entry.grant.service.identity, &value), origin).await
    }

    /// Revokes the tokens of many entries, a good number at one time: each waits for the disk, which takes many in one go.
    pub(super) async fn revoke_entries(self: &Arc<Self>, entries: Vec<Arc<Entry>>) -> Vec<Result<(), Error>> {
        let mut outcomes = Vec::new();
        for some in entries.chunks(AT_ONCE) {
            let revoke = |entry: &Arc<Entry>| {
                let (exchange, entry) = (Arc::clone(self), Arc::clone(entry));
                async move { exchange.revoke_entry(&entry).await }
            };
            outcomes.extend(some.iter().map(revoke).collect::<JoinSet<_>>().join_all().await);
        }
        outcomes
    }

    pub(super) async fn accept(
        self: &Arc<Self>,
        service: &Arc<Service>,
        token: &Secret,
        name: KeyedHash,
        origin: Origin,
    ) -> Result<(), Error> {
        let full = |_| unavailable("there is no room for another revocation: see `cache.tombstones`".to_owned(), FULL_RETRY);
        self.tombstones.set(name, Some(origin.expires), self.clock.now()).map_err(full)?;
        let revocation = Revocation::new(name, service, token.clone(), origin.expires);
        // On disk before it is accepted (rule 9 of the design).
        if self.records.promise(&revocation, origin.entry).await.is_err() {
            self.tombstones.unset(&name);
            return Err(unavailable("the ledger cannot be written".to_owned(), FULL_RETRY));
        }
        self.drop_token(&name, token);
        self.endings.notify_waiters();
        self.end_session(service, token);
        self.enqueue(revocation);
        Ok(())
    }

    pub(super) fn enqueue(&self, revocation: Revocation) {
        self.metrics.revocations_pending.inc();
        let service = Arc::clone(&revocation.service);
        service.plan(Plan::Revoke(Arc::new(revocation)));
    }

    async fn pass_on(&self, service: &Arc<Service>, token: &Secret, name: KeyedHash) -> Result<(), Refused> {
        let _turn = on_behalf::callers_turn(service).await?;
        service.revoke_token(token).await.map_err(on_behalf::refused)?;
        // Dead at the service already: where there is no room for it here, checks still find out.
        let _ = self.tombstones.set(name, None, self.clock.now());
        self.endings.notify_waiters();
        self.end_session(service, token);
        self.metrics.revocation("ok");
        Ok(())
    }

    /// What was minted from a session ends with it.
    fn end_session(&self, service: &Service, token: &Secret) {
        for entry in self.sessions.ended(service, token) {
            self.drop_entry(&entry);
        }
    }

    /// Whether bearerd minted this token and it has not expired.
    pub fn has_issued(&self, service: &Service, token: &Secret) -> bool {
        self.issued.origin(&self.tombstones.name(&service.identity, token)).is_some_and(|origin| origin.expires > self.clock.now())
    }

    /// Whether this is a session that was revoked here: nothing is minted from it any more.
    pub(super) fn is_revoked_session(&self, service: &Service, credential: &Credential) -> bool {
        credential.kind == Kind::SessionToken && self.is_revoked(service, &credential.value)
    }

    /// Whether the token was revoked here.
    pub(super) fn is_revoked(&self, service: &Service, token: &Secret) -> bool {
        self.tombstones.has(&self.tombstones.name(&service.identity, token), self.clock.now())
    }
}

impl Revocation {
    pub(super) fn new(name: KeyedHash, service: &Arc<Service>, token: Secret, until: Timestamp) -> Self {
        Self { name, service: Arc::clone(service), token, until, backoff: Mutex::default() }
    }

    /// Tells the token service once. What failed without a verdict is tried again until the token has ended by itself.
    pub(super) async fn carry_out(self: &Arc<Self>, exchange: &Exchange) {
        if self.until <= exchange.clock.now() {
            return self.end(exchange, "expired");
        }
        let Ok(turn) = self.service.turn(Priority::Renewal).await else { return };
        let answer = self.service.revoke_token(&self.token).await;
        drop(turn);
        match answer {
            Ok(()) => self.end(exchange, "ok"),
            Err(Failure::Call(token_service::Error::Denied)) => self.end(exchange, "gone"),
            Err(Failure::Call(error @ (token_service::Error::Forbidden(_) | token_service::Error::Rejected(_)))) => {
                tracing::error!(service = self.service.name(), %error, "the token service refuses a revocation; the token is dead here, and there until it expires");
                self.end(exchange, "failed");
            }
            Err(failure) => {
                tracing::warn!(service = self.service.name(), %failure, "a revocation could not be carried out yet");
                let pause = self.backoff.lock().unwrap_or_else(PoisonError::into_inner).pause();
                self.service.plan(Plan::RevokeAt(Arc::clone(self), time::Instant::now() + pause));
            }
        }
    }

    fn end(&self, exchange: &Exchange, outcome: &str) {
        exchange.records.done(self.name);
        exchange.metrics.revocations_pending.dec();
        exchange.metrics.revocation(outcome);
        tracing::info!(token = %self.name.short(), service = self.service.name(), outcome, "revocation carried out");
    }
}
