//! An AdmissionReview: answered for the request that it asks about, with a patch that fits the object and takes nothing out of it; or refused.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bearerd::kubernetes::Defaults;
use bearerd::kubernetes::webhook;
use serde_json::Value;

use super::Target;

pub const TARGET: Target = Target {
    name: "review",
    words: &[
        b"\"uid\":",
        b"\"operation\":\"UPDATE\"",
        b"\"subResource\":\"status\"",
        b"\"object\":",
        b"\"kind\":\"Pod\"",
        b"\"metadata\":{",
        b"\"annotations\":{",
        b"\"bearerd.dev/inject\":\"true\"",
        b"\"bearerd.dev/config\":\"c\"",
        b"\"bearerd.dev/mode\":\"outbound\"",
        b"\"bearerd.dev/port\":\"0\"",
        b"\"bearerd.dev/status\":\"injected\"",
        b"\"spec\":{",
        b"\"containers\":[",
        b"\"initContainers\":[",
        b"\"volumes\":[",
        b"{\"name\":\"bearerd\"}",
        b"null",
        b"{}",
        b"[]",
        b"\"",
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b"-1",
        b"~1",
        b"/",
    ],
    read,
};

fn read(input: &[u8]) {
    static DEFAULTS: LazyLock<Defaults> = LazyLock::new(|| Defaults { image: "bearerd:1".into(), token_service: None });
    let Ok((answer, _)) = webhook::review(input, &DEFAULTS) else { return };
    let answer: Value = serde_json::from_slice(&answer).unwrap_or_else(|error| panic!("no JSON: {error}"));
    // In members that nobody looks at, what is no text is no mistake.
    let Ok(asked) = serde_json::from_slice::<Value>(input) else { return };
    let response = &answer["response"];
    assert_eq!(response["uid"], asked["request"]["uid"]);
    assert_eq!(response["allowed"] == true, response.get("status").is_none());
    let Some(patch) = response.get("patch").and_then(Value::as_str) else { return };
    assert_eq!((response["allowed"].as_bool(), response["patchType"].as_str()), (Some(true), Some("JSONPatch")));
    let patch = STANDARD.decode(patch).unwrap_or_else(|error| panic!("{error}"));
    let patch: json_patch::Patch = serde_json::from_slice(&patch).unwrap_or_else(|error| panic!("no patch: {error}"));
    let before = &asked["request"]["object"];
    let mut after = before.clone();
    json_patch::patch(&mut after, &patch).unwrap_or_else(|error| panic!("it does not fit: {error}"));
    is_within(before, &after);
}

/// Everything that was there is there, in its order.
fn is_within(before: &Value, after: &Value) {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => before.iter().for_each(|(name, value)| is_within(value, &after[name])),
        (Value::Array(before), Value::Array(after)) => {
            let mut rest = after.iter();
            assert!(before.iter().all(|item| rest.any(|other| is_like(item, other))), "{before:?} is not in {after:?}");
        }
        // What was said to be nothing may have become something.
        (Value::Null, _) => {}
        _ => assert_eq!(before, after),
    }
}

/// The same, or the same of that name with more in it.
fn is_like(item: &Value, other: &Value) -> bool {
    item == other || item.get("name").is_some_and(|name| other.get("name") == Some(name))
}
