//! A decision's headers: whatever a caller slipped past the asking proxy, what is decided on is told by every header that tells of it.

use bearerd::decision::{Question, ToldIn};
use http::{HeaderMap, Method, Uri};

use super::Target;

pub const TARGET: Target = Target {
    name: "decision",
    words: &[
        b"\nx-original-uri: /admin",
        b"\nx-original-url: http://a/admin",
        b"\nx-original-method: POST",
        b"\nx-original-host: b",
        b"\nx-forwarded-uri: /admin",
        b"\nx-forwarded-method: POST",
        b"\nx-forwarded-host: b",
        b"https://",
        b"//",
        b"?",
        b"#",
        b"@",
        b":80",
        b"/public",
        b"\xff",
        b" ",
        b"\n",
    ],
    read,
};

fn read(input: &[u8]) {
    let (headers, _) = super::headers(input);
    let uri = Uri::from_static("/asks?of=it");
    for trusted in [false, true] {
        for told_in in [ToldIn::Anywhere, ToldIn::XOriginal, ToldIn::XForwarded, ToldIn::Target] {
            let question = Question { method: &Method::GET, uri: &uri, authority: "asked.test", headers: &headers, trusted };
            let Ok(original) = question.original(told_in) else { continue };
            let target = match original.query {
                Some(query) => format!("{}?{query}", original.path),
                None => original.path.to_owned(),
            };
            if !trusted || told_in == ToldIn::Target {
                assert_eq!((original.authority, &*target), ("asked.test", "/asks?of=it"), "nobody vouches for the headers");
                continue;
            }
            let ways: &[&[&str]] = match told_in {
                ToldIn::XOriginal => &[&["x-original-uri", "x-original-url"]],
                ToldIn::XForwarded => &[&["x-forwarded-uri"]],
                _ => &[&["x-original-uri", "x-original-url"], &["x-forwarded-uri"]],
            };
            agrees(&headers, ways.concat().as_slice(), &target);
        }
    }
}

/// All of the headers that are there end in the target.
fn agrees(headers: &HeaderMap, names: &[&str], target: &str) {
    for name in names {
        for value in headers.get_all(*name) {
            let told = String::from_utf8_lossy(value.as_bytes());
            // `http://host` alone is `/`.
            assert!(told.ends_with(target) || target == "/", "{name}: {told}, and {target} is decided on");
        }
    }
}
