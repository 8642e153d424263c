//! When a token that something still rides on is over: its time has come, or it was revoked. For streams that must not outlive it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time;

use super::presented::Verifier;
use super::{Exchange, Granted};
use crate::token::Token;

/// So late the end by a step of the wall clock, or by a check that nothing announces, may be noticed.
const LOOK: Duration = Duration::from_secs(1);

/// Why a token is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// It has expired.
    Expired,
    /// It was revoked, or its credential is no longer accepted.
    Revoked,
}

impl Over {
    /// The word for it, in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        }
    }
}

impl Exchange {
    /// Returns when a minted token is over. Another one that takes its place at the exchange does not lengthen it: the upstream was given this one.
    pub async fn end_of_minted(self: &Arc<Self>, granted: &Granted) -> Over {
        let service = &granted.entry.grant.service;
        let value = granted.token.value();
        self.end_of(&granted.token, || granted.entry.is_invalidated() || self.is_revoked(service, &value)).await
    }

    /// Returns when a presented JWT is over.
    pub async fn end_of_presented(self: &Arc<Self>, verifier: &Verifier, token: &Token) -> Over {
        self.end_of(token, || self.is_revoked_presented(verifier, token)).await
    }

    async fn end_of(&self, token: &Token, is_revoked: impl Fn() -> bool) -> Over {
        loop {
            let told = self.endings.notified();
            let now = self.clock.reading();
            if token.is_dead(now) {
                return Over::Expired;
            }
            if is_revoked() {
                return Over::Revoked;
            }
            let left = token.dies().saturating_sub(now.uptime).min(token.expires().since(now.wall));
            tokio::select! {
                () = told => {}
                () = time::sleep(left.min(LOOK)) => {}
            }
        }
    }
}
