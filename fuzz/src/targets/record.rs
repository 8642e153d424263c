//! One record of a ledger, and the text within one: nothing opens but what is as it was written, and of any text no more is read than a token.

use std::sync::LazyLock;
use std::time::Duration;

use bearerd::exchange::ledger::{Keys, SavedToken};

use super::ledger::keys;
use super::{NOW, Target};

pub const TARGET: Target = Target {
    name: "record",
    words: &[
        b"\"s\":",
        b"\"t\":",
        b"\"m\":",
        b"\"e\":",
        b"{",
        b"}",
        b"\"",
        b",",
        b"-1",
        b"9223372036854775807",
        b"1e9",
        b"\\u0000",
        b"\x01",
        b"\0\0\0\0",
    ],
    read,
};

fn read(input: &[u8]) {
    static KEYS: LazyLock<(Keys, Vec<u8>)> = LazyLock::new(|| {
        let (minted, expires) = (NOW.wall, NOW.wall.plus(Duration::from_secs(3600)));
        let token = SavedToken { name: [1; 32], service: "default".into(), text: "token-1".into(), minted, expires };
        let record = token.sealed(keys()).unwrap_or_else(|error| panic!("{error}"));
        (Keys::read(&[]).unwrap_or_else(|error| panic!("{error}")), record)
    });
    let (none, whole) = &*KEYS;
    // The input says what changes: a place, and what is there then.
    let mut record = whole.clone();
    for change in input.chunks_exact(2) {
        let place = usize::from(change[0]) % record.len();
        record[place] = change[1];
    }
    let opened = SavedToken::open(keys(), &[1; 32], &record);
    assert_eq!(opened.is_some(), record == *whole);
    assert!(SavedToken::open(keys(), &[2; 32], &record).is_none() && SavedToken::open(none, &[1; 32], &record).is_none());
    // As it lies on the disk, and as it is once it is decrypted.
    assert!(SavedToken::open(keys(), &[1; 32], input).is_none());
    if let Some(token) = SavedToken::read(&[1; 32], input) {
        let again = token.sealed(keys()).unwrap_or_else(|error| panic!("{error}"));
        let again = SavedToken::open(keys(), &token.name, &again).unwrap_or_else(|| panic!("what was written is not read"));
        assert!(again.text == token.text && again.service == token.service && again.expires == token.expires);
    }
}
