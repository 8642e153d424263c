//! Public and protected parts beside each other: what no token is asked for is, however an upstream reads it, not protected.

use std::sync::LazyLock;

use bearerd::routing::{Conditions, PathPattern, Table, Target as Asked};
use http::{HeaderMap, Method};

use super::super::readings::{is_protected, readings};
use super::Target;

pub const TARGET: Target = Target {
    name: "path",
    words: &[
        b"/", b"//", b"..", b".", b"%2e", b"%2E", b"%2f", b"%5c", b"\\", b";", b";a=b", b"%252e", b"%25", b"%00", b"%3f", b"%23", b"%61",
        b"admin", b"ADMIN", b"Users", b"7", b"public", b"%ff", b"%c0%af", b"%3b", b"%",
    ],
    read,
};

fn read(input: &[u8]) {
    static TABLE: LazyLock<Table> = LazyLock::new(|| {
        let regex = PathPattern::regex("/users/[0-9]+(/.*)?").unwrap_or_else(|_| panic!("a regex"));
        let paths = [PathPattern::prefix("/public"), PathPattern::prefix("/admin"), regex, PathPattern::Any];
        Table::new(paths.map(|path| Conditions { path, ..Conditions::default() }).into())
    });
    const PROTECTED: [usize; 2] = [1, 2];
    let Ok(path) = std::str::from_utf8(input) else { return };
    // No target has these: they end it, or make it another one.
    if !path.starts_with('/') || path.bytes().any(|byte| !byte.is_ascii_graphic() || b"?#".contains(&byte)) {
        return;
    }
    let headers = HeaderMap::new();
    let asked = Asked { authority: "app.test", method: &Method::GET, path, headers: &headers };
    let Ok(route) = TABLE.find(&asked) else { return };
    for reading in readings(path, 200) {
        assert_eq!(is_protected(&reading), PROTECTED.contains(&route), "{path} went to {route}, and may be read as {reading}");
    }
}
