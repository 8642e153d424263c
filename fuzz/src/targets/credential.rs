//! Lines of headers, after an empty one the query. What is found is visible ASCII, stands in the request, and is the only one where one is asked for.

use std::sync::LazyLock;

use bearerd::credential::{self, Kind, Source};

use super::Target;

pub const TARGET: Target = Target {
    name: "credential",
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
    read,
};

fn read(input: &[u8]) {
    static SOURCES: LazyLock<Vec<Source>> = LazyLock::new(super::sources);
    let (headers, rest) = super::headers(input);
    let query = std::str::from_utf8(rest).ok();
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
}
