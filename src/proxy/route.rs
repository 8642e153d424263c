//! A route as the proxy serves it: who may use it, what it demands, what serves it.

use std::sync::Arc;

use http::{HeaderName, StatusCode};

use super::inject::Names;
use super::upstream::Upstream;
use crate::authorize::{Policy, Rendered};
use crate::credential::{Kind, Presented, Source};
use crate::exchange::{Grant, OwnKey, Verifier};
use crate::rate_limit::RateLimit;
use crate::secret::KeyedHash;
use crate::telemetry::metrics::RouteMetrics;
use crate::token_api::TokenApi;

/// A route, ready to serve.
pub struct Route {
    /// Its name in logs and metrics.
    pub name: String,
    /// Who may.
    pub access: Access,
    /// What serves it.
    pub action: Action,
    /// An upstream's 401 to an injected token makes bearerd mint another (`on_upstream_401`).
    pub renew_on_401: bool,
    /// Requests are cut off when their token is over (`on_expiry: close`).
    pub ends_with_token: bool,
    /// Refusals are carried out; else they are only counted, and requests go on as they came.
    pub enforce: bool,
    /// How often one may come.
    pub rate_limit: Option<RateLimit>,
    /// What the token must say, and what the upstream is told beside it.
    pub policy: Policy,
    /// Headers that the upstream does not get.
    pub removed: Names,
    /// What is set and removed in the upstream's answer.
    pub response: ResponseHeaders,
    /// Its series.
    pub metrics: RouteMetrics,
}

/// Who may use a route.
pub enum Access {
    /// Everybody; no credential is looked for.
    Public,
    /// Whoever brings a credential for which there is a token.
    Protected {
        /// Where the credential is looked for.
        sources: Vec<Source>,
        /// Several credentials at once are refused.
        one_only: bool,
        /// What the exchange is asked for; none where only JWTs are taken.
        grant: Option<Arc<Grant>>,
        /// How JWTs are validated, where they are taken.
        verifier: Option<Arc<Verifier>>,
    },
    /// Everybody, as bearerd itself: callers send no credential.
    Own(Arc<OwnKey>),
}

/// What a route changes in answers.
#[derive(Default)]
pub struct ResponseHeaders {
    /// Set, in place of what the upstream says.
    pub set: Vec<(&'static str, Rendered)>,
    /// Removed.
    pub remove: Vec<HeaderName>,
}

/// What a credential is turned into a token by.
#[derive(Clone, Copy)]
pub(super) enum Way<'r> {
    /// The token service mints one for it.
    Mint(&'r Arc<Grant>),
    /// It is a token itself, and is validated.
    Verify(&'r Arc<Verifier>),
}

impl Access {
    /// The way of a caller's credential of this kind; none where the route has nothing for it.
    pub(super) fn way(&self, kind: Kind) -> Option<Way<'_>> {
        match self {
            Self::Protected { verifier, .. } if kind == Kind::Jwt => verifier.as_ref().map(Way::Verify),
            Self::Protected { grant, .. } => grant.as_ref().map(Way::Mint),
            Self::Public | Self::Own(_) => None,
        }
    }
}

impl Way<'_> {
    /// The name of the credential's entry in the cache.
    pub(super) fn key(self, presented: &Presented<'_>) -> KeyedHash {
        match self {
            Self::Mint(grant) => grant.key(presented),
            Self::Verify(verifier) => verifier.key(presented),
        }
    }
}

/// What serves a route.
pub enum Action {
    /// An upstream.
    Forward(Arc<Upstream>),
    /// A fixed answer without a body.
    Respond(StatusCode),
    /// Another proxy, which only asks for a decision.
    Elsewhere,
    /// The token service's own endpoints; they judge credentials themselves.
    TokenApi(Box<TokenApi>),
}
