//! The real program between servers that can fail, callers that never pause, and what must hold whatever fails.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bearerd::app::Addresses;
use rustix::process::Signal;
use serde_json::json;
use tempfile::TempDir;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::support::bearerd::{series, until};
use crate::support::client::{Client, Response, get};
use crate::support::events::PATIENCE;
use crate::support::jwt::{Signer, publishes};
use crate::support::process::{Process, on_free_ports};
use crate::support::stage::surroundings;
use crate::support::token_service::{ScriptedTokenService, claims, subject};
use crate::support::upstream::{RecordingUpstream, Reply};

/// Keys whose tokens are at hand before anything fails.
const CACHED: usize = 4;
/// Pooled connections may come and go; what leaks with each fault is more.
const POOLED: usize = 8;

/// A program that a write past its limit does not end, so that it fails as on a disk that takes nothing.
const WRITES_FAIL: &[&str] = &["/bin/sh", "-c", "trap '' XFSZ; exec \"$0\" \"$@\""];

/// What a caller got.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Seen {
    /// 200, with the token of its own key.
    Served,
    /// A problem of bearerd's: status and reason.
    Refused(u16, String),
    /// The upstream's own status.
    Relayed(u16),
    /// The connection ended before the answer did.
    CutOff,
}

/// A problem of bearerd's.
pub fn refused(status: u16, reason: &str) -> Seen {
    Seen::Refused(status, reason.to_owned())
}

/// What those see who have no token while the token service fails.
pub fn unavailable() -> Seen {
    refused(503, "token_service_unavailable")
}

/// See the module.
pub struct Stand {
    pub process: Process,
    pub addresses: Addresses,
    pub service: ScriptedTokenService,
    pub upstream: RecordingUpstream,
    pub keys: RecordingUpstream,
    pub signer: Signer,
    /// Where the ledger is.
    pub folder: TempDir,
    text: String,
    jwt: String,
    asked: AtomicUsize,
    descriptors: usize,
}

impl Stand {
    /// Everything works, and the keys of [`CACHED`] have their tokens.
    pub async fn new() -> Self {
        let mut stand = Self::cold(WRITES_FAIL).await;
        stand.warm().await;
        stand
    }

    /// Nobody has asked for anything yet. The process is started through `under`.
    pub async fn cold(under: &[&str]) -> Self {
        let (service, upstream) = surroundings().await;
        let (keys, signer, folder) = (RecordingUpstream::start().await, Signer::new("k1"), tempfile::tempdir().unwrap());
        keys.reply_always(publishes(&[&signer]));
        upstream.reply_always(Reply::Mirror(0));
        std::fs::write(folder.path().join("ledger.key"), [7; 32]).unwrap();
        let text = configuration(&service.url(), &upstream.address().to_string(), &keys, &folder);
        let process = Process::run_under(under, &text);
        let addresses = process.addresses().await;
        let jwt = signer.token(&json!({ "sub": "cached" }));
        Self { process, addresses, service, upstream, keys, signer, folder, text, jwt, asked: AtomicUsize::new(0), descriptors: usize::MAX }
    }

    /// Gives the cached keys their tokens, and counts what is open.
    pub async fn warm(&mut self) {
        for number in 0..CACHED {
            assert_eq!(self.ask(&cached(number)).await, Seen::Served);
        }
        assert_eq!(self.ask_with_jwt().await, Seen::Served);
        assert_eq!(self.readiness().await, 200);
        self.descriptors = self.process.descriptors();
    }

    /// Kills the process, and starts another with what it left.
    pub async fn restart(&mut self) {
        self.process.kill();
        self.process = Process::run_under(WRITES_FAIL, &self.text);
        self.addresses = self.process.addresses().await;
        self.descriptors = usize::MAX;
    }

    /// One request with this key.
    pub async fn ask(&self, key: &str) -> Seen {
        ask(self.addresses.callers[0], key).await
    }

    /// One request with a key that nobody has used yet.
    pub async fn ask_anew(&self) -> Seen {
        let key = format!("new-{}", self.asked.fetch_add(1, Ordering::SeqCst));
        self.ask(&key).await
    }

    /// One request with the JWT that was validated before anything failed.
    pub async fn ask_with_jwt(&self) -> Seen {
        self.ask_with_bearer(&self.jwt).await
    }

    /// One request with a JWT that nobody has used yet, signed with a key that is published.
    pub async fn ask_with_new_jwt(&self) -> Seen {
        let number = self.asked.fetch_add(1, Ordering::SeqCst);
        self.ask_with_bearer(&self.signer.token(&json!({ "sub": format!("new-{number}") }))).await
    }

    /// One request with a JWT whose key has never been published.
    pub async fn ask_with_strange_jwt(&self) -> Seen {
        self.ask_with_bearer(&Signer::new("nobody").token(&json!({}))).await
    }

