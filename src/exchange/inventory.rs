//! The entries as an operator sees them: nothing of a token or credential but what tells them apart.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde_json::Value;

use crate::secret::KeyedHash;

use super::entry::Entry;
use super::ledger::SavedToken;
use super::{Error, Exchange};

/// An entry, without its secrets.
#[derive(Clone, Debug, Serialize)]
pub struct Shown {
    /// Names it in `DELETE /api/tokens/{id}` and in the log, where its first eight digits stand.
    pub id: String,
    /// The route or sink that it was minted for first.
    pub route: String,
    /// The token service.
    pub service: String,
    /// `sub` of a JWT.
    pub subject: Option<String>,
    /// When its token was minted, in seconds since 1970.
    pub minted: i64,
    /// When its token ends, in seconds since 1970.
    pub expires: i64,
    /// When it is renewed, in seconds since 1970, where that is planned.
    pub renews: Option<i64>,
    /// Requests that found it at hand, its earlier tokens included.
    pub uses: u64,
    /// Whether it was used of late.
    pub in_use: bool,
}

/// Which entries are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// This one.
    Id(String),
    /// All whose token has this `sub`.
    Subject(String),
    /// All that were minted for this route first.
    Route(String),
    /// All.
    All,
}

/// What a purge did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Purged {
    /// Entries taken out.
    pub purged: usize,
    /// Of these, tokens whose revocation was accepted.
    pub revoked: usize,
}

impl Exchange {
    /// All entries, in no order. Walks the whole cache.
    pub fn inventory(&self) -> Vec<Shown> {
        let now = self.clock.reading();
        let shown = |entry: Arc<Entry>| {
            let token = entry.token();
            let renew_at = entry.agenda().renew_at;
            Shown {
                id: entry.key.id(),
                route: entry.grant.route.clone(),
                service: entry.grant.service().to_owned(),
                subject: subject(token.value().expose()),
                minted: token.minted().as_secs(),
                expires: token.expires().as_secs(),
                renews: renew_at.map(|at| now.wall.plus(at.saturating_sub(now.uptime)).as_secs()),
                uses: entry.uses(),
                in_use: entry.is_in_use(now),
            }
        };
        self.cache.all().map(shown).collect()
    }

    /// Takes entries out of use, so that their next request mints anew; with `revoke`, has their tokens revoked too.
    ///
    /// # Errors
    /// When not every revocation could be accepted. All are purged even then.
    pub async fn purge(self: &Arc<Self>, which: &Which, revoke: bool) -> Result<Purged, Error> {
        let meant: Vec<_> = self.cache.all().filter(|entry| which.means(entry)).collect();
        let mut outcomes = if revoke { self.revoke_entries(meant.clone()).await } else { Vec::new() };
        // Dead in any case: what could not be revoked is at least not used any more.
        meant.iter().for_each(|entry| self.drop_entry(entry));
        let (dormant, more) = self.purge_dormant(|name, saved| which.means_dormant(name, saved), revoke && which.tells_dormant()).await;
        outcomes.extend(more);
        let revoked = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        match outcomes.into_iter().find_map(Result::err) {
            Some(error) => Err(error),
            None => Ok(Purged { purged: meant.len() + dormant, revoked }),
        }
    }
}

impl Which {
    fn means(&self, entry: &Entry) -> bool {
        match self {
            Self::Id(id) => entry.key.id() == *id,
            Self::Subject(wanted) => subject(entry.token().value().expose()).as_ref() == Some(wanted),
            Self::Route(route) => entry.grant.route == *route,
            Self::All => true,
        }
    }
}

impl Which {
    /// The same of what an earlier process left. Of such a token nobody knows the route until its caller comes: it is dropped rather than kept.
    fn means_dormant(&self, name: &KeyedHash, saved: &SavedToken) -> bool {
        match self {
            Self::Id(id) => name.id() == *id,
            Self::Subject(wanted) => subject(saved.text.expose()).as_ref() == Some(wanted),
            Self::Route(_) | Self::All => true,
        }
    }

    /// Whether that tells for sure that the token is meant, so that it may be revoked.
    const fn tells_dormant(&self) -> bool {
        !matches!(self, Self::Route(_))
    }
}

/// Read where it is wanted rather than kept: it would cost memory for each token.
fn subject(token: &str) -> Option<String> {
    let claims = token.split('.').nth(1)?;
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims.trim_end_matches('=')).ok()?).ok()?;
    claims.get("sub")?.as_str().map(str::to_owned)
}
