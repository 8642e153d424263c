//! What strangers' bytes are read by, and what must hold of it.

use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bearerd::claims::Claims;
use bearerd::clock::{Reading, Timestamp};
use bearerd::config::{self, Environment};
use bearerd::credential::{self, Kind, Source};
use bearerd::exchange::ledger::{Keys, Ledger, SavedToken};
use bearerd::jwks::KeySet;
use bearerd::routing::{Conditions, PathPattern, Table, Target as Asked};
use bearerd::secret::Secret;
use bearerd::telemetry::metrics::Metrics;
use bearerd::token::{Lifetimes, Token};
use bearerd::token_service;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use jsonwebtoken::Algorithm;

use super::manifests::MANIFEST;
use super::mutate::Target;

/// All of them.
pub const ALL: &[Target] = &[CREDENTIAL, CLAIMS, SIGNATURE, ANSWER, CONFIGURATION, PATH, LEDGER, MANIFEST];

const NOW: Reading = Reading { wall: Timestamp::from_secs(1_800_000_000), uptime: Duration::from_secs(1000) };

/// Lines of headers, after an empty one the query. What is found is visible ASCII, stands in the request, and is the only one where one is asked for.
const CREDENTIAL: Target = Target {
    name: "credential",
    seeds: &[
        b"x-api-key: key-1\n\na=b&key=key-2",
        b"authorization: Basic dXNlcjpwYXNz\n\n",
        b"authorization: Bearer eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln\n\n",
        b"authorization: Bearer psToken.abc\nx-api-key: k\n\nKEY=%6b%65%79",
    ],
    words: &[
        b"x-api-key: ",
        b"x_api_key: ",
        b"authorization: ",
        b"Basic ",
        b"Bearer ",
        b"bearer\t",
        b"basic  ",
        b"\n\n",
        b",",
        b", Bearer x",
        b"&key=",
        b"&Key=",
        b"%6bey=x",
        b"%",
        b"%00",
        b"%2526",
        b"+",
        b"=",
        b".",
        b"..",
        b"eyJhbGciOiJub25lIn0.",
        b"\xff",
        b"\x80",
        b"\t",
        b" ",
        b"\"",
        b"\n",
    ],
    read: |input| {
        static SOURCES: LazyLock<Vec<Source>> = LazyLock::new(|| {
            let key = Source::Header(HeaderName::from_static("x-api-key"));
            vec![key, Source::Query("key".into()), Source::Basic, Source::SessionToken, Source::Jwt]
        });
        let end = input.windows(2).position(|window| window == b"\n\n").unwrap_or(input.len());
        let mut headers = HeaderMap::new();
        for line in input[..end].split(|byte| *byte == b'\n') {
            let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
            let (name, value) = (HeaderName::from_bytes(&line[..colon]), HeaderValue::from_bytes(line[colon + 1..].trim_ascii()));
            if let (Ok(name), Ok(value)) = (name, value) {
                headers.append(name, value);
            }
        }
        let query = std::str::from_utf8(input.get(end + 2..).unwrap_or_default()).ok();
        let alone = credential::extract(&SOURCES, true, &headers, query);
        let first = credential::extract(&SOURCES, false, &headers, query);
        for found in [&alone, &first].into_iter().flatten() {
            assert!(!found.value.is_empty() && found.value.bytes().all(|byte| byte.is_ascii_graphic() && byte != b','), "{}", found.value);
            let is_here =
                headers.values().any(|value| value.as_bytes().windows(found.value.len()).any(|window| window == found.value.as_bytes()));
            assert!(is_here || (found.kind == Kind::ApiKey && query.is_some_and(|query| query.contains('='))), "{}", found.value);
        }
        if let Ok(alone) = alone {
            let first = first.unwrap_or_else(|_| panic!("taken alone, refused as the first"));
            assert!(alone.kind == first.kind && alone.value == first.value);
            assert!(headers.get_all("x-api-key").iter().count() <= 1 && headers.get_all("authorization").iter().count() <= 1);
        }
    },
};

