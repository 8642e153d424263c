//! A target, then lines of headers: of what the caller says under a managed name, in whatever spelling, nothing goes on, and ours goes on once.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::LazyLock;
use std::time::Duration;

use bearerd::credential::{Scheme, scheme};
use bearerd::proxy::inject::{self, Caller, Facts, Managed, Names};
use bearerd::token::{Lifetimes, Token};
use http::{HeaderValue, Version, header};
use pingora::http::RequestHeader;

use super::{NOW, Target};

/// What a mark in the input stands for: whatever goes on with it was said by the caller.
const CANARY: &str = "canary";

pub const TARGET: Target = Target {
    name: "inject",
    words: &[
        b"\nx-api-key: canary",
        b"\nX_API_KEY: canary",
        b"\nx.api.key: canary",
        b"\nauthorization: Basic canary",
        b"\nauthorization: Bearer canary",
        b"\nAuthorization_: canary",
        b"\nx-user: canary",
        b"\nx_user: canary",
        b"\nx-forwarded-for: canary",
        b"\nx_forwarded_for: canary",
        b"\nforwarded: for=canary",
        b"\nx-request-id: canary",
        b"\nconnection: x-api-key",
        b"\nte: trailers",
        b"\nhost: a",
        b", Bearer canary",
        b"?key=canary",
        b"&key=canary",
        b";key=canary",
        b"&%6bey=canary",
        b"&KEY=canary",
        b"&k=1",
        b"%26",
        b"%3b",
        b"%",
        b"+",
        b"http://a/",
        b" ",
        b"\n",
        b":",
    ],
    read,
};

static MANAGED: LazyLock<Managed> = LazyLock::new(|| {
    let mut managed = Managed::new();
    super::sources().iter().for_each(|source| managed.add_source(source));
    managed.headers.insert("X-User");
    managed
});

fn read(input: &[u8]) {
    static TOKEN: LazyLock<Token> = LazyLock::new(|| {
        let lifetimes = Lifetimes { session: Duration::from_secs(60), max_age: None };
        Token::parse(&"ours".into(), NOW, lifetimes).unwrap_or_else(|error| panic!("{error}"))
    });
    let Some(request) = request(input) else { return };
    for token in [Some(&*TOKEN), None] {
        let mut changed = request.clone();
        let caller = Caller::new(IpAddr::V4(Ipv4Addr::LOCALHOST), false, false);
        let id = HeaderValue::from_static("id");
        let facts = Facts {
            caller: &caller,
            request_id: &id,
            token,
            compressed: false,
            told: &[],
            host: None,
            certificate: None,
            version: Version::HTTP_11,
        };
        if inject::apply(&mut changed, &MANAGED, &Names::default(), &facts).is_ok() {
            headers(&changed, token.is_some());
            query(&request, &changed);
        }
    }
}

fn request(input: &[u8]) -> Option<RequestHeader> {
    let end = input.iter().position(|byte| *byte == b'\n').unwrap_or(input.len());
    let (target, rest) = input.split_at(end);
    // Others are refused at the door.
    if std::str::from_utf8(target).is_err() || !(target.starts_with(b"/") || target.starts_with(b"http://a/")) {
        return None;
    }
    let mut request = RequestHeader::build("GET", target, None).ok()?;
    for (name, value) in &super::headers(rest).0 {
        request.append_header(name.clone(), value.clone()).ok()?;
    }
    Some(request)
}

fn headers(request: &RequestHeader, has_token: bool) {
    let of = |name: &str| request.headers.get_all(name).iter().map(HeaderValue::as_bytes).collect::<Vec<_>>();
    assert_eq!(of("x-forwarded-for"), [b"127.0.0.1"]);
    assert_eq!(of("x-request-id"), [b"id"]);
    for (name, value) in &request.headers {
        // As a CGI application sees it.
        let folded: String = name.as_str().chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '_' }).collect();
        let is_managed = ["x_api_key", "x_user", "x_forwarded_for", "x_forwarded_proto", "forwarded", "x_request_id"].contains(&&*folded);
        assert!(!is_managed || !String::from_utf8_lossy(value.as_bytes()).contains(CANARY), "{name}: {value:?}");
    }
    if has_token {
        assert_eq!(of("authorization"), [b"Bearer ours"]);
    } else {
        assert!(request.headers.get_all(header::AUTHORIZATION).iter().all(|value| scheme(value.as_bytes()).0 == Scheme::Unknown));
    }
}

/// The credential is gone, and the rest is as it was, in its order.
fn query(before: &RequestHeader, after: &RequestHeader) {
    let pairs = |request: &RequestHeader| -> Vec<Vec<u8>> {
        let target = request.raw_path();
        let Some(mark) = target.iter().position(|byte| *byte == b'?') else { return Vec::new() };
        target[mark + 1..].split(|byte| b"&;".contains(byte)).map(<[u8]>::to_vec).collect()
    };
    let is_key = |pair: &[u8]| {
        let name = pair.split(|byte| *byte == b'=').next().unwrap_or_default();
        percent_encoding::percent_decode(name).collect::<Vec<u8>>().eq_ignore_ascii_case(b"key")
    };
    let (before, after) = (pairs(before), pairs(after));
    assert!(!after.iter().any(|pair| is_key(pair)));
    let rest: Vec<_> = before.iter().filter(|pair| !is_key(pair) && !pair.is_empty()).collect();
    assert_eq!(after.iter().filter(|pair| !pair.is_empty()).collect::<Vec<_>>(), rest);
}
