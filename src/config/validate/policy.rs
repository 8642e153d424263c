//! What a route demands of callers: that it can be judged at all, and that nothing is written that does nothing.

use std::time::Duration;

use super::{Report, at_least, headers, listeners};
use crate::config::Config;
use crate::config::diagnostic::quoted;
use crate::config::place::KeyPath;
use crate::config::policy::{Jwt, RateLimitBy};
use crate::config::route::{Auth, Details, Route};

/// Checks it.
pub fn check(config: &Config, route: &Route, path: &KeyPath, report: &mut Report<'_>) {
    jwt(route, path, report);
    require(config, route, path, report);
    rate_limit(route, path, report);
    shadow(config, route, path, report);
}

fn jwt(route: &Route, path: &KeyPath, report: &mut Report<'_>) {
    let place = path.key("validate").key("jwt");
    match &route.validate.jwt {
        Some(_) if route.auth == Auth::None || route.token_api.is_some() => {
            report.mistaken_key(&place, "`jwt` does nothing on this route", "remove it: callers are not asked for one here".to_owned());
        }
        Some(jwt) => {
            key_set(jwt, &place, report);
            if !route.takes_jwt() {
                let help = "add `jwt` to `credentials`, or remove it";
                report.warning(&place, "`jwt` is not among the route's `credentials`: nothing is checked by this", help.to_owned());
            }
        }
        None if route.takes_jwt() && route.validate.details_of_presented() == Details::Off => {
            let help = "add `validate: { jwt: { jwks_url: ... } }`, or a `details` other than `off`";
            report.mistaken_key(&path.key("credentials"), "nothing checks the JWTs that callers bring", help.to_owned());
        }
        None => {}
    }
}

fn key_set(jwt: &Jwt, path: &KeyPath, report: &mut Report<'_>) {
    match (&jwt.jwks_url, &jwt.jwks_file) {
        (None, None) => {
            report.mistaken_key(
                path,
                "there are no keys to check signatures with",
                "add `jwks_url: https://...`, or `jwks_file: FILE`".to_owned(),
            );
        }
        (Some(_), Some(_)) => {
            report.mistaken_key(&path.key("jwks_file"), "`jwks_url` and `jwks_file` together", "remove one of them".to_owned())
        }
        _ => {}
    }
    if jwt.issuers.is_empty() && jwt.audiences.is_empty() {
        let message = "any token that these keys signed is taken, for whatever service it was made";
        report.warning(path, message, "add `audiences: [...]`, and `issuers: [...]` where several share the keys".to_owned());
    }
}

fn require(config: &Config, route: &Route, path: &KeyPath, report: &mut Report<'_>) {
    let place = path.key("require");
    if !route.require.client_certificate.is_empty() && !listeners::ask_for_certificates(config) {
        let help = "give a listener `tls: { client_ca: ... }`, or remove it";
        report.mistaken_key(&place.key("client_certificate"), "no listener asks callers for certificates", help.to_owned());
    }
    if !route.require.is_empty() {
        if route.auth == Auth::None || route.token_api.is_some() {
            report.mistaken_key(
                &place,
                "`require` does nothing without a token",
                "remove it, or write `auth: required` and an `upstream`".to_owned(),
            );
        } else if route.token.return_session_token {
            let help = "remove `return_session_token`: a psToken shows no claims";
            report.mistaken_key(&place, "`require` beside `return_session_token` lets nobody in", help.to_owned());
        }
    }
}

fn rate_limit(route: &Route, path: &KeyPath, report: &mut Report<'_>) {
    let Some(limit) = &route.rate_limit else { return };
    let path = path.key("rate_limit");
    at_least(report, &path.key("per"), limit.per, Duration::from_millis(1));
    let has_credential = route.auth == Auth::Required && route.token_api.is_none();
    if limit.by == RateLimitBy::Credential && !has_credential {
        let message = "the route looks for no credential to count by";
        report.mistaken_key(&path, message, "write `by: peer` or `by: route`".to_owned());
    }
}

fn shadow(config: &Config, route: &Route, path: &KeyPath, report: &mut Report<'_>) {
    if !route.enforce && route.upstream.is_none() && !config.only_decides() {
        let message = "`enforce: false` does nothing without an `upstream`";
        report.mistaken_key(&path.key("enforce"), message, "remove it".to_owned());
    } else if !route.enforce {
        let message = "shadow mode: nobody is refused on this route, and requests go on with what callers sent";
        report.warning(
            &path.key("enforce"),
            message,
            "write `enforce: true` when `auth_decisions_total{result=\"would_deny\"}` stays still".to_owned(),
        );
    }
}

/// Whether the templates of headers can be filled in.
pub(super) fn templates(config: &Config, route: &Route, path: &KeyPath, report: &mut Report<'_>) {
    let has_certificate = |value: &str| crate::template::Template::parse(value).is_ok_and(|template| template.has_certificate());
    let has_claims = |value: &str| crate::template::Template::parse(value).is_ok_and(|template| template.has_claims());
    for (name, value) in &route.headers.set {
        let path = path.key("set").key(name);
        if has_certificate(value) && !listeners::ask_for_certificates(config) {
            let help = "give a listener `tls: { client_ca: ... }`, or leave the certificate out";
            report.mistake(&path, "no listener asks callers for certificates", help.to_owned());
        }
        if has_claims(value) && (route.auth == Auth::None || route.token_api.is_some()) {
            report.mistake(
                &path,
                "there is no token whose claims could stand here",
                "write `auth: required`, or leave the claim out".to_owned(),
            );
        } else if has_claims(value) && route.token.return_session_token {
            report.mistake(&path, "a psToken shows no claims", "remove `return_session_token`, or leave the claim out".to_owned());
        }
    }
    let path = path.key("response");
    for (name, value) in &route.headers.response.set {
        let path = path.key("set").key(name);
        if headers::frames(name) {
            report.mistaken_key(
                &path,
                format!("the header {} cannot be set", quoted(name)),
                "remove it: HTTP itself deals with it".to_owned(),
            );
        }
        if has_claims(value) {
            report.mistake(
                &path,
                "claims are not told to callers",
                "write `{route}`, `{peer}` or `{request_id}`, or a fixed value".to_owned(),
            );
        }
    }
    for (index, name) in route.headers.response.remove.iter().enumerate().filter(|(_, name)| headers::frames(name)) {
        let help = "remove it from the list: HTTP itself deals with it";
        report.mistake(&path.key("remove").item(index), format!("the header {} cannot be removed", quoted(name)), help.to_owned());
    }
}
