//! Listeners of every other kind: HTTP/2 with and without TLS, HTTP/1.1 in TLS, decisions for another proxy.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::canary::{CANARY, secret};
use super::http1::{credentials, echo, malformed};
use super::scene::{self, API, Scene, assert_no_credential};
use crate::support::client::Client;
use crate::support::events::PATIENCE;
use crate::support::frames::{END_HEADERS, END_STREAM, beginning, pseudo_headers};
use crate::support::http2::{Connection, request, whole};
use crate::support::stage::surroundings;
use crate::support::tls::Authority;
use crate::support::token_service::Operation;

/// How a request comes in; the number is its listener's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    H2c = 0,
    Http1InTls = 1,
    Http2InTls = 2,
    Decision = 3,
    DecisionForNginx = 4,
}

const WAYS: [Way; 5] = [Way::H2c, Way::Http1InTls, Way::Http2InTls, Way::Decision, Way::DecisionForNginx];

struct Listeners {
    scene: Scene,
    authority: Authority,
}

impl Listeners {
    async fn set() -> Self {
        let (service, upstream) = surroundings().await;
        let authority = Authority::new();
        let tls = format!("tls: {{ certificates: [{}] }}", authority.yaml_pair("a", &authority.issue("app.test")));
        let limits = "limits: { header_bytes: 8KiB, header_timeout: 2s, idle_timeout: 2s }";
        let configuration = format!(
            "listeners:
  - {{ address: 127.0.0.1:0, h2c: true, {limits} }}
  - {{ address: 127.0.0.1:0, {tls}, {limits} }}
  - {{ address: 127.0.0.1:0, {tls}, {limits} }}
  - {{ address: 127.0.0.1:0, mode: decision, {limits} }}
  - {{ address: 127.0.0.1:0, mode: decision, decision_status: nginx, decision_request: x_original, {limits} }}
token_services: {{ default: {{ kind: iap, url: \"{}\", breaker: {{ failures: 1000 }} }} }}
upstreams: {{ app: {{ servers: [\"{}\"] }} }}
routes:
{API}",
            service.url(),
            upstream.address(),
        );
        Self { scene: Scene::set(service, upstream, tempfile::tempdir().unwrap(), &configuration).await, authority }
    }

    /// Asks with one header line, or none; gives the status.
    async fn ask(&mut self, way: Way, target: &str, header: &str) -> u16 {
        let address = self.scene.callers[way as usize];
        match way {
            Way::H2c => self.ask_over(Connection::connect(address).await, target, header).await,
            Way::Http2InTls => {
                let stream = self.authority.connect(address, "app.test", None, &[b"h2"]).await.unwrap();
                self.ask_over(Connection::over(stream).await, target, header).await
            }
            Way::Http1InTls | Way::Decision => self.send(way, scene::get(target, header)).await,
            Way::DecisionForNginx => {
                self.send(way, scene::get("/auth", &format!("X-Original-URI: {target}\r\nX-Original-Method: GET\r\n{header}"))).await
            }
        }
    }

    /// Sends these bytes as HTTP/1.1, in TLS where the listener speaks it; gives the status of the answer, 0 where there is none.
    async fn send(&mut self, way: Way, bytes: impl AsRef<[u8]>) -> u16 {
        let address = self.scene.callers[way as usize];
        let client = match way {
            Way::Http1InTls | Way::Http2InTls => Client::over(self.authority.connect(address, "app.test", None, &[]).await.unwrap()),
            _ => Client::connect(address).await,
        };
        let answer = self.scene.send_over(client, bytes).await;
        let status = answer.split(' ').nth(1).map_or(0, |status| status.parse().unwrap());
        if status == 200 && matches!(way, Way::Decision | Way::DecisionForNginx) {
            // A yes brings what goes to the upstream: a token, and what the route sets.
            let (given, rest): (Vec<&str>, Vec<&str>) =
                answer.lines().partition(|line| line.starts_with("Authorization: ") || line.starts_with("X-Shared-Secret: "));
            assert_eq!(given.len(), 2, "{answer}");
            self.scene.tokens.extend(given.iter().filter_map(|line| Some(line.strip_prefix("Authorization: Bearer ")?.to_owned())));
            self.scene.answers.last_mut().unwrap().1 = rest.join("\n");
        }
        status
    }

    async fn ask_over(&mut self, mut connection: Connection, target: &str, header: &str) -> u16 {
        let header = header.trim_end().split_once(": ");
        let (answer, _) = connection.begin(request("GET", target, header.as_slice()), true).await.unwrap();
        let answer = whole(answer).await.unwrap();
        let text = format!("{:?}{}", answer.head, String::from_utf8_lossy(&answer.body));
        self.scene.answers.push((format!("{target} over HTTP/2"), text));
        answer.head.status.as_u16()
    }

    async fn malformed_in_http2(&mut self) {
        let key = secret("malformed");
        let (small, large) = (key.as_bytes(), format!("{key}{}", "x".repeat(10_000)));
        let basic = format!("Basic {}", STANDARD.encode(&key));
        let lines: [&[(&str, &[u8])]; 13] = [
            &[("connection", small)],
            &[("transfer-encoding", small)],
            &[("te", small)],
            &[("content-length", small)],
            &[("host", small)],
            &[("X-API-Key", small)],
            &[("x-api-key", small), ("x-api-key", small)],
            &[("x-api-key", small), ("authorization", basic.as_bytes())],
            &[("x-api-key", b"cAnArY7\0cAnArY7")],
            &[("x-api-key", b"cAnArY7\r\ncAnArY7")],
            &[("x api key", small)],
            &[("authorization", small)],
            &[(":cAnArY7", small)],
        ];
        let query = format!("/api?key={key}&key={key}");
        let paths = [&*query, "/api?key=cAnArY7%zz", "/api?key=cAnArY7 x", "cAnArY7", "/api/..%2f?key=cAnArY7"];
        let lines = lines.iter().map(|lines| [&pseudo_headers("/api"), *lines].concat());
        let requests = lines.chain(paths.iter().map(|path| pseudo_headers(path).to_vec()));
        for fields in requests.map(|fields| beginning(END_HEADERS | END_STREAM, &fields)) {
            let answer = answer_to(&fields, self.scene.callers[Way::H2c as usize]).await;
            self.scene.answers.push((String::from_utf8_lossy(&fields).into_owned(), String::from_utf8_lossy(&answer).into_owned()));
        }
        for header in [format!("x-api-key: {large}"), format!("cookie: {large}")] {
            assert_eq!(self.ask(Way::H2c, "/api", &header).await, 431);
        }
    }
}

/// What comes on a connection after these bytes until their stream or the connection ends. Header sections may be compressed; bodies, which show what
/// was wrong, are not.
async fn answer_to(bytes: &[u8], listener: std::net::SocketAddr) -> Vec<u8> {
    let mut stream = TcpStream::connect(listener).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    let frames = async {
        loop {
            let mut head = [0; 9];
            if stream.read_exact(&mut head).await.is_err() {
                return;
            }
            let mut payload = vec![0; usize::try_from(u32::from_be_bytes([0, head[0], head[1], head[2]])).unwrap()];
            if stream.read_exact(&mut payload).await.is_err() {
                return;
            }
            answer.extend(payload);
            // DATA or HEADERS with END_STREAM, RST_STREAM, GOAWAY.
            if matches!(head[3], 3 | 7) || (head[3] < 2 && head[4] & 1 == 1) {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, frames).await.unwrap();
    answer
}

#[tokio::test]
async fn no_secret_leaves_a_listener_of_any_kind() {
    let mut listeners = Listeners::set().await;
    for way in WAYS {
        for (target, header, _) in credentials("good") {
            for what in ["a miss", "a hit"] {
                assert_eq!(listeners.ask(way, &target, &header).await, 200, "{way:?}: {what} with {target} {header}");
            }
        }
        for (status, expected) in [(401, 401), (500, 503)] {
            for (target, header, key) in credentials(&format!("refused-{way:?}-{status}")) {
                listeners.scene.service.next(Operation::Create, echo(status, &key, &header));
                assert_eq!(listeners.ask(way, &target, &header).await, expected, "{way:?}: {status}");
            }
        }
    }
    listeners.malformed_in_http2().await;
    // In HTTP/1.1, which some of them do not speak.
    for way in [Way::H2c, Way::Http1InTls, Way::Decision, Way::DecisionForNginx] {
        for request in malformed(&secret("malformed")) {
            listeners.send(way, request).await;
        }
    }
    // Where TLS is spoken, a caller who does not know has sent its key already.
    let blind = scene::get("/api", &format!("X-API-Key: {}\r\n", secret("blind")));
    let refused = listeners.scene.send_to(listeners.scene.callers[Way::Http1InTls as usize], blind).await;
    assert!(!refused.contains("HTTP/1.1 200") && !refused.contains(CANARY));
    listeners.scene.service.stop().await;
    for way in WAYS {
        for (target, header, _) in credentials(&format!("outage-{way:?}")) {
            assert_eq!(listeners.ask(way, &target, &header).await, 503, "{way:?}");
        }
        assert_eq!(listeners.ask(way, "/api", &credentials("good")[0].1).await, 200, "{way:?}: served from the cache");
    }
    listeners.scene.service.restart().await;
    listeners.scene.ask_as_operator().await;
    for head in listeners.scene.search(&[]).await {
        assert_no_credential(head);
    }
}
