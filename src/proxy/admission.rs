//! From a request to the token that it goes on with, or to the refusal: rate limit, credential, exchange, policy.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Instant;

use http::header::HeaderMap;

use super::inject::Caller;
use super::route::Way;
use super::{Access, Action, Route};
use crate::claims::Claims;
use crate::credential::{self, Kind, Presented};
use crate::exchange::{self, Exchange, Granted, Lookup, OwnKey, Part};
use crate::rate_limit::{By, Standing, Who};
use crate::refusal::{Reason, Refusal};
use crate::secret::{KeyedHash, Secret};
use crate::telemetry::metrics::Metrics;
use crate::token::Token;

/// The token that a request goes on with.
#[derive(Clone)]
pub(super) enum Bearer {
    /// Minted for its credential.
    Minted(Granted),
    /// The caller's own, found good.
    Presented(Arc<Token>),
}

impl Bearer {
    pub(super) fn token(&self) -> &Token {
        match self {
            Self::Minted(granted) => granted.token(),
            Self::Presented(token) => token,
        }
    }

    /// The credential as a number: the same for the same one, as long as bearerd runs.
    pub(super) fn key(&self) -> u64 {
        match self {
            Self::Minted(granted) => granted.key().number(),
            Self::Presented(token) => {
                let mut hasher = DefaultHasher::new();
                token.authorization().as_bytes().hash(&mut hasher);
                hasher.finish()
            }
        }
    }
}

/// What a request is judged by.
pub(super) struct Asked<'r> {
    pub(super) headers: &'r HeaderMap,
    pub(super) query: Option<&'r str>,
    pub(super) caller: &'r Caller,
    /// What the caller's certificate says.
    pub(super) certificate: Option<&'r Claims>,
    pub(super) at: Instant,
}

/// What a decision leaves behind for the answer and the log, whatever it is.
#[derive(Clone, Copy, Default)]
pub(super) struct Trail {
    /// Where the caller stands with the route's rate limit, where there is one.
    pub(super) standing: Option<Standing>,
    /// The credential's name in the cache.
    pub(super) credential: Option<KeyedHash>,
}

/// Why a request does not go on, for the caller and for the log.
pub(super) struct Denial {
    pub(super) refusal: Refusal,
    pub(super) cause: Option<String>,
}

impl From<Refusal> for Denial {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, cause: None }
    }
}

/// How far a decision came without waiting.
pub(super) enum Judged<'r> {
    /// No token is needed.
    Public,
    /// There is one.
    Granted(Bearer),
    /// There is none yet: [`Admission::wait`] gets it.
    Miss(Waiting<'r>),
}

/// A credential whose token is not at hand.
pub(super) enum Waiting<'r> {
    /// The caller's, and its name in the cache.
    Theirs(Presented<'r>, KeyedHash),
    /// bearerd's own.
    Ours,
}

/// All that decisions need beside the request.
#[derive(Clone)]
pub(super) struct Admission {
    pub(super) exchange: Arc<Exchange>,
    pub(super) metrics: Arc<Metrics>,
}

impl Admission {
    /// Decides.
    pub(super) async fn decide(&self, route: &Route, asked: &Asked<'_>, trail: &mut Trail) -> Result<Option<Bearer>, Denial> {
        let bearer = match self.at_once(route, asked, trail)? {
            Judged::Public => return Ok(None),
            Judged::Granted(bearer) => bearer,
            // Boxed: a miss is rare, and its state would make every request's larger.
            Judged::Miss(waiting) => Box::pin(self.wait(route, waiting, asked.at)).await?,
        };
        authorize(route, &bearer)?;
        route.metrics.allowed.inc();
        Ok(Some(bearer))
    }

