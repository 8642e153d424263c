//! A request to the token API, as a server reads it: headers, then a query, which is tried as a body too. Of two readings of the credential one is refused.

use bearerd::secret::Secret;
use bearerd::token_service::request;
use http::header;

use super::Target;

pub const TARGET: Target = Target {
    name: "query",
    words: &[
        b"x-api-key: ",
        b"authorization: ",
        b"content-type: ",
        b"application/json",
        b"application/x+json; charset=utf-8",
        b"Basic ",
        b"Bearer ",
        b"\n\n",
        b"&api_key=",
        b"&scopes=A,B",
        b"&acl=",
        b"&mem=",
        b"&data=",
        b"&clientId=",
        b"&returnSessionToken=True",
        b"{\"access_token\":\"",
        b"\"}",
        b"%",
        b"%2C",
        b"%ff",
        b"%00",
        b"+",
        b"&",
        b"=",
        b";",
        b"\t",
        b",",
        b"\xff",
    ],
    read,
};

fn read(input: &[u8]) {
    let (headers, rest) = super::headers(input);
    let _ = request::is_json(&headers);
    if let Ok(token) = request::access_token(rest) {
        assert!(!token.expose().is_empty());
    }
    if let Some(token) = request::bearer(&headers) {
        assert!(is_printable(&token) && headers.get_all(header::AUTHORIZATION).iter().count() == 1);
    }
    let Ok(query) = std::str::from_utf8(rest) else { return };
    let Ok(parsed) = request::query(query) else { return };
    let lists = [&parsed.params.scopes, &parsed.params.acl, &parsed.params.mem];
    assert!(lists.iter().flat_map(|list| list.iter()).all(|item| !item.is_empty() && !item.contains(',')));
    let in_query = parsed.api_key.is_some();
    if let Ok(Some(found)) = request::credential(&headers, parsed.api_key) {
        let places = [in_query, headers.contains_key("x-api-key")];
        assert!(places.iter().filter(|is_there| **is_there).count() <= 1, "of two keys one was taken");
        // CVE-2026-73552: wherever it stands.
        assert!(is_printable(&found.value), "{:?}", found.value.expose());
    }
}

fn is_printable(secret: &Secret) -> bool {
    let text = secret.expose();
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',')
}
