//! From a failed HTTP call to an [`Error`] with a short cause, the innermost that helps.

use std::error::Error as StdError;
use std::io::{self, ErrorKind};

use rustls::{AlertDescription, CertificateError, InvalidMessage};

use super::super::Error;
use super::connect::ConnectError;

const NOT_HTTP: &str = "not an HTTP/1.1 answer";
const CUT_OFF: &str = "the connection was closed before the answer was complete";

/// What a failed call stands for: nothing that came was HTTP, or nothing came.
pub(super) fn of(error: &(dyn StdError + 'static)) -> Error {
    let mut unknown = Error::Unavailable("the call failed".to_owned());
    for cause in causes(error) {
        if let Some(error) = cause.downcast_ref::<ConnectError>() {
            return Error::Unavailable(error.to_string());
        }
        if let Some(error) = cause.downcast_ref::<rustls::Error>() {
            return Error::Unavailable(tls(error));
        }
        if let Some(error) = cause.downcast_ref::<io::Error>() {
            if let Some(text) = network(error) {
                return Error::Unavailable(text.to_owned());
            }
            // TLS faults come wrapped in such errors too: those are the next cause.
            if error.get_ref().is_none_or(|inner| !inner.is::<rustls::Error>())
                && matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::InvalidInput)
            {
                return Error::Protocol(NOT_HTTP.to_owned());
            }
        }
        if let Some(error) = cause.downcast_ref::<hyper::Error>() {
            if error.is_parse() {
                return Error::Protocol(NOT_HTTP.to_owned());
            }
            if error.is_incomplete_message() {
                return Error::Unavailable(CUT_OFF.to_owned());
            }
        }
        unknown = Error::Unavailable(cause.to_string());
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
            "TLS: certificate not trusted: set the token service's `tls.ca` to the authority that issued it".to_owned()
        }
        rustls::Error::InvalidCertificate(fault) => format!("TLS: certificate not trusted: {fault}"),
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "TLS: the other side does not speak TLS: see that `url` has the right scheme and port".to_owned()
        }
        rustls::Error::AlertReceived(AlertDescription::CertificateRequired | AlertDescription::HandshakeFailure) => {
            format!("TLS: {error}: it may ask for a client certificate: set the token service's `tls.certificate` and `tls.private_key`")
        }
        error => format!("TLS: {error}"),
    }
}