/// What a token service minted: its times are what its claims say, or it is refused.
const CLAIMS: Target = Target {
    name: "claims",
    seeds: &[
        br#"{"sub":"a","iat":1799999000,"nbf":1799999000,"exp":1800003600}"#,
        br#"{"sub":"a","scope":"x y","exp":1800003600.5,"tid":{"a":["b",null,1e3]}}"#,
        br#"{"exp":18446744073709551615}"#,
    ],
    words: &[
        b"\"exp\":",
        b"\"nbf\":",
        b"\"iat\":",
        b"1e400",
        b"-1",
        b"-0",
        b"1e18",
        b"9223372036854775807",
        b"9223372036854775808",
        b"0.1",
        b"null",
        b"true",
        b"\"1800003600\"",
        b"[",
        b"]",
        b"{",
        b"}",
        b",",
        b"\\u0065xp",
        b"\\ud800",
        b"\xff",
        b"\0",
        b"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
        b" ",
    ],
    read: |input| {
        let Ok(claims) = Claims::parse(input) else { return };
        let lifetimes = Lifetimes { session: Duration::from_secs(60), max_age: None };
        let Ok(token) = Token::with_claims("a.b.c", &claims, NOW, lifetimes) else { return };
        assert!(!token.is_dead(NOW));
        assert!(token.until_valid(NOW, Duration::ZERO).is_zero() == token.is_valid(NOW, Duration::ZERO));
        match claims.member("exp") {
            None => assert!(token.is_dead(NOW.plus(Duration::from_secs(60)))),
            // CVE-2026-25537: what is no number is not skipped.
            Some(exp) => assert!(exp.is_number()),
        }
        assert!(claims.member("nbf").is_none_or(|nbf| nbf.is_number()));
        let (early, late) = (token.renewal_due(0.0), token.renewal_due(1.0));
        assert!(early >= late || late >= early);
    },
};

/// The token of RFC 7515, appendix A.3, and its key: no other token is taken.
const SIGNED: &str = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
const KEY: &str = r#"{"keys":[{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}"#;

const SIGNATURE: Target = Target {
    name: "signature",
    seeds: &[
        SIGNED.as_bytes(),
        b"eyJhbGciOiJub25lIn0.eyJpc3MiOiJqb2UifQ.",
        b"eyJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UifQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmU",
        b"eyJhbGciOiJFUzI1NiJ9.e30.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    ],
    words: &[
        b".",
        b"..",
        b"=",
        b"A",
        b"AAAA",
        b"eyJhbGciOiJub25lIn0",
        b"eyJhbGciOiJIUzI1NiJ9",
        b"eyJhbGciOiJFUzI1NiIsImFsZyI6Im5vbmUifQ",
        b"eyJhbGciOiJFUzI1NiIsImNyaXQiOlsiYjY0Il19",
        b"+",
        b"/",
        b"-",
        b"_",
        b"\xff",
        b" ",
        b"\n",
    ],
    read: |input| {
        static KEYS: LazyLock<KeySet> = LazyLock::new(|| KeySet::parse(KEY.as_bytes()).unwrap_or_else(|_| panic!("a key set")));
        let Ok(text) = std::str::from_utf8(input) else { return };
        if let Ok(claims) = KEYS.verify(text, &[Algorithm::ES256]) {
            assert_eq!(text, SIGNED);
            assert_eq!(claims.member("iss").and_then(|iss| iss.as_str()), Some("joe"));
        } else {
            assert_ne!(text, SIGNED, "the one that is signed is refused");
        }
        // The same bytes as a set of keys, and as what a token service minted.
        let _ = KeySet::parse(input);
        let _ = Claims::of(text);
    },
};

/// What `create_token` answers: a token in it can be a header.
const ANSWER: Target = Target {
    name: "answer",
    seeds: &[
        br#"{"access_token":"a.b.c","token_type":"bearer"}"#,
        br#"{"code":"x","message":"no","details":[]}"#,
        br#"{"access_token":null}"#,
        br#"{"access_token":"eyJhbGciOiJub25lIn0.eyJleHAiOjE4MDAwMDM2MDB9.c2ln"}"#,
    ],
    words: &[
        b"\"access_token\":",
        b"null",
        b"\\n",
        b"\\r\\n",
        b"\\u0000",
        b"\\u000d",
        b"\xff",
        b"\"",
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"\\",
        b"\\ud800\\udc00",
        b" ",
        b"e30",
        b".",
    ],
    read: |input| {
        for status in [StatusCode::OK, StatusCode::CREATED, StatusCode::ACCEPTED] {
            let Ok(token) = token_service::token_in(status, input) else { continue };
            assert_ne!(status, StatusCode::ACCEPTED);
            let text = token.expose();
            assert!(!text.is_empty() && text.len() <= 16 * 1024 && text.bytes().all(|byte| byte.is_ascii_graphic()));
            let _ = Token::parse(&token, NOW, Lifetimes { session: Duration::from_secs(60), max_age: Some(Duration::from_secs(30)) });
        }
    },
};

/// A configuration: read, or refused with places that are in it.
const CONFIGURATION: Target = Target {
    name: "configuration",
    seeds: &[
        b"token_services: { default: { kind: iap, url: \"https://t.example\" } }\nupstreams: { app: { servers: [\"127.0.0.1:3000\"] } }\nroutes: [{ upstream: app }]\n",
        b"upstreams:\n  app:\n    servers: [\"a:1\"]\n    tls: { sni: a }\nroutes:\n  - name: x\n    match: { path_regex: \"/a(b|c)*\", hosts: [\"*.a\"] }\n    upstream: app\n    auth: none\n    headers: { set: { X-A: \"{claims.sub}\" } }\n",
        b"listeners: [{ address: 127.0.0.1:0, limits: { header_bytes: 64KiB, idle_timeout: 1m } }]\nroutes: [{ respond: { status: 204 }, auth: none }]\n",
    ],
    words: &[
        b"&a ", b"*a", b"<<: *a", b"!!binary ", b"!x ", b"- ", b": ", b"{", b"}", b"[", b"]", b"'", b"\"", b"|\n", b">\n", b"\t", b"\n---\n", b"${X}", b"$$", b"${", b"~", b"null",
        b"1e999", b"0x10", b".inf", b"99999999999999999999", b"5m", b"-5m", b"((((", b"(a+)+$", b"\xff", b"\xef\xbb\xbf", b"\0", b"routes:", b"token_services:", b"? ",
    ],
    read: |input| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        let environment = Environment::default();
        if let Err(error) = config::from_text(text, "fuzz.yaml", &environment, Path::new("/nonexistent")) {
            assert!(!error.to_string().is_empty());
            assert!(!error.diagnostics().is_empty());
        }
    },
};

