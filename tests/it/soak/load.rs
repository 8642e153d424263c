//! Callers of every kind, a tenth of whom hang up.

mod http1;
mod http2;

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::support::token_service::{claims, subject};

/// Keys in use all the time: their tokens are always at hand.
const POOL: usize = 200;
/// After a failure of the token service its calls hang until their time is over, and its breaker lets a probe through each second.
const GRACE: Duration = Duration::from_secs(8);
/// The report names no more.
const NAMED: usize = 20;

/// Whether the token service fails.
pub struct Weather {
    bad: AtomicBool,
    turned: Mutex<Instant>,
}

impl Default for Weather {
    fn default() -> Self {
        Self { bad: AtomicBool::new(false), turned: Mutex::new(Instant::now()) }
    }
}

impl Weather {
    pub fn turns_bad(&self) {
        self.bad.store(true, Ordering::SeqCst);
    }

    pub fn turns_fair(&self) {
        *self.turned.lock().unwrap() = Instant::now();
        self.bad.store(false, Ordering::SeqCst);
    }

    /// Whether it may be why a request that began then was told to come again.
    fn explains(&self, began: Instant) -> bool {
        self.bad.load(Ordering::SeqCst) || began < *self.turned.lock().unwrap() + GRACE
    }
}

/// Who asks, and so what the answer may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    /// A key whose token is at hand: served.
    Known,
    /// A new key: served, or told to come again where the token service fails.
    New,
    /// A bad key: denied, or told to come again.
    Bad,
}

/// A key with what the token service makes of it.
struct Key {
    text: String,
    subject: String,
}

impl Key {
    fn new(text: String) -> Self {
        let subject = subject(&text);
        Self { text, subject }
    }
}

/// What callers did and got.
#[derive(Default)]
pub struct Tally {
    served: u64,
    cancelled: u64,
    denied: u64,
    told_to_come_again: u64,
    bodies: u64,
    websockets: u64,
    over_http2: u64,
    wrong: u64,
    unexplained: Vec<String>,
}

impl Tally {
    /// All that were sent.
    pub fn requests(&self) -> u64 {
        self.served + self.cancelled + self.denied + self.told_to_come_again + self.unexplained.len() as u64
    }

    /// Answers to requests that went on with the token of another key.
    pub fn wrong(&self) -> u64 {
        self.wrong
    }

    /// What should not have been.
    pub fn unexplained(&self) -> &[String] {
        &self.unexplained
    }

    /// Judges an answer; `token` is what the upstream was told.
    fn judge(&mut self, who: Who, key: &Key, status: u16, token: Option<&str>, weather: &Weather, began: Instant) {
        match (who, status) {
            (Who::Known | Who::New, 200) => {
                self.served += 1;
                let own = token.is_some_and(|token| claims(token)["sub"] == *key.subject);
                self.wrong += u64::from(!own);
            }
            (Who::Bad, 401) => self.denied += 1,
            (Who::New | Who::Bad, 503) if weather.explains(began) => self.told_to_come_again += 1,
            _ => self.note(format!("{who:?} {} {status}, {:?} old", key.text, began.elapsed())),
        }
    }

    fn note(&mut self, what: String) {
        if self.unexplained.len() < NAMED {
            self.unexplained.push(what);
        }
    }

    fn join(mut self, other: Self) -> Self {
        self.served += other.served;
        self.cancelled += other.cancelled;
        self.denied += other.denied;
        self.told_to_come_again += other.told_to_come_again;
        self.bodies += other.bodies;
        self.websockets += other.websockets;
        self.over_http2 += other.over_http2;
        self.wrong += other.wrong;
        self.unexplained.extend(other.unexplained);
        self
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} requests: {} served, {} cancelled, {} denied, {} told to come again; of them {} with a body, {} WebSockets, {} over HTTP/2; \
             {} with the token of another, {} unexplained",
            self.requests(),
            self.served,
            self.cancelled,
            self.denied,
            self.told_to_come_again,
            self.bodies,
            self.websockets,
            self.over_http2,
            self.wrong,
            self.unexplained.len()
        )
    }
}

/// What all callers share.
#[derive(Clone)]
struct Shared {
    pool: Arc<Vec<Key>>,
    leave: Arc<AtomicBool>,
    weather: Arc<Weather>,
}

impl Shared {
    fn is_over(&self) -> bool {
        self.leave.load(Ordering::Relaxed)
    }

    /// One of the pool, or now and then another.
    fn pick<'k>(&'k self, random: &mut fastrand::Rng, other: &'k mut Option<Key>) -> (Who, &'k Key) {
        let who = match random.u16(..1000) {
            0..5 => Who::New,
            5..10 => Who::Bad,
            _ => return (Who::Known, &self.pool[random.usize(..POOL)]),
        };
        let begins = if who == Who::New { "new" } else { "bad" };
        (who, other.insert(Key::new(format!("{begins}-{}", random.u64(..)))))
    }
}

/// They call until they are told to leave.
pub struct Callers {
    leave: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<Tally>>,
}

impl Callers {
    /// On so many connections; one in eight speaks HTTP/2, to the second address.
    pub async fn start((http1, http2): (SocketAddr, SocketAddr), connections: usize, weather: &Arc<Weather>) -> Self {
        let pool = Arc::new((0..POOL).map(|number| Key::new(format!("key-{number}"))).collect());
        let shared = Shared { pool, leave: Arc::default(), weather: Arc::clone(weather) };
        http1::fetch_all(http1, &shared.pool).await;
        let leave = Arc::clone(&shared.leave);
        let begin = |number: usize| {
            let shared = shared.clone();
            let random = fastrand::Rng::with_seed(number as u64);
            if number % 8 == 7 {
                tokio::spawn(http2::call(http2, shared, random))
            } else {
                tokio::spawn(http1::call(http1, shared, random))
            }
        };
        Self { leave, tasks: (0..connections).map(begin).collect() }
    }

    /// What they did, once all have left.
    pub async fn leave(self) -> Tally {
        self.leave.store(true, Ordering::SeqCst);
        let mut all = Tally::default();
        for task in self.tasks {
            all = all.join(task.await.unwrap());
        }
        all
    }
}

/// Where this is in that.
pub fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

/// A header's value.
pub fn header<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    let mut lines = head.lines().filter_map(|line| line.split_once(": "));
    lines.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}
