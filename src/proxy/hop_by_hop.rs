//! What an upstream's answer says of its own connection to bearerd, which goes no further (RFC 9110 section 7.6.1). Of requests pingora sees to that.

use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderName, StatusCode};
use pingora::http::ResponseHeader;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Takes out what the answer nominates, and what speaks of a connection by its name alone. `Connection` itself pingora writes anew.
pub(super) fn strip(response: &mut ResponseHeader) {
    // What is switched to may need all of its fields.
    if response.status == StatusCode::SWITCHING_PROTOCOLS || !response.headers.keys().any(is_hop_by_hop) {
        return;
    }
    for name in nominated(response) {
        response.remove_header(&name);
    }
    response.remove_header(&KEEP_ALIVE);
    response.remove_header(&PROXY_CONNECTION);
    // A 426 says what is asked for, and bearerd carries it (RFC 9110 section 15.5.22).
    if response.status != StatusCode::UPGRADE_REQUIRED {
        response.remove_header(&UPGRADE);
    }
}

/// Most answers have none of them: one walk instead of a look for each.
fn is_hop_by_hop(name: &HeaderName) -> bool {
    *name == CONNECTION || *name == UPGRADE || *name == KEEP_ALIVE || *name == PROXY_CONNECTION
}

/// The fields that `Connection` names, other than those on which the end of the answer depends, and those that need no look.
fn nominated(response: &ResponseHeader) -> Vec<HeaderName> {
    let values = response.headers.get_all(CONNECTION).iter();
    let options = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
    let options = options.filter(|option| !option.eq_ignore_ascii_case(b"close") && !option.eq_ignore_ascii_case(b"keep-alive"));
    let names = options.filter_map(|option| HeaderName::from_bytes(option).ok());
    names.filter(|name| ![CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE].contains(name)).collect()
}
