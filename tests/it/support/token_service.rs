//! A token service that speaks the token API, mints what looks like JWTs, and misbehaves as it is told.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::events::{Gate, Log};
use super::http::{Body, Head, read_body, read_head, sha256};
use super::server::{self, Server};

/// The four endpoints, and what is none of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    Create,
    Details,
    Refresh,
    Revoke,
    Unknown,
}

impl Operation {
    fn of(head: &Head) -> Self {
        match (head.word(0), head.word(1).split('?').next().unwrap_or_default()) {
            ("POST", "/v1/tokens") => Self::Create,
            ("GET", "/v1/tokens/details") => Self::Details,
            ("POST", "/v1/tokens:refresh") => Self::Refresh,
            ("DELETE", "/v1/tokens") => Self::Revoke,
            _ => Self::Unknown,
        }
    }
}

/// What the service does with a call.
#[derive(Clone)]
pub enum Behaviour {
    /// What the real one does: mints, shows, refreshes, revokes.
    Works,
    /// What the real one does, once the gate is open.
    Gated(Gate),
    /// This status, body and these headers.
    Status(u16, String, Vec<(String, String)>),
    /// 201 and this token.
    Token(String),
    /// Something that is not HTTP.
    Garbage,
    /// No answer as long as the connection is open.
    Hang,
    /// A reset in the middle of the answer.
    Reset,
    /// An answer without end, a byte at a time.
    Drip,
}

impl Behaviour {
    /// This status, with a body as the API's errors have it.
    pub fn status(status: u16) -> Self {
        Self::Status(status, json!({ "code": "scripted", "message": "as told", "details": [] }).to_string(), Vec::new())
    }
}

/// A call as it arrived.
#[derive(Clone, Debug)]
pub struct Call {
    pub operation: Operation,
    pub head: Head,
    pub body: Body,
}

impl Call {
    /// A parameter of the query, decoded.
    pub fn parameter(&self, name: &str) -> Option<String> {
        let query = self.head.word(1).split_once('?').map_or("", |(_, query)| query);
        url::form_urlencoded::parse(query.as_bytes()).find(|(found, _)| found == name).map(|(_, value)| value.into_owned())
    }

    /// `X-API-Key`'s value or the whole of `Authorization`.
    pub fn credential(&self) -> &str {
        self.head.header("x-api-key").or_else(|| self.head.header("authorization")).unwrap_or_default()
    }
}

#[derive(Default)]
struct Script {
    queue: HashMap<Operation, VecDeque<Behaviour>>,
    standing: HashMap<Operation, Behaviour>,
}

#[derive(Clone)]
struct State {
    calls: Log<Call>,
    script: Arc<Mutex<Script>>,
    lifetime: Arc<AtomicU64>,
    nbf_offset: Arc<AtomicI64>,
    minted: Arc<AtomicU64>,
    denied: Arc<Mutex<Option<String>>>,
}

/// See the module.
pub struct ScriptedTokenService {
    server: Server,
    state: State,
}

impl ScriptedTokenService {
    /// Listens on a free port, works as the real one does, and mints tokens for an hour.
    pub async fn start() -> Self {
        let state = State {
            calls: Log::default(),
            script: Arc::default(),
            lifetime: Arc::new(AtomicU64::new(3600)),
            nbf_offset: Arc::default(),
            minted: Arc::default(),
            denied: Arc::default(),
        };
        let theirs = state.clone();
        let server = Server::start(move |_, stream| {
            let state = theirs.clone();
            // The other side may leave at any time: that is no fault of the test.
            async move { drop(serve(stream, &state).await) }
        })
        .await;
        Self { server, state }
    }

