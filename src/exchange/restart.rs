//! What outlives the process: tokens come back when their caller does, and revocations are carried on.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::entry::Entry;
use super::issued::Origin;
use super::ledger::{Contents, Ledger, SavedRevocation, SavedToken, Unwritten};
use super::revoke::Revocation;
use super::service::Service;
use super::timetable::Plan;
use super::{Exchange, Grant, Granted};
use crate::clock::Timestamp;
use crate::credential::Presented;
use crate::secret::{BuildAlreadyHashed, KeyedHash};
use crate::token::Token;

/// The ledger, where there is one, and what of it nobody has asked for yet.
pub(super) struct Records {
    ledger: Mutex<Option<Arc<Ledger>>>,
    dormant: Mutex<HashMap<KeyedHash, SavedToken, BuildAlreadyHashed>>,
}

impl Records {
    pub(super) fn new() -> Self {
        Self { ledger: Mutex::default(), dormant: Mutex::default() }
    }

    fn ledger(&self) -> Option<Arc<Ledger>> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn dormant(&self) -> MutexGuard<'_, HashMap<KeyedHash, SavedToken, BuildAlreadyHashed>> {
        self.dormant.lock().unwrap_or_else(PoisonError::into_inner)
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

impl Exchange {
    /// Goes on with what an earlier process left: `services` by name. To be called once, before the first request.
    pub fn go_on(self: &Arc<Self>, ledger: Ledger, contents: Contents, services: &BTreeMap<String, Arc<Service>>) {
        let Contents { tokens, revocations } = contents;
        tracing::info!(tokens = tokens.len(), revocations = revocations.len(), "the ledger is open");
        *self.records.dormant() = tokens.into_iter().map(|token| (KeyedHash::from_bytes(token.name), token)).collect();
        *self.records.ledger.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(ledger));
        for saved in revocations {
            // Its name may be of a former key.
            let name = self.tombstones.name(&saved.token);
            if self.tombstones.set(name, Some(saved.until), self.clock.now()).is_err() {
                tracing::error!("there is no room for all revocations of the ledger: see `cache.tombstones`");
            }
            let Some(service) = services.get(&saved.service) else {
                tracing::error!(service = saved.service, "a revocation cannot be carried out: there is no such token service any more");
                self.metrics.revocation("failed");
                self.records.done(KeyedHash::from_bytes(saved.id));
                continue;
            };
            self.enqueue(Revocation::new(KeyedHash::from_bytes(saved.id), service, saved.token, saved.until));
        }
    }

    /// The token that an earlier process had for this credential. The caller has just proved that it holds it, by naming the entry.
    pub(super) fn revive(&self, grant: &Arc<Grant>, presented: &Presented<'_>, key: KeyedHash) -> Option<Granted> {
        let (name, saved) = {
            let mut dormant = self.records.dormant();
            if dormant.is_empty() {
                return None;
            }
            [key].into_iter().chain(grant.former_keys(presented)).find_map(|name| Some((name, dormant.remove(&name)?)))?
        };
        let now = self.clock.reading();
        let token = Token::restore(&saved.text, saved.minted, saved.expires, now).ok()?;
        if !token.is_valid(now, grant.service.bounds.skew) || self.is_revoked(&saved.text) {
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

    /// Everything that knows of entries learns of this one's token.
    pub(super) fn note_token(&self, entry: &Arc<Entry>, token: &Token, now: Timestamp) {
        let name = self.tombstones.name(&token.value());
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
