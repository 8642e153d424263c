//! Where simulated pods live: each in a network namespace of its own, all with the same ports, and the node's in between. It takes no rights: the test is run
//! again as root of a user namespace. Where that is not permitted, pods share the loopback network and have free ports.

use std::any::type_name;
use std::fs::File;
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::panic::resume_unwind;
use std::process::{Command, Stdio};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// In the environment of a test that is run in namespaces.
const INSIDE: &str = "BEARERD_TEST_CLUSTER";
/// More than any test takes, each of whose steps has a bound. Whatever is in the namespaces then ends with them.
const AT_MOST: Duration = Duration::from_secs(300);
/// The node's address: callers, token services and platforms are there.
const NODE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

/// What `unshare` is asked for: by anybody where user namespaces are permitted, else by root. The namespace of processes makes sure that none is left.
const WAYS: [&[&str]; 2] = [
    &["--user", "--map-root-user", "--net", "--mount", "--pid", "--fork", "--kill-child"],
    &["--net", "--mount", "--pid", "--fork", "--kill-child"],
];
/// `ip netns` keeps its files in there.
const OWN_RUN: &str = "mount -t tmpfs pods /run && ip link set lo up";
const TRIAL: &str = "ip netns add trial && ip link add trial type veth peer name eth0 netns trial";

/// A node with its pods.
pub struct Cluster {
    is_namespaced: bool,
}

/// A pod's network: all of its containers are in it.
pub struct PodNetwork {
    pub address: Ipv4Addr,
    namespace: Option<File>,
}

/// Runs a test, given as a closure in the test's own function, with a cluster.
pub fn in_a_cluster<T: FnOnce(&Cluster)>(test: T) {
    static WAY: OnceLock<Result<&[&str], String>> = OnceLock::new();
    if std::env::var_os(INSIDE).is_some() {
        shell(OWN_RUN).unwrap();
        ip(&format!("addr add {NODE}/32 dev lo"));
        return test(&Cluster { is_namespaced: true });
    }
    let name = type_name::<T>().trim_end_matches("::{{closure}}").split_once("::").unwrap().1;
    match WAY.get_or_init(way) {
        Ok(way) => run_inside(way, name),
        Err(why) => {
            // Past the capture of what tests print: it is to be seen where the test passes.
            let _ = writeln!(io::stderr(), "{name}: there are no network namespaces here ({why}): its pods are simulated on loopback");
            test(&Cluster { is_namespaced: false });
        }
    }
}

fn way() -> Result<&'static [&'static str], String> {
    let tried = WAYS.map(|way| {
        let trial = Command::new("unshare").args(way).args(["--", "sh", "-c", &format!("{OWN_RUN} && {TRIAL}")]).output();
        match trial {
            Ok(output) if output.status.success() => Ok(way),
            Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
            Err(error) => Err(format!("unshare: {error}")),
        }
    });
    let mut why = Vec::new();
    for tried in tried {
        match tried {
            Ok(way) => return Ok(way),
            Err(error) => why.push(error),
        }
    }
    Err(why.join("; "))
}

/// The same test once more, in namespaces that go with it.
fn run_inside(way: &[&str], name: &str) {
    let output = tempfile::NamedTempFile::new().unwrap();
    let mut command = Command::new("unshare");
    command.args(way).arg("--").arg(std::env::current_exe().unwrap()).args(["--exact", name, "--nocapture"]).env(INSIDE, "1");
    let out = output.reopen().unwrap();
    let mut child = command.stdin(Stdio::null()).stderr(out.try_clone().unwrap()).stdout(out).spawn().unwrap();
    let process = Pid::from_child(&child);
    let (told, ended) = mpsc::channel();
    thread::spawn(move || told.send(child.wait()));
    let status = ended.recv_timeout(AT_MOST);
    if status.is_err() {
        // All that is in it is killed with it.
        kill_process(process, Signal::KILL).unwrap();
    }
    let printed = std::fs::read_to_string(output.path()).unwrap();
    println!("{printed}");
    let status = status.expect("the test in the namespaces did not end in time").unwrap();
    assert!(status.success() && printed.contains("1 passed"), "in network namespaces: {status}");
}

fn shell(script: &str) -> Result<(), String> {
    let output = Command::new("sh").args(["-c", script]).output().unwrap();
    if output.status.success() { Ok(()) } else { Err(format!("{script}: {}", String::from_utf8_lossy(&output.stderr))) }
}

fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

impl Cluster {
    pub const fn is_namespaced(&self) -> bool {
        self.is_namespaced
    }

    /// Where pods reach what is outside of them.
    pub const fn node(&self) -> Ipv4Addr {
        if self.is_namespaced { NODE } else { Ipv4Addr::LOCALHOST }
    }

    /// The network of one more pod.
    pub fn network(&self, pod: usize) -> Arc<PodNetwork> {
        let number = u8::try_from(pod + 1).unwrap();
        if !self.is_namespaced {
            return Arc::new(PodNetwork { address: Ipv4Addr::new(127, 0, 0, number + 1), namespace: None });
        }
        let (gateway, address) = (Ipv4Addr::new(10, 77, number, 1), Ipv4Addr::new(10, 77, number, 2));
        ip(&format!("netns add pod{pod}"));
        ip(&format!("link add pod{pod} type veth peer name eth0 netns pod{pod}"));
        ip(&format!("addr add {gateway}/30 dev pod{pod}"));
        ip(&format!("link set pod{pod} up"));
        let network = PodNetwork { address, namespace: Some(File::open(format!("/run/netns/pod{pod}")).unwrap()) };
        network.within(|| {
            ip("link set lo up");
            ip(&format!("addr add {address}/30 dev eth0"));
            ip("link set eth0 up");
            ip(&format!("route add default via {gateway}"));
        });
        Arc::new(network)
    }
}

impl PodNetwork {
    pub const fn is_own(&self) -> bool {
        self.namespace.is_some()
    }

    /// Does it inside: sockets that are made there and programs that are started there belong to this network for good.
    pub fn within<R: Send>(&self, what: impl FnOnce() -> R + Send) -> R {
        let Some(namespace) = &self.namespace else { return what() };
        let entered = || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            what()
        };
        thread::scope(|scope| scope.spawn(entered).join()).unwrap_or_else(|panic| resume_unwind(panic))
    }
}
