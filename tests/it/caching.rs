//! bearerd keeps no answers, and can tell the caches between it and its callers not to share any.

use crate::support::stage::Stage;
use crate::support::upstream::Reply;

const ROUTES: &str = "
  - { name: private, match: { path_prefix: /private }, upstream: app, headers: { response: { set: { Cache-Control: private } } } }
  - { name: app, upstream: app }";

fn shared() -> Reply {
    Reply::Fixed {
        status: 200,
        headers: [("Cache-Control", "public, max-age=3600"), ("ETag", "\"1\""), ("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        body: b"of the first caller".to_vec(),
    }
}

/// RFC 9111 section 3.5: a shared cache reuses no answer to a request with `Authorization`, unless it is told that it may. Towards upstreams every request
/// has one; and here there is no cache, whatever it is told.
#[tokio::test]
async fn rfc_9111_what_an_upstream_marks_as_public_is_asked_for_again() {
    let stage = Stage::with_routes(ROUTES).await;
    stage.upstream.reply_always(shared());
    let mut client = stage.client().await;
    for (number, key) in ["alice", "alice", "bob"].iter().enumerate() {
        let answer = client.get("/report", &[("X-API-Key", key)]).await;
        assert_eq!((answer.status, answer.body.text().as_str()), (200, "of the first caller"));
        assert_eq!(answer.head.all("cache-control"), ["public, max-age=3600"], "the upstream's word goes on");
        assert_eq!((answer.header("age"), stage.upstream.requests().len()), (None, number + 1));
    }
    let subjects: Vec<String> = stage.upstream.requests().iter().map(|request| request.subject()).collect();
    assert!(subjects[0] == subjects[1] && subjects[1] != subjects[2]);
    // Nor is one asked with what another got.
    assert!(stage.upstream.requests().iter().all(|request| request.head.header("if-none-match").is_none()));
}

/// What docs/security.md says to do where there is a shared cache before bearerd.
#[tokio::test]
async fn a_route_can_mark_its_answers_as_private() {
    let stage = Stage::with_routes(ROUTES).await;
    stage.upstream.reply_always(shared());
    let mut client = stage.client().await;
    for number in 1..3 {
        let answer = client.get("/private/report", &[("X-API-Key", "alice")]).await;
        assert_eq!((answer.status, answer.head.all("cache-control")), (200, vec!["private"]));
        assert_eq!(stage.upstream.requests().len(), number);
    }
    // What bearerd refuses by itself no cache may keep.
    assert_eq!(client.get("/private/report", &[]).await.problem(), "missing_credential");
}