    async fn ask_with_bearer(&self, token: &str) -> Seen {
        let bearer = format!("Bearer {token}");
        let mut client = Client::connect(self.addresses.callers[0]).await;
        let request = format!("GET /jwt HTTP/1.1\r\nHost: app.test\r\nAuthorization: {bearer}\r\n\r\n");
        seen(client.exchange_or_end(request).await, |told| assert_eq!(told, bearer, "the caller's own token"))
    }

    /// Revokes the token of a key of its own, which it gets first; the status.
    pub async fn revoke(&self) -> u16 {
        let key = format!("revoked-{}", self.asked.fetch_add(1, Ordering::SeqCst));
        let mut client = Client::connect(self.addresses.callers[0]).await;
        let created = format!("POST /v1/tokens HTTP/1.1\r\nHost: h\r\nX-API-Key: {key}\r\nContent-Length: 0\r\n\r\n");
        let token = client.exchange(created).await.body.json()["access_token"].clone();
        let body = json!({ "access_token": token }).to_string();
        let length = body.len();
        client
            .exchange(format!(
                "DELETE /v1/tokens HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
            ))
            .await
            .status
    }

    /// What `/readyz` says.
    pub async fn readiness(&self) -> u16 {
        get(self.addresses.metrics, "/readyz", &[]).await.status
    }

    /// Callers with cached keys who ask without a pause.
    pub fn callers(&self) -> Callers {
        Callers::start(self.addresses.callers[0])
    }

    /// Waits until one series is as wanted.
    pub async fn until(&self, name: &str, wanted: impl Fn(f64) -> bool) {
        until(self.addresses.metrics, name, wanted).await;
    }

    /// After a fault: new keys and JWTs are served soon, having seen nothing but `meanwhile`; and nothing is left of it, nor has anything ended with it.
    pub async fn recovers(&self, fault: &str, meanwhile: &[Seen]) {
        let recovered = async {
            loop {
                let told = [self.ask_anew().await, self.ask_with_new_jwt().await];
                if told == [Seen::Served, Seen::Served] {
                    return;
                }
                assert!(told.iter().all(|seen| *seen == Seen::Served || meanwhile.contains(seen)), "after {fault}: {told:?}");
            }
        };
        tokio::time::timeout(PATIENCE, recovered).await.unwrap_or_else(|_| panic!("no recovery from {fault}"));
        assert_eq!(self.readiness().await, 200, "after {fault}");
        for number in 0..CACHED {
            assert_eq!(self.ask(&cached(number)).await, Seen::Served, "after {fault}");
        }
        self.reloads().await;
        self.leaves_nothing(fault).await;
    }

    /// What is done again and again behind requests is still done.
    async fn reloads(&self) {
        const RELOADS: &str = r#"bearerd_config_reloads_total{outcome="success"}"#;
        let before = series(self.addresses.metrics).await[RELOADS];
        self.process.signal(Signal::HUP);
        self.until(RELOADS, |value| value > before).await;
    }

    /// No request, waiter, connection or descriptor is left.
    async fn leaves_nothing(&self, fault: &str) {
        for gauge in ["bearerd_requests_in_flight", "bearerd_coalesced_waiters", "bearerd_connections"] {
            self.until(gauge, |value| value == 0.0).await;
        }
        let closed = async {
            while self.process.descriptors() > self.descriptors.saturating_add(POOLED) {
                tokio::task::yield_now().await;
            }
        };
        let closed = tokio::time::timeout(PATIENCE, closed).await;
        assert!(closed.is_ok(), "after {fault}: {} descriptors, where {} were open", self.process.descriptors(), self.descriptors);
    }

    /// Whatever failed: nobody was told that a credential is bad, each request that went on had the token of its own key, and the end comes in order.
    pub async fn ends(self) {
        let series = series(self.addresses.metrics).await;
        let denied: Vec<_> = series.iter().filter(|(name, value)| name.contains("code=\"401\"") && **value > 0.0).collect();
        assert!(denied.is_empty(), "{denied:?}");
        for received in self.upstream.requests() {
            if let Some(key) = received.head.header("x-expected") {
                assert_eq!(received.subject(), subject(key));
            }
        }
        self.process.signal(Signal::TERM);
        let ended = self.process.ended().await;
        assert_eq!(ended.code(), 0, "{:?}", ended.stderr);
        for line in &ended.stderr {
            assert!(!line.contains("panicked") && !line.contains("ended at once"), "{:?}", ended.stderr);
        }
    }
}

