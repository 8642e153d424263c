//! A request's own name, in logs, bodies and towards the upstream.

use http::HeaderValue;
use pingora::http::RequestHeader;

use super::inject::REQUEST_ID;

/// The longest request id that is taken over from a caller, in bytes.
const MAX_ID: usize = 128;

/// The caller's `X-Request-Id` where it has one that is fit for a log line, else a fresh one.
pub(super) fn of(request: &RequestHeader) -> HeaderValue {
    let mut theirs = request.headers.get_all(REQUEST_ID).iter();
    match (theirs.next(), theirs.next()) {
        (Some(id), None) if fit(id.as_bytes()) => id.clone(),
        _ => fresh(),
    }
}

fn fit(id: &[u8]) -> bool {
    (1..=MAX_ID).contains(&id.len())
        && id.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':' | b'/' | b'+' | b'='))
}

/// 128 random bits in hexadecimal. They tell requests apart; they are no secret.
pub(super) fn fresh() -> HeaderValue {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let random = fastrand::u128(..).to_ne_bytes();
    let mut text = [0; 32];
    for (pair, byte) in text.chunks_exact_mut(2).zip(random) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
    HeaderValue::from_bytes(&text).unwrap_or_else(|_| HeaderValue::from_static("none"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(id: &str) -> RequestHeader {
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        request.append_header(REQUEST_ID, id).unwrap();
        request
    }

    #[test]
    fn ids_are_taken_over_only_if_fit_for_a_log() {
        assert_eq!(of(&with("abc-1")), "abc-1");
        for unfit in ["", "a b", "a\"b", &"x".repeat(129)] {
            assert_eq!(of(&with(unfit)).len(), 32, "{unfit}");
        }
        assert_ne!(fresh(), fresh());
    }
}
