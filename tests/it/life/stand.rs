//! An exchange with one service whose answers are scripted, all on one runtime whose time stands still until everybody waits.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bearerd::clock::Clock;
use bearerd::credential::{Credential, Kind, Presented};
use bearerd::exchange::{Bounds, Capacity, Details, Error, Exchange, Grant, Granted, HashKeys, Keep, Lookup, Service, Terms};
use bearerd::secret::{HashKey, Secret};
use bearerd::telemetry::metrics::Metrics;
use bearerd::token::Lifetimes;
use bearerd::token_service::{self, TokenDetails, TokenParams, TokenService};
use serde_json::json;
use tokio::runtime::Handle;
use tokio::time;

pub const SECOND: Duration = Duration::from_secs(1);
/// Refusals that a stand remembers.
pub const NEGATIVE: usize = 1000;

/// What the scripted service does in place of what it would.
#[derive(Clone)]
pub enum Answer {
    Fails(token_service::Error),
    /// Answers as usual, so much later.
    Late(Duration),
    /// Fails, so much later.
    FailsLate(Duration, token_service::Error),
    Gives(String),
}

/// A call, as the service saw it: the word of the operation, the credential or token, and when by the clock's uptime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    pub operation: &'static str,
    pub with: String,
    pub at: Duration,
}

