//! The life of pods with the injected sidecar, on one machine: started, probed, rolled and ended as the kubelet does it, by what the manifest says.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

use crate::bearerd::new_key;
use crate::libiap::TokenService;

const PATIENCE: Duration = Duration::from_secs(60);

/// Something that is waited for.
#[derive(Default)]
struct Shared<T> {
    value: Mutex<T>,
    changed: Condvar,
}

impl<T> Shared<T> {
    /// Also where a test has failed meanwhile: what ends with it looks here.
    fn lock(&self) -> MutexGuard<'_, T> {
        self.value.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        let result = change(&mut self.lock());
        self.changed.notify_all();
        result
    }

    /// Whether this came to hold in time.
    fn within(&self, time: Duration, mut holds: impl FnMut(&T) -> bool) -> bool {
        let waited = self.changed.wait_timeout_while(self.lock(), time, |value| !holds(value));
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    fn until(&self, what: &str, holds: impl FnMut(&T) -> bool) {
        assert!(self.within(PATIENCE, holds), "waited in vain: {what}");
    }
}

/// A connection that is kept.
struct Connection(BufReader<TcpStream>);

struct Answer {
    status: u16,
    closes: bool,
}

impl Connection {
    fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self(BufReader::new(stream)))
    }

    fn exchange(&mut self, line: &str, headers: &str) -> io::Result<Answer> {
        let text = format!("{line} HTTP/1.1\r\nHost: 127.0.0.1\r\n{headers}\r\n");
        self.0.get_mut().write_all(text.as_bytes())?;
        let head = head(&mut self.0);
        let status = head.first().and_then(|line| line.split(' ').nth(1)?.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("no answer: {head:?}")))?;
        let header =
            |name: &str| head.iter().find_map(|line| line.to_ascii_lowercase().strip_prefix(name).map(|value| value.trim().to_owned()));
        let length = header("content-length:").map_or(0, |length| length.parse().unwrap());
        self.0.read_exact(&mut vec![0; length])?;
        Ok(Answer { status, closes: header("connection:").is_some_and(|value| value == "close") })
    }
}

fn head(stream: &mut impl BufRead) -> Vec<String> {
    stream.lines().map_while(Result::ok).take_while(|line| !line.is_empty()).collect()
}

/// The status, on a connection of its own; 0 without an answer.
fn ask(address: SocketAddr, line: &str, headers: &str) -> u16 {
    Connection::open(address).and_then(|mut connection| connection.exchange(line, headers)).map_or(0, |answer| answer.status)
}

/// An app, or a platform. It has a port before it listens on it, as in a pod.
struct App {
    socket: Option<Socket>,
    address: SocketAddr,
    state: Arc<Shared<AppState>>,
}

#[derive(Default)]
struct AppState {
    /// When they came, and with which head.
    seen: Vec<(Instant, Vec<String>)>,
    open: usize,
    told_to_end: bool,
    ended: bool,
}

impl App {
    fn new() -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        Self { socket: Some(socket), address, state: Arc::default() }
    }

    fn start(&mut self) {
        let socket = self.socket.take().unwrap();
        socket.listen(1024).unwrap();
        let state = Arc::clone(&self.state);
        thread::spawn(move || {
            for stream in TcpListener::from(socket).incoming() {
                if state.change(|state| {
                    state.open += usize::from(!state.told_to_end);
                    state.told_to_end
                }) {
                    break;
                }
                let state = Arc::clone(&state);
                thread::spawn(move || {
                    answer(BufReader::new(stream.unwrap()), &state);
                    state.change(|state| state.open -= 1);
                });
            }
            state.until("the app's last answer", |state| state.open == 0);
            state.change(|state| state.ended = true);
        });
    }

    /// As SIGTERM to an app that finishes what it has.
    fn end(&self) {
        self.state.change(|state| state.told_to_end = true);
        // So that it looks.
        let _ = TcpStream::connect(self.address);
        self.state.until("the app's end", |state| state.ended);
    }

    /// The tokens that came, one after another, each once.
    fn tokens(&self) -> Vec<String> {
        let token = |head: &Vec<String>| {
            head.iter().find_map(|line| line.to_ascii_lowercase().starts_with("authorization: bearer ").then(|| line[22..].to_owned()))
        };
        let mut tokens: Vec<String> = self.state.lock().seen.iter().map(|(_, head)| token(head).unwrap()).collect();
        tokens.dedup();
        tokens
    }
}

