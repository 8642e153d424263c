//! Proxies that are already there ask bearerd for decisions: nginx, Envoy and Caddy, with the files of `examples/decision`.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

use crate::bearerd::{Bearerd, new_key};
use crate::mirror::mirror;

const PATIENCE: Duration = Duration::from_secs(60);
/// Where callers come from, which no proxy does.
const CALLER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub fn peer(name: &str) -> PathBuf {
    let path = root().join("target/peers").join(name);
    assert!(path.exists(), "{} is not there: run `make test`, which installs it", path.display());
    path
}

/// Where nginx puts bodies that it does not keep in memory, beside its configuration.
pub const TEMPORARY: &str =
    "client_body_temp_path body; proxy_temp_path proxied; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;";

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A proxy between callers and the app, bearerd beside it.
struct Stand {
    proxy: Child,
    address: SocketAddr,
    key: String,
    _bearerd: Bearerd,
    _folder: TempDir,
}

impl Stand {
    /// Starts bearerd and the app, then the proxy with its example; `listener` is its line's place in examples/decision.yaml.
    fn start(example: &str, listener: usize, command: impl FnOnce(&Path) -> Command) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = new_key(&folder.path().join("keys.yaml"), &["--name", "alice"]);
        // The example, with ports of the system's choice and a token service of our own.
        let mut text = fs::read_to_string(root().join("examples/decision.yaml")).unwrap();
        for port in ["8081", "8082", "8083"] {
            text = text.replace(port, "0");
        }
        text = text.replace("kind: iap", "kind: embedded\n    keys_file: keys.yaml\n    signing_key_file: signing.pem");
        text = text.replace("    url: https://aps2.platform.illumina.com\n", "");
        // Who called, beside whose key it was.
        text = text.replace("{claims.sub}", "{claims.sub} at {peer}");
        // A public route that nothing but the host leads to.
        assert!(text.contains("\nroutes:\n"));
        text = text.replace("\nroutes:\n", "\nroutes:\n  - { name: open, match: { hosts: [open.test] }, auth: none }\n");
        text.push_str("admin: { address: 127.0.0.1:0 }\nmetrics: { address: 127.0.0.1:0 }\nlogging: { format: json }\n");
        let bearerd = Bearerd::start(folder.path(), &text);
        let deciding: SocketAddr = bearerd.callers.split(", ").nth(listener).unwrap().parse().unwrap();
        let port = free_port();
        let mut text = fs::read_to_string(root().join("examples/decision").join(example)).unwrap();
        for (from, to) in [("8000", port), ("3000", mirror().port()), (["8081", "8082", "8083"][listener], deciding.port())] {
            assert!(text.contains(from), "{example} has no port {from}");
            text = text.replace(from, &to.to_string());
        }
        // The binary alone has none of the folders that its package makes.
        text = text.replace("http {\n", &format!("http {{\n{TEMPORARY}\n"));
        let file = folder.path().join(example);
        fs::write(&file, text).unwrap();
        let proxy = command(&file).current_dir(&folder).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let mut stand = Self { proxy, address: ([127, 0, 0, 1], port).into(), key, _bearerd: bearerd, _folder: folder };
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(stand.address).is_err() {
            assert!(stand.proxy.try_wait().unwrap().is_none(), "{example}: the proxy ended");
            assert!(Instant::now() < deadline, "{example}: the proxy does not listen");
            std::thread::yield_now();
        }
        stand
    }

    /// Status line with headers, and body.
    fn ask(&self, method: &str, path: &str, headers: &str) -> (String, String) {
        self.ask_host("app.test", method, path, headers)
    }

    fn ask_host(&self, host: &str, method: &str, path: &str, headers: &str) -> (String, String) {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((CALLER, 0)).into()).unwrap();
        socket.connect(&self.address.into()).unwrap();
        let mut stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{headers}\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{method} {path} {headers}: {answer}"));
        (head.to_ascii_lowercase(), body.to_owned())
    }

    /// The header lines that reached the app, in lower case but for values.
    fn reached(&self, method: &str, path: &str, headers: &str) -> Vec<(String, String)> {
        let (head, body) = self.ask(method, path, headers);
        assert!(head.starts_with("http/1.1 200"), "{path}: {head}\n{body}");
        let start = body.find('[').unwrap_or_else(|| panic!("{method} {path} {headers}: {head}\n{body}"));
        let lines: Vec<String> = serde_json::from_str(&body[start..=body.rfind(']').unwrap()]).unwrap();
        lines.iter().filter_map(|line| line.split_once(": ")).map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect()
    }

    /// What holds behind each of them.
    fn check(&self) {
        let value = |lines: &[(String, String)], name: &str| -> Vec<String> {
            lines.iter().filter(|(other, value)| other == name && !value.is_empty()).map(|(_, value)| value.clone()).collect()
        };
        let key = format!("X-API-Key: {}\r\n", self.key);
        for forged in [
            "",
            "X-Forwarded-For: 203.0.113.9\r\n",
            "X-Remote-User: root\r\n",
            "X_API_KEY: canary\r\n",
            "X-Forwarded-Uri: /healthz\r\n",
            "X-Original-URI: /healthz\r\n",
        ] {
            let lines = self.reached("GET", "/api/a?b=c", &format!("{key}{forged}"));
            let bearer = value(&lines, "authorization");
            assert!(bearer.len() == 1 && bearer[0].starts_with("Bearer eyJ"), "{forged}: {lines:?}");
            assert_eq!(value(&lines, "x-remote-user"), ["alice at 127.0.0.2"], "{forged}");
            let told = format!("{lines:?}");
            assert!(!told.contains(&self.key) && !told.contains("canary"), "the credential went on: {forged}{lines:?}");
        }
        // A public path, with and without a credential.
        let lines = self.reached("GET", "/healthz", &format!("{key}X-Remote-User: root\r\n"));
        assert!(value(&lines, "authorization").is_empty() && value(&lines, "x-remote-user").is_empty(), "{lines:?}");
        assert!(!format!("{lines:?}").contains(&self.key));
        // Refusals, and nothing that a caller says of the request chooses another route.
        for headers in [
            "",
            "X-Forwarded-Uri: /healthz\r\n",
            "X-Original-URI: /healthz\r\nX-Original-Method: GET\r\n",
            "X-Original-URL: http://a/healthz\r\n",
        ] {
            let (head, _) = self.ask("GET", "/api", headers);
            assert!(head.starts_with("http/1.1 401") && head.contains("www-authenticate: bearer realm=\"bearerd\""), "{headers}{head}");
        }
        // Nor another host: one of them is open to all.
        let (head, _) = self.ask_host("open.test", "GET", "/api", "");
        assert!(head.starts_with("http/1.1 200"), "{head}");
        for forged in [
            "X-Original-Host: open.test\r\n",
            "X_Original_Host: open.test\r\n",
            "X-Original-URL: http://open.test/api\r\n",
            "X-Original-URL: http://open.test/api\r\nX-Original-Host: open.test\r\n",
            "X-Original-URI: http://open.test/api\r\n",
            "X-Forwarded-Host: open.test\r\n",
            "X-Forwarded-Uri: http://open.test/api\r\n",
            "X-Forwarded-Uri: http://open.test/api\r\nX-Forwarded-Host: open.test\r\nX-Forwarded-Method: GET\r\n",
            "X-Forwarded-Server: open.test\r\n",
            "X-Host: open.test\r\n",
            "Forwarded: host=open.test\r\n",
        ] {
            let (head, _) = self.ask("GET", "/api", forged);
            assert!(head.starts_with("http/1.1 401") && head.contains("www-authenticate: bearer realm=\"bearerd\""), "{forged}{head}");
            let lines = self.reached("GET", "/api", &format!("{key}{forged}"));
            assert_eq!(value(&lines, "x-remote-user"), ["alice at 127.0.0.2"], "{forged}");
        }
        let (head, _) = self.ask("GET", "/api", "X-API-Key: unknown\r\n");
        assert!(head.starts_with("http/1.1 401") && head.contains("error=\"invalid_token\""), "{head}");
        // A body is the app's business.
        let lines = self.reached("POST", "/api", &format!("{key}Content-Length: 0\r\n"));
        assert_eq!(value(&lines, "authorization").len(), 1);
    }
}

