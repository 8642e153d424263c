//! A refusal: a number for its reason, a request's id up to an empty line, then what is told. Its body is a problem that says just this, its headers are
//! its own.

use std::time::Duration;

use bearerd::refusal::{Reason, Refusal};
use http::StatusCode;
use serde_json::Value;

use super::Target;

pub const TARGET: Target = Target {
    name: "problem",
    words: &[
        b"\"",
        b"\\",
        b"\",\"status\":200,\"x\":\"",
        b"}",
        b"\r\n",
        b"\n\n",
        b"\0",
        b"\xff",
        b"\\u0022",
        b"</script>",
        "\u{2028}".as_bytes(),
    ],
    read,
};

fn read(input: &[u8]) {
    let (Some(first), rest) = (input.first(), input.get(1..).unwrap_or_default()) else { return };
    let end = rest.windows(2).position(|window| window == b"\n\n").unwrap_or(rest.len());
    let (id, detail) = (String::from_utf8_lossy(&rest[..end]), String::from_utf8_lossy(&rest[end..]));
    let reason = Reason::ALL[usize::from(*first) % Reason::ALL.len()];
    let refusal = Refusal::new(reason, detail.clone().into_owned()).retry_after(Duration::from_millis(input.len() as u64));
    let problem: Value = serde_json::from_slice(&refusal.body(&id)).unwrap_or_else(|error| panic!("no JSON: {error}"));
    let members: Vec<_> = problem.as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect();
    assert_eq!(members, ["type", "title", "status", "detail", "request_id"]);
    assert_eq!(problem["status"], refusal.status().as_u16());
    assert_eq!((problem["detail"].as_str(), problem["request_id"].as_str()), (Some(&*detail), Some(&*id)));
    let headers = refusal.headers();
    let count = |wanted: &str| headers.iter().filter(|(name, _)| *name == wanted).count();
    assert_eq!((count("Content-Type"), count("Cache-Control"), count("Retry-After")), (1, 1, 1));
    assert!(refusal.status() != StatusCode::UNAUTHORIZED || count("WWW-Authenticate") == 1);
}
