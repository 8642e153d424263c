//! What bearerd adds to a warm request, piece by piece: key extraction, cache hit, injection.

#![allow(clippy::unwrap_used, missing_docs)]

mod setting;

use std::hint::black_box;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bearerd::credential::{self, Credential, Source};
use bearerd::exchange::{Bounds, Details, Keep, Lookup, Service, Terms};
use bearerd::proxy::inject::{self, Caller, Facts, Managed, Names};
use bearerd::secret::Secret;
use bearerd::telemetry::metrics::Metrics;
use bearerd::token::Lifetimes;
use bearerd::token_service::{Error, TokenDetails, TokenParams, TokenService};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use http::{HeaderMap, HeaderName, HeaderValue, Version};
use pingora::http::RequestHeader;
use tokio::runtime::Runtime;

/// As long as a real one.
const TOKEN: usize = 800;

struct Mints;

#[async_trait]
impl TokenService for Mints {
    async fn create_token(&self, _: &Credential, _: &TokenParams) -> Result<Secret, Error> {
        Ok(Secret::from("t".repeat(TOKEN)))
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

fn headers() -> HeaderMap {
    [("host", "svc.local"), ("user-agent", "bench"), ("accept", "*/*"), ("x-api-key", "key-0001")]
        .into_iter()
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
        .collect()
}

fn request() -> RequestHeader {
    let mut request = RequestHeader::build("GET", b"/api/v1/items?page=2", Some(4)).unwrap();
    for (name, value) in [("Host", "svc.local"), ("User-Agent", "bench"), ("Accept", "*/*"), ("X-Api-Key", "key-0001")] {
        request.append_header(name, value).unwrap();
    }
    request
}

fn warm_path(criterion: &mut Criterion) {
    let sources = [Source::Header(HeaderName::from_static("x-api-key")), Source::Basic, Source::SessionToken];
    let map = headers();
    criterion.bench_function("extract", |bench| {
        bench.iter(|| credential::extract(&sources, true, black_box(&map), None).ok().map(|found| found.value.len()))
    });

    let runtime = Runtime::new().unwrap();
    let metrics = Arc::new(Metrics::new().unwrap());
    let exchange = setting::exchange(&runtime, &metrics);
    let bounds = Bounds {
        concurrency: 1,
        rate: 1_000_000,
        queue: 1,
        wait: Duration::from_secs(1),
        skew: Duration::ZERO,
        breaker_failures: 5,
        probe_interval: Duration::from_secs(1),
    };
    let service = Arc::new(Service::new("bench", "iap", "http://localhost", Arc::new(Mints), bounds, &metrics));
    let hour = Duration::from_secs(3600);
    let terms = Terms {
        params: TokenParams::default(),
        details: Details::Off,
        lifetimes: Lifetimes { session: hour, max_age: None },
        session_refresh: hour,
        keep: Keep::InUse,
    };
    let grant = Arc::new(exchange.grant("bench", &service, terms));
    let presented = credential::extract(&sources, true, &map, None).ok().unwrap();
    let key = grant.key(&presented);
    let granted = runtime.block_on(exchange.mint(&grant, &presented, key)).1.unwrap();
    let now = Instant::now();
    criterion.bench_function("cache hit", |bench| {
        bench.iter(|| matches!(exchange.lookup(&grant, grant.key(black_box(&presented)), now), Lookup::Hit(_)))
    });

    let mut managed = Managed::new();
    sources.iter().for_each(|source| managed.add_source(source));
    let (caller, request_id) = (Caller::new(Ipv4Addr::LOCALHOST.into(), false, false), HeaderValue::from_static("0123456789abcdef"));
    let facts = Facts {
        caller: &caller,
        request_id: &request_id,
        token: Some(granted.token()),
        compressed: false,
        told: &[],
        host: None,
        certificate: None,
        version: Version::HTTP_11,
    };
    criterion.bench_function("inject", |bench| {
        bench.iter_batched(
            request,
            |mut request| inject::apply(&mut request, &managed, &Names::default(), &facts).map(|()| request),
            BatchSize::SmallInput,
        );
    });
}

criterion_group!(benches, warm_path);
criterion_main!(benches);
