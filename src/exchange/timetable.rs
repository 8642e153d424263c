//! When each entry is due for a renewal, a check or its end: one timetable for each token service, so that a service that hangs delays no other.
//!
//! Times are monotonic: a step of the wall clock moves no renewal and starts no storm of them.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::time::DelayQueue;

use super::Exchange;
use super::cache::Cause;
use super::entry::Entry;
use super::revoke::Revocation;
use super::service::Service;
use super::session::Session;
use super::{renew, revalidate};

/// The queue holds no longer delays; what is due later is looked at then and put off again.
const FARTHEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// Renewals, checks, refreshes and revocations under way at one time. Most of them wait: for their turn, or for a fresh token's `nbf`.
const UNDER_WAY: usize = 1024;

/// What the timetable is told.
pub(super) enum Plan {
    /// This entry's times have changed.
    Watch(Arc<Entry>),
    /// This entry is gone.
    Forget(Arc<Entry>),
    /// This session must be extended then.
    Extend(Arc<Session>, Instant),
    /// The token service must be told of this revocation.
    Revoke(Arc<Revocation>),
    /// The same, at that time.
    RevokeAt(Arc<Revocation>, Instant),
    /// One piece of work has ended.
    Done,
}

enum Due {
    Entry(Arc<Entry>),
    Session(Arc<Session>),
    Revocation(Arc<Revocation>),
}

enum Work {
    Renew(Arc<Entry>),
    Check(Arc<Entry>),
    Extend(Arc<Session>),
    Revoke(Arc<Revocation>),
}

/// Works off what is due, for as long as its task runs.
pub(super) struct Timetable {
    exchange: Arc<Exchange>,
    service: Arc<Service>,
    plans: mpsc::UnboundedReceiver<Plan>,
    queue: DelayQueue<Due>,
    /// Due, and waiting for others to end: see [`UNDER_WAY`].
    ready: VecDeque<Work>,
    running: usize,
}

impl Timetable {
    pub(super) fn new(exchange: Arc<Exchange>, service: Arc<Service>, plans: mpsc::UnboundedReceiver<Plan>) -> Self {
        Self { exchange, service, plans, queue: DelayQueue::new(), ready: VecDeque::new(), running: 0 }
    }

    pub(super) async fn run(mut self) {
        loop {
            tokio::select! {
                plan = self.plans.recv() => match plan {
                    Some(plan) => self.take(plan),
                    None => return,
                },
                due = next_due(&mut self.queue) => self.fall_due(due),
            }
            self.start_ready();
        }
    }

    fn take(&mut self, plan: Plan) {
        match plan {
            Plan::Watch(entry) => self.watch(entry),
            Plan::Forget(entry) => {
                if let Some(timer) = entry.agenda().timer.take() {
                    self.queue.try_remove(&timer);
                }
            }
            Plan::Extend(session, at) => {
                self.queue.insert_at(Due::Session(session), at.min(Instant::now() + FARTHEST));
            }
            // Before all else: somebody wants a token dead.
            Plan::Revoke(revocation) => self.ready.push_front(Work::Revoke(revocation)),
            Plan::RevokeAt(revocation, at) => {
                self.queue.insert_at(Due::Revocation(revocation), at);
            }
            Plan::Done => self.running -= 1,
        }
    }

    fn watch(&mut self, entry: Arc<Entry>) {
        let at = self.exchange.clock.instant(entry.next_due()).min(Instant::now() + FARTHEST);
        let timer = {
            let agenda = entry.agenda();
            if agenda.gone {
                return;
            }
            agenda.timer
        };
        match timer {
            Some(timer) => self.queue.reset_at(&timer, at),
            None => {
                let timer = self.queue.insert_at(Due::Entry(Arc::clone(&entry)), at);
                entry.agenda().timer = Some(timer);
            }
        }
    }

    fn fall_due(&mut self, due: Due) {
        let entry = match due {
            Due::Session(session) => return self.ready.push_back(Work::Extend(session)),
            Due::Revocation(revocation) => return self.ready.push_front(Work::Revoke(revocation)),
            Due::Entry(entry) => entry,
        };
        let now = self.exchange.clock.reading();
        let (renew, check) = {
            let mut agenda = entry.agenda();
            agenda.timer = None;
            let is_due = |at: &mut Duration| *at <= now.uptime;
            (agenda.renew_at.take_if(is_due).is_some(), agenda.check_at.take_if(is_due).is_some())
        };
        if entry.token().dies() <= now.uptime {
            self.exchange.cache.remove(&entry, Cause::Expired);
            return;
        }
        if renew && entry.wants_renewal(now) {
            self.ready.push_back(Work::Renew(Arc::clone(&entry)));
        }
        if check && entry.wants_check() {
            self.ready.push_back(Work::Check(Arc::clone(&entry)));
        }
        self.watch(entry);
    }

    fn start_ready(&mut self) {
        while self.running < UNDER_WAY {
            let Some(work) = self.ready.pop_front() else { return };
            self.running += 1;
            let done = Done(Arc::clone(&self.service));
            let exchange = Arc::clone(&self.exchange);
            tokio::spawn(async move {
                let _done = done;
                match work {
                    Work::Renew(entry) => renew::renew(&exchange, &entry).await,
                    Work::Check(entry) => revalidate::check(&exchange, &entry).await,
                    Work::Extend(session) => session.extend(&exchange).await,
                    Work::Revoke(revocation) => revocation.carry_out(&exchange).await,
                }
            });
        }
    }
}

/// Waits for ever where nothing is planned.
async fn next_due(queue: &mut DelayQueue<Due>) -> Due {
    poll_fn(|cx| match queue.poll_expired(cx) {
        Poll::Ready(Some(due)) => Poll::Ready(due.into_inner()),
        Poll::Ready(None) | Poll::Pending => Poll::Pending,
    })
    .await
}

/// Tells that a piece of work has ended, however it does.
struct Done(Arc<Service>);

impl Drop for Done {
    fn drop(&mut self) {
        self.0.plan(Plan::Done);
    }
}
