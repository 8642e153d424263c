//! Another configuration in the same process: nothing fails, nothing is lost, and a broken file changes nothing.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bearerd::app::Addresses;
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::tempdir;

use crate::support::admin::ask;
use crate::support::bearerd::{series, until};
use crate::support::client::{Client, Response, get};
use crate::support::jwt::{Signer, in_seconds, key_set};
use crate::support::process::{Process, on_free_ports};
use crate::support::stage::{configuration, surroundings};
use crate::support::tls::Authority;
use crate::support::token_service::{Behaviour, Operation, ScriptedTokenService};
use crate::support::upstream::RecordingUpstream;

struct Stage {
    process: Process,
    addresses: Addresses,
    service: ScriptedTokenService,
    upstream: RecordingUpstream,
}

const PLAIN: &str = "  - { name: app, upstream: app }";
const NO_DELAY: &str = "shutdown: { delay: 0s, drain_timeout: 1s }";

impl Stage {
    async fn start(sections: &str, routes: &str) -> Self {
        let (service, upstream) = surroundings().await;
        let process = Process::run(&configuration(&service, &upstream, &format!("{NO_DELAY}\n{sections}"), routes));
        let addresses = process.addresses().await;
        Self { process, addresses, service, upstream }
    }

    fn text(&self, sections: &str, routes: &str) -> String {
        on_free_ports(&configuration(&self.service, &self.upstream, &format!("{NO_DELAY}\n{sections}"), routes))
    }

    fn write(&self, text: &str) {
        replace(self.process.directory(), text);
    }

    async fn ask(&self) -> (u16, Value) {
        let response = admin(&self.addresses, "POST /api/reload", "X-Bearerd-Admin: 1\r\n").await;
        (response.status, response.body.json())
    }

    async fn reload(&self, sections: &str, routes: &str) -> Value {
        self.load(&self.text(sections, routes)).await
    }

    /// Writes it and has it loaded, which must go well; what needs a new start.
    async fn load(&self, text: &str) -> Value {
        self.write(text);
        let (status, outcome) = self.ask().await;
        assert_eq!((status, &outcome["outcome"]), (200, &json!("reloaded")), "{outcome}");
        outcome["needs_restart"].clone()
    }

    /// With this in place of that in the token service's section.
    async fn reload_service(&self, was: &str, is: &str) {
        self.load(&self.text("", PLAIN).replace(was, is)).await;
    }

    async fn get(&self, key: &str) -> Response {
        get(self.addresses.callers[0], "/", &[("x-api-key", key)]).await
    }
}

async fn admin(addresses: &Addresses, line: &str, headers: &str) -> Response {
    ask(addresses.admin, line, headers, &Value::Null).await
}

