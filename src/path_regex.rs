//! Regular expressions over paths: byte by byte, so that no byte of a path escapes them (CVE-2026-73552), and always over the whole path.

use regex::bytes::{Regex, RegexBuilder};

/// Bytes that a compiled expression may take.
const SIZE: usize = 1 << 20;

/// Compiles an expression that the whole path must fit.
///
/// # Errors
/// When it is none, or becomes too large.
pub fn compile(text: &str, ignore_case: bool) -> Result<Regex, regex::Error> {
    // On its own first: a stray `)` must not end the group around it.
    Regex::new(text)?;
    RegexBuilder::new(&format!(r"\A(?:{text})\z"))
        .unicode(false)
        .dot_matches_new_line(true)
        .case_insensitive(ignore_case)
        .size_limit(SIZE)
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_path_must_fit_whatever_its_bytes() {
        let fits = |pattern: &str, path: &[u8]| compile(pattern, false).unwrap().is_match(path);
        assert!(fits("/users/[0-9]+", b"/users/7"));
        assert!(!fits("/users/[0-9]+", b"/users/7/x") && !fits("/a|/b", b"/b/x"));
        assert!(fits("/admin/.*", b"/admin/\xff\n"));
        assert!(compile("/a", true).unwrap().is_match(b"/A"));
        assert!(compile("a)(?:b", false).is_err() && compile("(", false).is_err());
    }
}
