//! The exchange: a credential in, a valid token out. The one door to tokens.
//!
//! A look-up is a keyed hash and one map access; it takes no lock across an await and starts nothing. Only a miss goes on to a mint, which runs
//! in a task of its own: a caller who hangs up neither cancels it for the others nor causes a second one (rule 8 of the design).

mod backoff;
mod budget;
mod cache;
mod ending;
mod entry;
mod gate;
mod grant;
mod inventory;
mod issued;
pub mod ledger;
mod mint;
mod negative;
mod on_behalf;
mod own_key;
mod presented;
mod renew;
mod restart;
mod revalidate;
mod revoke;
mod service;
mod session;
mod single_flight;
mod sinks;
mod timetable;
mod tombstones;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jsonwebtoken::Algorithm;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time;

use crate::clock::Clock;
use crate::credential::Presented;
use crate::jwks::Fault;
use crate::jwks::rules::Rules;
use crate::jwks::source::Source;
use crate::refusal::{Reason, Refusal};
use crate::secret::KeyedHash;
use crate::telemetry::metrics::{Counted, Metrics};
use crate::telemetry::traces::FutureExt as _;
use crate::token::Token;

use cache::{Cache, Cause};
use entry::{Entry, Lapsed};
use issued::Issued;
use mint::{Mint, Occasion};
use negative::Negative;
use on_behalf::OnBehalf;
use presented::Verdicts;
use restart::Records;
use session::Sessions;
use single_flight::Flights;
use timetable::{Plan, Timetable};
use tombstones::Tombstones;

pub use ending::Over;
pub use grant::{Details, Grant, HashKeys, Keep, Terms};
pub use inventory::{Purged, Shown, Which};
pub use own_key::OwnKey;
pub use presented::Verifier;
pub use revoke::Refused;
pub use service::{Bounds, Service};
pub use single_flight::Flight;
pub use sinks::Sink;

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
    /// The JWT that a caller brought is not accepted: the caller needs another one.
    #[error("the presented JWT is not accepted: {0}")]
    InvalidToken(Fault),
    /// The JWT that a caller brought was revoked, or the token service does not know it.
    #[error("the presented JWT was revoked, or the token service does not know it")]
    Revoked,
    /// The mint budget is used up: try again soon.
    #[error("too many mints wait, or this one took longer than `mint.wait`")]
    Budget,
}

impl Error {
    /// Whether the token service said no for good.
    const fn is_denial(&self) -> bool {
        matches!(self, Self::Denied | Self::Forbidden(_))
    }

    /// What the caller gets where the credential is bearerd's own.
    pub fn refusal_of_own_key(&self) -> Refusal {
        if self.is_denial() {
            return Refusal::new(
                Reason::MountedCredentialDenied,
                "The token service does not accept this proxy's own key. Tell the operator of this proxy.",
            );
        }
        self.refusal()
    }

