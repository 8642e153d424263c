//! The file of hashed API keys: read with line and column in every complaint, appended to without touching what is there.

pub mod change;
mod fields;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _};
use serde_saphyr::Spanned;

pub use fields::{parse_name, parse_text};

use fields::{Item, Memberships, Name, Text};

use super::api_key::{ApiKey, DEFAULT_TENANT, KeyHash};
use super::grants::Grants;
use crate::clock::Timestamp;

/// Why a keys file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Make the file, or name another one.
    #[error("cannot read the keys file {}: {source}; `bearerd keys new --name NAME --keys-file FILE` makes one", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Mend the file at this place.
    #[error("{}:{mistake}", path.display())]
    Bad {
        /// The file.
        path: PathBuf,
        /// Where and what.
        mistake: Mistake,
    },
}

/// A mistake in the text of a keys file. Shows no value, since a plain key may have got into the file.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{line}:{column}: {message}")]
pub struct Mistake {
    /// The line, from 1.
    pub line: u64,
    /// The column, from 1.
    pub column: u64,
    /// What is wrong and what to write.
    pub message: String,
}

/// Reads a keys file.
///
/// # Errors
/// When it cannot be read or has a mistake in it.
pub fn read(path: &Path) -> Result<Vec<ApiKey>, Error> {
    let text = std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    parse(&text).map_err(|mistake| Error::Bad { path: path.to_owned(), mistake })
}

/// Reads the text of a keys file; empty text holds no keys.
///
/// # Errors
/// The first mistake in it.
pub fn parse(text: &str) -> Result<Vec<ApiKey>, Mistake> {
    let only_comments = text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'));
    if only_comments {
        return Ok(Vec::new());
    }
    let file: File = serde_saphyr::from_str(text).map_err(|error| mistake(&error))?;
    let mut lines = HashMap::new();
    for entry in &file.keys {
        let place = entry.name.referenced;
        if let Some(first) = lines.insert(&entry.name.value.0, place.line()) {
            let message =
                format!("`{}` is the name of the key in line {first} too: names are unique, write another one", entry.name.value.0);
            return Err(Mistake { line: place.line(), column: place.column(), message });
        }
    }
    Ok(file.keys.into_iter().map(ApiKey::from).collect())
}

fn mistake(error: &serde_saphyr::Error) -> Mistake {
    let (line, column) = error.location().map_or((1, 1), |place| (place.line(), place.column()));
    // The rendered text names the place once more, and its snippet would show the line.
    let text = error.without_snippet().to_string();
    let message = text.split(&format!(" at line {line}, column {column}")).next().unwrap_or(&text).to_owned();
    Mistake { line, column, message }
}

/// The entry of `key` as YAML, its first line indented by `indent` blanks.
pub fn render(key: &ApiKey, indent: usize) -> String {
    let mut fields = vec![("name", quoted(&key.name)), ("hash", quoted(&key.hash.to_string())), ("subject", quoted(&key.subject))];
    let lists = [("scopes", &key.grants.scopes), ("acl", &key.grants.acl)];
    fields.extend(lists.into_iter().filter(|(_, list)| !list.is_empty()).map(|(name, list)| (name, quoted(list))));
    if !key.grants.mem.is_empty() {
        fields.push(("mem", quoted(&key.grants.mem)));
    }
    fields.push(("tenant", quoted(&key.tenant)));
    fields.extend(key.workgroup.as_ref().map(|workgroup| ("workgroup", quoted(workgroup))));
    fields.extend(key.expires.map(|end| ("expires", end_text(end))));
    fields.extend(key.revoked.then(|| ("revoked", "true".to_owned())));
    let blanks = " ".repeat(indent);
    let lines = fields.iter().enumerate().map(|(n, (name, value))| format!("{blanks}{} {name}: {value}\n", if n == 0 { "-" } else { " " }));
    lines.collect()
}

/// JSON is YAML, and quotes whatever YAML would take for something else.
fn quoted(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// A time as the file has it.
pub fn end_text(end: Timestamp) -> String {
    let span = std::time::Duration::from_secs(u64::try_from(end.as_secs()).unwrap_or(0));
    humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + span).to_string()
}

/// `text` with the entry of `key` at its end; comments and layout stay. `None` where the layout leaves no place for it, as after
/// a flow list (`keys: [...]`): then the entry must be put in by hand.
pub fn append(text: &str, key: &ApiKey) -> Option<String> {
    let mut expected = parse(text).ok()?;
    expected.push(key.clone());
    let mut base = text.trim_end().strip_suffix("keys: []").map_or_else(|| text.to_owned(), |rest| format!("{rest}keys:\n"));
    if !base.is_empty() && !base.ends_with('\n') {
        base.push('\n');
    }
    let item = base.lines().find(|line| line.trim_start().starts_with("- "));
    let indent = item.map_or(2, |line| line.len() - line.trim_start().len());
    let header =
        if parse(&base).is_ok_and(|keys| keys.is_empty()) && !base.lines().any(|line| line.trim_end() == "keys:") { "keys:\n" } else { "" };
    let appended = format!("{base}{header}{}", render(key, indent));
    (parse(&appended).ok()? == expected).then_some(appended)
}