    /// For `token_services.*.url`.
    pub fn url(&self) -> String {
        format!("http://{}", self.server.address())
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Does this with the next call of this kind that none is queued for.
    pub fn next(&self, operation: Operation, behaviour: Behaviour) {
        self.state.script.lock().unwrap().queue.entry(operation).or_default().push_back(behaviour);
    }

    /// Takes back what was queued last for calls of this kind; `false` where nothing was.
    pub fn forget_next(&self, operation: Operation) -> bool {
        self.state.script.lock().unwrap().queue.get_mut(&operation).and_then(VecDeque::pop_back).is_some()
    }

    /// Does this with every call of this kind that none is queued for.
    pub fn always(&self, operation: Operation, behaviour: Behaviour) {
        self.state.script.lock().unwrap().standing.insert(operation, behaviour);
    }

    /// How long tokens live from now on, in whole seconds.
    pub fn set_lifetime(&self, lifetime: Duration) {
        self.state.lifetime.store(lifetime.as_secs(), Ordering::SeqCst);
    }

    /// Denies credentials that begin so, from now on.
    pub fn deny_keys_that_begin_with(&self, prefix: &str) {
        *self.state.denied.lock().unwrap() = Some(prefix.to_owned());
    }

    /// How many seconds after being minted tokens become valid from now on; may be negative.
    pub fn set_nbf_offset(&self, seconds: i64) {
        self.state.nbf_offset.store(seconds, Ordering::SeqCst);
    }

    /// How many calls of this kind arrived.
    pub fn calls(&self, operation: Operation) -> usize {
        self.state.calls.count(|call| call.operation == operation)
    }

    /// [`ScriptedTokenService::calls`], for a task of its own.
    pub fn counter(&self) -> impl Fn(Operation) -> usize + Clone + Send + Sync + 'static {
        let calls = self.state.calls.clone();
        move |operation| calls.count(|call| call.operation == operation)
    }

    /// Every call, in order of arrival.
    pub fn recorded(&self) -> Vec<Call> {
        self.state.calls.all()
    }

    /// Returns once this many calls of this kind arrived.
    pub async fn wait_for_calls(&self, operation: Operation, wanted: usize) {
        self.state.calls.wait_for(wanted, |call| call.operation == operation).await;
    }

    /// Connections so far.
    pub fn connections(&self) -> usize {
        self.server.connections()
    }

    /// Drops all connections and refuses new ones.
    pub async fn stop(&mut self) {
        self.server.stop().await;
    }

    /// Drops all connections, and neither takes nor refuses new ones.
    pub async fn block(&mut self) {
        self.server.block().await;
    }

    /// Listens again on the same port.
    pub async fn restart(&mut self) {
        self.server.restart().await;
    }
}

/// `sub` of the tokens minted for a credential: `X-API-Key`'s value or the whole of `Authorization`. A hash, so that it gives nothing away.
pub fn subject(credential: &str) -> String {
    format!("sub-{}", &sha256(credential.as_bytes())[..16])
}

/// The claims of a minted token.
pub fn claims(token: &str) -> Value {
    let payload = token.split('.').nth(1).expect("a token of three parts");
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).expect("base64url")).expect("claims")
}

async fn serve(stream: TcpStream, state: &State) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    while let Some(head) = read_head(&mut stream).await? {
        let closes = head.closes();
        let body = read_body(&mut stream, head.request_framing()).await?;
        let call = Call { operation: Operation::of(&head), head, body };
        let behaviour = state.behaviour(call.operation);
        state.calls.push(call.clone());
        match behaviour {
            Behaviour::Works => send(&mut stream, &state.works(&call)).await?,
            Behaviour::Gated(gate) => {
                gate.passed().await;
                send(&mut stream, &state.works(&call)).await?
            }
            Behaviour::Status(status, body, headers) => send(&mut stream, &Answer { status, body, headers }).await?,
            Behaviour::Token(token) => send(&mut stream, &created(&token)).await?,
            misbehaviour => return misbehave(stream, misbehaviour).await,
        }
        if closes {
            return stream.shutdown().await;
        }
    }
    Ok(())
}

async fn misbehave(mut stream: BufReader<TcpStream>, behaviour: Behaviour) -> std::io::Result<()> {
    match behaviour {
        Behaviour::Garbage => {
            stream.write_all(b"\x16\x03\x01 not HTTP at all\r\n\r\n").await?;
            stream.shutdown().await
        }
        Behaviour::Reset => {
            stream.write_all(b"HTTP/1.1 201 Created\r\nContent-Length: 1000\r\n\r\n{\"access_token\":").await?;
            server::reset(stream.into_inner());
            Ok(())
        }
        Behaviour::Drip => {
            stream.write_all(b"HTTP/1.1 201 Created\r\nContent-Length: 100000\r\n\r\n{").await?;
            let mut pace = tokio::time::interval(Duration::from_millis(10));
            loop {
                pace.tick().await;
                stream.write_all(b" ").await?;
            }
        }
        // Ends when the other side does.
        _ => loop {
            let read = stream.fill_buf().await?.len();
            if read == 0 {
                return Ok(());
            }
            stream.consume(read);
        },
    }
}

