//! Where a key set comes from: a file that is followed, or a URL that is fetched in the background. The last good set stays while its source fails.
//!
//! A token may name a key that the set does not have yet. Then the source is asked again, once for all who wait: a call that began after the token came
//! decides. Tokens that name keys at random cause no more than a call each few seconds (CVE-2026-59396).

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL};
use http::{HeaderMap, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::sync::{Notify, watch};
use tokio::time::{self, Instant};

use super::{Current, KeySet};
use crate::config::token_service::ClientTls;
use crate::http_client::connect::Connector;
use crate::http_client::failure;
use crate::rate_limit::{By, RateLimit, Who};
use crate::tls::client::{self, Trust};

/// The longest key set that is read.
const MAX_BYTES: usize = 512 * 1024;
/// Time for a whole fetch.
const TIMEOUT: Duration = Duration::from_secs(5);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long callers wait for a set: for a fetch that is under way, and one after it.
const PATIENCE: Duration = Duration::from_secs(10);
/// A set is fetched again after this, where its source names no time (`Cache-Control: max-age`).
const REFRESH: Duration = Duration::from_secs(300);
/// Bounds on the time that a source names: a key that is taken out dies within the longest.
const SHORTEST: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(3600);
/// Fetches for keys that are not in the set: so many at once, then one each five seconds.
const SOUGHT: (u32, Duration) = (5, Duration::from_secs(25));
/// The first pause after a failure; it doubles.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How often a file is looked at.
const FILE_INTERVAL: Duration = Duration::from_secs(1);

/// Why a set cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Its file cannot be read.
    #[error("cannot read {file}: {cause}")]
    File {
        /// The file.
        file: String,
        /// Why.
        cause: String,
    },
    /// The call failed.
    #[error("cannot fetch {url}: {cause}")]
    Fetch {
        /// The URL.
        url: String,
        /// Why.
        cause: String,
    },
    /// What came is no set.
    #[error("the key set of {place}: {cause}")]
    Unusable {
        /// Where it came from.
        place: String,
        /// What is wrong with it.
        cause: super::Error,
    },
}

enum Place {
    File(PathBuf),
    Url(Box<Remote>),
}

/// A server that publishes a set.
struct Remote {
    uri: Uri,
    trust: Arc<Trust>,
    client: Client<Connector, Empty<Bytes>>,
}

/// What came of asking for a newer set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// It was asked, or has been too often of late: the set at hand is as new as can be.
    Fresh,
    /// An answer has come, to a question from before: if it does not help, another may.
    Older,
    /// It cannot be asked now.
    Unavailable,
}

/// How far the source has been asked.
#[derive(Clone, Copy, Default)]
struct Round {
    /// When the last attempt that was answered began.
    began: Option<Instant>,
    /// The last attempt failed, and the next is not due yet.
    failing: bool,
}

/// A source of keys.
pub struct Source {
    place: Place,
    current: ArcSwapOption<Current>,
    /// The generation of the current set, where the request path finds it.
    generation: AtomicU64,
    wanted: Notify,
    /// Somebody wants a fetch that has not begun.
    is_wanted: Mutex<bool>,
    /// One has begun, and not ended.
    is_fetching: AtomicBool,
    sought: RateLimit,
    round: watch::Sender<Round>,
}

impl Source {
    /// A file, read for the first time.
    ///
    /// # Errors
    /// When it cannot be read or is no key set.
    pub fn file(file: PathBuf) -> Result<Self, Error> {
        let text = read(&file)?;
        let keys = parse(&text, &file.display())?;
        let source = Self::new(Place::File(file));
        source.take(text, keys);
        Ok(source)
    }

    /// A URL, not asked yet.
    ///
    /// # Errors
    /// When a TLS file cannot be used.
    pub fn url(uri: Uri, tls: &ClientTls) -> Result<Self, client::Error> {
        let trust = Arc::new(Trust::new(tls, uri.scheme_str() == Some("https"))?);
        let connector = Connector::new(Arc::clone(&trust), CONNECT_TIMEOUT);
        // A fetch is rare: no connection is kept for it, and none is found stale.
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
        Ok(Self::new(Place::Url(Box::new(Remote { uri, trust, client }))))
    }

