//! A key that signs JWTs, in a PEM file that is made on first use.

use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, PublicKeyUse, ThumbprintHash};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use crate::config::token_service::SigningAlgorithm;

/// Bytes of the modulus of an RSA key, at least (RFC 7518 section 3.3: 2048 bits). Base64url of them is longer by a third.
const MIN_MODULUS: usize = 256;

/// Why there is no signing key, or no signature.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// See to the file's or its directory's permissions.
    #[error("cannot read the signing key file {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// See to the directory: it must exist and be writable the first time.
    #[error("cannot make the signing key file {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Put another key there, change `algorithm`, or move the file away to have one made.
    #[error(
        "the signing key file {} is not a PKCS#8 PEM file (`BEGIN PRIVATE KEY`) of {wanted}: convert yours with `openssl pkcs8 -topk8 -nocrypt`, \
         set `algorithm` to what it is for, or move it away to have a new one made",
        path.display()
    )]
    NoKey {
        /// The file.
        path: PathBuf,
        /// What is expected.
        wanted: &'static str,
    },
    /// The cryptographic library refused; it has no more to say.
    #[error("the cryptographic library failed")]
    Crypto,
}

/// Signs.
pub struct SigningKey {
    private: EncodingKey,
    header: Header,
    /// Its public half.
    pub public: PublicKey,
}

/// The half of a signing key that verifies and may be seen by all.
#[derive(Clone)]
pub struct PublicKey {
    jwk: Jwk,
    id: String,
    algorithm: Algorithm,
    key: DecodingKey,
}

impl SigningKey {
    /// A fresh ES256 key, kept nowhere.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub fn generate() -> Result<Self, Error> {
        Self::generate_for(SigningAlgorithm::ES256)
    }

    /// A fresh key, kept nowhere.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub fn generate_for(algorithm: SigningAlgorithm) -> Result<Self, Error> {
        Self::from_pem(&generate_pem(algorithm)?, algorithm).ok_or(Error::Crypto)
    }

    /// The key in `path`, made there (whole or not at all, mode 0600) where the file does not exist.
    ///
    /// # Errors
    /// When the file cannot be read or made, or holds something else.
    pub fn open(path: &Path, algorithm: SigningAlgorithm) -> Result<Self, Error> {
        match Self::read(path, algorithm) {
            Err(Error::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                make(path, algorithm)?;
                Self::read(path, algorithm)
            }
            read => read,
        }
    }

    /// The key in `path`.
    ///
    /// # Errors
    /// When the file cannot be read or holds something else.
    pub fn read(path: &Path, algorithm: SigningAlgorithm) -> Result<Self, Error> {
        let wanted = match algorithm {
            SigningAlgorithm::ES256 => "a P-256 key (ES256)",
            SigningAlgorithm::EdDSA => "an Ed25519 key (EdDSA)",
            SigningAlgorithm::RS256 => "an RSA key of 2048 bits or more (RS256)",
        };
        Self::from_pem(&read(path)?, algorithm).ok_or_else(|| Error::NoKey { path: path.to_owned(), wanted })
    }

    fn from_pem(pem: &[u8], algorithm: SigningAlgorithm) -> Option<Self> {
        let (private, algorithm) = match algorithm {
            SigningAlgorithm::ES256 => (EncodingKey::from_ec_pem(pem).ok()?, Algorithm::ES256),
            SigningAlgorithm::EdDSA => (EncodingKey::from_ed_pem(pem).ok()?, Algorithm::EdDSA),
            SigningAlgorithm::RS256 => (EncodingKey::from_rsa_pem(pem).ok()?, Algorithm::RS256),
        };
        let mut jwk = Jwk::from_encoding_key(&private, algorithm).ok()?;
        if let AlgorithmParameters::RSA(rsa) = &jwk.algorithm
            && rsa.n.len() < MIN_MODULUS * 4 / 3
        {
            return None;
        }
        let id = jwk.thumbprint(ThumbprintHash::SHA256).ok()?;
        jwk.common.key_id = Some(id.clone());
        jwk.common.public_key_use = Some(PublicKeyUse::Signature);
        let header = Header { kid: Some(id), ..Header::new(algorithm) };
        Some(Self { private, header, public: PublicKey::new(jwk, algorithm)? })
    }

    /// A JWT of `claims`; its `kid` is the key's thumbprint (RFC 7638).
    ///
    /// # Errors
    /// When the library fails, which it has no reason to.
    pub fn sign(&self, claims: &impl Serialize) -> Result<String, Error> {
        jsonwebtoken::encode(&self.header, claims, &self.private).map_err(|_| Error::Crypto)
    }
}

impl PublicKey {
    fn new(jwk: Jwk, algorithm: Algorithm) -> Option<Self> {
        let (key, id) = (DecodingKey::from_jwk(&jwk).ok()?, jwk.common.key_id.clone()?);
        Some(Self { jwk, id, algorithm, key })
    }

    /// What an earlier process published.
    pub fn from_jwk(jwk: Jwk) -> Option<Self> {
        let algorithm = jwk.common.key_algorithm?.to_string().parse().ok()?;
        Self::new(jwk, algorithm)
    }

    /// Its name: the thumbprint.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// As all may see it (RFC 7517).
    pub const fn jwk(&self) -> &Jwk {
        &self.jwk
    }

