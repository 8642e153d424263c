//! Key sets, and what a signature by one of their keys proves. What a token's header says chooses among what the operator allows, and never leads
//! anywhere: `jku`, `x5u`, `jwk` and `kid` cause no connection (RFC 8725 sections 3.1, 3.9, 3.10).

pub mod rules;
pub mod source;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::Value;

use crate::claims::Claims;

/// Keys of a set that are looked at.
const MAX_KEYS: usize = 100;
/// Signatures that are checked for a token that names no key.
const MAX_TRIALS: usize = 8;
/// Bytes of the modulus of an RSA key, at least (RFC 7518 section 3.3: 2048 bits).
const MIN_MODULUS: usize = 256;

/// Why a text is no key set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not the JSON of RFC 7517 section 5.
    #[error("it is not a JWK Set: an object with the list `keys` is expected")]
    NotASet,
    /// No key in it can check signatures.
    #[error(
        "none of its {0} keys can check signatures: RSA of 2048 bits or more, P-256, P-384 and Ed25519 can, unless `use`, `key_ops` or `alg` say otherwise"
    )]
    NoKey(usize),
}

/// Why a token is not accepted. The text is for its holder; it holds nothing of the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It is no JWT in compact form (RFC 7515 section 7.1), or can be read in two ways.
    #[error("it is malformed")]
    Malformed,
    /// Its algorithm is not one that is taken, or not one for its key.
    #[error("its algorithm is not one that is accepted here")]
    Algorithm,
    /// It demands that extensions be understood (RFC 7515 section 4.1.11); none is.
    #[error("it has `crit`, and no extension is understood here")]
    Critical,
    /// The set has no key of its name.
    #[error("it is signed with a key that is not known")]
    UnknownKey,
    /// The signature does not fit.
    #[error("its signature is wrong")]
    Signature,
    /// A claim is not what it must be.
    #[error("its claim `{0}` is not what is expected here")]
    Claim(&'static str),
    /// `exp` has come.
    #[error("it has expired")]
    Expired,
}

/// The usable keys of an issuer.
pub struct KeySet {
    keys: Vec<Key>,
}

struct Key {
    id: Option<String>,
    /// What it may check, by its type and by what its members say.
    algorithms: Vec<Algorithm>,
    public: DecodingKey,
}

impl KeySet {
    /// Reads a JWK Set. Keys that are of no use here are left out: for encryption, symmetric, too short, of unknown kinds.
    ///
    /// # Errors
    /// When it is none, or has no usable key.
    pub fn parse(json: &[u8]) -> Result<Self, Error> {
        let set = Claims::parse(json).map_err(|_| Error::NotASet)?;
        let found = set.member("keys").and_then(Value::as_array).ok_or(Error::NotASet)?;
        let keys: Vec<Key> = found.iter().take(MAX_KEYS).filter_map(Key::new).collect();
        if keys.is_empty() { Err(Error::NoKey(found.len())) } else { Ok(Self { keys }) }
    }

    /// The claims of a token that a key of this set signed, with one of the `allowed` algorithms.
    ///
    /// # Errors
    /// Why it is not accepted. [`Fault::UnknownKey`] may be mended by a newer set.
    pub fn verify(&self, token: &str, allowed: &[Algorithm]) -> Result<Claims, Fault> {
        let (signed, signature) = token.rsplit_once('.').ok_or(Fault::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(Fault::Malformed)?;
        if signature.is_empty() || payload.contains('.') {
            return Err(Fault::Malformed);
        }
        let header = Claims::parse(&decode(header)?).map_err(|_| Fault::Malformed)?;
        if header.member("crit").is_some() {
            return Err(Fault::Critical);
        }
        let algorithm = match header.member("alg") {
            Some(Value::String(name)) => name.parse::<Algorithm>().map_err(|_| Fault::Algorithm)?,
            _ => return Err(Fault::Malformed),
        };
        if !allowed.contains(&algorithm) {
            return Err(Fault::Algorithm);
        }
        let id = match header.member("kid") {
            None => None,
            Some(Value::String(id)) => Some(id.as_str()),
            Some(_) => return Err(Fault::Malformed),
        };
        if !self.signed(signed, signature, algorithm, id)? {
            return Err(Fault::Signature);
        }
        Claims::parse(&decode(payload)?).map_err(|_| Fault::Malformed)
    }

    fn signed(&self, signed: &str, signature: &str, algorithm: Algorithm, id: Option<&str>) -> Result<bool, Fault> {
        let named: Vec<&Key> = self.keys.iter().filter(|key| id.is_none() || key.id.as_deref() == id).collect();
        if named.is_empty() {
            return Err(Fault::UnknownKey);
        }
        let mut fitting = named.into_iter().filter(|key| key.algorithms.contains(&algorithm)).take(MAX_TRIALS).peekable();
        if fitting.peek().is_none() {
            // Without a name, a newer set may have one that fits.
            return Err(if id.is_none() { Fault::UnknownKey } else { Fault::Algorithm });
        }
        let fits = |key: &Key| jsonwebtoken::crypto::verify(signature, signed.as_bytes(), &key.public, algorithm).unwrap_or(false);
        Ok(fitting.any(fits))
    }
}

impl Key {
    fn new(value: &Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(value.clone()).ok()?;
        let common = &jwk.common;
        let signs = common.public_key_use.as_ref().is_none_or(|what| *what == PublicKeyUse::Signature)
            && common.key_operations.as_ref().is_none_or(|all| all.contains(&KeyOperations::Verify));
        // One that is to be kept secret has no place in a public set; what it signs is worth nothing.
        if !signs || value.get("d").is_some() || value.get("k").is_some() {
            return None;
        }
        let mut algorithms = match &jwk.algorithm {
            AlgorithmParameters::RSA(rsa)
                if decode(&rsa.n).is_ok_and(|n| n.iter().skip_while(|byte| **byte == 0).count() >= MIN_MODULUS) =>
            {
                vec![Algorithm::RS256, Algorithm::RS384, Algorithm::RS512, Algorithm::PS256, Algorithm::PS384, Algorithm::PS512]
            }
            AlgorithmParameters::EllipticCurve(curve) => match curve.curve {
                EllipticCurve::P256 => vec![Algorithm::ES256],
                EllipticCurve::P384 => vec![Algorithm::ES384],
                _ => return None,
            },
            AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => vec![Algorithm::EdDSA],
            _ => return None,
        };
        if let Some(only) = value.get("alg") {
            let only = only.as_str()?.parse::<Algorithm>().ok()?;
            algorithms.retain(|algorithm| *algorithm == only);
        }
        let public = DecodingKey::from_jwk(&jwk).ok()?;
        (!algorithms.is_empty()).then(|| Self { id: jwk.common.key_id.clone(), algorithms, public })
    }
}

fn decode(part: &str) -> Result<Vec<u8>, Fault> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| Fault::Malformed)
}

/// A key set that is in use, told from those before it.
pub struct Current {
    /// The keys.
    pub keys: KeySet,
    /// Grows with each set that differs from the one before.
    pub generation: u64,
    /// What it was read from.
    text: Bytes,
}

#[cfg(test)]
mod tests;
