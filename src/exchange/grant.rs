//! What one route asks of the exchange: service, parameters, checks, and how long tokens are kept fresh.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::service::Service;
use crate::credential::Presented;
use crate::secret::{FieldHasher, HashKey, KeyedHash};
use crate::token::Lifetimes;
use crate::token_service::TokenParams;

/// When `get_token_details` is asked about a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Details {
    /// Never.
    Off,
    /// Once, after the mint and before the first use.
    OnMint,
    /// Then, and so often after it.
    Every(Duration),
}

/// Which tokens are renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Those that were used since they were minted.
    InUse,
    /// Those that were used within a day (`keep_warm`).
    Warm,
    /// All: the credential is bearerd's own.
    Always,
}

/// What a route asks for.
#[derive(Clone, Debug)]
pub struct Terms {
    /// The parameters of `create_token`.
    pub params: TokenParams,
    /// When tokens are checked.
    pub details: Details,
    /// How long tokens live beside what they say themselves.
    pub lifetimes: Lifetimes,
    /// How often a psToken's session is extended.
    pub session_refresh: Duration,
    /// Which tokens are renewed.
    pub keep: Keep,
}

/// What a route asks for, with its service, prepared once.
pub struct Grant {
    /// The route's or sink's name, for metrics and operators.
    pub(super) route: String,
    pub(super) service: Arc<Service>,
    pub(super) params: TokenParams,
    pub(super) details: Details,
    pub(super) lifetimes: Lifetimes,
    pub(super) session_refresh: Duration,
    pub(super) keep: Keep,
    /// The hash of all that is the same for every caller of the route.
    prefix: FieldHasher,
    /// The same under keys that a ledger was written with before.
    former: Vec<FieldHasher>,
    published: watch::Sender<u64>,
}

impl Grant {
    pub(super) fn new(hash_keys: &HashKeys, route: &str, service: &Arc<Service>, terms: Terms) -> Self {
        let prefix = common_fields(&hash_keys.current, service, &terms);
        let former = hash_keys.former.iter().map(|key| common_fields(key, service, &terms)).collect();
        let Terms { params, details, lifetimes, session_refresh, keep } = terms;
        Self {
            route: route.to_owned(),
            service: Arc::clone(service),
            params,
            details,
            lifetimes,
            session_refresh,
            keep,
            prefix,
            former,
            published: watch::Sender::new(0),
        }
    }

    /// The service's name.
    pub fn service(&self) -> &str {
        self.service.name()
    }

    /// The name of a credential's entry here.
    pub fn key(&self, credential: &Presented<'_>) -> KeyedHash {
        finish(&self.prefix, credential)
    }

    /// What the entry was called under former keys.
    pub(super) fn former_keys(&self, credential: &Presented<'_>) -> impl Iterator<Item = KeyedHash> {
        self.former.iter().map(|prefix| finish(prefix, credential))
    }

    /// Changes whenever a fresh token for this grant is at hand.
    pub(super) fn publications(&self) -> watch::Receiver<u64> {
        self.published.subscribe()
    }

    pub(super) fn published(&self) {
        self.published.send_modify(|count| *count = count.wrapping_add(1));
    }
}

/// The keys under which entries are named.
pub struct HashKeys {
    /// Names what comes from now on.
    pub current: HashKey,
    /// Named what a ledger holds from before.
    pub former: Vec<HashKey>,
}

fn finish(prefix: &FieldHasher, credential: &Presented<'_>) -> KeyedHash {
    let mut hasher = prefix.clone();
    hasher.field(credential.kind.as_str().as_bytes()).field(credential.value.as_bytes());
    hasher.finish()
}

/// Everything but the credential, in order: a change in any of it is another token (rule 1 of the design). The checks and lifetimes are of it: a token
/// that one route uses unchecked, or for longer, is not one that another may; so is what keeps it fresh, which a route shall not lose to another.
fn common_fields(hash_key: &HashKey, service: &Service, terms: &Terms) -> FieldHasher {
    let Terms { params, details, lifetimes, session_refresh, keep } = terms;
    let TokenParams { client_id, domain, data, scopes, acl, mem, cwid, cid, return_session_token } = params;
    let mut prefix = hash_key.hasher();
    prefix.field(service.identity.0.as_bytes()).field(service.identity.1.as_bytes());
    prefix.optional(client_id.as_deref()).optional(domain.as_deref()).optional(data.as_deref());
    prefix.list(scopes).list(acl).list(mem);
    prefix.optional(cwid.as_deref()).optional(cid.as_deref()).field(&[u8::from(*return_session_token)]);
    let checks = match details {
        Details::Off => None,
        Details::OnMint => Some(Duration::ZERO),
        Details::Every(span) => Some(*span),
    };
    for span in [checks, Some(lifetimes.session), lifetimes.max_age, Some(*session_refresh)] {
        prefix.field(&span.map_or(u128::MAX, |span| span.as_millis()).to_le_bytes());
    }
    prefix.field(&[match keep {
        Keep::InUse => 0,
        Keep::Warm => 1,
        Keep::Always => 2,
    }]);
    prefix
}
