//! What an HTTP/2 connection holds of answers that its caller has not taken.
//!
//! pingora reads up to nine pieces of 64 KiB ahead of a caller, for each request, and neither number can be set. A hundred requests on a connection whose
//! windows stay shut would hold 60 MiB. So a connection has few [`Places`]: a request needs one while its upstream may be read, and keeps it while it
//! holds unread pieces. Pieces tell when they are gone, by their drop, wherever they are by then.
//!
//! A request that writes is never made to wait: it may hold some of the connection's window, which those who have places wait for.
//!
//! What h2 has taken of an answer outlives its request: it goes when it is written, and a caller may shut its window before. So a request stays until its
//! pieces have gone; and where one waits, for that or for a place, while the connection takes nothing, the connection is to end.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use pingora::proxy::Session;
use pingora::{Error, ErrorType};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, TryAcquireError};
use tokio::time;

/// Bytes that pingora may read ahead for one request: what waits to be written, what waits for that, and its buffer.
const AHEAD: usize = 600 * 1024;
/// The last piece of an answer is not counted up to this many bytes: nothing is read after it.
const SMALL: usize = 16 * 1024;

/// The limit of a request that may wait for longer than is known.
const UNBOUNDED: u64 = u64::MAX;
/// Bytes that a caller takes in some time, or nothing goes on: answers to its PINGs, which it may send without end, are less.
const PROGRESS: u64 = 16 * 1024;

tokio::task_local! {
    static UNREAD: Arc<Unread>;
}

/// The connection has ended: nobody waits for the answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Gone;

impl From<Gone> for Box<Error> {
    fn from(Gone: Gone) -> Self {
        Error::explain(ErrorType::ConnectionClosed, "the connection ended while the request waited for its turn").into_down()
    }
}

/// Waits for the turn of a request, for as long as its caller does: one who gives it up resets its stream.
pub(super) async fn wait_for_turn(session: &mut Session, turn: impl Future<Output = Result<(), Gone>>) -> pingora::Result<()> {
    tokio::select! {
        biased;
        turn = turn => turn.map_err(Into::into),
        // Of HTTP/2, the only ones with turns, this is the reset alone.
        gone = session.downstream_session.read_body_or_idle(true) => gone.map(drop).map_err(|error| error.into_down()),
    }
}

/// The places of one connection.
pub(super) struct Places {
    free: Arc<Semaphore>,
    was_full: AtomicBool,
    /// Bytes that the caller has taken, where the system tells.
    taken: Box<dyn Fn() -> Option<u64> + Send + Sync>,
    /// Pieces that have gone, which stand for that where it does not.
    gone: AtomicUsize,
    /// Time within which the caller has to take [`PROGRESS`], while somebody waits.
    patience: Duration,
    /// Told when it did not.
    untaken: Notify,
}

impl Places {
    /// As many as hold no more than `bytes`, and one at least. `taken` tells what the caller has taken, which may be nothing for `patience`: longer than a
    /// write of a request may take, which ends the request alone.
    pub(super) fn new(bytes: usize, patience: Duration, taken: impl Fn() -> Option<u64> + Send + Sync + 'static) -> Self {
        let free = Arc::new(Semaphore::new((bytes / AHEAD).max(1)));
        Self { free, was_full: AtomicBool::new(false), taken: Box::new(taken), gone: AtomicUsize::new(0), patience, untaken: Notify::new() }
    }

    /// Waits until the caller has taken nothing for too long.
    pub(super) async fn untaken(&self) {
        self.untaken.notified().await;
    }

    /// There is nobody left to answer: who waits for a place gets none, now or later.
    pub(super) fn close(&self) {
        self.free.close();
    }

    /// Waits for what comes when pieces go, and tells where the caller takes next to nothing.
    async fn watch<T>(&self, waited: impl Future<Output = T>) -> T {
        let mut waited = pin!(waited);
        loop {
            let before = ((self.taken)(), self.gone.load(Ordering::Relaxed));
            if let Ok(come) = time::timeout(self.patience, &mut waited).await {
                return come;
            }
            let goes_on = match (before, (self.taken)()) {
                ((Some(before), _), Some(now)) => now.saturating_sub(before) >= PROGRESS,
                ((_, gone), _) => self.gone.load(Ordering::Relaxed) != gone,
            };
            if !goes_on {
                self.untaken.notify_one();
            }
        }
    }
}

/// The end of a request, however it comes: its place goes with its last piece.
struct Over<'a>(&'a Unread);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        let Self(unread) = self;
        unread.is_reading.store(false, Ordering::SeqCst);
        unread.limit.store(UNBOUNDED, Ordering::Relaxed);
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
    /// Turns that it has had.
    turns: AtomicUsize,
    /// Milliseconds without a turn after which it will have none again.
    limit: AtomicU64,
    /// Its upstream may be read.
    is_reading: AtomicBool,
    /// Its pieces that are not gone.
    pieces: AtomicUsize,
    place: Mutex<Option<OwnedSemaphorePermit>>,
}