/// `/slow` is answered once the app is told to end.
fn answer(mut stream: BufReader<TcpStream>, state: &Shared<AppState>) {
    let head = head(&mut stream);
    let slow = head.first().is_some_and(|line| line.contains("/slow"));
    state.change(|state| state.seen.push((Instant::now(), head)));
    if slow {
        state.until("the app is told to end", |state| state.told_to_end);
    }
    let _ = write!(stream.get_mut(), "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
}

/// What callers know of the pods.
#[derive(Default)]
struct Service {
    pods: Vec<Endpoint>,
    next: usize,
    left: bool,
    failed: Vec<String>,
}

struct Endpoint {
    address: SocketAddr,
    ready: bool,
    /// The last answer to its readiness probe; 0 where there was none.
    said: u16,
    first_ready: Option<Instant>,
    deleted: bool,
    in_flight: usize,
    served: usize,
}

impl Endpoint {
    const fn takes_requests(&self) -> bool {
        self.ready && !self.deleted
    }
}

impl Shared<Service> {
    /// Waits for as long as every request is served.
    fn served_until(&self, what: &str, mut holds: impl FnMut(&Service) -> bool) {
        self.until(what, |service| !service.failed.is_empty() || holds(service));
        assert_eq!(self.lock().failed, [""; 0], "{what}");
    }
}

/// Calls one ready pod after another, without pause, on kept connections, until a request fails.
fn call(service: &Shared<Service>, headers: &str) {
    let mut connections = HashMap::new();
    let next = || {
        service.change(|service| {
            let count = service.pods.len();
            let pod = (1..=count).map(|step| (service.next + step) % count).find(|pod| service.pods[*pod].takes_requests());
            if service.left {
                return None;
            }
            let Some(pod) = pod else {
                service.failed.push("no pod is ready".to_owned());
                return None;
            };
            service.next = pod;
            service.pods[pod].in_flight += 1;
            Some((pod, service.pods[pod].address))
        })
    };
    while let Some((pod, address)) = next() {
        let kept = connections.remove(&pod).map_or_else(|| Connection::open(address), Ok);
        let outcome = kept.and_then(|mut connection| Ok((connection.exchange("GET /", headers)?, connection)));
        let failed = match &outcome {
            Ok((Answer { status: 200, .. }, _)) => None,
            Ok((Answer { status, .. }, _)) => Some(format!("pod {pod}: {status}")),
            Err(error) => Some(format!("pod {pod}: {error}")),
        };
        service.change(|service| {
            service.pods[pod].in_flight -= 1;
            service.pods[pod].served += usize::from(failed.is_none());
            service.failed.extend(failed);
        });
        match outcome {
            Ok((Answer { status: 200, closes }, connection)) if !closes => drop(connections.insert(pod, connection)),
            Ok((Answer { status: 200, .. }, _)) => {}
            _ => return,
        }
    }
}

/// What the pods of this fixture are made from, once bearerd is injected.
fn injected(fixture: &str, changes: &[(&str, &str)]) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/manifests").join(fixture);
    let mut text = std::fs::read_to_string(path).unwrap();
    for (from, to) in changes {
        assert!(text.contains(from), "{from}");
        text = text.replace(from, to);
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, text).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_bearerd")).args(["inject", "-f"]).arg(file.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let documents: Vec<Value> = serde_saphyr::from_multiple(std::str::from_utf8(&output.stdout).unwrap()).unwrap();
    let template =
        |document: &Value| ["/spec/template", "/spec/jobTemplate/spec/template"].iter().find_map(|place| document.pointer(place).cloned());
    documents.iter().find_map(template).unwrap()
}

/// Writes the files of a mounted volume as the kubelet does, for the first time or again: all change at once, by one link.
fn mount(folder: &Path, version: &str, files: &[(String, String)]) {
    let data = folder.join(format!("..{version}"));
    std::fs::create_dir_all(&data).unwrap();
    let before = std::fs::read_link(folder.join("..data"));
    for (name, content) in files {
        std::fs::write(data.join(name), content).unwrap();
        if before.is_err() {
            symlink(Path::new("..data").join(name), folder.join(name)).unwrap();
        }
    }
    symlink(data.file_name().unwrap(), folder.join("..data_tmp")).unwrap();
    std::fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
    if let Ok(before) = before {
        std::fs::remove_dir_all(folder.join(before)).unwrap();
    }
}

