//! What is put in wherever a secret can be, and the search for it in what came out: as it is and encoded.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Letters and digits alone: percent-encoding leaves them as they are.
pub const CANARY: &str = "cAnArY7";

/// A secret with the canary and characters that encodings change.
pub fn secret(name: &str) -> String {
    format!("{name}.{CANARY}+/=~{name}")
}

/// The canary as it can show: as it is, in any case, or encoded, wherever in the encoded text it stands.
fn forms() -> Vec<String> {
    let inner = |prefix: &str| {
        let encoded = STANDARD.encode(format!("{prefix}{CANARY}xx"));
        // What neighbours have a part in is left out.
        encoded[if prefix.is_empty() { 0 } else { 4 }..8].to_owned()
    };
    let each_byte = |write: fn(u8) -> String| CANARY.bytes().map(write).collect::<String>();
    vec![
        CANARY.to_ascii_lowercase(),
        inner(""),
        inner("a"),
        inner("ab"),
        each_byte(|byte| format!("{byte:02x}")),
        each_byte(|byte| format!("%{byte:02x}")),
        each_byte(|byte| format!("{byte}, ")),
    ]
}

#[test]
fn the_search_finds_every_form() {
    let encoded = |text: &str| STANDARD.encode(text);
    for shown in [
        secret("a"),
        secret("a").to_ascii_uppercase(),
        encoded(&secret("")),
        encoded(&secret("u:")),
        encoded(&secret("us:")),
        encoded(&secret("use:")),
        format!("{:?}", secret("a").as_bytes()),
    ] {
        assert!(find(&shown).is_some(), "{shown}");
    }
    assert!(find("cAnAr Y7").is_none());
}

/// Where the canary shows, with its surroundings.
pub fn find(text: &str) -> Option<String> {
    let lower = text.to_ascii_lowercase();
    forms().into_iter().find_map(|form| {
        // Base64 tells letters' case apart; everything else is searched in lower case.
        let place = text.find(&form).or_else(|| lower.find(&form))?;
        Some(String::from_utf8_lossy(&text.as_bytes()[place.saturating_sub(200)..text.len().min(place + 100)]).into_owned())
    })
}

#[track_caller]
pub fn assert_clean(what: &str, text: &str) {
    if let Some(found) = find(text) {
        panic!("a secret in {what}: {found}");
    }
}

/// As it is written in a query.
pub fn escaped(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}