/// `text` with the key of this name marked as revoked; all else stays. `None` where the layout leaves no place for that, as in a flow map
/// (`{ name: a }`): then it must be done by hand.
pub fn revoke(text: &str, name: &str) -> Option<String> {
    let file: File = serde_saphyr::from_str(text).ok()?;
    let place = file.keys.iter().find(|entry| entry.name.value.0 == name)?.name.referenced;
    let mut expected: Vec<ApiKey> = file.keys.into_iter().map(ApiKey::from).collect();
    expected.iter_mut().filter(|key| key.name == name).for_each(|key| key.revoked = true);
    let line = usize::try_from(place.line()).ok()?;
    let mut revoked = String::new();
    for (number, content) in text.split_inclusive('\n').enumerate() {
        revoked.push_str(content);
        if number + 1 == line {
            if !content.ends_with('\n') {
                revoked.push('\n');
            }
            revoked.push_str(&" ".repeat(content.find("name")?));
            revoked.push_str("revoked: true\n");
        }
    }
    (parse(&revoked).ok()? == expected).then_some(revoked)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default, deserialize_with = "keys")]
    keys: Vec<Entry>,
}

/// `keys:` with nothing after it holds no keys.
fn keys<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Entry>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: Spanned<Name>,
    #[serde(deserialize_with = "hash")]
    hash: KeyHash,
    subject: Option<Text>,
    #[serde(default)]
    scopes: Vec<Item>,
    #[serde(default)]
    acl: Vec<Item>,
    #[serde(default)]
    mem: Memberships,
    tenant: Option<Name>,
    workgroup: Option<Text>,
    #[serde(default, deserialize_with = "end")]
    expires: Option<Timestamp>,
    #[serde(default)]
    revoked: bool,
}

impl From<Entry> for ApiKey {
    fn from(entry: Entry) -> Self {
        let name = entry.name.value.0;
        let texts = |items: Vec<Item>| items.into_iter().map(|item| item.0).collect();
        Self {
            hash: entry.hash,
            subject: entry.subject.map_or_else(|| name.clone(), |subject| subject.0),
            name,
            grants: Arc::new(Grants { scopes: texts(entry.scopes), acl: texts(entry.acl), mem: entry.mem.0 }),
            tenant: entry.tenant.map_or_else(|| DEFAULT_TENANT.to_owned(), |tenant| tenant.0),
            workgroup: entry.workgroup.map(|workgroup| workgroup.0),
            expires: entry.expires,
            revoked: entry.revoked,
        }
    }
}

fn hash<'de, D: Deserializer<'de>>(deserializer: D) -> Result<KeyHash, D::Error> {
    let text = String::deserialize(deserializer)?;
    KeyHash::parse(&text).ok_or_else(|| {
        D::Error::custom(
            "this is not the hash of a key: write `sha256:` and 64 hexadecimal digits, as `bearerd keys new` does; never the key itself",
        )
    })
}

fn end<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    Option::<String>::deserialize(deserializer)?.map(|text| parse_end(&text).map_err(D::Error::custom)).transpose()
}