/// What the cluster has beside the pod.
#[derive(Default)]
struct Objects<'a> {
    config_map: &'a str,
    api_key: &'a str,
}

/// A pod that runs; it ends with the test.
struct Pod {
    folder: TempDir,
    app: App,
    native: bool,
    grace: Duration,
    process: Pid,
    ended: Arc<Shared<Option<ExitStatus>>>,
    service: Arc<Shared<Service>>,
    number: usize,
    callers: SocketAddr,
    admin: SocketAddr,
    metrics: SocketAddr,
}

impl Pod {
    /// The sidecar first; where it is native, the app once the startup probe is answered.
    fn start(template: &Value, objects: &Objects<'_>, service: &Arc<Shared<Service>>) -> Self {
        let number = service.lock().pods.len();
        // Its own address stands for its network, free ports for those of the manifest.
        let address = format!("127.0.0.{}:0", number + 2);
        let spec = &template["spec"];
        let native = spec["initContainers"][0]["name"] == "bearerd";
        let sidecar = &spec[if native { "initContainers" } else { "containers" }][0];
        assert_eq!((&sidecar["name"], sidecar["restartPolicy"] == "Always"), (&Value::from("bearerd"), native));
        let mut app = App::new();

        let folder = tempfile::tempdir().unwrap();
        let place = |path: &str| folder.path().join(path.trim_start_matches('/'));
        let moved = |text: &str| {
            let text = text
                .replace("address: 0.0.0.0:8080", &format!("address: {address}"))
                .replace("address: 127.0.0.1:8080", &format!("address: {address}"));
            text.replace("/secrets/", &format!("{}/", place("/secrets").display()))
        };
        let mounts = sidecar["volumeMounts"].as_array().unwrap();
        for wanted in mounts {
            let volume = spec["volumes"].as_array().unwrap().iter().find(|volume| volume["name"] == wanted["name"]).unwrap();
            let files = files(volume, template, objects).into_iter().map(|(name, content)| (name, moved(&content))).collect::<Vec<_>>();
            let at = place(wanted["mountPath"].as_str().unwrap());
            std::fs::create_dir_all(&at).unwrap();
            if !files.is_empty() {
                mount(&at, "first", &files);
            }
        }

        let mut command = Command::new(env!("CARGO_BIN_EXE_bearerd"));
        command.env_clear().current_dir(&folder).stderr(Stdio::piped());
        for variable in sidecar["env"].as_array().unwrap() {
            let value = match variable["name"].as_str().unwrap() {
                "BEARERD__METRICS__ADDRESS" => {
                    assert!(variable["value"].as_str().unwrap().ends_with(&format!(":{}", port(sidecar, "bearerd-metrics"))));
                    address.clone()
                }
                "UPSTREAM_PORT" => app.address.port().to_string(),
                _ => variable["value"].as_str().unwrap().to_owned(),
            };
            command.env(variable["name"].as_str().unwrap(), value);
        }
        command.envs([
            ("BEARERD__ADMIN__ADDRESS", address.as_str()),
            ("BEARERD__LOGGING__FORMAT", "json"),
            ("BEARERD__LOGGING__ACCESS", "false"),
        ]);
        for argument in sidecar["args"].as_array().unwrap() {
            let argument = argument.as_str().unwrap();
            let mounted = mounts.iter().any(|mount| argument.starts_with(mount["mountPath"].as_str().unwrap()));
            command.arg(if mounted { place(argument) } else { PathBuf::from(argument) });
        }
        let mut child = command.spawn().unwrap();
        let process = Pid::from_child(&child);
        let mut stderr = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let said = stderr.find(|line| line.contains("\"listening\"")).expect("it listens");
        let said: Value = serde_json::from_str(&said).unwrap();
        let listens = |name: &str| said[name].as_str().unwrap().trim_matches(['[', ']']).parse::<SocketAddr>().unwrap();
        let (callers, admin, metrics) = (listens("callers"), listens("admin"), listens("metrics"));
        let ended: Arc<Shared<Option<ExitStatus>>> = Arc::default();
        let end = Arc::clone(&ended);
        thread::spawn(move || {
            // What it says is shown where the test fails.
            stderr.for_each(|line| println!("pod {number}: {line}"));
            let status = child.wait().unwrap();
            end.change(|end| *end = Some(status));
        });

        let startup = Probe::of(sidecar, "startupProbe", metrics);
        let readiness = Probe::of(sidecar, "readinessProbe", metrics);
        service.change(|service| {
            let endpoint = Endpoint { address: callers, ready: false, said: 0, first_ready: None, deleted: false, in_flight: 0, served: 0 };
            service.pods.push(endpoint);
        });
        let grace = Duration::from_secs(spec["terminationGracePeriodSeconds"].as_u64().unwrap());
        if !native {
            app.start();
        }
        startup.passes(&ended);
        if native {
            app.start();
        }
        let pod = Self { folder, app, native, grace, process, ended, service: Arc::clone(service), number, callers, admin, metrics };
        pod.watch(readiness);
        pod.service.until("it is ready", |service| service.pods[number].ready);
        pod
    }