    /// Decides and counts, and keeps nobody waiting: what is not known at once is found out behind the request.
    pub(super) fn observe(&self, route: &Arc<Route>, asked: &Asked<'_>) {
        match self.at_once(route, asked, &mut Trail::default()) {
            Ok(Judged::Public) => {}
            Ok(Judged::Granted(bearer)) => observed(route, authorize(route, &bearer)),
            Ok(Judged::Miss(waiting)) => {
                // A copy that is wiped when it is done with, since the request does not wait for this.
                let kept = match &waiting {
                    Waiting::Theirs(presented, key) => Some((presented.to_owned(), *key)),
                    Waiting::Ours => None,
                };
                let (this, route, at) = (self.clone(), Arc::clone(route), asked.at);
                tokio::spawn(async move {
                    let waiting = kept.as_ref().map_or(Waiting::Ours, |(credential, key)| {
                        Waiting::Theirs(Presented { kind: credential.kind, value: credential.value.expose().into() }, *key)
                    });
                    let outcome = this.wait(&route, waiting, at).await.and_then(|bearer| authorize(&route, &bearer));
                    observed(&route, outcome);
                });
            }
            Err(denial) => observed(route, Err(denial)),
        }
    }

    fn at_once<'r>(&self, route: &Route, asked: &Asked<'r>, trail: &mut Trail) -> Result<Judged<'r>, Denial> {
        match &route.rate_limit {
            Some(limit) if limit.by == By::Peer => count(route, Who::peer(asked.caller.origin(asked.headers)), asked.at, trail)?,
            Some(limit) if limit.by == By::Route => count(route, Who::Everybody, asked.at, trail)?,
            _ => {}
        }
        if let Some(refusal) = route.policy.refuses_certificate(asked.certificate) {
            return Err(refusal.into());
        }
        let presented = match &route.access {
            Access::Public => {
                if !matches!(route.action, Action::TokenApi(_)) {
                    route.metrics.public.inc();
                }
                return Ok(Judged::Public);
            }
            Access::Protected { sources, one_only, .. } => credential::extract(sources, *one_only, asked.headers, asked.query)?,
            Access::Own(own) => return self.own_at_once(route, own, asked, trail),
        };
        let way = route.access.way(presented.kind).ok_or_else(unserved)?;
        let key = way.key(&presented);
        count_credential(route, key, asked.at, trail)?;
        let found = self.lookup(route, way, key, asked.at)?;
        Ok(self.judged(found, asked.at).unwrap_or_else(|| Judged::Miss(Waiting::Theirs(presented, key))))
    }

    /// bearerd's own key takes the place of a caller's.
    fn own_at_once<'r>(&self, route: &Route, own: &OwnKey, asked: &Asked<'r>, trail: &mut Trail) -> Result<Judged<'r>, Denial> {
        let secret = own.current();
        let key = own.grant.key(&as_ourselves(&secret));
        count_credential(route, key, asked.at, trail)?;
        let found = self.lookup(route, Way::Mint(&own.grant), key, asked.at)?;
        Ok(self.judged(found, asked.at).unwrap_or(Judged::Miss(Waiting::Ours)))
    }

    fn judged<'r>(&self, found: Option<Bearer>, at: Instant) -> Option<Judged<'r>> {
        let bearer = found?;
        self.metrics.auth_hit.observe(at.elapsed().as_secs_f64());
        Some(Judged::Granted(bearer))
    }

    fn lookup(&self, route: &Route, way: Way<'_>, key: KeyedHash, at: Instant) -> Result<Option<Bearer>, Denial> {
        let found = match way {
            Way::Mint(grant) => match self.exchange.lookup(grant, key, at) {
                Lookup::Hit(granted) => Ok(Some(Bearer::Minted(granted))),
                Lookup::Refused(error) => Err(error),
                Lookup::Miss => Ok(None),
            },
            Way::Verify(verifier) => self.exchange.lookup_presented(verifier, key, at).map(|token| token.map(Bearer::Presented)),
        };
        found.map_err(|error| {
            self.metrics.auth_hit.observe(at.elapsed().as_secs_f64());
            denial(route, &error)
        })
    }

    async fn wait(&self, route: &Route, waiting: Waiting<'_>, at: Instant) -> Result<Bearer, Denial> {
        let (outcome, duration) = match (&route.access, &waiting) {
            (Access::Own(own), Waiting::Ours) => {
                let secret = own.current();
                let presented = as_ourselves(&secret);
                self.mint(&own.grant, &presented, own.grant.key(&presented)).await
            }
            (access, Waiting::Theirs(presented, key)) => match access.way(presented.kind).ok_or_else(unserved)? {
                Way::Mint(grant) => self.mint(grant, presented, *key).await,
                Way::Verify(verifier) => {
                    let verified = self.exchange.verify(verifier, presented, *key).await;
                    (verified.map(Bearer::Presented), &self.metrics.auth_jwt)
                }
            },
            (_, Waiting::Ours) => return Err(unserved().into()),
        };
        duration.observe(at.elapsed().as_secs_f64());
        outcome.map_err(|error| denial(route, &error))
    }

    async fn mint(
        &self,
        grant: &Arc<exchange::Grant>,
        presented: &Presented<'_>,
        key: KeyedHash,
    ) -> (Result<Bearer, exchange::Error>, &prometheus::Histogram) {
        let (part, outcome) = self.exchange.mint(grant, presented, key).await;
        let duration = if part == Part::Led { &self.metrics.auth_mint } else { &self.metrics.auth_wait };
        (outcome.map(Bearer::Minted), duration)
    }
}

