//! The formats that the schema names: what text must look like in each, and what to write instead.

mod network;

use url::Url;

use super::diagnostic::{DID_YOU_MEAN, closest, instead_of, quoted};
use super::units::{Bytes, Duration, Mode, Percent};
use crate::claims::Path;
use crate::template::{GAPS, Template};
use crate::tls::client_certificate;

/// The longest duration that is taken: far beyond any use, and far from where arithmetic on time ends.
const LONGEST: std::time::Duration = std::time::Duration::from_secs(365 * 24 * 3600);

/// What is wrong with a text.
#[derive(Debug)]
pub struct Complaint {
    /// What is wrong. Holds of the text only what [`Given::shown`] shows.
    pub message: String,
    /// What to write instead.
    pub help: Option<String>,
    /// Whether the text holds a secret for sure, so that not even its source line may be shown.
    pub secret: bool,
}

impl Complaint {
    fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { message: message.into(), help: Some(help.into()), secret: false }
    }
}

/// A text to look at.
#[derive(Clone, Copy)]
pub struct Given<'a> {
    /// The text.
    pub text: &'a str,
    /// How messages show it.
    pub shown: &'a str,
}

impl Given<'_> {
    /// Suggests `candidate`, which is made of the text, or `example` where messages may not show the text.
    fn suggest(self, candidate: &str, example: &str) -> String {
        let visible = self.shown == quoted(self.text);
        format!("write {}", quoted(if visible { candidate } else { example }))
    }
}

/// What a format expects, for messages.
pub fn described(format: Option<&str>) -> &'static str {
    match format {
        Some("duration") => "a duration such as `30s`",
        Some("details") => "`off`, `on_mint` or a duration such as `60s`",
        Some("percent") => "a percentage such as `50%`",
        Some("file-mode") => "the mode of a file such as `\"0400\"`",
        Some("size") => "a size such as `64KiB`",
        Some("socket-address") => "an address and port such as `127.0.0.1:8080`",
        Some("network") => "an address or CIDR range",
        Some("http-url") => "a URL such as `https://tokens.example.com`",
        Some("host-port") => "a host and port such as `app:3000`",
        Some("absolute-path") => "a path such as `/api`",
        Some("path" | "new-path") => "the path of a file",
        Some("method") => "a method such as `GET`",
        Some("header-name") => "the name of a header",
        Some("header-template") => "the value of a header",
        Some("scope") => "a scope",
        Some("path-regex") => "a regular expression such as `/users/[0-9]+`",
        _ => "text",
    }
}

