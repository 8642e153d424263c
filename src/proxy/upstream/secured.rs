//! TLS towards an upstream, as its files say now.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use pingora::protocols::tls::CaType;
use pingora::upstreams::peer::HttpPeer;
use pingora::utils::tls::{CertKey, WrappedX509, parse_x509};
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::tls::files::{self, Error};

/// What is configured.
#[derive(Clone, Debug)]
pub struct Tls {
    /// The name that is asked for; the server's host where there is none.
    pub sni: Option<String>,
    /// The authorities that are trusted; the system's where there is none.
    pub ca: Option<PathBuf>,
    /// The client certificate and its key.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// `false` takes any certificate.
    pub verify: bool,
}

/// The files' content, as pingora takes it.
pub(super) struct Secured {
    authorities: Option<Arc<CaType>>,
    certificate: Option<Arc<CertKey>>,
    /// Unlike any other: connections that were made with other files are not used again.
    generation: u64,
}

impl Tls {
    /// The files, for who follows them.
    pub(super) fn paths(&self) -> Vec<PathBuf> {
        let pair = self.certificate.iter().flat_map(|(certificate, key)| [certificate, key]);
        self.ca.iter().chain(pair).cloned().collect()
    }

    /// Reads the files.
    pub(super) fn read(&self) -> Result<Secured, Error> {
        let wrapped = |path: &PathBuf| -> Result<Arc<CaType>, Error> {
            // What nobody could be checked by is told now, not at the first connection.
            files::authorities(path)?;
            Ok(parsable(path)?.into_iter().map(|der| WrappedX509::new(der, parse_x509)).collect())
        };
        let pair = |(certificate, key): &(PathBuf, PathBuf)| -> Result<Arc<CertKey>, Error> {
            files::pair(certificate, key)?;
            Ok(Arc::new(CertKey::new(parsable(certificate)?, files::private_key(key)?.secret_der().to_vec())))
        };
        Ok(Secured {
            authorities: self.ca.as_ref().map(wrapped).transpose()?,
            certificate: self.certificate.as_ref().map(pair).transpose()?,
            generation: next_generation(),
        })
    }
}

/// The certificates of a file, each of which can be read: pingora would panic at the first that cannot.
fn parsable(path: &Path) -> Result<Vec<Vec<u8>>, Error> {
    let unusable = || Error::Unusable { path: path.to_owned(), what: "certificate", fault: "it is not one of X.509".to_owned() };
    let checked = |der: CertificateDer<'_>| X509Certificate::from_der(&der).map(|_| der.to_vec()).map_err(|_| unusable());
    files::certificates(path)?.into_iter().map(checked).collect()
}

/// A number that no peer has had: pingora's pool takes connections to one address for the same whatever authorities they were checked by.
pub(super) fn next_generation() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl Secured {
    /// Has a peer that is spoken to in TLS do so by these files.
    pub(super) fn apply(&self, peer: &mut HttpPeer, verify: bool) {
        peer.options.verify_cert = verify;
        peer.options.verify_hostname = verify;
        peer.options.ca.clone_from(&self.authorities);
        peer.client_cert_key.clone_from(&self.certificate);
        peer.group_key = self.generation;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_certificate_is_an_error_behind_a_good_one_too() {
        let folder = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(vec!["app.test".to_owned()]).unwrap();
        let (chain, key) = (folder.path().join("c.crt"), folder.path().join("c.key"));
        std::fs::write(&chain, format!("{}-----BEGIN CERTIFICATE-----\nAQID\n-----END CERTIFICATE-----\n", made.cert.pem())).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        let tls = |ca, certificate| Tls { sni: None, ca, certificate, verify: true };
        assert!(tls(Some(chain.clone()), None).read().is_err());
        assert!(tls(None, Some((chain, key))).read().is_err_and(|error| error.to_string().contains("not one of X.509")));
    }
}
