//! The door: what a request must be before it is looked at. pingora's parser has refused most malformed HTTP by then; this is the rest.

use std::net::Ipv6Addr;

use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::{HeaderValue, Method, Version};
use pingora::http::RequestHeader;
use pingora::proxy::Session;

use super::connection::Connection;
use crate::refusal::{Reason, Refusal};
use crate::routing::Target;

/// What fits into 64 bits with a sign: with more, some servers overflow, and others refuse what others take.
const LENGTH_DIGITS: usize = 18;

/// Checks the limits and the forms that RFC 9110 and 9112 demand, and says what to route on.
///
/// # Errors
/// [`Reason::HeaderTooLarge`] or [`Reason::BadRequest`].
pub(super) fn checked<'a>(session: &'a Session, connection: &Connection) -> Result<Target<'a>, Refusal> {
    let request = session.req_header();
    let raw = session.as_http1().map(pingora::protocols::http::v1::server::HttpSession::get_headers_raw_bytes).unwrap_or_default();
    if raw.len() > connection.header_bytes || request.headers.len() > connection.headers {
        return Err(Refusal::new(
            Reason::HeaderTooLarge,
            format!(
                "The header section has {} bytes in {} lines; at most {} bytes in {} lines are taken.",
                raw.len(),
                request.headers.len(),
                connection.header_bytes,
                connection.headers
            ),
        ));
    }
    if request.method == Method::TRACE {
        // The upstream would send our token back in its answer.
        return Err(bad("TRACE is not forwarded: its answer would show the token."));
    }
    let has_body = framing(request, &raw)?;
    connection.expect_bytes((!has_body).then_some(raw.len()));
    if !has_a_form(request) {
        return Err(bad("The request target must be a path, or a URL with `http://` or `https://`."));
    }
    if !request.raw_path_is_utf8() {
        return Err(bad("The request target has bytes that no URL can have; escape them."));
    }
    Ok(Target { authority: authority(request)?, method: &request.method, path: request.uri.path(), headers: &request.headers })
}

/// Origin form, absolute form, or `*` with OPTIONS (RFC 9112 section 3.2). pingora makes `/` of whatever it cannot read, and would send that on.
fn has_a_form(request: &RequestHeader) -> bool {
    let target = request.raw_path();
    let begins = |scheme: &[u8]| target.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
    target.starts_with(b"/") || begins(b"http://") || begins(b"https://") || (target == b"*" && request.method == Method::OPTIONS)
}

/// `Transfer-Encoding` other than plain `chunked`, or beside `Content-Length`, and a `Content-Length` of several equal numbers are read in different
/// ways by different servers (RFC 9112 sections 6.1 and 6.3). Backends that know headers as variables read `_` as `-`. Returns whether a body follows.
fn framing(request: &RequestHeader, raw: &[u8]) -> Result<bool, Refusal> {
    if request.headers.contains_key("content_length") || request.headers.contains_key("transfer_encoding") {
        return Err(bad("`Content_Length` and `Transfer_Encoding` are taken for the headers with a `-` by some servers."));
    }
    let mut lengths = request.headers.get_all(CONTENT_LENGTH).iter();
    let length = lengths.next();
    if let Some(length) = length
        && (lengths.next().is_some() || length.len() > LENGTH_DIGITS || !length.as_bytes().iter().all(u8::is_ascii_digit))
    {
        return Err(bad("`Content-Length` must be one number, of 18 digits at most."));
    }
    let mut codings = request.headers.get_all(TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else { return Ok(length.is_some()) };
    if codings.next().is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
        return Err(bad("Only `Transfer-Encoding: chunked` is taken, once."));
    }
    // pingora has dropped the length from its headers by now.
    let name = CONTENT_LENGTH.as_str().as_bytes();
    let both = raw
        .split(|byte| *byte == b'\n')
        .any(|line| line.len() > name.len() && line[..name.len()].eq_ignore_ascii_case(name) && line[name.len()] == b':');
    if both { Err(bad("`Content-Length` and `Transfer-Encoding` together are ambiguous.")) } else { Ok(true) }
}

/// `Host` must be there in HTTP/1.1 and be an authority (RFC 9112 section 3.2); pingora has seen to it that it is one and that an absolute-form
/// target says the same.
fn authority(request: &RequestHeader) -> Result<&str, Refusal> {
    // HTTP/2 names it outside the headers; pingora has seen to it that both say the same.
    let named = request.uri.authority().filter(|_| request.version == Version::HTTP_2).map(|authority| Ok(authority.as_str()));
    let Some(host) = named.or_else(|| request.headers.get(HOST).map(HeaderValue::to_str)) else {
        return if request.version == Version::HTTP_10 { Ok("") } else { Err(bad("The header `Host` is missing.")) };
    };
    let text = host.map_err(|_| bad("The header `Host` is not a host."))?;
    let (good_name, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) => (address.parse::<Ipv6Addr>().is_ok(), port),
        None => {
            let (name, port) = text.find(':').map_or((text, ""), |colon| text.split_at(colon));
            let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(&byte);
            (!name.is_empty() && name.bytes().all(is_name), port)
        }
    };
    let good_port = port.is_empty() || port.strip_prefix(':').is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    if good_name && good_port { Ok(text) } else { Err(bad("The header `Host` is not a host with an optional port.")) }
}

fn bad(detail: &'static str) -> Refusal {
    Refusal::new(Reason::BadRequest, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: &'static str, value: &str) -> RequestHeader {
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        request.set_version(Version::HTTP_11);
        request.append_header(name, value).unwrap();
        request
    }

    #[test]
    fn hosts_must_be_hosts() {
        for good in ["a.example", "a.example:80", "[::1]:8080", "127.0.0.1"] {
            assert_eq!(authority(&with("Host", good)).ok(), Some(good));
        }
        for bad in ["", "a b", "a/b", "a:x", "a@b", "a:80:80", ":80", "[x]", "[::1", "a[::1]", "[::1]x", "[::1%25lo]", "::1"] {
            assert!(authority(&with("Host", bad)).is_err(), "{bad}");
        }
        assert!(authority(&with("X-Other", "x")).is_err());
    }

    #[test]
    fn two_ways_to_tell_the_length_are_refused() {
        assert!(framing(&with("Transfer-Encoding", "chunked"), b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n").is_ok());
        assert!(framing(&with("Transfer-Encoding", "chunked"), b"POST / HTTP/1.1\r\ncontent-LENGTH: 3\r\n").is_err());
        assert!(framing(&with("Transfer-Encoding", "gzip, chunked"), b"").is_err());
        assert!(framing(&with("Content-Length", "5"), b"").is_ok());
        assert!(framing(&with("Content-Length", "5, 5"), b"").is_err());
        assert!(framing(&with("Content-Length", "000000000000000005"), b"").is_ok());
        assert!(framing(&with("Content_Length", "5"), b"").is_err());
        assert!(framing(&with("transfer_ENCODING", "chunked"), b"").is_err());
        assert!(framing(&with("Content-Length", "9223372036854775808"), b"").is_err());
    }
}
