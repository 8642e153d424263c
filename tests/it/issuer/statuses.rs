//! Statuses and bodies of requests that are wrong in themselves.

use serde_json::json;

use super::served::{ALICE, Served};

#[tokio::test]
async fn wrong_parameters_are_a_bad_request() {
    let served = Served::start().await;
    let long = format!("?data={}", "x".repeat(1025));
    for query in ["?cid=1&cid=2", "?returnSessionToken=maybe", "?data=%ff", &long] {
        served.create(query, ("X-API-Key", ALICE)).await.error(400);
    }
    assert_eq!(served.create("?unknown=1&unknown=2&scopes=", ("X-API-Key", ALICE)).await.status, 201);
}

#[tokio::test]
async fn wrong_bodies_are_a_bad_request() {
    let served = Served::start().await;
    let deep = format!("{}{}", "{\"access_token\":".repeat(3000), "}".repeat(3000));
    for body in ["", "{}", "[]", "null", "{\"access_token\":7}", "{\"access_token\":\"\"}", "{\"access_token\"", &deep] {
        for (method, path) in [("DELETE", "/v1/tokens"), ("POST", "/v1/tokens:refresh")] {
            served.send(method, path, &[("Content-Type", "application/json")], body).await.error(400);
        }
    }
}

#[tokio::test]
async fn the_kinds_of_json_are_taken_and_no_others() {
    let served = Served::start().await;
    let body = json!({ "access_token": "pst_unknown" }).to_string();
    for kind in ["application/json-patch+json", "application/json; charset=utf-8", "text/json", "application/vnd.x+json"] {
        assert_eq!(served.send("DELETE", "/v1/tokens", &[("Content-Type", kind)], &body).await.status, 204);
    }
    for kind in ["application/x-www-form-urlencoded", "text/plain", "nonsense"] {
        served.send("DELETE", "/v1/tokens", &[("Content-Type", kind)], &body).await.error(415);
    }
}

#[tokio::test]
async fn too_much_is_refused_and_the_connection_lives_on() {
    let served = Served::start().await;
    let large = format!("{{\"access_token\":\"{}\"}}", "x".repeat(1 << 20));
    served.send("DELETE", "/v1/tokens", &[("Content-Type", "application/json")], &large).await.error(413);
    served.send("POST", "/v1/tokens", &[("X-API-Key", ALICE)], &large).await.error(413);
    served.token("").await;
}

#[tokio::test]
async fn other_paths_and_methods_are_named() {
    let served = Served::start().await;
    for path in ["/", "/v1", "/v1/tokens/", "/v1/tokens:other", "/v1/tokens/details/x", "/V1/tokens"] {
        served.send("POST", path, &[], "").await.error(404);
    }
    for (method, path, allowed) in
        [("GET", "/v1/tokens", "POST,DELETE"), ("GET", "/v1/tokens:refresh", "POST"), ("POST", "/.well-known/jwks.json", "GET,HEAD")]
    {
        let reply = served.send(method, path, &[], "").await;
        reply.error(405);
        assert_eq!(reply.headers["allow"], allowed);
    }
}

#[tokio::test]
async fn it_ends_when_told_to_though_connections_are_idle() {
    let served = Served::start().await;
    served.token("").await;
    let address = served.address;
    served.stop().await;
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}
