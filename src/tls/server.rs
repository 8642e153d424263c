//! TLS towards callers: a certificate for each name, client certificates, and files that may change at any time.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::CertificateDer;
use rustls::server::{ClientHello, ResolvesServerCert, VerifierBuilderError, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use tokio::sync::Mutex;
use tokio_rustls::TlsAcceptor;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::files::{self, Error, Followed};
use crate::config::listener::{ClientCertificates, Tls};

/// The protocols that callers may choose from, best first (RFC 7301).
const PROTOCOLS: &[&[u8]] = &[b"h2", b"http/1.1"];
/// The same where there is no choice.
const HTTP1: &[&[u8]] = &[b"http/1.1"];

/// A listener's TLS as its files say now. Connections that are open keep what they began with.
pub struct Listening {
    section: Tls,
    protocols: &'static [&'static [u8]],
    /// From before the first read on: no change is missed. Held by whoever keeps it up to date.
    files: Mutex<Followed>,
    current: ArcSwap<ServerConfig>,
}

impl Listening {
    /// Reads the files.
    ///
    /// # Errors
    /// The first file that cannot be used.
    pub fn new(section: &Tls) -> Result<Self, Error> {
        Self::with(section, PROTOCOLS)
    }

    /// The same for a server that speaks HTTP/1.1 alone.
    ///
    /// # Errors
    /// The first file that cannot be used.
    pub fn http1(section: &Tls) -> Result<Self, Error> {
        Self::with(section, HTTP1)
    }

    fn with(section: &Tls, protocols: &'static [&'static [u8]]) -> Result<Self, Error> {
        let files = Mutex::new(Followed::new(paths(section)));
        Ok(Self { section: section.clone(), protocols, files, current: ArcSwap::from_pointee(config_for(section, protocols)?) })
    }

    /// What the next handshake is made with.
    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.current.load_full())
    }

    /// Reads the files again whenever they change.
    pub async fn keep(self: Arc<Self>) {
        let take = || config_for(&self.section, self.protocols).map(|config| self.current.store(Arc::new(config)));
        self.files.lock().await.keep("a listener", take).await;
    }
}

/// The files of a section, for who follows them.
fn paths(section: &Tls) -> Vec<PathBuf> {
    let pairs = section.certificates.iter().flat_map(|pair| [&pair.certificate, &pair.private_key]);
    pairs.chain(&section.client_ca).cloned().collect()
}

/// The listener's TLS: 1.2 and 1.3.
///
/// # Errors
/// The first file that cannot be used.
pub fn config(section: &Tls) -> Result<ServerConfig, Error> {
    config_for(section, PROTOCOLS)
}

fn config_for(section: &Tls, protocols: &[&[u8]]) -> Result<ServerConfig, Error> {
    let provider = Arc::new(default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let builder = match &section.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(files::authorities(path)?), provider);
            let verifier =
                if section.client_certificates == ClientCertificates::Optional { verifier.allow_unauthenticated() } else { verifier };
            let unusable = |error: VerifierBuilderError| Error::Unusable {
                path: path.clone(),
                what: "authority certificate",
                fault: error.to_string(),
            };
            builder.with_client_cert_verifier(verifier.build().map_err(unusable)?)
        }
    };
    let mut config = builder.with_cert_resolver(Arc::new(Certificates::read(section)?));
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(config)
}

/// The certificates by the names in them. No name: the first.
#[derive(Debug)]
struct Certificates {
    first: Arc<CertifiedKey>,
    /// In lower case; of `*.example.com` what follows the star.
    by_name: HashMap<String, Arc<CertifiedKey>>,
}

impl Certificates {
    fn read(section: &Tls) -> Result<Self, Error> {
        let mut by_name = HashMap::new();
        let mut first = None;
        for pair in &section.certificates {
            let key = Arc::new(files::pair(&pair.certificate, &pair.private_key)?);
            for name in key.end_entity_cert().map(names).unwrap_or_default() {
                by_name.entry(name).or_insert_with(|| Arc::clone(&key));
            }
            first.get_or_insert(key);
        }
        match first {
            Some(first) => Ok(Self { first, by_name }),
            None => Err(Error::NoCertificate),
        }
    }

    /// An exact name goes before a wildcard, which stands for one label (RFC 9525 section 6.3).
    fn of(&self, name: &str) -> &Arc<CertifiedKey> {
        let name = name.to_ascii_lowercase();
        let wild = || self.by_name.get(&name[name.find('.')?..]);
        self.by_name.get(&name).or_else(wild).unwrap_or(&self.first)
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(hello.server_name().map_or(&self.first, |name| self.of(name))))
    }
}

fn names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return Vec::new() };
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return Vec::new() };
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some(name.strip_prefix('*').unwrap_or(name).to_ascii_lowercase()),
        _ => None,
    };
    names.value.general_names.iter().filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::listener::CertificatePair;
    use rcgen::generate_simple_self_signed;

    fn section(folder: &std::path::Path, certificates: &[&[&str]]) -> Tls {
        let pair = |(place, names): (usize, &&[&str])| {
            let made = generate_simple_self_signed(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
            let (certificate, private_key) = (folder.join(format!("{place}.crt")), folder.join(format!("{place}.key")));
            std::fs::write(&certificate, made.cert.pem()).unwrap();
            std::fs::write(&private_key, made.signing_key.serialize_pem()).unwrap();
            CertificatePair { certificate, private_key }
        };
        let certificates = certificates.iter().enumerate().map(pair).collect();
        Tls { certificates, client_ca: None, client_certificates: ClientCertificates::Required }
    }

    #[test]
    fn certificates_are_found_by_name_and_the_first_serves_the_rest() {
        let folder = tempfile::tempdir().unwrap();
        let section = section(folder.path(), &[&["first.test"], &["*.apps.test", "apps.test"], &["one.apps.test"]]);
        let certificates = Certificates::read(&section).unwrap();
        let place = |name: &str| {
            let found = certificates.of(name);
            let same = |pair: &CertificatePair| files::certificates(&pair.certificate).unwrap()[0] == *found.end_entity_cert().unwrap();
            section.certificates.iter().position(same).unwrap()
        };
        for (name, expected) in [
            ("first.test", 0),
            ("other.test", 0),
            ("apps.test", 1),
            ("Two.Apps.test", 1),
            ("one.apps.test", 2),
            ("a.b.apps.test", 0),
            ("localhost", 0),
        ] {
            assert_eq!(place(name), expected, "{name}");
        }
    }

    #[test]
    fn a_key_of_another_certificate_is_told_by_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let mut section = section(folder.path(), &[&["a.test"], &["b.test"]]);
        section.certificates[0].private_key = section.certificates[1].private_key.clone();
        let told = config(&section).unwrap_err().to_string();
        assert!(told.contains("1.key") && told.contains("it is not the key of"), "{told}");
    }
}
