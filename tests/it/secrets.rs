//! No secret in anything that bearerd writes: logs at `trace`, metrics, answers, mistakes in a configuration.
//!
//! Canaries go in wherever a secret can; then everything that came out is searched for each of them, as it is and encoded.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustix::process::Signal;
use serde_json::json;

use crate::support::admin::{GUARD, ask};
use crate::support::bearerd::until;
use crate::support::client::Client;
use crate::support::collector::Collector;
use crate::support::http::Head;
use crate::support::jwt::{Signer, key_set};
use crate::support::process::{Process, on_free_ports};
use crate::support::server::Server;
use crate::support::token_service::{Behaviour, Operation, ScriptedTokenService};
use crate::support::upstream::{RecordingUpstream, Reply};

/// Letters and digits alone: percent-encoding leaves them as they are.
const CANARY: &str = "cAnArY7";

/// A secret with the canary and characters that encodings change.
fn secret(name: &str) -> String {
    format!("{name}.{CANARY}+/=~{name}")
}

/// The canary as it can show: as it is, in any case, or encoded, wherever in the encoded text it stands.
fn forms() -> Vec<String> {
    let inner = |prefix: &str| {
        let encoded = STANDARD.encode(format!("{prefix}{CANARY}xx"));
        // What neighbours have a part in is left out.
        encoded[if prefix.is_empty() { 0 } else { 4 }..8].to_owned()
    };
    let each_byte = |write: fn(u8) -> String| CANARY.bytes().map(write).collect::<String>();
    vec![
        CANARY.to_ascii_lowercase(),
        inner(""),
        inner("a"),
        inner("ab"),
        each_byte(|byte| format!("{byte:02x}")),
        each_byte(|byte| format!("%{byte:02x}")),
        each_byte(|byte| format!("{byte}, ")),
    ]
}

#[test]
fn the_search_finds_every_form() {
    let encoded = |text: &str| STANDARD.encode(text);
    for shown in [
        secret("a"),
        secret("a").to_ascii_uppercase(),
        encoded(&secret("")),
        encoded(&secret("u:")),
        encoded(&secret("us:")),
        encoded(&secret("use:")),
        format!("{:?}", secret("a").as_bytes()),
    ] {
        assert!(find(&shown).is_some(), "{shown}");
    }
    assert!(find("cAnAr Y7").is_none());
}

/// Where the canary shows, with its surroundings.
fn find(text: &str) -> Option<String> {
    let lower = text.to_ascii_lowercase();
    forms().into_iter().find_map(|form| {
        // Base64 tells letters' case apart; everything else is searched in lower case.
        let place = text.find(&form).or_else(|| lower.find(&form))?;
        Some(String::from_utf8_lossy(&text.as_bytes()[place.saturating_sub(200)..text.len().min(place + 100)]).into_owned())
    })
}

#[track_caller]
fn assert_clean(what: &str, text: &str) {
    if let Some(found) = find(text) {
        panic!("a secret in {what}: {found}");
    }
}

/// Everything around one bearerd, and every byte that callers got from it.
struct Scene {
    service: ScriptedTokenService,
    upstream: RecordingUpstream,
    process: Process,
    callers: std::net::SocketAddr,
    answers: Vec<(String, String)>,
    signer: Signer,
    collector: Collector,
}

