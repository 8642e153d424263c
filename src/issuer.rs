//! The embedded token service: a real server with the four endpoints of the token API.
//!
//! API keys come from a file of hashes ([`keys_file`]), tokens are JWTs ([`signing_keys`]) or opaque psTokens. Sessions and revocations are at hand in
//! memory, and kept in a file where one is configured ([`state`]). Both key files are followed ([`Issuer::follow`]). [`Issuer`] does the work for [`server`] over HTTP and for
//! [`EmbeddedTokenService`](crate::token_service::embedded::EmbeddedTokenService) in process. Only its [`Clock`] decides about time.

pub mod api_key;
mod claims;
mod expiring;
mod follow;
pub mod grants;
mod holder;
mod key_ring;
pub mod keys_file;
pub mod metrics;
mod random;
pub mod refusal;
pub mod server;
mod saved;
mod settings;
pub mod signing_key;
pub mod signing_keys;
pub mod state;

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use base64::Engine;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::{alphabet, engine::DecodePaddingMode};
use jsonwebtoken::jwk::JwkSet;

use self::api_key::{ApiKey, KeyHash};
use self::claims::Claims;
use self::expiring::{Expiring, Full};
use self::holder::Holder;
pub use self::settings::Settings;

use self::key_ring::KeyRing;
use self::metrics::Metrics;
use self::refusal::Refusal;
use self::signing_key::SigningKey;
use self::signing_keys::SigningKeys;
use self::state::State;
use crate::clock::{Clock, Timestamp};
use crate::config::token_service::Embedded;
use crate::credential::{Credential, Kind};
use crate::rate_limit::{By, RateLimit, Who};
use crate::secret::{KeyedHash, Secret};
use crate::token_service::{TokenDetails, TokenParams};

/// Sessions at one time; past it the one that would end first goes.
const MAX_SESSIONS: usize = 100_000;
/// Revocations remembered at one time, each until its token is over anyway; past it new ones are refused.
const MAX_REVOCATIONS: usize = 100_000;
/// API keys whose rate is remembered at one time.
const MAX_LIMITED: usize = 100_000;
/// How a psToken starts.
const SESSION_PREFIX: &str = "pst_";

/// Base64 as clients write it, with or without padding.
const LENIENT: GeneralPurpose =
    GeneralPurpose::new(&alphabet::STANDARD, GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent));

