//! HTTP/2 abused by frames that were built by hand: memory is bounded, nothing is smuggled, and others are served meanwhile.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::bearerd::{Bearerd, new_key};
use crate::mirror::mirror;
use crate::proxies::{free_port, peer};

/// Runs one attack of `http2_abuse.py` against a bearerd of its own.
fn attack(name: &str) {
    let folder = tempfile::tempdir().unwrap();
    let key = new_key(&folder.path().join("keys.yaml"), &["--name", "alice"]);
    let port = free_port();
    let limits = "limits: { header_timeout: 2s, idle_timeout: 2s }";
    let configuration = format!(
        "listeners: [{{ address: 127.0.0.1:0, h2c: true, {limits} }}, {{ address: 127.0.0.1:0, {limits} }}]\n\
         admin: {{ address: 127.0.0.1:0 }}\nmetrics: {{ address: 127.0.0.1:0 }}\n\
         token_services: {{ default: {{ kind: embedded, keys_file: keys.yaml, signing_key_file: signing.pem }} }}\n\
         upstreams: {{ app: {{ servers: ['127.0.0.1:{port}'], timeouts: {{ read: 2s }} }}, near: {{ servers: ['{}'] }} }}\n\
         routes: [{{ match: {{ path: /neighbour }}, upstream: near }}, {{ upstream: app }}]\nlogging: {{ format: json, access: false }}\n",
        // It is bearerd that is to have time for the neighbour: the attacked upstream may have none.
        mirror()
    );
    let mut command = Command::new(env!("CARGO_BIN_EXE_bearerd"));
    // Without huge pages, which would show memory by the 2 MiB.
    command.env("MIMALLOC_ALLOW_THP", "0");
    let bearerd = Bearerd::start_by(command, folder.path(), &configuration);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/http2_abuse.py");
    let mut command = Command::new(peer("frames-venv").join("bin/python"));
    command
        .arg(script)
        .arg(port.to_string())
        .arg(bearerd.id().to_string())
        .args(bearerd.callers.split(", "))
        .arg(&bearerd.metrics)
        .arg(name);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut String::new()).unwrap();
    // Where it ended before this, its errors tell why.
    let _ = writeln!(child.stdin.as_mut().unwrap(), "{key}");
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}");
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn cve_2023_44487_rapid_resets_are_bounded() {
    attack("rapid_reset");
}

#[test]
fn cve_2025_8671_made_you_reset_is_bounded() {
    attack("made_you_reset");
}

#[test]
fn rustsec_2024_0332_a_flood_of_continuations_is_cut_off() {
    attack("continuation_flood");
}

#[test]
fn rustsec_2026_0258_a_flood_of_empty_data_is_bounded() {
    attack("empty_data_flood");
}

#[test]
fn cve_2019_9512_cve_2019_9515_floods_of_pings_and_settings_are_bounded_though_nobody_reads_the_answers() {
    attack("settings_flood");
}

#[test]
fn cve_2026_105297_an_hpack_bomb_is_refused() {
    attack("hpack_bomb");
}

#[test]
fn windows_that_stay_shut_hold_neither_memory_nor_streams() {
    attack("window_games");
}

#[test]
fn bodies_that_never_end_hold_no_stream() {
    attack("unfinished_bodies");
}

#[test]
fn cve_2026_90678_a_body_shorter_or_longer_than_declared_spoils_no_other_request() {
    attack("short_bodies");
}

#[test]
fn cve_2026_42926_cr_lf_and_nul_in_values_reach_no_upstream() {
    attack("odd_values");
}
