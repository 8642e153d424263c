//! Whom bearerd trusts as a client, and as whom it shows itself: the files of a `tls` section towards a server.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::client::WantsClientCert;
use rustls::crypto::ring;
use rustls::{ClientConfig, ConfigBuilder, RootCertStore};
use tokio::sync::Mutex;

pub use super::files::Error;
use super::files::{Followed, authorities, certificates, mismatch, private_key};
use crate::config::token_service::ClientTls;

/// The TLS side of a client as its files say now. Connections that are open keep what they began with.
pub struct Trust {
    section: ClientTls,
    used: bool,
    /// From before the first read on: no change is missed. Held by whoever keeps it up to date.
    files: Mutex<Followed>,
    current: ArcSwap<ClientConfig>,
}

impl Trust {
    /// Reads the files. `used` says whether the server is spoken to in TLS at all.
    ///
    /// # Errors
    /// The first file that cannot be used.
    pub fn new(section: &ClientTls, used: bool) -> Result<Self, Error> {
        let files = Mutex::new(Followed::new(files(section)));
        Ok(Self { section: section.clone(), used, files, current: ArcSwap::from_pointee(client_config(section, used)?) })
    }

    /// What the next connection is made with.
    pub fn current(&self) -> Arc<ClientConfig> {
        self.current.load_full()
    }

    /// Reads the files again whenever they change; returns at once where there are none.
    pub async fn keep(&self) {
        let take = || client_config(&self.section, self.used).map(|config| self.current.store(Arc::new(config)));
        self.files.lock().await.keep("calls to a server", take).await;
    }
}

/// The TLS side of a client. A private authority replaces the public ones. Those are Mozilla's list as built in, and the system's where it
/// has any; they are not loaded where `used` says that the URL needs none.
fn client_config(files: &ClientTls, used: bool) -> Result<ClientConfig, Error> {
    let roots = match &files.ca {
        Some(path) => authorities(path)?,
        None if used => public_roots(),
        None => RootCertStore::empty(),
    };
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider())).with_safe_default_protocol_versions()?;
    let builder = builder.with_root_certificates(roots);
    let mut config = match (&files.certificate, &files.private_key) {
        (None, None) => builder.with_no_client_auth(),
        (Some(certificate), Some(key)) => with_certificate(builder, certificate, key)?,
        _ => return Err(Error::Half),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn with_certificate(builder: ConfigBuilder<ClientConfig, WantsClientCert>, certificate: &Path, key: &Path) -> Result<ClientConfig, Error> {
    let chain = certificates(certificate)?;
    builder.with_client_auth_cert(chain, private_key(key)?).map_err(|error| mismatch(error, certificate, key))
}

/// The files of a section, for who follows them.
fn files(tls: &ClientTls) -> Vec<PathBuf> {
    [&tls.ca, &tls.certificate, &tls.private_key].into_iter().flatten().cloned().collect()
}

fn public_roots() -> RootCertStore {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    // Small images have no authorities of their own: what cannot be loaded is left out.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
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
        assert!(Trust::new(&tls, true).is_ok());
    }

    #[test]
    fn public_authorities_need_no_file() {
        assert!(Trust::new(&ClientTls::default(), true).is_ok());
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
            let text = Trust::new(&tls, true).err().unwrap().to_string();
            assert!(text.contains(words), "{text}");
            assert!(!text.contains("canary"), "{text}");
        }
    }
}
