//! One entry of the exchange: a credential, the token that stands for it, and what is planned for them.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio_util::time::delay_queue;

use super::backoff::Backoff;
use super::grant::{Details, Grant, Keep};
use crate::clock::Reading;
use crate::credential::Credential;
use crate::secret::KeyedHash;
use crate::token::{JITTER, Token};

/// What requests leave behind for the timetable, and it for them.
mod mark {
    /// Used since the token came.
    pub const USED: u8 = 1;
    /// Used since the token was checked last.
    pub const SEEN: u8 = 2;
    /// The time to renew came while nobody used it: the next use is told on.
    pub const RENEWAL_LAPSED: u8 = 4;
    /// The same of the time to check.
    pub const CHECK_LAPSED: u8 = 8;
}

/// `keep_warm` goes on for so long after the last use.
const WARM: Duration = Duration::from_secs(24 * 3600);
/// The pause before the first check of what could not be checked when it was minted.
const CHECK_SOON: Duration = Duration::from_secs(1);

/// A credential's token for one route's parameters.
pub struct Entry {
    pub(super) key: KeyedHash,
    pub(super) grant: Arc<Grant>,
    /// As the caller presented it.
    pub(super) credential: Credential,
    token: ArcSwap<Token>,
    marks: AtomicU8,
    /// Requests that found it at hand.
    uses: AtomicU64,
    /// Taken out of use before its time: what rides on its tokens ends too.
    invalidated: AtomicBool,
    agenda: Mutex<Agenda>,
}

/// What is planned; times are [`Reading::uptime`].
#[derive(Debug, Default)]
pub(super) struct Agenda {
    /// In the timetable's queue.
    pub(super) timer: Option<delay_queue::Key>,
    /// It has left the cache: nothing is planned any more.
    pub(super) gone: bool,
    pub(super) renew_at: Option<Duration>,
    pub(super) check_at: Option<Duration>,
    /// Of renewals and checks.
    backoff: Backoff,
    last_used: Duration,
    /// When an upstream's 401 last made us mint.
    pub(super) rejected_at: Option<Duration>,
}

/// A use found that something was put off for want of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lapsed(u8);

impl Entry {
    /// An entry for a token that was just minted at a caller's wish.
    pub(super) fn new(key: KeyedHash, grant: Arc<Grant>, credential: Credential, token: Token, checked: bool, now: Reading) -> Self {
        let agenda = Mutex::new(Agenda { last_used: now.uptime, ..Agenda::default() });
        let entry = Self {
            key,
            grant,
            credential,
            token: ArcSwap::from_pointee(token),
            marks: AtomicU8::new(0),
            uses: AtomicU64::new(0),
            invalidated: AtomicBool::new(false),
            agenda,
        };
        entry.plan(checked, now);
        entry
    }

    /// It is taken out of use before its time.
    pub(super) fn invalidate(&self) {
        self.invalidated.store(true, Ordering::Release);
    }

    pub(super) fn is_invalidated(&self) -> bool {
        self.invalidated.load(Ordering::Acquire)
    }

    /// The token as it is now; it may have expired.
    pub(super) fn token(&self) -> Arc<Token> {
        self.token.load_full()
    }

    /// Notes a use. On the request path: beside the count, which shares a line of memory with what every use changes anyway, it writes only where there is
    /// something new to say.
    pub(super) fn touch(&self) -> Option<Lapsed> {
        const BOTH: u8 = mark::USED | mark::SEEN;
        self.uses.fetch_add(1, Ordering::Relaxed);
        if self.marks.load(Ordering::Relaxed) == BOTH {
            return None;
        }
        let before = self.marks.fetch_or(BOTH, Ordering::AcqRel);
        let lapsed = before & (mark::RENEWAL_LAPSED | mark::CHECK_LAPSED);
        (lapsed != 0).then(|| {
            self.marks.fetch_and(!lapsed, Ordering::AcqRel);
            Lapsed(lapsed)
        })
    }

    /// Plans at once what was put off.
    pub(super) fn resume(&self, Lapsed(lapsed): Lapsed, now: Reading) {
        let mut agenda = self.agenda();
        if lapsed & mark::RENEWAL_LAPSED != 0 {
            agenda.renew_at = Some(now.uptime);
        }
        if lapsed & mark::CHECK_LAPSED != 0 {
            agenda.check_at = Some(now.uptime);
        }
    }

