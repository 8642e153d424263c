//! Faults that need more than cargo: `libfaketime` lets the clock jump, `bwrap` gives the process names of its own.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use crate::bearerd::{Bearerd, new_key};
use crate::mirror::mirror;
use crate::proxies::peer;

const PATIENCE: Duration = Duration::from_secs(60);
const HOUR: i64 = 3600;

fn configuration(server: &str, more: &str) -> String {
    format!(
        "listeners: [{{ address: 127.0.0.1:0 }}]\nadmin: {{ address: 127.0.0.1:0 }}\nmetrics: {{ address: 127.0.0.1:0 }}\n\
         token_services: {{ default: {{ kind: embedded, keys_file: keys.yaml, signing_key_file: signing.pem }} }}\n\
         upstreams: {{ app: {{ servers: ['{server}'], dns_refresh: 1s {more} }} }}\nroutes: [{{ upstream: app }}]\n\
         logging: {{ format: json, access: false }}\n"
    )
}

/// One request: its status, and the claims of the token that the app got.
fn ask(bearerd: &Bearerd, key: &str) -> (u16, Option<Value>) {
    let mut stream = TcpStream::connect(&bearerd.callers).unwrap();
    write!(stream, "GET / HTTP/1.1\r\nHost: app.test\r\nX-API-Key: {key}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let token = answer.split("Bearer ").nth(1).and_then(|rest| rest.split('.').nth(1));
    let claims = token.map(|part| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap());
    (answer[9..12].parse().unwrap(), claims)
}

/// By the system's clock, in seconds, with this on top.
fn now(shift: i64) -> i64 {
    i64::try_from(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()).unwrap() + shift
}

/// Its own token service's clock jumps with it: so callers are served all along, and never with a token that is over by that clock.
#[test]
fn a_clock_that_jumps_an_hour_either_way_costs_no_request_and_sends_no_dead_token_on() {
    let folder = tempfile::tempdir().unwrap();
    let key = new_key(&folder.path().join("keys.yaml"), &["--name", "alice"]);
    let shift = folder.path().join("shift");
    // The file is looked at for each reading, so it is never half written.
    let jump = |text: &str| {
        fs::write(folder.path().join("next"), text).unwrap();
        fs::rename(folder.path().join("next"), &shift).unwrap();
    };
    jump("+0");
    let mut command = Command::new(env!("CARGO_BIN_EXE_bearerd"));
    command.env("LD_PRELOAD", peer("libfaketime.so")).env("FAKETIME_TIMESTAMP_FILE", &shift);
    command.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    let bearerd = Bearerd::start_by(command, folder.path(), &configuration(&mirror().to_string(), ""));
    let served = || {
        let (status, claims) = ask(&bearerd, &key);
        assert_eq!(status, 200);
        claims.unwrap()
    };
    let minted = |claims: &Value| claims["iat"].as_i64().unwrap();
    let first = served();
    assert!(minted(&first) <= now(0) && first["exp"].as_i64().unwrap() > now(0));

    jump("+3600");
    let began = Instant::now();
    let second = loop {
        let claims = served();
        if claims != first {
            break claims;
        }
        assert!(began.elapsed() < PATIENCE, "the old token is over by its clock");
    };
    assert!(minted(&second) >= now(HOUR) - 60, "{second}");

    // By this clock it is not valid yet: it goes on, as the old one, for no longer than it had to live, or another comes.
    jump("-3600");
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(3) {
        let claims = served();
        assert!(claims == second || minted(&claims) <= now(-HOUR), "{claims}");
    }
    jump("+0");
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(3) {
        served();
    }
}

/// The file stays the same one: it is bound into the process's view of the system.
fn rewrite(file: &Path, text: &str) {
    fs::write(file, text).unwrap();
}

#[test]
fn a_name_that_comes_and_goes_is_noticed_and_its_last_addresses_serve_on() {
    let folder = tempfile::tempdir().unwrap();
    let key = new_key(&folder.path().join("keys.yaml"), &["--name", "alice"]);
    let (hosts, switch) = (folder.path().join("hosts"), folder.path().join("nsswitch.conf"));
    rewrite(&hosts, "127.0.0.1 localhost\n");
    // Names come from that file alone.
    rewrite(&switch, "hosts: files\n");
    let mut command = Command::new("bwrap");
    command.args(["--dev-bind", "/", "/", "--bind"]).arg(&hosts).arg("/etc/hosts").arg("--bind").arg(&switch).arg("/etc/nsswitch.conf");
    command.args(["--die-with-parent", env!("CARGO_BIN_EXE_bearerd")]);
    let server = format!("app.faults.test:{}", mirror().port());
    let mut bearerd = Bearerd::start_by(command, folder.path(), &configuration(&server, ""));
    bearerd.says("name not resolved");
    assert_eq!(ask(&bearerd, &key).0, 502);

    rewrite(&hosts, "127.0.0.1 localhost app.faults.test\n");
    let began = Instant::now();
    while ask(&bearerd, &key).0 != 200 {
        assert!(began.elapsed() < PATIENCE, "the name is there");
    }

    rewrite(&hosts, "127.0.0.1 localhost\n");
    bearerd.says("name not resolved");
    for _ in 0..3 {
        assert_eq!(ask(&bearerd, &key).0, 200, "where it was last");
    }
}