    /// Its readiness, from now to its end.
    fn watch(&self, probe: Probe) {
        let (service, ended, number) = (Arc::clone(&self.service), Arc::clone(&self.ended), self.number);
        thread::spawn(move || {
            let mut failures = 0;
            loop {
                let said = probe.asks();
                failures = if passes(said) { 0 } else { failures + 1 };
                service.change(|service| {
                    let pod = &mut service.pods[number];
                    pod.said = said;
                    pod.ready = failures == 0 || pod.ready && failures < probe.failures;
                    if pod.ready {
                        pod.first_ready.get_or_insert_with(Instant::now);
                    }
                });
                if ended.within(probe.period, Option::is_some) {
                    break;
                }
            }
        });
    }

    /// The sidecar has ended by itself, with 0.
    fn has_ended(&self, since: Instant) {
        assert!(self.ended.within(self.grace.saturating_sub(since.elapsed()), Option::is_some), "the grace period is over");
        assert_eq!(self.ended.lock().unwrap().code(), Some(0));
    }

    fn signal(&self) {
        kill_process(self.process, Signal::TERM).unwrap();
    }

    /// As a rollout ends it while requests come in.
    fn delete(&self) {
        let since = Instant::now();
        if self.native {
            // Endpoints leave some time after the pod is told to end.
            let before = self.service.lock().pods[self.number].served;
            self.service.served_until("late requests", |service| service.pods[self.number].served >= before + 20);
            self.service.change(|service| service.pods[self.number].deleted = true);
        } else {
            // All containers are told at once. The callers here go by its readiness alone, as load balancers of other kinds do.
            self.signal();
        }
        // The app's `preStop` is there for this.
        self.service.served_until("callers have left", |service| {
            let pod = &service.pods[self.number];
            !pod.takes_requests() && pod.in_flight == 0
        });
        let said = self.service.lock().pods[self.number].said;
        assert_eq!(said, if self.native { 200 } else { 503 });
        self.app.end();
        if self.native {
            self.signal();
        }
        self.has_ended(since);
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        if self.ended.lock().is_none() {
            let _ = kill_process(self.process, Signal::KILL);
        }
    }
}

struct Probe {
    address: SocketAddr,
    line: String,
    period: Duration,
    failures: u64,
}

impl Probe {
    fn of(container: &Value, name: &str, metrics: SocketAddr) -> Self {
        let probe = &container[name];
        // By the port's name, which the container must have.
        port(container, probe["httpGet"]["port"].as_str().unwrap());
        let line = format!("GET {}", probe["httpGet"]["path"].as_str().unwrap());
        let period = Duration::from_secs(probe["periodSeconds"].as_u64().unwrap());
        Self { address: metrics, line, period, failures: probe["failureThreshold"].as_u64().unwrap() }
    }

    fn asks(&self) -> u16 {
        ask(self.address, &self.line, "Connection: close\r\n")
    }

