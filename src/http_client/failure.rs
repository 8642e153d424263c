//! From a failed HTTP call to a [`Failure`] with a short cause, the innermost that helps.

use std::error::Error as StdError;
use std::io::{self, ErrorKind};

use rustls::{AlertDescription, CertificateError, InvalidMessage};

use super::connect::ConnectError;

const NOT_HTTP: &str = "not an HTTP/1.1 answer";
const CUT_OFF: &str = "the connection was closed before the answer was complete";

/// Why a call came to nothing. Holds nothing of what was sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Nothing came, or not all of it: another call may do better.
    #[error("{0}")]
    Unavailable(String),
    /// What came is not HTTP.
    #[error("{0}")]
    Protocol(String),
}

/// What a failed call stands for: nothing that came was HTTP, or nothing came.
pub fn of(error: &(dyn StdError + 'static)) -> Failure {
    let mut unknown = Failure::Unavailable("the call failed".to_owned());
    for cause in causes(error) {
        if let Some(error) = cause.downcast_ref::<ConnectError>() {
            return Failure::Unavailable(error.to_string());
        }
        if let Some(error) = cause.downcast_ref::<rustls::Error>() {
            return Failure::Unavailable(tls(error));
        }
        if let Some(error) = cause.downcast_ref::<io::Error>() {
            if let Some(text) = network(error) {
                return Failure::Unavailable(text.to_owned());
            }
            // TLS faults come wrapped in such errors too: those are the next cause.
            if error.get_ref().is_none_or(|inner| !inner.is::<rustls::Error>())
                && matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::InvalidInput)
            {
                return Failure::Protocol(NOT_HTTP.to_owned());
            }
        }
        if let Some(error) = cause.downcast_ref::<hyper::Error>() {
            if error.is_parse() {
                return Failure::Protocol(NOT_HTTP.to_owned());
            }
            if error.is_incomplete_message() {
                return Failure::Unavailable(CUT_OFF.to_owned());
            }
        }
        unknown = Failure::Unavailable(cause.to_string());
    }
    unknown
}

/// The error, what caused it, what caused that.
fn causes<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error: &&'a (dyn StdError + 'static)| {
        // An io::Error that wraps another error names that one's cause as its source, and leaves out the wrapped one itself.
        match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(wrapped) => Some(wrapped as &(dyn StdError + 'static)),
            None => error.source(),
        }
    })
}

fn network(error: &io::Error) -> Option<&'static str> {
    Some(match error.kind() {
        ErrorKind::ConnectionRefused => "connection refused",
        ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe => "connection reset",
        ErrorKind::UnexpectedEof => CUT_OFF,
        ErrorKind::TimedOut => "connecting timed out",
        ErrorKind::HostUnreachable => "host unreachable",
        ErrorKind::NetworkUnreachable => "network unreachable",
        _ => return None,
    })
}

fn tls(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            "TLS: certificate not trusted: set its `tls.ca` to the authority that issued it".to_owned()
        }
        rustls::Error::InvalidCertificate(fault) => format!("TLS: certificate not trusted: {fault}"),
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "TLS: the other side does not speak TLS: see that `url` has the right scheme and port".to_owned()
        }
        rustls::Error::AlertReceived(AlertDescription::CertificateRequired | AlertDescription::HandshakeFailure) => {
            format!("TLS: {error}: it may ask for a client certificate: set its `tls.certificate` and `tls.private_key`")
        }
        error => format!("TLS: {error}"),
    }
}
