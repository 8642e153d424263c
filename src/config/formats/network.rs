//! Formats of hosts, ports and networks.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::{Complaint, Given};
use crate::config::listener::parse_network;

/// A numeric address and a port.
pub fn socket_address(given: Given<'_>) -> Result<(), Complaint> {
    let Err(_) = given.text.parse::<SocketAddr>() else { return Ok(()) };
    let message = format!("{} is not an address and port", given.shown);
    let help = if given.text.parse::<IpAddr>().is_ok() {
        let bare = given.text;
        let whole = if bare.contains(':') { format!("[{bare}]:8080") } else { format!("{bare}:8080") };
        format!("the port is missing: {}", given.suggest(&whole, "127.0.0.1:8080"))
    } else if given.text.starts_with("localhost:") {
        given.suggest(&given.text.replace("localhost", "127.0.0.1"), "127.0.0.1:8080")
    } else {
        "write a numeric address with a port, as `127.0.0.1:8080`, `0.0.0.0:8080` or `[::1]:8080`".to_owned()
    };
    Err(Complaint::new(message, help))
}

/// An address or a CIDR range.
pub fn network(given: Given<'_>) -> Result<(), Complaint> {
    parse_network(given.text).map(drop).map_err(|_| {
        Complaint::new(format!("{} is not a network", given.shown), "write an address or a CIDR range, as `10.0.0.7` or `10.0.0.0/8`")
    })
}

/// A host as it stands in a `Host` header, without a port: a DNS name, an IPv4 address, or an IPv6 address in brackets.
fn is_host(text: &str) -> bool {
    if let Some(inner) = text.strip_prefix('[') {
        return inner.strip_suffix(']').is_some_and(|address| address.parse::<Ipv6Addr>().is_ok());
    }
    let label = |label: &str| {
        let letters = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
        (1..=63).contains(&label.len()) && letters && !label.starts_with('-') && !label.ends_with('-')
    };
    text.len() <= 253 && text.strip_suffix('.').unwrap_or(text).split('.').all(label)
}

/// Splits the port off, where there is one.
fn split_port(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once(':') {
        Some((host, port)) if !text.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    }
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok_and(|port| port > 0)
}

/// A host and a port, both needed.
pub fn host_port(given: Given<'_>) -> Result<(), Complaint> {
    let message = format!("{} is not a host and port", given.shown);
    if given.text.contains('@') {
        return Err(Complaint {
            secret: true,
            ..Complaint::new("not a host and port", "remove what stands before the `@`: callers bring the credentials")
        });
    }
    if let Some((_, rest)) = given.text.split_once("://") {
        let bare = rest.split('/').next().unwrap_or_default();
        return Err(Complaint::new(message, format!("leave the scheme out: {}", given.suggest(bare, "app:3000"))));
    }
    if given.text.parse::<Ipv6Addr>().is_ok() {
        return Err(Complaint::new(message, given.suggest(&format!("[{}]:80", given.text), "[::1]:80")));
    }
    match split_port(given.text) {
        (host, Some(port)) if is_host(host) && is_port(port) => Ok(()),
        (host, None) if is_host(host) => {
            Err(Complaint::new(format!("{} has no port", given.shown), given.suggest(&format!("{}:80", given.text), "app:3000")))
        }
        _ => Err(Complaint::new(message, "write a name or address and a port, as `app:3000`, `127.0.0.1:3000` or `[::1]:3000`")),
    }
}

/// A host to match, or `*.` and what follows it.
pub fn host_pattern(given: Given<'_>) -> Result<(), Complaint> {
    let host = given.text.strip_prefix("*.").unwrap_or(given.text);
    if is_host(host) {
        return Ok(());
    }
    let message = format!("{} is not a host", given.shown);
    match split_port(given.text) {
        (bare, Some(port)) if is_host(bare.strip_prefix("*.").unwrap_or(bare)) && is_port(port) => Err(Complaint::new(
            format!("the host {} has a port", given.shown),
            format!("ports do not count here: {}", given.suggest(bare, "app.example.com")),
        )),
        _ => Err(Complaint::new(message, "write a name such as `app.example.com` or `*.example.com`")),
    }
}

/// A host with or without a port, or one of the words for one.
pub fn upstream_host(given: Given<'_>) -> Result<(), Complaint> {
    let (host, port) = split_port(given.text);
    if is_host(host) && port.is_none_or(is_port) {
        return Ok(());
    }
    Err(Complaint::new(format!("{} is not a host", given.shown), "write `preserve`, `upstream`, or a name such as `app.internal`"))
}
