//! The real binary, as a process of its own.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};

use bearerd::app::Addresses;
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit, setrlimit};
use serde_json::Value;
use tempfile::TempDir;

use super::events::{Log, PATIENCE};

/// A bearerd that runs until it ends by itself or is dropped.
pub struct Process {
    child: Child,
    output: Output,
    readers: Vec<JoinHandle<()>>,
    /// What it runs in; it goes with the process.
    directory: TempDir,
}

/// What it wrote, line by line.
#[derive(Clone, Default)]
pub struct Output {
    pub stdout: Log<String>,
    pub stderr: Log<String>,
}

/// How it ended.
pub struct Ended {
    pub status: ExitStatus,
    pub stdout: Vec<String>,
    pub stderr: Vec<String>,
}

impl Ended {
    /// The exit code; panics where a signal ended it.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| panic!("{}: {:?}", self.status, self.stderr))
    }
}

impl Process {
    /// Starts the binary in an empty directory.
    pub fn start(arguments: &[&str]) -> Self {
        Self::start_with(arguments, &[], tempfile::tempdir().unwrap())
    }

    /// Starts the binary in `directory` with these variables and no others.
    pub fn start_with(arguments: &[&str], variables: &[(&str, &str)], directory: TempDir) -> Self {
        Self::start_under(&[], arguments, variables, directory)
    }

    /// The same through a program that ends in the binary's place, such as `nice`.
    pub fn start_under(under: &[&str], arguments: &[&str], variables: &[(&str, &str)], directory: TempDir) -> Self {
        let words: Vec<&str> = under.iter().copied().chain([env!("CARGO_BIN_EXE_bearerd")]).collect();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).args(arguments).current_dir(&directory).env_clear().envs(variables.iter().copied());
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let output = Output::default();
        let readers = vec![
            collect(child.stdout.take().unwrap(), output.stdout.clone()),
            collect(child.stderr.take().unwrap(), output.stderr.clone()),
        ];
        Self { child, output, readers, directory }
    }

    /// `bearerd run` with this configuration, to which free ports are added where it names no listeners.
    pub fn run(configuration: &str) -> Self {
        Self::run_under(&[], configuration)
    }

    /// The same through a program that ends in the binary's place, such as `nice`.
    pub fn run_under(under: &[&str], configuration: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("bearerd.yaml"), on_free_ports(configuration)).unwrap();
        Self::start_under(under, &["run", "-c", "bearerd.yaml"], &[], directory)
    }

    /// Where `bearerd.yaml` is.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// What it has written so far.
    pub const fn output(&self) -> &Output {
        &self.output
    }

    /// Where it listens: waits until it says so.
    pub async fn addresses(&self) -> Addresses {
        self.output.stderr.wait_for(1, |line| is_listening(line)).await;
        let line = self.output.stderr.all().into_iter().find(|line| is_listening(line)).unwrap();
        let fields: Value = serde_json::from_str(&line).unwrap();
        let address = |name: &str| fields[name].as_str().unwrap().parse::<SocketAddr>().unwrap();
        let callers = fields["callers"].as_str().unwrap().trim_matches(['[', ']']).split(", ");
        Addresses { callers: callers.map(|text| text.parse().unwrap()).collect(), admin: address("admin"), metrics: address("metrics") }
    }

    /// The most memory that it has had so far, in bytes.
    pub fn peak_memory(&self) -> u64 {
        self.status("VmHWM:")
    }

    /// The memory that it has now, in bytes.
    pub fn memory(&self) -> u64 {
        self.status("VmRSS:")
    }

    /// The addresses that it has taken, in bytes, whether or not there is memory behind them.
    pub fn address_space(&self) -> u64 {
        self.status("VmSize:")
    }

    fn status(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How many descriptors it has open.
    pub fn descriptors(&self) -> usize {
        let folder = format!("/proc/{}/fd", self.child.id());
        // Nobody but root may list them, since it is not dumpable; their number is told as the size of their folder (Linux 6.2).
        std::fs::read_dir(&folder).map_or_else(|_| usize::try_from(std::fs::metadata(&folder).unwrap().len()).unwrap(), Iterator::count)
    }

    /// Lets it have no more of this from now on; none stands for as much as the system allows.
    pub fn limit(&self, resource: Resource, most: Option<u64>) {
        // It has inherited the hard limit.
        let maximum = getrlimit(resource).maximum;
        prlimit(Some(Pid::from_child(&self.child)), resource, Rlimit { current: most.or(maximum), maximum }).unwrap();
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Ends it at once, as a crash would.
    pub fn kill(&mut self) {
        // Both fail where it has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits until it has ended and all its output is read; panics when that takes a minute.
    pub async fn ended(mut self) -> Ended {
        let ended = tokio::task::spawn_blocking(move || {
            let status = self.child.wait().unwrap();
            self.readers.drain(..).for_each(|reader| reader.join().unwrap());
            Ended { status, stdout: self.output.stdout.all(), stderr: self.output.stderr.all() }
        });
        tokio::time::timeout(PATIENCE, ended).await.expect("the end within a minute").unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A configuration that listens on free ports unless it says otherwise.
pub fn on_free_ports(configuration: &str) -> String {
    let mut text = configuration.to_owned();
    for (section, line) in [
        ("listeners:", "listeners: [{ address: 127.0.0.1:0 }]"),
        ("admin:", "admin: { address: 127.0.0.1:0 }"),
        ("metrics:", "metrics: { address: 127.0.0.1:0 }"),
    ] {
        if !configuration.lines().any(|line| line.starts_with(section)) {
            text = format!("{line}\n{text}");
        }
    }
    text
}

/// Lets this process, and those that it starts, have `wanted` descriptors; the usual soft limit is 1024.
pub fn allow_descriptors(wanted: u64) {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_some_and(|current| current < wanted) {
        setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum })
            .unwrap_or_else(|error| panic!("this test needs {wanted} descriptors, the hard limit is {maximum:?} (`ulimit -Hn`): {error}"));
    }
}

/// As [`allow_descriptors`], but as many as the system lets it have; returns how many.
pub fn allow_descriptors_up_to(wanted: u64) -> u64 {
    let wanted = getrlimit(Resource::Nofile).maximum.map_or(wanted, |maximum| wanted.min(maximum));
    allow_descriptors(wanted);
    wanted
}

fn is_listening(line: &str) -> bool {
    line.contains("\"listening\"")
}

fn collect(stream: impl Read + Send + 'static, lines: Log<String>) -> JoinHandle<()> {
    thread::spawn(move || {
        for line in BufReader::new(stream).split(b'\n') {
            lines.push(String::from_utf8_lossy(&line.unwrap()).into_owned());
        }
    })
}
