//! What outlives the process: tokens come back when their caller does, and revocations are carried on.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time;

use super::entry::Entry;
use super::issued::Origin;
use super::ledger::{Contents, Ledger, SavedRevocation, SavedToken, Unwritten};
use super::revoke::Revocation;
use super::service::Service;
use super::timetable::Plan;
use super::{Error, Exchange, Grant, Granted};
use crate::clock::{Clock, Timestamp};
use crate::credential::Presented;
use crate::secret::{BuildAlreadyHashed, KeyedHash};
use crate::token::Token;

/// The time between two looks for dormant tokens that have expired.
const TIDY: Duration = Duration::from_secs(60);

/// The ledger, where there is one, and what of it nobody has asked for yet.
pub(super) struct Records {
    ledger: Mutex<Option<Arc<Ledger>>>,
    dormant: Mutex<HashMap<KeyedHash, Dormant, BuildAlreadyHashed>>,
}

/// A token of an earlier process whose caller has not come yet.
pub(super) struct Dormant {
    pub(super) saved: SavedToken,
    service: Arc<Service>,
}

impl Records {
    pub(super) fn new() -> Self {
        Self { ledger: Mutex::default(), dormant: Mutex::default() }
    }

    fn ledger(&self) -> Option<Arc<Ledger>> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn dormant(&self) -> MutexGuard<'_, HashMap<KeyedHash, Dormant, BuildAlreadyHashed>> {
        self.dormant.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This one is dead.
    pub(super) fn drop_dormant(&self, name: &KeyedHash) {
        self.dormant().remove(name);
    }

    /// Writes an entry's token behind.
    pub(super) fn keep(&self, entry: &Entry, token: &Token) {
        if let Some(ledger) = self.ledger() {
            let service = entry.grant.service().to_owned();
            let name = entry.key.to_bytes();
            ledger.keep(SavedToken { name, service, text: token.value(), minted: token.minted(), expires: token.expires() });
        }
    }

    pub(super) fn forget(&self, name: KeyedHash) {
        if let Some(ledger) = self.ledger() {
            ledger.forget(name.to_bytes());
        }
    }

    /// Resolves when the revocation is on disk, where there is a ledger.
    pub(super) async fn promise(&self, revocation: &Revocation, entry: KeyedHash) -> Result<(), Unwritten> {
        let Some(ledger) = self.ledger() else { return Ok(()) };
        let Revocation { name, service, token, until, .. } = revocation;
        let saved = SavedRevocation { id: name.to_bytes(), service: service.name().to_owned(), token: token.clone(), until: *until };
        ledger.promise(saved, vec![entry.to_bytes()]).await
    }

    pub(super) fn done(&self, name: KeyedHash) {
        if let Some(ledger) = self.ledger() {
            ledger.done(name.to_bytes());
        }
    }

    /// Writes what is waiting, and writes no more.
    pub(super) fn close(&self) {
        // Dropped outside the lock: it waits for the disk.
        let ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(ledger);
    }
}

/// Drops what has expired, until there is nothing left to wait for.
async fn tidy(records: Arc<Records>, clock: Clock) {
    while !records.dormant().is_empty() {
        time::sleep(TIDY).await;
        let now = clock.now();
        records.dormant().retain(|_, dormant| dormant.saved.expires > now);
    }
}