/// Looks at a text in the light of a format of the schema.
///
/// # Errors
/// What is wrong with it.
pub fn check(format: &str, given: Given<'_>) -> Result<(), Complaint> {
    match format {
        "duration" => duration(given),
        "size" => size(given),
        "details" => details(given),
        "percent" => Percent::parse(given.text)
            .map(drop)
            .map_err(|_| Complaint::new(format!("{} is not a percentage", given.shown), "write a whole number from `0%` to `100%`")),
        "file-mode" => Mode::parse(given.text).map(drop).map_err(|_| {
            Complaint::new(format!("{} is not the mode of a file that its owner can read", given.shown), "write it in octal, as `\"0400\"`")
        }),
        "socket-address" => network::socket_address(given),
        "network" => network::network(given),
        "http-url" => http_url(given),
        "host-port" => network::host_port(given),
        "absolute-path" => absolute_path(given),
        "method" => method(given),
        "header-name" => header_name(given),
        "header-value" => header_value(given),
        "header-template" => header_template(given),
        "claim-path" => claim_path(given),
        "certificate-field" => certificate_field(given),
        "scope" => scope(given),
        "path-regex" => path_regex(given),
        "path" | "new-path" if given.text.is_empty() => Err(Complaint::new("an empty path", "name a file")),
        "list-item" => list_item(given),
        "host-pattern" => network::host_pattern(given),
        "upstream-host" => network::upstream_host(given),
        "name" if given.text.is_empty() => Err(Complaint::new("an empty name", "write a name")),
        _ => Ok(()),
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
}

fn duration(given: Given<'_>) -> Result<(), Complaint> {
    if is_number(given.text) {
        return Err(Complaint::new("a duration needs a unit", given.suggest(&format!("{}s", given.text), "30s")));
    }
    match Duration::parse(given.text) {
        Ok(duration) if duration > LONGEST => {
            Err(Complaint::new(format!("{} is longer than a year", given.shown), "write a shorter duration"))
        }
        Ok(_) => Ok(()),
        Err(_) => Err(Complaint::new(
            format!("{} is not a duration", given.shown),
            "write a number with a unit, as `500ms`, `30s`, `5m` or `24h`",
        )),
    }
}

fn details(given: Given<'_>) -> Result<(), Complaint> {
    match given.text {
        "off" | "on_mint" => Ok(()),
        text if is_number(text) => duration(given),
        text => match Duration::parse(text) {
            Ok(span) if span < std::time::Duration::from_secs(1) => {
                Err(Complaint::new(format!("{} is too short", given.shown), "write `off`, `on_mint`, or at least `1s`"))
            }
            Ok(_) => duration(given),
            Err(_) => Err(Complaint::new(
                format!("{} is neither `off`, `on_mint` nor a duration", given.shown),
                match closest(text, &["off", "on_mint"]) {
                    Some(word) => format!("{DID_YOU_MEAN}{}?", quoted(word)),
                    None => "write `on_mint`, or how often to ask, as `60s`".to_owned(),
                },
            )),
        },
    }
}

fn size(given: Given<'_>) -> Result<(), Complaint> {
    if is_number(given.text) {
        return Err(Complaint::new("a size needs a unit", given.suggest(&format!("{}B", given.text), "64KiB")));
    }
    Bytes::parse(given.text)
        .map(drop)
        .map_err(|_| Complaint::new(format!("{} is not a size", given.shown), "write a number with a unit, as `512B`, `64KiB` or `1MiB`"))
}

fn http_url(given: Given<'_>) -> Result<(), Complaint> {
    if !given.text.contains("://") {
        return Err(Complaint::new(
            format!("{} is a URL without a scheme", given.shown),
            given.suggest(&format!("https://{}", given.text), "https://tokens.example.com"),
        ));
    }
    let Ok(url) = Url::parse(given.text) else {
        return Err(Complaint {
            secret: given.text.contains('@'),
            ..Complaint::new("not a URL", "write one such as `https://tokens.example.com`")
        });
    };
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Complaint {
            secret: true,
            ..Complaint::new("a URL with a user name or password in it", "remove what stands before the `@`: callers bring the credentials")
        });
    }
    if !matches!(url.scheme(), "http" | "https") {
        return Err(Complaint::new(
            format!("{} is neither http nor https", given.shown),
            "write a URL such as `https://tokens.example.com`",
        ));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(Complaint::new("a URL with a query or fragment", "end it before the `?` or `#`"));
    }
    Ok(())
}

fn absolute_path(given: Given<'_>) -> Result<(), Complaint> {
    if !given.text.starts_with('/') {
        return Err(Complaint::new(
            format!("the path {} does not begin with `/`", given.shown),
            given.suggest(&format!("/{}", given.text), "/api"),
        ));
    }
    if given.text.contains(['?', '#']) || given.text.chars().any(|char| char.is_whitespace() || char.is_control()) {
        return Err(Complaint::new(format!("{} is more than a path", given.shown), "leave out query, fragment and spaces"));
    }
    Ok(())
}

fn method(given: Given<'_>) -> Result<(), Complaint> {
    if http::Method::from_bytes(given.text.as_bytes()).is_err() {
        return Err(Complaint::new(format!("{} is not a method", given.shown), "write one such as `GET`"));
    }
    if given.text.bytes().any(|byte| byte.is_ascii_lowercase()) {
        return Err(Complaint::new(
            format!("the method {} is not in capitals", given.shown),
            given.suggest(&given.text.to_uppercase(), "GET"),
        ));
    }
    Ok(())
}

fn header_name(given: Given<'_>) -> Result<(), Complaint> {
    http::HeaderName::from_bytes(given.text.as_bytes())
        .map(drop)
        .map_err(|_| Complaint::new(format!("{} is not the name of a header", given.shown), "names have letters, digits and `-`"))
}

fn header_value(given: Given<'_>) -> Result<(), Complaint> {
    http::HeaderValue::from_str(given.text).map(drop).map_err(|_| {
        Complaint::new(format!("{} cannot be the value of a header", given.shown), "leave out line breaks and control characters")
    })
}

fn header_template(given: Given<'_>) -> Result<(), Complaint> {
    header_value(given)?;
    Template::parse(given.text)
        .map(drop)
        .map_err(|error| Complaint::new(format!("{} cannot be filled in: {}", given.shown, fault(given, &error)), format!("write {GAPS}")))
}

