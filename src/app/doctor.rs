//! What bearerd depends on, asked for real: names, servers, token services, key sets, certificates, files. One finding each, with what to do.

mod upstream;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use serde::Serialize;
use tokio::runtime::Handle;

use super::assemble::{self, KeySources};
use super::{Error, bind};
use crate::claims::Claims;
use crate::clock::Clock;
use crate::config::route::Auth;
use crate::config::{self, Config, TokenService as Section};
use crate::credential::{Credential, Kind};
use crate::exchange::ledger::Keys;
use crate::jwks::source::Asked;
use crate::mounted::MountedKey;
use crate::secret::Secret;
use crate::tls::files::{self, Validity};
use crate::token_service::iap::IapTokenService;
use crate::token_service::{self, TokenParams, TokenService};

/// How many seconds the clock of a token service may be off by a token's `iat`, where `nbf` counts.
const BY_TOKEN: i64 = 5;
/// The same by the `Date` of an answer, which may be that of a proxy before the service.
const BY_DATE: i64 = 30;

/// What was found out about one thing.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// The thing, by its key in the configuration.
    pub what: String,
    /// Whether it is as it should be.
    pub ok: bool,
    /// What was seen.
    pub seen: String,
    /// What to do where it is not, or soon will not be.
    pub advice: Option<String>,
}

/// Looks at everything that `config` names. With `key` an API key, a token is minted with it at each token service, and revoked again.
pub async fn examine(config: &Config, key: Option<&Secret>, clock: &Clock) -> Vec<Finding> {
    let mut doctor = Doctor { findings: Vec::new(), clock: clock.clone(), largest: BTreeMap::new() };
    doctor.ports(config);
    doctor.certificates(config);
    for (name, section) in &config.token_services {
        doctor.token_service(name, section, config, key).await;
    }
    doctor.mounted_keys(config).await;
    doctor.key_sets(config).await;
    for (name, section) in &config.upstreams {
        doctor.upstream(name, section).await;
    }
    doctor.ledger(config);
    doctor.findings
}

struct Doctor {
    findings: Vec<Finding>,
    clock: Clock,
    /// The longest `Authorization` line that each upstream would get, of the tokens that were minted.
    largest: BTreeMap<String, usize>,
}

impl Doctor {
    fn good(&mut self, what: impl Into<String>, seen: impl Into<String>) {
        self.findings.push(Finding { what: what.into(), ok: true, seen: seen.into(), advice: None });
    }

    fn bad(&mut self, what: impl Into<String>, seen: impl Into<String>, advice: impl Into<String>) {
        self.findings.push(Finding { what: what.into(), ok: false, seen: seen.into(), advice: Some(advice.into()) });
    }

    /// It is well, and will not be for long.
    fn warn(&mut self, what: impl Into<String>, seen: impl Into<String>, advice: impl Into<String>) {
        self.findings.push(Finding { what: what.into(), ok: true, seen: seen.into(), advice: Some(advice.into()) });
    }

    /// A port that is taken is no fault: the bearerd that is asked about may be running.
    fn ports(&mut self, config: &Config) {
        let callers =
            config.listeners.iter().enumerate().map(|(place, listener)| (format!("listeners[{place}].address"), listener.address));
        let own = [("admin.address".to_owned(), config.admin.address), ("metrics.address".to_owned(), config.metrics.address)];
        for (key, address) in callers.chain(own) {
            match bind(address, || key.clone()) {
                Ok(_) => self.good(key, format!("{address} is free")),
                Err(Error::Bind { cause, .. }) if cause.kind() == io::ErrorKind::AddrInUse => {
                    self.good(key, format!("{address} is taken, as it is while bearerd runs"));
                }
                Err(error) => {
                    self.bad(key, error.to_string(), "choose an address of this machine, and a port that this user may listen on")
                }
            }
        }
    }