/// Why there is no token service.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Mend the keys file.
    #[error(transparent)]
    KeysFile(#[from] keys_file::Error),
    /// Mend the keys.
    #[error(transparent)]
    Keys(#[from] key_ring::Error),
    /// See to the signing key's file.
    #[error(transparent)]
    SigningKey(#[from] signing_key::Error),
    /// See to the state file.
    #[error(transparent)]
    State(#[from] state::Error),
    /// Configure a longer time.
    #[error("`{0}` of the embedded token service must be at least 1s: tokens count whole seconds")]
    TooShort(&'static str),
}

/// Makes tokens for the holders of API keys, and remembers sessions and revocations.
pub struct Issuer {
    settings: Settings,
    keys: ArcSwap<KeyRing>,
    signing_keys: SigningKeys,
    /// Sessions by the hash of the psToken.
    sessions: Mutex<Expiring<Holder>>,
    /// By the hash of the id of a revoked JWT (`jti`) or session (`sid`).
    revoked: Mutex<Expiring<()>>,
    state: Option<Arc<State>>,
    limit: RateLimit,
    metrics: OnceLock<Metrics>,
    clock: Clock,
}

impl Issuer {
    /// The token service that the configuration describes. Makes the signing key's file where there is none.
    ///
    /// # Errors
    /// When a file cannot be read or made, or has a mistake in it; the message names file and place.
    pub fn open(config: &Embedded, clock: Clock) -> Result<Arc<Self>, Error> {
        let keys = keys_file::read(&config.keys_file)?;
        let signing_key = SigningKey::open(&config.signing_key_file, config.algorithm)?;
        let state = config.state_file.as_deref().map(|path| State::open(path, clock.now())).transpose()?;
        let settings = Settings::from(config);
        // An earlier process may have signed with it until now.
        let last_end = clock.now().plus(settings.lifetime);
        Self::assembled(settings, keys, signing_key, last_end, state.map(Arc::new), clock)
    }

    /// A token service from its parts, which needs no file.
    ///
    /// # Errors
    /// When two keys have the same name or hash, or a lifetime is less than a second.
    pub fn new(settings: Settings, keys: Vec<ApiKey>, signing_key: SigningKey, clock: Clock) -> Result<Arc<Self>, Error> {
        Self::assembled(settings, keys, signing_key, Timestamp::from_secs(0), None, clock)
    }

    fn assembled(
        settings: Settings,
        keys: Vec<ApiKey>,
        signing_key: SigningKey,
        last_end: Timestamp,
        state: Option<Arc<State>>,
        clock: Clock,
    ) -> Result<Arc<Self>, Error> {
        let second = Duration::from_secs(1);
        for (name, span) in [("lifetime", settings.lifetime), ("session_lifetime", settings.session_lifetime)] {
            if span < second {
                return Err(Error::TooShort(name));
            }
        }
        let burst = settings.rate_per_key.saturating_mul(2);
        let issuer = Self {
            keys: ArcSwap::from_pointee(KeyRing::new(keys)?),
            signing_keys: SigningKeys::new(signing_key, last_end, Vec::new()),
            sessions: Mutex::new(Expiring::new(MAX_SESSIONS)),
            revoked: Mutex::new(Expiring::new(MAX_REVOCATIONS)),
            state,
            limit: RateLimit::new(burst, 2 * second, By::Credential, MAX_LIMITED),
            metrics: OnceLock::new(),
            settings,
            clock,
        };
        issuer.restore()?;
        Ok(Arc::new(issuer))
    }

    /// Counts in these series from now on.
    pub fn count_in(&self, metrics: Metrics) {
        // Once for each process.
        let _ = self.metrics.set(metrics);
        self.tell_what_is_held();
    }

    /// Other API keys from now on. Sessions whose key is gone or different end; JWTs of a name that is gone are denied.
    ///
    /// # Errors
    /// When two have the same name or hash: those at hand stay.
    pub fn replace_keys(&self, keys: Vec<ApiKey>) -> Result<(), Error> {
        self.keys.store(Arc::new(KeyRing::new(keys)?));
        Ok(())
    }

    /// Another key signs from now on; the one before verifies for as long as its tokens live, at most for `key_overlap`.
    pub fn rotate(&self, key: SigningKey) {
        let now = self.clock.now();
        if let Some(retired) = self.signing_keys.replace(key, self.settings.key_overlap, now) {
            self.save_keys();
            tracing::info!(key = self.signing_keys.current().public.id(), before = retired.key.id(), "another signing key is in use");
        }
    }

    /// How many API keys it knows.
    pub fn key_count(&self) -> usize {
        self.keys.load().len()
    }

    /// The public halves of its signing keys, for all who verify its JWTs.
    pub fn key_set(&self) -> JwkSet {
        self.signing_keys.key_set(self.clock.now())
    }

    /// `create_token`: a JWT, or a psToken where `params` asks for one.
    ///
    /// From a psToken comes at most what its session may do, with the session's parameters where `params` has none.
    ///
    /// # Errors
    /// [`Refusal::Denied`] for the credential, [`Refusal::NotGranted`] for the parameters.
    pub async fn create_token(&self, credential: &Credential, params: &TokenParams) -> Result<Secret, Refusal> {
        self.create(credential, params, |_| Ok(())).await
    }

    /// The same for a caller over HTTP, whose API key gets only so many tokens a second.
    ///
    /// # Errors
    /// As [`Issuer::create_token`], and [`Refusal::TooMany`].
    pub async fn create_token_within_limit(&self, credential: &Credential, params: &TokenParams) -> Result<Secret, Refusal> {
        let within_limit = |key: &ApiKey| {
            let who = Who::Credential(KeyedHash::from_bytes(*key.hash.as_bytes()));
            self.limit.take(who, Instant::now()).map(drop).map_err(Refusal::TooMany)
        };
        self.create(credential, params, within_limit).await
    }

    async fn create(
        &self,
        credential: &Credential,
        params: &TokenParams,
        allow: impl FnOnce(&ApiKey) -> Result<(), Refusal>,
    ) -> Result<Secret, Refusal> {
        let now = self.clock.now();
        let created = async {
            let holder = self.authenticate(credential, now)?;
            allow(&holder.key)?;
            let holder = holder.narrow(params)?;
            if params.return_session_token { self.start_session(holder, now).await } else { self.sign(&holder, now) }
        };
        self.count("create", created.await)
    }

    /// `get_token_details` of a JWT or psToken.
    ///
    /// # Errors
    /// [`Refusal::Denied`] when it is not one of ours, expired or revoked.
    pub fn get_token_details(&self, token: &Secret) -> Result<TokenDetails, Refusal> {
        let now = self.clock.now();
        let claims = match self.session(token, now) {
            Some(holder) => Some(Claims::new(&holder, &self.settings, now, String::new())),
            None => self.verify(token, now),
        };
        self.count("details", claims.map(Claims::into_details).ok_or(Refusal::Denied))
    }

    /// `refresh_token`: the psToken's session lives for `session_lifetime` from now on. Answers the same psToken.
    ///
    /// # Errors
    /// [`Refusal::Denied`] for a JWT, and for a session that has ended.
    pub async fn refresh_token(&self, token: &Secret) -> Result<Secret, Refusal> {
        let now = self.clock.now();
        let refreshed = async {
            let holder = self.session(token, now).ok_or(Refusal::Denied)?;
            let (id, end) = (id(token.expose()), now.plus(self.settings.session_lifetime));
            self.save_session(id, &holder, end).await?;
            lock(&self.sessions).extend(&id, end);
            Ok(token.clone())
        };
        self.count("refresh", refreshed.await)
    }

    /// `revoke_token`: a JWT ends, or a psToken's session with all tokens that were made in it. Others are none of our business:
    /// that is no failure (RFC 7009 section 2.2).
    ///
    /// # Errors
    /// [`Refusal::Unavailable`] when there is no room for one more revocation, or it cannot be kept.
    pub async fn revoke_token(&self, token: &Secret) -> Result<(), Refusal> {
        let now = self.clock.now();
        let revoked = async {
            if let Some(holder) = self.session(token, now) {
                if let Some(sid) = &holder.sid {
                    let longest = self.settings.lifetime.max(self.settings.session_lifetime);
                    self.revoke_id(sid, now.plus(longest), now).await?;
                }
                lock(&self.sessions).remove(&id(token.expose()));
            } else if let Some(claims) = self.verify(token, now) {
                self.revoke_id(&claims.jti, Timestamp::from_secs(claims.exp), now).await?;
            }
            Ok(())
        };
        self.count("revoke", revoked.await)
    }

    /// Tells the metrics, where there are any.
    fn tell(&self, what: impl FnOnce(&Metrics)) {
        if let Some(metrics) = self.metrics.get() {
            what(metrics);
        }
    }

    fn tell_what_is_held(&self) {
        self.tell(|metrics| {
            metrics.held("keys", self.key_count());
            metrics.held("sessions", lock(&self.sessions).len());
            metrics.held("signing_keys", self.key_set().keys.len());
        });
    }

    fn count<T>(&self, operation: &str, outcome: Result<T, Refusal>) -> Result<T, Refusal> {
        self.tell(|metrics| metrics.request(operation, outcome.as_ref().err().map_or("ok", Refusal::outcome)));
        outcome
    }

    fn authenticate(&self, credential: &Credential, now: Timestamp) -> Result<Holder, Refusal> {
        let keys = self.keys.load();
        let holder = match credential.kind {
            Kind::SessionToken => self.session(&credential.value, now),
            Kind::ApiKey => keys.find(credential.value.expose()).map(Holder::of_key),
            Kind::Basic => basic(&keys, credential.value.expose()),
            Kind::Jwt => None,
        };
        holder.filter(|holder| !holder.key.is_over(now)).ok_or(Refusal::Denied)
    }

    async fn start_session(&self, mut holder: Holder, now: Timestamp) -> Result<Secret, Refusal> {
        if holder.sid.is_none() {
            holder.sid = Some(random_text("")?);
        }
        let token = Secret::from(random_text(SESSION_PREFIX)?);
        let (id, end) = (id(token.expose()), now.plus(self.settings.session_lifetime));
        self.save_session(id, &holder, end).await?;
        audit(&holder, "session", holder.sid.as_deref().unwrap_or_default());
        let mut sessions = lock(&self.sessions);
        if sessions.is_full(now) {
            sessions.drop_first();
        }
        sessions.insert(id, holder, end, now).map_err(|Full| Refusal::Unavailable("there are too many sessions"))?;
        self.tell(|metrics| metrics.issued("session"));
        Ok(token)
    }

    fn sign(&self, holder: &Holder, now: Timestamp) -> Result<Secret, Refusal> {
        let claims = Claims::new(holder, &self.settings, now, random_text("")?);
        let signed = self.signing_keys.sign(&claims, Timestamp::from_secs(claims.exp));
        let (token, key) = signed.map_err(|_| Refusal::Unavailable("the token could not be signed"))?;
        audit(holder, key.public.id(), &claims.jti);
        self.tell(|metrics| metrics.issued("jwt"));
        Ok(Secret::from(token))
    }

    /// The holder of a psToken whose session is alive. It ends where the key's entry is changed in anything: what it grants was judged by the old one.
    fn session(&self, token: &Secret, now: Timestamp) -> Option<Holder> {
        if !token.expose().starts_with(SESSION_PREFIX) {
            return None;
        }
        let holder = lock(&self.sessions).get(&id(token.expose()), now).cloned()?;
        let is_same = self.keys.load().named(&holder.key.name).is_some_and(|key| **key == *holder.key);
        let is_dead = !is_same || holder.key.is_over(now) || holder.sid.as_deref().is_some_and(|sid| self.is_revoked(sid, now));
        (!is_dead).then_some(holder)
    }

    /// The claims of a JWT of ours that is timely and not revoked, nor its key.
    fn verify(&self, token: &Secret, now: Timestamp) -> Option<Claims> {
        let claims: Claims = self.signing_keys.verify(token.expose(), now)?;
        let is_ours = claims.iss == self.settings.issuer && claims.aud == self.settings.audience;
        let has_key = self.keys.load().named(&claims.name).is_some_and(|key| !key.is_over(now));
        let is_dead = self.is_revoked(&claims.jti, now) || claims.sid.as_deref().is_some_and(|sid| self.is_revoked(sid, now));
        (is_ours && has_key && claims.is_timely(now) && !is_dead).then_some(claims)
    }

    fn is_revoked(&self, text: &str, now: Timestamp) -> bool {
        lock(&self.revoked).get(&id(text), now).is_some()
    }

    async fn revoke_id(&self, text: &str, end: Timestamp, now: Timestamp) -> Result<(), Refusal> {
        let full = |Full| Refusal::Unavailable("too many tokens are revoked already: try again later");
        let id = id(text);
        lock(&self.revoked).insert(id, (), end, now).map_err(full)?;
        let saved = self.save_revocation(id, end).await;
        if saved.is_err() {
            lock(&self.revoked).remove(&id);
        }
        saved
    }
}

/// Base64 that decodes to text with a `:` is `name:key`; other base64 text, and anything else as it is, is a bare key.
fn basic(keys: &KeyRing, text: &str) -> Option<Holder> {
    let decoded = LENIENT.decode(text).ok().and_then(|bytes| String::from_utf8(bytes).ok()).map(Secret::from);
    let key = match decoded.as_ref().map(Secret::expose) {
        Some(pair) if pair.contains(':') => {
            let (name, key) = pair.split_once(':')?;
            keys.find(key).filter(|found| found.name == name)
        }
        Some(key) => keys.find(key).or_else(|| keys.find(text)),
        None => keys.find(text),
    };
    key.map(Holder::of_key)
}

/// What psTokens and ids are kept under: they hold 256 random bits, which one pass of SHA-256 hides.
fn id(text: &str) -> KeyedHash {
    KeyedHash::from_bytes(*KeyHash::of(text).as_bytes())
}

/// One line for each token: who, with which key, for what. Never the token itself.
fn audit(holder: &Holder, key: &str, token: &str) {
    let grants = &holder.grants;
    tracing::info!(
        target: "audit", holder = %holder.key.name, subject = %holder.key.subject, key, id = token, scopes = %grants.scopes.join(","),
        "token made"
    );
}

fn random_text(prefix: &str) -> Result<String, Refusal> {
    random::text(prefix).map_err(|_| Refusal::Unavailable("the system gives no randomness"))
}

/// Nothing panics while it holds one of these locks; if something did, the maps would still be whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
