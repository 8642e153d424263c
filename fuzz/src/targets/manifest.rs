//! Manifests, as `bearerd inject` reads them.

use bearerd::kubernetes::{Defaults, manifest};

use super::Target;

/// Either bearerd is put in, once, and all else stays, or there is a mistake with its place.
pub const TARGET: Target = Target {
    name: "manifest",
    words: &[
        b"\n---\n",
        b"\n...\n",
        b"---",
        b"%YAML 1.2\n",
        b"\xef\xbb\xbf",
        b"\r\n",
        b"\r",
        b"\n",
        b"\n\n",
        b"\t",
        b"    ",
        b"# c\n",
        b" # ",
        b"&a ",
        b"*a",
        b"<<: *a\n",
        b"!!str ",
        b"!t ",
        b"? ",
        b": ",
        b"- ",
        b"| \n",
        b">-\n",
        b"|+2\n",
        b"{{ .Values.a }}",
        b"${A}",
        b"{",
        b"}",
        b"[",
        b"]",
        b", ",
        b"\"",
        b"'",
        b"~",
        b"null",
        b"\\u0041",
        b"\xc3\xa9",
        b"\xe2\x80\xa8",
        b"\0",
        b"bearerd.dev/status: injected\n",
        b"spec:\n",
        b"volumes:\n",
        b"labels:\n",
        b"initContainers: []\n",
        b"terminationGracePeriodSeconds: 1\n",
        b"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
    ],
    read,
};

fn read(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let defaults = Defaults { image: "bearerd:1".to_owned(), token_service: None };
    match manifest::inject(text, &defaults) {
        Ok(injected) => {
            let again = manifest::inject(&injected.text, &defaults).unwrap_or_else(|errors| panic!("what came out is refused: {errors:?}"));
            assert_eq!(again.text, injected.text, "bearerd is put in once");
            if injected.text != text {
                assert!(injected.text.contains("bearerd.dev/"), "what does not ask is changed");
                assert_comments_stay(text, &injected.text);
            }
            // What does not stay what it is in one stream, as with a mark of the beginning in the middle, is refused.
            if let Ok(both) = manifest::joined(&[text.to_owned(), injected.text]) {
                assert!(both.starts_with(text), "it changes before another file");
            }
        }
        Err(errors) => {
            let lines = text.split(['\n', '\r']).count() + 1;
            assert!(!errors.is_empty() && errors.iter().all(|error| (1..=lines).contains(&error.line) && error.column > 0), "{errors:?}");
        }
    }
}

/// Lines that are comments alone are never touched.
fn assert_comments_stay(before: &str, after: &str) {
    let mut lines = after.split_inclusive('\n');
    for comment in before.split_inclusive('\n').filter(|line| line.trim_start_matches(' ').starts_with("# c")) {
        assert!(lines.any(|line| line == comment || line == format!("{comment}\n")), "{comment:?} is gone");
    }
}
