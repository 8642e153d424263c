//! Requests of our own making, by class: what smugglers send, and what lies beside it.

/// Bytes that begin with one request and end with another, the marker.
pub struct Case {
    pub class: &'static str,
    pub id: usize,
    pub bytes: Vec<u8>,
    pub meaning: Meaning,
}

/// What the first request is by RFC 9112: method, target, body.
pub enum Meaning {
    /// Well formed and usual: it arrives as this.
    Is(&'static str, String, Vec<u8>),
    /// Well formed but odd: refused, or it arrives as this.
    IsOrRefused(&'static str, String, Vec<u8>),
    /// Malformed: refused, or all see the same.
    Open,
}

use Meaning::{Is, IsOrRefused, Open};

pub struct Cases {
    pub all: Vec<Case>,
    key: String,
    random: fastrand::Rng,
}

const TWO_CHUNKS: &str = "5\r\nhello\r\n6;a=b\r\n world\r\n0\r\n\r\n";

#[rustfmt::skip]
impl Cases {
    /// All of them; `key` opens the protected half. The same seed makes the same cases.
    pub fn made(key: &str, seed: u64) -> Self {
        let mut cases = Self { all: Vec::new(), key: key.to_owned(), random: fastrand::Rng::with_seed(seed) };
        cases.methods();
        cases.targets();
        cases.lengths();
        cases.codings();
        cases.both();
        cases.chunks();
        cases.extensions();
        cases.line_ends();
        cases.versions();
        cases.hosts();
        cases.names();
        cases.values();
        cases.folds();
        cases.hop_by_hop();
        cases.pipelining();
        cases.mutations();
        cases
    }

    /// Every other one needs the key.
    fn path(&self) -> String {
        let id = self.all.len();
        if id.is_multiple_of(2) { format!("/k/q{id}q") } else { format!("/q{id}q") }
    }

    fn marker(&self) -> String {
        format!("GET /m{}m HTTP/1.1\r\nHost: app.test\r\nX-API-Key: {}\r\nConnection: close\r\n\r\n", self.all.len(), self.key)
    }

    /// A request without the end of its header section's lines: `start` has `{p}` for the path.
    fn head(&self, start: &str, lines: &str) -> String {
        // Whose it is shows in a header too, for targets that do not survive.
        format!("{}\r\n{lines}X-Case: q{}q\r\nX-API-Key: {}\r\n\r\n", start.replace("{p}", &self.path()), self.all.len(), self.key)
    }

    fn add(&mut self, class: &'static str, first: impl AsRef<[u8]>, meaning: Meaning) {
        let bytes = [first.as_ref(), self.marker().as_bytes()].concat();
        self.all.push(Case { class, id: self.all.len(), bytes, meaning });
    }

    /// A POST with these framing lines and this body.
    fn post(&mut self, class: &'static str, lines: &str, body: &str, meaning: Option<(bool, &str)>) {
        let first = self.head("POST {p} HTTP/1.1", &format!("Host: app.test\r\n{lines}")) + body;
        let meaning = match meaning {
            Some((true, body)) => Is("POST", self.path(), body.into()),
            Some((false, body)) => IsOrRefused("POST", self.path(), body.into()),
            None => Open,
        };
        self.add(class, first, meaning);
    }

    fn methods(&mut self) {
        for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
            let first = self.head(&format!("{method} {{p}} HTTP/1.1"), "Host: app.test\r\n");
            let target = self.path();
            self.add("method", first, Is(method, target, Vec::new()));
            let first = self.head(&format!("{method} {{p}} HTTP/1.1"), "Host: app.test\r\nContent-Length: 5\r\n") + "hello";
            let target = self.path();
            self.add("method", first, IsOrRefused(method, target, "hello".into()));
        }
        for method in [
            "PROPFIND", "QUERY", "M-SEARCH", "FOO", "get", "Get", "gET", "PRI", "TRACE", "CONNECT", "TRACK", "SOURCE", "!#$%&'*+-.^_`|~",
            "G\0T", "G T", "", "\"GET\"", "GET,", "GET/", "G\u{e9}T", "(GET)", "GET\r", "GET\x0b", "\x0bGET", "\tGET", " GET", "@", "0",
            "-", "HTTP/1.1",
        ] {
            for (lines, body) in
                [("", ""), ("Content-Length: 5\r\n", "hello"), ("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n")]
            {
                let first = self.head(&format!("{method} {{p}} HTTP/1.1"), &format!("Host: app.test\r\n{lines}")) + body;
                self.add("method", first, Open);
            }
        }
        let long = "A".repeat(5000);
        let first = self.head(&format!("{long} {{p}} HTTP/1.1"), "Host: app.test\r\n");
        self.add("method", first, Open);
    }

    fn targets(&mut self) {
        for target in
            ["{p}?a=b&c=%20", "{p}/./x", "{p}//x", "{p}/%2e", "{p}/a;b=c", "{p}?{}", "{p}/*", "{p}/%zz", "{p}/%", "{p}?a?b", "{p}?//x"]
        {
            let first = self.head(&format!("GET {target} HTTP/1.1"), "Host: app.test\r\n");
            let meaning = IsOrRefused("GET", target.replace("{p}", &self.path()), Vec::new());
            self.add("target", first, meaning);
        }
        for target in [
            "{p}#x", "{p}?a#b", "{p} x", "{p}\tx", "{p}\0", "{p}\x01", "{p}\x7f", "{p}\x0b", "{p}\r", "{p}\u{e9}", "{p}\"", "{p}<x>",
            "{p}\\x", "{p}^", "{p}`", "{p}{x}", "{p}|", "\\{p}", "*{p}", "{p}*", "", "*", "?", "x{p}", "http://app.test{p}",
            "HTTP://app.test{p}", "http://app.test:80{p}", "http://other.test{p}", "http://app.test@other.test{p}",
            "http://user@app.test{p}", "http:{p}", "http:/{p}", "http:///{p}", "https://app.test{p}", "ftp://app.test{p}", "file://{p}",
            "//app.test{p}", "///{p}", "http://app.test?{p}", "http://app.test#{p}", "http://app.test\\{p}", "http://[::1]{p}",
            "http://app.test.{p}", "app.test:443{p}", "{p} HTTP/1.1", "{p}%0d%0aX:%20y", "{p}%00", "{p}?x=%0d%0a", "{p};/../x", "/../{p}",
            "/%2e%2e{p}", "{p}/..", "{p}/../..", "\u{ff0f}{p}",
        ] {
            for (method, lines, body) in [("GET", "", ""), ("POST", "Content-Length: 5\r\n", "hello")] {
                let first = self.head(&format!("{method} {target} HTTP/1.1"), &format!("Host: app.test\r\n{lines}")) + body;
                self.add("target", first, Open);
            }
        }
        for length in [1000, 4000, 8000, 16_000, 70_000] {
            let first = self.head(&format!("GET {{p}}?{} HTTP/1.1", "a".repeat(length)), "Host: app.test\r\n");
            self.add("target", first, Open);
        }
    }

    fn lengths(&mut self) {
        let class = "content-length";
        self.post(class, "Content-Length: 5\r\n", "hello", Some((true, "hello")));
        self.post(class, "content-length:5\r\n", "hello", Some((true, "hello")));
        self.post(class, "CONTENT-LENGTH: \t5\t \r\n", "hello", Some((true, "hello")));
        self.post(class, "Content-Length: 0\r\n", "", Some((true, "")));
        self.post(class, "", "", Some((true, "")));
        for odd in ["05", "0005", "00000000000000000000000000000005"] {
            self.post(class, &format!("Content-Length: {odd}\r\n"), "hello", Some((false, "hello")));
        }
        for value in [
            "", " ", "-5", "+5", "0x5", "5.0", "5e0", "5 5", "5,5", "5, 5", "5,", ",5", "5;", "5;a", "5 ;", "\"5\"", "five", "5\0", "\x0b5",
            "5\x0b", "\x0c5", "5\x0c", "\u{a0}5", "\u{665}", "\u{ff15}", "1_0", "5\t5", "(5)", "5 (x)", "%35", "0b101", "0o5", "05 05",
            "-0", "+0", "00x", "18446744073709551615", "18446744073709551616", "18446744073709551621", "4294967301", "9223372036854775808",
            "99999999999999999999999", "5\r", "5\r\r", "5\n", "5\r\n ", "5\r\nContent-Length: 5", "5\r\nContent-Length: 6",
            "6\r\nContent-Length: 5", "0\r\nContent-Length: 5", "5\r\ncontent-length: 0", "5\r\nContent_Length: 0",
            "5\r\nContent-Length : 0", "5\r\nContent-Length\t: 0", "5\r\n Content-Length: 0", "5\r\nContent-Length:",
            "\r\nContent-Length: 5", "5\r\nX: y\r\nContent-Length: 5",
        ] {
            self.post(class, &format!("Content-Length: {value}\r\n"), "hello", None);
            let first = self.head("GET {p} HTTP/1.1", &format!("Host: app.test\r\nContent-Length: {value}\r\n")) + "hello";
            self.add(class, first, Open);
        }
    }

    fn codings(&mut self) {
        let class = "transfer-encoding";
        for lines in ["Transfer-Encoding: chunked\r\n", "transfer-encoding:CHUNKED\r\n", "Transfer-Encoding: \t chunked \t\r\n"] {
            self.post(class, lines, TWO_CHUNKS, Some((true, "hello world")));
        }
        for coding in [
            "", " ", "identity", "gzip", "chunked, chunked", "chunked,chunked", "chunked, identity", "identity, chunked", "gzip, chunked",
            "chunked, gzip", ",chunked", "chunked,", "chunked, ", ", chunked", "xchunked", "chunkedx", "chunked;q=1", "chunked; a",
            "\"chunked\"", "'chunked'", "chunk", "c hunked", "chu\tnked", "\x0bchunked", "chunked\x0b", "\x0cchunked", "\0chunked",
            "chunked\0", "\u{a0}chunked", "chun\u{212a}ed", "CHUN\u{212a}ED", "chunked\r", "\rchunked", "\nchunked", "\r\n chunked",
            "\r\n\tchunked", "chunked\r\n ", "chunked\r\n x", "chunked\r\nTransfer-Encoding: chunked",
            "chunked\r\nTransfer-Encoding: identity", "identity\r\nTransfer-Encoding: chunked", "chunked\r\nTransfer-Encoding:",
            "\r\nTransfer-Encoding: chunked", "x\r\nTransfer-Encoding: chunked", "chunked\r\nTransfer_Encoding: x", "[chunked]",
            "(x)chunked", "chunked (x)", "chunked=1", "%63hunked", "chunked,\0", "\u{ef}\u{bb}\u{bf}chunked",
        ] {
            self.post(class, &format!("Transfer-Encoding: {coding}\r\n"), TWO_CHUNKS, None);
            let first = self.head("POST {p} HTTP/1.0", &format!("Host: app.test\r\nTransfer-Encoding: {coding}\r\n")) + TWO_CHUNKS;
            self.add(class, first, Open);
        }
        for name in [
            "Transfer-Encoding ", "Transfer-Encoding\t", " Transfer-Encoding", "\tTransfer-Encoding", "Transfer_Encoding",
            "Transfer Encoding", "TransferEncoding", "Transfer-Encoding\0", "\0Transfer-Encoding", "Transfer-Encoding\x0b",
            "Transfer-Encoding\r", "Transfer-Encoding:", "X: y\rTransfer-Encoding", "X: y\nTransfer-Encoding",
            "X: y\r\n\rTransfer-Encoding", "Transfer-Encoding\u{a0}", "\"Transfer-Encoding\"", "Content-Encoding", "TE",
        ] {
            self.post(class, &format!("{name}: chunked\r\n"), TWO_CHUNKS, None);
            self.post(class, &format!("{name}: chunked\r\nContent-Length: 5\r\n"), "hello", None);
        }
    }

    fn both(&mut self) {
        for length in ["0", "5", "30", "", "x", "-1", "99999999999999999999"] {
            for (name, coding) in [
                ("Transfer-Encoding", "chunked"),
                ("transfer-encoding", "Chunked"),
                ("Transfer-Encoding", "identity"),
                ("Transfer-Encoding", "xchunked"),
                ("Transfer-Encoding", ""),
            ] {
                for lines in [
                    format!("Content-Length: {length}\r\n{name}: {coding}\r\n"),
                    format!("{name}: {coding}\r\nContent-Length: {length}\r\n"),
                    format!("Content-Length: {length}\r\nX: y\r\n{name}: {coding}\r\nContent-Length: {length}\r\n"),
                ] {
                    self.post("both", &lines, TWO_CHUNKS, None);
                }
            }
        }
    }

    fn chunks(&mut self) {
        let class = "chunks";
        let lines = "Transfer-Encoding: chunked\r\n";
        for body in [
            "5\r\nhello\r\n0\r\n\r\n", "05\r\nhello\r\n0\r\n\r\n", "0000000005\r\nhello\r\n000\r\n\r\n", "1\r\nh\r\n4\r\nello\r\n0\r\n\r\n",
        ] {
            self.post(class, lines, body, Some((false, "hello")));
        }
        self.post(class, lines, "0\r\n\r\n", Some((true, "")));
        self.post(class, lines, "A\r\n0123456789\r\n0\r\n\r\n", Some((true, "0123456789")));
        self.post(class, lines, "a\r\n0123456789\r\n0\r\nX: y\r\n\r\n", Some((false, "0123456789")));
        for trailer in [
            "Content-Length: 50\r\n", "Transfer-Encoding: chunked\r\n", "Host: other.test\r\n", "Authorization: Bearer x\r\n",
            " folded: x\r\n", "no colon\r\n", ": x\r\n", "X : y\r\n", "X: y\n", "X: y\r", "X: \0\r\n", "GET / HTTP/1.1\r\n",
        ] {
            self.post(class, lines, &format!("5\r\nhello\r\n0\r\n{trailer}\r\n"), None);
        }
        for size in [
            "", " ", "-5", "+5", "0x5", "0X5", "5h", "g", "5.", "5,", "5 ", " 5", "\t5", "5\t", "5  ", "\x0b5", "5\x0b", "5\0", "\x005",
            "5_", "_5", "\"5\"", "(5)", "5 5", "5\r", "\r5", "\n5", "5\r\r", "\r\n5", "\u{665}", "\u{ff15}", "80000005", "100000005",
            "7fffffffffffffff", "8000000000000005", "ffffffffffffffff", "10000000000000005", "fffffffffffffffb",
            "00000000000000000000000000000000000005", "-0", "0x0", "5=5", "5:5", "%35",
        ] {
            self.post(class, lines, &format!("{size}\r\nhello\r\n0\r\n\r\n"), None);
            self.post(class, lines, &format!("5\r\nhello\r\n{size}\r\nworld\r\n0\r\n\r\n"), None);
        }
        for body in [
            "5\nhello\n0\n\n", "5\nhello\r\n0\r\n\r\n", "5\r\nhello\n0\r\n\r\n", "5\r\nhello0\r\n\r\n", "5\r\nhelloX\r\n0\r\n\r\n",
            "5\r\nhelloXX0\r\n\r\n", "5\r\nhello\r0\r\n\r\n", "5\r\nhello\r\n0\n\r\n", "5\r\nhello\r\n0\r\n\n", "5\r\nhello\r\n0\r\n\r",
            "5\r\nhello\r\n0\r\r\n", "5\r\nhello\r\n\r\n0\r\n\r\n", "5\r\nhello\r\n0\r\nX\r\n\r\n", "5\r\nhell\r\n0\r\n\r\n", "5\r\n",
            "5\r\nhello\r\n", "5\r\nhello\r\n0\r\n", "", "0\r\n", "0\n\n", "\r\n0\r\n\r\n", "5\r\rhello\r\n0\r\n\r\n",
            "5\n\rhello\r\n0\r\n\r\n", "5\r\nhello\r\n00\r\n\r\n", "5\r\nhello\r\n0 \r\n\r\n", "5\r\nhello\r\n0;\r\n\r\n",
        ] {
            self.post(class, lines, body, None);
        }
    }

    /// CVE-2025-22871, CVE-2025-55315, CVE-2026-2332, GHSA-fghv-69vj-qj49.
    fn extensions(&mut self) {
        const PIECES: [&str; 22] = [
            ";", ";a", "=", "\"", "\\", "\\\"", "b", " ", "\t", "\n", "\r", "\0", "\r\n", ";a=b", ";a=\"b\"", ";a=\"b;c\"", "\u{e9}",
            "\x7f", "0\r\n\r\n", "5", ",", "'",
        ];
        for extension in [";a", ";a=b", ";a=\"b\"", ";a=\"b;c\"", "; a = b", " ;a", ";a;b;c=d", ";"] {
            let body = format!("5{extension}\r\nhello\r\n0{extension}\r\n\r\n");
            self.post("extensions", "Transfer-Encoding: chunked\r\n", &body, Some((false, "hello")));
        }
        for _ in 0..200 {
            let extension: String = (0..self.random.usize(1..5)).map(|_| PIECES[self.random.usize(0..PIECES.len())]).collect();
            let body = match self.random.u8(0..3) {
                0 => format!("5;{extension}\r\nhello\r\n0\r\n\r\n"),
                1 => format!("5{extension}\r\nhello\r\n0\r\n\r\n"),
                _ => format!("5\r\nhello\r\n0;{extension}\r\n\r\n"),
            };
            self.post("extensions", "Transfer-Encoding: chunked\r\n", &body, None);
        }
    }

    fn line_ends(&mut self) {
        for (lines, body) in [("", ""), ("Content-Length: 5\r\n", "hello"), ("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n")] {
            let count = self.head("POST {p} HTTP/1.1", &format!("Host: app.test\r\n{lines}")).matches("\r\n").count();
            for place in 0..count {
                for end in ["\n", "\r", "\n\r", "\r\r\n", "\r\n\r", "\0\r\n", "\x0b\r\n", " \r\n", "\r \n", "\u{85}", "\u{2028}", ""] {
                    let whole = self.head("POST {p} HTTP/1.1", &format!("Host: app.test\r\n{lines}"));
                    let split: Vec<&str> = whole.split("\r\n").collect();
                    let first = split[..=place].join("\r\n") + end + &split[place + 1..].join("\r\n");
                    self.add("line ends", first + body, Open);
                }
            }
        }
    }

    fn versions(&mut self) {
        for version in [
            "HTTP/1.0", "HTTP/1.2", "HTTP/1.9", "HTTP/0.9", "HTTP/2.0", "HTTP/2", "HTTP/3", "HTTP/1", "HTTP/1.", "HTTP/.1", "HTTP/1.1.1",
            "HTTP/1.10", "HTTP/01.1", "HTTP/1.01", "HTTP/ 1.1", "HTTP /1.1", "http/1.1", "Http/1.1", "HTTP/1,1", "HTTP/1.1 ", "HTTP/1.1x",
            " HTTP/1.1", "\tHTTP/1.1", "", "HTTP", "HTPP/1.1", "ICY/1.1", "HTTP/\u{661}.1", "HTTP/-1.1", "HTTP/1.1\0", "RTSP/1.0",
            "HTTP/11",
        ] {
            for lines in ["", "Connection: keep-alive\r\n"] {
                let first =
                    self.head(&format!("POST {{p}} {version}"), &format!("Host: app.test\r\nContent-Length: 5\r\n{lines}")) + "hello";
                self.add("version", first, Open);
            }
        }
    }

    fn hosts(&mut self) {
        for host in ["app.test", "APP.test", "app.test:80", "127.0.0.1", "[::1]", "[::1]:8080"] {
            let first = self.head("GET {p} HTTP/1.1", &format!("Host: {host}\r\n"));
            let target = self.path();
            self.add("host", first, Is("GET", target, Vec::new()));
        }
        for lines in [
            "", "Host:\r\n", "Host: \r\n", "Host: a b\r\n", "Host: a\tb\r\n", "Host: a,b\r\n", "Host: a/b\r\n", "Host: a\\b\r\n",
            "Host: a?b\r\n", "Host: a#b\r\n", "Host: a@b\r\n", "Host: u:p@b\r\n", "Host: a:b\r\n", "Host: a:\r\n", "Host: :80\r\n",
            "Host: a:80:80\r\n", "Host: a:99999\r\n", "Host: [::1\r\n", "Host: ::1\r\n", "Host: [x]\r\n", "Host: [::1]x\r\n",
            "Host: \"a\"\r\n", "Host: <a>\r\n", "Host: a\0\r\n", "Host: a\x0b\r\n", "Host: \u{e9}\r\n", "Host: a%00\r\n", "Host: a;b\r\n",
            "Host: .\r\n", "Host: a..b\r\n", "Host: http://a\r\n", "Host: a\r\nHost: a\r\n", "Host: a\r\nHost: b\r\n",
            "Host: a\r\nhost: b\r\n", "Host: a\r\nHost : b\r\n", "Host: a\r\n Host: b\r\n", "Host : a\r\n", " Host: a\r\n", "Host\0: a\r\n",
            "Host: a\r\nHost:\r\n", "Host:\r\nHost: a\r\n", "Host: a\nHost: b\r\n", "Host: a\rHost: b\r\n", "Host: a\r\n b\r\n",
            "X-Host: a\r\n", "Host: {}\r\n", "Host: `a`\r\n", "Host: a|b\r\n", "Host: a^b\r\n",
        ] {
            let first = self.head("GET {p} HTTP/1.1", lines);
            self.add("host", first, Open);
            let first = self.head("POST http://app.test{p} HTTP/1.1", &format!("{lines}Content-Length: 5\r\n")) + "hello";
            self.add("host", first, Open);
        }
    }

    /// A POST of five bytes with these bytes as a line of its header section.
    fn with_line(&mut self, class: &'static str, line: &[u8]) {
        let whole = self.head("POST {p} HTTP/1.1", "Host: app.test\r\nContent-Length: 5\r\n@\r\n") + "hello";
        let (before, after) = whole.split_once('@').unwrap();
        self.add(class, [before.as_bytes(), line, after.as_bytes()].concat(), Open);
    }

    fn names(&mut self) {
        for byte in 0..=255 {
            self.with_line("names", &[b"X", &[byte][..], b"Y: z"].concat());
            if !byte.is_ascii_alphanumeric() {
                self.with_line("names", &[b"Transfer-Encoding", &[byte][..], b": chunked"].concat());
                self.with_line("names", &[&[byte][..], b"Content-Length: 0"].concat());
            }
        }
        for line in [
            &b":"[..], b": a", b" : a", b"no colon", b"", b" ", b"\t", b"=: x", b"Content-Length", b"Content-Length 0", b"GET / HTTP/1.1",
            b"\xef\xbb\xbfX: y",
        ] {
            self.with_line("names", line);
        }
    }

    fn values(&mut self) {
        for byte in (0..32).chain(127..=160).chain([255]) {
            self.with_line("values", &[b"X-Value: a", &[byte][..], b"b"].concat());
            self.with_line("values", &[b"X-Value: ", &[byte][..]].concat());
        }
        for length in [4000, 9000, 20_000, 70_000] {
            self.with_line("values", &[b"X-Value: ", &vec![b'a'; length][..]].concat());
        }
        for count in [50, 90, 120, 300] {
            self.with_line("values", "X: y\r\n".repeat(count).trim_end().as_bytes());
        }
    }

    fn folds(&mut self) {
        for fold in ["\r\n ", "\r\n\t", "\n ", "\n\t", "\r ", "\r\n \r\n ", "\r\n\x0b", "\r\n\x0c", "\r\n\u{a0}"] {
            for line in [
                "X-Value: a@b", "X-Value:@a", "X-Value: a@", "Content-Length:@5", "Transfer-Encoding:@chunked", "Host:@app.test", "@X: y",
                "X@: y", "X-Value: a@Transfer-Encoding: chunked",
            ] {
                self.with_line("folds", line.replace('@', fold).as_bytes());
            }
        }
    }

    /// What `Connection` nominates is not passed on; a framing that is nominated frames all the same.
    fn hop_by_hop(&mut self) {
        let class = "hop by hop";
        for named in [
            "content-length", "Content-Length, close", "host", "transfer-encoding", "x-api-key", "keep-alive, content-length, host",
            "expect", "via", "te", "content-length,", "\"content-length\"",
        ] {
            self.post(class, &format!("Connection: {named}\r\nContent-Length: 5\r\n"), "hello", Some((false, "hello")));
            self.post(
                class,
                &format!("Content-Length: 5\r\nConnection: {named}\r\nConnection: {named}\r\n"),
                "hello",
                Some((false, "hello")),
            );
            self.post(class, &format!("Connection: {named}\r\nTransfer-Encoding: chunked\r\n"), TWO_CHUNKS, Some((false, "hello world")));
            self.post(
                class,
                &format!("Proxy-Connection: {named}\r\nKeep-Alive: {named}\r\nContent-Length: 5\r\n"),
                "hello",
                Some((false, "hello")),
            );
        }
        for upgrade in ["websocket", "h2c", "TLS/1.0", "HTTP/2.0", "websocket, h2c", ""] {
            for connection in ["Upgrade", "upgrade, HTTP2-Settings", "close, Upgrade", "keep-alive"] {
                let lines = format!(
                    "Upgrade: {upgrade}\r\nConnection: {connection}\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
                );
                self.post(class, &format!("{lines}Content-Length: 5\r\n"), "hello", None);
                let first = self.head("GET {p} HTTP/1.1", &format!("Host: app.test\r\n{lines}"));
                self.add(class, first, Open);
            }
        }
    }

    fn pipelining(&mut self) {
        let class = "pipelining";
        for before in [
            "\r\n", "\r\n\r\n", "\n", "\n\n", "\r", " ", "\0", "\r\n \r\n", "x\r\n", "0\r\n\r\n", "\r\n\r\n\r\n\r\n\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        ] {
            let first = before.to_owned() + &self.head("POST {p} HTTP/1.1", "Host: app.test\r\nContent-Length: 5\r\n") + "hello";
            self.add(class, first, Open);
        }
        // What the length leaves over comes before the next request.
        for over in
            ["x", "xxxxx", "\r", "\n", "\r\n", "\r\n\r\n", "\n\n", " ", "\0", "0\r\n\r\n", "0\r\n\r\n0\r\n\r\n", "x: ", "X: y\r\n", "POST "]
        {
            self.post(class, "Content-Length: 5\r\n", &format!("hello{over}"), Some((false, "hello")));
            self.post(class, "Transfer-Encoding: chunked\r\n", &format!("5\r\nhello\r\n0\r\n\r\n{over}"), Some((false, "hello")));
            let target = self.path();
            let first = self.head("GET {p} HTTP/1.1", "Host: app.test\r\n") + over;
            self.add(class, first, IsOrRefused("GET", target, Vec::new()));
        }
        for expect in
            ["100-continue", "100-Continue", "100-continue, x", "x", "", "100-continue\r\nExpect: 100-continue", "200-ok", "100-continue;a"]
        {
            self.post(class, &format!("Expect: {expect}\r\nContent-Length: 5\r\n"), "hello", Some((false, "hello")));
            self.post(class, &format!("Expect: {expect}\r\nTransfer-Encoding: chunked\r\n"), TWO_CHUNKS, Some((false, "hello world")));
        }
        for lines in [
            "Connection: close\r\n", "Connection: keep-alive\r\n", "Connection: close, keep-alive\r\n", "Connection: x\r\n",
            "Connection:\r\n", "Max-Forwards: 0\r\n", "Trailer: X\r\n", "TE: trailers\r\n", "Range: bytes=0-1\r\n",
        ] {
            self.post(class, &format!("{lines}Content-Length: 5\r\n"), "hello", Some((false, "hello")));
        }
    }

    /// Well-formed requests with a few bytes changed, anywhere but in the number that tells whose they are.
    fn mutations(&mut self) {
        const BYTES: &[u8] = b"\r\n \t:;,\0\x0b\x7f\x80\xff/\\?#\"'=-+_0159aAcCxhH\r\n\r\n";
        let bases = [
            ("", String::new()),
            ("Content-Length: 5\r\n", "hello".to_owned()),
            ("Transfer-Encoding: chunked\r\n", TWO_CHUNKS.to_owned()),
            ("Expect: 100-continue\r\nTransfer-Encoding: chunked\r\nX-A: b\r\n", "3;x=\"y\"\r\nabc\r\n0\r\nX: y\r\n\r\n".to_owned()),
            ("Connection: keep-alive, x-a\r\nX-A: b\r\nContent-Length: 12\r\n", "hello, world".to_owned()),
        ];
        for count in 0..800 {
            let (lines, body) = &bases[count % bases.len()];
            let mut bytes = (self.head("POST {p} HTTP/1.1", &format!("Host: app.test\r\n{lines}")) + body).into_bytes();
            let path = self.path();
            for _ in 0..self.random.usize(1..4) {
                let start = bytes.windows(path.len()).position(|window| window == path.as_bytes()).unwrap();
                let place = self.random.usize(0..bytes.len());
                if (start..start + path.len()).contains(&place) {
                    continue;
                }
                let byte = BYTES[self.random.usize(0..BYTES.len())];
                match self.random.u8(0..5) {
                    0 => bytes[place] = byte,
                    1 => bytes.insert(place, byte),
                    2 => drop(bytes.remove(place)),
                    3 => {
                        // A piece once more.
                        let end = (place + self.random.usize(1..30)).min(bytes.len());
                        if place > start {
                            let piece = bytes[place..end].to_vec();
                            bytes.splice(place..place, piece);
                        }
                    }
                    _ => bytes.insert(place, self.random.u8(..)),
                }
            }
            self.add("mutations", bytes, Open);
        }
    }
}
