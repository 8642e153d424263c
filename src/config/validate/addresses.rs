//! Addresses that bearerd listens on: each once, and the admin listener out of strangers' reach.

use std::net::SocketAddr;

use super::{Report, section};
use crate::config::place::KeyPath;
use crate::config::{Config, TokenService};

/// Checks them.
pub fn check(config: &Config, report: &mut Report<'_>) {
    let listeners = section("listeners");
    if config.listeners.is_empty() {
        report.mistaken_key(
            &listeners,
            "`listeners` is empty: nobody could call",
            "remove the key for the default, 127.0.0.1:8080".to_owned(),
        );
    }
    let mut used: Vec<(KeyPath, SocketAddr)> =
        config.listeners.iter().enumerate().map(|(index, listener)| (listeners.item(index).key("address"), listener.address)).collect();
    used.push((section("admin").key("address"), config.admin.address));
    used.push((section("metrics").key("address"), config.metrics.address));
    for (name, service) in &config.token_services {
        if let TokenService::Embedded(embedded) = service {
            used.extend(embedded.address.map(|address| (section("token_services").key(name).key("address"), address)));
        }
    }
    for (index, (path, address)) in used.iter().enumerate() {
        if let Some((first, _)) = used[..index].iter().find(|(_, other)| clash(*address, *other)) {
            doubled(report, first, path);
        }
    }
    if !config.admin.address.ip().is_loopback() && config.admin.token_file.is_none() {
        report.mistake(
            &section("admin").key("address"),
            "the admin listener is open to the network without a token",
            "give it `token_file`, or an address on loopback such as `127.0.0.1:9901`".to_owned(),
        );
    }
}

/// Reports at the later of the two, if it is in the document at all.
fn doubled(report: &mut Report<'_>, first: &KeyPath, second: &KeyPath) {
    let positions = report.positions();
    let (path, other) = if positions.has(second) || !positions.has(first) { (second, first) } else { (first, second) };
    let by_default = if positions.has(other) { "" } else { " by default" };
    report.mistake(
        path,
        format!("{} is used twice: `{other}` has it too{by_default}", positions.shown(path)),
        "give each an address or port of its own".to_owned(),
    );
}

/// Whether two listeners cannot be there at once. Port 0 is another each time; an unspecified address is all of its family, `[::]` of both.
fn clash(one: SocketAddr, other: SocketAddr) -> bool {
    let covers = |all: SocketAddr, part: SocketAddr| all.ip().is_unspecified() && (all.is_ipv6() || part.is_ipv4());
    one.port() != 0 && one.port() == other.port() && (one.ip() == other.ip() || covers(one, other) || covers(other, one))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_clash_as_the_system_sees_it() {
        let clash = |one: &str, other: &str| clash(one.parse().unwrap(), other.parse().unwrap());
        assert!(clash("127.0.0.1:80", "127.0.0.1:80"));
        assert!(clash("0.0.0.0:80", "127.0.0.1:80"));
        assert!(clash("127.0.0.1:80", "[::]:80"));
        assert!(!clash("0.0.0.0:80", "[::1]:80"));
        assert!(!clash("127.0.0.1:80", "127.0.0.2:80"));
        assert!(!clash("127.0.0.1:0", "127.0.0.1:0"));
        assert!(!clash("127.0.0.1:80", "127.0.0.1:81"));
    }
}