/// Time-outs short enough for a test, and long enough for a slow machine. Only a task that is stuck lets the drain last.
fn configuration(service: &str, upstream: &str, keys: &RecordingUpstream, folder: &TempDir) -> String {
    let at = folder.path().display();
    on_free_ports(&format!(
        "token_services: {{ default: {{ kind: iap, url: \"{service}\", timeout: 2s, connect_timeout: 2s, mint: {{ concurrency: 4 }} }} }}
upstreams: {{ app: {{ servers: [\"{upstream}\"], timeouts: {{ connect: 2s, read: 2s, idle: 2s }} }} }}
cache: {{ ledger: {{ path: {at}/ledger.redb, key_files: [{at}/ledger.key] }} }}
shutdown: {{ delay: 0s, drain_timeout: 10m }}
logging: {{ access: true }}
routes:
  - {{ name: tokens, token_api: default }}
  - {{ name: jwt, match: {{ path_prefix: /jwt }}, upstream: app, credentials: [jwt], validate: {{ jwt: {{ jwks_url: \"http://{}/keys\", algorithms: [ES256], issuers: [\"https://issuer.test\"], audiences: [app] }} }} }}
  - {{ name: app, upstream: app, validate: {{ details: on_mint }} }}
",
        keys.address()
    ))
}

/// The name of a key whose token is at hand.
pub fn cached(number: usize) -> String {
    format!("cached-{}", number % CACHED)
}

fn request(key: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: app.test\r\nX-API-Key: {key}\r\nX-Expected: {key}\r\n\r\n")
}

/// One request on a connection of its own.
pub async fn ask(address: SocketAddr, key: &str) -> Seen {
    let Ok(mut client) = Client::try_connect(address).await else { return Seen::CutOff };
    seen(client.exchange_or_end(request(key)).await, |told| is_of(told, key))
}

/// Panics where this `Authorization` is not of the token of this key.
fn is_of(told: &str, key: &str) {
    let token = told.strip_prefix("Bearer ").unwrap_or_else(|| panic!("{told}"));
    assert_eq!(claims(token)["sub"], subject(key), "the token of another");
}

/// `own` panics where what the upstream was told is not the caller's.
fn seen(response: Option<Response>, own: impl Fn(&str)) -> Seen {
    let Some(response) = response else { return Seen::CutOff };
    if response.header("content-type") == Some("application/problem+json") {
        return Seen::Refused(response.status, response.problem());
    }
    let body = response.body.text();
    match body.lines().find_map(|line| line.split_once(": ").filter(|(name, _)| name.eq_ignore_ascii_case("authorization"))) {
        Some((_, told)) if response.status == 200 => {
            own(told);
            Seen::Served
        }
        _ => Seen::Relayed(response.status),
    }
}

/// Callers with cached keys, each on a connection that it keeps.
pub struct Callers {
    leave: Arc<AtomicBool>,
    answers: Arc<AtomicUsize>,
    answered: Arc<Notify>,
    tasks: Vec<JoinHandle<BTreeSet<Seen>>>,
}

impl Callers {
    fn start(address: SocketAddr) -> Self {
        let (leave, answers, answered) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default(), Arc::<Notify>::default());
        let tasks = (0..CACHED).map(|number| {
            let (leave, answers, answered) = (Arc::clone(&leave), Arc::clone(&answers), Arc::clone(&answered));
            let count = move || {
                answers.fetch_add(1, Ordering::SeqCst);
                answered.notify_one();
            };
            tokio::spawn(keep_asking(address, cached(number), leave, count))
        });
        Self { tasks: tasks.collect(), leave, answers, answered }
    }

    /// How many answers they have had.
    pub fn answers(&self) -> usize {
        self.answers.load(Ordering::SeqCst)
    }

    /// Returns once they have had so many more.
    pub async fn have(&self, more: usize) {
        let wanted = self.answers() + more;
        let had = async {
            while self.answers() < wanted {
                self.answered.notified().await;
            }
        };
        tokio::time::timeout(PATIENCE, had).await.expect("answers for cached keys");
    }

    /// They leave; what they saw.
    pub async fn leave(self) -> BTreeSet<Seen> {
        self.leave.store(true, Ordering::SeqCst);
        let mut all = BTreeSet::new();
        for task in self.tasks {
            all.extend(task.await.unwrap());
        }
        all
    }
}

async fn keep_asking(address: SocketAddr, key: String, leave: Arc<AtomicBool>, count: impl Fn()) -> BTreeSet<Seen> {
    let mut all = BTreeSet::new();
    // Some load, not all that the machine can do: other tests run too.
    let mut pace = tokio::time::interval(Duration::from_millis(5));
    while !leave.load(Ordering::SeqCst) {
        let mut client = Client::connect(address).await;
        loop {
            pace.tick().await;
            let response = client.exchange_or_end(request(&key)).await;
            let closes = response.as_ref().is_none_or(|response| response.head.closes());
            all.insert(seen(response, |told| is_of(told, &key)));
            count();
            if closes || leave.load(Ordering::SeqCst) {
                break;
            }
        }
    }
    all
}
