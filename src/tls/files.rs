//! Certificates and keys in PEM files: read, matched, and followed.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{fs, io};

use rustls::RootCertStore;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use sha2::{Digest, Sha256};
use tokio::{task, time};
use x509_parser::prelude::{ASN1Time, FromDer, X509Certificate};

/// Why the files cannot be used. The text says which, and what to change.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
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
    /// A listener without a certificate.
    #[error("`tls.certificates` is empty")]
    NoCertificate,
    /// rustls refuses the set-up.
    #[error("TLS cannot be set up: {0}")]
    Rustls(#[from] rustls::Error),
}

/// The certificates of a file, in its order.
///
/// # Errors
/// When it cannot be read or holds none.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    const WHAT: &str = "certificate";
    let read: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    match read.map_err(|error| unreadable(path, WHAT, error))? {
        found if found.is_empty() => Err(Error::Empty { path: path.to_owned(), what: WHAT }),
        found => Ok(found),
    }
}

/// The private key of a file.
///
/// # Errors
/// When it cannot be read or holds none.
pub fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| unreadable(path, "private key", error))
}

/// A certificate with its chain, and the key that is its own.
///
/// # Errors
/// When one of them cannot be read, or they are not of one pair.
pub fn pair(certificate: &Path, key: &Path) -> Result<CertifiedKey, Error> {
    let chain = certificates(certificate)?;
    CertifiedKey::from_der(chain, private_key(key)?, &default_provider()).map_err(|error| mismatch(error, certificate, key))
}

/// What a certificate and a key that rustls does not take together mean.
pub(super) fn mismatch(error: rustls::Error, certificate: &Path, key: &Path) -> Error {
    match error {
        rustls::Error::InconsistentKeys(_) => {
            Error::Unusable { path: key.to_owned(), what: "private key", fault: format!("it is not the key of {}", certificate.display()) }
        }
        error => Error::Unusable { path: certificate.to_owned(), what: "certificate with its key", fault: error.to_string() },
    }
}

/// The authorities of a file.
///
/// # Errors
/// When it cannot be read, or one of them is none.
pub fn authorities(path: &Path) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        let unusable =
            |error: rustls::Error| Error::Unusable { path: path.to_owned(), what: "authority certificate", fault: error.to_string() };
        roots.add(certificate).map_err(unusable)?;
    }
    Ok(roots)
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

/// Whether a certificate counts at a time, with the day on which that began or will end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Validity {
    /// It counts.
    Now,
    /// Not yet: from this day.
    From(String),
    /// No more: until this day.
    Until(String),
}

/// Whether the first certificate of a file counts now.
///
/// # Errors
/// When it cannot be read.
pub fn validity(path: &Path, now: SystemTime) -> Result<Validity, Error> {
    let (from, until) = dates(path)?;
    let now = i64::try_from(now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()).unwrap_or(i64::MAX);
    Ok(match now {
        _ if now < from.timestamp() => Validity::From(from.to_string()),
        _ if now > until.timestamp() => Validity::Until(until.to_string()),
        _ => Validity::Now,
    })
}

/// When the first certificate of a file ends, in seconds since 1970.
///
/// # Errors
/// When it cannot be read.
pub fn not_after(path: &Path) -> Result<i64, Error> {
    dates(path).map(|(_, until)| until.timestamp())
}

fn dates(path: &Path) -> Result<(ASN1Time, ASN1Time), Error> {
    let chain = certificates(path)?;
    let unusable = || Error::Unusable { path: path.to_owned(), what: "certificate", fault: "it is not one of X.509".to_owned() };
    chain.first().and_then(|der| dates_of(der)).ok_or_else(unusable)
}

/// When a certificate ends, in seconds since 1970 and as a day; none where it is not one of X.509.
pub fn end(certificate: &[u8]) -> Option<(i64, String)> {
    dates_of(certificate).map(|(_, until)| (until.timestamp(), until.to_string()))
}

fn dates_of(certificate: &[u8]) -> Option<(ASN1Time, ASN1Time)> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    Some((certificate.validity().not_before, certificate.validity().not_after))
}

/// The time between two looks at files.
const LOOK: Duration = Duration::from_secs(1);
/// The most of a file that is looked at; chains are far shorter.
const MOST: u64 = 1 << 20;

/// Files that are read once a second: that works on every file system and for every way to change a file, Kubernetes' symlink swap included.
pub struct Followed {
    paths: Vec<PathBuf>,
    seen: Option<[u8; 32]>,
}

impl Followed {
    /// Follows these files, from what they hold now.
    pub fn new(paths: Vec<PathBuf>) -> Self {
        let seen = fingerprint(&paths);
        Self { paths, seen }
    }

    /// Has `take` read them again whenever they change, for as long as the process lives; returns at once where there are none. What cannot be used is
    /// told, and what was there before stays. `whose` says it in the log.
    pub async fn keep(&mut self, whose: &str, mut take: impl FnMut() -> Result<(), Error>) {
        let Some(first) = self.paths.first().cloned() else { return };
        loop {
            self.changed().await;
            match take() {
                Ok(()) => tracing::info!(whose, file = %first.display(), "TLS files changed and are used"),
                Err(error) => tracing::error!(whose, %error, "TLS files changed and cannot be used; the former ones stay"),
            }
        }
    }

    /// Returns when they have changed and can all be read.
    async fn changed(&mut self) {
        loop {
            time::sleep(LOOK).await;
            let paths = self.paths.clone();
            // A panic in there would be one of the system's; the files are looked at again.
            let found = task::spawn_blocking(move || fingerprint(&paths)).await.unwrap_or_default();
            if found.is_some() && found != self.seen {
                self.seen = found;
                return;
            }
        }
    }
}

fn fingerprint(paths: &[PathBuf]) -> Option<[u8; 32]> {
    use io::Read as _;
    let mut hash = Sha256::new();
    for path in paths {
        let mut content = Vec::new();
        // A pipe or a device would keep us waiting.
        if !fs::metadata(path).is_ok_and(|data| data.is_file()) {
            return None;
        }
        fs::File::open(path).and_then(|file| file.take(MOST).read_to_end(&mut content)).ok()?;
        hash.update((content.len() as u64).to_be_bytes());
        hash.update(&content);
        zeroize::Zeroize::zeroize(&mut content);
    }
    Some(hash.finalize().into())
}
