//! The credentials that a route takes: some, each place once, no place that HTTP needs for itself.

use std::collections::BTreeMap;

use super::{Report, headers, lasting};
use crate::config::place::KeyPath;
use crate::config::route::{ApiKeyPlace, Auth, CredentialKind, CredentialSource, Placed, Route};

/// Checks them.
pub fn check(route: &Route, path: &KeyPath, report: &mut Report<'_>) {
    if route.credentials().is_empty() && route.auth == Auth::Required {
        let help = "list some, as `[api_key]`; or write `auth: none` for a public route";
        report.mistaken_key(path, "`credentials` is empty: nobody could be let in", help.to_owned());
    }
    mounted(route, path, report);
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for (index, source) in route.credentials().iter().enumerate() {
        let path = path.item(index);
        if let CredentialSource::Placed(Placed::ApiKey(ApiKeyPlace::Header(name))) = source {
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

/// Whose token would it be, where a caller brings a key and bearerd has one too?
fn mounted(route: &Route, path: &KeyPath, report: &mut Report<'_>) {
    let Some(mounted) = route.mounted() else { return };
    if route.credentials().len() > 1 {
        report.mistaken_key(
            path,
            "`mounted` beside other credentials",
            "keep `mounted` alone, or make a route of its own for it".to_owned(),
        );
    }
    if route.auth == Auth::None {
        report.mistaken_key(path, "`mounted` does nothing with `auth: none`", "remove one of them".to_owned());
    }
    if route.token_api.is_some() {
        let help = "callers of `token_api` bring their own credentials: remove `mounted`";
        report.mistaken_key(path, "`mounted` and `token_api` together", help.to_owned());
    }
    let index =
        route.credentials().iter().position(|source| matches!(source, CredentialSource::Placed(Placed::Mounted(_)))).unwrap_or_default();
    lasting(mounted.revoke_on_change, &path.item(index).key("mounted").key("revoke_on_change"), report);
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
        CredentialSource::Kind(CredentialKind::Jwt) => "jwt".to_owned(),
        CredentialSource::Placed(Placed::ApiKey(ApiKeyPlace::Header(name))) => format!("header {}", headers::folded(name)),
        CredentialSource::Placed(Placed::ApiKey(ApiKeyPlace::Query(name))) => format!("query {name}"),
        CredentialSource::Placed(Placed::Mounted(_)) => "mounted".to_owned(),
    }
}