    fn certificates(&mut self, config: &Config) {
        for (place, listener) in config.listeners.iter().enumerate() {
            for (pair, files) in listener.tls.iter().flat_map(|tls| &tls.certificates).enumerate() {
                self.certificate(format!("listeners[{place}].tls.certificates[{pair}]"), &files.certificate);
            }
        }
        for (name, upstream) in &config.upstreams {
            if let Some(certificate) = upstream.tls.as_ref().and_then(|tls| tls.certificate.as_ref()) {
                self.certificate(format!("upstreams.{name}.tls.certificate"), certificate);
            }
        }
    }

    fn certificate(&mut self, key: String, file: &Path) {
        match files::validity(file, std::time::SystemTime::now()) {
            Ok(Validity::Now) => self.good(key, format!("{} is valid now", file.display())),
            Ok(Validity::From(date)) => {
                self.bad(key, format!("{} is valid only from {date}", file.display()), "look at this machine's clock")
            }
            Ok(Validity::Until(date)) => {
                self.bad(key, format!("{} has expired: {date}", file.display()), "put a new one in its place; it is taken up at once")
            }
            Err(error) => self.bad(key, error.to_string(), "mend the file"),
        }
    }

    /// The service answers, and knows the key where there is one.
    async fn token_service(&mut self, name: &str, section: &Section, config: &Config, key: Option<&Secret>) {
        let what = format!("token_services.{name}");
        let Section::Iap(iap) = section else { return self.good(what, "runs in this process") };
        let client = match IapTokenService::new(iap, self.clock.clone()) {
            Ok(client) => client,
            Err(error) => return self.bad(what, error.to_string(), "mend the section"),
        };
        let asked = self.clock.now().as_secs();
        let (outcome, date) = client.greet().await;
        let answered = self.clock.now().as_secs();
        match outcome {
            Err(error @ (token_service::Error::Unavailable(_) | token_service::Error::Protocol(_))) => {
                return self.bad(
                    what,
                    format!("{}: {error}", iap.url),
                    "check the URL, DNS, network policies, and `tls` of this token service",
                );
            }
            Err(error @ token_service::Error::RateLimited { .. }) => self.good(&what, format!("{} answers: {error}", iap.url)),
            _ => self.good(&what, format!("{} answers", iap.url)),
        }
        if let Some(date) = date.and_then(|date| i64::try_from(date.duration_since(UNIX_EPOCH).ok()?.as_secs()).ok()) {
            self.compare_clocks(&what, date, asked, answered, BY_DATE);
        }
        if let Some(key) = key {
            let route = config.routes.iter().find(|route| route.token.service == *name);
            let params = route.map(|route| assemble::terms(route).params).unwrap_or_default();
            let advice = "check that the key is complete, current and meant for this service";
            let length = self.mint(format!("{what}: create_token"), &client, key, &params, advice).await;
            let takes = |route: &&config::Route| route.token.service == *name && route.auth == Auth::Required && route.mounted().is_none();
            config.routes.iter().filter(takes).for_each(|route| self.measure(route.upstream.as_deref(), length));
        }
    }

    async fn mounted_keys(&mut self, config: &Config) {
        let routes = config.routes.iter().filter_map(|route| {
            let user = format!("routes.{}", route.name.as_deref().unwrap_or_default());
            Some((user, route.mounted()?, &route.token.service, assemble::terms(route).params, route.upstream.as_deref()))
        });
        let sinks = config.sinks.iter().enumerate().map(|(place, sink)| {
            (format!("sinks[{place}]"), &sink.credential.mounted, &sink.token.service, assemble::sink_terms(sink).params, None)
        });
        for (user, mounted, service, params, upstream) in routes.chain(sinks) {
            let what = format!("{user}: mounted key {}", mounted.file.display());
            let key = match MountedKey::open(&mounted.file) {
                Ok(key) => key.current(),
                Err(error) => {
                    self.bad(what, error.to_string(), "mount the key there");
                    continue;
                }
            };
            let Some(Section::Iap(iap)) = config.token_services.get(service) else { continue };
            // A section that cannot be used was told of before.
            let Ok(client) = IapTokenService::new(iap, self.clock.clone()) else { continue };
            let length = self.mint(what, &client, &key, &params, "put a key that the token service knows into the file").await;
            self.measure(upstream, length);
        }
    }

