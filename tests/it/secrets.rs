//! No secret in anything that bearerd writes: logs at `trace`, metrics, traces, answers, its files, mistakes in a configuration.
//!
//! Canaries go in wherever a secret can; then everything that came out is searched for each of them, as it is and encoded.

mod canary;
mod configuration;
mod embedded;
mod http1;
mod listeners;
mod own_keys;
mod scene;
mod token_api;
mod webhook;

use self::canary::{assert_clean, secret};
use self::http1::{bringing_a_jwt, failed_by_the_upstream, malformed, refused_by_the_service, served};
use self::scene::{API, Scene, assert_no_credential};
use crate::support::jwt::{Signer, key_set};
use crate::support::server::Server;
use crate::support::stage::surroundings;

/// CVE-2026-108754, CVE-2026-62386.
#[tokio::test]
async fn no_secret_leaves_bearerd() {
    let (service, upstream) = surroundings().await;
    let gone = {
        let mut server = Server::start(|_, _| async {}).await;
        server.stop().await;
        server.address()
    };
    let directory = tempfile::tempdir().unwrap();
    let signer = Signer::new("k1");
    std::fs::write(directory.path().join("jwks.json"), key_set(&[&signer])).unwrap();
    let configuration = format!(
        "listeners: [{{ address: 127.0.0.1:0, limits: {{ header_bytes: 8KiB, header_timeout: 300ms }} }}]
token_services: {{ default: {{ kind: iap, url: \"{}\", timeout: 300ms, breaker: {{ failures: 1000 }} }} }}
upstreams:
  app: {{ servers: [\"{}\"], timeouts: {{ read: 300ms }} }}
  gone: {{ servers: [\"{gone}\"] }}
routes:
  - {{ name: public, match: {{ path_prefix: /public }}, auth: none, upstream: app }}
  - {{ name: gone, match: {{ path_prefix: /gone }}, upstream: gone }}
  - {{ name: session, match: {{ path_prefix: /session }}, upstream: app, token: {{ return_session_token: true }} }}
  - {{ name: shadow, match: {{ path_prefix: /shadow }}, upstream: app, enforce: false, require: {{ scopes: [X] }} }}
  - name: jwt
    match: {{ path_prefix: /jwt }}
    upstream: app
    validate: {{ jwt: {{ jwks_file: jwks.json, algorithms: [ES256], audiences: [app] }} }}
    require: {{ claims: {{ role: {{ present: true }} }} }}
    headers: {{ set: {{ X-User: \"{{claims.sub}}\", X-Odd: \"{{claims.odd}}\" }} }}
    rate_limit: {{ requests: 1000 }}
{API}",
        service.url(),
        upstream.address(),
    );
    let mut scene = Scene::set(service, upstream, directory, &configuration).await;
    served(&mut scene).await;
    refused_by_the_service(&mut scene).await;
    failed_by_the_upstream(&mut scene).await;
    bringing_a_jwt(&mut scene, &signer).await;
    for request in malformed(&secret("malformed")) {
        scene.send_to(scene.callers[0], request).await;
    }
    scene.ask_as_operator().await;
    for arguments in [&["config", "show"][..], &["config", "show", "--format", "json"], &["check"], &["doctor"]] {
        asked_by_command(&scene, arguments).await;
    }
    let _hangs = scene.hang("/api", &format!("X-API-Key: {}\r\n", secret("good-header"))).await;
    let passed_on = |target: &str| ["/jwt", "/shadow"].iter().any(|path| target.starts_with(path));
    for head in scene.search(&[]).await.into_iter().filter(|head| !passed_on(head.word(1))) {
        assert_no_credential(head);
    }
}

/// The commands that show a configuration, beside the process that runs with it.
async fn asked_by_command(scene: &Scene, arguments: &[&str]) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_bearerd"));
    command.args(arguments).args(["-c", "bearerd.yaml"]).current_dir(scene.process.directory()).env("SHARED", secret("shared"));
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert_ne!(output.status.code(), Some(2), "{arguments:?} is no command");
    assert_clean(&format!("{arguments:?}"), &format!("{output:?}"));
    assert!(output.stdout.len() + output.stderr.len() > 10, "{arguments:?}");
}
