//! `bearerd webhook` over real TLS: reviews in, and what comes of the objects compared with `bearerd inject`.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bearerd::kubernetes::{Defaults, manifest};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::client::{Client, Response};
use crate::support::events::PATIENCE;
use crate::support::process::Process;
use crate::support::tls::Authority;

const IMAGE: &str = "registry.example.com/bearerd:0.1.0";
const NAME: &str = "bearerd.bearerd.svc";

struct Webhook {
    process: Process,
    authority: Authority,
    address: SocketAddr,
    metrics: SocketAddr,
}

impl Webhook {
    async fn start(arguments: &[&str]) -> Self {
        let authority = Authority::new();
        authority.yaml_pair("tls", &authority.issue(NAME));
        let ca = authority.ca();
        let file = |name: &str| ca.with_file_name(name).display().to_string();
        let (certificate, key) = (file("tls.crt"), file("tls.key"));
        let loopback = "127.0.0.1:0";
        let own = [
            "webhook",
            "--address",
            loopback,
            "--metrics-address",
            loopback,
            "--certificate",
            &certificate,
            "--private-key",
            &key,
            "--image",
            IMAGE,
        ];
        let ca = ca.display().to_string();
        let arguments = arguments.iter().map(|argument| if *argument == "CA" { ca.as_str() } else { argument });
        let process = Process::start(&own.into_iter().chain(arguments).collect::<Vec<_>>());
        process.output().stderr.wait_for(1, |line| line.contains("\"listening\"")).await;
        let line: Value = serde_json::from_str(&process.output().stderr.all()[0]).unwrap();
        let address = |name: &str| line[name].as_str().unwrap().parse().unwrap();
        Self { process, authority, address: address("address"), metrics: address("metrics") }
    }

    async fn connect(&self) -> Client {
        // Go's client offers both; the webhook speaks HTTP/1.1.
        let stream = self.authority.connect(self.address, NAME, None, &[b"h2", b"http/1.1"]).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"http/1.1".as_slice()));
        Client::over(stream)
    }

    async fn review(&self, client: &mut Client, request: &Value) -> Value {
        let review = json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request });
        let answer = post(client, &review.to_string()).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")), "{}", answer.body.text());
        let answer: Value = serde_json::from_str(&answer.body.text()).unwrap();
        assert_eq!((&answer["apiVersion"], &answer["kind"]), (&json!("admission.k8s.io/v1"), &json!("AdmissionReview")));
        assert_eq!(answer["response"]["uid"], request["uid"]);
        answer["response"].clone()
    }
}

async fn post(client: &mut Client, body: &str) -> Response {
    let head = format!(
        "POST /inject?timeout=10s HTTP/1.1\r\nHost: {NAME}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    client.exchange(head + body).await
}

fn patched(object: &Value, response: &Value) -> Value {
    let mut object = object.clone();
    if let Some(patch) = response["patch"].as_str() {
        assert_eq!(response["patchType"], "JSONPatch");
        let patch: json_patch::Patch = serde_json::from_slice(&STANDARD.decode(patch).unwrap()).unwrap();
        json_patch::patch(&mut object, &patch).unwrap();
    }
    object
}

fn documents(text: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(text).unwrap()
}

fn pod(annotations: &Value) -> Value {
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "generateName": "a-", "annotations": annotations }, "spec": { "containers": [{ "name": "a" }] } })
}

fn creating(uid: &str, object: &Value) -> Value {
    json!({ "uid": uid, "operation": "CREATE", "dryRun": false, "object": object })
}

#[tokio::test]
async fn objects_become_what_inject_makes_of_them() {
    let webhook = Webhook::start(&[]).await;
    let mut client = webhook.connect().await;
    let defaults = Defaults { image: IMAGE.to_owned(), token_service: None };
    for name in ["deployment.yaml", "outbound.yaml", "ordinary.yaml", "pod.json", "web.yaml", "queue.yaml", "list.yaml", "untouched.yaml"] {
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/manifests").join(name)).unwrap();
        let injected = documents(&manifest::inject(&text, &defaults).unwrap().text);
        for (place, (object, expected)) in documents(&text).iter().zip(&injected).enumerate() {
            let uid = format!("{name}-{place}");
            let response = webhook.review(&mut client, &creating(&uid, object)).await;
            assert_eq!(response["allowed"], true);
            assert_eq!(patched(object, &response), *expected, "{uid}");
            // Asked again with the result, as `reinvocationPolicy: IfNeeded` does: nothing more.
            let again = webhook.review(&mut client, &creating(&uid, expected)).await;
            assert_eq!(again, json!({ "uid": uid, "allowed": true }));
            // A dry run is answered alike: nothing else is done anyway.
            let mut dry = creating(&uid, object);
            dry["dryRun"] = true.into();
            assert_eq!(webhook.review(&mut client, &dry).await, response);
        }
    }
}

