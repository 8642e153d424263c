//! JWTs as callers bring them, and key sets as issuers publish them.

use std::time::{Duration, SystemTime};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

use super::upstream::Reply;

/// A P-256 key with a name.
pub struct Signer {
    pub kid: String,
    private: EncodingKey,
    public: Value,
}

impl Signer {
    pub fn new(kid: &str) -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let private = EncodingKey::from_ec_der(pair.to_pkcs8v1().unwrap().as_ref());
        let mut public = serde_json::to_value(Jwk::from_encoding_key(&private, Algorithm::ES256).unwrap()).unwrap();
        public["kid"] = json!(kid);
        Self { kid: kid.to_owned(), private, public }
    }

    /// A JWT of these claims, good for an hour unless they say otherwise.
    pub fn token(&self, claims: &Value) -> String {
        let mut whole = json!({ "iss": "https://issuer.test", "aud": "app", "exp": in_seconds(3600) });
        for (name, value) in claims.as_object().unwrap() {
            whole[name] = value.clone();
        }
        self.sign(&json!({ "alg": "ES256", "kid": self.kid }).to_string(), &whole.to_string())
    }

    /// These texts, signed as they are.
    pub fn sign(&self, header: &str, payload: &str) -> String {
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
        format!("{signed}.{}", jsonwebtoken::crypto::sign(signed.as_bytes(), &self.private, Algorithm::ES256).unwrap())
    }
}

/// So many seconds from now, as claims write it.
pub fn in_seconds(seconds: i64) -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(now.as_secs()).unwrap() + seconds
}

/// The key set of these.
pub fn key_set(signers: &[&Signer]) -> String {
    json!({ "keys": signers.iter().map(|signer| signer.public.clone()).collect::<Vec<_>>() }).to_string()
}

/// An answer with this key set.
pub fn publishes(signers: &[&Signer]) -> Reply {
    Reply::Fixed {
        status: 200,
        headers: vec![("Content-Type".into(), "application/jwk-set+json".into())],
        body: key_set(signers).into_bytes(),
    }
}

/// A JWT that nobody signed, as a token service may mint it.
pub fn unsigned(claims: &Value) -> String {
    let mut whole = json!({ "exp": in_seconds(3600) });
    for (name, value) in claims.as_object().unwrap() {
        whole[name] = value.clone();
    }
    format!("{}.{}.c2ln", URL_SAFE_NO_PAD.encode(r#"{"alg":"RS256"}"#), URL_SAFE_NO_PAD.encode(whole.to_string()))
}