    /// Asks as often as it says.
    fn passes(&self, ended: &Shared<Option<ExitStatus>>) {
        for _ in 0..self.failures {
            if passes(self.asks()) {
                return;
            }
            assert!(!ended.within(self.period, Option::is_some), "it has ended");
        }
        panic!("{} is not answered", self.line);
    }
}

/// What the kubelet takes for a yes.
fn passes(status: u16) -> bool {
    (200..400).contains(&status)
}

/// The container's port of this name.
fn port(container: &Value, name: &str) -> u64 {
    let port = container["ports"].as_array().unwrap().iter().find(|port| port["name"] == name);
    port.unwrap()["containerPort"].as_u64().unwrap()
}

/// A volume's files.
fn files(volume: &Value, template: &Value, objects: &Objects<'_>) -> Vec<(String, String)> {
    let kind = volume.as_object().unwrap().keys().find(|key| *key != "name").unwrap();
    match kind.as_str() {
        "configMap" => vec![("bearerd.yaml".to_owned(), objects.config_map.to_owned())],
        "secret" => vec![("api-key".to_owned(), objects.api_key.to_owned())],
        "emptyDir" => Vec::new(),
        "downwardAPI" => {
            let item = |item: &Value| {
                let field = item["fieldRef"]["fieldPath"].as_str().unwrap();
                let name = field.strip_prefix("metadata.annotations['").unwrap().strip_suffix("']").unwrap();
                (item["path"].as_str().unwrap().to_owned(), template["metadata"]["annotations"][name].as_str().unwrap().to_owned())
            };
            volume["downwardAPI"]["items"].as_array().unwrap().iter().map(item).collect()
        }
        _ => panic!("{volume}"),
    }
}

const ORDINARY: &str = "bearerd.dev/native: \"false\"";

/// A token service with the keys of `names`, and the keys.
fn token_service<const N: usize>(names: [&str; N]) -> (TempDir, TokenService, [String; N]) {
    let folder = tempfile::tempdir().unwrap();
    let keys = names.map(|name| new_key(&folder.path().join("keys.yaml"), &["--name", name]));
    let service = TokenService::start(folder.path());
    (folder, service, keys)
}

fn rolls(changes: &[(&str, &str)], shutdown: &str) {
    let (_folder, tokens, [key]) = token_service(["alice"]);
    let config_map = format!(
        "listeners: [{{ address: 0.0.0.0:8080 }}]\ntoken_services: {{ default: {{ kind: iap, url: '{}' }} }}\n\
         upstreams: {{ app: {{ servers: ['127.0.0.1:${{UPSTREAM_PORT}}'] }} }}\nroutes: [{{ upstream: app }}]\nshutdown: {{ {shutdown} }}\n",
        tokens.url
    );
    let template = injected("deployment.yaml", changes);
    let objects = Objects { config_map: &config_map, ..Objects::default() };
    let headers = format!("X-API-Key: {key}\r\n");
    let service: Arc<Shared<Service>> = Arc::default();
    let mut old = Pod::start(&template, &objects, &service);
    let mut pods = Vec::new();
    thread::scope(|scope| {
        // They leave where the test fails, too.
        let _leaves = Leaves(&service);
        for _ in 0..3 {
            scope.spawn(|| call(&service, &headers));
        }
        for _ in 0..2 {
            service.served_until("requests", |service| service.pods[old.number].served >= 50);
            let slow = scope.spawn({
                let (address, headers) = (old.callers, &headers);
                move || ask(address, "GET /slow", headers)
            });
            old.app.state.until("a slow request", |state| state.seen.iter().any(|(_, head)| head[0].contains("/slow")));
            let new = Pod::start(&template, &objects, &service);
            service.served_until("requests for the new pod", |service| service.pods[new.number].served >= 50);
            old.delete();
            assert_eq!(slow.join().unwrap(), 200, "what is in flight is finished");
            pods.push(std::mem::replace(&mut old, new));
        }
    });
    pods.push(old);
    let service = service.lock();
    assert_eq!(service.failed, [""; 0]);
    for pod in &pods {
        let (first, _) = pod.app.state.lock().seen[0];
        assert!(service.pods[pod.number].first_ready.unwrap() <= first, "a request before it was ready");
    }
}

struct Leaves<'a>(&'a Shared<Service>);

