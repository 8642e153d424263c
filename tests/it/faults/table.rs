//! The matrix: each fault of each thing that bearerd depends on, and what callers see while it lasts.

use rustix::process::Resource;

use super::stand::{Seen, Stand, refused, unavailable};
use crate::support::jwt::publishes;
use crate::support::token_service::{Behaviour, Operation};
use crate::support::upstream::Reply;

/// What fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// `create_token`, or the whole token service.
    Mints,
    /// `get_token_details` alone.
    Checks,
    Upstream,
    KeySet,
    Ledger,
}

/// How it fails.
#[derive(Clone)]
enum How {
    /// Refuses connections.
    Refuses,
    /// Takes no connections, and refuses none.
    Blackhole,
    /// The token service does this with each such call.
    Behaves(Behaviour),
    /// The upstream, or where the key set is, answers so.
    Answers(Reply),
    /// The disk takes no more bytes.
    Full,
}

/// A row.
#[derive(Clone)]
pub struct Fault {
    pub name: &'static str,
    pub target: Target,
    how: How,
    /// What callers see whose token is at hand.
    pub cached: Seen,
    /// What callers with a new key see, one or another of these.
    pub new: Vec<Seen>,
    /// What callers with a new JWT see.
    pub jwt: Seen,
}

/// All rows.
pub fn faults() -> Vec<Fault> {
    [mints(), checks(), upstream(), key_set(), ledger()].concat()
}

