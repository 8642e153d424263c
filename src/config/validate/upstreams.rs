//! Upstreams: what they speak, how they are looked after, figures that make no sense.

use std::time::Duration;

use super::{Report, at_least, section, services};
use crate::config::Config;
use crate::config::place::KeyPath;
use crate::config::upstream::{Protocol, Upstream};

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// Checks them.
pub fn check(config: &Config, report: &mut Report<'_>) {
    for (name, upstream) in &config.upstreams {
        let path = section("upstreams").key(name);
        durations(upstream, &path, report);
        protocol(upstream, &path, report);
        tls(upstream, &path.key("tls"), report);
    }
}

fn durations(upstream: &Upstream, path: &KeyPath, report: &mut Report<'_>) {
    at_least(report, &path.key("dns_refresh"), upstream.dns_refresh, SECOND);
    let timeouts = path.key("timeouts");
    for (key, duration) in [
        ("connect", upstream.timeouts.connect),
        ("read", upstream.timeouts.read),
        ("write", upstream.timeouts.write),
        ("idle", upstream.timeouts.idle),
    ] {
        at_least(report, &timeouts.key(key), duration, MILLISECOND);
    }
    at_least(report, &path.key("ejection").key("for"), upstream.ejection.period, MILLISECOND);
    if let Some(check) = &upstream.health_check {
        let path = path.key("health_check");
        at_least(report, &path.key("interval"), check.interval, Duration::from_millis(10));
        at_least(report, &path.key("timeout"), check.timeout, MILLISECOND);
    }
}

fn protocol(upstream: &Upstream, path: &KeyPath, report: &mut Report<'_>) {
    let path = path.key("protocol");
    match (upstream.protocol, &upstream.tls) {
        (Protocol::Http2, None) => {
            report.mistake(&path, "`http2` is HTTP/2 in TLS, and there is no `tls`", "add `tls: {}`, or write `h2c`".to_owned());
        }
        (Protocol::H2c, Some(_)) => {
            report.mistake(&path, "`h2c` is HTTP/2 without TLS, and there is `tls`", "write `http2`, or remove `tls`".to_owned());
        }
        (Protocol::Auto, None) => {
            let help = "add `tls: {}`, or write `http1` or `h2c`";
            report.mistake(&path, "servers choose their protocol in TLS only, and there is no `tls`", help.to_owned());
        }
        _ => {}
    }
}

fn tls(upstream: &Upstream, path: &KeyPath, report: &mut Report<'_>) {
    let Some(tls) = &upstream.tls else { return };
    services::certificate_pair(tls.certificate.is_some(), tls.private_key.is_some(), path, report);
    if tls.sni.as_deref().is_some_and(|name| rustls::pki_types::ServerName::try_from(name).is_err()) {
        report.mistake(&path.key("sni"), "it is not the name of a host", "write a name such as `app.internal`, without a port".to_owned());
    }
    if !tls.verify {
        let message = "any certificate is taken: whoever sits between reads and changes everything, tokens included";
        report.warning(&path.key("verify"), message, "name the authority in `ca` instead".to_owned());
    }
}