/// What a test can set.
pub struct Script {
    pub clock: Clock,
    /// Seconds that tokens live; by the true time, which no step of the clock moves.
    pub lifetime: Mutex<i64>,
    pub nbf: Mutex<i64>,
    queue: Mutex<VecDeque<(&'static str, Answer)>>,
    standing: Mutex<Vec<(&'static str, Answer)>>,
    calls: Mutex<Vec<Call>>,
    epoch: i64,
}

impl Script {
    /// Does this with the next call of this kind.
    pub fn next(&self, operation: &'static str, answer: Answer) {
        self.queue.lock().unwrap().push_back((operation, answer));
    }

    /// Does this with every call of this kind.
    pub fn always(&self, operation: &'static str, answer: Answer) {
        self.standing.lock().unwrap().push((operation, answer));
    }

    /// Works as usual again.
    pub fn works(&self) {
        self.standing.lock().unwrap().clear();
    }

    pub fn calls(&self, operation: &str) -> Vec<Call> {
        self.calls.lock().unwrap().iter().filter(|call| call.operation == operation).cloned().collect()
    }

    pub fn count(&self, operation: &str) -> usize {
        self.calls(operation).len()
    }

    async fn answer(&self, operation: &'static str, with: &Secret) -> Result<Option<String>, token_service::Error> {
        self.calls.lock().unwrap().push(Call { operation, with: with.expose().to_owned(), at: self.clock.reading().uptime });
        let queued = {
            let mut queue = self.queue.lock().unwrap();
            let place = queue.iter().position(|(queued, _)| *queued == operation);
            place.and_then(|place| queue.remove(place)).map(|(_, answer)| answer)
        };
        let standing =
            || self.standing.lock().unwrap().iter().find(|(standing, _)| *standing == operation).map(|(_, answer)| answer.clone());
        match queued.or_else(standing) {
            Some(Answer::Fails(error)) => Err(error),
            Some(Answer::Late(span)) => {
                time::sleep(span).await;
                Ok(None)
            }
            Some(Answer::FailsLate(span, error)) => {
                time::sleep(span).await;
                Err(error)
            }
            Some(Answer::Gives(text)) => Ok(Some(text)),
            None => Ok(None),
        }
    }

    fn token(&self) -> String {
        let uptime = self.clock.reading().uptime.as_millis() as f64 / 1000.0;
        let now = self.epoch as f64 + uptime;
        let number = self.count("create");
        let (lifetime, nbf) = (*self.lifetime.lock().unwrap() as f64, *self.nbf.lock().unwrap() as f64);
        let claims = json!({ "exp": now + lifetime, "nbf": now + nbf, "jti": number }).to_string();
        format!("e30.{}.{number}", URL_SAFE_NO_PAD.encode(claims))
    }
}

#[async_trait]
impl TokenService for Script {
    async fn create_token(&self, credential: &Credential, _: &TokenParams) -> Result<Secret, token_service::Error> {
        let given = self.answer("create", &credential.value).await?;
        Ok(Secret::from(given.unwrap_or_else(|| self.token())))
    }

    async fn get_token_details(&self, token: &Secret) -> Result<TokenDetails, token_service::Error> {
        self.answer("details", token).await.map(|_| TokenDetails::default())
    }

    async fn refresh_token(&self, token: &Secret) -> Result<Secret, token_service::Error> {
        Ok(self.answer("refresh", token).await?.map_or_else(|| token.clone(), Secret::from))
    }

    async fn revoke_token(&self, token: &Secret) -> Result<(), token_service::Error> {
        self.answer("revoke", token).await.map(drop)
    }
}

/// The exchange, its service, and one route.
pub struct Stand {
    pub exchange: Arc<Exchange>,
    pub grant: Arc<Grant>,
    pub service: Arc<Service>,
    pub script: Arc<Script>,
    pub clock: Clock,
    pub metrics: Arc<Metrics>,
}

pub fn terms() -> Terms {
    Terms {
        params: TokenParams::default(),
        details: Details::Off,
        lifetimes: Lifetimes { session: 3600 * SECOND, max_age: None },
        session_refresh: 1800 * SECOND,
        keep: Keep::InUse,
    }
}

pub fn bounds() -> Bounds {
    Bounds {
        concurrency: 32,
        rate: 500,
        queue: 10_000,
        wait: 10 * SECOND,
        skew: Duration::ZERO,
        breaker_failures: 5,
        probe_interval: SECOND,
    }
}

impl Stand {
    pub fn new(terms: Terms) -> Self {
        Self::bounded(terms, bounds(), 1000)
    }

    pub fn bounded(terms: Terms, bounds: Bounds, tokens: u64) -> Self {
        Self::keyed(terms, bounds, tokens, HashKeys { current: HashKey::random().unwrap(), former: Vec::new() })
    }

    pub fn keyed(terms: Terms, bounds: Bounds, tokens: u64, keys: HashKeys) -> Self {
        let clock = Clock::steppable();
        let metrics = Arc::new(Metrics::new().unwrap());
        let script = Arc::new(Script {
            clock: clock.clone(),
            lifetime: Mutex::new(3600),
            nbf: Mutex::new(0),
            queue: Mutex::default(),
            standing: Mutex::default(),
            calls: Mutex::default(),
            epoch: clock.now().as_secs(),
        });
        let capacity = Capacity {
            tokens,
            negative: NEGATIVE as u64,
            negative_ttl: 30 * SECOND,
            tombstones: 1000,
            tombstone_ttl: Duration::from_secs(3600),
        };
        let exchange = Arc::new(Exchange::new(keys, capacity, clock.clone(), Handle::current(), Arc::clone(&metrics)));
        let service = Arc::new(Service::new("scripted", "iap", "http://localhost", script.clone(), bounds, &metrics));
        exchange.attend(&service);
        let grant = Arc::new(exchange.grant("api", &service, terms));
        Self { exchange, grant, service, script, clock, metrics }
    }

    /// What a request with this API key does.
    pub async fn ask(&self, key: &str) -> Result<Granted, Error> {
        self.present(Kind::ApiKey, key).await
    }

    pub async fn present(&self, kind: Kind, text: &str) -> Result<Granted, Error> {
        self.present_owned(kind, text.to_owned()).await
    }

    /// The same, for a task of its own.
    pub fn ask_owned(&self, key: String) -> impl Future<Output = Result<Granted, Error>> + Send + 'static {
        self.present_owned(Kind::ApiKey, key)
    }

    fn present_owned(&self, kind: Kind, text: String) -> impl Future<Output = Result<Granted, Error>> + Send + 'static {
        let (exchange, grant) = (Arc::clone(&self.exchange), Arc::clone(&self.grant));
        async move {
            let presented = Presented { kind, value: Cow::Borrowed(&text) };
            let hash = grant.key(&presented);
            match exchange.lookup(&grant, hash, time::Instant::now().into_std()) {
                Lookup::Hit(granted) => Ok(granted),
                Lookup::Refused(error) => Err(error),
                Lookup::Miss => exchange.mint(&grant, &presented, hash).await.1,
            }
        }
    }

    /// Whether a request would be served from memory, without counting as one.
    pub async fn is_warm(&self, key: &str) -> bool {
        let before = self.script.count("create");
        self.ask(key).await.is_ok() && self.script.count("create") == before
    }

    /// Lets time pass, a second at a time, asking with this key in each.
    pub async fn use_for(&self, key: &str, seconds: u64) -> Vec<String> {
        let mut seen = Vec::new();
        for _ in 0..seconds {
            time::sleep(SECOND).await;
            let text = text(&self.ask(key).await.unwrap());
            if seen.last() != Some(&text) {
                seen.push(text);
            }
        }
        seen
    }

    /// The value of one series.
    pub fn value(&self, series: &str) -> f64 {
        let text = self.metrics.render().unwrap();
        let found = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok());
        found.unwrap_or(0.0)
    }
}

pub fn text(granted: &Granted) -> String {
    granted.token().value().expose().to_owned()
}

pub fn down() -> Answer {
    Answer::Fails(token_service::Error::Unavailable("connection refused".to_owned()))
}
