//! JWTs that callers bring: validated once, by signature or by `get_token_details` or both, then found again by one look-up. They are passed on as they
//! are, and die with what vouched for them: their `exp`, the key that signed them, a revocation, a verdict that has become too old.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use jsonwebtoken::Algorithm;
use quick_cache::UnitWeighter;
use quick_cache::sync;

use super::grant::{Details, HashKeys};
use super::on_behalf::callers_turn;
use super::revoke::Refused;
use super::service::{Failure, Service};
use super::{Error, Exchange, RETRY, unavailable};
use crate::claims::Claims;
use crate::clock::Reading;
use crate::credential::Presented;
use crate::jwks::rules::Rules;
use crate::jwks::source::{Asked, Source};
use crate::jwks::{Current, Fault};
use crate::secret::{BuildAlreadyHashed, FieldHasher, KeyedHash, Secret};
use crate::telemetry::traces::FutureExt as _;
use crate::token::Token;
use crate::token_service;

/// How long a verdict of `get_token_details` alone is kept at most.
const DETAILS_ALONE: Duration = Duration::from_secs(60);
/// At this part of its time a verdict is renewed behind the requests that use it.
const RENEW_AT: f64 = 0.75;

/// How the JWTs of one route are validated.
pub struct Verifier {
    /// Who vouches by signature, and with which algorithms. Where nobody does, the token service must.
    signature: Option<(Arc<Source>, Vec<Algorithm>)>,
    rules: Rules,
    details: Details,
    /// Where `get_token_details` is asked, and whose revocations count.
    service: Option<Arc<Service>>,
    /// The hash of all that is the same for every caller of the route.
    prefix: FieldHasher,
}

impl Verifier {
    /// For the route of this name. No other verifier shares its verdicts, not even the same route's after a reload: another may stand by other rules or keys.
    pub fn new(
        hash_keys: &HashKeys,
        route: &str,
        signature: Option<(Arc<Source>, Vec<Algorithm>)>,
        rules: Rules,
        details: Details,
        service: Option<Arc<Service>>,
    ) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let mut prefix = hash_keys.current.hasher();
        prefix.field(b"presented").field(route.as_bytes()).field(&number.to_le_bytes());
        Self { signature, rules, details, service, prefix }
    }

    /// The name of a JWT's verdict here.
    pub fn key(&self, presented: &Presented<'_>) -> KeyedHash {
        let mut hasher = self.prefix.clone();
        hasher.field(presented.value.as_bytes());
        hasher.finish()
    }

    /// How long a verdict counts before `get_token_details` is asked again.
    fn span(&self) -> Duration {
        match (self.details, &self.signature) {
            (Details::Every(span), Some(_)) => span,
            (Details::Every(span), None) => span.min(DETAILS_ALONE),
            (_, None) => DETAILS_ALONE,
            (_, Some(_)) => Duration::MAX,
        }
    }

    /// The generation of the keys that verdicts hang on.
    fn generation(&self) -> u64 {
        self.signature.as_ref().map_or(0, |(source, _)| source.generation())
    }
}

/// A JWT that was found good.
pub(super) struct Verified {
    verifier: Arc<Verifier>,
    token: Arc<Token>,
    /// Of the keys that vouched for it.
    generation: u64,
    /// The count of revocations when it was last looked for among them.
    revocations: AtomicU64,
    /// In [`Reading::uptime`], as milliseconds: until then the verdict counts, and from then on it is renewed.
    until: AtomicU64,
    renew_at: AtomicU64,
    renewing: AtomicBool,
}

/// The verdicts at hand, bounded.
pub(super) type Verdicts = sync::Cache<KeyedHash, Arc<Verified>, UnitWeighter, BuildAlreadyHashed>;

pub(super) fn verdicts(capacity: u64) -> Verdicts {
    sync::Cache::with(
        usize::try_from(capacity).unwrap_or(usize::MAX).min(1024),
        capacity,
        UnitWeighter,
        BuildAlreadyHashed::default(),
        sync::DefaultLifecycle::default(),
    )
}