impl Scene {
    async fn set() -> Self {
        let (service, upstream) = (ScriptedTokenService::start().await, RecordingUpstream::start().await);
        let collector = Collector::start().await;
        let gone = {
            let mut server = Server::start(|_, _| async {}).await;
            server.stop().await;
            server.address()
        };
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("admin-token"), secret("admin")).unwrap();
        let signer = Signer::new("k1");
        std::fs::write(directory.path().join("jwks.json"), key_set(&[&signer])).unwrap();
        let configuration = format!(
            "listeners: [{{ address: 127.0.0.1:0, limits: {{ header_bytes: 8KiB, header_timeout: 300ms }} }}]
admin: {{ address: 127.0.0.1:0, token_file: admin-token }}
token_services: {{ default: {{ kind: iap, url: \"{}\", timeout: 300ms, breaker: {{ failures: 1000 }} }} }}
upstreams:
  app: {{ servers: [\"{}\"], timeouts: {{ read: 300ms }} }}
  gone: {{ servers: [\"{gone}\"] }}
routes:
  - {{ name: public, match: {{ path_prefix: /public }}, auth: none, upstream: app }}
  - {{ name: gone, match: {{ path_prefix: /gone }}, upstream: gone }}
  - {{ name: session, match: {{ path_prefix: /session }}, upstream: app, token: {{ return_session_token: true }} }}
  - {{ name: shadow, match: {{ path_prefix: /shadow }}, upstream: app, enforce: false, require: {{ scopes: [X] }} }}
  - name: jwt
    match: {{ path_prefix: /jwt }}
    upstream: app
    validate: {{ jwt: {{ jwks_file: jwks.json, algorithms: [ES256], audiences: [app] }} }}
    require: {{ claims: {{ role: {{ present: true }} }} }}
    headers: {{ set: {{ X-User: \"{{claims.sub}}\", X-Odd: \"{{claims.odd}}\" }} }}
    rate_limit: {{ requests: 1000 }}
  - name: api
    match: {{ path_prefix: /api }}
    upstream: app
    credentials: [api_key, {{ api_key: {{ header: X-Legacy-Key }} }}, {{ api_key: {{ query: key }} }}, basic, session_token]
    headers: {{ set: {{ X-Shared-Secret: \"${{SHARED}}\" }} }}
shutdown: {{ delay: 0s, drain_timeout: 10m }}
logging: {{ level: trace, access: true }}
tracing: {{ otlp_endpoint: \"{}\", sample: 1 }}
",
            service.url(),
            upstream.address(),
            collector.url()
        );
        std::fs::write(directory.path().join("bearerd.yaml"), on_free_ports(&configuration)).unwrap();
        let process = Process::start_with(&["run", "-c", "bearerd.yaml"], &[("SHARED", &secret("shared"))], directory);
        let callers = process.addresses().await.callers[0];
        Self { service, upstream, process, callers, answers: Vec::new(), signer, collector }
    }

    /// Sends these bytes; everything that comes back until the connection ends.
    async fn send(&mut self, request: impl AsRef<[u8]>) -> String {
        let mut client = Client::connect(self.callers).await;
        // It may answer and close before it has read everything.
        let _ = client.try_send(&request).await;
        let answer = String::from_utf8_lossy(&client.rest().await).into_owned();
        self.answers.push((String::from_utf8_lossy(request.as_ref()).into_owned(), answer.clone()));
        answer
    }

    /// A whole request on a connection of its own, and the status of its answer.
    async fn ask(&mut self, target: &str, headers: &str) -> u16 {
        let answer = self.send(format!("GET {target} HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n{headers}\r\n")).await;
        answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("no answer: {answer}"))
    }
}

/// As it is written in a query.
fn escaped(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// Every place for a credential, with a secret of its own: target, header lines, the secret.
fn credentials(name: &str) -> [(String, String, String); 6] {
    let [header, legacy, query, basic, bare, session] =
        ["header", "legacy", "query", "basic", "bare", "session"].map(|place| secret(&format!("{name}-{place}")));
    let api = || "/api".to_owned();
    [
        (api(), format!("X-API-Key: {header}\r\n"), header),
        (api(), format!("X-Legacy-Key: {legacy}\r\n"), legacy),
        (format!("/api?a=b&key={}&c=d", escaped(&query)), String::new(), query),
        (api(), format!("Authorization: Basic {}\r\n", STANDARD.encode(format!("user:{basic}"))), basic),
        (api(), format!("Authorization: Basic {}\r\n", STANDARD.encode(&bare)), bare),
        (api(), format!("Authorization: Bearer {session}\r\n"), session),
    ]
}

/// An error of the service that repeats what it was sent, in more ways than one.
fn echo(status: u16, key: &str, received: &str) -> Behaviour {
    let message = format!("{key} {} user:{key} {} {} {}", escaped(key), STANDARD.encode(key), received.trim(), &key[..key.len() - 3]);
    let body = json!({ "code": key, "message": message, "details": [key] }).to_string();
    Behaviour::Status(
        status,
        body,
        vec![("X-Echo".into(), key.to_owned()), ("Location".into(), format!("/?{key}")), ("Retry-After".into(), "0".into())],
    )
}

async fn served(scene: &mut Scene) {
    for (target, headers, _) in credentials("good") {
        for what in ["a miss", "a hit"] {
            assert_eq!(scene.ask(&target, &headers).await, 200, "{what} with {target} {headers}");
        }
    }
    scene.service.next(Operation::Create, Behaviour::Token(secret("minted")));
    assert_eq!(scene.ask("/session", &format!("X-API-Key: {}\r\n", secret("session"))).await, 200);
    // A public route: nobody's credential is looked at.
    assert_eq!(scene.ask(&format!("/public?key={}", secret("public")), &format!("X-API-Key: {}\r\n", secret("public"))).await, 200);
}

async fn refused_by_the_service(scene: &mut Scene) {
    for (status, expected) in [(401, 401), (403, 403), (400, 502), (429, 503), (500, 503), (302, 503), (200, 503)] {
        let name = format!("refused{status}");
        for (target, headers, key) in credentials(&name) {
            scene.service.next(Operation::Create, echo(status, &key, &headers));
            assert_eq!(scene.ask(&target, &headers).await, expected, "{status}");
            // A definite no is remembered, and told again.
            scene.service.next(Operation::Create, echo(status, &key, &headers));
            assert_eq!(scene.ask(&target, &headers).await, expected, "{status}");
            scene.service.forget_next(Operation::Create);
        }
    }
    for (place, behaviour) in [
        Behaviour::Garbage,
        Behaviour::Reset,
        Behaviour::Hang,
        Behaviour::Token(format!("{CANARY}.{CANARY}.{CANARY}")),
        Behaviour::Token(format!("eyJhbGciOiJub25lIn0.{}.{CANARY}", STANDARD.encode(secret("claims")))),
        Behaviour::Status(201, secret("body"), Vec::new()),
        Behaviour::Status(201, json!({ "access_token": [secret("body")] }).to_string(), Vec::new()),
    ]
    .into_iter()
    .enumerate()
    {
        scene.service.next(Operation::Create, behaviour);
        assert_eq!(scene.ask("/api", &format!("X-API-Key: {}\r\n", secret(&format!("odd{place}")))).await, 503, "{place}");
    }
    for name in ["details-denied", "details-down"] {
        let status = if name == "details-down" { 500 } else { 401 };
        scene.service.next(Operation::Details, echo(status, &secret(name), ""));
        assert_eq!(scene.ask("/api", &format!("X-API-Key: {}\r\n", secret(name))).await, 200);
    }
}

async fn failed_by_the_upstream(scene: &mut Scene) {
    let key = format!("X-API-Key: {}\r\n", secret("good-header"));
    let replies = [
        (Reply::Raw(format!("{CANARY}\r\n\r\n").into_bytes()), 502),
        (Reply::Raw(format!("HTTP/1.1 {CANARY} OK\r\n\r\n").into_bytes()), 502),
        (Reply::Raw(format!("HTTP/1.1 200 OK\r\nX {CANARY}\r\n\r\n").into_bytes()), 502),
        (Reply::Raw(format!("HTTP/1.1 200 OK\r\nContent-Length: {CANARY}\r\n\r\n").into_bytes()), 502),
        (Reply::Hang, 504),
        (Reply::Early(503), 503),
    ];
    for (place, (reply, status)) in replies.into_iter().enumerate() {
        scene.upstream.reply_next(reply);
        assert_eq!(scene.ask("/api", &key).await, status, "reply {place}");
    }
    scene.upstream.reply_next(Reply::ResetMidway);
    scene.send(format!("GET /api HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{key}\r\n")).await;
    assert_eq!(scene.ask("/gone", &format!("X-API-Key: {}\r\n", secret("gone"))).await, 502);
}

/// Claims are no secrets, but nobody's business either.
async fn bringing_a_jwt(scene: &mut Scene) {
    let claims = |more: serde_json::Value| {
        let mut claims =
            json!({ "sub": secret("sub"), "email": secret("email"), "odd": format!(" {}", secret("odd")), "jti": secret("jti") });
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        claims
    };
    let stranger = Signer::new(&secret("kid"));
    for (token, status) in [
        (scene.signer.token(&claims(json!({ "role": "x" }))), 200),
        (scene.signer.token(&claims(json!({}))), 403),
        (scene.signer.token(&claims(json!({ "aud": secret("aud") }))), 401),
        (scene.signer.token(&claims(json!({ "exp": secret("exp") }))), 401),
        (stranger.token(&claims(json!({}))), 401),
        (scene.signer.sign(&json!({ "alg": "ES256", "crit": [secret("crit")] }).to_string(), "{}"), 401),
        (scene.signer.sign(r#"{"alg":"ES256","kid":"k1"}"#, &secret("payload")), 401),
    ] {
        assert_eq!(scene.ask("/jwt", &format!("Authorization: Bearer {token}\r\n")).await, status);
        assert_eq!(scene.ask("/shadow", &format!("Authorization: Bearer {token}\r\n")).await, 200);
    }
    assert_eq!(scene.ask("/shadow", &format!("X-API-Key: {}\r\n", secret("shadow"))).await, 200);
}

async fn malformed(scene: &mut Scene) {
    let key = secret("malformed");
    let large = format!("{key}{}", "x".repeat(10_000));
    let header = |line: String| format!("GET /api HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{line}\r\n\r\n");
    let requests = [
        header(format!("X-API-Key {key}")),
        header(format!("X-API-Key : {key}")),
        header(format!("X-API-Key: {key}\0{key}")),
        header(format!("X-API-Key: {key}\r{key}")),
        header(format!("X-API-Key: {key}\r\n {key}")),
        header(format!("X-API-Key: {key}\r\nX-API-Key: {key}")),
        header(format!("X-API-Key: {key}\r\nAuthorization: Basic {}", STANDARD.encode(&key))),
        header(format!("X-API-Key: {key} \u{e9}")),
        header(format!("X-API-Key: {large}")),
        header(format!("Cookie: {large}")),
        header(format!("Authorization: Basic !{key}!")),
        header(format!("Authorization: Basic {}", STANDARD.encode([key.as_bytes(), b"\xff\xfe"].concat()))),
        header(format!("Authorization: Digest {key}")),
        header(format!("Authorization: {key}")),
        header(format!("Authorization: Bearer eyJhbGciOiJSUzI1NiJ9.{}.{CANARY}", STANDARD.encode(&key))),
        header(format!("Authorization: Bearer {key} {key}")),
        header(format!("Content-Length: {key}")),
        header(format!("Transfer-Encoding: {key}")),
        header(format!("Host: {key}")),
        header(format!("Expect: {key}")),
        header(format!("X-Request-Id: {key}")),
        format!("GET /api?key={key}&key={key} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"),
        format!("GET /api?key={key}%zz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"),
        format!("GET /api?key={key} x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"),
        format!("GET /api?key={key} HTTP/9.9\r\nHost: a\r\n\r\n"),
        format!("GET /api?key={key}\r\n\r\n"),
        format!("GET /api/..%2f?key={key} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"),
        format!("GET /nowhere?key={key} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"),
        format!("GET http://user:{key}@a/api HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"),
        format!("CONNECT {key}:443 HTTP/1.1\r\nHost: a\r\nX-API-Key: {key}\r\n\r\n"),
        format!("TRACE /api HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-API-Key: {key}\r\n\r\n"),
        format!("POST /api HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{key}", key.len()),
        format!(
            "POST /api HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-API-Key: {}\r\nTransfer-Encoding: chunked\r\n\r\n{key}\r\n",
            secret("good-header")
        ),
        format!("\r\n{key}\r\n\r\n"),
        // Never completed: 408.
        format!("GET /api HTTP/1.1\r\nHost: a\r\nX-API-Key: {key}\r\n"),
    ];
    for request in requests {
        scene.send(request).await;
    }
}

async fn asked_by_the_operator(scene: &mut Scene) {
    let addresses = scene.process.addresses().await;
    let token = secret("admin");
    for body in [json!({ "token": format!("wrong-{token}") }), json!({ "token": [token] }), json!({ "token": token })] {
        let answer = ask(addresses.admin, "POST /api/login", GUARD, &body).await;
        scene.answers.push(("a login".to_owned(), format!("{:?}{}", answer.head, answer.body.text())));
    }
    let mut listener = Client::connect(addresses.admin).await;
    listener.send(format!("GET /api/events HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\r\n")).await;
    assert_eq!(listener.head().await.word(1), "200");
    scene.answers.push(("an event".to_owned(), String::from_utf8_lossy(&listener.bytes(2000).await).into_owned()));
    for (address, path, authorization, status) in [
        (addresses.admin, "/metrics", format!("Bearer {token}"), 200),
        (addresses.admin, "/livez", format!("Bearer wrong-{token}"), 401),
        (addresses.admin, "/livez", format!("Basic {token}"), 401),
        (addresses.admin, "/nothing", format!("Bearer {token}"), 404),
        (addresses.metrics, "/metrics", String::new(), 200),
        (addresses.metrics, "/nothing", format!("Bearer {token}"), 404),
        (addresses.admin, "/api/tokens?limit=10000", format!("Bearer {token}"), 200),
        (addresses.admin, "/api/routes", format!("Bearer {token}"), 200),
        (addresses.admin, "/api/config", format!("Bearer {token}"), 200),
        (addresses.admin, "/api/overview", format!("Bearer {token}"), 200),
        (addresses.admin, "/api/openapi.json", format!("Bearer {token}"), 200),
        (addresses.admin, "/api/login", format!("Bearer {token}"), 200),
        (addresses.admin, "/", format!("Bearer {token}"), 200),
        (addresses.admin, "/page.js", format!("Bearer {token}"), 200),
    ] {
        let answer = Client::connect(address).await.get(path, &[("Authorization", &authorization)]).await;
        assert_eq!(answer.status, status, "{path}");
        scene.answers.push((path.to_owned(), format!("{:?}{}", answer.head, answer.body.text())));
    }
}

#[tokio::test]
async fn no_secret_leaves_bearerd() {
    let mut scene = Scene::set().await;
    served(&mut scene).await;
    refused_by_the_service(&mut scene).await;
    failed_by_the_upstream(&mut scene).await;
    bringing_a_jwt(&mut scene).await;
    malformed(&mut scene).await;
    asked_by_the_operator(&mut scene).await;

    // One hangs while it ends.
    scene.upstream.reply_next(Reply::Hang);
    let before = scene.upstream.started().len();
    let mut hangs = Client::connect(scene.callers).await;
    hangs.send(format!("GET /api HTTP/1.1\r\nHost: a\r\nX-API-Key: {}\r\n\r\n", secret("good-header"))).await;
    scene.upstream.wait_for_started(before + 1).await;
    until(scene.process.addresses().await.metrics, "bearerd_requests_in_flight", |requests| requests == 1.0).await;
    let Scene { upstream, process, answers, collector, .. } = scene;
    collector.wait_for_spans(50).await;
    process.signal(Signal::TERM);
    process.output().stderr.wait_for(1, |line| line.contains("\"draining\"")).await;
    process.signal(Signal::TERM);
    let ended = process.ended().await;
    assert_eq!(ended.code(), 0);

    let log = ended.stderr.join("\n");
    assert!(log.contains("\"request\"") && log.contains("\"DEBUG\""), "the log is there, and of the level that was asked for");
    assert_clean("the log", &log);
    assert_clean("standard output", &ended.stdout.join("\n"));
    let spans = collector.spans();
    spans.iter().for_each(|span| assert_clean("a span", &format!("{span:?}")));
    for (request, answer) in &answers {
        assert_clean(&format!("the answer to {request}"), answer);
    }
    // Tokens are minted with a secret of their own: none of their parts shows.
    let tokens: Vec<String> =
        upstream.requests().iter().filter_map(|request| Some(request.head.header("authorization")?.to_owned())).collect();
    assert!(tokens.len() > 12);
    for part in tokens
        .iter()
        .filter_map(|token| token.strip_prefix("Bearer "))
        .flat_map(|token| token.split('.').skip(1))
        .filter(|part| part.len() > 8)
    {
        assert!(!log.contains(part) && !answers.iter().any(|(_, answer)| answer.contains(part)), "a part of a token: {part}");
    }
    // Towards the upstream go the tokens that were minted and the header that is configured, and no credential.
    let passed_on = |head: &Head| ["/jwt", "/shadow"].iter().any(|path| head.word(1).starts_with(path));
    for mut head in upstream.started().into_iter().filter(|head| !passed_on(head)) {
        let minted = format!("Bearer {}", secret("minted"));
        // `Expect` is a header like any other.
        head.headers.retain(|(name, value)| name != "X-Shared-Secret" && name != "Expect" && *value != minted);
        assert_clean("a request to the upstream", &format!("{head:?}"));
    }
}

#[tokio::test]
async fn a_secret_in_the_wrong_place_of_a_configuration_is_not_shown() {
    let base = "token_services: { default: { kind: iap, url: 'https://tokens.example.com' } }
upstreams: { app: { servers: ['127.0.0.1:3000'] } }
routes: [{ upstream: app }]
";
    let wrong = [
        base.replace("'https://tokens.example.com'", "\"${SECRET}\""),
        base.replace("'https://tokens.example.com'", "\"https://u:${SECRET}@tokens.example.com\""),
        base.replace("kind: iap", "kind: \"${SECRET}\""),
        base.replace("'127.0.0.1:3000'", "\"${SECRET}\""),
        base.replace("upstream: app", "upstream: \"${SECRET}\""),
        base.replace("upstream: app", "upstream: app, auth: \"${SECRET}\""),
        base.replace("upstream: app", "upstream: app, credentials: [\"${SECRET}\"]"),
        base.replace("upstream: app", "upstream: app, credentials: [{ api_key: { header: \"${SECRET}\" } }]"),
        base.replace("upstream: app", "upstream: app, match: { path: \"${SECRET}\" }"),
        base.replace("upstream: app", "upstream: app, match: { methods: [\"${SECRET} x\"] }"),
        base.replace("upstream: app", "upstream: app, token: { service: \"${SECRET}\" }"),
        base.replace("upstream: app", "upstream: app, headers: { set: { X-A: \"${SECRET}\\n\" } }"),
        base.replace("upstream: app", "upstream: app, session_lifetime: \"${SECRET}\""),
        format!("{base}cache: {{ max_tokens: \"${{SECRET}}\" }}\n"),
        format!("{base}workers: \"${{SECRET}}\"\n"),
        format!("{base}logging: {{ level: \"${{SECRET}}\", access: \"${{SECRET}}\" }}\n"),
        format!("{base}shutdown: {{ delay: \"${{SECRET}}\" }}\n"),
        format!("{base}admin: {{ address: \"${{SECRET}}\" }}\n"),
        format!("{base}listeners: [{{ trusted_peers: [\"${{SECRET}}\"], limits: {{ header_bytes: \"${{SECRET}}\" }} }}]\n"),
    ];
    for configuration in wrong {
        for arguments in
            [&["check", "-c", "bearerd.yaml"][..], &["check", "--format", "json", "-c", "bearerd.yaml"], &["run", "-c", "bearerd.yaml"]]
        {
            let directory = tempfile::tempdir().unwrap();
            std::fs::write(directory.path().join("bearerd.yaml"), on_free_ports(&configuration)).unwrap();
            let ended = Process::start_with(arguments, &[("SECRET", &secret("env"))], directory).ended().await;
            assert_eq!(ended.code(), 78, "{configuration}");
            assert_clean(&format!("{arguments:?} of {configuration}"), &format!("{:?}{:?}", ended.stdout, ended.stderr));
        }
    }
}
