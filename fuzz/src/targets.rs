//! What strangers' bytes are read by, and what must hold of it.

use std::time::Duration;

use bearerd::clock::{Reading, Timestamp};
use bearerd::credential::Source;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::mutate::Target;

mod answer;
mod claims;
mod configuration;
mod credential;
mod decision;
mod header;
mod inject;
mod ledger;
mod manifest;
mod path;
mod problem;
mod query;
mod record;
mod review;
mod signature;

/// All of them.
pub const ALL: &[Target] = &[
    credential::TARGET,
    header::TARGET,
    claims::TARGET,
    signature::TARGET,
    answer::TARGET,
    query::TARGET,
    path::TARGET,
    inject::TARGET,
    decision::TARGET,
    problem::TARGET,
    review::TARGET,
    manifest::TARGET,
    record::TARGET,
    ledger::TARGET,
    configuration::TARGET,
];

const NOW: Reading = Reading { wall: Timestamp::from_secs(1_800_000_000), uptime: Duration::from_secs(1000) };

/// Every kind of credential.
fn sources() -> Vec<Source> {
    let key = Source::Header(HeaderName::from_static("x-api-key"));
    vec![key, Source::Query("key".into()), Source::Basic, Source::SessionToken, Source::Jwt]
}

/// Lines of headers, and what follows an empty line. A line that can be no header is left out.
fn headers(input: &[u8]) -> (HeaderMap, &[u8]) {
    let end = input.windows(2).position(|window| window == b"\n\n").unwrap_or(input.len());
    let mut headers = HeaderMap::new();
    for line in input[..end].split(|byte| *byte == b'\n') {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let (name, value) = (HeaderName::from_bytes(&line[..colon]), HeaderValue::from_bytes(line[colon + 1..].trim_ascii()));
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    (headers, input.get(end + 2..).unwrap_or_default())
}
