//! TLS towards callers: names, certificates of callers, files that change; and towards upstreams.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio_rustls::client::TlsStream;

use crate::support::bearerd::Bearerd;
use crate::support::client::{Client, get};
use crate::support::events::PATIENCE;
use crate::support::http2::Connection;
use crate::support::process::Process;
use crate::support::stage::surroundings;
use crate::support::tls::Authority;
use crate::support::token_service::{ScriptedTokenService, subject};
use crate::support::upstream::RecordingUpstream;

struct Stage {
    bearerd: Bearerd,
    upstream: RecordingUpstream,
    _service: ScriptedTokenService,
}

/// A listener with this `tls`, and these routes.
async fn stage(tls: &str, routes: &str) -> Stage {
    let (service, upstream) = surroundings().await;
    let text = format!(
        "listeners: [{{ address: 127.0.0.1:0, tls: {tls} }}]\ntoken_services: {{ default: {{ kind: iap, url: \"{}\" }} }}\n\
         upstreams: {{ app: {{ servers: [\"{}\"] }} }}\nlogging: {{ access: false }}\nroutes:\n{routes}\n",
        service.url(),
        upstream.address()
    );
    Stage { bearerd: Bearerd::start(&text), upstream, _service: service }
}

const H1: &[&[u8]] = &[b"http/1.1"];
const H2: &[&[u8]] = &[b"h2"];

