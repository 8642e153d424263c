//! The header of a JWT, as JSON: no matter what it says, nothing that is signed by another key, or by none, is taken, and what is a JWT here is one to the
//! check of its signature too.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bearerd::credential::{Scheme, scheme};
use bearerd::jwks::KeySet;
use jsonwebtoken::Algorithm;

use super::Target;
use super::signature::{KEY, SIGNED};

pub const TARGET: Target = Target {
    name: "header",
    words: &[
        b"\"alg\":",
        b"\"none\"",
        b"\"ES256\"",
        b"\"HS256\"",
        b"\"kid\":",
        b"\"crit\":",
        b"[\"b64\"]",
        b"\"b64\":false",
        b"\"jku\":\"http://127.0.0.1:1/\"",
        b"\"jwk\":",
        b"\"x5u\":",
        b"\"x5c\":[",
        b"\\u0061lg",
        b"\"zip\":\"DEF\"",
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"null",
        b"\xff",
        b"\0",
        b"\\ud800",
    ],
    read,
};

fn read(input: &[u8]) {
    static KEYS: LazyLock<KeySet> = LazyLock::new(|| KeySet::parse(KEY.as_bytes()).unwrap_or_else(|_| panic!("a key set")));
    let (signed_header, rest) = SIGNED.split_once('.').unwrap_or_else(|| panic!("a token"));
    let header = URL_SAFE_NO_PAD.encode(input);
    let token = format!("{header}.{rest}");
    let outcome = KEYS.verify(&token, &[Algorithm::ES256]);
    assert_eq!(outcome.is_ok(), header == signed_header, "{token}");
    let bearer = format!("Bearer {token}");
    // What no route would take for a JWT is none that a key signed.
    assert!(outcome.is_err() || scheme(bearer.as_bytes()).0 == Scheme::Jwt, "{token}");
}