    /// Puts a fresh token in the place of the old one.
    pub(super) fn replace(&self, token: Token, checked: bool, now: Reading) {
        self.note_use(now);
        self.token.store(Arc::new(token));
        self.marks.fetch_and(!mark::USED, Ordering::AcqRel);
        self.plan(checked, now);
        self.grant.published();
    }

    fn plan(&self, checked: bool, now: Reading) {
        let mut agenda = self.agenda();
        agenda.backoff.reset();
        agenda.renew_at = Some(self.token.load().renewal_due(JITTER.start() + fastrand::f64() * (JITTER.end() - JITTER.start())));
        agenda.check_at = match self.grant.details {
            Details::Off => None,
            Details::OnMint if checked => None,
            // Anywhere in the first span, so that tokens minted together are not checked together.
            Details::Every(span) if checked => Some(now.uptime + span.mul_f64(fastrand::f64())),
            Details::OnMint | Details::Every(_) => Some(now.uptime + CHECK_SOON),
        };
    }

    /// Whether it should be renewed now. Where not, the next use is told on.
    pub(super) fn wants_renewal(&self, now: Reading) -> bool {
        self.note_use(now);
        let is_warm = || now.uptime.saturating_sub(self.agenda().last_used) < WARM;
        match self.grant.keep {
            Keep::Always => true,
            Keep::Warm if is_warm() => true,
            Keep::Warm | Keep::InUse => self.is_marked_or_lapses(mark::USED, mark::RENEWAL_LAPSED),
        }
    }

    /// Whether it should be checked now. Where not, the next use is told on.
    pub(super) fn wants_check(&self) -> bool {
        let wanted = self.grant.keep == Keep::Always || self.is_marked_or_lapses(mark::SEEN, mark::CHECK_LAPSED);
        self.marks.fetch_and(!mark::SEEN, Ordering::AcqRel);
        wanted
    }

    fn is_marked_or_lapses(&self, wanted: u8, lapse: u8) -> bool {
        // A use that comes in between finds the lapse or is found here, never neither.
        let marked = self.marks.fetch_or(lapse, Ordering::AcqRel) & wanted != 0;
        if marked {
            self.marks.fetch_and(!lapse, Ordering::AcqRel);
        }
        marked
    }

    /// How many requests found it at hand.
    pub(super) fn uses(&self) -> u64 {
        self.uses.load(Ordering::Relaxed)
    }

    /// Whether it was used since its token came, or so short a time before that it likely will be again.
    pub(super) fn is_in_use(&self, now: Reading) -> bool {
        self.is_used() || now.uptime.saturating_sub(self.agenda().last_used) < self.token.load().lifetime()
    }

    fn is_used(&self) -> bool {
        self.marks.load(Ordering::Acquire) & mark::USED != 0
    }

    fn note_use(&self, now: Reading) {
        if self.is_used() {
            self.agenda().last_used = now.uptime;
        }
    }

    /// Plans the next attempt to renew: after a pause that grows, and once more just before the end.
    pub(super) fn renewal_failed(&self, now: Reading) {
        let token = self.token.load();
        let last_chance = token.dies().saturating_sub((token.lifetime() / 10).min(Duration::from_secs(5)));
        let mut agenda = self.agenda();
        let next = now.uptime + agenda.backoff.pause();
        agenda.renew_at = match next {
            next if next <= last_chance => Some(next),
            _ if now.uptime < last_chance => Some(last_chance),
            _ => None,
        };
    }

    /// Plans the next check after one that gave a verdict.
    pub(super) fn checked(&self, now: Reading) {
        let mut agenda = self.agenda();
        agenda.backoff.reset();
        agenda.check_at = match self.grant.details {
            Details::Every(span) => Some(now.uptime + span),
            Details::Off | Details::OnMint => None,
        };
    }

    /// Plans the next check after one that gave none.
    pub(super) fn check_failed(&self, now: Reading) {
        let mut agenda = self.agenda();
        let pause = agenda.backoff.pause();
        agenda.check_at = Some(now.uptime + pause);
    }

    /// When the timetable should look at it next.
    pub(super) fn next_due(&self) -> Duration {
        let agenda = self.agenda();
        let dies = self.token.load().dies();
        [agenda.renew_at, agenda.check_at].into_iter().flatten().fold(dies, Duration::min)
    }

    pub(super) fn agenda(&self) -> MutexGuard<'_, Agenda> {
        self.agenda.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
