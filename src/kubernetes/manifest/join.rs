//! Several texts as one.

use super::tree::parse;

/// What marks the beginning of a file, and would be content inside of one.
const MARK: char = '\u{feff}';

/// The texts one after another, each with documents of its own.
///
/// # Errors
/// The number of the text that does not stay what it is with the next one behind it.
pub fn joined(texts: &[String]) -> Result<String, usize> {
    let Some((first, rest)) = texts.split_first() else { return Ok(String::new()) };
    let mut all = first.clone();
    for (index, text) in rest.iter().enumerate() {
        let text = text.strip_prefix(MARK).unwrap_or(text);
        let before = all.clone();
        if !all.is_empty() && !all.ends_with('\n') {
            all.push('\n');
        }
        all.push_str(separator(text));
        all.push_str(text);
        if !is_both(&all, &before, text) {
            return Err(index);
        }
    }
    Ok(all)
}

/// What has to stand between whatever is before and this text.
fn separator(text: &str) -> &'static str {
    let begins = |line: &str| line.strip_prefix("---").is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace));
    let head: Vec<&str> = text.lines().take_while(|line| !begins(line)).collect();
    // A directive stands where no document is open.
    if head.iter().any(|line| line.starts_with('%')) {
        "...\n"
    } else if head.is_empty() {
        ""
    } else {
        "---\n"
    }
}

/// Whether a text has the documents of these two. Empty documents are none: whoever applies manifests passes over them.
fn is_both(all: &str, before: &str, after: &str) -> bool {
    let read = |text: &str| parse(text).map(|documents| documents.into_iter().filter(|document| !document.is_empty()).collect::<Vec<_>>());
    let (Ok(all), Ok(before), Ok(after)) = (read(all), read(before), read(after)) else { return false };
    let parts = || before.iter().chain(&after);
    all.len() == parts().count() && all.iter().zip(parts()).all(|(one, other)| one.root.says_the_same(&other.root))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_text_begins_a_document() {
        for (texts, expected) in [
            (vec![], Ok("")),
            (vec!["a: b"], Ok("a: b")),
            (vec!["\u{feff}a: b\n", "\u{feff}c: d"], Ok("\u{feff}a: b\n---\nc: d")),
            (vec!["a: b", "--- # c\nc: d\n"], Ok("a: b\n--- # c\nc: d\n")),
            (vec!["a: b\n...\n", "# d\n%YAML 1.2\n---\nc: d\n"], Ok("a: b\n...\n...\n# d\n%YAML 1.2\n---\nc: d\n")),
            (vec!["{\"a\": 1}", "[1]\n", "", "# nothing\n", "x"], Ok("{\"a\": 1}\n---\n[1]\n---\n# nothing\n---\nx")),
            (vec!["a: b\n", "[\n"], Err(0)),
        ] {
            let texts: Vec<String> = texts.into_iter().map(str::to_owned).collect();
            assert_eq!(joined(&texts), expected.map(str::to_owned), "{texts:?}");
        }
    }
}
