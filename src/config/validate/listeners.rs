//! What listeners speak: keys that do nothing, or contradict each other.

use super::{Report, section};
use crate::config::Config;
use crate::config::listener::{ClientCertificates, Listener, Mode};
use crate::config::place::KeyPath;

/// Checks them.
pub fn check(config: &Config, report: &mut Report<'_>) {
    for (index, listener) in config.listeners.iter().enumerate() {
        let path = section("listeners").item(index);
        decisions(listener, &path, report);
        transport(listener, &path, report);
    }
}

/// Keys of one mode do nothing in the other.
fn decisions(listener: &Listener, path: &KeyPath, report: &mut Report<'_>) {
    if listener.mode == Mode::Decision {
        return;
    }
    for key in ["decision_status", "decision_request"].map(|key| path.key(key)) {
        if report.positions().has(&key) {
            report.mistaken_key(&key, "it does nothing on this listener", "add `mode: decision`, or remove it".to_owned());
        }
    }
}

fn transport(listener: &Listener, path: &KeyPath, report: &mut Report<'_>) {
    let Some(tls) = &listener.tls else { return };
    if listener.h2c {
        let help = "remove one of them: in TLS, callers choose HTTP/2 by themselves";
        report.mistaken_key(&path.key("h2c"), "`h2c` is HTTP/2 without TLS, and the listener has `tls`", help.to_owned());
    }
    let path = path.key("tls");
    if tls.client_ca.is_none() && report.positions().has(&path.key("client_certificates")) {
        let help = "add `client_ca`, the file of the authorities that issue them";
        report.mistaken_key(&path.key("client_certificates"), "nothing says which client certificates are good", help.to_owned());
    }
    if listener.mode == Mode::Decision && tls.client_certificates == ClientCertificates::Optional && tls.client_ca.is_some() {
        let message = "whoever asks for decisions need not show a certificate";
        report.warning(&path.key("client_certificates"), message, "write `required`".to_owned());
    }
}

/// Whether some listener looks at the certificates of callers whose requests go on from here.
pub(super) fn ask_for_certificates(config: &Config) -> bool {
    config.listeners.iter().any(|listener| listener.mode == Mode::Proxy && listener.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some()))
}
