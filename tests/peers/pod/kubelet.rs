//! What the kubelet does with a pod: volumes, start order, probes, the end. All by what the manifest says.

use std::io::{BufRead, BufReader, Lines};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use super::app::App;
use super::callers::{Endpoint, Service};
use super::http::ask;
use super::network::{Cluster, PodNetwork};
use super::waiting::Shared;

/// What the cluster has beside the pod.
#[derive(Default)]
pub struct Objects<'a> {
    pub config_map: &'a str,
    pub api_key: &'a str,
}

/// A pod that runs; it ends with the test.
pub struct Pod {
    pub folder: TempDir,
    pub app: App,
    pub native: bool,
    pub grace: Duration,
    pub network: Arc<PodNetwork>,
    process: Pid,
    ended: Arc<Shared<Option<ExitStatus>>>,
    pub service: Arc<Shared<Service>>,
    pub number: usize,
    pub listens: Addresses,
}

/// Where the sidecar is reached: metrics from the node, what is on loopback from inside alone.
pub struct Addresses {
    pub callers: SocketAddr,
    pub admin: SocketAddr,
    pub metrics: SocketAddr,
}

/// A container's `env`, `args` and mounted files, made into a process.
struct Sidecar<'a> {
    spec: &'a Value,
    folder: &'a Path,
    network: &'a PodNetwork,
}

impl Pod {
    /// The sidecar first; where it is native, the app once the startup probe is answered. The app runs then; whether the pod is ready is another matter.
    pub fn start(cluster: &Cluster, template: &Value, objects: &Objects<'_>, service: &Arc<Shared<Service>>) -> Self {
        let number = service.lock().pods.len();
        let network = cluster.network(number);
        let spec = &template["spec"];
        let native = spec["initContainers"][0]["name"] == "bearerd";
        let sidecar = &spec[if native { "initContainers" } else { "containers" }][0];
        assert_eq!((&sidecar["name"], sidecar["restartPolicy"] == "Always"), (&Value::from("bearerd"), native));
        let mut app = App::of(&network, 3000);

        let folder = tempfile::tempdir().unwrap();
        let container = Sidecar { spec: sidecar, folder: folder.path(), network: &network };
        container.mount(template, objects);
        let mut child = container.run(&app);
        let mut stderr = BufReader::new(child.stderr.take().unwrap()).lines();
        let listens = container.addresses(&mut stderr);
        let process = Pid::from_child(&child);
        let ended = watched(number, child, stderr);

        let startup = Probe::of(sidecar, "startupProbe", listens.metrics);
        let readiness = Probe::of(sidecar, "readinessProbe", listens.metrics);
        service.change(|service| service.pods.push(Endpoint::at(listens.callers)));
        let grace = Duration::from_secs(spec["terminationGracePeriodSeconds"].as_u64().unwrap());
        if !native {
            app.start();
        }
        startup.passes(&ended);
        if native {
            app.start();
        }
        let pod = Self { folder, app, native, grace, network, process, ended, service: Arc::clone(service), number, listens };
        pod.watch(readiness);
        pod
    }

