//! Routes: names, what they refer to, what they can never match.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Report, at_least, credentials, headers, section};
use crate::config::diagnostic::{instead_of, quoted};
use crate::config::place::KeyPath;
use crate::config::route::{Auth, Match, Route};
use crate::config::{Config, TokenService};

/// Checks them, and that there are some.
pub fn check(config: &Config, report: &mut Report<'_>) {
    let routes = section("routes");
    if config.routes.is_empty() && !serves_tokens(config) {
        let help = "add one such as `routes: [{ upstream: app }]`; without routes, only an embedded token service with an `address` has work to do";
        report.mistaken_key(&routes, "there are no routes", help.to_owned());
    }
    names(config, report);
    for (index, route) in config.routes.iter().enumerate() {
        let path = routes.item(index);
        target(route, &path, report);
        token_service(route, &path, report);
        matching(&route.matches, &path.key("match"), report);
        credentials::check(route, &path.key("credentials"), report);
        headers::check(route, &path.key("headers"), report);
        lifetimes(route, &path, report);
    }
    unreachable(config, report);
    unused(config, report);
}

fn serves_tokens(config: &Config) -> bool {
    config.token_services.values().any(|service| matches!(service, TokenService::Embedded(embedded) if embedded.address.is_some()))
}

fn names(config: &Config, report: &mut Report<'_>) {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for (index, route) in config.routes.iter().enumerate() {
        let name = route.name.clone().unwrap_or_else(|| Route::default_name(index));
        let Some(first) = seen.get(&name).copied() else {
            seen.insert(name, index);
            continue;
        };
        // The one that has a name of its own is the one to change.
        let (wrong, other) = if route.name.is_some() { (index, first) } else { (first, index) };
        let path = section("routes").item(wrong).key("name");
        let shown = report.positions().shown(&path);
        let why = if config.routes[other].name.is_some() { "" } else { ", which has none of its own" };
        report.mistake(&path, format!("{shown} is the name of routes[{other}] too{why}"), "give each a name of its own".to_owned());
    }
}

fn target(route: &Route, path: &KeyPath, report: &mut Report<'_>) {
    match (&route.upstream, route.respond) {
        (None, None) => {
            report.mistaken_key(path, "the route has nowhere to go", "add `upstream: NAME`, or `respond: { status: 204 }`".to_owned())
        }
        (Some(_), Some(_)) => {
            report.mistaken_key(&path.key("respond"), "the route has both `upstream` and `respond`", "remove one of them".to_owned())
        }
        (Some(name), None) => reference(name, &path.key("upstream"), "upstream", "upstreams", report),
        (None, Some(_)) => {}
    }
}

/// Names count as known where the document has them, even if what they stand for is wrong: that is told apart.
fn reference(name: &str, path: &KeyPath, what: &str, section_name: &str, report: &mut Report<'_>) {
    let Some(known) = report.names(&section(section_name)) else { return };
    if !known.contains(&name) {
        let shown = report.positions().shown(path);
        report.mistake(path, format!("there is no {what} {shown}"), instead_of(name, &known, &format!("known {section_name}")));
    }
}

fn token_service(route: &Route, path: &KeyPath, report: &mut Report<'_>) {
    let path = path.key("token").key("service");
    if report.positions().has(&path) {
        reference(&route.token.service, &path, "token service", "token_services", report);
    } else if route.auth == Auth::Required
        && report.names(&section("token_services")).is_some_and(|names| !names.contains(&route.token.service.as_str()))
    {
        let message = format!("the route needs the token service {}, which is not there", quoted(&route.token.service));
        report.mistaken_key(
            &path,
            message,
            "add it under `token_services`, name another in `token: { service: NAME }`, or write `auth: none`".to_owned(),
        );
    }
}

fn lifetimes(route: &Route, path: &KeyPath, report: &mut Report<'_>) {
    at_least(report, &path.key("session_lifetime"), route.session_lifetime, Duration::from_secs(1));
    at_least(report, &path.key("session_refresh"), route.session_refresh, Duration::from_secs(1));
    if let Some(age) = route.token.max_age {
        at_least(report, &path.key("token").key("max_age"), age, Duration::from_secs(1));
    }
    if report.positions().has(&path.key("session_refresh")) && route.session_refresh >= route.session_lifetime {
        let help = format!("write less than `session_lifetime`, which is `{}`", humantime::format_duration(route.session_lifetime));
        report.mistake(&path.key("session_refresh"), "a session would end before it is refreshed", help);
    }
}

fn matching(matches: &Match, path: &KeyPath, report: &mut Report<'_>) {
    if matches.path.is_some() && matches.path_prefix.is_some() {
        report.mistaken_key(
            &path.key("path_prefix"),
            "`path` and `path_prefix` together",
            "keep one: `path` is the whole path, `path_prefix` its first segments".to_owned(),
        );
    }
}

/// Whether a route takes every request.
fn takes_all(matches: &Match) -> bool {
    matches.hosts.is_empty()
        && matches.path.is_none()
        && matches.path_prefix.as_deref().is_none_or(|prefix| prefix == "/")
        && matches.methods.is_empty()
        && matches.headers.is_empty()
}

fn unreachable(config: &Config, report: &mut Report<'_>) {
    let Some(all) = config.routes.iter().position(|route| takes_all(&route.matches)) else { return };
    for index in all + 1..config.routes.len() {
        let message = format!("this route is never reached: routes[{all}] takes every request");
        report.warning(&section("routes").item(index), message, "put it before, or give that one a `match`".to_owned());
    }
}

fn unused(config: &Config, report: &mut Report<'_>) {
    let upstreams: BTreeSet<&str> = config.routes.iter().filter_map(|route| route.upstream.as_deref()).collect();
    for name in config.upstreams.keys().filter(|name| !upstreams.contains(name.as_str())) {
        report.warning(&section("upstreams").key(name), format!("no route uses the upstream {}", quoted(name)), None);
    }
    let services: BTreeSet<&str> =
        config.routes.iter().filter(|route| route.auth == Auth::Required).map(|route| route.token.service.as_str()).collect();
    for (name, service) in &config.token_services {
        let is_served = matches!(service, TokenService::Embedded(embedded) if embedded.address.is_some());
        if !is_served && !services.contains(name.as_str()) {
            report.warning(&section("token_services").key(name), format!("no route uses the token service {}", quoted(name)), None);
        }
    }
}
