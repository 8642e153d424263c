//! `slowhttptest` makes slow callers, and looks whether others are served. They take nearly all connections that there may be.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::bearerd::{Bearerd, get};
use crate::mirror::mirror;
use crate::proxies::peer;

const SLOW: usize = 400;
/// Room for those whom it sends to look.
const CONNECTIONS: usize = SLOW + 10;

/// Runs one of its modes for a few seconds.
fn slow(upstream: SocketAddr, mode: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let limits = format!("connections: {CONNECTIONS}, header_timeout: 6s, idle_timeout: 6s");
    let configuration = format!(
        "listeners: [{{ address: 127.0.0.1:0, limits: {{ {limits} }} }}]\n\
         admin: {{ address: 127.0.0.1:0 }}\nmetrics: {{ address: 127.0.0.1:0 }}\n\
         upstreams: {{ app: {{ servers: ['{upstream}'] }} }}\nroutes: [{{ upstream: app, auth: none }}]\nlogging: {{ format: json, access: false }}\n"
    );
    let bearerd = Bearerd::start(folder.path(), &configuration);
    let url = format!("http://{}/", bearerd.callers);
    let mut program = Command::new(peer("slowhttptest"));
    // Connections, and how many a second; between two pieces of a request a second; what counts as no answer is 20 seconds.
    program.args(["-c", &SLOW.to_string(), "-r", "200", "-i", "1", "-p", "20", "-l", "10", "-u", &url]).args(mode);
    let running = thread::spawn(move || program.output().unwrap());
    let mut most = 0;
    while !running.is_finished() {
        most = most.max(connections(&bearerd.metrics));
    }
    let output = running.join().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let availability: Vec<&str> = said.lines().filter(|line| line.contains("service available:")).collect();
    println!("{most} connections at most; looked {} times", availability.len());
    assert!(!availability.is_empty(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(availability.iter().all(|line| line.contains("YES")), "{availability:?}");
    assert!(most > SLOW / 2, "no more than {most} connections of {CONNECTIONS} were taken: this shows nothing");
}

/// How many callers are connected.
fn connections(metrics: &str) -> usize {
    let (_, exposition) = get(metrics, "/metrics", "");
    exposition.lines().find_map(|line| line.strip_prefix("bearerd_connections ")).unwrap().parse().unwrap()
}

/// How many answers an upstream has begun, and how many all of was taken from it.
#[derive(Default)]
struct Answers {
    begun: AtomicUsize,
    taken: AtomicUsize,
}

/// An upstream whose answers fit into no buffer.
fn plentiful() -> (SocketAddr, Arc<Answers>) {
    const LENGTH: usize = 16 << 20;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, answers) = (listener.local_addr().unwrap(), Arc::<Answers>::default());
    let counted = Arc::clone(&answers);
    thread::spawn(move || {
        let body: Arc<[u8]> = vec![b'x'; LENGTH].into();
        for stream in listener.incoming() {
            let (mut stream, body, counted) = (BufReader::new(stream.unwrap()), Arc::clone(&body), Arc::clone(&counted));
            thread::spawn(move || {
                if stream.by_ref().lines().map_while(Result::ok).take_while(|line| !line.is_empty()).count() == 0 {
                    return;
                }
                counted.begun.fetch_add(1, Ordering::SeqCst);
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\nConnection: close\r\n\r\n");
                let stream = stream.get_mut();
                // Where its caller is given up, so is it.
                if stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body)).is_ok() {
                    counted.taken.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
    });
    (address, answers)
}

#[test]
fn slowhttptest_finds_the_service_available_under_slow_headers() {
    slow(mirror(), &["-H"]);
}

#[test]
fn slowhttptest_finds_the_service_available_under_slow_bodies() {
    slow(mirror(), &["-B", "-t", "POST", "-s", "65536"]);
}

#[test]
fn slowhttptest_finds_the_service_available_under_slow_reading() {
    let (upstream, answers) = plentiful();
    slow(upstream, &["-X", "-w", "1", "-y", "2", "-n", "1", "-z", "1"]);
    let (begun, taken) = (answers.begun.load(Ordering::SeqCst), answers.taken.load(Ordering::SeqCst));
    println!("{begun} answers were begun, all of {taken} was taken");
    assert!(begun > SLOW * 3 / 4 && taken < begun / 4, "of {begun} answers {taken} were taken: bearerd had nobody to wait for");
}
