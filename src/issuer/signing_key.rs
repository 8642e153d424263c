//! The key that signs JWTs: ES256, in a PEM file that is made on first use.

use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::jwk::{Jwk, JwkSet, PublicKeyUse, ThumbprintHash};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

const ALGORITHM: Algorithm = Algorithm::ES256;

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
    /// Put another key there, or remove the file to have one made.
    #[error(
        "the signing key file {} is not a PKCS#8 PEM file (`BEGIN PRIVATE KEY`) of a P-256 key: convert yours with \
         `openssl pkcs8 -topk8 -nocrypt`, or move it away to have a new one made",
        path.display()
    )]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// The cryptographic library refused; it has no more to say.
    #[error("the cryptographic library failed")]
    Crypto,
}

/// Signs, verifies, and publishes its public half.
pub struct SigningKey {
    private: EncodingKey,
    public: DecodingKey,
    header: Header,
    key_set: JwkSet,
}

impl SigningKey {
    /// A fresh key, kept nowhere.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub fn generate() -> Result<Self, Error> {
        Self::from_pem(&generate_pem()?).map_err(|_| Error::Crypto)
    }

    /// The key in `path`, made there (whole or not at all, mode 0600) where the file does not exist.
    ///
    /// # Errors
    /// When the file cannot be read or made, or holds something else.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let pem = match read(path) {
            Err(Error::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                make(path)?;
                read(path)?
            }
            read => read?,
        };
        Self::from_pem(&pem).map_err(|_| Error::NoKey { path: path.to_owned() })
    }

    fn from_pem(pem: &[u8]) -> jsonwebtoken::errors::Result<Self> {
        let private = EncodingKey::from_ec_pem(pem)?;
        let mut jwk = Jwk::from_encoding_key(&private, ALGORITHM)?;
        let kid = jwk.thumbprint(ThumbprintHash::SHA256)?;
        jwk.common.key_id = Some(kid.clone());
        jwk.common.public_key_use = Some(PublicKeyUse::Signature);
        let public = DecodingKey::from_jwk(&jwk)?;
        let header = Header { kid: Some(kid), ..Header::new(ALGORITHM) };
        Ok(Self { private, public, header, key_set: JwkSet { keys: vec![jwk] } })
    }

    /// A JWT of `claims`; its `kid` is the key's thumbprint (RFC 7638).
    ///
    /// # Errors
    /// When the library fails, which it has no reason to.
    pub fn sign(&self, claims: &impl Serialize) -> Result<String, Error> {
        jsonwebtoken::encode(&self.header, claims, &self.private).map_err(|_| Error::Crypto)
    }

    /// The claims of a JWT that this key signed, whatever its time and audience; `None` for anything else.
    pub fn verify<C: DeserializeOwned>(&self, token: &str) -> Option<C> {
        let mut validation = Validation::new(ALGORITHM);
        // Only the injected clock decides about time, and the caller about the rest.
        validation.validate_exp = false;
        validation.validate_aud = false;
        validation.required_spec_claims.clear();
        jsonwebtoken::decode(token, &self.public, &validation).ok().map(|token| token.claims)
    }

    /// The public half as a JWK Set (RFC 7517 section 5).
    pub const fn key_set(&self) -> &JwkSet {
        &self.key_set
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
fn make(path: &Path) -> Result<(), Error> {
    let failed = |source| Error::Write { path: path.to_owned(), source };
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(directory).map_err(failed)?;
    file.write_all(&generate_pem()?).map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    match file.persist_noclobber(path) {
        Err(refused) if refused.error.kind() != io::ErrorKind::AlreadyExists => Err(failed(refused.error)),
        _ => Ok(()),
    }
}

fn generate_pem() -> Result<Zeroizing<Vec<u8>>, Error> {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(|_| Error::Crypto)?;
    let document = pair.to_pkcs8v1().map_err(|_| Error::Crypto)?;
    let text = Zeroizing::new(STANDARD.encode(document.as_ref()));
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
        let made = SigningKey::open(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let token = made.sign(&json!({ "sub": "alice" })).unwrap();
        let read = SigningKey::open(&path).unwrap();
        assert_eq!(read.verify::<Value>(&token).unwrap()["sub"], "alice");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_holds_something_else_is_kept_and_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("signing.pem");
        let p384 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap().serialize_pem();
        for content in ["", "canary", "-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n", &p384] {
            std::fs::write(&path, content).unwrap();
            let error = SigningKey::open(&path).err().unwrap().to_string();
            assert!(error.contains("signing.pem is not a PKCS#8 PEM file") && !error.contains("canary"), "{error}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
        }
    }

    #[test]
    fn a_directory_that_is_not_there_is_named() {
        let error = SigningKey::open(Path::new("/nowhere/at/all/signing.pem")).err().unwrap();
        assert!(error.to_string().starts_with("cannot make the signing key file /nowhere/at/all/signing.pem"), "{error}");
    }

    #[test]
    fn only_its_own_signature_counts() {
        let (one, other) = (SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
        let token = one.sign(&json!({ "sub": "alice" })).unwrap();
        assert!(other.verify::<Value>(&token).is_none());
        let (signed, _) = token.rsplit_once('.').unwrap();
        // CVE-2022-21449: r = s = 0.
        assert!(one.verify::<Value>(&format!("{signed}.{}", "A".repeat(86))).is_none());
        assert!(one.verify::<Value>(&format!("{signed}.")).is_none());
        let (_, claims) = signed.split_once('.').unwrap();
        let none = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
        assert!(one.verify::<Value>(&format!("{none}.{claims}.")).is_none());
        // CVE-2025-30204: a megabyte of dots.
        assert!(one.verify::<Value>(&".".repeat(1 << 20)).is_none());
    }
}
