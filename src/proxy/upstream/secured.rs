//! TLS towards an upstream, as its files say now.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use pingora::protocols::tls::CaType;
use pingora::upstreams::peer::HttpPeer;
use pingora::utils::tls::{CertKey, WrappedX509, parse_x509};

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
            // Else pingora would panic at the first that is none.
            files::authorities(path)?;
            Ok(files::certificates(path)?.into_iter().map(|der| WrappedX509::new(der.to_vec(), parse_x509)).collect())
        };
        let pair = |(certificate, key): &(PathBuf, PathBuf)| -> Result<Arc<CertKey>, Error> {
            files::pair(certificate, key)?;
            let chain = files::certificates(certificate)?.into_iter().map(|der| der.to_vec()).collect();
            Ok(Arc::new(CertKey::new(chain, files::private_key(key)?.secret_der().to_vec())))
        };
        Ok(Secured {
            authorities: self.ca.as_ref().map(wrapped).transpose()?,
            certificate: self.certificate.as_ref().map(pair).transpose()?,
            generation: next_generation(),
        })
    }
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