impl Unread {
    /// A request that begins.
    pub(super) fn of(places: &Arc<Places>) -> Arc<Self> {
        Arc::new(Self {
            places: Arc::clone(places),
            is_due: AtomicBool::new(true),
            turns: AtomicUsize::new(0),
            limit: AtomicU64::new(UNBOUNDED),
            task: AtomicWaker::new(),
            is_reading: AtomicBool::new(false),
            pieces: AtomicUsize::new(0),
            place: Mutex::default(),
        })
    }

    /// Serves a request in its turns, until its answer has been written.
    pub(super) async fn serve<T>(self: Arc<Self>, request: impl Future<Output = T>) {
        let waker = Waker::from(Arc::clone(&self));
        let over = Over(&self);
        let mut request = pin!(UNREAD.scope(Arc::clone(&self), request));
        loop {
            poll_fn(|context| self.poll_due(context)).await;
            if self.is_reading() {
                // Where there is none to be had any more, the request finds that out by what it writes.
                let _ = self.take_place().await;
            }
            let turn = poll_fn(|context| {
                self.task.register(context.waker());
                if self.is_due.swap(false, Ordering::SeqCst) {
                    self.turns.fetch_add(1, Ordering::Relaxed);
                    if let Poll::Ready(done) = request.as_mut().poll(&mut Context::from_waker(&waker)) {
                        return Poll::Ready(Some(done));
                    }
                }
                // Woken again in the meantime: what was read by now may not have come to the filter, so the place is kept for the next turn.
                if self.is_due.load(Ordering::SeqCst) || self.holds_any() { Poll::Pending } else { Poll::Ready(None) }
            });
            if turn.await.is_some() {
                drop(over);
                self.written().await;
                return;
            }
            self.give_up_place();
        }
    }

