//! An API key as the embedded token service knows it: a hash, and what it grants.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::{constant_time, digest};

use super::grants::Grants;
use super::random;
use crate::clock::Timestamp;
use crate::secret::Secret;

/// The tenant of keys that name none.
pub const DEFAULT_TENANT: &str = "default";

/// A key's holder and rights. The key itself is not kept.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiKey {
    /// Its name: unique, and the user of `Basic user:pass`. No `:` in it.
    pub name: String,
    /// What the key is known by.
    pub hash: KeyHash,
    /// `sub` of its tokens.
    pub subject: String,
    /// The most that its tokens may do.
    pub grants: Arc<Grants>,
    /// The tenant that `tid` names. No `:` in it, since clients take the last `:` segment.
    pub tenant: String,
    /// The only workgroup (`cwid`) of its tokens; where it is `None`, the caller chooses.
    pub workgroup: Option<String>,
    /// From then on neither the key nor anything made from it is good.
    pub expires: Option<Timestamp>,
    /// Neither the key nor anything made from it is good any more.
    pub revoked: bool,
}

impl ApiKey {
    /// A key that acts for the subject of the same name, in [`DEFAULT_TENANT`], without end.
    pub fn new(name: &str, key: &Secret, grants: Grants) -> Self {
        Self {
            name: name.to_owned(),
            hash: KeyHash::of(key.expose()),
            subject: name.to_owned(),
            grants: Arc::new(grants),
            tenant: DEFAULT_TENANT.to_owned(),
            workgroup: None,
            expires: None,
            revoked: false,
        }
    }

    /// Whether the key is revoked, or past its end at `now`.
    pub fn is_over(&self, now: Timestamp) -> bool {
        self.revoked || self.expires.is_some_and(|end| now >= end)
    }
}

/// A fresh key: `brd_` and 43 base64url characters.
///
/// # Errors
/// When the system gives no randomness.
pub fn generate() -> Result<Secret, aws_lc_rs::error::Unspecified> {
    random::text("brd_").map(Secret::from)
}

/// SHA-256 of a key. A slow password hash is not needed: generated keys hold 256 random bits, which no list or search finds.
#[derive(Clone, Copy, Debug)]
pub struct KeyHash([u8; 32]);

impl KeyHash {
    const PREFIX: &str = "sha256:";

    /// The hash of `key`.
    pub fn of(key: &str) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest::digest(&digest::SHA256, key.as_bytes()).as_ref());
        Self(hash)
    }

    /// Reads `sha256:` and 64 hexadecimal digits; `None` for anything else, which may be a plain key and is not shown again.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix(Self::PREFIX)?.as_bytes();
        let mut hash = [0; 32];
        if digits.len() != 2 * hash.len() {
            return None;
        }
        for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
            let (high, low) = (char::from(pair[0]).to_digit(16)?, char::from(pair[1]).to_digit(16)?);
            *byte = u8::try_from(high << 4 | low).ok()?;
        }
        Some(Self(hash))
    }

    /// The raw hash.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl PartialEq for KeyHash {
    /// In constant time.
    fn eq(&self, other: &Self) -> bool {
        constant_time::verify_slices_are_equal(&self.0, &other.0).is_ok()
    }
}

impl Eq for KeyHash {}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::PREFIX)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn generated_keys_differ_and_have_the_documented_form() {
        let (one, other) = (generate().unwrap(), generate().unwrap());
        assert_ne!(one, other);
        let rest = one.expose().strip_prefix("brd_").unwrap();
        assert_eq!(rest.len(), 43);
        assert!(rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'));
    }

    #[test]
    fn a_hash_is_that_of_sha256() {
        assert_eq!(KeyHash::of("abc").to_string(), "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn a_key_ends_at_its_very_end() {
        let mut key = ApiKey::new("a", &Secret::from("k"), Grants::default());
        assert!(!key.is_over(Timestamp::from_secs(i64::MAX)));
        key.expires = Some(Timestamp::from_secs(10));
        assert!(!key.is_over(Timestamp::from_millis(9_999)));
        assert!(key.is_over(Timestamp::from_secs(10)));
    }

    proptest! {
        #[test]
        fn a_hash_survives_its_text(key in ".*") {
            let hash = KeyHash::of(&key);
            prop_assert_eq!(KeyHash::parse(&hash.to_string()), Some(hash));
        }

        #[test]
        fn other_text_is_no_hash(text in "(sha256:)?.{0,63}") {
            prop_assert_eq!(KeyHash::parse(&text), None);
        }
    }
}