impl Exchange {
    /// A JWT that was found good before, and still is at `at`; none where it has to be validated.
    ///
    /// # Errors
    /// A remembered refusal.
    pub fn lookup_presented(self: &Arc<Self>, verifier: &Verifier, key: KeyedHash, at: Instant) -> Result<Option<Arc<Token>>, Error> {
        let now = self.clock.at(at);
        let nothing = match self.verdicts.get(&key) {
            Some(verified) if self.still_counts(&verified, verifier, now) => {
                self.metrics.cache_hit.inc();
                return Ok(Some(Arc::clone(&verified.token)));
            }
            Some(_) => &self.metrics.cache_expired,
            None => &self.metrics.cache_miss,
        };
        if let Some(error) = self.negative.get(&key, now.wall) {
            self.metrics.cache_negative.inc();
            return Err(error);
        }
        nothing.inc();
        Ok(None)
    }

    fn still_counts(self: &Arc<Self>, verified: &Arc<Verified>, verifier: &Verifier, now: Reading) -> bool {
        let uptime = millis(now.uptime);
        if verified.generation != verifier.generation()
            || uptime >= verified.until.load(Ordering::Acquire)
            || !verified.token.is_valid(now, verifier.rules.leeway)
        {
            return false;
        }
        let revocations = self.tombstones.count();
        if verified.revocations.load(Ordering::Acquire) != revocations {
            if self.is_revoked_presented(verifier, &verified.token) {
                return false;
            }
            verified.revocations.store(revocations, Ordering::Release);
        }
        if uptime >= verified.renew_at.load(Ordering::Relaxed) && !verified.renewing.swap(true, Ordering::AcqRel) {
            let (exchange, verified) = (Arc::clone(self), Arc::clone(verified));
            self.runtime.spawn(async move { exchange.renew_verdict(&verified).await });
        }
        true
    }

    /// Validates a JWT.
    ///
    /// # Errors
    /// Why it is not accepted, or that it cannot be judged now.
    pub async fn verify(
        self: &Arc<Self>,
        verifier: &Arc<Verifier>,
        presented: &Presented<'_>,
        key: KeyedHash,
    ) -> Result<Arc<Token>, Error> {
        let text = &*presented.value;
        let (claims, generation, unending) = match &verifier.signature {
            Some((source, algorithms)) => {
                let (claims, generation) = signed(source, algorithms, text).await?;
                (claims, generation, None)
            }
            None => {
                let claims = Claims::of(text).ok().flatten().ok_or(Error::InvalidToken(Fault::Malformed))?;
                (claims, 0, Some(DETAILS_ALONE))
            }
        };
        let token = verifier.rules.accept(text, &claims, self.clock.reading(), unending).map_err(Error::InvalidToken)?;
        let revocations = self.tombstones.count();
        if self.is_revoked_presented(verifier, &token) {
            return Err(Error::Revoked);
        }
        let verified = Arc::new(Verified {
            verifier: Arc::clone(verifier),
            token: Arc::new(token),
            generation,
            revocations: AtomicU64::new(revocations),
            until: AtomicU64::new(0),
            renew_at: AtomicU64::new(0),
            renewing: AtomicBool::new(false),
        });
        match verifier.service.as_ref().filter(|_| verifier.details != Details::Off) {
            Some(service) => self.ask(service, &verified, key).await?,
            None => self.keep(&verified, key),
        }
        Ok(Arc::clone(&verified.token))
    }

    fn keep(&self, verified: &Arc<Verified>, key: KeyedHash) {
        verified.counts_from(self.clock.reading());
        self.verdicts.insert(key, Arc::clone(verified));
    }

    pub(super) fn is_revoked_presented(&self, verifier: &Verifier, token: &Token) -> bool {
        verifier.service.as_ref().is_some_and(|service| self.is_revoked(service, &token.value()))
    }