fn as_ourselves(key: &Secret) -> Presented<'_> {
    Presented { kind: Kind::ApiKey, value: key.expose().into() }
}

/// Whether the route's policy lets the holder through. On each request: what is remembered is the verdict on this very token (CVE-2026-33496).
pub(super) fn authorize(route: &Route, bearer: &Bearer) -> Result<(), Denial> {
    if route.policy.is_same_for_all() {
        return Ok(());
    }
    match &bearer.token().judged_by(&route.policy).denial {
        None => Ok(()),
        Some(refusal) => Err(refusal.clone().into()),
    }
}

fn count_credential(route: &Route, key: KeyedHash, at: Instant, trail: &mut Trail) -> Result<(), Denial> {
    trail.credential = Some(key);
    if route.rate_limit.as_ref().is_some_and(|limit| limit.by == By::Credential) {
        count(route, Who::Credential(key), at, trail)?;
    }
    Ok(())
}

fn count(route: &Route, who: Who, at: Instant, trail: &mut Trail) -> Result<(), Denial> {
    let Some(limit) = &route.rate_limit else { return Ok(()) };
    match limit.take(who, at) {
        Ok(stands) => {
            trail.standing = Some(stands);
            Ok(())
        }
        Err(wait) => {
            let refusal = Refusal::new(Reason::RateLimited, "This route takes no more requests from here for a moment.").retry_after(wait);
            let told = limit.headers(Standing { remaining: 0, reset: wait });
            Err(told.into_iter().fold(refusal, |refusal, (name, value)| refusal.header(name, value)).into())
        }
    }
}

/// That bearerd's own key is refused is no fault of the caller.
fn denial(route: &Route, error: &exchange::Error) -> Denial {
    let refusal = if matches!(route.access, Access::Own(_)) { error.refusal_of_own_key() } else { error.refusal() };
    Denial { refusal, cause: Some(error.to_string()) }
}

/// A credential of a kind that the route has nothing for; `bearerd check` lets no such route pass.
fn unserved() -> Refusal {
    Refusal::new(Reason::Internal, "This proxy has nothing to exchange this credential for.")
}

fn observed(route: &Route, outcome: Result<(), Denial>) {
    match outcome {
        Ok(()) => route.metrics.allowed.inc(),
        Err(denial) => {
            let reason = denial.refusal.reason.as_str();
            tracing::info!(route = %route.name, reason, cause = denial.cause.as_deref().unwrap_or_default(), "would have been refused");
            route.metrics.refused("would_deny", reason);
        }
    }
}
