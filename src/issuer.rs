//! The embedded token service: a real server with the four endpoints of the token API.
//!
//! API keys come from a file of hashes ([`keys_file`]), tokens are JWTs signed with ES256 ([`signing_key`]) or opaque psTokens, whose
//! sessions live in memory. [`Issuer`] does the work for [`server`] over HTTP and for
//! [`EmbeddedTokenService`](crate::token_service::embedded::EmbeddedTokenService) in process. Only its [`Clock`] decides about time.

pub mod api_key;
mod claims;
mod expiring;
pub mod grants;
mod holder;
mod key_ring;
pub mod keys_file;
mod random;
pub mod refusal;
pub mod server;
pub mod signing_key;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::{alphabet, engine::DecodePaddingMode};
use jsonwebtoken::jwk::JwkSet;

use self::api_key::ApiKey;
use self::claims::Claims;
use self::expiring::{Expiring, Full};
use self::holder::Holder;
use self::key_ring::KeyRing;
use self::refusal::Refusal;
use self::signing_key::SigningKey;
use crate::clock::{Clock, Timestamp};
use crate::config::token_service::Embedded;
use crate::credential::{Credential, Kind};
use crate::secret::{HashKey, KeyedHash, Secret};
use crate::token_service::{TokenDetails, TokenParams};

/// Sessions at one time; past it the one that would end first goes.
const MAX_SESSIONS: usize = 100_000;
/// Revocations remembered at one time, each until its token is over anyway; past it new ones are refused.
const MAX_REVOCATIONS: usize = 100_000;
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
    /// Configure a longer time.
    #[error("`{0}` of the embedded token service must be at least 1s: tokens count whole seconds")]
    TooShort(&'static str),
    /// The system gives no randomness.
    #[error("the system gives no randomness")]
    NoRandomness,
}

/// What the tokens of an [`Issuer`] have in common.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `iss`.
    pub issuer: String,
    /// `aud`.
    pub audience: String,
    /// How long a JWT lives; at least a second.
    pub lifetime: Duration,
    /// How long a session lives since it was made or last refreshed; at least a second.
    pub session_lifetime: Duration,
}

impl Default for Settings {
    /// What the configuration has where it says nothing.
    fn default() -> Self {
        let bearerd = || "bearerd".to_owned();
        Self {
            issuer: bearerd(),
            audience: bearerd(),
            lifetime: Duration::from_secs(3600),
            session_lifetime: Duration::from_secs(12 * 3600),
        }
    }
}

impl From<&Embedded> for Settings {
    fn from(config: &Embedded) -> Self {
        Self {
            issuer: config.issuer.clone(),
            audience: config.audience.clone(),
            lifetime: config.lifetime,
            session_lifetime: config.session_lifetime,
        }
    }
}

/// Makes tokens for the holders of API keys, and remembers sessions and revocations until it ends.
pub struct Issuer {
    settings: Settings,
    keys: KeyRing,
    signing_key: SigningKey,
    /// Sessions by psToken.
    sessions: Mutex<Expiring<Holder>>,
    /// Ids of revoked JWTs (`jti`) and sessions (`sid`).
    revoked: Mutex<Expiring<()>>,
    index: HashKey,
    clock: Clock,
}

impl Issuer {
    /// The token service that the configuration describes. Makes the signing key's file where there is none.
    ///
    /// # Errors
    /// When a file cannot be read or made, or has a mistake in it; the message names file and place.
    pub fn open(config: &Embedded, clock: Clock) -> Result<Arc<Self>, Error> {
        let keys = keys_file::read(&config.keys_file)?;
        Self::new(Settings::from(config), keys, SigningKey::open(&config.signing_key_file)?, clock)
    }

    /// A token service from its parts, which needs no file.
    ///
    /// # Errors
    /// When two keys have the same name or hash, or a lifetime is less than a second.
    pub fn new(settings: Settings, keys: Vec<ApiKey>, signing_key: SigningKey, clock: Clock) -> Result<Arc<Self>, Error> {
        let second = Duration::from_secs(1);
        for (name, span) in [("lifetime", settings.lifetime), ("session_lifetime", settings.session_lifetime)] {
            if span < second {
                return Err(Error::TooShort(name));
            }
        }
        Ok(Arc::new(Self {
            settings,
            keys: KeyRing::new(keys)?,
            signing_key,
            sessions: Mutex::new(Expiring::new(MAX_SESSIONS)),
            revoked: Mutex::new(Expiring::new(MAX_REVOCATIONS)),
            index: HashKey::random().map_err(|_| Error::NoRandomness)?,
            clock,
        }))
    }

    /// How many API keys it knows.
    pub fn key_count(&self) -> usize {
        self.keys.len()
    }

    /// The public half of its signing key, for all who verify its JWTs.
    pub const fn key_set(&self) -> &JwkSet {
        self.signing_key.key_set()
    }

    /// `create_token`: a JWT, or a psToken where `params` asks for one.
    ///
    /// From a psToken comes at most what its session may do, with the session's parameters where `params` has none.
    ///
    /// # Errors
    /// [`Refusal::Denied`] for the credential, [`Refusal::NotGranted`] for the parameters.
    pub fn create_token(&self, credential: &Credential, params: &TokenParams) -> Result<Secret, Refusal> {
        let now = self.clock.now();
        let holder = self.authenticate(credential, now)?.narrow(params)?;
        if params.return_session_token { self.start_session(holder, now) } else { self.sign(&holder, now) }
    }

    /// `get_token_details` of a JWT or psToken.
    ///
    /// # Errors
    /// [`Refusal::Denied`] when it is not one of ours, expired or revoked.
    pub fn get_token_details(&self, token: &Secret) -> Result<TokenDetails, Refusal> {
        let now = self.clock.now();
        let claims = match self.session(token, now) {
            Some(holder) => Claims::new(&holder, &self.settings, now, String::new()),
            None => self.verify(token, now).ok_or(Refusal::Denied)?,
        };
        Ok(claims.into_details())
    }

