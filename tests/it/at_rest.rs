//! What bearerd leaves where others could find it: files, and what a crash would leave.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;

use crate::support::client::get;
use crate::support::events::PATIENCE;
use crate::support::process::{Process, on_free_ports};
use crate::support::stage::{self, surroundings};
use crate::support::upstream::RecordingUpstream;

/// Everything that makes bearerd write a file.
fn configuration(upstream: &RecordingUpstream) -> String {
    on_free_ports(&format!(
        "token_services:\n  default: {{ kind: embedded, address: 127.0.0.1:0, keys_file: keys.yaml, signing_key_file: signing.pem, state_file: state.redb }}\n\
         upstreams: {{ app: {{ servers: [\"{}\"] }} }}\n\
         routes: [{{ upstream: app, credentials: [{{ mounted: {{ file: alice.key }} }}] }}]\n\
         sinks: [{{ credential: {{ mounted: {{ file: alice.key }} }}, path: token }}]\n\
         cache: {{ ledger: {{ path: ledger.redb, key_files: [ledger.key] }} }}\n",
        upstream.address()
    ))
}

/// Files below `folder`, and what everybody may do with each.
fn files(folder: &Path) -> Vec<(String, u32)> {
    let mut found: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            (entry.file_name().into_string().unwrap(), entry.metadata().unwrap().permissions().mode() & 0o777)
        })
        .collect();
    found.sort();
    found
}

#[tokio::test]
async fn whatever_it_writes_is_its_owners_alone_under_any_umask() {
    let upstream = RecordingUpstream::start().await;
    let folder = tempfile::tempdir().unwrap();
    let program = env!("CARGO_BIN_EXE_bearerd");
    let made = Command::new("sh")
        .args(["-c", "umask 0; exec \"$0\" keys new --name alice --keys-file keys.yaml", program])
        .current_dir(&folder)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    for (name, content) in [("alice.key", &*made.stdout), ("ledger.key", &[7; 32]), ("bearerd.yaml", configuration(&upstream).as_bytes())] {
        fs::write(folder.path().join(name), content).unwrap();
        fs::set_permissions(folder.path().join(name), fs::Permissions::from_mode(0o400)).unwrap();
    }
    let process = Process::start_under(&["sh", "-c", "umask 0; exec \"$0\" \"$@\""], &["run", "-c", "bearerd.yaml"], &[], folder);
    let addresses = process.addresses().await;
    // Ready once there is a token for the mounted key, which the sink writes.
    let written =
        async { while get(addresses.metrics, "/readyz", &[]).await.status != 200 || !process.directory().join("token").exists() {} };
    tokio::time::timeout(PATIENCE, written).await.unwrap();
    process.signal(Signal::TERM);
    let directory = process.directory().to_owned();
    let found = files(&directory);
    assert!(process.ended().await.status.success());
    let names: Vec<_> = found.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["alice.key", "bearerd.yaml", "keys.yaml", "ledger.key", "ledger.redb", "signing.pem", "state.redb", "token"]);
    assert!(found.iter().all(|(_, mode)| mode & 0o077 == 0), "{found:?}");
}

#[tokio::test]
async fn a_crash_leaves_no_core() {
    let (service, upstream) = surroundings().await;
    let process = Process::run(&stage::configuration(&service, &upstream, "", "  - { upstream: app }"));
    process.addresses().await;
    let limits = fs::read_to_string(format!("/proc/{}/limits", process.id())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().collect::<Vec<_>>(), ["Max", "core", "file", "size", "0", "0", "bytes"]);
}
