//! `bearerd demo`, with the commands that it prints, as a person pastes them. Its ports are fixed, so there is one test only.

use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::process::Process;
use crate::support::token_service::claims;

/// Runs a command and returns what it prints.
fn paste(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    assert!(output.status.success(), "{command}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The headers that the app received.
fn received(answer: &str) -> Value {
    let received: Value = serde_json::from_str(answer).unwrap_or_else(|error| panic!("{error}: {answer}"));
    assert_eq!(received["method"], "GET");
    received["headers"].clone()
}

/// Tokens asked for, and found at hand.
fn asked_and_found(metrics: &str) -> (u32, u32) {
    let value = |name: &str| {
        let line = metrics.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name} in {metrics}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    (value("bearerd_mints_total"), value(r#"bearerd_cache_requests_total{result="hit"}"#))
}

#[tokio::test]
async fn the_printed_commands_do_what_is_said_of_them() {
    let demo = Process::start(&["demo"]);
    let output = demo.output();
    tokio::select! {
        () = output.stdout.wait_for(1, |line| line.starts_with("Ctrl-C")) => {}
        () = output.stderr.wait_for(1, |line| line.contains("cannot listen")) => {
            panic!("this test needs the demo's ports (3000, 8080, 8090, 9901, 9902) for itself: {}", output.stderr.all().join("\n"));
        }
    }
    let guide = output.stdout.all();
    let commands: Vec<&str> = guide.iter().filter(|line| line.starts_with("    curl ")).map(|line| line.trim()).collect();
    let [known, unknown, public, metrics] = commands[..] else { panic!("four commands, not {commands:?}") };

    let answer = paste(known);
    let headers = received(&answer);
    let bearer = headers["authorization"][0].as_str().unwrap().strip_prefix("Bearer ").unwrap();
    assert_eq!(claims(bearer)["sub"], "alice");
    assert!(headers["x-api-key"].is_null() && !answer.contains("demo-key-alice"), "{answer}");

    let answer = paste(unknown);
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let problem: Value = serde_json::from_str(body).unwrap();
    assert_eq!(problem["type"], "urn:bearerd:problem:denied");
    assert!(problem["detail"].as_str().is_some_and(|detail| !detail.is_empty()));

    assert!(received(&paste(public))["authorization"].is_null());

    let (asked, found) = asked_and_found(&paste(metrics));
    paste(known);
    assert_eq!(asked_and_found(&paste(metrics)), (asked, found + 1), "only the hits grow");

    demo.signal(Signal::INT);
    let ended = demo.ended().await;
    assert_eq!(ended.code(), 0, "{:?}", ended.stderr);
}
