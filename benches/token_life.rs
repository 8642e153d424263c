//! What keeping tokens costs: memory for each, processor time for each renewal, and the start with a full ledger.
//!
//!     cargo bench --bench token_life

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bearerd::clock::Clock;
use bearerd::credential::{Credential, Kind, Presented};
use bearerd::exchange::ledger::{Keys, Ledger, SavedToken};
use bearerd::exchange::{Bounds, Capacity, Details, Exchange, HashKeys, Keep, Lookup, Service, Terms};
use bearerd::secret::{HashKey, Secret};
use bearerd::telemetry::metrics::Metrics;
use bearerd::token::Lifetimes;
use bearerd::token_service::{Error, TokenDetails, TokenParams, TokenService};
use tokio::runtime::Runtime;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const TOKENS: usize = 1_000_000;
const SAVED: usize = 100_000;
const RENEWED: usize = 2_000;
/// As long as a real one.
const TOKEN_BYTES: usize = 800;
const HOUR: Duration = Duration::from_secs(3600);

fn main() {
    memory();
    restart();
    renewals();
}

/// Tokens of a realistic length that live for a year.
struct Mints(Clock);

fn jwt(expires: i64) -> String {
    let claims = URL_SAFE_NO_PAD.encode(format!(r#"{{"exp":{expires},"scope":"{}"}}"#, "S".repeat(TOKEN_BYTES * 3 / 4 - 60)));
    format!("e30.{claims}.c2ln")
}

#[async_trait]
impl TokenService for Mints {
    async fn create_token(&self, _: &Credential, _: &TokenParams) -> Result<Secret, Error> {
        Ok(Secret::from(jwt(self.0.now().as_secs() + 365 * 24 * 3600)))
    }
    async fn get_token_details(&self, _: &Secret) -> Result<TokenDetails, Error> {
        Ok(TokenDetails::default())
    }
    async fn refresh_token(&self, _: &Secret) -> Result<Secret, Error> {
        Err(Error::Denied)
    }
    async fn revoke_token(&self, _: &Secret) -> Result<(), Error> {
        Ok(())
    }
}

fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

fn memory() {
    let runtime = Runtime::new().unwrap();
    let (clock, metrics) = (Clock::system(), Arc::new(Metrics::new().unwrap()));
    let capacity = Capacity {
        tokens: 2 * TOKENS as u64,
        negative: 1000,
        negative_ttl: Duration::from_secs(30),
        tombstones: 1000,
        tombstone_ttl: HOUR,
    };
    let keys = HashKeys { current: HashKey::random().unwrap(), former: Vec::new() };
    let exchange = Arc::new(Exchange::new(keys, capacity, clock.clone(), runtime.handle().clone(), Arc::clone(&metrics)));
    let bounds = Bounds {
        concurrency: 64,
        rate: u32::MAX,
        queue: 10_000,
        wait: Duration::from_secs(10),
        skew: Duration::ZERO,
        breaker_failures: 5,
        probe_interval: Duration::from_secs(1),
    };
    let service = Arc::new(Service::new("bench", "iap", "http://localhost", Arc::new(Mints(clock)), bounds, &metrics));
    exchange.attend(&service);
    let terms = Terms {
        params: TokenParams::default(),
        details: Details::Off,
        lifetimes: Lifetimes { session: HOUR, max_age: None },
        session_refresh: HOUR,
        keep: Keep::InUse,
    };
    let grant = Arc::new(exchange.grant("bench", &service, terms));
    let key = |number: usize| format!("bench-key-{number:08}");
    let mint = async |number: usize| {
        let text = key(number);
        let presented = Presented { kind: Kind::ApiKey, value: text.as_str().into() };
        let hash = grant.key(&presented);
        if !matches!(exchange.lookup(&grant, hash, Instant::now()), Lookup::Miss) {
            return;
        }
        exchange.mint(&grant, &presented, hash).await.1.map(drop).unwrap();
    };
    runtime.block_on(mint(0));
    let (before, began) = (resident(), Instant::now());
    runtime.block_on(async {
        for number in 1..=TOKENS {
            mint(number).await;
        }
    });
    let took = began.elapsed();
    // The header's scheme and the token; the key.
    let theirs = "Bearer ".len() + jwt(1_800_000_000).len() + key(0).len();
    let each = (resident() - before) / TOKENS;
    println!("memory: {TOKENS} tokens, {each} bytes each, of which {theirs} are token and key: {} bytes beyond them", each - theirs);
    println!(
        "        minted in {:.1} s, {:.1} us each, the token service's own work included",
        took.as_secs_f64(),
        took.as_secs_f64() * 1e6 / TOKENS as f64
    );
}

fn restart() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("ledger.key"), [7; 32]).unwrap();
    let clock = Clock::system();
    {
        let keys = Keys::read(&[at("ledger.key")]).unwrap();
        let metrics = Arc::new(Metrics::new().unwrap());
        let (ledger, _) = Ledger::open(&at("ledger.redb"), keys, clock.now(), metrics).unwrap();
        let expires = clock.now().plus(HOUR);
        for number in 0..SAVED {
            let mut name = [0; 32];
            name[..8].copy_from_slice(&fastrand::u64(..).to_le_bytes());
            name[8..16].copy_from_slice(&number.to_le_bytes());
            ledger.keep(SavedToken {
                name,
                service: "default".to_owned(),
                text: Secret::from(jwt(expires.as_secs())),
                minted: clock.now(),
                expires,
            });
            if number % 5000 == 4999 {
                // The queue is bounded: what finds no room is not written.
                std::thread::sleep(Duration::from_millis(500));
            }
        }
    }
    let cache = format!("cache: {{ ledger: {{ path: {}, key_files: [{}] }} }}\n", at("ledger.redb").display(), at("ledger.key").display());
    let began = Instant::now();
    let with = Running::start(folder.path(), &format!("{cache}{}", configuration(1, "")));
    let took = began.elapsed();
    drop(with);
    let began = Instant::now();
    let without = Running::start(folder.path(), &configuration(1, ""));
    println!(
        "restart: ready in {:.0} ms with {SAVED} tokens in the ledger, in {:.0} ms without one",
        took.as_secs_f64() * 1e3,
        began.elapsed().as_secs_f64() * 1e3
    );
    drop(without);
}

