//! What an upstream takes in a header section, and who made it too long.

use pingora::http::RequestHeader;

use super::inject::section_bytes;
use super::upstream::Upstream;
use crate::refusal::{Reason, Refusal};

/// A header section that is too long for its upstream. Sizes in bytes; no values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the header section has {sent} bytes, {came} as it came; the upstream takes {taken} (`header_bytes`)")]
pub(super) struct Over {
    came: usize,
    sent: usize,
    taken: usize,
}

impl Over {
    /// What the caller gets: it is at fault only where its own headers alone are too many.
    pub(super) fn refusal(self) -> Refusal {
        let Self { came, sent: _, taken } = self;
        if came > taken {
            let detail = format!("The header section has {came} bytes; the service behind this proxy takes at most {taken}.");
            Refusal::new(Reason::HeaderTooLarge, detail)
        } else {
            let detail = "With what this proxy adds, the header section is too long for the service behind it. Send fewer headers, or tell the operator of this proxy.";
            Refusal::new(Reason::HeaderTooLargeWithOurs, detail)
        }
    }
}

/// Measures what is about to be sent.
///
/// # Errors
/// When it is too long.
pub(super) fn check(came: &RequestHeader, sent: &RequestHeader, upstream: &Upstream) -> Result<(), Over> {
    let (taken, bytes) = (upstream.header_bytes(), section_bytes(sent));
    if bytes <= taken { Ok(()) } else { Err(Over { came: section_bytes(came), sent: bytes, taken }) }
}
