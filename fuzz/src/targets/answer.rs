//! What a token service answers: a token in it can be a header, and a refusal is one short line without the credential in it.

use std::sync::LazyLock;
use std::time::Duration;

use bearerd::secret::Secret;
use bearerd::token::{Lifetimes, Token};
use bearerd::token_service;
use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::{NOW, Target};

const KEY: &str = "canary-0123456789";

pub const TARGET: Target = Target {
    name: "answer",
    words: &[
        b"\"access_token\":",
        b"\"code\":",
        b"\"message\":",
        b"\"acls\":",
        b"canary-0123456789",
        b"canary%2D0123456789",
        b"canary-\\u00000123456789",
        b"Y2FuYXJ5LTAxMjM0NTY3ODk=",
        b"canary-0",
        b"null",
        b"\\n",
        b"\\r\\n",
        b"\\u0000",
        b"\\u000d",
        b"\\u0063",
        b"%63",
        b"%25",
        b"\xff",
        b"\"",
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"\\",
        b"\\ud800\\udc00",
        b" ",
        b"e30",
        b".",
    ],
    read,
};

fn read(input: &[u8]) {
    for status in [StatusCode::OK, StatusCode::CREATED, StatusCode::ACCEPTED] {
        let Ok(token) = token_service::token_in(status, input) else { continue };
        assert_ne!(status, StatusCode::ACCEPTED);
        let text = token.expose();
        assert!(!text.is_empty() && text.len() <= 16 * 1024 && text.bytes().all(|byte| byte.is_ascii_graphic()));
        let _ = Token::parse(&token, NOW, Lifetimes { session: Duration::from_secs(60), max_age: Some(Duration::from_secs(30)) });
    }
    let _ = token_service::details_in(StatusCode::OK, input);
    static SECRETS: LazyLock<Vec<Secret>> = LazyLock::new(|| vec![KEY.into()]);
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_bytes(input) {
        headers.insert(header::RETRY_AFTER, value);
    }
    for status in [StatusCode::BAD_REQUEST, StatusCode::FORBIDDEN, StatusCode::TOO_MANY_REQUESTS] {
        let error = token_service::refusal_in(status, &headers, input, &SECRETS, NOW.wall).unwrap_or_else(|| panic!("{status} is a no"));
        let text = error.to_string();
        assert!(!text.contains(KEY) && !text.contains(&KEY[..8]), "{text}");
        assert!(text.chars().count() < 300 && !text.contains(char::is_control), "{text}");
        if let token_service::Error::RateLimited { retry_after: Some(span) } = error {
            assert!(span <= Duration::from_secs(3600));
        }
    }
}