fn configuration(service: u16, route: &str) -> String {
    format!(
        "listeners: [{{ address: 127.0.0.1:0 }}]\nadmin: {{ address: 127.0.0.1:0 }}\nmetrics: {{ address: 127.0.0.1:0 }}\n\
         token_services: {{ default: {{ kind: iap, url: 'http://127.0.0.1:{service}' }} }}\nroutes: [{{ respond: {{ status: 204 }}{route} }}]\n\
         logging: {{ format: json, access: false }}\nworkers: 1\n"
    )
}

fn renewals() {
    let folder = tempfile::tempdir().unwrap();
    let keys: String =
        (0..RENEWED).map(|number| format!("  - {{ name: k{number}, hash: \"{}\" }}\n", hashed(&format!("bench-key-{number}")))).collect();
    fs::write(folder.path().join("keys.yaml"), format!("keys:\n{keys}")).unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let service = format!(
        "token_services: {{ default: {{ kind: embedded, address: '127.0.0.1:{port}', keys_file: keys.yaml, signing_key_file: key.pem, lifetime: 20s }} }}\n\
         routes: []\n"
    );
    fs::write(folder.path().join("service.yaml"), service).unwrap();
    let mut token_service = Command::new(env!("CARGO_BIN_EXE_bearerd"))
        .args(["token-service", "-c", "service.yaml"])
        .current_dir(folder.path())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {}
    let bearerd = Running::start(folder.path(), &configuration(port, ", keep_warm: true, validate: { details: off }"));
    for number in 0..RENEWED {
        let status = ask(bearerd.callers, "/", &format!("X-API-Key: bench-key-{number}\r\n"));
        assert!(status.starts_with("HTTP/1.1 204"), "{status}");
    }
    let before = (bearerd.renewals(), bearerd.cpu());
    std::thread::sleep(Duration::from_secs(30));
    let (renewed, spent) = (bearerd.renewals() - before.0, bearerd.cpu() - before.1);
    let each = spent / renewed;
    // Renewed after four fifths of their hour, more or less.
    let share = each * 100_000.0 / (0.8 * 3600.0);
    println!(
        "renewals: {renewed} in 30 s, {:.0} us of processor time each: 100,000 tokens of an hour take {:.2} % of a core",
        each * 1e6,
        share * 100.0
    );
    token_service.kill().unwrap();
    token_service.wait().unwrap();
}

fn hashed(key: &str) -> String {
    use sha2::Digest;
    let hash = sha2::Sha256::digest(key.as_bytes());
    format!("sha256:{}", hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

fn ask(address: SocketAddr, path: &str, headers: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{headers}Connection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// A bearerd of its own process, ready.
struct Running {
    process: Child,
    callers: SocketAddr,
    metrics: SocketAddr,
}

impl Running {
    fn start(folder: &Path, configuration: &str) -> Self {
        fs::write(folder.join("bearerd.yaml"), configuration).unwrap();
        let mut process = Command::new(env!("CARGO_BIN_EXE_bearerd"))
            .args(["run", "-c", "bearerd.yaml"])
            .current_dir(folder)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let said = lines.map(Result::unwrap).find(|line| line.contains("\"listening\"")).expect("it listens");
        let said: serde_json::Value = serde_json::from_str(&said).unwrap();
        let address = |name: &str| said[name].as_str().unwrap().trim_matches(['[', ']']).parse().unwrap();
        let running = Self { process, callers: address("callers"), metrics: address("metrics") };
        while !ask(running.metrics, "/readyz", "").starts_with("HTTP/1.1 200") {}
        running
    }

    fn renewals(&self) -> f64 {
        let text = ask(self.metrics, "/metrics", "");
        let line = text.lines().find_map(|line| line.strip_prefix(r#"bearerd_token_renewals_total{outcome="ok"} "#));
        line.map_or(0.0, |count| count.trim().parse().unwrap())
    }

    /// Seconds of processor time so far.
    fn cpu(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        // In hundredths of a second on Linux, whatever the kernel's own tick.
        (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}
