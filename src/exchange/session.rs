//! psToken sessions: a caller's session is extended for as long as tokens minted from it are in use.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::Instant;

use super::backoff::Backoff;
use super::budget::Priority;
use super::entry::Entry;
use super::grant::Grant;
use super::service::{Failure, Service};
use super::timetable::Plan;
use super::{Error, Exchange};
use crate::credential::{Credential, Kind};
use crate::secret::{BuildAlreadyHashed, HashKey, KeyedHash, Secret};

/// One caller's session with a token service.
pub(super) struct Session {
    key: KeyedHash,
    service: Arc<Service>,
    refresh: Duration,
    /// The psToken to use: the caller's own, or what a refresh put in its place.
    current: ArcSwap<Secret>,
    /// What was minted from it; it ends with the last of them.
    entries: Mutex<Vec<Weak<Entry>>>,
    backoff: Mutex<Backoff>,
}

/// The sessions that tokens at hand were minted from, by the psToken that callers present.
pub(super) struct Sessions {
    hash_key: HashKey,
    open: Mutex<HashMap<KeyedHash, Arc<Session>, BuildAlreadyHashed>>,
}

impl Sessions {
    pub(super) fn new(hash_key: HashKey) -> Self {
        Self { hash_key, open: Mutex::default() }
    }

    /// The credential to mint with: of a session that was refreshed, its present psToken.
    pub(super) fn present(&self, service: &Service, credential: &Credential) -> Credential {
        let session = (credential.kind == Kind::SessionToken).then(|| self.lock().get(&self.key(service, &credential.value)).cloned());
        match session.flatten() {
            Some(session) => Credential { kind: Kind::SessionToken, value: Secret::clone(&session.current.load()) },
            None => credential.clone(),
        }
    }

    /// An entry was minted from the caller's session: it is extended from now on.
    pub(super) fn join(&self, grant: &Grant, entry: &Arc<Entry>) {
        if entry.credential.kind != Kind::SessionToken {
            return;
        }
        let key = self.key(&grant.service, &entry.credential.value);
        let mut open = self.lock();
        let session = open.entry(key).or_insert_with(|| {
            let session = Arc::new(Session {
                key,
                service: Arc::clone(&grant.service),
                refresh: grant.session_refresh,
                current: ArcSwap::from_pointee(entry.credential.value.clone()),
                entries: Mutex::default(),
                backoff: Mutex::default(),
            });
            session.plan(session.refresh);
            session
        });
        session.lock().push(Arc::downgrade(entry));
    }

    /// A caller refreshed the session itself: what was minted from it.
    pub(super) fn refreshed(&self, service: &Service, presented: &Secret, fresh: &Secret) -> Vec<Arc<Entry>> {
        let session = self.lock().get(&self.key(service, presented)).cloned();
        let Some(session) = session else { return Vec::new() };
        session.current.store(Arc::new(fresh.clone()));
        session.living()
    }

    /// A caller revoked the session itself: what was minted from it.
    pub(super) fn ended(&self, service: &Service, presented: &Secret) -> Vec<Arc<Entry>> {
        let session = self.lock().remove(&self.key(service, presented));
        session.map_or_else(Vec::new, |session| session.living())
    }

    fn leave(&self, session: &Session) {
        self.lock().remove(&session.key);
    }

    fn key(&self, service: &Service, token: &Secret) -> KeyedHash {
        let mut hasher = self.hash_key.hasher();
        hasher.field(service.identity.0.as_bytes()).field(service.identity.1.as_bytes()).field(token.expose().as_bytes());
        hasher.finish()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<KeyedHash, Arc<Session>, BuildAlreadyHashed>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Session {
    /// Extends the session, unless nothing that came of it is left. A definite no ends all that did.
    pub(super) async fn extend(self: &Arc<Self>, exchange: &Exchange) {
        if self.living().is_empty() {
            return exchange.sessions.leave(self);
        }
        let Ok(turn) = self.service.turn(Priority::Renewal).await else { return };
        let answer = self.service.refresh_token(&self.current.load()).await;
        drop(turn);
        let mut backoff = self.backoff.lock().unwrap_or_else(PoisonError::into_inner);
        match answer {
            Ok(token) => {
                backoff.reset();
                self.current.store(Arc::new(token));
                self.plan(self.refresh);
            }
            Err(Failure::Call(crate::token_service::Error::Denied)) => {
                drop(backoff);
                self.end(exchange);
            }
            Err(failure) => {
                tracing::warn!(service = self.service.name(), %failure, "a session could not be refreshed; another attempt follows");
                self.plan(backoff.pause());
            }
        }
    }

    fn end(&self, exchange: &Exchange) {
        let entries = self.living();
        tracing::info!(
            service = self.service.name(),
            tokens = entries.len(),
            "a session cannot be refreshed any more: its tokens are dropped"
        );
        exchange.sessions.leave(self);
        for entry in entries {
            exchange.negative.remember(entry.key, Error::Denied, exchange.clock.now(), None);
            exchange.drop_entry(&entry);
        }
    }

    /// The entries that are still in the cache.
    fn living(&self) -> Vec<Arc<Entry>> {
        let mut entries = self.lock();
        let living: Vec<_> = entries.iter().filter_map(Weak::upgrade).filter(|entry| !entry.agenda().gone).collect();
        *entries = living.iter().map(Arc::downgrade).collect();
        living
    }

    fn plan(self: &Arc<Self>, pause: Duration) {
        self.service.plan(Plan::Extend(Arc::clone(self), Instant::now() + pause));
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Weak<Entry>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
