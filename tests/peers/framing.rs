//! One way to read what bearerd forwards: the same raw bytes to bearerd before a strict upstream, before nginx and before HAProxy.

mod cases;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};
use serde::Deserialize;
use tempfile::TempDir;

use crate::bearerd::{Bearerd, new_key};
use crate::proxies::{TEMPORARY, free_port, peer};
use cases::{Case, Cases, Meaning};

const PATIENCE: Duration = Duration::from_secs(60);
const WAYS: [&str; 3] = ["strict", "nginx", "haproxy"];
/// Connections at one time, for each way.
const CALLERS: usize = 6;
/// `BEARERD_FRAMING_SEED` makes other extensions and mutations.
const SEED: u64 = 9;

/// A request as it came out at the end of a way.
#[derive(Deserialize, Clone, Debug)]
struct Seen {
    way: String,
    method: String,
    target: String,
    host: String,
    body: String,
    whole: bool,
    swallowed: bool,
    problem: String,
    raw: String,
}

impl Seen {
    /// What all ways must agree on.
    fn request(&self) -> (&str, &str, &str, String) {
        (&self.method, &self.target, &self.body, self.host.to_ascii_lowercase())
    }
}

/// A child that ends with the test.
struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn proxy(mut command: Command, folder: &Path, port: u16) -> Ends {
    let mut child = Ends(command.current_dir(folder).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(child.0.try_wait().unwrap().is_none(), "{command:?} ended");
        assert!(Instant::now() < deadline, "{command:?} does not listen");
        thread::yield_now();
    }
    child
}

fn nginx(folder: &Path, upstream: u16) -> (Ends, u16) {
    let port = free_port();
    let text = format!(
        "pid nginx.pid; error_log error.log; events {{ }}\nhttp {{\n{TEMPORARY} access_log off; client_max_body_size 0;\n\
         underscores_in_headers on; ignore_invalid_headers off; large_client_header_buffers 8 128k; proxy_http_version 1.1;\n\
         server {{ listen 127.0.0.1:{port}; merge_slashes off; location / {{\n\
         proxy_pass http://127.0.0.1:{upstream}; proxy_set_header Host $http_host; proxy_set_header Connection ''; }} }} }}\n"
    );
    std::fs::write(folder.join("nginx.conf"), text).unwrap();
    let mut command = Command::new(peer("nginx"));
    command.arg("-p").arg(folder).arg("-c").arg(folder.join("nginx.conf")).args(["-g", "daemon off; master_process off;"]);
    (proxy(command, folder, port), port)
}

fn haproxy(folder: &Path, upstream: u16) -> (Ends, u16) {
    let port = free_port();
    let text = format!(
        "global\n  maxconn 1000\n  tune.bufsize 131072\n  tune.http.maxhdr 500\ndefaults\n  mode http\n  timeout connect 60s\n  timeout client 60s\n  \
         timeout server 60s\nfrontend callers\n  bind 127.0.0.1:{port}\n  default_backend upstream\nbackend upstream\n  server only 127.0.0.1:{upstream}\n"
    );
    std::fs::write(folder.join("haproxy.cfg"), text).unwrap();
    let mut command = Command::new(peer("haproxy"));
    command.arg("-db").arg("-f").arg(folder.join("haproxy.cfg")).env("LD_LIBRARY_PATH", peer("haproxy-libraries"));
    (proxy(command, folder, port), port)
}

fn bearerd(upstream: u16, keys: &Path) -> (Bearerd, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(keys, folder.path().join("keys.yaml")).unwrap();
    let configuration = format!(
        "listeners: [{{ address: 127.0.0.1:0, limits: {{ header_timeout: 2s, idle_timeout: 2s }} }}]\n\
         admin: {{ address: 127.0.0.1:0 }}\nmetrics: {{ address: 127.0.0.1:0 }}\n\
         token_services: {{ default: {{ kind: embedded, keys_file: keys.yaml, signing_key_file: signing.pem }} }}\n\
         upstreams: {{ app: {{ servers: ['127.0.0.1:{upstream}'], header_bytes: 128KiB }} }}\n\
         routes:\n  - {{ match: {{ path_prefix: /k }}, upstream: app }}\n  - {{ auth: none, upstream: app }}\n\
         logging: {{ format: json, access: false }}\n"
    );
    (Bearerd::start(folder.path(), &configuration), folder)
}