/// Reads the end of a key: a date (its first second, in UTC) or a time as RFC 3339 has it, in UTC.
///
/// # Errors
/// When it is neither; the message says what to write.
pub fn parse_end(text: &str) -> Result<Timestamp, &'static str> {
    let refused = "this is not a date: write it as `2030-12-31` or `2030-12-31T23:59:59Z` (UTC)";
    let full = if text.len() == "2030-12-31".len() { format!("{text}T00:00:00Z") } else { text.to_owned() };
    let time = humantime::parse_rfc3339(&full).map_err(|_| refused)?;
    let span = time.duration_since(std::time::UNIX_EPOCH).map_err(|_| refused)?;
    Ok(Timestamp::from_secs(i64::try_from(span.as_secs()).map_err(|_| refused)?))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::secret::Secret;
    use proptest::prelude::*;

    const HASH: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn refused(text: &str) -> String {
        parse(text).unwrap_err().to_string()
    }

    #[test]
    fn an_entry_has_defaults() {
        let keys = parse(&format!("keys:\n  - name: alice\n    hash: {HASH}\n")).unwrap();
        assert_eq!(keys, [ApiKey::new("alice", &Secret::from("abc"), Grants::default())]);
    }

    #[test]
    fn memberships_are_a_list_or_a_map() {
        let mem = |text: &str| parse(&format!("keys:\n- {{name: a, hash: '{HASH}', mem: {text}}}")).unwrap()[0].grants.mem.clone();
        assert_eq!(Value::Object(mem("['cid:1', 'cid:2']")), serde_json::json!({ "cid:1": {}, "cid:2": {} }));
        assert_eq!(Value::Object(mem("{'cid:1': [admin], 'cid:2': 7}")), serde_json::json!({ "cid:1": ["admin"], "cid:2": 7 }));
    }

    #[test]
    fn every_mistake_has_a_place_and_says_what_to_write() {
        let entry = |rest: &str| format!("keys:\n  - name: alice\n    hash: {HASH}\n{rest}");
        assert!(refused(&entry("    scope: [A]\n")).starts_with("4:5: unknown field `scope`"), "{}", refused(&entry("    scope: [A]\n")));
        assert_eq!(
            refused(&entry("    expires: soon\n")),
            "4:14: this is not a date: write it as `2030-12-31` or `2030-12-31T23:59:59Z` (UTC)"
        );
        assert_eq!(refused(&entry("    scopes: ['A,B']\n")), "4:14: there must be no `,` in one item: write a list, as `[A, B]`");
        assert_eq!(refused(&entry("    tenant: 'a:b'\n")), "4:13: there must be no `:` in this name");
        let twin = format!("  - name: alice\n    hash: {HASH}\n");
        assert_eq!(refused(&entry(&twin)), "4:11: `alice` is the name of the key in line 2 too: names are unique, write another one");
        assert!(refused("keys:\n  - name: alice\n").contains("hash"));
    }

    #[test]
    fn a_plain_key_in_the_file_is_not_shown() {
        let places = [
            "keys:\n  - name: a\n    hash: canary\n",
            "keys:\n  - canary\n",
            "keys: canary\n",
            "canary\n",
            "keys:\n  - name: a\n    hash: [canary]\n",
            "keys:\n  - name: a\n    hash: {canary: 1}\n",
            "keys:\n  - name: a\n    scopes: canary\n",
            "keys:\n  - name: a\n    mem: canary\n",
            "keys:\n  - name: a\n    expires: canary\n",
            "keys:\n  - name: a\n    hash: canary: canary\n",
            "keys:\n  - name: a\n    hash: 'canary\n",
            "keys:\n  - name: a\n    hash: *canary\n",
            "keys:\n  - name: a\n    hash: !canary x\n",
        ];
        for text in places {
            let message = refused(text);
            assert!(!message.contains("canary"), "{text}: {message}");
        }
    }

    #[test]
    fn appending_keeps_comments_and_layout() {
        let bob = ApiKey::new("bob", &Secret::from("b"), Grants { scopes: vec!["A".to_owned()], ..Grants::default() });
        let first = append("", &ApiKey::new("alice", &Secret::from("a"), Grants::default())).unwrap();
        assert!(first.starts_with("keys:\n  - name: \"alice\"\n    hash: \"sha256:"), "{first}");
        for text in [
            first,
            "# mine\nkeys:\n".to_owned(),
            "keys: []\n".to_owned(),
            format!("keys:\n- name: a # why\n  hash: {HASH}"),
            "# only this".to_owned(),
        ] {
            let appended = append(&text, &bob).unwrap();
            let kept = text.trim_end().trim_end_matches("[]").trim_end();
            assert!(appended.starts_with(kept), "{appended}");
            assert_eq!(parse(&appended).unwrap().last(), Some(&bob));
        }
        assert_eq!(append(&format!("keys: [{{name: a, hash: '{HASH}'}}]\n"), &bob), None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            name in "[^:\\p{C}]{0,8}[a-z]",
            scopes in proptest::collection::vec("[^,\\p{C}]{0,5}[a-z]", 0..3),
            end in proptest::option::of(0i64..4_000_000_000),
        ) {
            let mem = scopes.iter().map(|scope| (scope.clone(), Value::Bool(true))).collect();
            let mut key = ApiKey::new(&name, &Secret::from("k"), Grants { scopes: scopes.clone(), acl: scopes, mem });
            key.workgroup = Some(name);
            key.expires = end.map(Timestamp::from_secs);
            let text = append("", &key).unwrap();
            prop_assert_eq!(parse(&text).unwrap(), [key]);
        }

        #[test]
        fn no_text_breaks_the_reader(text in "(keys:\n)?[-a-z :{}\\[\\]'\"\n#&*!|>,?]{0,60}") {
            let _ = parse(&text);
        }
    }
}
