//! The files that a configuration names: their paths, and whether they can be used.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::place::KeyPath;
use super::route::{CredentialSource, Placed};
use super::token_service::ClientTls;
use super::validate::Report;
use super::{Config, TokenService};
use crate::jwks::{self, KeySet};
use crate::mounted;
use crate::tls::files::{self as pem_files, Validity};

/// The least length of a key for the ledger.
const LEDGER_KEY_BYTES: u64 = 32;

/// What a file is for.
#[derive(Clone, Copy)]
enum Use {
    /// API keys; read by the embedded token service.
    Keys,
    /// A signing key that is made if it is absent.
    SigningKey,
    /// Certificates in PEM.
    Certificates,
    /// A private key in PEM.
    PrivateKey,
    /// A token on its own.
    Token,
    /// bearerd's own API key.
    ApiKey,
    /// Public keys that check JWTs.
    KeySet,
    /// A key that encrypts the ledger.
    LedgerKey,
    /// A file that bearerd makes.
    Made,
}

/// Every file that the configuration names.
fn all(config: &mut Config) -> Vec<(KeyPath, Use, &mut PathBuf)> {
    let mut files = Vec::new();
    let admin = KeyPath::default().key("admin");
    files.extend(config.admin.token_file.as_mut().map(|file| (admin.key("token_file"), Use::Token, file)));
    for (index, listener) in config.listeners.iter_mut().enumerate() {
        let Some(tls) = &mut listener.tls else { continue };
        let path = KeyPath::default().key("listeners").item(index).key("tls");
        for (place, pair) in tls.certificates.iter_mut().enumerate() {
            let path = path.key("certificates").item(place);
            files.push((path.key("certificate"), Use::Certificates, &mut pair.certificate));
            files.push((path.key("private_key"), Use::PrivateKey, &mut pair.private_key));
        }
        files.extend(tls.client_ca.as_mut().map(|file| (path.key("client_ca"), Use::Certificates, file)));
    }
    for (name, service) in &mut config.token_services {
        let path = KeyPath::default().key("token_services").key(name);
        match service {
            TokenService::Iap(service) => {
                let ClientTls { ca, certificate, private_key } = &mut service.tls;
                files.extend(client_tls([ca, certificate, private_key], &path.key("tls")));
            }
            TokenService::Embedded(service) => {
                files.push((path.key("keys_file"), Use::Keys, &mut service.keys_file));
                files.push((path.key("signing_key_file"), Use::SigningKey, &mut service.signing_key_file));
                files.extend(service.state_file.as_mut().map(|file| (path.key("state_file"), Use::Made, file)));
            }
        }
    }
    for (name, upstream) in &mut config.upstreams {
        let Some(tls) = &mut upstream.tls else { continue };
        let all = [&mut tls.ca, &mut tls.certificate, &mut tls.private_key];
        files.extend(client_tls(all, &KeyPath::default().key("upstreams").key(name).key("tls")));
    }
    for (index, route) in config.routes.iter_mut().enumerate() {
        let credentials = KeyPath::default().key("routes").item(index).key("credentials");
        for (place, source) in route.credentials.iter_mut().flatten().enumerate() {
            if let CredentialSource::Placed(Placed::Mounted(mounted)) = source {
                files.push((credentials.item(place).key("mounted").key("file"), Use::ApiKey, &mut mounted.file));
            }
        }
        let Some(jwt) = &mut route.validate.jwt else { continue };
        let path = KeyPath::default().key("routes").item(index).key("validate").key("jwt");
        files.extend(jwt.jwks_file.as_mut().map(|file| (path.key("jwks_file"), Use::KeySet, file)));
        let ClientTls { ca, certificate, private_key } = &mut jwt.tls;
        files.extend(client_tls([ca, certificate, private_key], &path.key("tls")));
    }
    for (index, sink) in config.sinks.iter_mut().enumerate() {
        let path = KeyPath::default().key("sinks").item(index);
        files.push((path.key("credential").key("mounted").key("file"), Use::ApiKey, &mut sink.credential.mounted.file));
        files.push((path.key("path"), Use::Made, &mut sink.path));
    }
    if let Some(ledger) = &mut config.cache.ledger {
        let path = KeyPath::default().key("cache").key("ledger");
        files.push((path.key("path"), Use::Made, &mut ledger.path));
        files
            .extend(ledger.key_files.iter_mut().enumerate().map(|(index, file)| (path.key("key_files").item(index), Use::LedgerKey, file)));
    }
    files
}

