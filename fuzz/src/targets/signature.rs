//! A token and a key set: no other token than the one that is signed is taken.

use std::sync::LazyLock;

use bearerd::claims::Claims;
use bearerd::jwks::KeySet;
use jsonwebtoken::Algorithm;

use super::Target;

/// The token of RFC 7515, appendix A.3, and its key.
pub const SIGNED: &str = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
pub const KEY: &str = r#"{"keys":[{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}"#;

pub const TARGET: Target = Target {
    name: "signature",
    words: &[
        b".",
        b"..",
        b"=",
        b"A",
        b"AAAA",
        b"eyJhbGciOiJub25lIn0",
        b"eyJhbGciOiJIUzI1NiJ9",
        b"eyJhbGciOiJFUzI1NiIsImFsZyI6Im5vbmUifQ",
        b"eyJhbGciOiJFUzI1NiIsImNyaXQiOlsiYjY0Il19",
        b"+",
        b"/",
        b"-",
        b"_",
        b"\xff",
        b" ",
        b"\n",
    ],
    read,
};

fn read(input: &[u8]) {
    static KEYS: LazyLock<KeySet> = LazyLock::new(|| KeySet::parse(KEY.as_bytes()).unwrap_or_else(|_| panic!("a key set")));
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(claims) = KEYS.verify(text, &[Algorithm::ES256]) {
        assert_eq!(text, SIGNED);
        assert_eq!(claims.member("iss").and_then(|iss| iss.as_str()), Some("joe"));
    } else {
        assert_ne!(text, SIGNED, "the one that is signed is refused");
    }
    // The same bytes as a set of keys, and as what a token service minted.
    let _ = KeySet::parse(input);
    let _ = Claims::of(text);
}
