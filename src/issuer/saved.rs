//! What goes into the state file, and comes back from it.

use std::sync::Arc;

use jsonwebtoken::jwk::Jwk;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::grants::Grants;
use super::holder::{Context, Holder};
use super::refusal::Refusal;
use super::signing_key::PublicKey;
use super::signing_keys::Retired;
use super::state::{self, Table};
use super::{Issuer, keys_file, lock};
use crate::clock::Timestamp;
use crate::issuer::api_key::{ApiKey, KeyHash};
use crate::secret::KeyedHash;

const UNWRITABLE: Refusal = Refusal::Unavailable("the state file cannot be written");

/// A session. The key's entry is told by its hash: one that was changed meanwhile is another.
#[derive(Serialize, Deserialize)]
struct Session {
    name: String,
    entry: String,
    scopes: Vec<String>,
    acl: Vec<String>,
    mem: Map<String, Value>,
    context: [Option<String>; 5],
    sid: Option<String>,
}

fn entry_of(key: &ApiKey) -> String {
    KeyHash::of(&keys_file::render(key, 0)).to_string()
}

impl Session {
    fn of(holder: &Holder) -> Self {
        let (grants, context) = (&*holder.grants, holder.context.clone());
        Self {
            name: holder.key.name.clone(),
            entry: entry_of(&holder.key),
            scopes: grants.scopes.clone(),
            acl: grants.acl.clone(),
            mem: grants.mem.clone(),
            context: [context.client_id, context.domain, context.data, context.cwid, context.cid],
            sid: holder.sid.clone(),
        }
    }

    fn holder(self, key: &Arc<ApiKey>) -> Option<Holder> {
        if entry_of(key) != self.entry {
            return None;
        }
        let [client_id, domain, data, cwid, cid] = self.context;
        Some(Holder {
            key: Arc::clone(key),
            grants: Arc::new(Grants { scopes: self.scopes, acl: self.acl, mem: self.mem }),
            context: Context { client_id, domain, data, cwid, cid },
            sid: self.sid,
        })
    }
}

/// A signing key.
#[derive(Serialize, Deserialize)]
struct SavedKey {
    jwk: Jwk,
    /// The one in use when this was written.
    current: bool,
}

impl Issuer {
    /// Takes in what the state file has.
    pub(super) fn restore(&self) -> Result<(), state::Error> {
        let Some(state) = &self.state else { return Ok(()) };
        let now = self.clock.now();
        let keys = self.keys.load();
        for (name, session, end) in state.all::<Session>(Table::Sessions)? {
            let holder = keys.named(&session.name).and_then(|key| session.holder(key));
            if let (Ok(name), Some(holder)) = (name.try_into(), holder) {
                let _ = lock(&self.sessions).insert(KeyedHash::from_bytes(name), holder, end, now);
            }
        }
        for (name, (), end) in state.all(Table::Revocations)? {
            if let Ok(name) = name.try_into() {
                let _ = lock(&self.revoked).insert(KeyedHash::from_bytes(name), (), end, now);
            }
        }
        for (_, saved, end) in state.all::<SavedKey>(Table::SigningKeys)? {
            let Some(key) = PublicKey::from_jwk(saved.jwk) else { continue };
            // One that was in use and is no more was replaced while nobody looked: its tokens may be as new as that.
            let until = if saved.current { end.min(now.plus(self.settings.lifetime.min(self.settings.key_overlap))) } else { end };
            self.signing_keys.take_back(Retired { key, until });
        }
        self.save_keys();
        Ok(())
    }

    /// Writes which key is in use, and those before it. A failure is told: it matters only at the next start.
    pub(super) fn save_keys(&self) {
        let Some(state) = &self.state else { return };
        let current = self.signing_keys.current();
        // In use until told otherwise: then it counts from that moment.
        let forever = Timestamp::from_secs(253_402_300_799);
        let mut written = state.put(
            Table::SigningKeys,
            current.public.id().as_bytes(),
            &SavedKey { jwk: current.public.jwk().clone(), current: true },
            forever,
        );
        for Retired { key, until } in self.signing_keys.retired() {
            let saved = SavedKey { jwk: key.jwk().clone(), current: false };
            written = written.and(state.put(Table::SigningKeys, key.id().as_bytes(), &saved, until));
        }
        if let Err(error) = written {
            tracing::error!(%error, "the state file cannot be written: a signing key that was replaced may be forgotten by a restart");
        }
    }

    pub(super) async fn save_session(&self, id: KeyedHash, holder: &Holder, end: Timestamp) -> Result<(), Refusal> {
        let session = Session::of(holder);
        self.save(Table::Sessions, id, session, end).await
    }

    pub(super) async fn save_revocation(&self, id: KeyedHash, end: Timestamp) -> Result<(), Refusal> {
        self.save(Table::Revocations, id, (), end).await
    }

    /// On disk when this returns; the disk is not waited for on a thread that others need.
    async fn save<V: Serialize + Send + 'static>(&self, table: Table, id: KeyedHash, value: V, end: Timestamp) -> Result<(), Refusal> {
        let Some(state) = self.state.clone() else { return Ok(()) };
        let written = tokio::task::spawn_blocking(move || state.put(table, &id.to_bytes(), &value, end)).await;
        match written {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                tracing::error!(%error, "the state file cannot be written");
                Err(UNWRITABLE)
            }
            Err(_) => Err(UNWRITABLE),
        }
    }
}