fn rows<const N: usize>(target: Target, rows: [(&'static str, How, [Seen; 3]); N]) -> Vec<Fault> {
    rows.into_iter().map(|(name, how, [cached, new, jwt])| Fault { name, target, how, cached, new: vec![new], jwt }).collect()
}

/// What [`Behaviour`]s both calls of a token service may fail with.
fn misbehaviours() -> Vec<(&'static str, Behaviour)> {
    let created = |body: String| Behaviour::Status(201, body, Vec::new());
    let html = vec![("Content-Type".to_owned(), "text/html".to_owned())];
    vec![
        ("never answers", Behaviour::Hang),
        ("drips", Behaviour::Drip),
        ("resets within its answer", Behaviour::Reset),
        ("500", Behaviour::status(500)),
        ("503", Behaviour::status(503)),
        ("429", Behaviour::Status(429, "{}".to_owned(), vec![("Retry-After".to_owned(), "1".to_owned())])),
        ("no HTTP", Behaviour::Garbage),
        ("garbage JSON", created("{\"access_token\": nonsense".to_owned())),
        ("a page in place of JSON", Behaviour::Status(200, "<html>Sign in</html>".to_owned(), html)),
        ("a huge body", created(format!("{{\"access_token\":\"{}\"}}", "x".repeat(8 << 20)))),
        ("a redirect", Behaviour::Status(302, String::new(), vec![("Location".to_owned(), "/elsewhere".to_owned())])),
    ]
}

fn mints() -> Vec<Fault> {
    let outage = || [Seen::Served, unavailable(), Seen::Served];
    let row = |(name, behaviour)| (name, How::Behaves(behaviour), outage());
    let whole = [("refuses", How::Refuses, outage()), ("blackhole", How::Blackhole, outage())];
    let strange = [
        ("no token", Behaviour::Status(201, "{}".to_owned(), Vec::new())),
        ("a token that has expired", Behaviour::Token("eyJhbGciOiJub25lIn0.eyJleHAiOjF9.c2ln".to_owned())),
    ];
    let all = whole.into_iter().chain(misbehaviours().into_iter().chain(strange).map(row));
    all.map(|(name, how, [cached, new, jwt])| Fault { name, target: Target::Mints, how, cached, new: vec![new], jwt }).collect()
}

/// A token that was just minted is used and checked later. But a 429 holds mints off too: it is one service.
fn checks() -> Vec<Fault> {
    let row = |(name, behaviour)| {
        let new = if name == "429" { vec![Seen::Served, unavailable()] } else { vec![Seen::Served] };
        Fault { name, target: Target::Checks, how: How::Behaves(behaviour), cached: Seen::Served, new, jwt: Seen::Served }
    };
    misbehaviours().into_iter().map(row).collect()
}

fn upstream() -> Vec<Fault> {
    let all = |seen: Seen| [seen.clone(), seen.clone(), seen];
    let raw = |bytes: &[u8]| How::Answers(Reply::Raw(bytes.to_vec()));
    rows(
        Target::Upstream,
        [
            ("refuses", How::Refuses, all(refused(502, "upstream_connect"))),
            ("blackhole", How::Blackhole, all(refused(504, "upstream_timeout"))),
            ("never answers", How::Answers(Reply::Hang), all(refused(504, "upstream_timeout"))),
            ("resets", How::Answers(Reply::Reset), all(refused(502, "upstream_reset"))),
            ("resets within its answer", How::Answers(Reply::ResetMidway), all(Seen::CutOff)),
            ("500", How::Answers(Reply::status(500)), all(Seen::Relayed(500))),
            ("503", How::Answers(Reply::status(503)), all(Seen::Relayed(503))),
            ("429", How::Answers(Reply::status(429)), all(Seen::Relayed(429))),
            ("no HTTP", raw(b"\x16\x03\x01 no HTTP\r\n\r\n"), all(refused(502, "upstream_reset"))),
            (
                "a header section without end",
                raw(&[b"HTTP/1.1 200 OK\r\nX: ", "x".repeat(2 << 20).as_bytes()].concat()),
                all(refused(502, "upstream_reset")),
            ),
            ("a body shorter than it says", raw(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort"), all(Seen::CutOff)),
        ],
    )
}

/// What is known stays, whatever becomes of its source.
fn key_set() -> Vec<Fault> {
    let known = || [Seen::Served, Seen::Served, Seen::Served];
    let text = |body: &str| How::Answers(Reply::Fixed { status: 200, headers: Vec::new(), body: body.as_bytes().to_vec() });
    rows(
        Target::KeySet,
        [
            ("refuses", How::Refuses, known()),
            ("blackhole", How::Blackhole, known()),
            ("never answers", How::Answers(Reply::Hang), known()),
            ("resets within its answer", How::Answers(Reply::ResetMidway), known()),
            ("500", How::Answers(Reply::status(500)), known()),
            ("429", How::Answers(Reply::status(429)), known()),
            ("garbage JSON", text("{\"keys\": nonsense"), known()),
            ("a page in place of JSON", text("<html>Sign in</html>"), known()),
            ("a huge body", text(&format!("{{\"keys\":[],\"pad\":\"{}\"}}", "x".repeat(8 << 20))), known()),
        ],
    )
}

fn ledger() -> Vec<Fault> {
    rows(Target::Ledger, [("full", How::Full, [Seen::Served, Seen::Served, Seen::Served])])
}

impl Fault {
    /// From now on.
    pub async fn begin(&self, stand: &mut Stand) {
        match (self.target, self.how.clone()) {
            (Target::Mints | Target::Checks, How::Refuses) => stand.service.stop().await,
            (Target::Mints | Target::Checks, How::Blackhole) => stand.service.block().await,
            (_, How::Behaves(behaviour)) => stand.service.always(self.operation(), behaviour),
            (Target::KeySet, How::Refuses) => stand.keys.stop().await,
            (Target::KeySet, How::Blackhole) => stand.keys.block().await,
            (Target::KeySet, How::Answers(reply)) => stand.keys.reply_always(reply),
            (_, How::Refuses) => stand.upstream.stop().await,
            (_, How::Blackhole) => stand.upstream.block().await,
            (_, How::Answers(reply)) => stand.upstream.reply_always(reply),
            (_, How::Full) => stand.process.limit(Resource::Fsize, Some(0)),
        }
    }

    /// All is well again.
    pub async fn end(&self, stand: &mut Stand) {
        match (self.target, &self.how) {
            (Target::Mints | Target::Checks, How::Refuses | How::Blackhole) => stand.service.restart().await,
            (_, How::Behaves(_)) => stand.service.always(self.operation(), Behaviour::Works),
            (Target::KeySet, How::Refuses | How::Blackhole) => stand.keys.restart().await,
            (Target::KeySet, How::Answers(_)) => stand.keys.reply_always(publishes(&[&stand.signer])),
            (_, How::Refuses | How::Blackhole) => stand.upstream.restart().await,
            (_, How::Answers(_)) => stand.upstream.reply_always(Reply::Mirror(0)),
            (_, How::Full) => stand.process.limit(Resource::Fsize, None),
        }
    }

    fn operation(&self) -> Operation {
        if self.target == Target::Checks { Operation::Details } else { Operation::Create }
    }
}