#[tokio::test]
async fn whoever_does_not_ask_is_let_through_and_mistakes_are_told() {
    let webhook = Webhook::start(&["--token-service", "https://tokens.example.com"]).await;
    let mut client = webhook.connect().await;
    let object = pod(&json!({ "other": "x" }));
    assert_eq!(webhook.review(&mut client, &creating("1", &object)).await, json!({ "uid": "1", "allowed": true }));
    let asking = pod(&json!({ "bearerd.dev/inject": "true", "bearerd.dev/upstream-port": "3000" }));
    let response = webhook.review(&mut client, &creating("2", &asking)).await;
    assert_eq!(patched(&asking, &response)["spec"]["initContainers"][0]["image"], IMAGE);
    assert!(response["warnings"][0].as_str().unwrap().contains("Pod `a-`: container `a` has no `lifecycle.preStop`"), "{response}");
    webhook.process.output().stderr.wait_for(1, |line| line.contains("\"injected\"") && line.contains("\"uid\":\"2\"")).await;
    let mistaken = pod(&json!({ "bearerd.dev/inject": "true", "bearerd.dev/confg": "c" }));
    let response = webhook.review(&mut client, &creating("3", &mistaken)).await;
    assert_eq!((&response["allowed"], &response["status"]["code"], &response["patch"]), (&json!(false), &json!(422), &Value::Null));
    let message = response["status"]["message"].as_str().unwrap();
    assert!(message.contains("Pod `a-`: `metadata.annotations['bearerd.dev/confg']`") && message.contains("did you mean"), "{message}");
}

#[tokio::test]
async fn what_is_no_review_or_too_large_is_refused() {
    let webhook = Webhook::start(&[]).await;
    let mut client = webhook.connect().await;
    for body in ["", "{", "[]", "{\"apiVersion\":\"admission.k8s.io/v1beta1\",\"kind\":\"AdmissionReview\",\"request\":{\"uid\":\"1\"}}"] {
        let answer = post(&mut client, body).await;
        assert_eq!(answer.status, 400, "{body}");
        assert!(answer.body.text().contains("AdmissionReview"), "{}", answer.body.text());
    }
    assert_eq!(post(&mut client, &"[".repeat(100_000)).await.status, 400);
    assert_eq!(client.get("/healthz", &[]).await.status, 200);
    assert_eq!(client.get("/inject", &[]).await.status, 405);
    assert_eq!(client.get("/elsewhere", &[]).await.status, 404);
    client.send(format!("POST /inject HTTP/1.1\r\nHost: {NAME}\r\nContent-Length: {}\r\n\r\n", (3 << 20) + 1)).await;
    let answer = client.exchange_or_end(vec![b' '; (3 << 20) + 1]).await;
    assert!(answer.is_none_or(|answer| answer.status == 413));
    // Others are served meanwhile, and after.
    assert_eq!(webhook.connect().await.get("/healthz", &[]).await.status, 200);
    // Without TLS there is no answer.
    assert!(Client::connect(webhook.address).await.exchange_or_end("GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n").await.is_none());
    webhook.process.signal(Signal::TERM);
    drop(client);
    assert_eq!(webhook.process.ended().await.code(), 0);
}