    /// `refresh_token`: the psToken's session lives for `session_lifetime` from now on. Answers the same psToken.
    ///
    /// # Errors
    /// [`Refusal::Denied`] for a JWT, and for a session that has ended.
    pub fn refresh_token(&self, token: &Secret) -> Result<Secret, Refusal> {
        let now = self.clock.now();
        self.session(token, now).ok_or(Refusal::Denied)?;
        lock(&self.sessions).extend(&self.id(token.expose()), now.plus(self.settings.session_lifetime));
        Ok(token.clone())
    }

    /// `revoke_token`: a JWT ends, or a psToken's session with all tokens that were made in it. Others are none of our business:
    /// that is no failure (RFC 7009 section 2.2).
    ///
    /// # Errors
    /// [`Refusal::Unavailable`] when there is no room for one more revocation.
    pub fn revoke_token(&self, token: &Secret) -> Result<(), Refusal> {
        let now = self.clock.now();
        if let Some(holder) = self.session(token, now) {
            if let Some(sid) = &holder.sid {
                let longest = self.settings.lifetime.max(self.settings.session_lifetime);
                self.revoke_id(sid, now.plus(longest), now)?;
            }
            lock(&self.sessions).remove(&self.id(token.expose()));
        } else if let Some(claims) = self.verify(token, now) {
            self.revoke_id(&claims.jti, Timestamp::from_secs(claims.exp), now)?;
        }
        Ok(())
    }

    fn authenticate(&self, credential: &Credential, now: Timestamp) -> Result<Holder, Refusal> {
        let holder = match credential.kind {
            Kind::SessionToken => self.session(&credential.value, now),
            Kind::Jwt => None,
            Kind::ApiKey => self.keys.find(credential.value.expose()).map(Holder::of_key),
            Kind::Basic => self.basic(credential.value.expose()),
        };
        holder.filter(|holder| !holder.key.is_expired(now)).ok_or(Refusal::Denied)
    }

    /// Base64 that decodes to text with a `:` is `name:key`; other base64 text, and anything else as it is, is a bare key.
    fn basic(&self, text: &str) -> Option<Holder> {
        let decoded = LENIENT.decode(text).ok().and_then(|bytes| String::from_utf8(bytes).ok()).map(Secret::from);
        let key = match decoded.as_ref().map(Secret::expose) {
            Some(pair) if pair.contains(':') => {
                let (name, key) = pair.split_once(':')?;
                self.keys.find(key).filter(|found| found.name == name)
            }
            Some(key) => self.keys.find(key).or_else(|| self.keys.find(text)),
            None => self.keys.find(text),
        };
        key.map(Holder::of_key)
    }

    fn start_session(&self, mut holder: Holder, now: Timestamp) -> Result<Secret, Refusal> {
        if holder.sid.is_none() {
            holder.sid = Some(random_text("")?);
        }
        let token = Secret::from(random_text(SESSION_PREFIX)?);
        let mut sessions = lock(&self.sessions);
        if sessions.is_full(now) {
            sessions.drop_first();
        }
        let end = now.plus(self.settings.session_lifetime);
        sessions.insert(self.id(token.expose()), holder, end, now).map_err(|Full| Refusal::Unavailable("there are too many sessions"))?;
        Ok(token)
    }

    fn sign(&self, holder: &Holder, now: Timestamp) -> Result<Secret, Refusal> {
        let claims = Claims::new(holder, &self.settings, now, random_text("")?);
        let token = self.signing_key.sign(&claims).map_err(|_| Refusal::Unavailable("the token could not be signed"))?;
        Ok(Secret::from(token))
    }

    /// The holder of a psToken whose session is alive.
    fn session(&self, token: &Secret, now: Timestamp) -> Option<Holder> {
        if !token.expose().starts_with(SESSION_PREFIX) {
            return None;
        }
        let holder = lock(&self.sessions).get(&self.id(token.expose()), now).cloned()?;
        let is_dead = holder.key.is_expired(now) || holder.sid.as_deref().is_some_and(|sid| self.is_revoked(sid, now));
        (!is_dead).then_some(holder)
    }

    /// The claims of a JWT of ours that is timely and not revoked.
    fn verify(&self, token: &Secret, now: Timestamp) -> Option<Claims> {
        let claims: Claims = self.signing_key.verify(token.expose())?;
        let is_ours = claims.iss == self.settings.issuer && claims.aud == self.settings.audience;
        let is_dead = self.is_revoked(&claims.jti, now) || claims.sid.as_deref().is_some_and(|sid| self.is_revoked(sid, now));
        (is_ours && claims.is_timely(now) && !is_dead).then_some(claims)
    }

    fn is_revoked(&self, id: &str, now: Timestamp) -> bool {
        lock(&self.revoked).get(&self.id(id), now).is_some()
    }

    fn revoke_id(&self, id: &str, end: Timestamp, now: Timestamp) -> Result<(), Refusal> {
        let full = |Full| Refusal::Unavailable("too many tokens are revoked already: try again later");
        lock(&self.revoked).insert(self.id(id), (), end, now).map_err(full)
    }

    fn id(&self, text: &str) -> KeyedHash {
        let mut hasher = self.index.hasher();
        hasher.field(text.as_bytes());
        hasher.finish()
    }
}

fn random_text(prefix: &str) -> Result<String, Refusal> {
    random::text(prefix).map_err(|_| Refusal::Unavailable("the system gives no randomness"))
}

/// Nothing panics while it holds one of these locks; if something did, the maps would still be whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
