//! Limits and shutdown: figures that are well-formed and make no sense.

use std::time::Duration;

use super::{Report, at_least, lasting, section};
use crate::config::Config;

/// The least header section that any client fits into, and the most that the HTTP parser takes.
const HEADER_BYTES: std::ops::RangeInclusive<usize> = 1024..=1024 * 1024;
/// Nobody waits longer for an end.
const LONGEST_SHUTDOWN: Duration = Duration::from_secs(3600);

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// Checks them.
pub fn check(config: &Config, report: &mut Report<'_>) {
    for (index, listener) in config.listeners.iter().enumerate() {
        let limits = section("listeners").item(index).key("limits");
        if !HEADER_BYTES.contains(&listener.limits.header_bytes.0) {
            report.mistake(&limits.key("header_bytes"), "`header_bytes` is out of range", "write a size from `1KiB` to `1MiB`".to_owned());
        }
        at_least(report, &limits.key("header_timeout"), listener.limits.header_timeout, MILLISECOND);
        at_least(report, &limits.key("idle_timeout"), listener.limits.idle_timeout, SECOND);
    }
    let shutdown = section("shutdown");
    lasting(config.shutdown.revoke, &shutdown.key("revoke"), report);
    for (key, duration) in [("delay", config.shutdown.delay), ("drain_timeout", config.shutdown.drain_timeout)] {
        if duration > LONGEST_SHUTDOWN {
            report.mistake(&shutdown.key(key), format!("`{key}` is too long"), "write at most `1h`".to_owned());
        }
    }
}