/// `ca`, `certificate` and `private_key` of a section.
fn client_tls<'t>(files: [&'t mut Option<PathBuf>; 3], path: &KeyPath) -> impl Iterator<Item = (KeyPath, Use, &'t mut PathBuf)> {
    let [ca, certificate, private_key] = files;
    let ca = ca.as_mut().map(|file| (path.key("ca"), Use::Certificates, file));
    let certificate = certificate.as_mut().map(|file| (path.key("certificate"), Use::Certificates, file));
    let private_key = private_key.as_mut().map(|file| (path.key("private_key"), Use::PrivateKey, file));
    [ca, certificate, private_key].into_iter().flatten()
}

/// Certificates with their keys, as they are configured together.
fn pairs(config: &Config) -> Vec<(KeyPath, &Path, &Path)> {
    let mut pairs = Vec::new();
    for (index, tls) in config.listeners.iter().enumerate().filter_map(|(index, listener)| Some((index, listener.tls.as_ref()?))) {
        let path = KeyPath::default().key("listeners").item(index).key("tls").key("certificates");
        pairs.extend(tls.certificates.iter().enumerate().map(|(place, pair)| (path.item(place), &*pair.certificate, &*pair.private_key)));
    }
    let root = KeyPath::default();
    let services = config.token_services.iter().filter_map(|(name, service)| match service {
        TokenService::Iap(service) => {
            Some((root.key("token_services").key(name).key("tls"), &service.tls.certificate, &service.tls.private_key))
        }
        TokenService::Embedded(_) => None,
    });
    let key_sets = config.routes.iter().enumerate().filter_map(|(index, route)| {
        let tls = &route.validate.jwt.as_ref()?.tls;
        Some((root.key("routes").item(index).key("validate").key("jwt").key("tls"), &tls.certificate, &tls.private_key))
    });
    let upstreams = config.upstreams.iter().filter_map(|(name, upstream)| {
        let tls = upstream.tls.as_ref()?;
        Some((root.key("upstreams").key(name).key("tls"), &tls.certificate, &tls.private_key))
    });
    let clients = services.chain(key_sets).chain(upstreams);
    pairs.extend(clients.filter_map(|(path, certificate, key)| Some((path, certificate.as_deref()?, key.as_deref()?))));
    pairs
}

/// Reports keys that are not their certificate's, and certificates whose time has not come or is over.
fn examine_pairs(config: &Config, now: SystemTime, report: &mut Report<'_>) {
    for (path, certificate, key) in pairs(config) {
        // What cannot be read at all has been reported.
        if let Err(pem_files::Error::Unusable { fault, .. }) = pem_files::pair(certificate, key) {
            let shown = report.positions().shown(&path.key("private_key")).to_owned();
            report.mistake(&path.key("private_key"), format!("{shown} does not go with the certificate: {fault}"), None);
        }
        let path = path.key("certificate");
        let shown = report.positions().shown(&path).to_owned();
        match pem_files::validity(certificate, now) {
            Ok(Validity::Until(day)) => report.lapse(&path, format!("{shown} expired on {day}"), "have it issued anew".to_owned()),
            Ok(Validity::From(day)) => {
                report.lapse(&path, format!("{shown} is not valid before {day}"), "look whether the clock is right".to_owned());
            }
            Ok(Validity::Now) | Err(_) => {}
        }
    }
}

