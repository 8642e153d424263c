//! The headers that a route sets and removes: none that bearerd or HTTP itself manages.

use std::collections::BTreeMap;

use super::Report;
use crate::config::Config;
use crate::config::diagnostic::quoted;
use crate::config::place::KeyPath;
use crate::config::route::{Auth, Route};

/// Written by bearerd itself on every request.
const WRITTEN: [&str; 6] = ["authorization", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-request-id"];
/// They frame a message or belong to one connection (RFC 9110 section 7.6.1, RFC 9112 section 6).
const FRAMING: [&str; 12] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// A header's name as a backend may fold it: lower case, `_` as `-`.
pub fn folded(name: &str) -> String {
    name.to_ascii_lowercase().replace('_', "-")
}

/// Whether bearerd or HTTP itself manages a header.
pub fn is_managed(name: &str) -> bool {
    let name = folded(name);
    WRITTEN.contains(&name.as_str()) || FRAMING.contains(&name.as_str())
}

/// Whether a header frames a message or belongs to one connection.
pub fn frames(name: &str) -> bool {
    FRAMING.contains(&folded(name).as_str())
}

/// Checks them.
pub fn check(config: &Config, route: &Route, path: &KeyPath, report: &mut Report<'_>) {
    set(route, &path.key("set"), report);
    removed(route, &path.key("remove"), report);
    super::policy::templates(config, route, path, report);
}

fn set(route: &Route, path: &KeyPath, report: &mut Report<'_>) {
    let mut seen: BTreeMap<String, &str> = BTreeMap::new();
    for name in route.headers.set.keys() {
        let path = path.key(name);
        if is_managed(name) {
            let help = match folded(name).as_str() {
                "host" => "set the upstream's `host` instead",
                "authorization" => "the token goes there",
                _ => "remove it: bearerd writes it where it is due",
            };
            report.mistaken_key(&path, format!("the header {} cannot be set", quoted(name)), help.to_owned());
        }
        if let Some(other) = seen.insert(name.to_ascii_lowercase(), name) {
            report.mistaken_key(
                &path,
                format!("{} is the same header as {}", quoted(name), quoted(other)),
                "remove one of them".to_owned(),
            );
        }
    }
}

fn removed(route: &Route, path: &KeyPath, report: &mut Report<'_>) {
    for (index, name) in route.headers.remove.iter().enumerate() {
        let path = path.item(index);
        let shown = report.positions().shown(&path);
        let folded = folded(name);
        if frames(name) {
            report.mistake(
                &path,
                format!("the header {shown} cannot be removed"),
                "remove it from the list: bearerd deals with it".to_owned(),
            );
        } else if folded == "authorization" && route.auth == Auth::Required {
            report.mistake(&path, format!("the header {shown} cannot be removed"), "the token goes there".to_owned());
        } else if route.headers.set.keys().any(|set| set.eq_ignore_ascii_case(name)) {
            report.mistake(
                &path,
                format!("{shown} is both set and removed"),
                "remove it from this list: what the caller sent is gone anyway".to_owned(),
            );
        }
    }
}