    /// From now on it waits for its upstream, which each time takes no longer than `upstream`, and for its caller.
    pub(super) fn expect_turns(&self, upstream: Duration) {
        let limit = upstream.saturating_add(self.places.patience);
        self.limit.store(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Waits for what is not its upstream.
    pub(super) async fn without_turns<T>(&self, waited: impl Future<Output = T>) -> T {
        let limit = self.limit.swap(UNBOUNDED, Ordering::Relaxed);
        let come = waited.await;
        self.limit.store(limit, Ordering::Relaxed);
        come
    }

    /// Turns that it has had.
    pub(super) fn turns(&self) -> usize {
        self.turns.load(Ordering::Relaxed)
    }

    /// Time without a turn after which it will have none again; none where it waits for its place, or for what nobody knows.
    pub(super) fn limit(&self) -> Option<Duration> {
        Some(self.limit.load(Ordering::Relaxed)).filter(|limit| *limit != UNBOUNDED).map(Duration::from_millis)
    }

    /// Of the request that is served by this very task; none where it shares no connection.
    pub(super) fn of_this_request() -> Option<Arc<Self>> {
        UNREAD.try_with(Arc::clone).ok()
    }

    /// Waits for a place, where the request has none.
    ///
    /// # Errors
    /// [`Gone`] where the connection ends before there is one.
    pub(super) async fn take_place(&self) -> Result<(), Gone> {
        if self.place().is_some() {
            return Ok(());
        }
        let free = &self.places.free;
        let place = match Arc::clone(free).try_acquire_owned() {
            Ok(place) => place,
            Err(TryAcquireError::Closed) => return Err(Gone),
            Err(TryAcquireError::NoPermits) => {
                if !self.places.was_full.swap(true, Ordering::Relaxed) {
                    tracing::info!(
                        "requests wait: the caller of their HTTP/2 connection does not take its answers as fast as they come (`limits.unread_bytes`)"
                    );
                }
                self.without_turns(self.places.watch(Arc::clone(free).acquire_owned())).await.map_err(|_| Gone)?
            }
        };
        *self.place() = Some(place);
        Ok(())
    }

    /// The same, and from now on its upstream may be read.
    pub(super) async fn begin_reading(&self) -> Result<(), Gone> {
        self.take_place().await?;
        self.is_reading.store(true, Ordering::SeqCst);
        Ok(())
    }

    /// Waits until its pieces have gone.
    async fn written(&self) {
        if self.holds_any() {
            let last = poll_fn(|context| {
                self.task.register(context.waker());
                if self.holds_any() { Poll::Pending } else { Poll::Ready(()) }
            });
            self.places.watch(last).await;
        }
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
        self.of.places.gone.fetch_add(1, Ordering::Relaxed);
        if self.of.pieces.fetch_sub(1, Ordering::SeqCst) == 1 {
            // One that is being read may be waiting for something else, and have its place for nothing: that is for its task to say.
            if !self.of.is_reading() {
                self.of.give_up_place();
            }
            self.of.task.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::mpsc;

    use tokio::sync::mpsc::unbounded_channel;
    use tokio::sync::oneshot;
    use tokio::task::JoinHandle;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    fn places(count: usize) -> Arc<Places> {
        Arc::new(Places::new(count * AHEAD, PATIENCE, || None))
    }

    /// What a request of these places reads.
    async fn read(bytes: usize) -> Bytes {
        let unread = Unread::of_this_request().unwrap();
        unread.begin_reading().await.unwrap();
        unread.count(vec![0; bytes].into(), true)
    }

    /// Serves a request in a task of its own.
    fn spawn<T: Send + 'static>(places: &Arc<Places>, request: impl Future<Output = T> + Send + 'static) -> JoinHandle<()> {
        tokio::spawn(Unread::of(places).serve(request))
    }

    /// A request that is answered with so many bytes, and what is there for its caller to take.
    fn answered(places: &Arc<Places>, bytes: usize) -> (JoinHandle<()>, mpsc::Receiver<Bytes>) {
        let (sender, answer) = mpsc::channel();
        (spawn(places, async move { sender.send(read(bytes).await).unwrap() }), answer)
    }

    /// A request that has its place for good, with the piece that it holds.
    async fn unended(places: &Arc<Places>) -> (JoinHandle<()>, Bytes) {
        let (sender, answer) = oneshot::channel();
        let request = spawn(places, async move {
            sender.send(read(SMALL + 1).await).unwrap();
            pending::<()>().await;
        });
        (request, answer.await.unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_stays_until_its_pieces_have_gone() {
        let places = places(1);
        let (mut served, kept) = answered(&places, SMALL + 1);
        assert!(time::timeout(PATIENCE / 2, &mut served).await.is_err());
        assert_eq!(places.free.available_permits(), 0);
        drop(kept.recv().unwrap());
        served.await.unwrap();
        assert_eq!(places.free.available_permits(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_of_which_nothing_goes_is_told() {
        let places = places(1);
        let (served, kept) = answered(&places, SMALL + 1);
        assert!(time::timeout(PATIENCE - Duration::from_secs(1), places.untaken()).await.is_err());
        time::timeout(Duration::from_secs(2), places.untaken()).await.unwrap();
        drop(kept);
        served.await.unwrap();
    }

    /// Its pieces outlive a request that was cut off, and nobody stays for them.
    #[tokio::test(start_paused = true)]
    async fn who_waits_for_the_place_of_one_that_was_cut_off_tells_too() {
        let places = places(1);
        let (cut, piece) = unended(&places).await;
        cut.abort();
        assert!(cut.await.unwrap_err().is_cancelled());
        assert!(time::timeout(2 * PATIENCE, places.untaken()).await.is_err(), "nobody waits");
        let waits = spawn(&places, async { read(1).await });
        time::timeout(2 * PATIENCE, places.untaken()).await.unwrap();
        assert!(!waits.is_finished());
        drop(piece);
        waits.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_caller_takes_of_other_answers_is_progress_and_answers_to_pings_are_not() {
        let taken = Arc::new(AtomicU64::new(0));
        let told = Arc::clone(&taken);
        let places = Arc::new(Places::new(AHEAD, PATIENCE, move || Some(told.load(Ordering::Relaxed))));
        let (served, kept) = answered(&places, SMALL + 1);
        for _ in 0..3 {
            assert!(time::timeout(PATIENCE / 2, places.untaken()).await.is_err());
            taken.fetch_add(PROGRESS, Ordering::Relaxed);
        }
        taken.fetch_add(PROGRESS - 1, Ordering::Relaxed);
        assert!(time::timeout(PATIENCE, places.untaken()).await.is_err());
        time::timeout(PATIENCE, places.untaken()).await.unwrap();
        drop(kept);
        served.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn where_the_system_does_not_tell_pieces_that_go_are_progress() {
        let places = places(2);
        let ((first, taken), (second, kept)) = (answered(&places, SMALL + 1), answered(&places, SMALL + 1));
        time::sleep(PATIENCE / 2).await;
        drop(taken.recv().unwrap());
        first.await.unwrap();
        assert!(time::timeout(PATIENCE, places.untaken()).await.is_err());
        time::timeout(PATIENCE, places.untaken()).await.unwrap();
        drop(kept);
        second.await.unwrap();
    }

    #[tokio::test]
    async fn a_last_piece_that_is_small_keeps_nobody() {
        let places = places(1);
        let (served, kept) = answered(&places, SMALL);
        served.await.unwrap();
        assert_eq!((kept.recv().unwrap().len(), places.free.available_permits()), (SMALL, 1));
    }

    #[tokio::test]
    async fn who_waits_gets_no_place_of_a_connection_that_has_ended() {
        let places = places(1);
        let (holds, _piece) = unended(&places).await;
        let (sender, mut told) = unbounded_channel();
        let waits = spawn(&places, async move { sender.send(Unread::of_this_request().unwrap().take_place().await).unwrap() });
        tokio::task::yield_now().await;
        assert!(told.try_recv().is_err());
        places.close();
        assert_eq!(told.recv().await.unwrap(), Err(Gone));
        waits.await.unwrap();
        holds.abort();
    }
}