    fn new(place: Place) -> Self {
        let (current, generation) = (ArcSwapOption::empty(), AtomicU64::new(0));
        let sought = RateLimit::new(SOUGHT.0, SOUGHT.1, By::Route, 1);
        let (wanted, is_wanted, is_fetching) = (Notify::new(), Mutex::new(false), AtomicBool::new(false));
        Self { place, current, generation, wanted, is_wanted, is_fetching, sought, round: watch::Sender::new(Round::default()) }
    }

    /// The set at hand; none until the first has come.
    pub fn current(&self) -> Option<Arc<Current>> {
        self.current.load_full()
    }

    /// The generation of the set at hand. On the request path.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Waits for the first set.
    pub async fn first(&self) -> Asked {
        let mut rounds = self.round.subscribe();
        let first = time::timeout(PATIENCE, rounds.wait_for(|round| round.began.is_some() || round.failing)).await;
        match first {
            Ok(Ok(round)) if !round.failing => Asked::Fresh,
            _ => Asked::Unavailable,
        }
    }

    /// Waits for another set: the one that is on its way, or one that is asked for now, as far as the limit on such calls allows. All who wait share one
    /// fetch.
    pub async fn renew(&self) -> Asked {
        if matches!(self.place, Place::File(_)) {
            return Asked::Fresh;
        }
        let came = Instant::now();
        let mut rounds = self.round.subscribe();
        if rounds.borrow_and_update().failing {
            return Asked::Unavailable;
        }
        if !self.is_on_its_way(came) {
            return Asked::Fresh;
        }
        match time::timeout(PATIENCE, rounds.changed()).await {
            Ok(Ok(())) => match *rounds.borrow() {
                Round { failing: true, .. } => Asked::Unavailable,
                Round { began: Some(began), .. } if began >= came => Asked::Fresh,
                _ => Asked::Older,
            },
            _ => Asked::Unavailable,
        }
    }

    /// Whether a fetch is under way or wanted by now; `false` where the limit allows no more. One caller at a time: who finds it wanted must be able to
    /// rely on it.
    fn is_on_its_way(&self, now: Instant) -> bool {
        let mut is_wanted = self.is_wanted.lock().unwrap_or_else(PoisonError::into_inner);
        if !*is_wanted && !self.is_fetching.load(Ordering::Acquire) {
            if self.sought.take(Who::Everybody, now.into_std()).is_err() {
                return false;
            }
            *is_wanted = true;
            self.wanted.notify_one();
        }
        true
    }

    /// Keeps the set up to date, for as long as the process lives.
    pub async fn keep(self: Arc<Self>) {
        match &self.place {
            Place::File(file) => self.follow(file).await,
            Place::Url(remote) => drop(tokio::join!(self.keep_fetching(remote), remote.trust.keep())),
        }
    }

    async fn follow(&self, file: &Path) {
        let mut is_good = true;
        loop {
            time::sleep(FILE_INTERVAL).await;
            let path = file.to_owned();
            let Ok(found) = tokio::task::spawn_blocking(move || read(&path)).await else { continue };
            let taken = found.and_then(|text| {
                if !self.has(&text) {
                    let keys = parse(&text, &file.display())?;
                    self.take(text, keys);
                }
                Ok(())
            });
            let was_good = std::mem::replace(&mut is_good, taken.is_ok());
            if let Err(error) = taken
                && was_good
            {
                tracing::error!(%error, "the last good keys stay in use");
            }
        }
    }

    /// Whether the set at hand was read from this text.
    fn has(&self, text: &Bytes) -> bool {
        self.current.load().as_ref().is_some_and(|current| current.text == *text)
    }

