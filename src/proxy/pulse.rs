//! Whether a request on an HTTP/2 connection will ever have a turn again. pingora has no bound on the time that a caller takes to end its request's body: where
//! the answer has come before, nothing else is waited for, and the request and its upstream's connection would be held for good.

use std::sync::Arc;

use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::unread::Unread;

/// One request, and when it was last seen to have had a turn.
pub(super) struct Pulse {
    pub(super) task: AbortHandle,
    request: Arc<Unread>,
    turns: usize,
    since: Instant,
}

impl Pulse {
    /// Of a request that begins.
    pub(super) fn of(task: AbortHandle, request: Arc<Unread>) -> Self {
        Self { task, request, turns: 0, since: Instant::now() }
    }

    /// Looks at it, and tells whether it has had no turn since a look that is longer ago than its limit.
    pub(super) fn has_stopped(&mut self, now: Instant) -> bool {
        let turns = self.request.turns();
        match self.request.limit() {
            Some(limit) if turns == self.turns => now.saturating_duration_since(self.since) > limit,
            _ => {
                (self.turns, self.since) = (turns, now);
                false
            }
        }
    }
}
