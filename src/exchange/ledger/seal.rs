//! The ledger's encryption: AES-256-GCM under keys derived from the operator's, one for records and one for names.

use std::io;
use std::path::{Path, PathBuf};

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Prk, Salt};
use zeroize::Zeroizing;

use crate::secret::HashKey;

/// The format of records; the first byte of each, and bound into it.
pub(super) const FORMAT: u8 = 1;
/// Least bytes of a key file.
const MIN_KEY: usize = 32;
const KEY_ID: usize = 4;
const SALT: &[u8] = b"bearerd ledger";

/// Why the keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// See to the mount and its permissions.
    #[error("cannot read the ledger's key file {}: {cause}", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// Make a longer one.
    #[error("the ledger's key file {} has fewer than 32 bytes: make one with `head -c 32 /dev/urandom`", file.display())]
    TooShort {
        /// The file.
        file: PathBuf,
    },
    /// The system gives no randomness, or the cipher refuses.
    #[error("the ledger's keys cannot be set up")]
    Unspecified,
}

/// The operator's keys, newest first: the first writes, all read.
pub struct Keys {
    keys: Vec<Key>,
    index: Vec<HashKey>,
}

struct Key {
    /// Tells records of different keys apart; says nothing of the key.
    id: [u8; KEY_ID],
    cipher: RandomizedNonceKey,
}

impl Keys {
    /// Reads the key files.
    ///
    /// # Errors
    /// When one cannot be read or is too short.
    pub fn read(files: &[PathBuf]) -> Result<Self, Error> {
        let mut keys = Self { keys: Vec::new(), index: Vec::new() };
        for file in files {
            let bytes = std::fs::read(file).map_err(|cause| Error::Unreadable { file: file.clone(), cause })?;
            keys.add(&Zeroizing::new(bytes), file)?;
        }
        Ok(keys)
    }

    fn add(&mut self, bytes: &[u8], file: &Path) -> Result<(), Error> {
        if bytes.len() < MIN_KEY {
            return Err(Error::TooShort { file: file.to_owned() });
        }
        let prk = Salt::new(HKDF_SHA256, SALT).extract(bytes);
        let mut id = [0; KEY_ID];
        id.copy_from_slice(&derived(&prk, b"key id")?[..KEY_ID]);
        let cipher = RandomizedNonceKey::new(&AES_256_GCM, &*derived(&prk, b"entries")?).map_err(|_| Error::Unspecified)?;
        self.keys.push(Key { id, cipher });
        self.index.push(HashKey::from_bytes(&*derived(&prk, b"index")?));
        Ok(())
    }

    /// The keys under which entries are named, newest first.
    pub fn index(&self) -> &[HashKey] {
        &self.index
    }

    /// Encrypts a record under the newest key. Nonces are random: one key is good for 2^32 records (NIST SP 800-38D section 8.3), which is a century
    /// at one each second.
    pub(super) fn seal(&self, table: u8, name: &[u8], plain: &[u8]) -> Result<Vec<u8>, Error> {
        let key = self.keys.first().ok_or(Error::Unspecified)?;
        let mut sealed = Zeroizing::new(plain.to_vec());
        let nonce = key.cipher.seal_in_place_append_tag(Aad::from(context(table, name)), &mut *sealed).map_err(|_| Error::Unspecified)?;
        let mut record = vec![FORMAT];
        record.extend_from_slice(&key.id);
        record.extend_from_slice(nonce.as_ref());
        record.extend_from_slice(&sealed);
        Ok(record)
    }

    /// Whether one of the keys wrote this record, going by what it says itself. None where it is of another format, or no record at all.
    pub(super) fn claims(&self, record: &[u8]) -> Option<bool> {
        let (format, rest) = record.split_first()?;
        let (id, _) = rest.split_at_checked(KEY_ID)?;
        (*format == FORMAT).then(|| self.keys.iter().any(|key| key.id == *id))
    }

    /// Decrypts a record, and says whether the newest key had written it. None where no key opens it, or where it stands under another name.
    pub(super) fn open(&self, table: u8, name: &[u8], record: &[u8]) -> Option<(Zeroizing<Vec<u8>>, bool)> {
        let (format, rest) = record.split_first()?;
        let (id, rest) = rest.split_at_checked(KEY_ID)?;
        let (nonce, sealed) = rest.split_at_checked(NONCE_LEN)?;
        if *format != FORMAT {
            return None;
        }
        for (place, key) in self.keys.iter().enumerate().filter(|(_, key)| key.id == *id) {
            let mut plain = Zeroizing::new(sealed.to_vec());
            let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
            if let Ok(opened) = key.cipher.open_in_place(nonce, Aad::from(context(table, name)), &mut plain) {
                let length = opened.len();
                plain.truncate(length);
                return Some((plain, place == 0));
            }
        }
        None
    }
}

/// What a record is bound to: it opens nowhere else.
fn context(table: u8, name: &[u8]) -> Vec<u8> {
    [&[FORMAT, table], name].concat()
}

fn derived(prk: &Prk, purpose: &[u8]) -> Result<Zeroizing<[u8; 32]>, Error> {
    let mut bytes = Zeroizing::new([0; 32]);
    let info = [purpose];
    let okm = prk.expand(&info, HKDF_SHA256).map_err(|_| Error::Unspecified)?;
    okm.fill(&mut *bytes).map_err(|_| Error::Unspecified)?;
    Ok(bytes)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn keys(seeds: &[u8]) -> Keys {
        let mut keys = Keys { keys: Vec::new(), index: Vec::new() };
        seeds.iter().for_each(|seed| keys.add(&[*seed; 32], Path::new("test")).unwrap());
        keys
    }

    #[test]
    fn a_record_opens_under_its_own_name_and_key_alone() {
        let record = keys(b"a").seal(1, b"name", b"canary").unwrap();
        let opened = |keys: &Keys, table, name| keys.open(table, name, &record).map(|(plain, newest)| (plain.to_vec(), newest));
        assert_eq!(opened(&keys(b"a"), 1, b"name"), Some((b"canary".to_vec(), true)));
        assert_eq!(opened(&keys(b"ba"), 1, b"name"), Some((b"canary".to_vec(), false)), "an older key reads");
        assert_eq!(opened(&keys(b"b"), 1, b"name"), None);
        assert_eq!(opened(&keys(b"a"), 2, b"name"), None, "not in another table");
        assert_eq!(opened(&keys(b"a"), 1, b"eman"), None, "not under another name");
        for place in 0..record.len() {
            let mut broken = record.clone();
            broken[place] ^= 1;
            assert!(keys(b"a").open(1, b"name", &broken).is_none(), "{place}");
            assert!(keys(b"a").open(1, b"name", &record[..place]).is_none(), "{place}");
        }
        assert!(!record.windows(6).any(|window| window == b"canary"));
    }

    #[test]
    fn short_keys_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        std::fs::write(&file, [7; 31]).unwrap();
        assert!(matches!(Keys::read(std::slice::from_ref(&file)), Err(Error::TooShort { .. })));
        std::fs::write(&file, [7; 32]).unwrap();
        assert!(Keys::read(&[file]).is_ok());
        assert!(matches!(Keys::read(&[folder.path().join("none")]), Err(Error::Unreadable { .. })));
    }
}
