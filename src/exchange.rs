//! The exchange: a credential in, a valid token out. The one door to tokens.
//!
//! A look-up is a keyed hash and one map access; it takes no lock across an await and starts nothing. Only a miss goes on to a mint, which runs
//! in a task of its own: a caller who hangs up neither cancels it for the others nor causes a second one (rule 8 of the design).

mod budget;
mod cache;
mod mint;
mod negative;
mod single_flight;

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time;

use crate::clock::Clock;
use crate::credential::Presented;
use crate::refusal::{Reason, Refusal};
use crate::secret::{FieldHasher, HashKey, KeyedHash};
use crate::telemetry::metrics::{Counted, Metrics};
use crate::token::Token;
use crate::token_service::{TokenParams, TokenService};

use budget::Budget;
use cache::Cache;
use mint::Mint;
use negative::Negative;
use single_flight::Flights;

/// After this, a caller may try again where the token service named no time.
const RETRY: Duration = Duration::from_secs(1);
/// How long a key is left alone after the token service denied its own fresh token twice.
const HOLD_OFF: Duration = Duration::from_secs(5);
/// How long a 400 is remembered: it is a fault of the configuration, which somebody may be mending.
const REJECTED_TTL: Duration = Duration::from_secs(5);

/// Why there is no token. Shared by all who waited for the same mint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The token service said 401: the caller needs another credential.
    #[error("the token service denied the credential")]
    Denied,
    /// The token service said 403: the caller may not have what the route asks for.
    #[error("the token service forbids this: {0}")]
    Forbidden(String),
    /// The token service said 400: the operator must mend the route's parameters.
    #[error("the token service rejected the parameters: {0}")]
    Rejected(String),
    /// The token service cannot be used now: try again after this.
    #[error("the token service is unavailable: {cause}")]
    Unavailable {
        /// What happened, for the log.
        cause: String,
        /// After which it is worth to try again.
        retry_after: Duration,
    },
    /// The mint budget is used up: try again soon.
    #[error("too many mints wait, or this one took longer than `mint.wait`")]
    Budget,
}

impl Error {
    /// What the caller gets. The cause of an outage is for the log, not for the caller.
    pub fn refusal(&self) -> Refusal {
        match self {
            Self::Denied => Refusal::new(
                Reason::Denied,
                "The token service does not accept this credential. Check that it is complete, current and meant for this service.",
            ),
            Self::Forbidden(message) => Refusal::new(
                Reason::Forbidden,
                format!("The token service does not allow this credential what the route asks for: {message}"),
            ),
            Self::Rejected(_) => Refusal::new(
                Reason::TokenRequestRejected,
                "The token service rejected the parameters that this route is configured with. Tell the operator of this proxy.",
            ),
            Self::Unavailable { retry_after, .. } => Refusal::new(
                Reason::TokenServiceUnavailable,
                "The token service cannot be used now. Your credential was not judged; try again later.",
            )
            .retry_after(*retry_after),
            Self::Budget => {
                Refusal::new(Reason::MintBudget, "Too many tokens are being asked for at once. Try again later.").retry_after(RETRY)
            }
        }
    }
}

/// A token service with the bounds on its use.
pub struct Service {
    name: String,
    /// Kind and URL: part of every cache key.
    identity: (&'static str, String),
    client: Arc<dyn TokenService>,
    skew: Duration,
    wait: Duration,
    budget: Budget,
}

/// Bounds on the use of a token service.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// `create_token` calls at one time.
    pub concurrency: usize,
    /// `create_token` calls a second.
    pub rate: u32,
    /// Mints that may wait for their turn.
    pub queue: usize,
    /// Time that a request waits for a token.
    pub wait: Duration,
    /// How far the service's clock may be ahead of ours.
    pub skew: Duration,
}

impl Service {
    /// A service called `name` in metrics and logs; `kind` and `url` tell its tokens from another's.
    pub fn new(name: &str, kind: &'static str, url: &str, client: Arc<dyn TokenService>, bounds: Bounds) -> Self {
        Self {
            name: name.to_owned(),
            identity: (kind, url.to_owned()),
            client,
            skew: bounds.skew,
            wait: bounds.wait,
            budget: Budget::new(bounds.concurrency, bounds.rate, bounds.queue),
        }
    }
}

/// What one route asks of the exchange: service, parameters, checks.
pub struct Grant {
    service: Arc<Service>,
    params: TokenParams,
    check_details: bool,
    session_lifetime: Duration,
    /// The hash of all that is the same for every caller of the route.
    prefix: FieldHasher,
}

impl Grant {
    /// The service's name.
    pub fn service(&self) -> &str {
        &self.service.name
    }

