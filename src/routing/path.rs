//! The forms that an upstream may make of a path: decoded and normalised, in any order.

use std::collections::BTreeSet;

use percent_encoding::percent_decode;

/// Whether every form of `path` is the path itself: no escapes, dot segments, doubled slashes, parameters or backslashes. Most paths are.
pub(super) fn is_plain(path: &str) -> bool {
    let mut previous = 0;
    for byte in path.bytes() {
        match byte {
            b'/' if previous == b'/' => return false,
            b'.' if previous == b'/' => return false,
            b'%' | b'\\' | b';' => return false,
            0x21..=0x7e => {}
            _ => return false,
        }
        previous = byte;
    }
    path.starts_with('/') || path == "*"
}

/// Steps that servers are taken to make of a path, one after the other: decoding (`%252f` twice, and so on) with resolutions between and after. A path
/// that has not come to rest by then was made not to.
const STEPS: usize = 8;
/// A path with more forms than this was made to have them.
const MAX_FORMS: usize = 64;
/// A longer path is not looked at form by form, in bytes: that would take too long.
const MAX_LENGTH: usize = 8 * 1024;

/// Every form: what any sequence of decoding and resolving makes of the path, each in every way that servers do it. `None` where there are too many, or no
/// end of them.
pub(super) fn forms(path: &str) -> Option<BTreeSet<Vec<u8>>> {
    if path.len() > MAX_LENGTH {
        return None;
    }
    let mut forms = BTreeSet::from([path.as_bytes().to_vec()]);
    let mut newest = forms.clone();
    for _ in 0..STEPS {
        let mut next = BTreeSet::new();
        for form in &newest {
            next.extend([percent_decode(form).collect(), decoded(form, b"."), decoded(form, br"/\")]);
            next.extend(Reading::all(form).map(|reading| reading.resolve(form)));
        }
        newest = next.difference(&forms).cloned().collect();
        if newest.is_empty() {
            return Some(forms);
        }
        forms.extend(newest.iter().cloned());
        if forms.len() > MAX_FORMS {
            return None;
        }
    }
    None
}

/// Decodes these bytes alone. To a URL parser (WHATWG URL, "double-dot path segment") an escaped dot is a dot, while an escaped slash is no slash; a proxy
/// that decodes slashes (Envoy's `path_with_escaped_slashes_action`) may leave dots to others.
fn decoded(path: &[u8], bytes: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((byte, after)) = rest.split_first() {
        let escaped = rest.get(..3).filter(|_| *byte == b'%').and_then(|escape| percent_decode(escape).next());
        let taken = escaped.filter(|escaped| bytes.contains(escaped));
        decoded.push(taken.unwrap_or(*byte));
        rest = if taken.is_some() { &rest[3..] } else { after };
    }
    decoded
}

/// How a server resolves a path. Servers differ in each of these.
#[derive(Clone, Copy)]
struct Reading {
    /// A decoded `?` or `#` ends the path.
    cut: bool,
    /// Path parameters (`;...`) are dropped.
    drop_parameters: bool,
    /// Doubled slashes are one.
    merge_slashes: bool,
    /// A backslash is a slash.
    backslashes: bool,
    /// Dot segments stay as they are.
    keep_dots: bool,
}

impl Reading {
    /// The readings that make a difference to `path`.
    fn all(path: &[u8]) -> impl Iterator<Item = Self> + use<> {
        let either = |differs: bool| if differs { &[false, true][..] } else { &[false][..] };
        let has = |wanted: &[u8]| path.iter().any(|byte| wanted.contains(byte));
        let backslashes = either(has(b"\\"));
        let (cuts, parameters) = (either(has(b"?#")), either(has(b";")));
        // An empty segment can also come of a backslash or a dropped parameter.
        let merges = either(has(b"\\;") || path.windows(2).any(|pair| pair == b"//"));
        let dots = either(path.windows(2).any(|pair| matches!(pair, b"/." | b"\\.")));
        cuts.iter().flat_map(move |&cut| {
            parameters.iter().flat_map(move |&drop_parameters| {
                merges.iter().flat_map(move |&merge_slashes| {
                    backslashes.iter().flat_map(move |&backslashes| {
                        dots.iter().map(move |&keep_dots| Self { cut, drop_parameters, merge_slashes, backslashes, keep_dots })
                    })
                })
            })
        })
    }

    /// Removes dot segments (RFC 3986 section 5.2.4).
    fn resolve(self, path: &[u8]) -> Vec<u8> {
        let end = path.iter().position(|byte| self.cut && matches!(byte, b'?' | b'#')).unwrap_or(path.len());
        let mut segments: Vec<&[u8]> = Vec::new();
        let mut directory = false;
        let path = &path[..end];
        let path = path.strip_prefix(b"/").unwrap_or(path);
        for segment in path.split(|byte| *byte == b'/' || (self.backslashes && *byte == b'\\')) {
            let name = if self.drop_parameters { segment.split(|byte| *byte == b';').next().unwrap_or_default() } else { segment };
            let is_dots = !self.keep_dots && matches!(name, b"." | b"..");
            directory = is_dots || name.is_empty();
            match name {
                b"." if is_dots => {}
                b"" if self.merge_slashes => {}
                b".." if is_dots => {
                    segments.pop();
                }
                name => segments.push(name),
            }
        }
        // An empty last segment is the slash that `directory` adds.
        if segments.last().is_some_and(|last| last.is_empty()) {
            segments.pop();
        }
        let mut out = Vec::with_capacity(path.len() + 2);
        for segment in &segments {
            out.push(b'/');
            out.extend_from_slice(segment);
        }
        if directory || out.is_empty() {
            out.push(b'/');
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_to_read_a_path_is_among_its_forms() {
        for (path, readings) in [
            ("/a/../b", &["/b"][..]),
            ("/../..", &["/"]),
            ("//a///b/", &["/a/b/", "//a///b/"]),
            ("/a;x=1/b;y", &["/a/b", "/a;x=1/b;y"]),
            ("/a\\..\\b", &["/b", "/a\\..\\b"]),
            ("/a/%23/../../b", &["/b", "/a/"]),
            ("/a//../b", &["/b", "/a/b", "/a/../b"]),
            ("//a\\../b", &["/b", "/a/../b"]),
            ("/a/%252e%252e/b", &["/b", "/a/%2e%2e/b"]),
            ("/..%2fa/%2e%2e/b", &["/b", "/a/%2e%2e/b"]),
            ("/%2E%5c%2f%2", &["/%2E\\/%2", "/.%5c%2f%2"]),
        ] {
            let forms = forms(path).unwrap();
            for reading in readings {
                assert!(forms.iter().any(|form| form == reading.as_bytes()), "{path} read as {reading}");
            }
        }
    }

    #[test]
    fn paths_made_to_have_many_forms_are_given_up() {
        assert!(forms("/a;b//c\\d%3fe%253bf%252f%252fg%255ch%25253fi/%2e%252e%25252e/j").is_none());
        assert!(forms(&format!("/{}", "%20".repeat(3000))).is_none());
        assert!(forms("/files/a%2Fb%20c;v=1//d").is_some());
    }

    #[test]
    fn plain_paths_are_their_own_normal_form() {
        for path in ["/", "/a/b.c/d-e_f~g", "/a/", "/a..b/c."] {
            assert!(is_plain(path), "{path}");
            assert!(forms(path).unwrap().iter().all(|form| form == path.as_bytes()), "{path}");
        }
        for path in ["//", "/./", "/.a", "/a%20", "/a;b", "a", "/\\"] {
            assert!(!is_plain(path), "{path}");
        }
    }
}
