//! From text to a checked configuration: parse, override, expand, check, read, cross-check, look at files.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::{fs, io};

use serde::Deserialize;

use super::diagnostic::{Diagnostic, Findings, about_file, in_order};
use super::document;
use super::environment::{self, Environment};
use super::place::KeyPath;
use super::positions::Positions;
use super::resolved::Resolved;
use super::schema::Schema;
use super::validate::{Report, validate};
use super::{Config, check, files};

/// A configuration that holds.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration. Every route has a name, every path is usable from where the process runs.
    pub config: Config,
    /// What works, and is likely not meant.
    pub warnings: Vec<Diagnostic>,
    /// What was right once, or will be, such as a certificate that has expired: `check` fails on it, a process starts all the same.
    pub lapsed: Vec<Diagnostic>,
    /// The configuration as people see it: every value, and where it comes from.
    pub resolved: Resolved,
}

/// Why there is no configuration. A process that was given it ends with exit code 78.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file itself cannot be read: name another, or make it readable.
    #[error("{file}: cannot read the configuration: {source}")]
    Unreadable {
        /// The file, as it was named.
        file: String,
        /// What the system says.
        source: io::Error,
    },
    /// The operator must mend what is written. All mistakes that could be found at once, in the order of the file.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n\n"))]
    Mistakes(Vec<Diagnostic>),
}

impl Error {
    /// The mistakes one by one, for output that is not meant for people.
    pub fn diagnostics(&self) -> Vec<Diagnostic> {
        match self {
            Self::Unreadable { file, source } => vec![about_file(file, format!("cannot read the configuration: {source}"), None)],
            Self::Mistakes(mistakes) => mistakes.clone(),
        }
    }
}

/// Loads a file, with the environment of this process. Relative paths in it start at its folder.
///
/// # Errors
/// When it cannot be read, or holds mistakes.
pub fn load(path: &Path) -> Result<Loaded, Error> {
    let file = path.display().to_string();
    let text = fs::read_to_string(path).map_err(|source| Error::Unreadable { file: file.clone(), source })?;
    let folder = path.parent().unwrap_or(Path::new(""));
    from_text(&text, &file, &environment::of_process(), folder)
}

/// Tells whether a file is as it was: the same number for the same text, in this process. None where it cannot be read. Taken before [`load`], no change
/// after that is missed.
pub fn fingerprint(path: &Path) -> Option<u64> {
    let text = fs::read(path).ok()?;
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    Some(hasher.finish())
}

