//! The real binary, as a process of its own.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};

use bearerd::app::Addresses;
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
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
        let mut command = Command::new(env!("CARGO_BIN_EXE_bearerd"));
        command.args(arguments).env_clear().envs(variables.iter().copied());
        Self::spawn(command, directory)
    }

    /// Has `program` start the binary, in its own place, in `directory`.
    pub fn start_under(program: &str, arguments: &[&str], directory: TempDir) -> Self {
        let mut command = Command::new(program);
        command.args(arguments);
        Self::spawn(command, directory)
    }

    fn spawn(mut command: Command, directory: TempDir) -> Self {
        command.current_dir(&directory);
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
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("bearerd.yaml"), on_free_ports(configuration)).unwrap();
        Self::start_with(&["run", "-c", "bearerd.yaml"], &[], directory)
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
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
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
        // Both fail where it has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
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