/// What an error says of a text that messages may show; less of one that they may not.
fn fault(given: Given<'_>, error: &impl std::fmt::Display) -> String {
    if given.shown == quoted(given.text) { error.to_string() } else { "a gap in it is wrong".to_owned() }
}

fn claim_path(given: Given<'_>) -> Result<(), Complaint> {
    Path::parse(given.text).map(drop).map_err(|error| {
        Complaint::new(
            format!("{} is not the path of a claim: {error}", given.shown),
            "write one such as `tid`, `realm_access.roles` or `'https://example.com/org'.id`",
        )
    })
}

fn certificate_field(given: Given<'_>) -> Result<(), Complaint> {
    if client_certificate::FIELDS.contains(&given.text) {
        return Ok(());
    }
    let message = format!("nothing is read of a certificate under the name {}", given.shown);
    Err(Complaint::new(message, instead_of(given.text, &client_certificate::FIELDS, "known fields")))
}

/// RFC 6749 section 3.3, without the comma that parts scopes in the token API.
fn scope(given: Given<'_>) -> Result<(), Complaint> {
    let good = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b',');
    if given.text.is_empty() || !given.text.bytes().all(good) {
        return Err(Complaint::new(
            format!("{} is not a scope", given.shown),
            "write each scope as an item of its own, without blanks and commas",
        ));
    }
    Ok(())
}

fn path_regex(given: Given<'_>) -> Result<(), Complaint> {
    crate::path_regex::compile(given.text, false).map(drop).map_err(|error| {
        // The library's message draws the pattern over several lines; its last says what is wrong.
        let said = error.to_string();
        let said = said.lines().last().unwrap_or_default().trim_start_matches("error: ");
        Complaint::new(format!("{} is not a regular expression: {}", given.shown, fault(given, &said)), "write one such as `/users/[0-9]+`")
    })
}

