//! One record of the ledger: a token, or a revocation, as bytes and back.

use std::borrow::Cow;
use std::io;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::seal::Keys;
use super::{SavedRevocation, SavedToken};
use crate::clock::Timestamp;
use crate::secret::Secret;

/// Where a record stands, which is a part of what it is bound to.
#[derive(Clone, Copy)]
pub(super) enum Table {
    Tokens = 1,
    Revocations = 2,
    Meta = 3,
}

/// What is encrypted. Short names: there may be many.
#[derive(Serialize, Deserialize)]
struct Plain<'a> {
    #[serde(borrow)]
    s: Cow<'a, str>,
    #[serde(borrow)]
    t: Cow<'a, str>,
    m: i64,
    e: i64,
}

impl Plain<'_> {
    fn sealed(&self, keys: &Keys, table: Table, name: &[u8; 32]) -> io::Result<Vec<u8>> {
        let plain = Zeroizing::new(serde_json::to_vec(self).map_err(io::Error::other)?);
        keys.seal(table as u8, name, &plain).map_err(io::Error::other)
    }
}

impl SavedToken {
    /// What a record says once it is decrypted; none where it says nothing that bearerd writes.
    pub fn read(name: &[u8], plain: &[u8]) -> Option<Self> {
        let Plain { s, t, m, e } = serde_json::from_slice(plain).ok()?;
        let (minted, expires) = (Timestamp::from_millis(m), Timestamp::from_millis(e));
        Some(Self { name: name.try_into().ok()?, service: s.into_owned(), text: Secret::from(&*t), minted, expires })
    }

    /// The token's record under the newest key.
    ///
    /// # Errors
    /// When it cannot be encrypted.
    pub fn sealed(&self, keys: &Keys) -> io::Result<Vec<u8>> {
        let plain =
            Plain { s: (&*self.service).into(), t: self.text.expose().into(), m: self.minted.as_millis(), e: self.expires.as_millis() };
        plain.sealed(keys, Table::Tokens, &self.name)
    }

    /// The token in the record that stands under this name; none where no key opens it.
    pub fn open(keys: &Keys, name: &[u8], record: &[u8]) -> Option<Self> {
        opened(keys, Table::Tokens, name, record).map(|(token, _)| token)
    }
}

impl SavedRevocation {
    pub(super) fn sealed(&self, keys: &Keys) -> io::Result<Vec<u8>> {
        let plain = Plain { s: (&*self.service).into(), t: self.token.expose().into(), m: 0, e: self.until.as_millis() };
        plain.sealed(keys, Table::Revocations, &self.id)
    }
}

impl From<SavedToken> for SavedRevocation {
    fn from(token: SavedToken) -> Self {
        Self { id: token.name, service: token.service, token: token.text, until: token.expires }
    }
}

/// What stands in a record, and whether the newest key had written it. A revocation reads as the token that it ends.
pub(super) fn opened(keys: &Keys, table: Table, name: &[u8], record: &[u8]) -> Option<(SavedToken, bool)> {
    let (plain, newest) = keys.open(table as u8, name, record)?;
    Some((SavedToken::read(name, &plain)?, newest))
}