fn serial(stream: &TlsStream<tokio::net::TcpStream>) -> Vec<u8> {
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

#[tokio::test]
async fn callers_choose_their_protocol_and_the_app_learns_that_they_came_over_tls() {
    let authority = Authority::new();
    let tls = format!("{{ certificates: [{}] }}", authority.yaml_pair("a", &authority.issue("app.test")));
    let stage = stage(&tls, "  - { upstream: app }").await;
    let address = stage.bearerd.address();
    for protocols in [H1, &[]] {
        let mut client = Client::over(authority.connect(address, "app.test", None, protocols).await.unwrap());
        for _ in 0..2 {
            assert_eq!(client.get("/", &[("X-API-Key", "k")]).await.status, 200);
        }
        let head = stage.upstream.requests().pop().unwrap().head;
        assert_eq!((head.header("x-forwarded-proto"), head.header("via")), (Some("https"), Some("1.1 bearerd")));
    }
    let stream = authority.connect(address, "app.test", None, &[b"h2", b"http/1.1"]).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
    let answer = Connection::over(stream).await.get("/a?b", &[("x-api-key", "k")]).await;
    assert_eq!(answer.head.status, 200);
    let received = stage.upstream.requests().pop().unwrap();
    assert_eq!((received.target(), received.subject()), ("/a?b", subject("k")));
    assert_eq!((received.head.header("host"), received.head.header("x-forwarded-host")), (Some("app.test"), Some("app.test")));
    assert_eq!((received.head.header("x-forwarded-proto"), received.head.header("via")), (Some("https"), Some("2.0 bearerd")));
    // HTTP in the clear gets no answer, and others do.
    assert!(Client::connect(address).await.exchange_or_end("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.is_none());
    stage.bearerd.until(r#"bearerd_connections_refused_total{limit="tls_handshake"}"#, 1.0).await;
}

#[tokio::test]
async fn a_certificate_for_each_name_and_the_first_for_all_others() {
    let authority = Authority::new();
    let pairs = ["app.test", "*.apps.test"].map(|name| authority.issue(name));
    let tls = format!("{{ certificates: [{}, {}] }}", authority.yaml_pair("a", &pairs[0]), authority.yaml_pair("b", &pairs[1]));
    let stage = stage(&tls, "  - { upstream: app }").await;
    let address = stage.bearerd.address();
    let first = serial(&authority.connect(address, "app.test", None, H1).await.unwrap());
    let second = serial(&authority.connect(address, "one.apps.test", None, H1).await.unwrap());
    assert_ne!(first, second);
    assert!(authority.connect(address, "elsewhere.test", None, H1).await.unwrap_err().to_string().contains("elsewhere.test"));
}

/// Who has no certificate of the authority gets no further than the handshake; with one, routes judge what it says.
#[tokio::test]
async fn certificates_of_callers_are_demanded_judged_and_told() {
    let (authority, other) = (Authority::new(), Authority::new());
    let base =
        format!("certificates: [{}], client_ca: {}", authority.yaml_pair("a", &authority.issue("app.test")), authority.ca().display());
    let routes = "
  - { match: { path: /public }, upstream: app, auth: none, require: { client_certificate: { uri: \"spiffe://test/a*\" } } }
  - { upstream: app, require: { client_certificate: { common_name: alice } }, headers: { set: { X-Client: \"{client_certificate.subject} {client_certificate.uri}\" } } }";
    let required = stage(&format!("{{ {base} }}"), routes).await;
    let address = required.bearerd.address();
    let (alice, bob) = (authority.issue_to("alice"), authority.issue_to("bob"));
    for shown in [None, Some(&other.issue_to("alice"))] {
        // In TLS 1.3 the caller learns of it with its first read.
        let refused = match authority.connect(address, "app.test", shown, H1).await {
            Ok(stream) => Client::over(stream).exchange_or_end("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.is_none(),
            Err(_) => true,
        };
        assert!(refused);
    }
    let connect = async |shown| Client::over(authority.connect(address, "app.test", Some(shown), H1).await.unwrap());
    let forged = [("X-API-Key", "k"), ("X-Client", "CN=root")];
    assert_eq!(connect(&alice).await.get("/", &forged).await.status, 200);
    assert_eq!(required.upstream.requests().pop().unwrap().head.all("x-client"), ["CN=alice spiffe://test/alice"]);
    assert_eq!(connect(&bob).await.get("/", &forged).await.problem(), "insufficient_scope");
    assert_eq!(connect(&bob).await.get("/public", &[]).await.problem(), "insufficient_scope");
    assert_eq!(connect(&alice).await.get("/public", &[]).await.status, 200);
    let stream = authority.connect(address, "app.test", Some(&alice), H2).await.unwrap();
    assert_eq!(Connection::over(stream).await.get("/public", &[]).await.head.status, 200);

    let optional = stage(
        &format!("{{ {base}, client_certificates: optional }}"),
        &format!("  - {{ match: {{ path: /open }}, upstream: app }}{routes}"),
    )
    .await;
    let address = optional.bearerd.address();
    let mut client = Client::over(authority.connect(address, "app.test", None, H1).await.unwrap());
    assert_eq!(client.get("/open", &forged).await.status, 200);
    assert_eq!(client.get("/public", &[]).await.problem(), "insufficient_scope");
    // A name that some route sets is removed everywhere.
    assert!(optional.upstream.requests().pop().unwrap().head.all("x-client").is_empty());
}

/// Handshakes go on while the files are swapped, and the new certificate is shown within seconds. Files that do not fit change nothing.
#[tokio::test]
async fn files_are_swapped_under_load_without_a_failed_handshake() {
    let authority = Arc::new(Authority::new());
    let tls = format!("{{ certificates: [{}] }}", authority.yaml_pair("a", &authority.issue("app.test")));
    let stage = stage(&tls, "  - { upstream: app, auth: none }").await;
    let address = stage.bearerd.address();
    let before = serial(&authority.connect(address, "app.test", None, H1).await.unwrap());
    let (done, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let (authority, done, asked) = (Arc::clone(&authority), Arc::clone(&done), Arc::clone(&asked));
            tokio::spawn(async move {
                while !done.load(Ordering::Relaxed) {
                    let stream = authority.connect(address, "app.test", None, H1).await.expect("a handshake");
                    assert_eq!(Client::over(stream).get("/", &[]).await.status, 200);
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    // First only one of the two, as a writer that is not atomic does; then the other.
    let pair = authority.issue("app.test");
    authority.file("a.crt", &pair.0);
    let swapped = tokio::time::timeout(PATIENCE, async {
        // The half must have been seen before the other half comes.
        for _ in 0..200 {
            assert_eq!(serial(&authority.connect(address, "app.test", None, H1).await.unwrap()), before);
        }
        authority.file("a.key", &pair.1);
        while serial(&authority.connect(address, "app.test", None, H1).await.unwrap()) == before {}
    });
    swapped.await.expect("the other certificate within a minute");
    done.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await.unwrap();
    }
    assert!(asked.load(Ordering::Relaxed) > 0);
    let ends: Vec<_> =
        stage.bearerd.series().await.into_iter().filter(|(name, _)| name.starts_with("bearerd_certificate_expiry")).collect();
    assert!(ends.len() == 1 && ends[0].0.ends_with("/a.crt\"}") && ends[0].1 > 4_000_000_000.0, "{ends:?}");
}

/// A bearerd before an upstream with this `tls`.
fn configuration(address: SocketAddr, service: &ScriptedTokenService, tls: &str) -> String {
    format!(
        "token_services: {{ default: {{ kind: iap, url: \"{}\" }} }}\nupstreams: {{ app: {{ servers: [\"localhost:{}\"], tls: {tls} }} }}\n\
         routes: [{{ upstream: app }}]\n",
        service.url(),
        address.port()
    )
}

/// The upstream's certificate is checked by name and authority, and a client certificate is shown; each of them is read again when it changes.
#[tokio::test]
async fn upstreams_are_checked_and_shown_a_certificate_and_files_are_read_again() {
    let (authority, other) = (Authority::new(), Authority::new());
    let service = ScriptedTokenService::start().await;
    let plain = RecordingUpstream::start().await;
    let upstream = plain.in_tls(authority.acceptor("localhost", true, H1)).await;
    let (certificate, key) = authority.issue_to("bearerd");
    let (certificate, key) = (authority.file("c.crt", &certificate), authority.file("c.key", &key));
    let ask = async |tls: &str| {
        let bearerd = Bearerd::start(&configuration(upstream.address(), &service, tls));
        let answer = get(bearerd.address(), "/", &[("X-API-Key", "k")]).await;
        (answer.status, bearerd)
    };
    let client = format!("certificate: {}, private_key: {}", certificate.display(), key.display());
    let (status, _) = ask(&format!("{{ ca: {}, {client} }}", authority.ca().display())).await;
    assert_eq!(status, 200);
    assert_eq!(plain.requests().pop().unwrap().head.header("host"), Some(&*format!("localhost:{}", upstream.address().port())));
    assert_eq!(ask(&format!("{{ ca: {} }}", authority.ca().display())).await.0, 502, "no client certificate");
    assert_eq!(ask(&format!("{{ {client} }}")).await.0, 502, "the system's authorities know it not");
    assert_eq!(ask(&format!("{{ ca: {}, sni: other.test, {client} }}", authority.ca().display())).await.0, 502, "another name");
    assert_eq!(ask(&format!("{{ verify: false, {client} }}")).await.0, 200);
    // A server that one cannot speak to in TLS is one that cannot be reached; the log says what is wrong with its certificate.
    for (tls, fault) in [
        (format!("{{ {client} }}"), "UnknownIssuer"),
        (format!("{{ ca: {}, sni: other.test, {client} }}", authority.ca().display()), "other.test"),
    ] {
        let process = Process::run(&configuration(upstream.address(), &service, &tls));
        let answer = get(process.addresses().await.callers[0], "/", &[("X-API-Key", "canary-key")]).await;
        assert_eq!((answer.status, answer.problem().as_str()), (502, "upstream_connect"), "{tls}");
        let log = process.output().stderr.clone();
        log.wait_for(1, |line| line.contains("bearerd::access")).await;
        let line = log.all().into_iter().find(|line| line.contains("bearerd::access")).unwrap();
        assert!(line.contains("TLSHandshakeFailure") && line.contains(fault), "{line}");
        assert!(!log.all().concat().contains("canary"));
    }
    // An authority that comes later.
    let ca = authority.file("swapped.crt", &std::fs::read_to_string(other.ca()).unwrap());
    let (status, bearerd) = ask(&format!("{{ ca: {}, {client} }}", ca.display())).await;
    assert_eq!(status, 502, "another authority");
    std::fs::write(&ca, std::fs::read_to_string(authority.ca()).unwrap()).unwrap();
    let trusted = async { while get(bearerd.address(), "/", &[("X-API-Key", "k")]).await.status != 200 {} };
    tokio::time::timeout(PATIENCE, trusted).await.expect("the authority is taken");
}
