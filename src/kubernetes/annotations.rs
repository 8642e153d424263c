//! What a pod's annotations ask for.

use serde_json::{Map, Value};
use url::Url;

use super::Defaults;
use super::edit::Path;
use super::fault::Fault;
use super::resources;
use crate::config::{closest, quoted};

/// What the names of all of them begin with.
pub const PREFIX: &str = "bearerd.dev/";
/// Whether bearerd is to be put in.
pub const INJECT: &str = "bearerd.dev/inject";
/// Written once it is.
pub const STATUS: &str = "bearerd.dev/status";
/// The value of [`STATUS`].
pub const INJECTED: &str = "injected";
/// The label of pods whose metrics are read: what the PodMonitor selects. Whoever has written it keeps what it says.
pub const METRICS_LABEL: &str = "bearerd.dev/metrics";
/// Written where no ConfigMap is named: the configuration, which the sidecar reads as a file by way of the downward API.
pub const GENERATED: &str = "bearerd.dev/generated-config";

const CONFIG: &str = "bearerd.dev/config";
const API_KEY_SECRET: &str = "bearerd.dev/api-key-secret";
const MODE: &str = "bearerd.dev/mode";
const UPSTREAM_PORT: &str = "bearerd.dev/upstream-port";
const UPSTREAM: &str = "bearerd.dev/upstream";
const TOKEN_SERVICE: &str = "bearerd.dev/token-service";
const PORT: &str = "bearerd.dev/port";
const IMAGE: &str = "bearerd.dev/image";
const RESOURCES: &str = "bearerd.dev/resources";
const NATIVE: &str = "bearerd.dev/native";

/// Those that people write.
const KNOWN: [&str; 11] = [INJECT, CONFIG, API_KEY_SECRET, MODE, UPSTREAM_PORT, UPSTREAM, TOKEN_SERVICE, PORT, IMAGE, RESOURCES, NATIVE];

/// Where bearerd takes requests unless [`PORT`] says otherwise.
const DEFAULT_PORT: u16 = 8080;
/// Those of its other listeners.
pub const ADMIN_PORT: u16 = 9901;
/// See [`ADMIN_PORT`].
pub const METRICS_PORT: u16 = 9902;

/// How bearerd stands in the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// In front of the app.
    Inbound,
    /// Beside an app that calls a protected platform.
    Outbound,
    /// Behind a proxy in the pod, which asks it.
    Decision,
}

/// What the sidecar does.
#[derive(Debug, PartialEq, Eq)]
pub enum Source {
    /// What the key `bearerd.yaml` of this ConfigMap says.
    ConfigMap(String),
    /// In front of an app on this port.
    Inbound {
        /// Where tokens come from.
        token_service: Url,
        /// The app's port on loopback.
        upstream_port: u16,
    },
    /// In front of a platform, with a key of its own.
    Outbound {
        /// Where tokens come from.
        token_service: Url,
        /// The platform.
        upstream: Url,
    },
    /// For a proxy in the pod.
    Decision {
        /// Where tokens come from.
        token_service: Url,
    },
}

/// A sidecar, as it is asked for.
#[derive(Debug, PartialEq)]
pub struct Wanted {
    /// How it stands.
    pub mode: Mode,
    /// What it does.
    pub source: Source,
    /// The Secret with its key.
    pub secret: Option<String>,
    /// Where it takes requests.
    pub port: u16,
    /// The app's port, for a configuration that has use for it.
    pub upstream_port: Option<u16>,
    /// Its image.
    pub image: String,
    /// What it may take.
    pub resources: Value,
    /// Whether it is a native sidecar (Kubernetes 1.29 or later), or a container beside the others.
    pub native: bool,
}

/// What annotations say on the whole.
#[derive(Debug, PartialEq)]
pub enum Asked {
    /// Nothing, or that the pod is to be left alone.
    Nothing,
    /// That bearerd is in already.
    Injected,
    /// A sidecar.
    Sidecar(Box<Wanted>),
}

/// A fault of the annotation at this place.
type Refused = (Path, Fault);

