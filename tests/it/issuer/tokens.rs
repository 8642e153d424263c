//! What the JWTs say, who can verify them, and that they never say more than the key has.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::jwk::{JwkSet, ThumbprintHash};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde_json::{Value, json};

use super::served::{ALICE, BOB, Served};

fn claims(token: &str) -> Value {
    let payload = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

#[tokio::test]
async fn claims_have_the_observed_form() {
    let served = Served::start().await;
    let before = served.clock.now().as_secs();
    let claims = claims(&served.token("?clientId=app&domain=d&data=note%20%C3%A4&cwid=w&cid=c").await);
    let after = served.clock.now().as_secs();
    let iat = claims["iat"].as_i64().unwrap();
    assert!((before..=after).contains(&iat));
    assert_eq!((claims["nbf"].as_i64(), claims["exp"].as_i64()), (Some(iat), Some(iat + 3600)));
    let tid = STANDARD.decode(claims["tid"].as_str().unwrap()).unwrap();
    assert_eq!(String::from_utf8(tid).unwrap().rsplit(':').next(), Some("acme"));
    let expected = json!({
        "iss": "bearerd", "aud": "bearerd", "sub": "user-alice", "name": "alice", "scope": "GDS.READ,GDS.WRITE", "acl": ["x", "y"],
        "mem": { "cid:1": { "role": "admin" }, "cid:2": {} }, "azp": "app", "domain": "d", "session": "note ä", "cwid": "w", "cid": "c",
    });
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&claims[name], value, "{name}");
    }
    assert!(claims["jti"].as_str().unwrap().len() >= 22);
}

#[tokio::test]
async fn no_two_tokens_have_one_id() {
    let served = Served::start().await;
    assert_ne!(claims(&served.token("").await)["jti"], claims(&served.token("").await)["jti"]);
}

#[tokio::test]
async fn the_published_key_verifies_a_token() {
    let served = Served::start().await;
    let token = served.token("").await;
    let reply = served.send("GET", "/.well-known/jwks.json", &[], "").await;
    assert_eq!((reply.status.as_u16(), &reply.headers["cache-control"]), (200, &"public, max-age=60".parse().unwrap()));
    assert!(!String::from_utf8_lossy(&reply.body).contains("\"d\""), "the private half is there");
    let keys: JwkSet = serde_json::from_slice(&reply.body).unwrap();
    let header = decode_header(&token).unwrap();
    let key = keys.find(header.kid.as_ref().unwrap()).unwrap();
    assert_eq!(header.kid, Some(key.thumbprint(ThumbprintHash::SHA256).unwrap()));
    let mut validation = Validation::new(Algorithm::ES256);
    validation.set_audience(&["bearerd"]);
    validation.set_issuer(&["bearerd"]);
    let verified = decode::<Value>(&token, &DecodingKey::from_jwk(key).unwrap(), &validation).unwrap();
    assert_eq!(verified.claims["sub"], "user-alice");
}

#[tokio::test]
async fn a_request_narrows_what_the_key_grants() {
    let served = Served::start().await;
    let narrow = claims(&served.token("?scopes=GDS.READ&acl=y&acl=x&mem=cid%3A1").await);
    assert_eq!(narrow["scope"], "GDS.READ");
    assert_eq!(narrow["acl"], json!(["x", "y"]));
    assert_eq!(narrow["mem"], json!({ "cid:1": { "role": "admin" } }));
}

#[tokio::test]
async fn more_than_the_key_grants_is_forbidden_and_named() {
    let served = Served::start().await;
    let alice = ("X-API-Key", ALICE);
    let refused = served.create("?scopes=GDS.READ,GDS.ADMIN,%2A", alice).await.error(403);
    assert_eq!(refused, "scopes not granted to this credential: GDS.ADMIN, *");
    assert_eq!(served.create("?acl=z", alice).await.error(403), "acl not granted to this credential: z");
    assert_eq!(served.create("?mem=cid%3A3", alice).await.error(403), "mem not granted to this credential: cid:3");
    assert_eq!(served.create("?scopes=gds.read", alice).await.error(403), "scopes not granted to this credential: gds.read");
}

#[tokio::test]
async fn a_key_with_a_workgroup_stays_in_it() {
    let served = Served::start().await;
    let bob = ("X-API-Key", BOB);
    for query in ["", "?cwid=wg-bob"] {
        let token = served.create(query, bob).await.token();
        assert_eq!(served.details(&token).await.json()["currentWorkgroup"]["id"], "wg-bob");
    }
    assert_eq!(served.create("?cwid=wg-alice", bob).await.error(403), "cwid not granted to this credential: wg-alice");
}

#[tokio::test]
async fn a_session_keeps_its_narrow_grants() {
    let served = Served::start().await;
    let session = served.token("?scopes=GDS.READ&data=first&returnSessionToken=True").await;
    assert!(session.starts_with("pst_") && !session.contains('.'));
    let bearer = format!("Bearer {session}");
    let bearer = ("Authorization", bearer.as_str());
    let made = claims(&served.create("", bearer).await.token());
    assert_eq!((&made["scope"], &made["session"]), (&json!("GDS.READ"), &json!("first")));
    served.create("?scopes=GDS.WRITE", bearer).await.error(403);
    let narrower = served.create("?acl=x&returnSessionToken=true", bearer).await.token();
    let made = claims(&served.create("?data=second", ("Authorization", &format!("Bearer {narrower}"))).await.token());
    assert_eq!((&made["scope"], &made["acl"], &made["session"]), (&json!("GDS.READ"), &json!(["x"]), &json!("second")));
}

#[tokio::test]
async fn details_tell_of_both_kinds_of_token() {
    let served = Served::start().await;
    for query in ["?cwid=w&domain=d&acl=x", "?cwid=w&domain=d&acl=x&returnSessionToken=True"] {
        let reply = served.details(&served.token(query).await).await;
        assert_eq!((reply.status.as_u16(), &reply.headers["cache-control"]), (200, &"no-store".parse().unwrap()));
        let details = reply.json();
        assert_eq!(
            (&details["uid"], &details["name"], &details["username"]),
            (&json!("user-alice"), &json!("alice"), &json!("user-alice"))
        );
        assert_eq!(
            (&details["acls"], &details["currentWorkgroup"]["id"], &details["domain"]["name"]),
            (&json!(["x"]), &json!("w"), &json!("d"))
        );
        assert_eq!(details["tid"], STANDARD.encode("bearerd:tenant:acme"));
    }
}
