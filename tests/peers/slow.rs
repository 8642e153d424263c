//! `slowhttptest` makes slow callers, and looks whether others are served.

use std::process::Command;

use crate::bearerd::Bearerd;
use crate::mirror::mirror;
use crate::proxies::peer;

/// Runs one of its modes for a few seconds.
fn slow(mode: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let configuration = format!(
        "listeners: [{{ address: 127.0.0.1:0, limits: {{ header_timeout: 3s, idle_timeout: 3s }} }}]\n\
         admin: {{ address: 127.0.0.1:0 }}\nmetrics: {{ address: 127.0.0.1:0 }}\n\
         upstreams: {{ app: {{ servers: ['{}'] }} }}\nroutes: [{{ upstream: app, auth: none }}]\nlogging: {{ format: json, access: false }}\n",
        mirror()
    );
    let bearerd = Bearerd::start(folder.path(), &configuration);
    let url = format!("http://{}/", bearerd.callers);
    let mut program = Command::new(peer("slowhttptest"));
    // Connections, and how many a second; between two pieces of a request a second; what counts as no answer is 20 seconds.
    program.args(["-c", "400", "-r", "200", "-i", "1", "-p", "20", "-l", "8", "-u", &url]).args(mode);
    let output = program.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("service available:"), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let availability: Vec<&str> = said.lines().filter(|line| line.contains("service available:")).collect();
    assert!(availability.iter().all(|line| line.contains("YES")), "{availability:?}");
}

#[test]
fn slowhttptest_finds_the_service_available_under_slow_headers() {
    slow(&["-H"]);
}

#[test]
fn slowhttptest_finds_the_service_available_under_slow_bodies() {
    slow(&["-B", "-t", "POST", "-s", "65536"]);
}

#[test]
fn slowhttptest_finds_the_service_available_under_slow_reading() {
    slow(&["-X", "-w", "1", "-y", "2", "-n", "1", "-z", "1"]);
}
