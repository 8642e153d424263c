//! Answers that bearerd writes itself, and what a failure of pingora's means to the caller.

use std::io;

use bytes::Bytes;
use http::header::EXPECT;
use http::{HeaderValue, StatusCode, Version};
use pingora::http::ResponseHeader;
use pingora::proxy::Session;
use pingora::{Error, ErrorSource, ErrorType};
use rustls::AlertDescription;
use tokio::time;

use super::connection::Connection;
use super::stream::LINGER;
use crate::refusal::{CHALLENGE, CHALLENGE_ALONE, Reason, Refusal};

/// Makes the answer that is about to be written the connection's last where bearerd is ending. pingora looks at that only when a request comes,
/// which may be long before its answer.
pub(super) fn announce_end(session: &mut Session) {
    if Connection::of(session.digest()).is_some_and(|connection| connection.is_draining()) {
        session.set_keepalive(None);
    }
}

/// Undoes what pingora does at a 100: it gives up any connection on which it writes a head, an interim one too, while the body is to come. By the
/// final answer the body may have come whole.
pub(super) fn keep_after_continue(session: &mut Session) {
    let request = session.req_header();
    if request.version == Version::HTTP_11 && request.headers.contains_key(EXPECT) && session.is_body_done() {
        // Without a limit of pingora's: the sweep closes connections that stay idle.
        session.set_keepalive(Some(0));
    }
}

/// Writes a refusal as a problem body. The rest of the request is never read as another request: where a body is unread, the connection closes.
pub(super) async fn problem(session: &mut Session, refusal: &Refusal, request_id: Option<&HeaderValue>) -> pingora::Result<()> {
    announce_end(session);
    if refusal.reason == Reason::BadRequest {
        session.set_keepalive(None);
    }
    let body = Bytes::from(refusal.body(request_id.and_then(|id| id.to_str().ok()).unwrap_or_default()));
    let mut header = ResponseHeader::build(refusal.status(), Some(8))?;
    for (name, value) in refusal.headers() {
        header.insert_header(name, value)?;
    }
    header.insert_header("Content-Length", HeaderValue::from(body.len()))?;
    session.write_response_header(Box::new(header), false).await?;
    session.write_response_body(Some(body), true).await?;
    discard_body(session).await;
    Ok(())
}