impl Drop for Leaves<'_> {
    fn drop(&mut self) {
        self.0.change(|service| service.left = true);
    }
}

#[test]
fn a_rolling_restart_loses_no_request() {
    rolls(&[], "delay: 0s, drain_timeout: 20s");
}

#[test]
fn a_rolling_restart_with_an_ordinary_container_loses_no_request() {
    let port = "bearerd.dev/upstream-port: \"3000\"";
    rolls(&[(port, &format!("{port}\n        {ORDINARY}"))], "delay: 5s, drain_timeout: 20s");
}

/// A pod of the CronJob, which calls a platform through bearerd.
fn job(tokens: &TokenService, platform: &App, key: &str, more: &str) -> Pod {
    let upstream = format!("http://{}", platform.address);
    let inject = format!("{{bearerd.dev/inject: \"true\"{more}");
    let changes = [
        ("https://tokens.example.com", tokens.url.as_str()),
        ("https://platform.example.com", &upstream),
        ("{bearerd.dev/inject: \"true\"", &inject),
    ];
    let pod = Pod::start(&injected("outbound.yaml", &changes), &Objects { api_key: key, ..Objects::default() }, &Arc::default());
    assert!(platform.state.lock().seen.is_empty(), "a request before it was ready");
    pod
}

/// The Job's app: it calls the platform through bearerd, and ends.
fn works(pod: &Pod) {
    let mut connection = Connection::open(pod.callers).unwrap();
    for _ in 0..100 {
        assert_eq!(connection.exchange("GET /", "").unwrap().status, 200);
    }
}

#[test]
fn a_job_is_complete_when_its_app_has_ended() {
    let (_folder, tokens, [key]) = token_service(["alice"]);
    let mut platform = App::new();
    platform.start();
    let pod = job(&tokens, &platform, &key, "");
    assert!(pod.native);
    works(&pod);
    let since = Instant::now();
    pod.signal();
    pod.has_ended(since);
    assert_eq!(platform.tokens().len(), 1);
}

#[test]
fn a_job_ends_an_ordinary_container_by_the_admin_api() {
    let (_folder, tokens, [key]) = token_service(["alice"]);
    let mut platform = App::new();
    platform.start();
    let pod = job(&tokens, &platform, &key, &format!(", {ORDINARY}"));
    assert!(!pod.native);
    let wait = Command::new(env!("CARGO_BIN_EXE_bearerd")).args(["wait", "--address", &pod.metrics.to_string()]).status().unwrap();
    assert!(wait.success());
    works(&pod);
    let since = Instant::now();
    assert_eq!(ask(pod.admin, "POST /api/quit", "X-Bearerd-Admin: 1\r\nContent-Length: 0\r\n") / 100, 2);
    pod.has_ended(since);
    assert_eq!(platform.tokens().len(), 1);
}

#[test]
fn a_key_that_is_rotated_by_the_kubelet_loses_no_request() {
    let (_folder, tokens, [old, new]) = token_service(["alice", "bob"]);
    let mut platform = App::new();
    platform.start();
    let pod = job(&tokens, &platform, &old, "");
    let subject = |token: &String| {
        let claims: Value = serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap()).unwrap();
        claims["sub"].as_str().unwrap().to_owned()
    };
    thread::scope(|scope| {
        let _leaves = Leaves(&pod.service);
        scope.spawn(|| call(&pod.service, ""));
        pod.service.served_until("requests", |service| service.pods[0].served >= 50);
        mount(&pod.folder.path().join("secrets"), "second", &[("api-key".to_owned(), new)]);
        let deadline = Instant::now() + PATIENCE;
        while platform.tokens().len() < 2 {
            assert!(Instant::now() < deadline, "the new key is not used");
            let seen = platform.state.lock().seen.len();
            platform.state.until("more requests", |state| state.seen.len() > seen + 50);
        }
        let served = pod.service.lock().pods[0].served;
        pod.service.served_until("requests with the new token", |service| service.pods[0].served >= served + 50);
    });
    assert_eq!(pod.service.lock().failed, [""; 0]);
    // Never the old one again.
    assert_eq!(platform.tokens().iter().map(subject).collect::<Vec<_>>(), ["alice", "bob"]);
    let since = Instant::now();
    pod.signal();
    pod.has_ended(since);
}