/// Makes paths start at `folder`, the configuration file's, and reports files that cannot be used.
pub fn resolve(config: &mut Config, folder: &Path, report: &mut Report<'_>) {
    for (path, purpose, file) in all(config) {
        let is_relative = file.is_relative();
        *file = folder.join(&*file);
        let Err(problem) = examine(file, purpose) else { continue };
        let shown = report.positions().shown(&path).to_owned();
        let message = match &problem {
            Problem::Unreadable(error) => format!("cannot read {shown}: {}", reason(error)),
            Problem::Unusable(what) => format!("{shown} {what}"),
        };
        let from_here = matches!(problem, Problem::Unreadable(_)) && is_relative;
        report.mistake(
            &path,
            message,
            from_here.then(|| format!("relative paths start at the configuration file's folder, `{}`", shown_folder(folder))),
        );
    }
    examine_pairs(config, SystemTime::now(), report);
}

fn shown_folder(folder: &Path) -> std::path::Display<'_> {
    if folder.as_os_str().is_empty() { Path::new(".").display() } else { folder.display() }
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        io::ErrorKind::IsADirectory => "it is a folder".to_owned(),
        _ => error.to_string(),
    }
}

/// Why a file cannot be used.
enum Problem {
    /// The system says so.
    Unreadable(io::Error),
    /// Its content is no good. Says nothing of the content itself.
    Unusable(&'static str),
}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Self {
        Self::Unreadable(error)
    }
}

fn examine(file: &Path, purpose: Use) -> Result<(), Problem> {
    match purpose {
        Use::Keys => readable(file),
        Use::SigningKey => match readable(file) {
            Err(Problem::Unreadable(error)) if error.kind() == io::ErrorKind::NotFound => parent_folder(file),
            result => result,
        },
        Use::Certificates => {
            pem_files::certificates(file).map(drop).map_err(|error| not_pem(error, "has no certificate in it: PEM is expected"))
        }
        Use::PrivateKey => {
            pem_files::private_key(file).map(drop).map_err(|error| not_pem(error, "has no private key in it: PEM is expected"))
        }
        Use::Made if file.is_dir() => Err(Problem::Unusable("is a folder: name a file in it")),
        Use::Made => parent_folder(file),
        Use::ApiKey => match mounted::read(file) {
            Ok(_) => Ok(()),
            Err(mounted::Error::Unreadable { cause, .. }) => Err(Problem::Unreadable(cause)),
            Err(mounted::Error::Unusable { what, .. }) => Err(Problem::Unusable(what)),
        },
        Use::LedgerKey => {
            let mut found = Vec::new();
            File::open(file)?.take(LEDGER_KEY_BYTES).read_to_end(&mut found)?;
            let enough = found.len() as u64 == LEDGER_KEY_BYTES;
            zeroize::Zeroize::zeroize(&mut found);
            if enough {
                Ok(())
            } else {
                Err(Problem::Unusable("is too short for a key: make one of 32 bytes with `head -c 32 /dev/urandom`"))
            }
        }
        Use::KeySet => match KeySet::parse(&std::fs::read(file)?) {
            Ok(_) => Ok(()),
            Err(jwks::Error::NotASet) => Err(Problem::Unusable("is not a JWK Set: an object with the list `keys` is expected")),
            Err(jwks::Error::NoKey(_)) => Err(Problem::Unusable(
                "has no key that checks signatures: RSA of 2048 bits, P-256, P-384 and Ed25519 do, unless `use`, `key_ops` or `alg` say otherwise",
            )),
        },
        Use::Token => {
            let token = std::fs::read_to_string(file)?;
            if token.trim().is_empty() { Err(Problem::Unusable("is empty: it must hold a token")) } else { Ok(()) }
        }
    }
}

fn not_pem(error: pem_files::Error, empty: &'static str) -> Problem {
    match error {
        pem_files::Error::Read { source, .. } => Problem::Unreadable(source),
        pem_files::Error::Empty { .. } => Problem::Unusable(empty),
        _ => Problem::Unusable("is not valid PEM"),
    }
}

fn readable(file: &Path) -> Result<(), Problem> {
    // Only a read tells a folder from a file.
    File::open(file)?.take(1).read_to_end(&mut Vec::new())?;
    Ok(())
}

fn parent_folder(file: &Path) -> Result<(), Problem> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if folder.is_dir() { Ok(()) } else { Err(Problem::Unusable("is in a folder that does not exist: make it first")) }
}