/// Reads the annotations at `place`.
pub fn read(annotations: &Map<String, Value>, place: &Path, defaults: &Defaults) -> Result<Asked, Refused> {
    let reader = Reader { annotations, place };
    let own: Vec<&str> = annotations.keys().map(String::as_str).filter(|name| name.starts_with(PREFIX)).collect();
    let Some(first) = own.first() else { return Ok(Asked::Nothing) };
    if annotations.contains_key(STATUS) {
        return match reader.text(STATUS)? {
            Some(INJECTED) => Ok(Asked::Injected),
            _ => Err(reader.unfit(STATUS, "bearerd writes `injected`; remove the annotation")),
        };
    }
    if let Some(unknown) = own.iter().find(|name| !KNOWN.contains(name)) {
        return Err((place.key(unknown), unknown_annotation(unknown)));
    }
    match reader.switch(INJECT)? {
        Some(true) => reader.wanted(defaults).map(|wanted| Asked::Sidecar(Box::new(wanted))),
        Some(false) => Ok(Asked::Nothing),
        None => Err((place.key(first), Fault::Pointless)),
    }
}

/// The first annotation under bearerd's name.
pub fn first_own(annotations: &Map<String, Value>) -> Option<&str> {
    annotations.keys().map(String::as_str).find(|name| name.starts_with(PREFIX))
}

fn unknown_annotation(name: &str) -> Fault {
    let short = |name: &'static str| name.strip_prefix(PREFIX).unwrap_or(name);
    let known: Vec<&str> = KNOWN.iter().map(|name| short(name)).collect();
    let help = match closest(name.strip_prefix(PREFIX).unwrap_or(name), &known) {
        _ if name == GENERATED => "people write `bearerd.dev/config`; bearerd writes this one itself".to_owned(),
        Some(word) => format!("did you mean `{PREFIX}{word}`?"),
        None => format!("known ones: {}", KNOWN.map(|name| format!("`{name}`")).join(", ")),
    };
    Fault::Unknown { help }
}

/// What [`web_url`] takes, in words.
pub const WEB_URL: &str = "write a URL as `https://platform.example.com`, with neither user nor query";

/// A URL of a server, without anything that could be secret.
pub fn web_url(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let is_plain = url.username().is_empty() && url.password().is_none() && url.query().is_none() && url.fragment().is_none();
    let is_web = matches!(url.scheme(), "http" | "https") && url.host().is_some();
    (is_plain && is_web).then_some(url)
}

struct Reader<'a> {
    annotations: &'a Map<String, Value>,
    place: &'a Path,
}

