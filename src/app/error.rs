//! Why bearerd cannot start, or cannot take a configuration over.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::exchange::ledger::{KeyError, OpenError};
use crate::issuer;
use crate::jwks::source;
use crate::mounted;
use crate::proxy::upstream;
use crate::telemetry::{metrics, traces};
use crate::tls::client as trust;
use crate::token_service::iap;

/// Why bearerd cannot start. Each says what to change, and its cause itself: there is no chain of sources to print.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An address cannot be listened on.
    #[error("cannot listen on {address} ({key}): {cause}{}", if cause.kind() == io::ErrorKind::AddrInUse { "; another process listens there: end it, or choose another address" } else { "" })]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Its key in the configuration.
        key: String,
        /// Why.
        cause: io::Error,
    },
    /// A runtime or socket cannot be set up.
    #[error("cannot set up threads and sockets: {0}")]
    System(#[from] io::Error),
    /// A token service's TLS files or URL cannot be used.
    #[error("token service `{service}`: {cause}")]
    Client {
        /// The service.
        service: String,
        /// Why.
        cause: iap::SetupError,
    },
    /// An embedded token service cannot be opened.
    #[error("token service `{service}`: {cause}")]
    Issuer {
        /// The service.
        service: String,
        /// Why.
        cause: issuer::Error,
    },
    /// The ledger cannot be used.
    #[error("the ledger {}: {cause}", path.display())]
    Ledger {
        /// Its path.
        path: PathBuf,
        /// Why.
        cause: OpenError,
    },
    /// The ledger's keys cannot be used.
    #[error(transparent)]
    LedgerKey(#[from] KeyError),
    /// A key set's TLS files cannot be used.
    #[error("the key set {url}: {cause}")]
    KeySet {
        /// Where it is.
        url: String,
        /// Why.
        cause: trust::Error,
    },
    /// An embedded token service that was not there at the start.
    #[error("the embedded token service `{service}` is new: it is opened when bearerd starts again")]
    NewIssuer {
        /// The service.
        service: String,
    },
    /// A TLS file cannot be used.
    #[error("`{key}`: {cause}")]
    Tls {
        /// The section.
        key: String,
        /// Why.
        cause: crate::tls::files::Error,
    },
    /// A key set's file cannot be used.
    #[error(transparent)]
    KeySetFile(#[from] source::Error),
    /// A mounted key cannot be used.
    #[error(transparent)]
    Mounted(#[from] mounted::Error),
    /// An upstream cannot be used.
    #[error(transparent)]
    Upstream(#[from] upstream::Error),
    /// Something that `check` refuses; the configuration was not loaded through it.
    #[error("the configuration is not one that `bearerd check` accepts: {0}")]
    Unchecked(String),
    /// The admin token cannot be read.
    #[error("cannot read the admin token from {file} (`admin.token_file`): {cause}")]
    AdminToken {
        /// The file.
        file: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// The system gives no randomness.
    #[error("the system gives no randomness")]
    Randomness,
    /// A metric cannot be registered.
    #[error(transparent)]
    Metrics(#[from] metrics::Error),
    /// The collector of traces cannot be used.
    #[error(transparent)]
    Traces(#[from] traces::Error),
    /// A metric of the embedded token service cannot be registered.
    #[error(transparent)]
    IssuerMetrics(#[from] issuer::metrics::Error),
}

impl Error {
    /// Whether the configuration must change before a new start can succeed.
    pub const fn is_configuration(&self) -> bool {
        matches!(
            self,
            Self::Ledger { cause: OpenError::WrongKey, .. }
                | Self::LedgerKey(_)
                | Self::Client { .. }
                | Self::Issuer { .. }
                | Self::NewIssuer { .. }
                | Self::KeySet { .. }
                | Self::KeySetFile(_)
                | Self::Tls { .. }
                | Self::Mounted(_)
                | Self::Upstream(_)
                | Self::Unchecked(_)
                | Self::Traces(_)
                | Self::AdminToken { .. }
        )
    }
}