/// All that comes back for these bytes.
fn answer(address: &str, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut answer = Vec::new();
    // It may be refused, and the connection reset, before all is sent.
    let _ = stream.write_all(bytes);
    let _ = stream.read_to_end(&mut answer);
    answer
}

/// The statuses of all answers that are not interim ones.
fn statuses(answer: &[u8]) -> Vec<u16> {
    let text = String::from_utf8_lossy(answer);
    text.split("HTTP/1.").skip(1).filter_map(|part| part.get(2..5)?.parse().ok()).filter(|status| *status >= 200).collect()
}

/// Sends every case through each way; answers by way and case.
fn send(all: &[Case], addresses: &[String; 3]) -> [Vec<Vec<u8>>; 3] {
    let answers = [(); 3].map(|()| Mutex::new(vec![Vec::new(); all.len()]));
    let next = [(); 3].map(|()| AtomicUsize::new(0));
    thread::scope(|scope| {
        for ((address, answers), next) in addresses.iter().zip(&answers).zip(&next) {
            for _ in 0..CALLERS {
                scope.spawn(move || {
                    while let Some(case) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let answer = answer(address, &case.bytes);
                        answers.lock().unwrap()[case.id] = answer;
                    }
                });
            }
        }
    });
    answers.map(|answers| answers.into_inner().unwrap())
}

/// The number in `/q7q` or `/m7m`, and whether it is the marker's.
fn whose(target: &str) -> Option<(usize, bool)> {
    ['q', 'm'].into_iter().find_map(|letter| {
        let mut parts = target.split(letter).skip(1);
        let id = parts.find_map(|part| part.parse().ok())?;
        Some((id, letter == 'm'))
    })
}

#[test]
fn whatever_is_forwarded_is_one_request_and_the_same_to_strict_readers_nginx_and_haproxy() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/strict_upstream.py");
    let mut command = Command::new(peer("frames-venv").join("bin/python"));
    let mut upstream = Ends(command.arg(script).args(WAYS).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap());
    let mut output = BufReader::new(upstream.0.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    let ports: Vec<u16> = line.split_whitespace().map(|port| port.parse().unwrap()).collect();
    let folder = tempfile::tempdir().unwrap();
    let (nginx, haproxy) = (nginx(folder.path(), ports[1]), haproxy(folder.path(), ports[2]));
    let keys = folder.path().join("keys.yaml");
    let seed = std::env::var("BEARERD_FRAMING_SEED").map_or(SEED, |text| text.parse().unwrap());
    let cases = Cases::made(&new_key(&keys, &["--name", "alice"]), seed).all;
    let ways = [ports[0], nginx.1, haproxy.1].map(|port| bearerd(port, &keys));
    let answers = send(&cases, &ways.each_ref().map(|(bearerd, _)| bearerd.callers.clone()));
    // What is still open ends, so that all is seen.
    drop((ways, nginx, haproxy));
    drop(upstream.0.stdin.take());
    let seen = output.lines().map(|line| serde_json::from_str(&line.unwrap()).unwrap());
    judge(&cases, &answers, &by_case(seen, cases.len()));
}

/// What was seen of each case: first the request itself, then the marker.
type ByCase = Vec<[Vec<Seen>; 2]>;

fn by_case(seen: impl Iterator<Item = Seen>, count: usize) -> ByCase {
    let mut by_case = vec![[Vec::new(), Vec::new()]; count];
    for seen in seen {
        let (id, is_marker) = whose(&seen.target).or_else(|| whose(&seen.raw)).unwrap_or_else(|| panic!("nobody's request: {seen:?}"));
        by_case[id][usize::from(is_marker)].push(seen);
    }
    by_case
}

