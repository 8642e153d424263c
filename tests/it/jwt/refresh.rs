//! A key set that is fetched again once its time is over, though nobody asks for it: so dies a key that is published no more (CVE-2025-22149).

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bearerd::clock::Clock;
use bearerd::config::token_service::ClientTls;
use bearerd::credential::{Kind, Presented};
use bearerd::exchange::{Capacity, Details, Error, Exchange, HashKeys, Verifier};
use bearerd::jwks::Fault;
use bearerd::jwks::rules::Rules;
use bearerd::jwks::source::{Asked, Source};
use bearerd::secret::HashKey;
use bearerd::telemetry::metrics::Metrics;
use jsonwebtoken::Algorithm;
use serde_json::json;
use tokio::runtime::Handle;
use tokio::time;

use crate::support::client::get;
use crate::support::events::PATIENCE;
use crate::support::jwt::{Signer, in_seconds, key_set, publishes};
use crate::support::upstream::{RecordingUpstream, Reply};

/// A source that is kept up to date, and a route that takes what is signed by its keys. All on this runtime.
struct Followed {
    keys: RecordingUpstream,
    source: Arc<Source>,
    exchange: Arc<Exchange>,
    verifier: Arc<Verifier>,
}

impl Followed {
    async fn by(signer: &Signer, cache_control: Option<&str>) -> Self {
        let keys = RecordingUpstream::start().await;
        let headers = cache_control.map(|value| ("Cache-Control".to_owned(), value.to_owned())).into_iter().collect();
        keys.reply_always(Reply::Fixed { status: 200, headers, body: key_set(&[signer]).into_bytes() });
        let url = format!("http://{}/keys", keys.address()).parse().unwrap();
        let source = Arc::new(Source::url(url, &ClientTls::default()).unwrap());
        tokio::spawn(Arc::clone(&source).keep());
        assert_eq!(source.first().await, Asked::Fresh);
        let hash_keys = HashKeys { current: HashKey::random().unwrap(), former: Vec::new() };
        let hour = Duration::from_secs(3600);
        let capacity = Capacity { tokens: 100, negative: 100, negative_ttl: hour, tombstones: 100, tombstone_ttl: hour };
        let metrics = Arc::new(Metrics::new().unwrap());
        let exchange = Arc::new(Exchange::new(hash_keys, capacity, Clock::steppable(), Handle::current(), metrics));
        let signature = Some((Arc::clone(&source), vec![Algorithm::ES256]));
        let verifier = Arc::new(exchange.verifier("api", signature, Rules::default(), Details::Off, None));
        Self { keys, source, exchange, verifier }
    }

    /// What a request with this JWT comes to.
    async fn ask(&self, token: &str) -> Result<(), Error> {
        let presented = Presented { kind: Kind::Jwt, value: Cow::Borrowed(token) };
        let key = self.verifier.key(&presented);
        match self.exchange.lookup_presented(&self.verifier, key, time::Instant::now().into_std())? {
            Some(_) => Ok(()),
            None => self.exchange.verify(&self.verifier, &presented, key).await.map(drop),
        }
    }

    fn fetches(&self) -> usize {
        self.keys.started().iter().filter(|head| head.word(1) == "/keys").count()
    }
}

/// Lets so much time pass at once. It stands still only meanwhile: else whoever waits for an answer would be told that it is late.
async fn pass(span: Duration) {
    time::pause();
    time::advance(span).await;
    time::resume();
}

#[tokio::test]
async fn a_key_that_is_taken_out_dies_in_time_though_no_unknown_key_is_met() {
    // What a slow machine may take for the rest.
    const MARGIN: Duration = Duration::from_secs(30);
    for (cache_control, seconds) in [
        (None, 300),
        (Some("no-cache"), 300),
        (Some("max-age=soon"), 300),
        (Some("max-age=1"), 60),
        (Some("public, Max-Age=120, must-revalidate"), 120),
        (Some("max-age=31536000"), 3600),
    ] {
        let (old, new) = (Signer::new("k1"), Signer::new("k2"));
        let followed = Followed::by(&old, cache_control).await;
        // Good for longer than time is let pass.
        let token = |signer: &Signer, sub| signer.token(&json!({ "sub": sub, "exp": in_seconds(86_400) }));
        let (cached, other, next) = (token(&old, "cached"), token(&old, "other"), token(&new, "next"));
        assert_eq!(followed.ask(&cached).await, Ok(()));
        followed.keys.reply_always(publishes(&[&new]));
        pass(Duration::from_secs(seconds) - MARGIN).await;
        assert_eq!(followed.ask(&cached).await, Ok(()), "{cache_control:?}: it is not known yet");
        // A fetch before its time would have begun by now, and come before this.
        get(followed.keys.address(), "/", &[]).await;
        assert_eq!(followed.fetches(), 1, "{cache_control:?}: fetched before its time");
        pass(MARGIN).await;
        let renewed = async {
            while followed.source.generation() == 1 {
                tokio::task::yield_now().await;
            }
        };
        time::timeout(PATIENCE, renewed).await.unwrap_or_else(|_| panic!("{cache_control:?}: not fetched in its time"));
        assert_eq!(followed.fetches(), 2, "{cache_control:?}");
        // Its verdict goes with it, and so does whatever else it has signed.
        for token in [cached, other] {
            assert_eq!(followed.ask(&token).await, Err(Error::InvalidToken(Fault::UnknownKey)), "{cache_control:?}");
        }
        assert_eq!(followed.ask(&next).await, Ok(()));
    }
}
