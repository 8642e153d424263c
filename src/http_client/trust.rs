//! Whom a client of a token service trusts, and as whom it shows itself: the files of its `tls` section.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WantsClientCert;
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore};

use crate::config::token_service::ClientTls;

/// Why the files cannot be used. The text says which, and what to change.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file holds none of what it should.
    #[error("{} holds no {what} in PEM form (`-----BEGIN ...`)", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
    },
    /// The file is not PEM, or what is in it is not what it says.
    #[error("{} does not hold a usable {what}: {fault}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
        /// What is wrong with it.
        fault: String,
    },
    /// One of the two is missing.
    #[error("`tls.certificate` and `tls.private_key` go together: set both or neither")]
    Half,
    /// rustls refuses the set-up.
    #[error("TLS cannot be set up: {0}")]
    Rustls(#[from] rustls::Error),
}

/// The TLS side of a client. A private authority replaces the public ones. Those are Mozilla's list as built in, and the system's where it
/// has any; they are not loaded where `used` says that the URL needs none.
pub fn client_config(files: &ClientTls, used: bool) -> Result<ClientConfig, Error> {
    let roots = match &files.ca {
        Some(path) => private_roots(path)?,
        None if used => public_roots(),
        None => RootCertStore::empty(),
    };
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider())).with_safe_default_protocol_versions()?;
    let builder = builder.with_root_certificates(roots);
    match (&files.certificate, &files.private_key) {
        (None, None) => Ok(builder.with_no_client_auth()),
        (Some(certificate), Some(key)) => with_certificate(builder, certificate, key),
        _ => Err(Error::Half),
    }
}

fn with_certificate(builder: ConfigBuilder<ClientConfig, WantsClientCert>, certificate: &Path, key: &Path) -> Result<ClientConfig, Error> {
    let chain = certificates(certificate)?;
    let private_key = PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable(key, "private key", error))?;
    builder.with_client_auth_cert(chain, private_key).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            Error::Unusable { path: key.to_owned(), what: "private key", fault: format!("it is not the key of {}", certificate.display()) }
        }
        error => Error::Unusable { path: certificate.to_owned(), what: "client certificate with its key", fault: error.to_string() },
    })
}

fn private_roots(path: &Path) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        let unusable =
            |error: rustls::Error| Error::Unusable { path: path.to_owned(), what: "authority certificate", fault: error.to_string() };
        roots.add(certificate).map_err(unusable)?;
    }
    Ok(roots)
}

fn public_roots() -> RootCertStore {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    // Small images have no authorities of their own: what cannot be loaded is left out.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    const WHAT: &str = "certificate";
    let read: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    match read.map_err(|error| unreadable(path, WHAT, error))? {
        found if found.is_empty() => Err(Error::Empty { path: path.to_owned(), what: WHAT }),
        found => Ok(found),
    }
}

fn unreadable(path: &Path, what: &'static str, error: pem::Error) -> Error {
    let path = path.to_owned();
    match error {
        pem::Error::Io(source) => Error::Read { path, source },
        pem::Error::NoItemsFound => Error::Empty { path, what },
        // The library's own text may quote what it could not read, and that may be a key.
        _ => Error::Unusable { path, what, fault: "it is not valid PEM".to_owned() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::generate_simple_self_signed;
    use std::fs;

    struct Files {
        directory: tempfile::TempDir,
    }

    impl Files {
        fn new() -> Self {
            Self { directory: tempfile::tempdir().unwrap() }
        }

        fn write(&self, name: &str, text: &str) -> Option<PathBuf> {
            let path = self.directory.path().join(name);
            fs::write(&path, text).unwrap();
            Some(path)
        }
    }

    fn pair() -> (String, String) {
        let made = generate_simple_self_signed(vec!["tokens.test".to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    #[test]
    fn a_certificate_and_its_key_are_taken() {
        let (files, (certificate, key)) = (Files::new(), pair());
        let tls = ClientTls {
            ca: files.write("ca.crt", &certificate),
            certificate: files.write("c.crt", &certificate),
            private_key: files.write("c.key", &key),
        };
        assert!(client_config(&tls, true).is_ok());
    }

    #[test]
    fn public_authorities_need_no_file() {
        assert!(client_config(&ClientTls::default(), true).is_ok());
        assert!(public_roots().len() >= webpki_roots::TLS_SERVER_ROOTS.len());
    }

    #[test]
    fn each_fault_names_its_file_and_shows_no_key() {
        let (files, (certificate, key), (_, other_key)) = (Files::new(), pair(), pair());
        let tls = |ca: Option<PathBuf>, certificate, private_key| ClientTls { ca, certificate, private_key };
        let missing = Some(files.directory.path().join("missing.crt"));
        let good = files.write("good.crt", &certificate);
        let broken = key.replacen("PRIVATE KEY-----\n", "PRIVATE KEY-----\n*canary*", 1);
        for (tls, words) in [
            (tls(missing, None, None), "cannot read"),
            (tls(files.write("empty.crt", ""), None, None), "empty.crt holds no certificate"),
            (tls(files.write("key.crt", &key), None, None), "key.crt holds no certificate"),
            (tls(None, good.clone(), None), "go together"),
            (tls(None, None, files.write("c.key", &key)), "go together"),
            (tls(None, good.clone(), good.clone()), "good.crt holds no private key"),
            (tls(None, good.clone(), files.write("other.key", &other_key)), "it is not the key of"),
            (tls(None, good, files.write("broken.key", &broken)), "broken.key does not hold a usable private key"),
        ] {
            let text = client_config(&tls, true).unwrap_err().to_string();
            assert!(text.contains(words), "{text}");
            assert!(!text.contains("canary"), "{text}");
        }
    }
}
