//! The forms that an upstream may make of a path: decoded once or twice, normalised.

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

/// Every form: decoded not at all, once and twice (`%252f`), each as it is and as each kind of server would resolve it.
pub(super) fn forms(path: &str) -> Vec<Vec<u8>> {
    let raw = path.as_bytes().to_vec();
    let once: Vec<u8> = percent_decode(&raw).collect();
    let twice: Vec<u8> = percent_decode(&once).collect();
    let mut forms = Vec::new();
    for decoded in [raw, once, twice] {
        for reading in Reading::all(&decoded) {
            forms.push(reading.resolve(&decoded));
        }
        forms.push(decoded);
    }
    forms.sort_unstable();
    forms.dedup();
    forms
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
        cuts.iter().flat_map(move |&cut| {
            parameters.iter().flat_map(move |&drop_parameters| {
                merges.iter().flat_map(move |&merge_slashes| {
                    backslashes.iter().map(move |&backslashes| Self { cut, drop_parameters, merge_slashes, backslashes })
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
            directory = matches!(name, b"" | b"." | b"..");
            match name {
                b"." => {}
                b"" if self.merge_slashes => {}
                b".." => {
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
            ("/a//../b", &["/b", "/a/b"]),
            ("/a/%252e%252e/b", &["/b", "/a/%2e%2e/b"]),
        ] {
            let forms = forms(path);
            for reading in readings {
                assert!(forms.iter().any(|form| form == reading.as_bytes()), "{path} read as {reading}");
            }
        }
    }

    #[test]
    fn plain_paths_are_their_own_normal_form() {
        for path in ["/", "/a/b.c/d-e_f~g", "/a/", "/a..b/c."] {
            assert!(is_plain(path), "{path}");
            assert!(forms(path).iter().all(|form| form == path.as_bytes()), "{path}");
        }
        for path in ["//", "/./", "/.a", "/a%20", "/a;b", "a", "/\\"] {
            assert!(!is_plain(path), "{path}");
        }
    }
}