/// Public and protected parts beside each other: what no token is asked for is, however an upstream reads it, not protected.
const PATH: Target = Target {
    name: "path",
    seeds: &[
        b"/public/../admin",
        b"/public/x",
        b"/x/%2e%2e/users/7",
        b"/users/7/a",
        b"/public/..;a=b/admin",
        b"/public/..%252fadmin",
        b"/admin",
    ],
    words: &[
        b"/", b"//", b"..", b".", b"%2e", b"%2E", b"%2f", b"%5c", b"\\", b";", b";a=b", b"%252e", b"%25", b"%00", b"%3f", b"%23", b"%61",
        b"admin", b"ADMIN", b"Users", b"7", b"public", b"%ff", b"%c0%af", b"%3b", b"%",
    ],
    read: |input| {
        static TABLE: LazyLock<Table> = LazyLock::new(|| {
            let regex = PathPattern::regex("/users/[0-9]+(/.*)?").unwrap_or_else(|_| panic!("a regex"));
            let paths = [PathPattern::prefix("/public"), PathPattern::prefix("/admin"), regex, PathPattern::Any];
            Table::new(paths.map(|path| Conditions { path, ..Conditions::default() }).into())
        });
        const PROTECTED: [usize; 2] = [1, 2];
        let Ok(path) = std::str::from_utf8(input) else { return };
        // No target has these: they end it, or make it another one.
        if !path.starts_with('/') || path.bytes().any(|byte| !byte.is_ascii_graphic() || b"?#".contains(&byte)) {
            return;
        }
        let headers = HeaderMap::new();
        let asked = Asked { authority: "app.test", method: &Method::GET, path, headers: &headers };
        let Ok(route) = TABLE.find(&asked) else { return };
        for reading in readings(path) {
            assert_eq!(is_protected(&reading), PROTECTED.contains(&route), "{path} went to {route}, and may be read as {reading}");
        }
    },
};

fn is_protected(path: &str) -> bool {
    let admin = path.strip_prefix("/admin").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let user = path.strip_prefix("/users/").and_then(|rest| rest.split('/').next());
    admin || user.is_some_and(|id| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit()))
}