impl Exchange {
    /// Goes on with what an earlier process left: `services` by name. To be called once, before the first request.
    pub fn go_on(self: &Arc<Self>, ledger: Ledger, contents: Contents, services: &BTreeMap<String, Arc<Service>>) {
        let Contents { tokens, revocations } = contents;
        tracing::info!(tokens = tokens.len(), revocations = revocations.len(), "the ledger is open");
        let now = self.clock.now();
        for saved in tokens {
            let Some(service) = services.get(&saved.service) else { continue };
            let name = KeyedHash::from_bytes(saved.name);
            let token = self.tombstones.name(&service.identity, &saved.text);
            self.issued.add(token, Origin { entry: name, expires: saved.expires }, now);
            self.records.dormant().insert(name, Dormant { saved, service: Arc::clone(service) });
        }
        self.runtime.spawn(tidy(Arc::clone(&self.records), self.clock.clone()));
        *self.records.ledger.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(ledger));
        for saved in revocations {
            let Some(service) = services.get(&saved.service) else {
                tracing::error!(service = saved.service, "a revocation cannot be carried out: there is no such token service any more");
                self.metrics.revocation("failed");
                self.records.done(KeyedHash::from_bytes(saved.id));
                continue;
            };
            let name = self.tombstones.name(&service.identity, &saved.token);
            if self.tombstones.set(name, Some(saved.until), self.clock.now()).is_err() {
                tracing::error!("there is no room for all revocations of the ledger: see `cache.tombstones`");
            }
            self.enqueue(Revocation::new(KeyedHash::from_bytes(saved.id), service, saved.token, saved.until));
        }
    }

    /// The token that an earlier process had for this credential. The caller has just proved that it holds it, by naming the entry.
    pub(super) fn revive(&self, grant: &Arc<Grant>, presented: &Presented<'_>, key: KeyedHash) -> Option<Granted> {
        let (name, Dormant { saved, .. }) = {
            let mut dormant = self.records.dormant();
            if dormant.is_empty() {
                return None;
            }
            [key].into_iter().chain(grant.former_keys(presented)).find_map(|name| Some((name, dormant.remove(&name)?)))?
        };
        let now = self.clock.reading();
        let token = Token::restore(&saved.text, saved.minted, saved.expires, now).ok()?;
        if !token.is_valid(now, grant.service.skew()) || self.is_revoked(&grant.service, &saved.text) {
            self.records.forget(name);
            return None;
        }
        let entry = Arc::new(Entry::new(key, Arc::clone(grant), presented.to_owned(), token, true, now));
        if name != key {
            self.records.forget(name);
        }
        self.take_in(&entry, now.wall);
        Some(Granted { token: entry.token(), entry })
    }

    /// Drops the dormant tokens that are meant, and with `revoke` has them revoked; how many there were, and what came of the revocations.
    pub(super) async fn purge_dormant(
        self: &Arc<Self>,
        means: impl Fn(&KeyedHash, &SavedToken) -> bool,
        revoke: bool,
    ) -> (usize, Vec<Result<(), Error>>) {
        let meant: Vec<(KeyedHash, Dormant)> = self.records.dormant().extract_if(|name, dormant| means(name, &dormant.saved)).collect();
        let mut outcomes = Vec::new();
        for (name, Dormant { saved, service }) in &meant {
            self.records.forget(*name);
            if revoke {
                let origin = Origin { entry: *name, expires: saved.expires };
                outcomes.push(self.accept(service, &saved.text, self.tombstones.name(&service.identity, &saved.text), origin).await);
            }
        }
        (meant.len(), outcomes)
    }

    /// Everything that knows of entries learns of this one's token.
    pub(super) fn note_token(&self, entry: &Arc<Entry>, token: &Token, now: Timestamp) {
        let name = self.tombstones.name(&entry.grant.service.identity, &token.value());
        self.issued.add(name, Origin { entry: entry.key, expires: token.expires() }, now);
        self.records.keep(entry, token);
        entry.grant.service.plan(Plan::Watch(Arc::clone(entry)));
    }

    /// Puts a new entry in.
    pub(super) fn take_in(&self, entry: &Arc<Entry>, now: Timestamp) {
        self.cache.insert(Arc::clone(entry));
        self.sessions.join(&entry.grant, entry);
        entry.grant.published();
        self.note_token(entry, &entry.token(), now);
    }

    /// Writes what is waiting for the disk. The last thing that is done.
    pub fn close(&self) {
        self.records.close();
    }
}
