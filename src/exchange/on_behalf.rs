//! The token API on behalf of callers who ask for it themselves: tokens from the cache, details that are kept for a moment, refreshes passed on.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use moka::policy::EvictionPolicy;
use tokio::time;

use super::budget::Priority;
use super::mint::{Mint, Occasion};
use super::revoke::Refused;
use super::service::{Failure, Service};
use super::timetable::Plan;
use super::{Error, Exchange, Grant, Granted, Lookup, unavailable};
use crate::credential::{Credential, Presented};
use crate::secret::{BuildAlreadyHashed, KeyedHash, Secret};
use crate::token_service::{self, TokenDetails};

/// Sets of parameters that one credential may have tokens for at one time; past it the oldest goes.
const SETS: usize = 32;
/// How long the details of a token are told again without asking.
const DETAILS_TTL: Duration = Duration::from_secs(60);
/// Tokens whose details are kept.
const MAX_DETAILS: u64 = 10_000;

/// What is kept for callers of the token API.
pub(super) struct OnBehalf {
    /// By credential: the keys of its entries, oldest first.
    sets: moka::sync::Cache<KeyedHash, Arc<Mutex<VecDeque<KeyedHash>>>, BuildAlreadyHashed>,
    /// By the token's name.
    details: moka::sync::Cache<KeyedHash, Arc<TokenDetails>, BuildAlreadyHashed>,
}

impl OnBehalf {
    pub(super) fn new(max_credentials: u64) -> Self {
        let lru = |most| moka::sync::Cache::builder().max_capacity(most).eviction_policy(EvictionPolicy::lru());
        Self {
            sets: lru(max_credentials).build_with_hasher(BuildAlreadyHashed::default()),
            details: moka::sync::Cache::builder()
                .max_capacity(MAX_DETAILS)
                .eviction_policy(EvictionPolicy::lru())
                .time_to_live(DETAILS_TTL)
                .build_with_hasher(BuildAlreadyHashed::default()),
        }
    }

    /// Notes one more set of parameters; the one that has to go for it, if any.
    fn add_set(&self, credential: KeyedHash, entry: KeyedHash) -> Option<KeyedHash> {
        let sets = self.sets.get_with(credential, Arc::default);
        let mut sets = sets.lock().unwrap_or_else(PoisonError::into_inner);
        if sets.contains(&entry) {
            return None;
        }
        sets.push_back(entry);
        if sets.len() > SETS { sets.pop_front() } else { None }
    }
}

impl Exchange {
    /// A token for a caller who asked for one itself: from the cache while at least `min_remaining` (0 to 1) of its life is left, else minted anew.
    ///
    /// # Errors
    /// Why there is no token.
    pub async fn issue(self: &Arc<Self>, grant: &Arc<Grant>, credential: &Credential, min_remaining: f64) -> Result<Granted, Error> {
        let presented = Presented { kind: credential.kind, value: credential.value.expose().into() };
        let key = grant.key(&presented);
        match self.lookup(grant, key, Instant::now()) {
            Lookup::Hit(granted) => {
                let left = granted.token.dies().saturating_sub(self.clock.reading().uptime);
                if left >= granted.token.lifetime().mul_f64(min_remaining) { Ok(granted) } else { Ok(self.renewed(granted).await) }
            }
            Lookup::Refused(error) => Err(error),
            Lookup::Miss => {
                let granted = self.mint(grant, &presented, key).await.1?;
                let mut hasher = self.hash_keys.current.hasher();
                hasher
                    .field(grant.service().as_bytes())
                    .field(credential.kind.as_str().as_bytes())
                    .field(credential.value.expose().as_bytes());
                let oldest = self.on_behalf.add_set(hasher.finish(), key).and_then(|oldest| self.cache.get(&oldest));
                if let Some(entry) = oldest {
                    self.drop_entry(&entry);
                }
                Ok(granted)
            }
        }
    }

    /// A fresh token in the place of one that is still good; that one where there is none to be had.
    async fn renewed(self: &Arc<Self>, granted: Granted) -> Granted {
        let (flight, landing) = self.flights.board(granted.entry.key);
        if let Some(landing) = landing {
            self.runtime.spawn(Mint::renewal(self, &granted.entry, Occasion::Renewal).run(landing));
        }
        match time::timeout(granted.entry.grant.service.wait(), flight.arrival()).await {
            Ok(Ok(fresh)) => fresh,
            _ => granted,
        }
    }

    /// The details of any token. One that was revoked here is dead; a token service's answer is told again for a minute.
    ///
    /// # Errors
    /// What the token service said, or that it cannot be asked.
    pub async fn details(self: &Arc<Self>, service: &Arc<Service>, token: &Secret) -> Result<Arc<TokenDetails>, Refused> {
        let name = self.tombstones.name(&service.identity, token);
        if self.tombstones.has(&name, self.clock.now()) {
            return Err(Refused::Relayed(token_service::Error::Denied));
        }
        if let Some(details) = self.on_behalf.details.get(&name) {
            return Ok(details);
        }
        let _turn = callers_turn(service).await?;
        match service.get_token_details(token).await {
            Ok(details) => {
                let details = Arc::new(details);
                self.on_behalf.details.insert(name, Arc::clone(&details));
                Ok(details)
            }
            Err(failure) => {
                if failure.is_denial() {
                    self.drop_token(&name, token);
                }
                Err(refused(failure))
            }
        }
    }

    /// Extends the session of a psToken, and renews what was minted from it.
    ///
    /// # Errors
    /// What the token service said, or that it cannot be asked.
    pub async fn refresh(self: &Arc<Self>, service: &Arc<Service>, token: &Secret) -> Result<Secret, Refused> {
        let turn = callers_turn(service).await?;
        let fresh = service.refresh_token(token).await.map_err(refused)?;
        drop(turn);
        let now = self.clock.reading();
        for entry in self.sessions.refreshed(service, token, &fresh) {
            // Whoever extends a session means to go on with it.
            entry.touch();
            entry.agenda().renew_at = Some(now.uptime);
            service.plan(Plan::Watch(entry));
        }
        Ok(fresh)
    }

    /// The token service said that this token is dead.
    pub(super) fn drop_token(&self, name: &KeyedHash, token: &Secret) {
        self.on_behalf.details.invalidate(name);
        let Some(origin) = self.issued.origin(name) else { return };
        self.records.drop_dormant(&origin.entry);
        if let Some(entry) = self.cache.get(&origin.entry).filter(|entry| entry.token().value() == *token) {
            self.drop_entry(&entry);
        }
    }
}

pub(super) async fn callers_turn(service: &Service) -> Result<super::budget::Turn, Refused> {
    match time::timeout(service.wait(), service.turn(Priority::Caller)).await {
        Ok(Ok(turn)) => Ok(turn),
        _ => Err(Refused::Unavailable(Error::Budget)),
    }
}

pub(super) fn refused(failure: Failure) -> Refused {
    match failure {
        Failure::Call(error) => Refused::Relayed(error),
        Failure::Shut(shut) => Refused::Unavailable(unavailable(shut.cause, shut.retry_after)),
    }
}
