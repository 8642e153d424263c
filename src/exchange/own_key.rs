//! bearerd's own mounted key: its token is always at hand, and a new key takes over only with a token of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::time;

use super::backoff::Backoff;
use super::{Error, Exchange, Grant, Granted, Lookup};
use crate::credential::{Kind, Presented};
use crate::mounted::MountedKey;
use crate::secret::{KeyedHash, Secret};

/// How often it is seen to that there still is a token: one may have been revoked, or have expired in an outage.
const CHECK: Duration = Duration::from_secs(5);

/// A mounted key as one route or sink uses it.
pub struct OwnKey {
    mounted: Arc<MountedKey>,
    /// The key whose token is served: the file's, or the one before while there is no token for that.
    in_use: ArcSwap<Secret>,
    /// What the tokens are for.
    pub grant: Arc<Grant>,
    revoke_on_change: bool,
    has_token: AtomicBool,
}

impl OwnKey {
    /// The key in `mounted`, for what `grant` asks.
    pub fn new(mounted: Arc<MountedKey>, grant: Arc<Grant>, revoke_on_change: bool) -> Self {
        Self { in_use: ArcSwap::new(mounted.current()), mounted, grant, revoke_on_change, has_token: AtomicBool::new(false) }
    }

    /// The key to look tokens up with.
    pub fn current(&self) -> Arc<Secret> {
        self.in_use.load_full()
    }

    /// The name of its token's entry.
    pub fn name(&self) -> KeyedHash {
        self.grant.key(&presented(&self.current()))
    }

    /// Whether there has been a token.
    pub fn has_token(&self) -> bool {
        self.has_token.load(Ordering::Acquire)
    }

    /// Sees to it that there is a token, for as long as the process lives.
    pub async fn keep(self: Arc<Self>, exchange: Arc<Exchange>) {
        let mut changes = self.mounted.changes();
        let mut backoff = Backoff::default();
        loop {
            let wanted = self.mounted.current();
            match exchange.token_for(&self.grant, &wanted).await {
                Ok(_) => {
                    self.take_over(&exchange, wanted).await;
                    self.has_token.store(true, Ordering::Release);
                    backoff.reset();
                    let _ = time::timeout(CHECK, changes.changed()).await;
                }
                Err(error) => {
                    tracing::error!(route = self.grant.route, service = self.grant.service(), %error, "there is no token for the mounted key");
                    if exchange.held(&self.grant, &self.current()).is_none() {
                        // Nothing is lost with the old key.
                        self.in_use.store(wanted);
                    }
                    let _ = time::timeout(backoff.pause(), changes.changed()).await;
                }
            }
        }
    }

    async fn take_over(&self, exchange: &Arc<Exchange>, wanted: Arc<Secret>) {
        let old = self.in_use.swap(Arc::clone(&wanted));
        if *old == *wanted {
            return;
        }
        let Some(granted) = exchange.held(&self.grant, &old) else { return };
        tracing::info!(
            route = self.grant.route,
            revoke = self.revoke_on_change,
            "the new mounted key has its token: the old one's is dropped"
        );
        if self.revoke_on_change
            && let Err(error) = exchange.revoke_entry(&granted.entry).await
        {
            tracing::error!(%error, "the token of the old mounted key could not be revoked");
        }
        exchange.drop_entry(&granted.entry);
    }
}

impl Exchange {
    /// Lets go of the token of a mounted key that no configuration has any more: nobody else would, since it is renewed without being used.
    pub fn let_go(&self, name: KeyedHash) {
        if let Some(entry) = self.cache.get(&name) {
            self.drop_entry(&entry);
        }
    }

    /// The token at hand for a mounted key.
    fn held(&self, grant: &Grant, key: &Secret) -> Option<Granted> {
        let entry = self.cache.get(&grant.key(&presented(key)))?;
        let token = entry.token();
        token.is_valid(self.clock.reading(), grant.service.skew()).then_some(Granted { entry, token })
    }

    /// The token for a mounted key, minted where there is none.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) async fn token_for(self: &Arc<Self>, grant: &Arc<Grant>, key: &Secret) -> Result<Granted, Error> {
        if let Some(granted) = self.held(grant, key) {
            return Ok(granted);
        }
        let presented = presented(key);
        let key = grant.key(&presented);
        match self.lookup(grant, key, Instant::now()) {
            Lookup::Hit(granted) => Ok(granted),
            Lookup::Refused(error) => Err(error),
            Lookup::Miss => self.mint(grant, &presented, key).await.1,
        }
    }
}

fn presented(key: &Secret) -> Presented<'_> {
    Presented { kind: Kind::ApiKey, value: key.expose().into() }
}