    pub fn ready(self) -> Self {
        self.service.until("it is ready", |service| service.pods[self.number].ready);
        self
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

    /// The sidecar has ended by itself, with 0, in the time that the pod has.
    pub fn has_ended(&self, since: Instant) {
        assert!(self.ended.within(self.grace.saturating_sub(since.elapsed()), Option::is_some), "the grace period is over");
        println!("pod {}: ended {:.1} s after it was told to, of {} s", self.number, since.elapsed().as_secs_f64(), self.grace.as_secs());
        assert_eq!(self.ended.lock().unwrap().code(), Some(0));
    }

    pub fn signal(&self) {
        kill_process(self.process, Signal::TERM).unwrap();
    }

    /// As a rollout ends it while requests come in.
    pub fn delete(&self) {
        let since = Instant::now();
        if self.native {
            // Endpoints leave some time after the pod is told to end.
            self.service.serves(self.number, 20);
            self.service.change(|service| service.pods[self.number].deleted = true);
        } else {
            // All containers are told at once. The callers here go by its readiness alone, as load balancers of other kinds do.
            self.signal();
        }
        // The app's `preStop` is there for this.
        self.service.have_left(self.number);
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

/// What it says is shown where the test fails.
fn watched(number: usize, mut child: Child, stderr: Lines<BufReader<ChildStderr>>) -> Arc<Shared<Option<ExitStatus>>> {
    let ended: Arc<Shared<Option<ExitStatus>>> = Arc::default();
    let end = Arc::clone(&ended);
    thread::spawn(move || {
        stderr.map_while(Result::ok).for_each(|line| println!("pod {number}: {line}"));
        let status = child.wait().unwrap();
        end.change(|end| *end = Some(status));
    });
    ended
}

impl Sidecar<'_> {
    fn list(&self, key: &str) -> &[Value] {
        self.spec[key].as_array().map_or(&[], Vec::as_slice)
    }

    /// Where a path of the container is.
    fn place(&self, path: &str) -> PathBuf {
        self.folder.join(path.trim_start_matches('/'))
    }

    fn mount(&self, template: &Value, objects: &Objects<'_>) {
        for wanted in self.list("volumeMounts") {
            let volumes = template["spec"]["volumes"].as_array().unwrap();
            let volume = volumes.iter().find(|volume| volume["name"] == wanted["name"]).unwrap();
            let files: Vec<_> = files(volume, template, objects).into_iter().map(|(name, content)| (name, self.moved(&content))).collect();
            let at = self.place(wanted["mountPath"].as_str().unwrap());
            std::fs::create_dir_all(&at).unwrap();
            if !files.is_empty() {
                mount(&at, "first", &files);
            }
        }
    }

    /// A configuration with files where they are; and with an address for its network, and free ports, where that is not its own.
    fn moved(&self, text: &str) -> String {
        let text = text.replace("/secrets/", &format!("{}/", self.place("/secrets").display()));
        if self.network.is_own() {
            return text;
        }
        let address = format!("address: {}:0", self.network.address);
        text.replace("address: 0.0.0.0:8080", &address).replace("address: 127.0.0.1:8080", &address)
    }

    fn run(&self, app: &App) -> Child {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bearerd"));
        command.env_clear().current_dir(self.folder).stderr(Stdio::piped());
        for variable in self.list("env") {
            command.env(variable["name"].as_str().unwrap(), variable["value"].as_str().unwrap());
        }
        if !self.network.is_own() {
            let address = format!("{}:0", self.network.address);
            command.env("BEARERD__METRICS__ADDRESS", &address).env("BEARERD__ADMIN__ADDRESS", &address);
            command.env("UPSTREAM_PORT", app.address.port().to_string());
        }
        command.envs([("BEARERD__LOGGING__FORMAT", "json"), ("BEARERD__LOGGING__ACCESS", "false")]);
        for argument in self.list("args") {
            let argument = argument.as_str().unwrap();
            let mounted = self.list("volumeMounts").iter().any(|mount| argument.starts_with(mount["mountPath"].as_str().unwrap()));
            command.arg(if mounted { self.place(argument) } else { PathBuf::from(argument) });
        }
        self.network.within(|| command.spawn()).unwrap()
    }

    /// As the manifest says. Free ports are told when they are known.
    fn addresses(&self, stderr: &mut Lines<BufReader<ChildStderr>>) -> Addresses {
        if self.network.is_own() {
            let at = |address: Ipv4Addr, port: u16| SocketAddr::from((address, port));
            let callers = port(self.spec, "bearerd").map_or(at(Ipv4Addr::LOCALHOST, 8080), |port| at(self.network.address, port));
            let metrics = at(self.network.address, port(self.spec, "bearerd-metrics").unwrap());
            return Addresses { callers, admin: at(Ipv4Addr::LOCALHOST, 9901), metrics };
        }
        let said = stderr.map_while(Result::ok).find(|line| line.contains("\"listening\"")).expect("it listens");
        let said: Value = serde_json::from_str(&said).unwrap();
        let listens = |name: &str| said[name].as_str().unwrap().trim_matches(['[', ']']).parse::<SocketAddr>().unwrap();
        assert_eq!(listens("metrics").ip(), IpAddr::V4(self.network.address));
        Addresses { callers: listens("callers"), admin: listens("admin"), metrics: listens("metrics") }
    }
}

/// Writes the files of a mounted volume as the kubelet does, for the first time or again: all change at once, by one link.
pub fn mount(folder: &Path, version: &str, files: &[(String, String)]) {
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
        port(container, probe["httpGet"]["port"].as_str().unwrap()).unwrap();
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
fn port(container: &Value, name: &str) -> Option<u16> {
    let port = container["ports"].as_array()?.iter().find(|port| port["name"] == name)?;
    u16::try_from(port["containerPort"].as_u64()?).ok()
}
