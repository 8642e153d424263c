//! One connection from a caller: what is known of it, and where it stands.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use pingora::protocols::Digest;
use pingora::server::ShutdownWatch;
use tokio::sync::Notify;
use tokio::task::{self, AbortHandle};

use super::inject::Caller;
use super::limits::{Admission, Limits};
use crate::claims::Claims;
use crate::decision::Deciding;

/// Where a connection stands between requests and within one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Phase {
    /// No byte of a request has come: it may be closed without harm.
    Idle,
    /// No byte has come since the last look, while bearerd ends: closed at the next.
    Spared,
    /// Some of a header section has come.
    Header,
    /// A request is being served.
    Serving,
    /// It is being closed; a request that comes now is not read.
    Closing,
}

/// What becomes of a listener's requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// They go on to an upstream.
    Proxy,
    /// They are decided on, for another proxy.
    Decision(Deciding),
}

/// What bearerd knows of a connection; shared between its stream and its requests.
pub struct Connection {
    /// Who calls.
    pub caller: Caller,
    /// What becomes of its requests.
    pub mode: Mode,
    /// Most bytes of a header section.
    pub header_bytes: usize,
    /// Most lines of a header section.
    pub headers: usize,
    phase: AtomicU8,
    /// The next write is the header of an answer: it waits for what follows.
    header_due: AtomicBool,
    /// How many bytes the request at hand has, where it is known to have no body; else 0.
    expected: AtomicUsize,
    idle: Idle,
    draining: ShutdownWatch,
    /// What the certificate says that the caller showed.
    certificate: OnceLock<Claims>,
    task: OnceLock<AbortHandle>,
    is_shared: AtomicBool,
    /// The requests that are to be cut off, by their tasks, where it is shared.
    doomed: Mutex<Vec<task::Id>>,
    /// Told when there are some.
    ending: Notify,
    /// Freed when the connection ends.
    _admission: Admission,
}

/// How long a connection has been idle, in ticks of the sweep that closes those that are idle for too long: a timer for each request would cost
/// more than all else that is done for a connection.
#[derive(Debug)]
pub(super) struct Idle {
    ticks: Arc<AtomicU32>,
    since: AtomicU32,
    /// Ticks that it may be idle.
    limit: u32,
}

impl Idle {
    /// Idle from now on, for at most `limit` of `ticks`.
    pub(super) fn new(ticks: Arc<AtomicU32>, limit: u32) -> Self {
        let since = AtomicU32::new(ticks.load(Ordering::Relaxed));
        Self { ticks, since, limit }
    }

