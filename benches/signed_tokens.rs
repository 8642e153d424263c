//! JWTs that callers bring: the first validation beside the bare signature check, and the look-up from then on beside that of an API key.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, reason = "a benchmark may panic")]

mod setting;

use std::borrow::Cow;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bearerd::credential::{self, Kind, Presented, Source};
use bearerd::exchange::{Details, Exchange, Verifier};
use bearerd::jwks::rules::Rules;
use bearerd::jwks::source;
use bearerd::telemetry::metrics::Metrics;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use http::{HeaderMap, HeaderValue};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey};
use serde_json::json;
use tokio::runtime::Runtime;

const HEADER: &str = r#"{"alg":"ES256","kid":"k1"}"#;

struct Setting {
    runtime: Runtime,
    exchange: Arc<Exchange>,
    verifier: Arc<Verifier>,
    private: EncodingKey,
    public: DecodingKey,
}

impl Setting {
    fn new() -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let private = EncodingKey::from_ec_der(pair.to_pkcs8v1().unwrap().as_ref());
        let jwk = Jwk::from_encoding_key(&private, Algorithm::ES256).unwrap();
        let public = DecodingKey::from_jwk(&jwk).unwrap();
        let mut published = serde_json::to_value(jwk).unwrap();
        published["kid"] = json!("k1");
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("keys.json");
        std::fs::write(&file, json!({ "keys": [published] }).to_string()).unwrap();
        let keys = Arc::new(source::Source::file(file).unwrap());
        let runtime = Runtime::new().unwrap();
        let exchange = setting::exchange(&runtime, &Arc::new(Metrics::new().unwrap()));
        let rules = Rules { issuers: vec!["me".into()], audiences: vec!["you".into()], leeway: Duration::from_secs(30) };
        let verifier = Arc::new(exchange.verifier("bench", Some((keys, vec![Algorithm::ES256])), rules, Details::Off, None));
        Self { runtime, exchange, verifier, private, public }
    }

    fn token(&self, number: u64) -> String {
        let scopes: Vec<String> = (0..16).map(|n| format!("SCOPE.{n}.READ")).collect();
        let claims =
            json!({ "iss": "me", "aud": "you", "sub": format!("user-{number}"), "exp": 4_000_000_000_u64, "scope": scopes.join(",") });
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(HEADER), URL_SAFE_NO_PAD.encode(claims.to_string()));
        format!("{signed}.{}", jsonwebtoken::crypto::sign(signed.as_bytes(), &self.private, Algorithm::ES256).unwrap())
    }
}

fn signed_tokens(criterion: &mut Criterion) {
    let setting = Setting::new();
    let mut number = 0;
    let mut fresh = || {
        number += 1;
        setting.token(number)
    };
    criterion.bench_function("bare signature check", |bench| {
        bench.iter_batched(
            &mut fresh,
            |token| {
                let (signed, signature) = token.rsplit_once('.').unwrap();
                assert!(jsonwebtoken::crypto::verify(signature, signed.as_bytes(), &setting.public, Algorithm::ES256).unwrap());
            },
            BatchSize::LargeInput,
        );
    });
    criterion.bench_function("first validation", |bench| {
        bench.iter_batched(
            &mut fresh,
            |token| {
                let presented = Presented { kind: Kind::Jwt, value: Cow::Owned(token) };
                let key = setting.verifier.key(&presented);
                let verified = setting.exchange.verify(&setting.verifier, &presented, key);
                setting.runtime.block_on(verified).unwrap()
            },
            BatchSize::LargeInput,
        );
    });
    let mut headers = HeaderMap::new();
    headers.insert("authorization", HeaderValue::try_from(format!("Bearer {}", setting.token(0))).unwrap());
    let sources = [Source::Jwt];
    let presented = credential::extract(&sources, true, &headers, None).ok().unwrap();
    setting.runtime.block_on(setting.exchange.verify(&setting.verifier, &presented, setting.verifier.key(&presented))).unwrap();
    let now = Instant::now();
    criterion.bench_function("extract and look up a JWT", |bench| {
        bench.iter(|| {
            let presented = credential::extract(&sources, true, black_box(&headers), None).ok().unwrap();
            setting.exchange.lookup_presented(&setting.verifier, setting.verifier.key(&presented), now).unwrap().unwrap()
        });
    });
}

criterion_group!(benches, signed_tokens);
criterion_main!(benches);