    /// What the caller gets. The cause of an outage is for the log, not for the caller.
    pub fn refusal(&self) -> Refusal {
        match self {
            Self::Denied => Refusal::new(
                Reason::Denied,
                "The token service does not accept this credential. Check that it is complete, current and meant for this service.",
            ),
            Self::InvalidToken(fault) => Refusal::new(Reason::InvalidToken, format!("The JWT is not accepted: {fault}.")),
            Self::Revoked => Refusal::new(Reason::InvalidToken, "The JWT is not accepted: it was revoked, or its issuer does not know it."),
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

/// A token that is valid now, and where it comes from.
#[derive(Clone)]
pub struct Granted {
    entry: Arc<Entry>,
    token: Arc<Token>,
}

impl Granted {
    /// The token.
    pub fn token(&self) -> &Token {
        &self.token
    }

    /// The name of its entry: the credential's and the route's parameters'.
    pub fn key(&self) -> KeyedHash {
        self.entry.key
    }
}

/// What a look-up found.
pub enum Lookup {
    /// A token that is valid now.
    Hit(Granted),
    /// A remembered refusal.
    Refused(Error),
    /// Neither: ask [`Exchange::mint`].
    Miss,
}

/// Whether a request began the mint that it waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// It began the mint.
    Led,
    /// Another one had.
    Joined,
}

/// What comes in the place of a token that an upstream refused.
pub enum Replacement {
    /// There is another token already.
    AtHand(Granted),
    /// One is being minted.
    Sought {
        /// The mint.
        flight: Flight,
        /// What it replaces.
        rejected: Granted,
    },
    /// Nothing: there was a mint a moment ago.
    None,
}

impl Replacement {
    /// Waits for a token that is not the refused one; at most the service's `mint.wait`.
    pub async fn arrival(self) -> Option<Granted> {
        match self {
            Self::AtHand(granted) => Some(granted),
            Self::Sought { flight, rejected } => {
                let arrived = time::timeout(rejected.entry.grant.service.wait(), flight.arrival()).await;
                let granted = arrived.ok()?.ok()?;
                (granted.token.authorization() != rejected.token.authorization()).then_some(granted)
            }
            Self::None => None,
        }
    }
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
    /// Revoked tokens remembered; past it no more can be revoked.
    pub tombstones: usize,
    /// How long one is remembered at most.
    pub tombstone_ttl: Duration,
}

/// An upstream's 401 makes an entry mint at most once in this time: a URL that always answers 401 costs no more.
const REJECTION_PAUSE: Duration = Duration::from_secs(10);

/// All tokens of this process.
pub struct Exchange {
    hash_keys: HashKeys,
    cache: Cache,
    negative: Negative,
    flights: Flights,
    records: Arc<Records>,
    sessions: Sessions,
    issued: Issued,
    on_behalf: OnBehalf,
    tombstones: Tombstones,
    /// Told whenever something may have come to its end before its time.
    endings: Notify,
    verdicts: Verdicts,
    verdict_flights: Flights<()>,
    clock: Clock,
    runtime: Handle,
    metrics: Arc<Metrics>,
}

impl Exchange {
    /// An empty exchange, whose mints run on `runtime`.
    pub fn new(hash_keys: HashKeys, capacity: Capacity, clock: Clock, runtime: Handle, metrics: Arc<Metrics>) -> Self {
        let records = Arc::new(Records::new());
        let hash_key = &hash_keys.current;
        Self {
            cache: Cache::new(capacity.tokens, Arc::clone(&records), Arc::clone(&metrics)),
            records,
            negative: Negative::new(capacity.negative, capacity.negative_ttl),
            flights: Flights::default(),
            sessions: Sessions::new(hash_key.clone()),
            // Room for those that callers still hold after they were replaced.
            issued: Issued::new(usize::try_from(capacity.tokens).unwrap_or(usize::MAX).saturating_mul(2)),
            on_behalf: OnBehalf::new(capacity.tokens),
            endings: Notify::new(),
            tombstones: Tombstones::new(hash_key.clone(), capacity.tombstones, capacity.tombstone_ttl),
            verdicts: presented::verdicts(capacity.tokens),
            verdict_flights: Flights::default(),
            hash_keys,
            clock,
            runtime,
            metrics,
        }
    }

    /// Renews and checks what is minted by `service` from now on, in the background.
    pub fn attend(self: &Arc<Self>, service: &Arc<Service>) {
        if let Some(plans) = service.take_plans() {
            self.runtime.spawn(Timetable::new(Arc::clone(self), Arc::clone(service), plans).run());
        }
    }

    /// Where what goes on behind requests runs.
    pub const fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// What a route asks for, prepared once.
    pub fn grant(&self, route: &str, service: &Arc<Service>, terms: Terms) -> Grant {
        Grant::new(&self.hash_keys, route, service, terms)
    }

    /// How a route validates JWTs that callers bring, prepared once. Revocations and details are those of `service`.
    pub fn verifier(
        &self,
        route: &str,
        signature: Option<(Arc<Source>, Vec<Algorithm>)>,
        rules: Rules,
        details: Details,
        service: Option<&Arc<Service>>,
    ) -> Verifier {
        Verifier::new(&self.hash_keys, route, signature, rules, details, service.cloned())
    }

    /// Looks for a token that is valid at `at`, under the key that [`Grant::key`] gave, without waiting for anything.
    pub fn lookup(&self, grant: &Grant, key: KeyedHash, at: Instant) -> Lookup {
        let now = self.clock.at(at);
        let nothing = match self.cache.get(&key) {
            Some(entry) => {
                let token = entry.token();
                if token.is_valid(now, grant.service.skew()) {
                    self.metrics.cache_hit.inc();
                    if let Some(lapsed) = entry.touch() {
                        self.resume(&entry, lapsed);
                    }
                    return Lookup::Hit(Granted { entry, token });
                }
                &self.metrics.cache_expired
            }
            None => &self.metrics.cache_miss,
        };
        if let Some(error) = self.negative.get(&key, now.wall) {
            self.metrics.cache_negative.inc();
            return Lookup::Refused(error);
        }
        nothing.inc();
        Lookup::Miss
    }

    /// Nobody used it when its time to be renewed came; now somebody does.
    fn resume(&self, entry: &Arc<Entry>, lapsed: Lapsed) {
        entry.resume(lapsed, self.clock.reading());
        entry.grant.service.plan(Plan::Watch(Arc::clone(entry)));
    }

    /// Mints a token, or waits for a mint of the same that is under way; at most the service's `mint.wait`.
    ///
    /// # Errors
    /// Why there is no token.
    pub async fn mint(self: &Arc<Self>, grant: &Arc<Grant>, credential: &Presented<'_>, key: KeyedHash) -> (Part, Result<Granted, Error>) {
        let (flight, landing) = self.flights.board(key);
        let part = if landing.is_some() { Part::Led } else { Part::Joined };
        if let Some(landing) = landing {
            // The mint that this look-up missed may have ended since: what it left is good for us too.
            let (now, owned) = (self.clock.reading(), credential.to_owned());
            let held = self.cache.get(&key).map(|entry| Granted { token: entry.token(), entry });
            if let Some(granted) = held.filter(|granted| granted.token.is_valid(now, grant.service.skew())) {
                landing.land(Ok(granted));
            } else if let Some(error) = self.negative.get(&key, now.wall) {
                landing.land(Err(error));
            } else if self.is_revoked_session(&grant.service, &owned) {
                landing.land(Err(Error::Denied));
            } else if let Some(granted) = self.revive(grant, credential, key) {
                landing.land(Ok(granted));
            } else {
                self.runtime.spawn(Mint::first(self, grant, owned, key).run(landing).with_current_context());
            }
        }
        let waiting = (part == Part::Joined).then(|| Counted::in_gauge(&self.metrics.coalesced_waiters));
        let outcome = time::timeout(grant.service.wait(), flight.arrival()).await.unwrap_or(Err(Error::Budget));
        drop(waiting);
        (part, outcome)
    }

    /// An upstream said 401 to this token: looks for another. The old one stays until there is one. One such mint for each entry in ten seconds,
    /// shared by all whose token was refused; it goes on if nobody waits for it.
    pub fn reject(self: &Arc<Self>, rejected: Granted) -> Replacement {
        let entry = &rejected.entry;
        let now = self.clock.reading();
        let at_hand = entry.token();
        if at_hand.authorization() != rejected.token.authorization() {
            return Replacement::AtHand(Granted { entry: Arc::clone(entry), token: at_hand });
        }
        let mut agenda = entry.agenda();
        let rests = agenda.rejected_at.is_some_and(|at| now.uptime < at + REJECTION_PAUSE);
        let (flight, landing) = self.flights.board(entry.key);
        match landing {
            // Dropped, the flight ends before it began.
            Some(_) if rests || agenda.gone => return Replacement::None,
            Some(landing) => {
                agenda.rejected_at = Some(now.uptime);
                self.runtime.spawn(Mint::renewal(self, entry, Occasion::UpstreamDenied).run(landing).with_current_context());
            }
            None => {}
        }
        drop(agenda);
        Replacement::Sought { flight, rejected }
    }

    /// Takes an entry out of use.
    fn drop_entry(&self, entry: &Arc<Entry>) {
        self.cache.remove(entry, Cause::Invalidated);
        entry.invalidate();
        self.endings.notify_waiters();
    }

    /// Revokes all tokens at hand, and waits until the token services know, at most for `timeout`. What is left of it is told.
    pub async fn revoke_all(self: &Arc<Self>, timeout: Duration) -> i64 {
        let entries = self.cache.all().collect();
        let done = async {
            let (_, dormant) = self.purge_dormant(|_, _| true, true).await;
            for error in self.revoke_entries(entries).await.into_iter().chain(dormant).filter_map(Result::err) {
                tracing::error!(%error, "a token could not be revoked");
            }
            while self.metrics.revocations_pending.get() > 0 {
                time::sleep(Duration::from_millis(20)).await;
            }
        };
        let _ = time::timeout(timeout, done).await;
        self.metrics.revocations_pending.get()
    }

    /// Brings the gauges up to date before a scrape.
    pub fn refresh_gauges(&self) {
        self.metrics.cache_entries.set(i64::try_from(self.cache.len()).unwrap_or(i64::MAX));
        let now = self.clock.reading();
        let mut least = BTreeMap::new();
        for entry in self.cache.all().filter(|entry| entry.is_in_use(now)) {
            let left = entry.token().expires().since(now.wall).as_secs_f64();
            let route: &mut f64 = least.entry(entry.grant.route.clone()).or_insert(left);
            *route = route.min(left);
        }
        self.metrics.remaining(&least);
    }
}

const fn unavailable(cause: String, retry_after: Duration) -> Error {
    Error::Unavailable { cause, retry_after }
}