/// Lists are joined with commas on their way to the token service: an item with a comma would be two.
fn list_item(given: Given<'_>) -> Result<(), Complaint> {
    if given.text.is_empty() {
        return Err(Complaint::new("an empty item", "remove it"));
    }
    if given.text.contains(',') {
        return Err(Complaint::new(
            format!("{} has a comma in it: the token service would take it for several items", given.shown),
            "write each as an item of its own",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::SocketAddr;

    fn complaint(format: &str, text: &str) -> Option<Complaint> {
        let shown = quoted(text);
        check(format, Given { text, shown: &shown }).err()
    }

    fn wrong(format: &str, text: &str) -> (String, String) {
        let complaint = complaint(format, text).unwrap();
        (complaint.message, complaint.help.unwrap())
    }

    #[test]
    fn good_texts_pass() {
        for (format, texts) in [
            ("duration", &["500ms", "30s", "5m", "24h", "0s", "1h 30m"][..]),
            ("percent", &["0%", "50%", "100%"]),
            ("file-mode", &["0400", "440", "0644"]),
            ("details", &["off", "on_mint", "60s", "1h"]),
            ("size", &["512B", "64KiB", "1MiB", "64 KB"]),
            ("socket-address", &["127.0.0.1:8080", "0.0.0.0:0", "[::1]:80"]),
            ("network", &["10.0.0.0/8", "10.0.0.1", "::1", "fd00::/8"]),
            ("http-url", &["https://h", "http://127.0.0.1:8090/prefix", "https://[::1]:1/"]),
            ("host-port", &["app:3000", "127.0.0.1:1", "[::1]:65535", "a.b-c.svc.cluster.local.:80", "my_app:80"]),
            ("absolute-path", &["/", "/api", "/a%20b"]),
            ("method", &["GET", "PROPFIND", "M-SEARCH"]),
            ("header-name", &["X-Api-Key", "x_y"]),
            ("header-value", &["", "a b", "é"]),
            ("header-template", &["", "a", "{claims.sub}", "{{}}", "{peer} {route}", "{client_certificate.uri}"]),
            ("claim-path", &["sub", "a.b", "'https://a.b/c'.d"]),
            ("certificate-field", &["subject", "uri"]),
            ("scope", &["GDS.FILES.READ", "read:x", "a/b"]),
            ("path-regex", &["/users/[0-9]+", "/(a|b)/.*"]),
            ("list-item", &["GDS.FILES.READ", "a b"]),
            ("host-pattern", &["a", "a.example.com", "*.example.com", "10.0.0.1", "[::1]", "A.B"]),
            ("upstream-host", &["preserve", "upstream", "app.internal", "app.internal:8443"]),
        ] {
            for text in texts {
                assert!(complaint(format, text).is_none(), "{format} {text}: {:?}", complaint(format, text));
            }
        }
    }

    #[test]
    fn bad_texts_are_explained() {
        assert_eq!(wrong("duration", "30"), ("a duration needs a unit".into(), "write `30s`".into()));
        assert_eq!(wrong("duration", "1000years").0, "`1000years` is longer than a year");
        assert_eq!(wrong("size", "65536"), ("a size needs a unit".into(), "write `65536B`".into()));
        assert_eq!(wrong("socket-address", "localhost:8080").1, "write `127.0.0.1:8080`");
        assert_eq!(wrong("socket-address", "127.0.0.1").1, "the port is missing: write `127.0.0.1:8080`");
        assert_eq!(
            wrong("http-url", "tokens.example.com"),
            ("`tokens.example.com` is a URL without a scheme".into(), "write `https://tokens.example.com`".into())
        );
        assert_eq!(wrong("host-port", "app"), ("`app` has no port".into(), "write `app:80`".into()));
        assert_eq!(wrong("host-port", "http://app:80/x").1, "leave the scheme out: write `app:80`");
        assert_eq!(wrong("host-port", "::1").1, "write `[::1]:80`");
        assert_eq!(wrong("absolute-path", "api").1, "write `/api`");
        assert_eq!(wrong("method", "get").1, "write `GET`");
        assert_eq!(wrong("host-pattern", "a.example.com:8080").1, "ports do not count here: write `a.example.com`");
        for (format, text) in [
            ("duration", "soon"),
            ("percent", "50"),
            ("percent", "101%"),
            ("percent", "-1%"),
            ("file-mode", "256"),
            ("file-mode", "0199"),
            ("file-mode", "04000"),
            ("details", "sometimes"),
            ("details", "60"),
            ("details", "500ms"),
            ("duration", ""),
            ("size", "much"),
            ("network", "10.0.0.0/40"),
            ("http-url", "ftp://h"),
            ("http-url", "https://h?x=1"),
            ("http-url", "https://h#x"),
            ("http-url", "https://"),
            ("host-port", "app:0"),
            ("host-port", "app:99999"),
            ("host-port", "a b:1"),
            ("host-port", ":80"),
            ("absolute-path", "/a?b"),
            ("method", "G T"),
            ("header-name", "X Y"),
            ("header-value", "a\nb"),
            ("header-template", "{"),
            ("header-template", "{sub}"),
            ("header-template", "a\n{peer}"),
            ("claim-path", "a..b"),
            ("scope", "a b"),
            ("scope", ""),
            ("path-regex", "/("),
            ("path-regex", "(a{1000}){1000}"),
            ("list-item", "a,b"),
            ("list-item", ""),
            ("host-pattern", "a.*.com"),
            ("host-pattern", ""),
            ("upstream-host", "a b"),
            ("path", ""),
        ] {
            assert!(complaint(format, text).is_some(), "{format} {text}");
        }
    }

    #[test]
    fn a_password_in_a_url_is_not_shown() {
        for (format, text) in [("http-url", "https://u:canary@h"), ("http-url", "https://u:canary@"), ("host-port", "http://u:canary@h:1")]
        {
            let complaint = complaint(format, text).unwrap();
            assert!(complaint.secret, "{text}");
            assert!(!format!("{complaint:?}").contains("canary"), "{complaint:?}");
        }
    }

    #[test]
    fn an_expanded_value_is_not_shown() {
        for format in [
            "duration",
            "size",
            "socket-address",
            "network",
            "http-url",
            "host-port",
            "absolute-path",
            "method",
            "header-name",
            "list-item",
            "host-pattern",
            "upstream-host",
        ] {
            for text in ["canary", "canary\n,x y", "canary:8080", "http://canary,", "127.0.0.1 canary", "localhost:canary"] {
                if let Err(complaint) = check(format, Given { text, shown: "`${X}`" }) {
                    assert!(!format!("{complaint:?}").to_lowercase().contains("canary"), "{format} {text}: {complaint:?}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn what_passes_can_be_read(text in "[0-9a-z.: ]{0,12}") {
            if complaint("duration", &text).is_none() { prop_assert!(Duration::parse(&text).is_ok()); }
            if complaint("socket-address", &text).is_none() { prop_assert!(text.parse::<SocketAddr>().is_ok()); }
            if complaint("host-port", &text).is_none() { prop_assert!(http::uri::Authority::try_from(text.as_str()).is_ok()); }
        }
    }
}
