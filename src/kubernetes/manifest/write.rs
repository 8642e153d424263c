//! Values as YAML, in lines and in brackets.

use serde_json::{Value, json};

/// In lines, the last one ended. Texts of several lines are kept readable.
pub fn block(value: &Value) -> String {
    let options = serde_saphyr::ser_options! { compact_list_indent: false, folded_wrap_chars: usize::MAX };
    let mut text = String::new();
    // It writes into memory, and a JSON value has nothing that YAML cannot say; whoever uses this reads the result again.
    if serde_saphyr::to_fmt_writer_with_options(&mut text, value, options).is_err() {
        text = flow(value);
    }
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

/// A map's entry, in lines.
pub fn key_and_value(key: &str, value: &Value) -> String {
    block(&json!({ key: value }))
}

/// In one line, as JSON, so that it fits into JSON too.
pub fn flow(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", ")),
        Value::Object(entries) => {
            let entries: Vec<String> = entries.iter().map(|(key, value)| format!("{}: {}", json!(key), flow(value))).collect();
            format!("{{{}}}", entries.join(", "))
        }
        scalar => scalar.to_string(),
    }
}