    /// Mints a token and revokes it again; how long it was.
    async fn mint(&mut self, what: String, client: &IapTokenService, key: &Secret, params: &TokenParams, advice: &str) -> Option<usize> {
        let credential = Credential { kind: Kind::ApiKey, value: key.clone() };
        let asked = self.clock.now().as_secs();
        match client.create_token(&credential, params).await {
            Ok(token) => {
                let answered = self.clock.now().as_secs();
                let revoked = if client.revoke_token(&token).await.is_ok() { "and revoked again" } else { "; it could not be revoked" };
                self.good(&what, format!("a token was minted {revoked}"));
                let claims = Claims::of(token.expose()).ok().flatten();
                if let Some(issued) = claims.and_then(|claims| claims.member("iat")?.as_i64()) {
                    self.compare_clocks(&what, issued, asked, answered, BY_TOKEN);
                }
                return Some(token.expose().len());
            }
            Err(error @ (token_service::Error::Unavailable(_) | token_service::Error::RateLimited { .. })) => {
                self.bad(what, error.to_string(), "try again; see the line of the token service");
            }
            Err(error) => self.bad(what, error.to_string(), advice),
        }
        None
    }

    /// `told` is the service's time between our asking and its answer.
    fn compare_clocks(&mut self, of: &str, told: i64, asked: i64, answered: i64, tolerance: i64) {
        let what = format!("{of}: clock");
        let ahead = if told > answered { told - answered } else { (told - asked).min(0) };
        if ahead.abs() <= tolerance {
            self.good(what, format!("within {tolerance} s of this machine's"));
        } else {
            let (side, advice) = match ahead {
                1.. => ("ahead of", "set both by NTP, or set `skew` of this token service"),
                _ => ("behind", "set both by NTP: tokens end by this machine's clock"),
            };
            self.bad(what, format!("{} s {side} this machine's", ahead.abs()), advice);
        }
    }

    /// A token of this length goes to this upstream.
    fn measure(&mut self, upstream: Option<&str>, length: Option<usize>) {
        let (Some(upstream), Some(length)) = (upstream, length) else { return };
        let line = "Authorization: Bearer \r\n".len() + length;
        let largest = self.largest.entry(upstream.to_owned()).or_default();
        *largest = line.max(*largest);
    }

    async fn key_sets(&mut self, config: &Config) {
        let mut sources = KeySources::default();
        for route in &config.routes {
            let Some(jwt) = &route.validate.jwt else { continue };
            let what = format!("routes.{}.validate.jwt", route.name.as_deref().unwrap_or_default());
            let source = match sources.of(jwt, &Handle::current()) {
                Ok(source) => source,
                Err(error) => {
                    self.bad(what, error.to_string(), "mend the file or the section");
                    continue;
                }
            };
            match source.first().await {
                Asked::Unavailable => {
                    self.bad(what, "the key set cannot be had", "check its URL and `tls`; the log of `bearerd run` has the cause")
                }
                _ => self.good(what, "the key set is there"),
            }
        }
    }

    /// Not opened: the bearerd that runs has it.
    fn ledger(&mut self, config: &Config) {
        let Some(ledger) = &config.cache.ledger else { return };
        let what = "cache.ledger";
        if let Err(error) = Keys::read(&ledger.key_files) {
            return self.bad(what, error.to_string(), "`head -c 32 /dev/urandom > ledger.key` makes a key");
        }
        let folder = ledger.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        match tempfile::tempfile_in(folder) {
            Ok(_) => self.good(what, format!("{} can be written", folder.display())),
            Err(error) => self.bad(what, format!("{}: {error}", folder.display()), "mount a folder there that this user may write to"),
        }
    }
}

/// How long a whole examination may take.
pub const PATIENCE: Duration = Duration::from_secs(60);
