//! Sinks: each file once, none that is a key, services that exist.

use super::routes::{max_age, reference};
use super::{Report, lasting, section};
use crate::config::Config;

/// The bits that let others than the owner and its group read.
const OTHERS: u32 = 0o007;

/// Checks them.
pub fn check(config: &Config, report: &mut Report<'_>) {
    for (index, sink) in config.sinks.iter().enumerate() {
        let path = section("sinks").item(index);
        reference(&sink.token.service, &path.key("token").key("service"), "token service", "token_services", report);
        max_age(&sink.token, &path.key("token"), report);
        if sink.validate.jwt.is_some() {
            let path = path.key("validate").key("jwt");
            report.mistaken_key(&path, "`jwt` does nothing on a sink", "remove it: nobody brings one here".to_owned());
        }
        let mounted = &sink.credential.mounted;
        lasting(mounted.revoke_on_change, &path.key("credential").key("mounted").key("revoke_on_change"), report);
        if let Some(first) = config.sinks[..index].iter().position(|other| other.path == sink.path) {
            report.mistake(&path.key("path"), format!("sinks[{first}] writes this file too"), "give each a file of its own".to_owned());
        }
        if keys(config).any(|key| *key == sink.path) {
            report.mistake(&path.key("path"), "this file holds a key: it would be overwritten", "name another file".to_owned());
        }
        if sink.mode.0 & OTHERS != 0 {
            report.warning(&path.key("mode"), "every user of this machine may read the token", "write `\"0400\"` or `\"0440\"`".to_owned());
        }
    }
}

fn keys(config: &Config) -> impl Iterator<Item = &std::path::PathBuf> {
    let routes = config.routes.iter().filter_map(|route| route.mounted());
    routes.chain(config.sinks.iter().map(|sink| &sink.credential.mounted)).map(|mounted| &mounted.file)
}
