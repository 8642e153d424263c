//! What a path may become on its way to a handler, and which paths are protected here: an oracle of its own, which shares nothing with bearerd's.

use std::collections::HashSet;

/// Steps that some server takes.
const STEPS: [fn(&str) -> String; 9] = [
    |path| percent_encoding::percent_decode_str(path).decode_utf8_lossy().into_owned(),
    |path| path.replace("%2e", ".").replace("%2E", "."),
    |path| path.replace("%2f", "/").replace("%2F", "/"),
    |path| path.replace('\\', "/"),
    |path| path.to_ascii_lowercase(),
    |path| path.split('/').map(|segment| segment.split(';').next().unwrap_or_default()).collect::<Vec<_>>().join("/"),
    |path| path.split(['\0', '?', '#']).next().unwrap_or_default().to_owned(),
    merged,
    resolved,
];

/// The path, and what it becomes by any steps in any order: all of it, or `most` readings.
pub fn readings(path: &str, most: usize) -> HashSet<String> {
    let mut all = HashSet::from([path.to_owned()]);
    let mut fresh = vec![path.to_owned()];
    while let Some(next) = fresh.pop() {
        for read in STEPS.iter().map(|step| step(&next)) {
            if all.len() < most && !all.contains(&read) {
                all.insert(read.clone());
                fresh.push(read);
            }
        }
    }
    all
}

fn merged(path: &str) -> String {
    let mut merged = String::with_capacity(path.len());
    for letter in path.chars() {
        if letter != '/' || !merged.ends_with('/') {
            merged.push(letter);
        }
    }
    merged
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

/// Whether a handler of what lies under `/admin`, or of one user, has this path.
pub fn is_protected(path: &str) -> bool {
    let admin = path.strip_prefix("/admin").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let user = path.strip_prefix("/users/").and_then(|rest| rest.split('/').next());
    admin || user.is_some_and(|id| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit()))
}
