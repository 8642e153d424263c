//! `bearerd webhook`: pods hold secrets that are not its business, and its TLS key is one.

use serde_json::{Value, json};

use super::canary::{CANARY, assert_clean, secret};
use crate::support::client::Client;
use crate::support::process::Process;
use crate::support::tls::Authority;

const NAME: &str = "bearerd.bearerd.svc";

/// A pod whose own environment holds a secret, with these annotations.
fn pod(annotations: &Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": "a", "annotations": annotations },
        "spec": { "containers": [{ "name": "a", "env": [{ "name": "PASSWORD", "value": secret("password") }], "args": [secret("argument")] }] }
    })
}

fn review(object: &Value) -> String {
    let request = json!({ "uid": "1", "operation": "CREATE", "object": object });
    json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request }).to_string()
}

#[tokio::test]
async fn no_secret_of_a_pod_leaves_the_webhook() {
    let authority = Authority::new();
    let pair = authority.issue(NAME);
    authority.yaml_pair("tls", &pair);
    let file = |name: &str| authority.ca().with_file_name(name).display().to_string();
    let process = Process::start(&[
        "webhook",
        "--address",
        "127.0.0.1:0",
        "--metrics-address",
        "127.0.0.1:0",
        "--certificate",
        &file("tls.crt"),
        "--private-key",
        &file("tls.key"),
        "--image",
        "registry.example.com/bearerd:0.1.0",
    ]);
    process.output().stderr.wait_for(1, |line| line.contains("\"listening\"")).await;
    let line: Value = serde_json::from_str(&process.output().stderr.all()[0]).unwrap();
    let address = |name: &str| line[name].as_str().unwrap().parse().unwrap();
    let asking =
        json!({ "bearerd.dev/inject": "true", "bearerd.dev/upstream-port": "3000", "bearerd.dev/token-service": "https://t.example.com" });
    let mut odd = pod(&asking);
    odd["spec"]["containers"][0]["env"] = json!({ "PASSWORD": secret("password") });
    let mut odder = pod(&asking);
    odder["spec"]["containers"] = json!(secret("container"));
    let bodies = [
        review(&pod(&asking)),
        review(&pod(&json!({ "other": secret("other") }))),
        review(&pod(&json!({ "bearerd.dev/inject": "true", "bearerd.dev/confg": "c", "other": secret("other") }))),
        review(&odd),
        review(&odder),
        review(&json!([secret("object")])),
        review(&pod(&asking)).replace("\"kind\":\"Pod\"", "\"kind\":"),
        format!("{{\"apiVersion\":\"{CANARY}\",\"kind\":\"{CANARY}\",\"request\":\"{CANARY}\"}}"),
        format!("{{{}", secret("body")),
    ];
    for body in bodies {
        let mut client = Client::over(authority.connect(address("address"), NAME, None, &[b"http/1.1"]).await.unwrap());
        let head = format!(
            "POST /inject HTTP/1.1\r\nHost: {NAME}\r\nContent-Type: application/json\r\nX-API-Key: {}\r\nContent-Length: {}\r\n\r\n",
            secret("key"),
            body.len()
        );
        let answer = client.exchange(head + &body).await;
        assert_clean(&format!("the answer to {body}"), &format!("{:?}{}", answer.head, answer.body.text()));
    }
    // One who does not know that this is TLS.
    let _ = Client::connect(address("address"))
        .await
        .exchange_or_end(format!("GET /healthz HTTP/1.1\r\nHost: a\r\nX-API-Key: {}\r\n\r\n", secret("blind")))
        .await;
    let metrics = Client::connect(address("metrics")).await.get("/metrics", &[]).await;
    assert_clean("the metrics", &metrics.body.text());
    // A key that is none takes no one's place, and is not told.
    authority.file("tls.key", &format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", secret("tls")));
    process.output().stderr.wait_for(1, |line| line.contains("TLS files changed and cannot be used")).await;
    process.signal(rustix::process::Signal::TERM);
    let ended = process.ended().await;
    assert_eq!(ended.code(), 0);
    let log = ended.stderr.join("\n");
    assert!(log.contains("\"injected\"") && log.contains("\"refused\""), "{log}");
    assert_clean("the log", &log);
    let private = pair.1.lines().find(|line| !line.starts_with('-')).unwrap();
    assert!(!log.contains(private));
}