impl Drop for Stand {
    fn drop(&mut self) {
        let _ = self.proxy.kill();
        let _ = self.proxy.wait();
    }
}

#[test]
fn nginx_asks_with_auth_request() {
    let nginx = peer("nginx");
    let stand = Stand::start("nginx.conf", 0, |file| {
        let mut command = Command::new(nginx);
        // Without a master process, so that ending it ends all of it.
        command.arg("-p").arg(file.parent().unwrap()).arg("-c").arg(file).args(["-g", "master_process off;"]);
        command
    });
    stand.check();
}

#[test]
fn caddy_asks_with_forward_auth() {
    let caddy = peer("caddy");
    let stand = Stand::start("Caddyfile", 2, |file| {
        let mut command = Command::new(caddy);
        command.args(["run", "--adapter", "caddyfile", "--config"]).arg(file).env("HOME", file.parent().unwrap());
        command
    });
    stand.check();
}

#[test]
fn envoy_asks_with_ext_authz() {
    let envoy = peer("envoy-venv").join("bin/envoy");
    let stand = Stand::start("envoy.yaml", 1, |file| {
        let mut command = Command::new(envoy);
        command.arg("-c").arg(file).args(["--concurrency", "1", "--use-dynamic-base-id", "--log-level", "off"]);
        command
    });
    stand.check();
}

/// Traefik itself is not run here: its file must name what bearerd sets, and take out what callers send.
#[test]
fn traefiks_file_puts_the_token_in_and_the_credential_out() {
    let text = fs::read_to_string(root().join("examples/decision/traefik.yaml")).unwrap();
    let file: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
    let middlewares = &file["http"]["middlewares"];
    assert_eq!(file["http"]["routers"]["app"]["middlewares"], serde_json::json!(["bearerd", "without-credentials"]));
    assert_eq!(middlewares["bearerd"]["forwardAuth"]["authResponseHeaders"], serde_json::json!(["Authorization", "X-Remote-User"]));
    assert_eq!(middlewares["bearerd"]["forwardAuth"]["trustForwardHeader"], false);
    let removed = &middlewares["without-credentials"]["headers"]["customRequestHeaders"];
    assert_eq!((&removed["X-API-Key"], &removed["X_API_KEY"]), (&"".into(), &"".into()));
}
