//! Routes: names, what they refer to, what they can never match.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Report, at_least, credentials, headers, policy, section};
use crate::config::diagnostic::{instead_of, quoted};
use crate::config::place::KeyPath;
use crate::config::route::{Auth, Match, Route, Token, TokenApi};
use crate::config::{Config, TokenService};

/// Checks them, and that there are some.
pub fn check(config: &Config, report: &mut Report<'_>) {
    let routes = section("routes");
    if config.routes.is_empty() && config.sinks.is_empty() && !serves_tokens(config) {
        let help = "add one such as `routes: [{ upstream: app }]`; without routes, only sinks and an embedded token service with an `address` have work to do";
        report.mistaken_key(&routes, "there are no routes", help.to_owned());
    }
    names(config, report);
    for (index, route) in config.routes.iter().enumerate() {
        let path = routes.item(index);
        target(config, route, &path, report);
        token_service(route, &path, report);
        matching(&route.matches, &path.key("match"), report);
        credentials::check(route, &path.key("credentials"), report);
        headers::check(config, route, &path.key("headers"), report);
        policy::check(config, route, &path, report);
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
        let name = route.name_at(index);
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

fn target(config: &Config, route: &Route, path: &KeyPath, report: &mut Report<'_>) {
    match (&route.upstream, route.respond, &route.token_api) {
        (None, None, None) if config.only_decides() => {}
        (None, None, None) => report.mistaken_key(
            path,
            "the route has nowhere to go",
            "add `upstream: NAME`, `token_api: SERVICE`, or `respond: { status: 204 }`".to_owned(),
        ),
        (Some(_), Some(_), _) => both(path, "upstream", "respond", report),
        (Some(_), None, Some(_)) => both(path, "upstream", "token_api", report),
        (None, Some(_), Some(_)) => both(path, "respond", "token_api", report),
        (Some(name), None, None) => reference(name, &path.key("upstream"), "upstream", "upstreams", report),
        (None, None, Some(token_api)) => self::token_api(token_api, route, path, report),
        (None, Some(_), None) => {}
    }
}

fn both(path: &KeyPath, one: &str, other: &str, report: &mut Report<'_>) {
    report.mistaken_key(&path.key(other), format!("the route has both `{one}` and `{other}`"), "remove one of them".to_owned());
}

fn token_api(token_api: &TokenApi, route: &Route, path: &KeyPath, report: &mut Report<'_>) {
    let place = match token_api {
        TokenApi::Service(_) => path.key("token_api"),
        TokenApi::Detailed(_) => path.key("token_api").key("service"),
    };
    reference(&token_api.details().service, &place, "token service", "token_services", report);
    let matches = &route.matches;
    let conditions =
        [("path", matches.path.is_some()), ("path_prefix", matches.path_prefix.is_some()), ("path_regex", matches.path_regex.is_some())];
    for (key, is_there) in conditions {
        if is_there {
            let help =
                "remove it: the route takes `/v1/tokens`, `/v1/tokens/details` and `/v1/tokens:refresh`, and leaves others to later routes";
            report.mistaken_key(&path.key("match").key(key), format!("`{key}` does nothing beside `token_api`"), help.to_owned());
        }
    }
    if report.positions().has(&path.key("token")) {
        report.mistaken_key(
            &path.key("token"),
            "`token` does nothing beside `token_api`",
            "remove it: callers bring the parameters".to_owned(),
        );
    }
}

/// Names count as known where the document has them, even if what they stand for is wrong: that is told apart.
pub(super) fn reference(name: &str, path: &KeyPath, what: &str, section_name: &str, report: &mut Report<'_>) {
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
        && route.token_api.is_none()
        && route.needs_token_service()
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
    max_age(&route.token, &path.key("token"), report);
    if report.positions().has(&path.key("session_refresh")) && route.session_refresh >= route.session_lifetime {
        let help = format!("write less than `session_lifetime`, which is `{}`", humantime::format_duration(route.session_lifetime));
        report.mistake(&path.key("session_refresh"), "a session would end before it is refreshed", help);
    }
}

pub(super) fn max_age(token: &Token, path: &KeyPath, report: &mut Report<'_>) {
    if let Some(age) = token.max_age {
        at_least(report, &path.key("max_age"), age, Duration::from_secs(1));
    }
}

fn matching(matches: &Match, path: &KeyPath, report: &mut Report<'_>) {
    let given = [("path", &matches.path), ("path_prefix", &matches.path_prefix), ("path_regex", &matches.path_regex)];
    let mut given = given.into_iter().filter(|(_, text)| text.is_some());
    if let (Some((first, _)), Some((second, _))) = (given.next(), given.next()) {
        report.mistaken_key(
            &path.key(second),
            format!("`{first}` and `{second}` together"),
            "keep one: `path` is the whole path, `path_prefix` its first segments, `path_regex` what the whole path must fit".to_owned(),
        );
    }
}

/// Whether a route takes every request.
fn takes_all(matches: &Match) -> bool {
    matches.hosts.is_empty()
        && matches.path.is_none()
        && matches.path_regex.is_none()
        && matches.path_prefix.as_deref().is_none_or(|prefix| prefix == "/")
        && matches.methods.is_empty()
        && matches.headers.is_empty()
}

fn unreachable(config: &Config, report: &mut Report<'_>) {
    let Some(all) = config.routes.iter().position(|route| route.token_api.is_none() && takes_all(&route.matches)) else { return };
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
    let protected = config.routes.iter().filter(|route| route.needs_token_service() && route.token_api.is_none());
    let token_apis = config.routes.iter().filter_map(|route| route.token_api.as_ref()).map(|token_api| token_api.details().service);
    let services: BTreeSet<String> = protected
        .map(|route| route.token.service.clone())
        .chain(token_apis)
        .chain(config.sinks.iter().map(|sink| sink.token.service.clone()))
        .collect();
    for (name, service) in &config.token_services {
        let is_served = matches!(service, TokenService::Embedded(embedded) if embedded.address.is_some());
        if !is_served && !services.contains(name) {
            report.warning(&section("token_services").key(name), format!("nothing uses the token service {}", quoted(name)), None);
        }
    }
}
