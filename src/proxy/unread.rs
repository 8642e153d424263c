//! What an HTTP/2 connection holds of answers that its caller has not taken.
//!
//! pingora reads up to nine pieces of 64 KiB ahead of a caller, for each request, and neither number can be set. A hundred requests on a connection whose
//! windows stay shut would hold 60 MiB. So a connection has few [`Places`]: a request needs one while its upstream may be read, and keeps it while it
//! holds unread pieces. Pieces tell when they are gone, by their drop, wherever they are by then.
//!
//! A request that writes is never made to wait: it may hold some of the connection's window, which those who have places wait for.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes that pingora may read ahead for one request: what waits to be written, what waits for that, and its buffer.
const AHEAD: usize = 600 * 1024;
/// The last piece of an answer is not counted up to this many bytes: nothing is read after it.
const SMALL: usize = 16 * 1024;

tokio::task_local! {
    static UNREAD: Arc<Unread>;
}

/// The places of one connection.
pub(super) struct Places {
    free: Arc<Semaphore>,
    was_full: AtomicBool,
}

impl Places {
    /// As many as hold no more than `bytes`, and one at least.
    pub(super) fn new(bytes: usize) -> Self {
        Self { free: Arc::new(Semaphore::new((bytes / AHEAD).max(1))), was_full: AtomicBool::new(false) }
    }

    /// Serves a request in its turns.
    pub(super) async fn serve<T>(self: Arc<Self>, request: impl Future<Output = T>) -> T {
        let unread = Arc::new(Unread::new(self));
        let waker = Waker::from(Arc::clone(&unread));
        let _over = Over(&unread);
        let mut request = pin!(UNREAD.scope(Arc::clone(&unread), request));
        loop {
            poll_fn(|context| unread.poll_due(context)).await;
            if unread.is_reading() {
                unread.take_place().await;
            }
            let turn = poll_fn(|context| {
                unread.task.register(context.waker());
                if unread.is_due.swap(false, Ordering::SeqCst)
                    && let Poll::Ready(done) = request.as_mut().poll(&mut Context::from_waker(&waker))
                {
                    return Poll::Ready(Some(done));
                }
                // Woken again in the meantime: what was read by now may not have come to the filter, so the place is kept for the next turn.
                if unread.is_due.load(Ordering::SeqCst) || unread.holds_any() { Poll::Pending } else { Poll::Ready(None) }
            });
            if let Some(done) = turn.await {
                return done;
            }
            unread.give_up_place();
        }
    }
}

/// The end of a request, however it comes: its place goes with its last piece.
struct Over<'a>(&'a Unread);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        let Self(unread) = self;
        unread.is_reading.store(false, Ordering::SeqCst);
        if !unread.holds_any() {
            unread.give_up_place();
        }
    }
}

/// What one request holds; also how it is woken. All in one order (`SeqCst`): the end of the request and of its last piece each look at what the other has
/// written, and one of them must see it.
pub(super) struct Unread {
    places: Arc<Places>,
    /// It was woken since its last turn.
    is_due: AtomicBool,
    /// The task that serves it.
    task: AtomicWaker,
    /// Its upstream may be read.
    is_reading: AtomicBool,
    /// Its pieces that are not gone.
    pieces: AtomicUsize,
    place: Mutex<Option<OwnedSemaphorePermit>>,
}

impl Unread {
    fn new(places: Arc<Places>) -> Self {
        Self {
            places,
            is_due: AtomicBool::new(true),
            task: AtomicWaker::new(),
            is_reading: AtomicBool::new(false),
            pieces: AtomicUsize::new(0),
            place: Mutex::default(),
        }
    }

    /// Of the request that is served by this very task; none where it shares no connection.
    pub(super) fn of_this_request() -> Option<Arc<Self>> {
        UNREAD.try_with(Arc::clone).ok()
    }

    /// Waits for a place, where the request has none.
    pub(super) async fn take_place(&self) {
        if self.place().is_some() {
            return;
        }
        let free = &self.places.free;
        let place = match Arc::clone(free).try_acquire_owned() {
            Ok(place) => Some(place),
            Err(_) => {
                if !self.places.was_full.swap(true, Ordering::Relaxed) {
                    tracing::info!(
                        "requests wait: the caller of their HTTP/2 connection does not take its answers as fast as they come (`limits.unread_bytes`)"
                    );
                }
                // Never closed.
                Arc::clone(free).acquire_owned().await.ok()
            }
        };
        *self.place() = place;
    }

    /// The same, and from now on its upstream may be read.
    pub(super) async fn begin_reading(&self) {
        self.take_place().await;
        self.is_reading.store(true, Ordering::SeqCst);
    }

    /// Counts a piece of the answer for as long as any of it is held.
    pub(super) fn count(self: &Arc<Self>, piece: Bytes, is_last: bool) -> Bytes {
        if is_last {
            self.is_reading.store(false, Ordering::SeqCst);
        }
        if piece.is_empty() || (is_last && piece.len() <= SMALL) {
            return piece;
        }
        self.pieces.fetch_add(1, Ordering::SeqCst);
        Bytes::from_owner(Piece { bytes: piece, of: Arc::clone(self) })
    }

    fn give_up_place(&self) {
        let place = self.place().take();
        drop(place);
    }

    fn place(&self) -> MutexGuard<'_, Option<OwnedSemaphorePermit>> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_reading(&self) -> bool {
        self.is_reading.load(Ordering::SeqCst)
    }

    fn holds_any(&self) -> bool {
        self.pieces.load(Ordering::SeqCst) > 0
    }

    fn poll_due(&self, context: &Context<'_>) -> Poll<()> {
        self.task.register(context.waker());
        if self.is_due.load(Ordering::SeqCst) { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Wake for Unread {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.is_due.store(true, Ordering::SeqCst);
        self.task.wake();
    }
}

/// A counted piece.
struct Piece {
    bytes: Bytes,
    of: Arc<Unread>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        if self.of.pieces.fetch_sub(1, Ordering::SeqCst) == 1 {
            if self.of.is_reading() {
                // It may be waiting for something else, and have its place for nothing: that is for its task to say.
                self.of.task.wake();
            } else {
                self.of.give_up_place();
            }
        }
    }
}