impl Reader<'_> {
    fn wanted(&self, defaults: &Defaults) -> Result<Wanted, Refused> {
        let secret = self.name(API_KEY_SECRET, "the name of a Secret with the key `api-key`")?;
        let config = self.name(CONFIG, "the name of a ConfigMap with the key `bearerd.yaml`")?;
        let mode = match self.text(MODE)? {
            None if secret.is_some() => Mode::Outbound,
            None | Some("inbound") => Mode::Inbound,
            Some("outbound") => Mode::Outbound,
            Some("decision") => Mode::Decision,
            Some(_) => return Err(self.unfit(MODE, "write `inbound`, `outbound` or `decision`")),
        };
        let port = self.port(PORT)?.unwrap_or(DEFAULT_PORT);
        if matches!(port, ADMIN_PORT | METRICS_PORT) {
            return Err(self.unfit(PORT, "bearerd's admin and metrics listeners have 9901 and 9902"));
        }
        let upstream_port = self.port(UPSTREAM_PORT)?;
        if upstream_port.is_some_and(|upstream| [port, ADMIN_PORT, METRICS_PORT].contains(&upstream)) {
            return Err(self.unfit(UPSTREAM_PORT, "the app cannot have a port of bearerd's; `bearerd.dev/port` moves the one for callers"));
        }
        let source = match config {
            Some(config) => {
                let help = "write it into the configuration";
                self.without(&[UPSTREAM, TOKEN_SERVICE], "`bearerd.dev/config`", help)?;
                Source::ConfigMap(config)
            }
            None => self.generated(mode, upstream_port, secret.is_some(), defaults)?,
        };
        let image = self.text(IMAGE)?.unwrap_or(&defaults.image);
        if image.is_empty() || image.contains(char::is_whitespace) {
            return Err(self.unfit(IMAGE, "write an image as `registry.example.com/bearerd:0.1.0`"));
        }
        let resources = match self.text(RESOURCES)? {
            None => resources::default(),
            Some(text) => resources::parse(text).map_err(|fault| {
                let example = "write `requests: { cpu: 25m, memory: 64Mi }`, perhaps with `limits`";
                self.unfit(RESOURCES, &format!("{fault}; {example}"))
            })?,
        };
        let native = self.switch(NATIVE)?.unwrap_or(true);
        Ok(Wanted { mode, source, secret, port, upstream_port, image: image.to_owned(), resources, native })
    }

    /// What to generate a configuration from.
    fn generated(&self, mode: Mode, upstream_port: Option<u16>, has_key: bool, defaults: &Defaults) -> Result<Source, Refused> {
        let token_service = match self.url(TOKEN_SERVICE)? {
            Some(url) => url,
            None => match &defaults.token_service {
                Some(url) => url.clone(),
                None => {
                    return Err(self.missing(TOKEN_SERVICE, "the URL that tokens come from; or name a ConfigMap in `bearerd.dev/config`"));
                }
            },
        };
        if mode != Mode::Outbound {
            let help = "name a ConfigMap in `bearerd.dev/config` that uses the key, or set `bearerd.dev/mode: outbound`";
            self.without(&[API_KEY_SECRET], "mode but `outbound`", help)?;
            self.without(&[UPSTREAM], "mode but `outbound`", "`bearerd.dev/upstream-port` names an app in the pod")?;
        }
        if mode != Mode::Inbound {
            self.without(&[UPSTREAM_PORT], "mode but `inbound`", "remove it")?;
        }
        match mode {
            Mode::Decision => Ok(Source::Decision { token_service }),
            Mode::Inbound => match upstream_port {
                Some(upstream_port) => Ok(Source::Inbound { token_service, upstream_port }),
                None => Err(self.missing(UPSTREAM_PORT, "the app's port on 127.0.0.1; or name a ConfigMap in `bearerd.dev/config`")),
            },
            Mode::Outbound if !has_key => Err(self.missing(API_KEY_SECRET, "the Secret with the key of bearerd's own")),
            Mode::Outbound => match self.url(UPSTREAM)? {
                Some(upstream) => Ok(Source::Outbound { token_service, upstream }),
                None => {
                    Err(self.missing(UPSTREAM, "the URL of the platform that the app calls; or name a ConfigMap in `bearerd.dev/config`"))
                }
            },
        }
    }

    fn text(&self, name: &'static str) -> Result<Option<&str>, Refused> {
        match self.annotations.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.unfit(name, "the value of an annotation is text: put it in quotes")),
        }
    }

    fn switch(&self, name: &'static str) -> Result<Option<bool>, Refused> {
        match self.text(name)? {
            None => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(_) => Err(self.unfit(name, "write \"true\" or \"false\"")),
        }
    }

    fn port(&self, name: &'static str) -> Result<Option<u16>, Refused> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let port = text.parse().ok().filter(|port| *port != 0 && text.bytes().all(|byte| byte.is_ascii_digit()));
        port.map(Some).ok_or_else(|| self.unfit(name, "write a port from 1 to 65535, in quotes"))
    }

    /// The name of an object (RFC 1123 subdomain).
    fn name(&self, name: &'static str, what: &str) -> Result<Option<String>, Refused> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let label = |label: &str| {
            let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            !label.is_empty() && !label.starts_with('-') && !label.ends_with('-') && label.bytes().all(inner)
        };
        let is_name = text.len() <= 253 && text.split('.').all(label);
        if is_name { Ok(Some(text.to_owned())) } else { Err(self.unfit(name, &format!("write {what}"))) }
    }

    /// Secrets have no place in a URL, and are not shown.
    fn url(&self, name: &'static str) -> Result<Option<Url>, Refused> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let url = web_url(text).filter(|url| name != UPSTREAM || url.path() == "/");
        let refused = || (self.place.key(name), Fault::Value { found: "its value".to_owned(), expected: WEB_URL.to_owned() });
        url.map(Some).ok_or_else(refused)
    }

    fn without(&self, names: &[&'static str], with: &'static str, help: &'static str) -> Result<(), Refused> {
        match names.iter().find(|name| self.annotations.contains_key(**name)) {
            Some(name) => Err((self.place.key(name), Fault::Unfit { with, help })),
            None => Ok(()),
        }
    }

    fn missing(&self, annotation: &'static str, help: &'static str) -> Refused {
        (self.place.clone(), Fault::Missing { annotation, help })
    }

    fn unfit(&self, name: &'static str, expected: &str) -> Refused {
        let found = self.annotations.get(name);
        let found = found.map(|found| quoted(found.as_str().unwrap_or(&found.to_string()))).unwrap_or_default();
        (self.place.key(name), Fault::Value { found, expected: expected.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn asked(annotations: &Value) -> Result<Asked, String> {
        let defaults = Defaults { image: "bearerd:1".to_owned(), token_service: None };
        let read = read(annotations.as_object().unwrap(), &Path::of(&["metadata", "annotations"]), &defaults);
        read.map_err(|(at, fault)| format!("{at}: {fault}"))
    }

    fn wanted(annotations: &Value) -> Wanted {
        match asked(annotations).unwrap() {
            Asked::Sidecar(wanted) => *wanted,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn pods_that_do_not_ask_are_left_alone() {
        for annotations in [json!({}), json!({ "other/inject": true }), json!({ "bearerd.dev/inject": "false", "bearerd.dev/config": "c" })]
        {
            assert_eq!(asked(&annotations), Ok(Asked::Nothing));
        }
        assert_eq!(asked(&json!({ STATUS: "injected", "bearerd.dev/anything": "x" })), Ok(Asked::Injected));
    }

    #[test]
    fn the_mode_follows_from_the_rest_unless_it_is_named() {
        assert_eq!(wanted(&json!({ INJECT: "true", CONFIG: "c" })).mode, Mode::Inbound);
        assert_eq!(wanted(&json!({ INJECT: "true", CONFIG: "c", API_KEY_SECRET: "s" })).mode, Mode::Outbound);
        let named =
            wanted(&json!({ INJECT: "true", CONFIG: "c", API_KEY_SECRET: "s", MODE: "inbound", UPSTREAM_PORT: "3000", NATIVE: "false" }));
        assert_eq!((named.mode, named.upstream_port, named.native, named.image.as_str()), (Mode::Inbound, Some(3000), false, "bearerd:1"));
        let generated = wanted(&json!({ INJECT: "true", MODE: "decision", TOKEN_SERVICE: "https://tokens.test" }));
        assert_eq!(generated.source, Source::Decision { token_service: Url::parse("https://tokens.test").unwrap() });
    }

    #[test]
    fn mistakes_are_named_with_what_to_do() {
        let with = |name: &str, value: &str| json!({ INJECT: "true", CONFIG: "c", name: value });
        for (annotations, told) in [
            (with("bearerd.dev/confg", "c"), "did you mean `bearerd.dev/config`?"),
            (with("bearerd.dev/zzzzzzz", "c"), "known ones: `bearerd.dev/inject`"),
            (with(GENERATED, "c"), "bearerd writes this one itself"),
            (json!({ "bearerd.dev/injct": "true" }), "did you mean `bearerd.dev/inject`?"),
            (json!({ CONFIG: "c" }), "no effect without `bearerd.dev/inject`"),
            (json!({ INJECT: true }), "`true` does not fit: the value of an annotation is text"),
            (json!({ INJECT: "yes" }), "write \"true\" or \"false\""),
            (json!({ STATUS: "done" }), "remove the annotation"),
            (with(CONFIG, "Upper"), "the name of a ConfigMap"),
            (with(MODE, "sideways"), "`inbound`, `outbound` or `decision`"),
            (with(PORT, "0"), "a port from 1 to 65535"),
            (with(PORT, "+80"), "a port from 1 to 65535"),
            (with(PORT, "9902"), "9901 and 9902"),
            (with(UPSTREAM_PORT, "8080"), "`bearerd.dev/port` moves"),
            (with(IMAGE, "a b"), "write an image"),
            (with(RESOURCES, "{ limits: { memory: much } }"), "`limits.memory` is not an amount"),
            (with(NATIVE, "no"), "write \"true\" or \"false\""),
            (with(TOKEN_SERVICE, "https://a"), "goes with no `bearerd.dev/config`"),
            (json!({ INJECT: "true" }), "`bearerd.dev/token-service` is missing"),
            (json!({ INJECT: "true", TOKEN_SERVICE: "https://a" }), "`bearerd.dev/upstream-port` is missing"),
            (json!({ INJECT: "true", TOKEN_SERVICE: "https://a", MODE: "outbound" }), "`bearerd.dev/api-key-secret` is missing"),
            (json!({ INJECT: "true", TOKEN_SERVICE: "https://a", API_KEY_SECRET: "s" }), "`bearerd.dev/upstream` is missing"),
            (
                json!({ INJECT: "true", TOKEN_SERVICE: "https://a", API_KEY_SECRET: "s", MODE: "inbound" }),
                "goes with no mode but `outbound`",
            ),
            (
                json!({ INJECT: "true", TOKEN_SERVICE: "https://a", MODE: "decision", UPSTREAM_PORT: "1" }),
                "goes with no mode but `inbound`",
            ),
        ] {
            let error = asked(&annotations).unwrap_err();
            assert!(error.contains(told), "{annotations}: {error}");
        }
    }

    #[test]
    fn a_password_in_a_url_is_refused_and_not_shown() {
        let error = asked(&json!({ INJECT: "true", TOKEN_SERVICE: "https://a:canary@b" })).unwrap_err();
        assert!(error.contains("neither user nor query") && !error.contains("canary"), "{error}");
    }
}