#[tokio::test]
async fn certificates_that_change_are_used_and_those_that_fit_not_are_told() {
    let webhook = Webhook::start(&[]).await;
    let serial = async || {
        let stream = webhook.authority.connect(webhook.address, NAME, None, &[]).await.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    };
    let first = serial().await;
    webhook.authority.yaml_pair("tls", &webhook.authority.issue(NAME));
    let changed = async { while serial().await == first {} };
    tokio::time::timeout(PATIENCE, changed).await.unwrap();

    let ended =
        Process::start(&["webhook", "--address", "127.0.0.1:0", "--certificate", "none.crt", "--private-key", "none.key"]).ended().await;
    assert_eq!(ended.code(), 78);
    assert!(ended.stderr.concat().contains("none.crt"), "{:?}", ended.stderr);
}

#[tokio::test]
async fn with_client_ca_only_its_callers_are_answered() {
    let webhook = Webhook::start(&["--client-ca", "CA"]).await;
    let own = webhook.authority.issue_to("apiserver");
    let stream = webhook.authority.connect(webhook.address, NAME, Some(&own), &[]).await.unwrap();
    assert_eq!(Client::over(stream).get("/healthz", &[]).await.status, 200);
    let refused = match webhook.authority.connect(webhook.address, NAME, None, &[]).await {
        Ok(stream) => Client::over(stream).exchange_or_end("GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n").await.is_none(),
        Err(_) => true,
    };
    assert!(refused);
}

#[tokio::test]
async fn what_became_of_reviews_is_counted() {
    let webhook = Webhook::start(&["--token-service", "https://tokens.example.com"]).await;
    let mut client = webhook.connect().await;
    let asking = pod(&json!({ "bearerd.dev/inject": "true", "bearerd.dev/upstream-port": "3000" }));
    webhook.review(&mut client, &creating("1", &asking)).await;
    webhook.review(&mut client, &creating("2", &asking)).await;
    webhook.review(&mut client, &creating("3", &pod(&json!({ "other": "x" })))).await;
    webhook.review(&mut client, &creating("4", &pod(&json!({ "bearerd.dev/injct": "true" })))).await;
    assert_eq!(post(&mut client, "{").await.status, 400);

    let shown = Client::connect(webhook.metrics).await.get("/metrics", &[]).await;
    assert!(shown.header("content-type").unwrap().starts_with("text/plain; version=0.0.4"));
    let text = shown.body.text();
    for (outcome, count) in [("injected", 2), ("skipped", 1), ("refused", 1), ("error", 1)] {
        assert!(text.contains(&format!("bearerd_webhook_requests_total{{outcome=\"{outcome}\"}} {count}\n")), "{text}");
    }
    assert!(text.contains("bearerd_webhook_request_duration_seconds_count 5\n"), "{text}");
    let certificate = webhook.authority.ca().with_file_name("tls.crt");
    let end = format!("bearerd_certificate_expiry_timestamp_seconds{{file=\"{}\"}} ", certificate.display());
    let end = text.lines().find_map(|line| line.strip_prefix(&end)).unwrap_or_else(|| panic!("{text}"));
    assert!(end.parse::<u64>().unwrap() > 1_000_000_000);
    // Nothing else is there, and none of it lacks in the reference.
    assert_eq!(Client::connect(webhook.metrics).await.get("/inject", &[]).await.status, 404);
    let reference = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md")).unwrap();
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').unwrap();
        assert!(reference.contains(&format!("| `{name}` | {kind} |")), "{line}");
    }
}

/// As it is admitted: nothing but its owner says that it is a Job's.
#[tokio::test]
async fn a_jobs_pod_does_not_wait_for_endpoints_to_leave() {
    let webhook = Webhook::start(&[]).await;
    let mut client = webhook.connect().await;
    let mut object = pod(&json!({ "bearerd.dev/inject": "true", "bearerd.dev/config": "c" }));
    let delay = json!({ "name": "BEARERD__SHUTDOWN__DELAY", "value": "0s" });
    for (owner, expected) in [("ReplicaSet", false), ("Job", true)] {
        object["metadata"]["ownerReferences"] = json!([{ "apiVersion": "v1", "kind": owner, "name": "a", "uid": "u" }]);
        let response = webhook.review(&mut client, &creating(owner, &object)).await;
        let found = patched(&object, &response);
        let environment = found["spec"]["initContainers"][0]["env"].as_array().unwrap();
        assert_eq!(environment.contains(&delay), expected, "{owner}");
        assert_eq!(found["metadata"]["labels"], json!({ "bearerd.dev/metrics": "true" }));
    }
}
