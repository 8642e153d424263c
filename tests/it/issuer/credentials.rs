//! The ways to present a key or psToken, and the ways not to.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};

use super::served::{ALICE, BOB, Served};

#[tokio::test]
async fn each_form_of_credential_gets_a_token() {
    let served = Served::start().await;
    let session = served.token("?returnSessionToken=true").await;
    let forms = [
        ("X-API-Key", ALICE.to_owned()),
        ("x-api-key", ALICE.to_owned()),
        ("Authorization", ALICE.to_owned()),
        ("Authorization", format!("Basic {}", STANDARD.encode(format!("alice:{ALICE}")))),
        ("Authorization", format!("basic {}", STANDARD_NO_PAD.encode(format!("alice:{ALICE}")))),
        ("Authorization", format!("Basic {}", STANDARD.encode(ALICE))),
        ("Authorization", format!("Basic {ALICE}")),
        ("Authorization", format!("Bearer {session}")),
    ];
    for (name, value) in &forms {
        let token = served.create("", (name, value)).await.token();
        let details = served.details(&token).await.json();
        assert_eq!(details["uid"], "user-alice", "{name}: {value}");
    }
    let token = served.create(&format!("?api_key={ALICE}"), ("Accept-Language", "en")).await.token();
    assert_eq!(served.details(&token).await.json()["name"], "alice");
}

#[tokio::test]
async fn a_wrong_credential_is_denied_and_not_told_why() {
    let served = Served::start().await;
    let jwt = served.token("").await;
    let wrong = [
        ("X-API-Key", "key-of-nobody".to_owned()),
        ("Authorization", format!("Basic {}", STANDARD.encode(format!("bob:{ALICE}")))),
        ("Authorization", format!("Basic {}", STANDARD.encode("alice:"))),
        ("Authorization", format!("Basic {}", STANDARD.encode([0xff, 0xfe]))),
        ("Authorization", format!("Bearer {ALICE}")),
        ("Authorization", format!("Bearer {jwt}")),
        ("Authorization", "Bearer pst_".to_owned()),
        ("Authorization", "Bearer a.b.c".to_owned()),
    ];
    for (name, value) in &wrong {
        let reply = served.create("", (name, value)).await;
        assert_eq!(reply.error(401), "the credential is not valid", "{value}");
        assert_eq!(reply.headers["www-authenticate"], "Bearer realm=\"bearerd\", error=\"invalid_token\"");
    }
}

#[tokio::test]
async fn no_credential_is_asked_for() {
    let served = Served::start().await;
    for header in [("Accept-Language", "en"), ("Authorization", "Digest username=\"alice\"")] {
        let reply = served.create("", header).await;
        assert!(reply.error(401).starts_with("there is no credential"));
        assert_eq!(reply.headers["www-authenticate"], "Bearer realm=\"bearerd\"");
    }
}

#[tokio::test]
async fn several_or_malformed_credentials_are_a_bad_request() {
    let served = Served::start().await;
    let basic = format!("Basic {}", STANDARD.encode(ALICE));
    let pairs: [&[(&str, &str)]; 6] = [
        &[("X-API-Key", ALICE), ("Authorization", &basic)],
        &[("X-API-Key", ALICE), ("X-API-Key", ALICE)],
        &[("X-API-Key", ALICE), ("X-API-Key", BOB)],
        &[("Authorization", &basic), ("Authorization", &basic)],
        &[("X-API-Key", "")],
        &[("Authorization", "Bearer")],
    ];
    for headers in pairs {
        served.send("POST", "/v1/tokens", headers, "").await.error(400);
    }
    served.create(&format!("?api_key={ALICE}"), ("X-API-Key", ALICE)).await.error(400);
}