    /// Asks the token service, and keeps its yes. All who bring the same token at one time wait for one call.
    async fn ask(self: &Arc<Self>, service: &Arc<Service>, verified: &Arc<Verified>, key: KeyedHash) -> Result<(), Error> {
        let (flight, landing) = self.verdict_flights.board(key);
        if let Some(landing) = landing {
            let (exchange, service, verified) = (Arc::clone(self), Arc::clone(service), Arc::clone(verified));
            let asking = async move {
                // Another call may have ended since this one was found necessary.
                let is_fresh = |held: &Arc<Verified>| {
                    !Arc::ptr_eq(held, &verified) && exchange.still_counts(held, &verified.verifier, exchange.clock.reading())
                };
                let mut outcome = Ok(());
                if exchange.verdicts.get(&key).filter(is_fresh).is_none() {
                    outcome = exchange.details_say(&service, &verified.token.value(), key).await;
                    // What is kept must be there before the flight ends: whoever comes next looks there first.
                    if outcome.is_ok() {
                        exchange.keep(&verified, key);
                    }
                }
                landing.land(outcome);
            };
            self.runtime.spawn(asking.with_current_context());
        }
        tokio::time::timeout(service.wait(), flight.arrival()).await.unwrap_or(Err(Error::Budget))
    }

    async fn details_say(&self, service: &Service, value: &Secret, key: KeyedHash) -> Result<(), Error> {
        let _turn = callers_turn(service).await.map_err(|refused| match refused {
            Refused::Unavailable(error) => error,
            Refused::Relayed(error) => unavailable(error.to_string(), RETRY),
        })?;
        match service.get_token_details(value).await {
            Ok(_) => Ok(()),
            Err(Failure::Call(token_service::Error::Denied | token_service::Error::Forbidden(_))) => {
                self.negative.remember(key, Error::Revoked, self.clock.now(), None);
                Err(Error::Revoked)
            }
            Err(Failure::Shut(shut)) => Err(unavailable(shut.cause, shut.retry_after)),
            Err(Failure::Call(error)) => Err(unavailable(error.to_string(), RETRY)),
        }
    }

    /// Asks again about a token that is in use, behind the requests. Without an answer the verdict counts until its time is over.
    async fn renew_verdict(self: &Arc<Self>, verified: &Arc<Verified>) {
        let Some(service) = &verified.verifier.service else { return };
        let key = verified.verifier.key(&Presented { kind: crate::credential::Kind::Jwt, value: verified.token.value().expose().into() });
        match self.ask(service, verified, key).await {
            Ok(()) => {}
            Err(Error::Revoked) => drop(self.verdicts.remove_if(&key, |held| Arc::ptr_eq(held, verified))),
            Err(error) => tracing::warn!(service = service.name(), %error, "a presented JWT could not be checked again yet"),
        }
        verified.renewing.store(false, Ordering::Release);
    }
}

impl Verified {
    fn counts_from(&self, now: Reading) {
        let span = self.verifier.span();
        let end = |part: f64| if span == Duration::MAX { u64::MAX } else { millis(now.uptime + span.mul_f64(part)) };
        self.renew_at.store(end(RENEW_AT), Ordering::Release);
        self.until.store(end(1.0), Ordering::Release);
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// The claims of a token with a good signature, and the generation of the keys. A key that is not known is looked for once in a newer set.
async fn signed(source: &Source, algorithms: &[Algorithm], text: &str) -> Result<(Claims, u64), Error> {
    let check = |current: &Current| match current.keys.verify(text, algorithms) {
        Ok(claims) => Ok(Some((claims, current.generation))),
        Err(Fault::UnknownKey) => Ok(None),
        Err(fault) => Err(Error::InvalidToken(fault)),
    };
    let before = source.current();
    if let Some(current) = &before
        && let Some(found) = check(current)?
    {
        return Ok(found);
    }
    let mut asked = if before.is_some() { source.renew().await } else { source.first().await };
    loop {
        let newer = source.current().filter(|current| before.as_ref().is_none_or(|before| before.generation != current.generation));
        if let Some(current) = &newer
            && let Some(found) = check(current)?
        {
            return Ok(found);
        }
        if asked != Asked::Older {
            break;
        }
        asked = source.renew().await;
    }
    match asked {
        Asked::Fresh if source.current().is_some() => Err(Error::InvalidToken(Fault::UnknownKey)),
        // It may well be good: that nobody can tell is not the caller's fault (rule 3 of the design).
        _ => Err(unavailable("the key set cannot be had".to_owned(), RETRY)),
    }
}
