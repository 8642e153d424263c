//! A configuration: read, or refused with places that are in it.

use std::path::Path;

use bearerd::config::{self, Environment};

use super::Target;

pub const TARGET: Target = Target {
    name: "configuration",
    words: &[
        b"&a ",
        b"*a",
        b"<<: *a",
        b"!!binary ",
        b"!x ",
        b"- ",
        b": ",
        b"{",
        b"}",
        b"[",
        b"]",
        b"'",
        b"\"",
        b"|\n",
        b">\n",
        b"\t",
        b"\n---\n",
        b"${X}",
        b"$$",
        b"${",
        b"~",
        b"null",
        b"1e999",
        b"0x10",
        b".inf",
        b"99999999999999999999",
        b"5m",
        b"-5m",
        b"((((",
        b"(a+)+$",
        b"\xff",
        b"\xef\xbb\xbf",
        b"\0",
        b"routes:",
        b"token_services:",
        b"? ",
    ],
    read,
};

fn read(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let environment = Environment::default();
    if let Err(error) = config::from_text(text, "fuzz.yaml", &environment, Path::new("/nonexistent")) {
        assert!(!error.to_string().is_empty());
        assert!(!error.diagnostics().is_empty());
    }
}
