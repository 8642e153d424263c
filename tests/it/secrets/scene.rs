//! Everything around one bearerd that logs and traces all it can, and every byte that came out of it.

use std::net::SocketAddr;
use std::path::Path;

use rustix::process::Signal;
use serde_json::json;
use tempfile::TempDir;

use super::canary::{assert_clean, find, secret};
use crate::support::admin::{GUARD, ask};
use crate::support::bearerd::until;
use crate::support::client::Client;
use crate::support::collector::Collector;
use crate::support::http::Head;
use crate::support::process::{Ended, Process, on_free_ports};
use crate::support::token_service::ScriptedTokenService;
use crate::support::upstream::{RecordingUpstream, Reply};

/// See the module.
pub struct Scene {
    pub service: ScriptedTokenService,
    pub upstream: RecordingUpstream,
    pub process: Process,
    pub callers: Vec<SocketAddr>,
    /// What was asked, and what came back.
    pub answers: Vec<(String, String)>,
    /// Tokens that somebody got who was meant to.
    pub tokens: Vec<String>,
    collector: Collector,
    configuration: String,
    logs: Vec<String>,
}

/// The route to ask with [`super::http1::credentials`].
pub const API: &str = "  - name: api
    match: { path_prefix: /api }
    upstream: app
    credentials: [api_key, { api_key: { header: X-Legacy-Key } }, { api_key: { query: key } }, basic, session_token]
    headers: { set: { X-Shared-Secret: \"${SHARED}\" } }
";

/// What is the same in every configuration.
fn completed(configuration: &str, collector: &Collector) -> String {
    let text = format!(
        "{configuration}
admin: {{ address: 127.0.0.1:0, token_file: admin-token }}
shutdown: {{ delay: 0s, drain_timeout: 10m }}
logging: {{ level: trace, access: true }}
tracing: {{ otlp_endpoint: \"{}\", sample: 1 }}
",
        collector.url()
    );
    on_free_ports(&text)
}

fn start(configuration: &str, directory: TempDir) -> Process {
    std::fs::write(directory.path().join("admin-token"), secret("admin")).unwrap();
    std::fs::write(directory.path().join("bearerd.yaml"), configuration).unwrap();
    Process::start_with(&["run", "-c", "bearerd.yaml"], &[("SHARED", &secret("shared"))], directory)
}

fn show(head: &Head, body: &str) -> String {
    format!("{head:?}{body}")
}

/// The parts of a token by which it could be told: not the first, which is the same in many.
fn telling_parts(token: &str) -> impl Iterator<Item = &str> {
    let is_jwt = token.contains('.');
    token.split('.').skip(usize::from(is_jwt)).filter(|part| part.len() > 8)
}

impl Scene {
    /// With these sections of a configuration, and what they name in `directory`.
    pub async fn set(service: ScriptedTokenService, upstream: RecordingUpstream, directory: TempDir, configuration: &str) -> Self {
        let collector = Collector::start().await;
        let configuration = completed(configuration, &collector);
        let process = start(&configuration, directory);
        let callers = process.addresses().await.callers;
        Self { service, upstream, process, callers, answers: Vec::new(), tokens: Vec::new(), collector, configuration, logs: Vec::new() }
    }

    /// Ends it in order, and starts it with the same configuration again.
    pub async fn start_again(self) -> Self {
        let Self { process, mut logs, .. } = self;
        process.signal(Signal::TERM);
        logs.push(log_of(process.ended().await));
        let process = start(&self.configuration, tempfile::tempdir().unwrap());
        let callers = process.addresses().await.callers;
        Self { process, callers, logs, ..self }
    }

    /// Sends these bytes to a listener; everything that comes back until the connection ends.
    pub async fn send_to(&mut self, listener: SocketAddr, request: impl AsRef<[u8]>) -> String {
        self.send_over(Client::connect(listener).await, request).await
    }

    /// The same over a connection that is there.
    pub async fn send_over(&mut self, mut client: Client, request: impl AsRef<[u8]>) -> String {
        // It may answer and close before it has read everything.
        let _ = client.try_send(&request).await;
        let answer = String::from_utf8_lossy(&client.rest().await).into_owned();
        self.answers.push((String::from_utf8_lossy(request.as_ref()).into_owned(), answer.clone()));
        answer
    }

    /// A whole request to the first listener, on a connection of its own, and the status of its answer.
    pub async fn ask(&mut self, target: &str, headers: &str) -> u16 {
        status(&self.send_to(self.callers[0], get(target, headers)).await)
    }

    /// Waits until so many lines of the log, of those since the last start, have all of these words.
    pub async fn told(&self, count: usize, words: &[&str]) {
        self.process.output().stderr.wait_for(count, |line| words.iter().all(|word| line.contains(word))).await;
    }

    /// Everything that an operator can ask for, and a few who are none.
    pub async fn ask_as_operator(&mut self) {
        let addresses = self.process.addresses().await;
        let token = secret("admin");
        for body in [json!({ "token": format!("wrong-{token}") }), json!({ "token": [token] }), json!({ "token": token })] {
            let answer = ask(addresses.admin, "POST /api/login", GUARD, &body).await;
            self.answers.push(("a login".to_owned(), show(&answer.head, &answer.body.text())));
        }
        let mut listener = Client::connect(addresses.admin).await;
        listener.send(format!("GET /api/events HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\r\n")).await;
        assert_eq!(listener.head().await.word(1), "200");
        self.answers.push(("an event".to_owned(), String::from_utf8_lossy(&listener.bytes(1500).await).into_owned()));
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
            self.answers.push((path.to_owned(), show(&answer.head, &answer.body.text())));
        }
    }

    /// One request that hangs while bearerd ends: `target` must be of a route that asks the upstream.
    pub async fn hang(&mut self, target: &str, headers: &str) -> Client {
        self.upstream.reply_next(Reply::Hang);
        let before = self.upstream.started().len();
        let mut hangs = Client::connect(self.callers[0]).await;
        hangs.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n{headers}\r\n")).await;
        self.upstream.wait_for_started(before + 1).await;
        until(self.process.addresses().await.metrics, "bearerd_requests_in_flight", |requests| requests == 1.0).await;
        hangs
    }

    /// Ends it, and searches everything that came out of it, and each of these files. Gives the heads of the requests that the upstream got.
    pub async fn search(self, files: &[&Path]) -> Vec<Head> {
        let Self { upstream, process, answers, mut tokens, collector, mut logs, .. } = self;
        collector.wait_for_spans(50).await;
        process.signal(Signal::TERM);
        process.output().stderr.wait_for(1, |line| line.contains("\"draining\"")).await;
        process.signal(Signal::TERM);
        logs.push(log_of(process.ended().await));
        let log = logs.join("\n");
        assert!(log.contains("\"request\"") && log.contains("\"DEBUG\""), "the log is there, and of the level that was asked for");
        assert_clean("the log", &log);
        collector.spans().iter().for_each(|span| assert_clean("a span", &format!("{span:?}")));
        for (request, answer) in &answers {
            assert_clean(&format!("the answer to {request}"), answer);
        }
        let files: Vec<_> = files.iter().map(|path| (path, String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned())).collect();
        files.iter().for_each(|(path, text)| assert_clean(&path.display().to_string(), text));
        // Tokens are minted with a secret of their own: none of their parts shows.
        let requests = upstream.requests();
        let bearers = requests.iter().filter_map(|request| request.head.header("authorization")?.strip_prefix("Bearer "));
        tokens.extend(bearers.map(str::to_owned));
        assert!(tokens.len() > 12);
        for part in tokens.iter().flat_map(|token| telling_parts(token)) {
            assert!(!log.contains(part) && !answers.iter().any(|(_, answer)| answer.contains(part)), "a part of a token: {part}");
            assert!(!files.iter().any(|(_, text)| text.contains(part)), "a part of a token in a file: {part}");
        }
        upstream.started()
    }
}

fn log_of(ended: Ended) -> String {
    assert_eq!(ended.code(), 0);
    assert_eq!(ended.stdout, [""; 0]);
    ended.stderr.join("\n")
}

/// A GET whose connection ends with its answer.
pub fn get(target: &str, headers: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n{headers}\r\n")
}

/// The status of an answer.
pub fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("no answer: {answer}"))
}

/// Towards the upstream go the tokens that were minted and the header that is configured, and no credential.
pub fn assert_no_credential(mut head: Head) {
    let minted = format!("Bearer {}", secret("minted"));
    // `Expect` is a header like any other.
    head.headers.retain(|(name, value)| !name.eq_ignore_ascii_case("X-Shared-Secret") && name != "Expect" && *value != minted);
    let text = format!("{head:?}");
    assert!(find(&text).is_none(), "a secret in a request to the upstream: {text}");
}