    /// Everything but the credential, in order: a change in any of it is another token (rule 1 of the design). The checks are of it: a token that one
    /// route uses unchecked, or for longer, is not one that another may.
    fn hash_common_fields(&mut self) {
        let Self { service, params, check_details, session_lifetime, prefix } = self;
        let TokenParams { client_id, domain, data, scopes, acl, mem, cwid, cid, return_session_token } = params;
        prefix.field(service.identity.0.as_bytes()).field(service.identity.1.as_bytes());
        prefix.optional(client_id.as_deref()).optional(domain.as_deref()).optional(data.as_deref());
        prefix.list(scopes).list(acl).list(mem);
        prefix.optional(cwid.as_deref()).optional(cid.as_deref()).field(&[u8::from(*return_session_token)]);
        prefix.field(&[u8::from(*check_details)]).field(&session_lifetime.as_millis().to_le_bytes());
    }

    fn key(&self, credential: &Presented<'_>) -> KeyedHash {
        let mut hasher = self.prefix.clone();
        hasher.field(credential.kind.as_str().as_bytes()).field(credential.value.as_bytes());
        hasher.finish()
    }
}

/// What a look-up found.
pub enum Lookup {
    /// A token that is valid now.
    Hit(Arc<Token>),
    /// A remembered refusal.
    Refused(Error),
    /// Neither: ask [`Exchange::mint`] under this name.
    Miss(KeyedHash),
}

/// Whether a request began the mint that it waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// It began the mint.
    Led,
    /// Another one had.
    Joined,
}

/// Bounds on what is remembered.
#[derive(Clone, Copy, Debug)]
pub struct Capacity {
    /// Tokens kept.
    pub tokens: u64,
    /// Refusals kept.
    pub negative: u64,
    /// How long a refusal is kept.
    pub negative_ttl: Duration,
}

/// All tokens of this process.
pub struct Exchange {
    hash_key: HashKey,
    cache: Cache,
    negative: Negative,
    flights: Flights,
    clock: Clock,
    runtime: Handle,
    metrics: Arc<Metrics>,
}

impl Exchange {
    /// An empty exchange, whose mints run on `runtime`.
    pub fn new(hash_key: HashKey, capacity: Capacity, clock: Clock, runtime: Handle, metrics: Arc<Metrics>) -> Self {
        Self {
            hash_key,
            cache: Cache::new(capacity.tokens, Arc::clone(&metrics)),
            negative: Negative::new(capacity.negative, capacity.negative_ttl),
            flights: Flights::default(),
            clock,
            runtime,
            metrics,
        }
    }

    /// What a route asks for, prepared once.
    pub fn grant(&self, service: &Arc<Service>, params: TokenParams, check_details: bool, session_lifetime: Duration) -> Grant {
        let prefix = self.hash_key.hasher();
        let mut grant = Grant { service: Arc::clone(service), params, check_details, session_lifetime, prefix };
        grant.hash_common_fields();
        grant
    }

    /// Looks for a token without waiting for anything.
    pub fn lookup(&self, grant: &Grant, credential: &Presented<'_>) -> Lookup {
        let key = grant.key(credential);
        let now = self.clock.now();
        let nothing = match self.cache.get(&key) {
            Some(token) if token.is_valid(now, grant.service.skew) => {
                self.metrics.cache_hit.inc();
                return Lookup::Hit(token);
            }
            Some(_) => &self.metrics.cache_expired,
            None => &self.metrics.cache_miss,
        };
        if let Some(error) = self.negative.get(&key, now) {
            self.metrics.cache_negative.inc();
            return Lookup::Refused(error);
        }
        nothing.inc();
        Lookup::Miss(key)
    }

    /// Mints a token, or waits for a mint of the same that is under way; at most the service's `mint.wait`.
    ///
    /// # Errors
    /// Why there is no token.
    pub async fn mint(
        self: &Arc<Self>,
        grant: &Arc<Grant>,
        credential: &Presented<'_>,
        key: KeyedHash,
    ) -> (Part, Result<Arc<Token>, Error>) {
        let (flight, landing) = self.flights.board(key);
        let part = if landing.is_some() { Part::Led } else { Part::Joined };
        if let Some(landing) = landing {
            // The mint that this look-up missed may have ended since: what it left is good for us too.
            let now = self.clock.now();
            if let Some(token) = self.cache.get(&key).filter(|token| token.is_valid(now, grant.service.skew)) {
                landing.land(Ok(token));
            } else if let Some(error) = self.negative.get(&key, now) {
                landing.land(Err(error));
            } else {
                let mint = Mint { exchange: Arc::clone(self), grant: Arc::clone(grant), credential: credential.to_owned(), key };
                self.runtime.spawn(mint.run(landing));
            }
        }
        let waiting = (part == Part::Joined).then(|| Counted::in_gauge(&self.metrics.coalesced_waiters));
        let outcome = time::timeout(grant.service.wait, flight.arrival()).await.unwrap_or(Err(Error::Budget));
        drop(waiting);
        (part, outcome)
    }

    /// Brings the gauges up to date before a scrape.
    pub fn refresh_gauges(&self) {
        self.metrics.cache_entries.set(i64::try_from(self.cache.len()).unwrap_or(i64::MAX));
    }
}

const fn unavailable(cause: String, retry_after: Duration) -> Error {
    Error::Unavailable { cause, retry_after }
}