struct Answer {
    status: u16,
    body: String,
    headers: Vec<(String, String)>,
}

fn created(token: &str) -> Answer {
    Answer { status: 201, body: json!({ "access_token": token, "token_type": "Bearer" }).to_string(), headers: Vec::new() }
}

async fn send(stream: &mut BufReader<TcpStream>, answer: &Answer) -> std::io::Result<()> {
    let lines: String = answer.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let length = if answer.status == 204 { String::new() } else { format!("Content-Length: {}\r\n", answer.body.len()) };
    let told = answer.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type"));
    let kind = if told { "" } else { "Content-Type: application/json\r\n" };
    let head = format!("HTTP/1.1 {} Told\r\n{kind}{length}{lines}\r\n", answer.status);
    stream.write_all(format!("{head}{}", answer.body).as_bytes()).await
}

impl State {
    fn behaviour(&self, operation: Operation) -> Behaviour {
        let mut script = self.script.lock().unwrap();
        let queued = script.queue.get_mut(&operation).and_then(VecDeque::pop_front);
        queued.or_else(|| script.standing.get(&operation).cloned()).unwrap_or(Behaviour::Works)
    }

    fn denies(&self, credential: &str) -> bool {
        self.denied.lock().unwrap().as_ref().is_some_and(|prefix| credential.starts_with(prefix))
    }

    fn works(&self, call: &Call) -> Answer {
        let plain = |status, body: Value| Answer { status, body: body.to_string(), headers: Vec::new() };
        match call.operation {
            Operation::Create if self.denies(call.credential()) => plain(401, json!({ "code": "denied", "message": "no", "details": [] })),
            Operation::Create if call.parameter("returnSessionToken").is_some() => {
                created(&format!("ps-{}-{}", subject(call.credential()), self.minted.fetch_add(1, Ordering::SeqCst)))
            }
            Operation::Create => created(&self.jwt(call)),
            Operation::Details => {
                plain(200, json!({ "uid": "u-1", "name": "A User", "username": "user", "tid": "t-1", "acls": ["acl:1"] }))
            }
            Operation::Refresh => created(call.body.json()["access_token"].as_str().unwrap_or_default()),
            Operation::Revoke => Answer { status: 204, body: String::new(), headers: Vec::new() },
            Operation::Unknown => plain(404, json!({ "code": "not_found", "message": "no such endpoint", "details": [] })),
        }
    }

    /// Well-formed, with a signature that is none.
    fn jwt(&self, call: &Call) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let number = self.minted.fetch_add(1, Ordering::SeqCst);
        let mem: serde_json::Map<String, Value> =
            call.parameter("mem").iter().flat_map(|mem| mem.split(',')).map(|mem| (mem.to_owned(), json!({}))).collect();
        let claims = json!({
            "iss": "scripted",
            "aud": "iap-test",
            "sub": subject(call.credential()),
            "iat": now,
            "nbf": now.saturating_add_signed(self.nbf_offset.load(Ordering::SeqCst)),
            "exp": now + self.lifetime.load(Ordering::SeqCst),
            "jti": format!("jti-{number}"),
            "azp": call.parameter("clientId"),
            "scope": call.parameter("scopes").unwrap_or_default(),
            "acl": call.parameter("acl").map(|acl| acl.split(',').map(str::to_owned).collect::<Vec<_>>()),
            "mem": mem,
            "cwid": call.parameter("cwid"),
            "tid": STANDARD.encode("tenants:scripted"),
        });
        let part = |text: String| URL_SAFE_NO_PAD.encode(text);
        let header = json!({ "alg": "RS256", "typ": "JWT" });
        format!("{}.{}.{}", part(header.to_string()), part(claims.to_string()), part(format!("signature-{number}")))
    }
}

#[cfg(test)]
mod tests {
    use super::super::client::{Client, get};
    use super::*;

    async fn post(service: &ScriptedTokenService, target: &str, header: &str) -> Value {
        let mut client = Client::connect(service.address()).await;
        client.send(format!("POST {target} HTTP/1.1\r\n{header}\r\nContent-Length: 0\r\n\r\n")).await;
        client.receive().await.body.json()
    }