    fn start(&self) {
        self.since.store(self.ticks.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    fn is_over(&self) -> bool {
        self.ticks.load(Ordering::Relaxed).wrapping_sub(self.since.load(Ordering::Relaxed)) > self.limit
    }
}

/// A sender that is gone means the same: nobody is left to serve for.
pub(super) async fn stopped(stop: &mut ShutdownWatch) {
    let _ = stop.wait_for(|stop| *stop).await;
}

impl Connection {
    pub(super) fn new(caller: Caller, mode: Mode, limits: &Limits, idle: Idle, draining: ShutdownWatch, admission: Admission) -> Self {
        Self {
            caller,
            mode,
            header_bytes: limits.header_bytes,
            headers: limits.headers,
            phase: AtomicU8::new(Phase::Idle as u8),
            header_due: AtomicBool::new(true),
            expected: AtomicUsize::new(0),
            idle,
            draining,
            certificate: OnceLock::new(),
            task: OnceLock::new(),
            is_shared: AtomicBool::new(false),
            doomed: Mutex::default(),
            ending: Notify::new(),
            _admission: admission,
        }
    }

    /// The connection of a request.
    pub(super) fn of(digest: Option<&Digest>) -> Option<&Arc<Self>> {
        digest?.proxy_digest.as_ref()?.user_data.as_ref()?.downcast_ref()
    }

    /// The caller has shown a certificate that the handshake found good.
    pub(super) fn show_certificate(&self, certificate: Claims) {
        // There is one handshake.
        let _ = self.certificate.set(certificate);
    }

    /// What the caller's certificate says, where it has shown one.
    pub fn certificate(&self) -> Option<&Claims> {
        self.certificate.get()
    }

    /// The task that serves it, for [`Connection::end`].
    pub(super) fn serve_in(&self, task: AbortHandle) {
        // It is served once.
        let _ = self.task.set(task);
    }

    /// Many requests share it: each has a task of its own.
    pub(super) fn share(&self) {
        self.is_shared.store(true, Ordering::Relaxed);
    }

    /// Cuts a request off, and with it the connection; a shared one ends when its other requests are answered.
    pub(super) fn cut(&self, request: task::Id) {
        if self.is_shared.load(Ordering::Relaxed) {
            self.doomed.lock().unwrap_or_else(PoisonError::into_inner).push(request);
            self.ending.notify_one();
        } else {
            self.end();
        }
    }

    /// Ends the task that serves it, and all with it.
    pub(super) fn end(&self) {
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }

    /// Waits until requests of a shared connection are to be cut off.
    pub(super) async fn doomed(&self) -> Vec<task::Id> {
        self.ending.notified().await;
        std::mem::take(&mut *self.doomed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether a request is being served or, on HTTP/2, has ever been.
    pub(super) fn is_in_use(&self) -> bool {
        self.is(Phase::Serving)
    }

    /// The next request may come.
    pub(super) fn await_request(&self) {
        self.idle.start();
        self.phase.store(Phase::Idle as u8, Ordering::Release);
    }

    /// The header section is complete.
    pub(super) fn serve_request(&self) {
        self.header_due.store(true, Ordering::Relaxed);
        self.phase.store(Phase::Serving as u8, Ordering::Release);
    }

    /// Takes a connection out of service that has been idle for longer than it may. `false` where it has not, or a request has begun.
    pub(super) fn close_if_idle_for_too_long(&self) -> bool {
        self.idle.is_over() && self.step(Phase::Idle, Phase::Closing)
    }

    /// Takes a connection out of service that was idle at the last call already. `false` where a request has begun, or may be on its way.
    pub(super) fn close_if_still_idle(&self) -> bool {
        let still = self.step(Phase::Spared, Phase::Closing);
        if !still {
            self.step(Phase::Idle, Phase::Spared);
        }
        still
    }

    /// Whether bearerd is ending: then this request should be the connection's last.
    pub(super) fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }

    /// A request has begun, and its answer has not ended.
    pub(super) fn in_request(&self) -> bool {
        self.in_header() || self.is(Phase::Serving)
    }

    /// The first byte of a request has come. `false` where the connection is being closed.
    pub(super) fn begin_request(&self) -> bool {
        self.step(Phase::Idle, Phase::Header) || self.step(Phase::Spared, Phase::Header)
    }

    /// Some of a header section has come, and not all of it.
    pub(super) fn in_header(&self) -> bool {
        self.is(Phase::Header)
    }

    /// How many bytes the request at hand has, where that is known.
    pub(super) fn expect_bytes(&self, count: Option<usize>) {
        self.expected.store(count.unwrap_or_default(), Ordering::Relaxed);
    }

    /// Whether these are all bytes of the request at hand, and no more: nothing of the next one has been read.
    pub(super) fn has_all(&self, bytes: usize) -> bool {
        self.expected.load(Ordering::Relaxed) == bytes
    }

    /// Whether the write at hand is the header of an answer; the next one is not.
    pub(super) fn writes_header(&self) -> bool {
        self.header_due.swap(false, Ordering::Relaxed)
    }

    fn step(&self, from: Phase, to: Phase) -> bool {
        self.phase.compare_exchange(from as u8, to as u8, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    fn is(&self, phase: Phase) -> bool {
        self.phase.load(Ordering::Acquire) == phase as u8
    }
}