/// Writes an answer without a body.
pub(super) async fn empty(session: &mut Session, status: StatusCode, headers: Vec<(&'static str, HeaderValue)>) -> pingora::Result<()> {
    announce_end(session);
    let mut header = ResponseHeader::build(status, Some(4))?;
    if status != StatusCode::NO_CONTENT {
        header.insert_header("Content-Length", HeaderValue::from_static("0"))?;
    }
    for (name, value) in headers {
        header.insert_header(name, value)?;
    }
    if status == StatusCode::UNAUTHORIZED && !header.headers.contains_key(CHALLENGE) {
        header.insert_header(CHALLENGE, CHALLENGE_ALONE)?;
    }
    session.write_response_header(Box::new(header), true).await?;
    discard_body(session).await;
    Ok(())
}

/// Throws away what is left of the request, so that it is never read as another one.
pub(super) async fn discard_body(session: &mut Session) {
    if session.is_body_done() {
        return;
    }
    let rest = async { while matches!(session.read_request_body().await, Ok(Some(_))) {} };
    // Over time: the connection closes all the same.
    let _ = time::timeout(LINGER, rest).await;
}

/// The row of the table for an error; none where the caller is gone.
pub(super) fn failure(error: &Error) -> Option<Reason> {
    use ErrorType::{
        BindError, ConnectError, ConnectNoRoute, ConnectRefused, ConnectTimedout, ConnectionClosed, H2Error, InternalError, InvalidCert,
        InvalidHTTPHeader, ReadError, ReadTimedout, SocketError, TLSHandshakeFailure, TLSHandshakeTimedout, WriteError, WriteTimedout,
    };
    Some(match (error.esource(), error.etype()) {
        (ErrorSource::Upstream, ConnectTimedout | TLSHandshakeTimedout | ReadTimedout | WriteTimedout) => Reason::UpstreamTimeout,
        (
            ErrorSource::Upstream,
            // pingora's word for a connection that our own system does not allow, or has no descriptor or port for.
            InternalError | ConnectRefused | ConnectNoRoute | ConnectError | BindError | SocketError | TLSHandshakeFailure | InvalidCert,
        ) => Reason::UpstreamConnect,
        (ErrorSource::Upstream, _) if refuses_our_certificate(error) => Reason::UpstreamConnect,
        (ErrorSource::Upstream, _) => Reason::UpstreamReset,
        // On HTTP/2 a caller who gives a request up resets its stream.
        (ErrorSource::Downstream, WriteError | ReadError | ConnectionClosed | WriteTimedout | H2Error) => return None,
        (ErrorSource::Downstream, _) | (_, InvalidHTTPHeader) => Reason::BadRequest,
        _ => Reason::Internal,
    })
}

/// In TLS 1.3 our side of the handshake ends before the server has looked at our certificate: its no comes with the first read (RFC 8446 section 2).
fn refuses_our_certificate(error: &Error) -> bool {
    use AlertDescription::{
        AccessDenied, BadCertificate, CertificateExpired, CertificateRequired, CertificateRevoked, CertificateUnknown, UnknownCA,
        UnsupportedCertificate,
    };
    let wrapped = error.root_cause().downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    matches!(
        wrapped.and_then(|wrapped| wrapped.downcast_ref()),
        Some(rustls::Error::AlertReceived(
            AccessDenied
                | BadCertificate
                | CertificateExpired
                | CertificateRequired
                | CertificateRevoked
                | CertificateUnknown
                | UnknownCA
                | UnsupportedCertificate
        ))
    )
}

/// What the log says of an error. pingora quotes messages that it cannot read, and an upstream's may repeat the token that it was sent: so where it
/// is not known to tell addresses and figures alone, only the kind of the error is told, and its root where that is not pingora's. A handshake comes before
/// any request: what is told of it are rustls' words for the fault, and names.
pub(super) fn cause(error: &Error) -> String {
    use ErrorType::{
        BindError, ConnectError, ConnectNoRoute, ConnectRefused, ConnectTimedout, ConnectionClosed, InternalError, InvalidCert, ReadError,
        ReadTimedout, SocketError, TLSHandshakeFailure, WriteError, WriteTimedout,
    };
    let quotes_nothing = |kind: &ErrorType| {
        matches!(
            kind,
            BindError
                | ConnectError
                | ConnectNoRoute
                | ConnectRefused
                | ConnectTimedout
                | ConnectionClosed
                | InternalError
                | InvalidCert
                | ReadError
                | ReadTimedout
                | SocketError
                | TLSHandshakeFailure
                | WriteError
                | WriteTimedout
        )
    };
    if quotes_nothing(error.etype()) && quotes_nothing(error.root_etype()) {
        return error.to_string();
    }
    let root = error.root_cause();
    let root = if root.is::<Error>() { String::new() } else { format!(": {root}") };
    format!("{} {}{root}", error.source_str(), error.reason_str())
}

/// What the caller is told about a failure. Where the upstream is and what it did is for the log.
pub(super) fn explained(reason: Reason) -> Refusal {
    Refusal::new(
        reason,
        match reason {
            Reason::UpstreamConnect => "The service behind this proxy cannot be reached.",
            Reason::UpstreamReset => "The service behind this proxy broke off before it answered.",
            Reason::UpstreamTimeout => "The service behind this proxy did not answer in time.",
            Reason::BadRequest => "The request is malformed, or its body did not arrive.",
            _ => "This proxy failed; its log says why.",
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_our_own_system_does_not_make_has_not_broken_off() {
        let io = io::Error::from_raw_os_error(24);
        let socket = Error::because(ErrorType::SocketError, "failed to create socket", io);
        let error = Error::because(ErrorType::InternalError, "Fail to connect", socket).into_up();
        assert_eq!(failure(&error), Some(Reason::UpstreamConnect));
        assert!(cause(&error).contains("os error 24"));
    }

    #[test]
    fn a_server_that_one_cannot_speak_to_in_tls_is_one_that_cannot_be_reached() {
        let handshake = |source: fn(Box<Error>) -> Box<Error>| {
            source(Error::explain(ErrorType::TLSHandshakeFailure, "TLS connect() failed: UnknownIssuer, SNI: app.test"))
        };
        let error = handshake(|error| error.into_up());
        assert_eq!(failure(&error), Some(Reason::UpstreamConnect));
        assert!(cause(&error).contains("UnknownIssuer, SNI: app.test"));
        assert_eq!(failure(&handshake(|error| error.into_down())), Some(Reason::BadRequest));
        let alert = |alert| {
            let io = io::Error::new(io::ErrorKind::InvalidData, rustls::Error::AlertReceived(alert));
            failure(&Error::because(ErrorType::ReadError, "while reading response headers", io).into_up())
        };
        assert_eq!(alert(AlertDescription::CertificateRequired), Some(Reason::UpstreamConnect));
        assert_eq!(alert(AlertDescription::InternalError), Some(Reason::UpstreamReset));
    }
}