    #[tokio::test]
    async fn it_mints_for_the_credential_with_the_parameters() {
        let service = ScriptedTokenService::start().await;
        assert_eq!(service.url(), format!("http://{}", service.address()));
        service.set_lifetime(Duration::from_secs(60));
        service.set_nbf_offset(5);
        let first = post(&service, "/v1/tokens?scopes=A%2CB&mem=cid%3A1&clientId=app", "X-API-Key: k").await;
        let second = post(&service, "/v1/tokens", "Authorization: Basic k").await;
        let first = claims(first["access_token"].as_str().unwrap());
        let second = claims(second["access_token"].as_str().unwrap());
        assert_eq!((&first["scope"], &first["mem"], &first["azp"]), (&json!("A,B"), &json!({ "cid:1": {} }), &json!("app")));
        assert_eq!((&first["sub"], &second["sub"]), (&json!(subject("k")), &json!(subject("Basic k"))));
        assert_ne!(first["jti"], second["jti"]);
        assert_eq!(first["exp"].as_u64().unwrap() - first["nbf"].as_u64().unwrap(), 55);
        let session = post(&service, "/v1/tokens?returnSessionToken=true", "X-API-Key: k").await;
        assert!(session["access_token"].as_str().unwrap().starts_with("ps-"));
        assert_eq!((service.calls(Operation::Create), service.connections()), (3, 3));
    }

    #[tokio::test]
    async fn the_other_endpoints_answer_as_the_reference_says() {
        let service = ScriptedTokenService::start().await;
        let mut client = Client::connect(service.address()).await;
        assert_eq!(client.get("/v1/tokens/details", &[("Authorization", "Bearer t")]).await.body.json()["uid"], "u-1");
        const BODY: &str = "HTTP/1.1\r\nContent-Length: 20\r\n\r\n{\"access_token\":\"p\"}";
        client.send(format!("POST /v1/tokens:refresh {BODY}")).await;
        assert_eq!(client.receive().await.body.json()["access_token"], "p");
        client.send(format!("DELETE /v1/tokens {BODY}")).await;
        assert_eq!(client.receive().await.status, 204);
        assert_eq!(client.get("/v1", &[]).await.status, 404);
        let recorded: Vec<_> = service.recorded().iter().map(|call| call.operation).collect();
        assert_eq!(recorded, [Operation::Details, Operation::Refresh, Operation::Revoke, Operation::Unknown]);
    }

    #[tokio::test]
    async fn it_misbehaves_as_it_is_told() {
        let mut service = ScriptedTokenService::start().await;
        service.always(Operation::Create, Behaviour::status(403));
        service.next(Operation::Create, Behaviour::Token("told".into()));
        assert_eq!(post(&service, "/v1/tokens", "X-API-Key: k").await["access_token"], "told");
        assert_eq!(post(&service, "/v1/tokens", "X-API-Key: k").await["code"], "scripted");
        for (behaviour, start) in [(Behaviour::Garbage, "\u{16}"), (Behaviour::Reset, ""), (Behaviour::Drip, "HTTP/1.1 201")] {
            service.next(Operation::Details, behaviour);
            let mut client = Client::connect(service.address()).await;
            client.send("GET /v1/tokens/details HTTP/1.1\r\n\r\n").await;
            assert_eq!(client.bytes(start.len()).await, start.as_bytes());
        }
        service.next(Operation::Details, Behaviour::Hang);
        let mut client = Client::connect(service.address()).await;
        client.send("GET /v1/tokens/details HTTP/1.1\r\n\r\n").await;
        service.wait_for_calls(Operation::Details, 4).await;
        service.stop().await;
        assert!(client.rest().await.is_empty());
        service.restart().await;
        assert_eq!(get(service.address(), "/v1/tokens/details", &[]).await.status, 200);
    }

    #[tokio::test]
    async fn a_gate_holds_the_answer_back() {
        let service = ScriptedTokenService::start().await;
        let gate = Gate::closed();
        service.always(Operation::Details, Behaviour::Gated(gate.clone()));
        let mut client = Client::connect(service.address()).await;
        client.send("GET /v1/tokens/details HTTP/1.1\r\n\r\n").await;
        service.wait_for_calls(Operation::Details, 1).await;
        gate.open();
        assert_eq!(client.receive().await.status, 200);
    }
}