/// Loads a text under the name `file`. Relative paths in it start at `folder`.
///
/// # Errors
/// When it holds mistakes.
pub fn from_text(text: &str, file: &str, environment: &Environment, folder: &Path) -> Result<Loaded, Error> {
    let mut findings = Findings::new(file, text);
    let Some(mut root) = document::parse(text, &mut findings) else { return Err(Error::Mistakes(findings.sorted())) };
    document::take_nothing_as_empty(&mut root);
    let schema = Schema::of_config();
    environment::override_values(&mut root, schema.root(), environment, &mut findings);
    environment::expand(&mut root, environment, &KeyPath::default(), &mut findings);
    let positions = Positions::of(&root);
    let label = positions.key(&KeyPath::default()).clone();
    let checked = check::check(&root, schema.root(), &label, &KeyPath::default(), &mut findings);

    let wrong: Vec<String> = findings.keys().map(str::to_owned).collect();
    let mut mistakes = findings.sorted();
    // Behind a misspelt section, all that refers to it would look wrong too.
    let known = schema.root().object_for(&root).map(|object| object.known_keys()).unwrap_or_default();
    let all_known = positions.names(&KeyPath::default()).iter().all(|key| known.contains(key));
    let Some(value) = checked.filter(|_| all_known) else { return Err(Error::Mistakes(mistakes)) };
    // What serde says may quote values, and those may be secrets.
    let Ok(mut config) = Config::deserialize(value) else {
        mistakes.extend(
            mistakes.is_empty().then(|| about_file(file, "the configuration cannot be read, although it fits its schema".to_owned(), None)),
        );
        return Err(Error::Mistakes(mistakes));
    };
    let mut report = Report::new(&positions, &wrong, file, text);
    validate(&config, &mut report);
    files::resolve(&mut config, folder, &mut report);
    let (found, warnings, lapsed) = report.finish();
    mistakes.extend(found);
    if !mistakes.is_empty() {
        return Err(Error::Mistakes(in_order(mistakes)));
    }
    for (index, route) in config.routes.iter_mut().enumerate() {
        route.name = Some(route.name_at(index));
    }
    let resolved = Resolved::of(&config, &positions, file);
    Ok(Loaded { config, warnings, lapsed, resolved })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::route::{ApiKeyPlace, Auth, CredentialKind, CredentialSource, Details, OnMultiple, Placed};
    use crate::config::{TokenService, Workers};
    use proptest::prelude::*;
    use std::time::Duration;

    fn loaded(text: &str) -> Result<Loaded, Error> {
        from_text(text, "f", &Environment::new(), Path::new("/nowhere"))
    }

    const SMALLEST: &str =
        "token_services: {default: {kind: iap, url: 'https://t'}}\nupstreams: {app: {servers: ['a:1']}}\nroutes: [{upstream: app}]\n";

    #[test]
    fn the_smallest_file_gets_the_defaults() {
        let config = loaded(SMALLEST).unwrap().config;
        assert_eq!(config.listeners[0].address, "127.0.0.1:8080".parse().unwrap());
        assert_eq!(config.admin.address, "127.0.0.1:9901".parse().unwrap());
        assert_eq!(config.metrics.address, "127.0.0.1:9902".parse().unwrap());
        assert_eq!(config.token_services["default"].mint().wait, Duration::from_secs(10));
        assert_eq!(config.upstreams["app"].host(), "preserve");
        let route = &config.routes[0];
        assert_eq!(route.name.as_deref(), Some("route-1"));
        assert_eq!(
            (route.auth, route.on_multiple, route.validate.details_of_minted()),
            (Auth::Required, OnMultiple::Reject, Details::OnMint)
        );
        assert_eq!(route.credentials().len(), 3);
        assert_eq!(config.shutdown.drain_timeout, Duration::from_secs(20));
        assert_eq!(config.workers, Workers::default());
    }

    #[test]
    fn what_is_written_is_read() {
        let text = "
token_services:
  default: { kind: embedded, keys_file: /dev/null, signing_key_file: /key.pem, lifetime: 5m, mint: { rate: 7 } }
upstreams: { app: { servers: ['a:1', '[::1]:2'], host: upstream, timeouts: { read: 2s } } }
routes:
  - name: 12
    upstream: app
    match: { hosts: ['*.a'], path_prefix: /x, methods: [GET], headers: { X-A: 1.10 } }
    credentials: [session_token, { api_key: { query: k } }, { api_key: { header: X-K } }]
    on_multiple: first
    token: { cid: 0012, scopes: [a, b], return_session_token: true }
    headers: { set: { X-B: true }, remove: [Cookie] }
  - respond: { status: 204 }
    auth: none
listeners: [{ address: '127.0.0.1:0', trusted_peers: [10.0.0.1], limits: { header_bytes: 2KiB } }]
workers: 3
";
        let config = loaded(text).unwrap_or_else(|error| panic!("{error}")).config;
        let TokenService::Embedded(embedded) = &config.token_services["default"] else { panic!("not embedded") };
        assert_eq!((embedded.lifetime, embedded.mint.rate), (Duration::from_secs(300), 7));
        assert_eq!(config.upstreams["app"].timeouts.read, Duration::from_secs(2));
        let route = &config.routes[0];
        assert_eq!(route.name.as_deref(), Some("12"));
        assert_eq!(route.matches.headers["X-A"], "1.10");
        assert_eq!(route.token.cid.as_deref(), Some("0012"));
        assert_eq!(route.headers.set["X-B"], "true");
        assert!(matches!(route.credentials()[0], CredentialSource::Kind(CredentialKind::SessionToken)));
        assert!(matches!(&route.credentials()[1], CredentialSource::Placed(Placed::ApiKey(ApiKeyPlace::Query(name))) if name == "k"));
        assert!(matches!(&route.credentials()[2], CredentialSource::Placed(Placed::ApiKey(ApiKeyPlace::Header(name))) if name == "X-K"));
        assert_eq!(config.routes[1].name.as_deref(), Some("route-2"));
        assert_eq!(config.listeners[0].trusted()[0].to_string(), "10.0.0.1/32");
        assert_eq!(config.listeners[0].limits.header_bytes.0, 2048);
        assert_eq!(config.workers.count(), 3);
    }

    #[test]
    fn an_alias_is_the_value_that_it_stands_for() {
        let text =
            SMALLEST.replace("{upstream: app}", "{upstream: app, match: {path: /a}, token: &t {scopes: [x]}}, {upstream: app, token: *t}");
        assert_eq!(loaded(&text).unwrap().config.routes[1].token.scopes, ["x"]);
    }

    #[test]
    fn the_demo_needs_no_process_environment() {
        let environment =
            Environment::from([("PORT".to_owned(), "1".to_owned()), ("BEARERD__LOGGING__ACCESS".to_owned(), "false".to_owned())]);
        let config = from_text(&SMALLEST.replace("a:1", "a:${PORT}"), "f", &environment, Path::new("")).unwrap().config;
        assert_eq!(config.upstreams["app"].servers, ["a:1"]);
        assert!(!config.logging.access);
    }

    /// YAML flow text out of the words that the configuration knows, right and wrong ones.
    fn yaml() -> impl Strategy<Value = String> {
        let schema = schemars::schema_for!(Config).to_value().to_string();
        let mut words: Vec<String> = schema.split(|char: char| !(char.is_ascii_alphanumeric() || char == '_')).map(str::to_owned).collect();
        words.sort_unstable();
        words.dedup();
        words.retain(|word| !word.is_empty());
        let values = [
            "1",
            "0",
            "-1",
            "1.5",
            "true",
            "~",
            "30s",
            "1KiB",
            "'a:1'",
            "'https://a'",
            "'127.0.0.1:0'",
            "/a",
            "'${X}'",
            "'$$'",
            "''",
            "18446744073709551615",
            "é",
        ];
        let scalar = prop_oneof![prop::sample::select(words.clone()), prop::sample::select(values.to_vec()).prop_map(str::to_owned)];
        scalar.prop_recursive(6, 64, 8, move |inner| {
            let keys = prop::sample::select(words.clone());
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(", "))),
                prop::collection::vec((keys, inner), 0..8).prop_map(|entries| {
                    let entries: Vec<_> = entries.iter().map(|(key, value)| format!("{key}: {value}")).collect();
                    format!("{{{}}}", entries.join(", "))
                }),
            ]
        })
    }

    /// A value put into a place of an otherwise good configuration.
    fn nearly_good() -> impl Strategy<Value = String> {
        let places = ["upstream: app, ", "'https://t'", "['a:1']", "token_services: {", "routes: [", "routes: [{"];
        (
            prop::sample::select(places.to_vec()),
            prop::sample::select(vec!["auth", "credentials", "token", "headers", "match", "mint", "workers", "name"]),
            yaml(),
        )
            .prop_map(|(place, key, value)| match place {
                "routes: [" => format!("{key}: {value}\n{SMALLEST}"),
                "routes: [{" | "upstream: app, " => SMALLEST.replace("{upstream: app", &format!("{{upstream: app, {key}: {value}")),
                "token_services: {" => SMALLEST.replace("kind: iap", &format!("kind: iap, {key}: {value}")),
                place => SMALLEST.replace(place, &value),
            })
    }

    proptest! {
        #[test]
        fn what_fits_the_schema_is_read(text in prop_oneof![yaml(), nearly_good()]) {
            if let Err(error) = loaded(&text) {
                prop_assert!(!error.diagnostics().is_empty());
                prop_assert!(!error.to_string().contains("although it fits its schema"), "{}", text);
            }
        }

        #[test]
        fn no_text_panics(text in "[ \\-:a-c\\[\\]{}#&*!|>'\"%@`?,~<0-9.\t\n$é]{0,80}") {
            let _ = loaded(&text).map_err(|error| error.to_string());
        }
    }
}
