//! Which Bearer is a JWT: by its form, before anything of it is believed.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::{self, Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};

/// Three parts of which the first is a JSON object with `alg`.
pub(super) fn is_jwt(text: &[u8]) -> bool {
    if memchr::memchr_iter(b'.', text).count() != 2 {
        return false;
    }
    let header = text.split(|byte| *byte == b'.').next().unwrap_or_default();
    LAST_HEADER.with_borrow_mut(|last| {
        if !header.is_empty() && header == last.as_slice() {
            return true;
        }
        let is_header = URL_SAFE_NO_PAD.decode(header).ok().and_then(|json| serde_json::from_slice::<Header>(&json).ok()).is_some();
        if is_header && header.len() <= MOST_KEPT {
            last.clear();
            last.extend_from_slice(header);
        }
        is_header
    })
}

/// Bytes of a header that are kept to be compared with the next one.
const MOST_KEPT: usize = 1024;

thread_local! {
    /// The last header that was found to be a JWT's. All tokens that one key signs begin with the same, which need not be read each time.
    static LAST_HEADER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A JSON object with `alg`, of which nothing is kept. One with two of them is a JWT too: a malformed one.
struct Header;

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Header;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the header of a JWT")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Header, A::Error> {
                let mut has_algorithm = false;
                while let Some(name) = members.next_key::<Cow<'de, str>>()? {
                    has_algorithm |= name == "alg";
                    members.next_value::<IgnoredAny>()?;
                }
                if has_algorithm { Ok(Header) } else { Err(de::Error::missing_field("alg")) }
            }
        }
        deserializer.deserialize_map(Members)
    }
}