/// As careful people write files: nobody ever reads half of it.
fn replace(directory: &Path, text: &str) {
    fs::write(directory.join("next"), text).unwrap();
    fs::rename(directory.join("next"), directory.join("bearerd.yaml")).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_reloads_under_load_fail_no_request_and_lose_no_token() {
    let stage = Arc::new(Stage::start("", PLAIN).await);
    assert_eq!(stage.get("alice").await.status, 200);
    let (over, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let callers: Vec<_> = (0..4)
        .map(|place| {
            let (stage, over, served) = (Arc::clone(&stage), Arc::clone(&over), Arc::clone(&served));
            tokio::spawn(async move {
                let mut kept = Client::connect(stage.addresses.callers[0]).await;
                while !over.load(Ordering::Relaxed) {
                    // Two callers keep their connection, two come anew each time.
                    let answer = if place < 2 { kept.get("/", &[("x-api-key", "alice")]).await } else { stage.get("alice").await };
                    assert_eq!(answer.status, 200, "{}", answer.body.text());
                    served.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for round in 0..100 {
        // Routes, policy, limits, the upstream and the service itself, in turn.
        let (sections, service, upstream, set) = match round % 4 {
            0 => ("", "", "", "a"),
            1 => ("", ", timeout: 4s, mint: { concurrency: 8 }", "", "b"),
            2 => ("logging: { access: false, level: debug }", "", ", timeouts: { read: 50s }", "c"),
            _ => ("cache: { max_tokens: 100000 }", ", breaker: { failures: 7 }", "", "a"),
        };
        let text = format!(
            "{NO_DELAY}\n{sections}\ntoken_services: {{ default: {{ kind: iap, url: \"{}\"{service} }} }}\n\
             upstreams: {{ app: {{ servers: [\"localhost:{}\"]{upstream} }} }}\n\
             routes: [{{ name: app, upstream: app, headers: {{ set: {{ X-Round: {set} }} }} }}]\n",
            stage.service.url(),
            stage.upstream.address().port()
        );
        stage.write(&on_free_ports(&text));
        let (status, outcome) = stage.ask().await;
        assert_eq!((status, outcome), (200, json!({ "outcome": "reloaded", "needs_restart": [] })));
    }
    over.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await.unwrap();
    }
    assert!(served.load(Ordering::Relaxed) >= 100, "{served:?}");
    assert_eq!(stage.service.calls(Operation::Create), 1, "the token was minted once");
    assert_eq!(stage.upstream.requests().pop().unwrap().head.header("x-round"), Some("a"));
    let series = series(stage.addresses.metrics).await;
    assert!(series[r#"bearerd_config_reloads_total{outcome="success"}"#] >= 100.0);
    assert_eq!(series[r#"bearerd_config_reloads_total{outcome="failure"}"#], 0.0);
}

/// Tokens of one token service are none of another, whatever it is called.
#[tokio::test]
async fn a_token_service_at_another_address_mints_anew() {
    let stage = Stage::start("", PLAIN).await;
    let other = ScriptedTokenService::start().await;
    assert_eq!(stage.get("k").await.status, 200);
    stage.reload_service(&stage.service.url(), &other.url()).await;
    assert_eq!(stage.get("k").await.status, 200);
    assert_eq!((stage.service.calls(Operation::Create), other.calls(Operation::Create)), (1, 1));
}

/// One that stays takes on its new bounds, and goes on with what it was told.
#[tokio::test]
async fn a_token_service_that_stays_is_bounded_anew_and_remembers() {
    let stage = Stage::start("", PLAIN).await;
    stage.reload_service("kind: iap", "kind: iap, breaker: { failures: 1, probe_interval: 1h }").await;
    stage.service.always(Operation::Create, Behaviour::status(503));
    assert_eq!(stage.get("a").await.problem(), "token_service_unavailable");
    let calls = stage.service.calls(Operation::Create);
    assert_eq!(stage.get("b").await.problem(), "token_service_unavailable");
    assert_eq!(stage.service.calls(Operation::Create), calls, "the breaker is open after one failure");
    stage.reload_service("kind: iap", "kind: iap, skew: 1s, breaker: { failures: 1, probe_interval: 1h }").await;
    stage.service.always(Operation::Create, Behaviour::Works);
    assert_eq!(stage.get("c").await.problem(), "token_service_unavailable");
    assert_eq!(stage.service.calls(Operation::Create), calls, "and stays open");
}

#[tokio::test]
async fn each_broken_file_keeps_the_configuration_before_and_says_what_is_wrong() {
    let stage = Stage::start("", "  - { name: app, upstream: app, headers: { set: { X-Kept: \"yes\" } } }").await;
    let broken = [
        ("routes: [", "bearerd.yaml"),
        ("", "routes"),
        ("routes: {}", "routes"),
        (&stage.text("", "  - { upstrem: app }"), "did you mean `upstream`"),
        (&stage.text("", "  - { upstream: other }"), "other"),
        (&stage.text("", "  - { upstream: app, token: { service: none } }"), "none"),
        (&stage.text("", "  - { upstream: app, credentials: [{ mounted: { file: /nowhere/key } }] }"), "/nowhere/key"),
        (&stage.text("", "  - { upstream: app, require: { claims: { sub: { glob: \"[\" } }, scopes: 3 } }"), "scopes"),
        (&stage.text("admin: { address: 0.0.0.0:0 }", PLAIN), "admin"),
        (&stage.text("listeners: [{ address: 127.0.0.1:0, tls: { certificates: [{ certificate: a, private_key: b }] } }]", PLAIN), "tls"),
    ];
    for (number, (text, told)) in broken.iter().enumerate() {
        stage.write(text);
        let (status, outcome) = stage.ask().await;
        assert_eq!((status, &outcome["outcome"]), (422, &json!("refused")), "{text}: {outcome}");
        assert!(outcome["error"].as_str().unwrap().contains(told), "{text}: {outcome}");
        let shown = admin(&stage.addresses, "GET /api/config", "").await.body.json();
        assert_eq!(shown["last_reload"]["error"], outcome["error"]);
        assert_eq!(stage.get("alice").await.status, 200, "{text}");
        assert_eq!(stage.upstream.requests().pop().unwrap().head.header("x-kept"), Some("yes"), "{text}");
        let series = series(stage.addresses.metrics).await;
        assert_eq!(series["bearerd_config_last_reload_successful"], 0.0, "{text}");
        let failures = series[r#"bearerd_config_reloads_total{outcome="failure"}"#];
        assert!(failures > number as f64, "{text}: {failures}");
    }
    fs::remove_file(stage.process.directory().join("bearerd.yaml")).unwrap();
    assert_eq!(stage.ask().await.0, 422, "the file is away");
    assert_eq!(stage.get("alice").await.status, 200);
    assert_eq!(stage.reload("", PLAIN).await, json!([]), "and it recovers");
    assert_eq!(series(stage.addresses.metrics).await["bearerd_config_last_reload_successful"], 1.0);
    assert_eq!(stage.service.calls(Operation::Create), 1);
}

#[tokio::test]
async fn what_only_a_new_start_changes_is_named_and_the_rest_is_taken_over() {
    let stage = Stage::start("", PLAIN).await;
    let text = stage.text("workers: 1\ncache: { max_tokens: 17 }", "  - { name: other, auth: none, respond: { status: 204 } }");
    let text = text.replace("listeners: [{ address: 127.0.0.1:0", "listeners: [{ address: 127.0.0.1:1");
    stage.write(&text);
    let (status, outcome) = stage.ask().await;
    assert_eq!(status, 200);
    let keys = outcome["needs_restart"].as_array().unwrap();
    for key in ["workers", "cache", "listeners.*.address"] {
        assert!(keys.contains(&json!(key)), "{key}: {outcome}");
    }
    assert_eq!(stage.get("alice").await.status, 204, "the route is another");
}

#[tokio::test]
async fn a_signal_and_a_swapped_link_reload_too() {
    let stage = Stage::start("", PLAIN).await;
    let directory = stage.process.directory();
    // As Kubernetes mounts a ConfigMap: the file is a link into a folder that is itself a link, and only the latter is swapped.
    for (version, header) in [("v1", "one"), ("v2", "two")] {
        fs::create_dir(directory.join(version)).unwrap();
        let route = format!("  - {{ name: app, upstream: app, headers: {{ set: {{ X-Version: {header} }} }} }}");
        fs::write(directory.join(version).join("bearerd.yaml"), stage.text("", &route)).unwrap();
    }
    symlink("v1", directory.join("data")).unwrap();
    symlink("data/bearerd.yaml", directory.join("link")).unwrap();
    fs::rename(directory.join("link"), directory.join("bearerd.yaml")).unwrap();
    let success = r#"bearerd_config_reloads_total{outcome="success"}"#;
    until(stage.addresses.metrics, success, |value| value == 1.0).await;
    assert_eq!(stage.get("alice").await.status, 200);
    assert_eq!(stage.upstream.requests().pop().unwrap().head.header("x-version"), Some("one"));

    symlink("v2", directory.join("swapped")).unwrap();
    fs::rename(directory.join("swapped"), directory.join("data")).unwrap();
    until(stage.addresses.metrics, success, |value| value == 2.0).await;
    assert_eq!(stage.get("alice").await.status, 200);
    assert_eq!(stage.upstream.requests().pop().unwrap().head.header("x-version"), Some("two"));

    stage.process.signal(Signal::HUP);
    until(stage.addresses.metrics, success, |value| value == 3.0).await;
    assert_eq!(stage.get("alice").await.status, 200);
    assert_eq!(stage.service.calls(Operation::Create), 1);
}

#[tokio::test]
async fn a_mounted_key_keeps_its_token_until_no_route_has_it_any_more() {
    let folder = tempdir().unwrap();
    let file = folder.path().join("key");
    fs::write(&file, "own-key").unwrap();
    let own = format!(
        "  - {{ name: own, match: {{ path_prefix: /own }}, upstream: app, credentials: [{{ mounted: {{ file: {} }} }}] }}",
        file.display()
    );
    let stage = Stage::start("", &format!("{own}\n{PLAIN}")).await;
    stage.service.wait_for_calls(Operation::Create, 1).await;
    stage.reload("", &format!("{own}\n  - {{ name: app, auth: none, upstream: app }}")).await;
    assert_eq!(get(stage.addresses.callers[0], "/own", &[]).await.status, 200);
    assert_eq!(stage.service.calls(Operation::Create), 1, "the key's token is still there");
    until(stage.addresses.metrics, "bearerd_cache_entries", |value| value == 1.0).await;
    stage.reload("", PLAIN).await;
    until(stage.addresses.metrics, "bearerd_cache_entries", |value| value == 0.0).await;
    assert_eq!(get(stage.addresses.callers[0], "/own", &[]).await.status, 401, "and its route is gone");
}

#[tokio::test]
async fn a_listener_changes_its_limits_and_its_certificate() {
    let stage = Stage::start("", PLAIN).await;
    stage.reload("listeners: [{ address: 127.0.0.1:0, limits: { headers: 5 } }]", PLAIN).await;
    let many: Vec<_> = ["a", "b", "c", "d", "e", "f"].iter().map(|name| (*name, "1")).collect();
    assert_eq!(get(stage.addresses.callers[0], "/", &many).await.status, 431);
    let authority = Authority::new();
    let tls = |name: &str| {
        let pair = authority.yaml_pair(name, &authority.issue(name));
        format!("listeners: [{{ address: 127.0.0.1:0, tls: {{ certificates: [{pair}] }} }}]")
    };
    for name in ["one.test", "two.test"] {
        assert_eq!(stage.reload(&tls(name), PLAIN).await, json!([]));
        let stream = authority.connect(stage.addresses.callers[0], name, None, &[b"http/1.1"]).await.unwrap();
        assert_eq!(Client::over(stream).get("/", &[("x-api-key", "k")]).await.status, 200, "{name}");
    }
}

#[tokio::test]
async fn no_page_of_another_site_can_reload() {
    let stage = Stage::start("", PLAIN).await;
    for headers in ["", "X-Bearerd-Admin: 1\r\nOrigin: https://evil.example\r\n"] {
        assert_eq!(admin(&stage.addresses, "POST /api/reload", headers).await.status, 403, "{headers}");
    }
}

#[tokio::test]
async fn the_admin_token_changes_with_a_reload() {
    let folder = tempdir().unwrap();
    let file = folder.path().join("token");
    fs::write(&file, "first").unwrap();
    let sections = format!("admin: {{ address: 127.0.0.1:0, token_file: {} }}", file.display());
    let stage = Stage::start(&sections, PLAIN).await;
    let with = |token: &str| format!("X-Bearerd-Admin: 1\r\nAuthorization: Bearer {token}\r\n");
    assert_eq!(admin(&stage.addresses, "GET /api/config", &with("first")).await.status, 200);
    fs::write(&file, "second").unwrap();
    assert_eq!(admin(&stage.addresses, "POST /api/reload", &with("second")).await.status, 401);
    assert_eq!(admin(&stage.addresses, "POST /api/reload", &with("first")).await.status, 200);
    assert_eq!(admin(&stage.addresses, "GET /api/config", &with("first")).await.status, 401, "the former");
    assert_eq!(admin(&stage.addresses, "GET /api/config", &with("second")).await.status, 200);
}

#[tokio::test]
async fn a_jwt_that_was_found_good_is_judged_anew_by_the_rules_and_keys_of_the_new_configuration() {
    let folder = tempdir().unwrap();
    let (ours, other) = (Signer::new("k"), Signer::new("k"));
    for (name, signer) in [("ours", &ours), ("other", &other)] {
        fs::write(folder.path().join(name), key_set(&[signer])).unwrap();
    }
    let route = |keys: &str, audience: &str| {
        format!(
            "  - {{ name: api, upstream: app, credentials: [jwt], validate: {{ details: \"off\", jwt: {{ jwks_file: {}, algorithms: [ES256], audiences: [{audience}] }} }} }}",
            folder.path().join(keys).display()
        )
    };
    let stage = Stage::start("", &route("ours", "app")).await;
    let token = format!("Bearer {}", ours.token(&json!({ "aud": "app", "exp": in_seconds(600) })));
    let ask = async || get(stage.addresses.callers[0], "/", &[("authorization", &token)]).await.status;
    assert_eq!(ask().await, 200);
    for (keys, audience, status) in [("ours", "elsewhere", 401), ("ours", "app", 200), ("other", "app", 401), ("ours", "app", 200)] {
        stage.reload("", &route(keys, audience)).await;
        assert_eq!(ask().await, status, "{keys} {audience}");
    }
}

#[tokio::test]
async fn operators_see_the_routes_that_serve_and_set_the_level_of_the_log() {
    let stage = Stage::start("", PLAIN).await;
    stage.reload("", "  - { name: open, match: { path_prefix: /open, methods: [GET] }, auth: none, respond: { status: 204 } }\n  - { upstream: app, enforce: false }").await;
    let shown = admin(&stage.addresses, "GET /api/routes", "").await.body.json();
    let route = |name: &str, path: &str, methods: Value, by: &str, protected: bool| json!({ "name": name, "hosts": [], "path": path, "methods": methods, "served_by": by, "protected": protected, "enforced": !protected });
    let expected =
        json!([route("open", "/open/**", json!(["GET"]), "status 204", false), route("route-2", "**", json!([]), "upstream app", true)]);
    assert_eq!(shown, expected);

    let set = async |body: &str, guard: &str| {
        let mut client = Client::connect(stage.addresses.admin).await;
        let request = format!("PUT /api/log-level HTTP/1.1\r\nHost: 127.0.0.1\r\n{guard}Content-Length: {}\r\n\r\n{body}", body.len());
        client.exchange(request).await.status
    };
    let guard = "X-Bearerd-Admin: 1\r\n";
    assert_eq!(set(r#"{"level": "error"}"#, "").await, 403);
    assert_eq!(set(r#"{"level": "loud"}"#, guard).await, 400);
    // What sets it says so as a warning, by the new level.
    let stderr = &stage.process.output().stderr;
    let told = |line: &String| line.contains("an operator set the level");
    for level in ["error", "info"] {
        assert_eq!(set(&format!(r#"{{"level": "{level}"}}"#), guard).await, 204);
    }
    stderr.wait_for(1, told).await;
    assert!(stderr.all().iter().find(|line| told(line)).unwrap().contains("Info"), "at `error` nothing was told");
    // A reload brings back what is configured, and says so at `info`.
    assert_eq!(set(r#"{"level": "error"}"#, guard).await, 204);
    stage.reload("", PLAIN).await;
    stderr.wait_for(2, |line| line.contains("the configuration was reloaded")).await;
}

#[tokio::test]
async fn an_admin_listener_beyond_loopback_stays_guarded_until_it_is_bound_anew() {
    let folder = tempdir().unwrap();
    let file = folder.path().join("token");
    fs::write(&file, "secret").unwrap();
    let stage = Stage::start(&format!("admin: {{ address: 0.0.0.0:0, token_file: {} }}", file.display()), PLAIN).await;
    stage.write(&stage.text("admin: { address: 127.0.0.1:0 }", PLAIN));
    let with_token = "X-Bearerd-Admin: 1\r\nAuthorization: Bearer secret\r\n";
    let answer = admin(&stage.addresses, "POST /api/reload", with_token).await;
    assert_eq!((answer.status, answer.body.json()["needs_restart"].clone()), (200, json!(["admin.address"])));
    assert_eq!(admin(&stage.addresses, "GET /api/config", "").await.status, 401);
    assert_eq!(admin(&stage.addresses, "GET /api/config", with_token).await.status, 200);
}