fn judge(cases: &[Case], answers: &[Vec<Vec<u8>>; 3], seen: &ByCase) {
    let mut counts: BTreeMap<&str, Counts> = BTreeMap::new();
    let mut wrong = Vec::new();
    for case in cases {
        let all = answers.each_ref().map(|answers| statuses(&answers[case.id]));
        let statuses = all.each_ref().map(|all| all.first().copied().unwrap_or_default());
        let [requests, markers] = &seen[case.id];
        let counts = counts.entry(case.class).or_default();
        counts.cases += 1;
        counts.forwarded += usize::from(statuses[0] == 200);
        counts.unanswered += usize::from(statuses[0] == 0);
        counts.refused_behind += (1..3).filter(|way| statuses[0] == 200 && statuses[*way] != 200).count();
        if let Err(why) = is_one_request(case, &all, requests, markers) {
            let sent = case.bytes[..case.bytes.len().min(1500)].escape_ascii();
            wrong.push(format!("{}: {why}\n  sent {sent}\n  answers {all:?}\n  seen {requests:?}\n  behind {markers:?}", case.class));
        }
    }
    println!("{:20} {:>6} {:>10} {:>8} {:>11} {:>15}", "class", "cases", "forwarded", "refused", "unanswered", "refused behind");
    for (class, Counts { cases, forwarded, unanswered, refused_behind }) in &counts {
        let refused = cases - forwarded - unanswered;
        println!("{class:20} {cases:6} {forwarded:10} {refused:8} {unanswered:11} {refused_behind:15}");
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

#[derive(Default)]
struct Counts {
    cases: usize,
    forwarded: usize,
    /// Incomplete: bearerd waited for the rest.
    unanswered: usize,
    /// Taken by the strict upstream, and refused by nginx or HAProxy.
    refused_behind: usize,
}

fn is_one_request(case: &Case, statuses: &[Vec<u16>; 3], requests: &[Seen], markers: &[Seen]) -> Result<(), String> {
    if let Some(malformed) = requests.iter().chain(markers).find(|seen| !seen.problem.is_empty()) {
        return Err(format!("malformed at {}: {}", malformed.way, malformed.problem));
    }
    let whole = |seen: &[Seen], way: &str| seen.iter().filter(|seen| seen.whole && seen.way == way).cloned().collect::<Vec<_>>();
    let strict = whole(requests, WAYS[0]);
    for (way, statuses) in WAYS.iter().zip(statuses) {
        let status = statuses.first().copied().unwrap_or_default();
        let (request, marker) = (whole(requests, way), whole(markers, way));
        if request.len() > 1 || marker.len() > 1 {
            return Err(format!("more than once at {way}"));
        }
        if request.len() != usize::from(status == 200) {
            return Err(format!("answered {status} by {way}, where {} came out", request.len()));
        }
        if let (Some(one), Some(other)) = (request.first(), strict.first())
            && one.request() != other.request()
        {
            return Err(format!("another request at {way}"));
        }
        if request.len() > strict.len() {
            return Err(format!("at {way} alone"));
        }
        // Where the first was refused but its end was plain, the next is a request like any other, and has an answer of its own.
        if marker.len() >= statuses.len().max(1) {
            return Err(format!("the marker instead of the request at {way}"));
        }
        // Bytes that the request left over before it are a part of its method, and one that the request wanted is missing there.
        if marker.iter().any(|seen| {
            !(seen.method.ends_with("GET") || "GET".ends_with(&seen.method)) || seen.body != hash(b"") || seen.host != "app.test"
        }) {
            return Err(format!("a changed marker at {way}"));
        }
        // A mutation may have changed the length itself.
        if case.class != "mutations" && request.iter().any(|seen| seen.swallowed) {
            return Err(format!("the marker is a part of the body at {way}"));
        }
    }
    let (method, target, body) = match &case.meaning {
        Meaning::Is(..) if statuses.iter().any(|statuses| statuses.first() != Some(&200)) => return Err("refused".into()),
        Meaning::Is(method, target, body) | Meaning::IsOrRefused(method, target, body) => (method, target, body),
        Meaning::Open => return Ok(()),
    };
    match strict.first() {
        Some(seen) if (seen.method.as_str(), &seen.target, &seen.body) != (method, target, &hash(body)) => Err("not what was sent".into()),
        _ => Ok(()),
    }
}

fn hash(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
