//! What bearerd depends on, asked for real: names, servers, token services, key sets, certificates, files. One finding each, with what to do.

use std::io;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::time;

use super::assemble::{self, KeySources};
use super::{Error, bind};
use crate::claims::Claims;
use crate::clock::Clock;
use crate::config::{self, Config, TokenService as Section};
use crate::credential::{Credential, Kind};
use crate::exchange::ledger::Keys;
use crate::jwks::source::Asked;
use crate::mounted::MountedKey;
use crate::secret::Secret;
use crate::tls::files::{self, Validity};
use crate::token_service::iap::IapTokenService;
use crate::token_service::{self, TokenParams, TokenService};

/// How far the clock of a token service may be off before that is told.
const CLOCK: i64 = 5;

/// What was found out about one thing.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// The thing, by its key in the configuration.
    pub what: String,
    /// Whether it is as it should be.
    pub ok: bool,
    /// What was seen.
    pub seen: String,
    /// What to do where it is not.
    pub advice: Option<String>,
}

/// Looks at everything that `config` names. With `key` an API key, a token is minted with it at each token service, and revoked again.
pub async fn examine(config: &Config, key: Option<&Secret>, clock: &Clock) -> Vec<Finding> {
    let mut doctor = Doctor { findings: Vec::new(), clock: clock.clone() };
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
}

impl Doctor {
    fn good(&mut self, what: impl Into<String>, seen: impl Into<String>) {
        self.findings.push(Finding { what: what.into(), ok: true, seen: seen.into(), advice: None });
    }

    fn bad(&mut self, what: impl Into<String>, seen: impl Into<String>, advice: impl Into<String>) {
        self.findings.push(Finding { what: what.into(), ok: false, seen: seen.into(), advice: Some(advice.into()) });
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
        // Nobody's token: that it is refused is an answer.
        match client.get_token_details(&Secret::from("bearerd-doctor")).await {
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
        if let Some(key) = key {
            let route = config.routes.iter().find(|route| route.token.service == *name);
            let params = route.map(|route| assemble::terms(route).params).unwrap_or_default();
            self.mint(
                format!("{what}: create_token"),
                &client,
                key,
                &params,
                "check that the key is complete, current and meant for this service",
            )
            .await;
        }
    }

    async fn mounted_keys(&mut self, config: &Config) {
        let routes = config.routes.iter().filter_map(|route| {
            let user = format!("routes.{}", route.name.as_deref().unwrap_or_default());
            Some((user, route.mounted()?, &route.token.service, assemble::terms(route).params))
        });
        let sinks = config.sinks.iter().enumerate().map(|(place, sink)| {
            (format!("sinks[{place}]"), &sink.credential.mounted, &sink.token.service, assemble::sink_terms(sink).params)
        });
        for (user, mounted, service, params) in routes.chain(sinks) {
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
            self.mint(what, &client, &key, &params, "put a key that the token service knows into the file").await;
        }
    }

    async fn mint(&mut self, what: String, client: &IapTokenService, key: &Secret, params: &TokenParams, advice: &str) {
        let credential = Credential { kind: Kind::ApiKey, value: key.clone() };
        let asked = self.clock.now().as_secs();
        match client.create_token(&credential, params).await {
            Ok(token) => {
                let answered = self.clock.now().as_secs();
                let revoked = if client.revoke_token(&token).await.is_ok() { "and revoked again" } else { "; it could not be revoked" };
                self.good(&what, format!("a token was minted {revoked}"));
                self.clock_of(what, &token, asked, answered);
            }
            Err(error @ (token_service::Error::Unavailable(_) | token_service::Error::RateLimited { .. })) => {
                self.bad(what, error.to_string(), "try again; see the line of the token service");
            }
            Err(error) => self.bad(what, error.to_string(), advice),
        }
    }

    /// `iat` is the service's time between our asking and its answer.
    fn clock_of(&mut self, what: String, token: &Secret, asked: i64, answered: i64) {
        let Ok(Some(claims)) = Claims::of(token.expose()) else { return };
        let Some(iat) = claims.member("iat").and_then(serde_json::Value::as_i64) else { return };
        let what = format!("{what}: clock");
        let ahead = if iat > answered { iat - answered } else { (iat - asked).min(0) };
        if ahead.abs() <= CLOCK {
            self.good(what, format!("within {CLOCK} s of this machine's"));
        } else {
            let side = if ahead > 0 { "ahead of" } else { "behind" };
            self.bad(what, format!("{} s {side} this machine's", ahead.abs()), "set both by NTP, or set `skew` of this token service");
        }
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

    async fn upstream(&mut self, name: &str, section: &config::Upstream) {
        for server in &section.servers {
            let what = format!("upstreams.{name}: {server}");
            let addresses: Vec<_> = match tokio::net::lookup_host(server).await {
                Ok(addresses) => addresses.collect(),
                Err(error) => {
                    self.bad(what, format!("the name has no address: {error}"), "check the name, and DNS in this pod");
                    continue;
                }
            };
            let mut failure = None;
            for address in &addresses {
                let connected = time::timeout(section.timeouts.connect, TcpStream::connect(address)).await;
                let cause = match connected {
                    Ok(Ok(_)) => continue,
                    Ok(Err(error)) => error.to_string(),
                    Err(_) => format!("no connection within {}", humantime::format_duration(section.timeouts.connect)),
                };
                failure = Some(format!("{address}: {cause}"));
            }
            match failure {
                None => self
                    .good(what, format!("{} takes connections", addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))),
                Some(failure) => self.bad(what, failure, "start the app, or mend the address"),
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
