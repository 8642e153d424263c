//! The embedded token service without HTTP, and from its files.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use bearerd::clock::Clock;
use bearerd::config::token_service::{Breaker, Embedded, Mint, SigningAlgorithm};
use bearerd::credential::{Credential, Kind};
use bearerd::issuer::api_key::ApiKey;
use bearerd::issuer::keys_file::change::add;
use bearerd::issuer::{Error as IssuerError, Issuer};
use bearerd::secret::Secret;
use bearerd::token_service::embedded::EmbeddedTokenService;
use bearerd::token_service::{Error, TokenParams, TokenService};

use super::served::{ALICE, Served, grants, issuer};

fn api_key(key: &str) -> Credential {
    Credential { kind: Kind::ApiKey, value: Secret::from(key) }
}

#[tokio::test]
async fn all_four_calls_work_in_process() {
    let clock = Clock::steppable();
    let service = EmbeddedTokenService::new(issuer(&clock));
    let jwt = service.create_token(&api_key(ALICE), &TokenParams::default()).await.unwrap();
    assert_eq!(service.get_token_details(&jwt).await.unwrap().uid.as_deref(), Some("user-alice"));
    service.revoke_token(&jwt).await.unwrap();
    assert_eq!(service.get_token_details(&jwt).await.unwrap_err(), Error::Denied);

    let params = TokenParams { return_session_token: true, ..TokenParams::default() };
    let session = service.create_token(&api_key(ALICE), &params).await.unwrap();
    assert_eq!(service.refresh_token(&session).await.unwrap(), session);
    assert_eq!(service.refresh_token(&jwt).await.unwrap_err(), Error::Denied);

    assert_eq!(service.create_token(&api_key("unknown"), &TokenParams::default()).await.unwrap_err(), Error::Denied);
    let params = TokenParams { scopes: vec!["ADMIN".to_owned()], ..TokenParams::default() };
    let refused = service.create_token(&api_key(ALICE), &params).await.unwrap_err();
    assert_eq!(refused, Error::Forbidden("scopes not granted to this credential: ADMIN".to_owned()));
}

pub fn configuration(directory: &std::path::Path) -> Embedded {
    Embedded {
        address: None,
        keys_file: directory.join("keys.yaml"),
        signing_key_file: directory.join("signing.pem"),
        algorithm: SigningAlgorithm::ES256,
        key_overlap: Duration::from_secs(3600),
        state_file: None,
        rate_per_key: 100,
        lifetime: Duration::from_secs(60),
        session_lifetime: Duration::from_secs(60),
        issuer: "me".to_owned(),
        audience: "you".to_owned(),
        mint: Mint::default(),
        breaker: Breaker::default(),
    }
}

#[tokio::test]
async fn keys_and_tokens_survive_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let config = configuration(directory.path());
    add(&config.keys_file, &ApiKey::new("alice", &Secret::from(ALICE), grants())).unwrap();
    let clock = Clock::steppable();

    let first = Served::start_with(Issuer::open(&config, clock.clone()).unwrap(), clock.clone()).await;
    let jwt = first.token("").await;
    let keys = first.send("GET", "/.well-known/jwks.json", &[], "").await.body;
    first.stop().await;
    assert_eq!(std::fs::metadata(&config.signing_key_file).unwrap().permissions().mode() & 0o777, 0o600);

    let second = Served::start_with(Issuer::open(&config, clock.clone()).unwrap(), clock).await;
    assert_eq!(second.details(&jwt).await.json()["name"], "alice");
    assert_eq!(second.send("GET", "/.well-known/jwks.json", &[], "").await.body, keys);
    second.token("").await;
}

#[tokio::test]
async fn another_audience_is_another_service() {
    let directory = tempfile::tempdir().unwrap();
    let config = configuration(directory.path());
    add(&config.keys_file, &ApiKey::new("alice", &Secret::from(ALICE), grants())).unwrap();
    let one = Issuer::open(&config, Clock::system()).unwrap();
    let other = Issuer::open(&Embedded { audience: "others".to_owned(), ..config }, Clock::system()).unwrap();
    let token = one.create_token(&api_key(ALICE), &TokenParams::default()).await.unwrap();
    assert!(one.get_token_details(&token).is_ok() && other.get_token_details(&token).is_err());
}

#[test]
fn a_life_of_less_than_a_second_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let config = Embedded { lifetime: Duration::from_millis(500), ..configuration(directory.path()) };
    std::fs::write(&config.keys_file, "keys: []\n").unwrap();
    assert!(matches!(Issuer::open(&config, Clock::system()), Err(IssuerError::TooShort("lifetime"))));
}