/// What a path may become on its way to a handler: steps that some server takes, each order of them once.
fn readings(path: &str) -> Vec<String> {
    const STEPS: [fn(&str) -> String; 7] = [
        |path| percent_encoding::percent_decode_str(path).decode_utf8_lossy().into_owned(),
        |path| path.replace('\\', "/"),
        |path| path.to_ascii_lowercase(),
        |path| path.split('/').map(|segment| segment.split(';').next().unwrap_or_default()).collect::<Vec<_>>().join("/"),
        |path| path.split(['\0', '?', '#']).next().unwrap_or_default().to_owned(),
        |path| {
            path.split('/')
                .enumerate()
                .filter(|(place, part)| *place == 0 || !part.is_empty())
                .map(|(_, part)| part)
                .collect::<Vec<_>>()
                .join("/")
        },
        resolved,
    ];
    let mut all = vec![path.to_owned()];
    let mut next = 0;
    while next < all.len() && all.len() < 200 {
        for step in STEPS {
            let read = step(&all[next]);
            if !all.contains(&read) {
                all.push(read);
            }
        }
        next += 1;
    }
    all
}

/// RFC 3986 section 5.2.4.
fn resolved(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    for segment in path.split('/').skip(1) {
        match segment {
            "." => {}
            ".." => drop(kept.pop()),
            other => kept.push(other),
        }
    }
    format!("/{}", kept.join("/"))
}

/// Changes to a ledger's file, four bytes each: a place and what to do there. It is opened or set aside, and gives no token that was not in it.
const LEDGER: Target = Target {
    name: "ledger",
    seeds: &[b"\0\0\x09\x02", b"\0\0\0\x01\x10\0\x20\xff", b"\0\x10\0\x01\0\x10\x40\x80\0\x20\0\x7f"],
    words: &[b"\0\0\0", b"\0\x10", b"\0\x20", b"\xff\xff", b"\x01", b"\x80"],
    read: |input| {
        static FILE: LazyLock<(Vec<u8>, tempfile::TempDir)> = LazyLock::new(|| {
            let folder = tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"));
            std::fs::write(folder.path().join("key"), [7; 32]).unwrap_or_else(|error| panic!("{error}"));
            let (ledger, _) = open(folder.path(), &folder.path().join("ledger")).unwrap_or_else(|error| panic!("{error}"));
            for number in 1..20 {
                let text = Secret::from(format!("token-{number}").as_str());
                let (minted, expires) = (NOW.wall, NOW.wall.plus(Duration::from_secs(3600)));
                ledger.keep(SavedToken { name: [number; 32], service: "default".into(), text, minted, expires });
            }
            drop(ledger);
            (std::fs::read(folder.path().join("ledger")).unwrap_or_else(|error| panic!("{error}")), folder)
        });
        let (whole, keys) = &*FILE;
        let mut bytes = whole.clone();
        for change in input.chunks_exact(4) {
            let place = (usize::from(change[0]) << 16 | usize::from(change[1]) << 8 | usize::from(change[2])) % bytes.len().max(1);
            match change[3] {
                0 => bytes.truncate(place.max(1)),
                bits => bytes[place] ^= bits,
            }
        }
        let folder = tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"));
        let path = folder.path().join("ledger");
        std::fs::write(&path, bytes).unwrap_or_else(|error| panic!("{error}"));
        let Ok((_, contents)) = open(keys.path(), &path) else { return };
        for token in contents.tokens {
            assert_eq!(token.text.expose(), format!("token-{}", token.name[0]));
            assert!(token.name.iter().all(|byte| *byte == token.name[0]) && (1..20).contains(&token.name[0]));
        }
        assert!(contents.revocations.is_empty());
    },
};

fn open(keys: &Path, path: &Path) -> Result<(Ledger, bearerd::exchange::ledger::Contents), bearerd::exchange::ledger::OpenError> {
    static METRICS: LazyLock<Arc<Metrics>> = LazyLock::new(|| Arc::new(Metrics::new().unwrap_or_else(|error| panic!("{error}"))));
    let keys = Keys::read(&[keys.join("key")]).unwrap_or_else(|error| panic!("{error}"));
    Ledger::open(path, keys, NOW.wall, Arc::clone(&METRICS))
}