    /// Takes a set into use, unless it is the one at hand.
    fn take(&self, text: Bytes, keys: KeySet) {
        if self.has(&text) {
            return;
        }
        let generation = self.generation.load(Ordering::Acquire) + 1;
        self.current.store(Some(Arc::new(Current { keys, generation, text })));
        self.generation.store(generation, Ordering::Release);
    }

    async fn keep_fetching(&self, remote: &Remote) {
        let mut pause = FIRST_PAUSE;
        loop {
            let mut failing = false;
            let began = Instant::now();
            self.is_fetching.store(true, Ordering::Release);
            *self.is_wanted.lock().unwrap_or_else(PoisonError::into_inner) = false;
            let wait = match remote.fetch().await {
                Ok((text, keys, wait)) => {
                    if pause > FIRST_PAUSE {
                        tracing::info!(url = %remote.uri, "the key set can be had again");
                    }
                    pause = FIRST_PAUSE;
                    self.take(text, keys);
                    wait
                }
                Err(error) => {
                    failing = true;
                    if pause == FIRST_PAUSE {
                        let keys = if self.current.load().is_some() { "the last good keys stay in use" } else { "no JWT can be checked" };
                        tracing::error!(%error, keys, "a key set cannot be had");
                    }
                    let wait = pause;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    wait
                }
            };
            self.is_fetching.store(false, Ordering::Release);
            self.round.send_modify(|round| {
                round.failing = failing;
                round.began = if failing { round.began } else { Some(began) };
            });
            if failing {
                time::sleep(wait).await;
            } else {
                let _ = time::timeout(wait, self.wanted.notified()).await;
            }
        }
    }
}

impl Remote {
    async fn fetch(&self) -> Result<(Bytes, KeySet, Duration), Error> {
        let failed = |cause: String| Error::Fetch { url: self.uri.to_string(), cause };
        let late = |_| failed(format!("timed out after {}", humantime::format_duration(TIMEOUT)));
        let (text, wait) = time::timeout(TIMEOUT, self.get()).await.map_err(late)?.map_err(failed)?;
        let keys = parse(&text, &self.uri)?;
        Ok((text, keys, wait))
    }

    async fn get(&self) -> Result<(Bytes, Duration), String> {
        let request = Request::get(&self.uri).header(ACCEPT, "application/jwk-set+json, application/json").body(Empty::new());
        let request = request.map_err(|error| error.to_string())?;
        let (head, body) = self.client.request(request).await.map_err(|error| failure::of(&error).to_string())?.into_parts();
        if head.status != StatusCode::OK {
            let why = if head.status.is_redirection() { ": no redirect is followed, write where it leads" } else { "" };
            return Err(format!("it answered {}{why}", head.status.as_u16()));
        }
        let text = Limited::new(body, MAX_BYTES).collect().await.map_err(|error| {
            if error.is::<http_body_util::LengthLimitError>() {
                format!("it is longer than {} KiB", MAX_BYTES / 1024)
            } else {
                failure::of(error.as_ref()).to_string()
            }
        })?;
        Ok((text.to_bytes(), max_age(&head.headers)))
    }
}

fn read(file: &Path) -> Result<Bytes, Error> {
    let text = std::fs::read(file).map_err(|cause| Error::File { file: file.display().to_string(), cause: cause.to_string() })?;
    Ok(text.into())
}

fn parse(text: &Bytes, place: &dyn Display) -> Result<KeySet, Error> {
    KeySet::parse(text).map_err(|cause| Error::Unusable { place: place.to_string(), cause })
}

/// How long a set may be kept, as its source says (RFC 9111 section 5.2.2.1), within bounds.
fn max_age(headers: &HeaderMap) -> Duration {
    let directives = headers.get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    let seconds = directives.filter_map(|directive| directive.trim().to_ascii_lowercase().strip_prefix("max-age=")?.parse().ok()).next();
    seconds.map_or(REFRESH, |seconds| Duration::from_secs(seconds).clamp(SHORTEST, LONGEST))
}
