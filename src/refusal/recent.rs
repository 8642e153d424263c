//! The last requests that were refused or failed, for operators.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use serde::{Serialize, Serializer};

use super::Reason;
use crate::clock::Clock;

/// How many are kept.
const KEPT: usize = 100;
/// Characters of a path that are kept.
const PATH: usize = 200;

/// A request that was refused or failed. Holds no secret: no query, no header.
#[derive(Clone, Debug, Serialize)]
pub struct Refused {
    /// When it ended, in seconds since 1970.
    pub at: i64,
    /// Its id, as the caller and the log have it.
    pub request_id: String,
    /// The caller's address: behind a trusted peer, the one that it names.
    pub peer: Option<IpAddr>,
    /// The route; empty where none matched.
    pub route: String,
    /// The method.
    pub method: String,
    /// The path, without the query.
    pub path: String,
    /// The status that the caller got.
    pub status: u16,
    /// Why.
    #[serde(serialize_with = "word")]
    pub reason: Reason,
    /// More of that; empty where there is no more.
    pub cause: String,
}

fn word<S: Serializer>(reason: &Reason, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(reason.as_str())
}

/// The last refusals, bounded.
pub struct Recent {
    kept: Mutex<VecDeque<Refused>>,
    clock: Clock,
}

impl Recent {
    /// None yet.
    pub fn new(clock: Clock) -> Self {
        Self { kept: Mutex::default(), clock }
    }

    /// Keeps one, which is told the time. In a flood of them, where another is just being kept, it is let go: no request waits for this.
    pub fn keep(&self, refused: impl FnOnce(i64) -> Refused) {
        let Ok(mut kept) = self.kept.try_lock() else { return };
        let mut refused = refused(self.clock.now().as_secs());
        if let Some((end, _)) = refused.path.char_indices().nth(PATH) {
            refused.path.truncate(end);
        }
        if kept.len() >= KEPT {
            kept.pop_back();
        }
        kept.push_front(refused);
    }

    /// What is kept, the latest first.
    pub fn all(&self) -> Vec<Refused> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(number: i64) -> Refused {
        Refused {
            at: number,
            request_id: String::new(),
            peer: None,
            route: String::new(),
            method: "GET".to_owned(),
            path: "/é".repeat(300),
            status: 401,
            reason: Reason::Denied,
            cause: String::new(),
        }
    }

    #[test]
    fn the_latest_are_kept_and_bounded() {
        let recent = Recent::new(Clock::steppable());
        (0..150).for_each(|number| recent.keep(|_| refused(number)));
        let all = recent.all();
        assert_eq!((all.len(), all[0].at, all[99].at), (KEPT, 149, 50));
        assert_eq!(all[0].path.chars().count(), PATH);
        assert_eq!(serde_json::to_value(&all[0]).unwrap()["reason"], "denied");
    }
}
