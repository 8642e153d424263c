//! The credentials that a route takes: some, each place once, no place that HTTP needs for itself.

use std::collections::BTreeMap;

use super::{Report, headers};
use crate::config::place::KeyPath;
use crate::config::route::{ApiKeyPlace, Auth, CredentialKind, CredentialSource, Route};

/// Checks them.
pub fn check(route: &Route, path: &KeyPath, report: &mut Report<'_>) {
    if route.credentials.is_empty() && route.auth == Auth::Required {
        let help = "list some, as `[api_key]`; or write `auth: none` for a public route";
        report.mistaken_key(path, "`credentials` is empty: nobody could be let in", help.to_owned());
    }
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for (index, source) in route.credentials.iter().enumerate() {
        let path = path.item(index);
        if let CredentialSource::At { api_key: ApiKeyPlace::Header(name) } = source {
            header(name, &path.key("api_key").key("header"), report);
        }
        let place = place(source);
        if let Some(first) = seen.get(&place) {
            report.mistaken_key(&path, format!("the same credential as credentials[{first}]"), "remove one of them".to_owned());
        } else {
            seen.insert(place, index);
        }
    }
}

fn header(name: &str, path: &KeyPath, report: &mut Report<'_>) {
    let shown = report.positions().shown(path);
    if headers::folded(name) == "authorization" {
        report.mistake(
            path,
            format!("no API key is read from {shown}"),
            "list `basic` or `session_token` for what stands there".to_owned(),
        );
    } else if headers::is_managed(name) {
        report.mistake(path, format!("{shown} is not for credentials"), "name a header of your own, as `X-API-Key`".to_owned());
    }
}

/// What tells places apart: header names ignore case, and a backend may take `_` for `-`; query parameters are taken as they are.
fn place(source: &CredentialSource) -> String {
    match source {
        CredentialSource::Kind(CredentialKind::ApiKey) => "header x-api-key".to_owned(),
        CredentialSource::Kind(CredentialKind::Basic) => "basic".to_owned(),
        CredentialSource::Kind(CredentialKind::SessionToken) => "session token".to_owned(),
        CredentialSource::At { api_key: ApiKeyPlace::Header(name) } => format!("header {}", headers::folded(name)),
        CredentialSource::At { api_key: ApiKeyPlace::Query(name) } => format!("query {name}"),
    }
}
