//! `Max-Forwards` of OPTIONS: how many more proxies may pass it on (RFC 9110 section 7.6.2). TRACE, the other method that has it, is refused.

use http::{HeaderName, Method};
use pingora::http::RequestHeader;

const NAME: HeaderName = HeaderName::from_static("max-forwards");

/// How many may, this one among them. `None` where the request does not say, or no number.
pub(super) fn left(request: &RequestHeader) -> Option<u64> {
    if request.method != Method::OPTIONS {
        return None;
    }
    let digits = request.headers.get(&NAME)?.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
    digits.parse().ok()
}

/// Counts this proxy.
///
/// # Errors
/// None that can come: the value is a number.
pub(super) fn count(request: &mut RequestHeader) -> pingora::Result<()> {
    match left(request) {
        Some(left) => request.insert_header(NAME, left.saturating_sub(1)),
        None => Ok(()),
    }
}
