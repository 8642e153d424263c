//! Paths that a backend may read otherwise than bearerd: without a token, none of them leads to a protected handler, whatever the backend makes of it.

use crate::fuzz::inputs::readings::{is_protected, readings};
use crate::support::protocols::{Outcome, PROTOCOL_ERROR, Protocol};
use crate::support::stage::Stage;

/// A public part beside a protected one, and a public rest; the protected part is known by its first segment.
const ROUTES: &str = "
  - { name: public, match: { path_prefix: /public }, auth: none, upstream: app }
  - { name: admin, match: { path_prefix: /admin }, upstream: app }
  - { name: users, match: { path_regex: \"/users/[0-9]+(/.*)?\" }, upstream: app }
  - { name: rest, auth: none, upstream: app }";

/// Sends each path without a credential, and looks at what reached the upstream. Returns how many did.
async fn none_reaches_a_protected_handler(stage: &Stage, protocol: Protocol, targets: impl IntoIterator<Item = String>) -> usize {
    let begin = stage.upstream.requests().len();
    let mut known = begin;
    for target in targets {
        let outcome = stage.ask::<&str, &str>(protocol, &target, &[]).await;
        let expected = match &outcome {
            Outcome::Served | Outcome::Refused(400 | 401 | 404, _) => true,
            // A path that no URL can have.
            Outcome::Reset(code) => protocol == Protocol::Http2 && *code == PROTOCOL_ERROR,
            _ => false,
        };
        assert!(expected, "{target} {protocol:?}: {outcome:?}");
        let requests = stage.upstream.requests();
        for seen in &requests[known..] {
            assert_eq!(outcome, Outcome::Served);
            assert_eq!(seen.target(), target, "forwarded unchanged");
            let path = seen.target().split(['?', '#']).next().unwrap();
            for reading in readings(path, 4096) {
                assert!(!is_protected(&reading), "{target} may be read as {reading}");
            }
        }
        known = requests.len();
    }
    known - begin
}

/// CVE-2026-33494, CVE-2026-73511, CVE-2026-73551, CVE-2026-73553, GHSA-7rh7-c77v-6434, GHSA-pxq7-h93f-9jrg, CVE-2021-32637.
#[tokio::test]
async fn the_corpus_of_paths_that_others_fell_to() {
    let corpus = [
        "/public/../admin",
        "/public/..;a=b/admin",
        "/public/..;/admin",
        "/public/%2e%2e/admin",
        "/public/%2E%2e/admin",
        "/public/.%2e/admin",
        "/public/..%2fadmin",
        "/public/..%2Fadmin",
        "/public/..%252fadmin",
        "/public/%252e%252e/admin",
        "/public/..%25252fadmin",
        "/public/..%252525252fadmin",
        "/public/..%2525252525252525252fadmin",
        "/public/..%252525252fx/../admin",
        "/public/%252e%252e%252fadmin",
        "/..%2fadmin/%2e%2e/x",
        "/public/..%5cadmin",
        "/public/..\\admin",
        "/public\\..\\admin",
        "//admin",
        "///admin",
        "/./admin",
        "/.//admin",
        "/x/..//admin",
        "/admin;x",
        "/admin;a=b/c",
        "/;/admin",
        "/;x/admin",
        "/admin%3b",
        "/admin%2f",
        "/admin/",
        "/admin/x",
        "/admin?x",
        "/admin%3fx",
        "/admin%23x",
        "/ADMIN",
        "/Admin/x",
        "/aDMIN%2f",
        "/%41dmin",
        "/%61dmin",
        "/%2561dmin",
        "/%25%36%31dmin",
        "/admin%00",
        "/admin%00.png",
        "/public/%00/../admin",
        "/public/..%00/admin",
        "/admin%2500",
        "/admin/../admin",
        "/public/../public/../admin",
        "/public/x/../../admin",
        "/public/./../admin",
        "/public/%2e/%2e%2e/admin",
        "/public//..//admin",
        "/%2fadmin",
        "/%2Fadmin",
        "/%5cadmin",
        "/\\admin",
        "/public/..%c0%afadmin",
        "/users/7",
        "/users/7/",
        "/users/%37",
        "/users//7",
        "/users/./7",
        "/users/7%2fx",
        "/USERS/7",
        "/users/x/../7",
        "///users/7/../x",
        "/public;/..//admin/../x",
        "/users;a/7",
        "/users/7;x",
        "/public/../users/7",
        "/users/7%ff",
        "/admin%ff",
        "/admin/%ff",
        "/admin%2f%ff",
        "http://app.test/admin",
        "http://app.test//admin",
        "http://app.test/public/../admin",
    ];
    let stage = Stage::of_each_protocol("", ROUTES).await;
    for protocol in Protocol::ALL {
        none_reaches_a_protected_handler(&stage, protocol, corpus.map(str::to_owned)).await;
        // A token opens them: it is not that nothing comes through.
        for path in ["/admin", "/admin/x", "/users/7", "/users/7/x"] {
            assert_eq!(stage.ask(protocol, path, &[("X-API-Key", "k")]).await, Outcome::Served, "{path} {protocol:?}");
        }
        let ambiguous = stage.ask(protocol, "/admin/%2e%2e/public", &[("X-API-Key", "k")]).await;
        assert!(matches!(ambiguous, Outcome::Refused(400, _)), "{protocol:?}: {ambiguous:?}");
    }
}

/// A few thousand paths made of the pieces that matter, in an order that is the same each time.
#[tokio::test]
async fn generated_paths_lead_to_no_protected_handler() {
    const PIECES: [&str; 26] = [
        "/", "/", "/", "public", "admin", "Admin", "users", "7", "..", ".", "%2e", "%2E", "%2f", "%5c", "\\", ";", ";a=b", "%252e",
        "%252f", "%00", "%3f", "%23", "x", "%61dmin", "%ff", "//",
    ];
    let mut random = fastrand::Rng::with_seed(7);
    let mut path = || {
        let count = random.usize(1..9);
        let lead = ["/", "/public/", "/x/"][random.usize(0..3)];
        lead.to_owned() + &(0..count).map(|_| PIECES[random.usize(0..PIECES.len())]).collect::<String>()
    };
    for (protocol, count) in [(Protocol::Http1, 3000), (Protocol::Http2, 1000), (Protocol::WebSocket, 500)] {
        let stage = Stage::of_each_protocol("", ROUTES).await;
        let through = none_reaches_a_protected_handler(&stage, protocol, std::iter::repeat_with(&mut path).take(count)).await;
        assert!(through > count / 10, "{through} of {count} were forwarded: those that can be read in one way only");
    }
}
