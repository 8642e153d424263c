//! Token services: time-outs, lifetimes, TLS that comes in pairs, keys in the clear.

use std::time::Duration;

use url::{Host, Url};

use super::{Report, at_least, section};
use crate::config::place::KeyPath;
use crate::config::token_service::{ClientTls, Embedded, Iap};
use crate::config::{Config, TokenService};

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// Checks them.
pub fn check(config: &Config, report: &mut Report<'_>) {
    for (name, service) in &config.token_services {
        let path = section("token_services").key(name);
        at_least(report, &path.key("mint").key("wait"), service.mint().wait, MILLISECOND);
        at_least(report, &path.key("breaker").key("probe_interval"), service.breaker().probe_interval, MILLISECOND);
        match service {
            TokenService::Iap(service) => iap(service, &path, report),
            TokenService::Embedded(service) => embedded(service, &path, report),
        }
    }
}

fn iap(service: &Iap, path: &KeyPath, report: &mut Report<'_>) {
    at_least(report, &path.key("timeout"), service.timeout, MILLISECOND);
    at_least(report, &path.key("connect_timeout"), service.connect_timeout, MILLISECOND);
    tls_pair(&service.tls, &path.key("tls"), report);
    let Ok(url) = Url::parse(&service.url) else { return };
    if url.scheme() == "https" {
        return;
    }
    if report.positions().has(&path.key("tls")) {
        report.mistaken_key(
            &path.key("tls"),
            "`tls` does nothing for an `http://` URL",
            "write `https://` in `url`, or remove `tls`".to_owned(),
        );
    } else if !is_loopback(&url) {
        report.warning(&path.key("url"), "API keys and tokens travel to this token service in the clear", "use `https://`".to_owned());
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

fn tls_pair(tls: &ClientTls, path: &KeyPath, report: &mut Report<'_>) {
    certificate_pair(tls.certificate.is_some(), tls.private_key.is_some(), path, report);
}

/// A client certificate and its key are there together or not at all.
pub(super) fn certificate_pair(certificate: bool, key: bool, path: &KeyPath, report: &mut Report<'_>) {
    let (given, missing) = match (certificate, key) {
        (true, false) => ("certificate", "private_key"),
        (false, true) => ("private_key", "certificate"),
        _ => return,
    };
    report.mistaken_key(
        &path.key(given),
        format!("`{given}` without `{missing}`"),
        format!("a client certificate needs both: add `{missing}`"),
    );
}

fn embedded(service: &Embedded, path: &KeyPath, report: &mut Report<'_>) {
    at_least(report, &path.key("lifetime"), service.lifetime, SECOND);
    at_least(report, &path.key("session_lifetime"), service.session_lifetime, SECOND);
    if service.key_overlap < service.lifetime {
        let message = "when the signing key is replaced, its tokens end before their time";
        let help = format!("write at least `lifetime`, which is `{}`", humantime::format_duration(service.lifetime));
        report.warning(&path.key("key_overlap"), message, help);
    }
}