    /// The claims of a JWT that this key signed, whatever its time and audience; `None` for anything else.
    pub fn verify<C: DeserializeOwned>(&self, token: &str) -> Option<C> {
        let mut validation = Validation::new(self.algorithm);
        // Only the injected clock decides about time, and the caller about the rest.
        validation.validate_exp = false;
        validation.validate_aud = false;
        validation.required_spec_claims.clear();
        jsonwebtoken::decode(token, &self.key, &validation).ok().map(|token| token.claims)
    }
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, Error> {
    let failed = |source| Error::Read { path: path.to_owned(), source };
    let pem = Zeroizing::new(std::fs::read(path).map_err(failed)?);
    let mode = std::fs::metadata(path).map_err(failed)?.permissions().mode();
    if mode & 0o077 != 0 {
        let mode = format!("{:o}", mode & 0o777);
        tracing::warn!(path = %path.display(), mode, "others than its owner may reach the signing key file: `chmod 600` it");
    }
    Ok(pem)
}

/// Another process that makes one at the same time may be first: then its key stays.
fn make(path: &Path, algorithm: SigningAlgorithm) -> Result<(), Error> {
    let failed = |source| Error::Write { path: path.to_owned(), source };
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(directory).map_err(failed)?;
    file.write_all(&generate_pem(algorithm)?).map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    match file.persist_noclobber(path) {
        Err(refused) if refused.error.kind() != io::ErrorKind::AlreadyExists => Err(failed(refused.error)),
        _ => Ok(()),
    }
}

fn generate_pem(algorithm: SigningAlgorithm) -> Result<Zeroizing<Vec<u8>>, Error> {
    let failed = |_| Error::Crypto;
    let document = match algorithm {
        SigningAlgorithm::ES256 => {
            let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(failed)?;
            Zeroizing::new(pair.to_pkcs8v1().map_err(failed)?.as_ref().to_vec())
        }
        SigningAlgorithm::EdDSA => {
            let pair = Ed25519KeyPair::generate().map_err(failed)?;
            Zeroizing::new(pair.to_pkcs8v1().map_err(failed)?.as_ref().to_vec())
        }
        SigningAlgorithm::RS256 => {
            let pair = rsa::KeyPair::generate(rsa::KeySize::Rsa2048).map_err(failed)?;
            let der: Pkcs8V1Der<'_> = pair.as_der().map_err(failed)?;
            Zeroizing::new(der.as_ref().to_vec())
        }
    };
    let text = Zeroizing::new(STANDARD.encode(&*document));
    let mut pem = Zeroizing::new(b"-----BEGIN PRIVATE KEY-----\n".to_vec());
    for line in text.as_bytes().chunks(64) {
        pem.extend_from_slice(line);
        pem.push(b'\n');
    }
    pem.extend_from_slice(b"-----END PRIVATE KEY-----\n");
    Ok(pem)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn a_key_is_made_once_and_only_for_its_owner() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("signing.pem");
        let made = SigningKey::open(&path, SigningAlgorithm::ES256).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let token = made.sign(&json!({ "sub": "alice" })).unwrap();
        let read = SigningKey::open(&path, SigningAlgorithm::ES256).unwrap();
        assert_eq!(read.public.verify::<Value>(&token).unwrap()["sub"], "alice");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_holds_something_else_is_kept_and_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("signing.pem");
        let p384 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap().serialize_pem();
        for content in ["", "canary", "-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n", &p384] {
            std::fs::write(&path, content).unwrap();
            let error = SigningKey::open(&path, SigningAlgorithm::ES256).err().unwrap().to_string();
            assert!(error.contains("signing.pem is not a PKCS#8 PEM file") && !error.contains("canary"), "{error}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
        }
    }

    #[test]
    fn each_algorithm_has_its_kind_of_key_and_takes_no_other() {
        use SigningAlgorithm::{ES256, EdDSA, RS256};
        let directory = tempfile::tempdir().unwrap();
        for algorithm in [ES256, EdDSA, RS256] {
            let path = directory.path().join(format!("{algorithm:?}.pem"));
            let key = SigningKey::open(&path, algorithm).unwrap();
            let token = key.sign(&json!({ "sub": "alice" })).unwrap();
            assert_eq!(SigningKey::open(&path, algorithm).unwrap().public.verify::<Value>(&token).unwrap()["sub"], "alice");
            let published = serde_json::to_value(key.public.jwk()).unwrap();
            assert_eq!((&published["alg"], &published["use"]), (&json!(format!("{algorithm:?}")), &json!("sig")));
            assert!(published.get("d").is_none(), "{published}");
            let again = PublicKey::from_jwk(serde_json::from_value(published).unwrap()).unwrap();
            assert_eq!((again.id(), again.verify::<Value>(&token).is_some()), (key.public.id(), true));
            for other in [ES256, EdDSA, RS256].into_iter().filter(|other| *other != algorithm) {
                let error = SigningKey::open(&path, other).err().unwrap().to_string();
                assert!(error.contains("set `algorithm` to what it is for"), "{error}");
            }
        }
    }

    #[test]
    fn a_directory_that_is_not_there_is_named() {
        let error = SigningKey::open(Path::new("/nowhere/at/all/signing.pem"), SigningAlgorithm::ES256).err().unwrap();
        assert!(error.to_string().starts_with("cannot make the signing key file /nowhere/at/all/signing.pem"), "{error}");
    }

    #[test]
    fn only_its_own_signature_counts() {
        let (one, other) = (SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
        let token = one.sign(&json!({ "sub": "alice" })).unwrap();
        assert!(other.public.verify::<Value>(&token).is_none());
        let (signed, _) = token.rsplit_once('.').unwrap();
        // CVE-2022-21449: r = s = 0.
        assert!(one.public.verify::<Value>(&format!("{signed}.{}", "A".repeat(86))).is_none());
        assert!(one.public.verify::<Value>(&format!("{signed}.")).is_none());
        let (_, claims) = signed.split_once('.').unwrap();
        let none = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
        assert!(one.public.verify::<Value>(&format!("{none}.{claims}.")).is_none());
        // CVE-2025-30204: a megabyte of dots.
        assert!(one.public.verify::<Value>(&".".repeat(1 << 20)).is_none());
    }
}
