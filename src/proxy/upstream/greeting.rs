//! A connection for its own sake, made as those of requests are: whether an upstream's server can be spoken to.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use pingora::connectors::TransportConnector;
use pingora::protocols::tls::TlsRef;
use tokio::io::AsyncReadExt as _;
use tokio::time;

use super::Upstream;
use crate::proxy::answer;

/// How much longer than the handshake a server may take to refuse our certificate.
const SECOND_THOUGHTS: Duration = Duration::from_millis(200);

impl Upstream {
    /// Connects to an address of the server at `place`, says nothing, and hangs up. The certificate that it shows, in DER, where it is spoken to in TLS.
    ///
    /// # Errors
    /// What it failed at, in words.
    pub async fn greet(&self, place: usize, address: SocketAddr) -> Result<Option<Vec<u8>>, String> {
        let Some(server) = self.servers.get(place) else { return Err("there is no such server".to_owned()) };
        let peer = self.peer(address, &server.host, self.secured.load().as_deref());
        let began = Instant::now();
        let mut stream = TransportConnector::new(None).new_stream(&peer).await.map_err(|error| in_short(&answer::cause(&error)))?;
        let Some(shown) = stream.get_ssl().and_then(TlsRef::peer_certificate_der).map(<[u8]>::to_vec) else { return Ok(None) };
        // In TLS 1.3 our side is done before the server has looked at our certificate: its no comes with the first read (RFC 8446 section 2).
        match time::timeout(began.elapsed() + SECOND_THOUGHTS, stream.read_u8()).await {
            Ok(Err(error)) if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => {
                Err("it hangs up once the handshake is done".to_owned())
            }
            Ok(Err(error)) => Err(error.to_string()),
            // Servers of HTTP/2 speak first; others wait for a request.
            Ok(Ok(_)) | Err(_) => Ok(Some(shown)),
        }
    }
}

/// rustls' words for what a handshake failed at. pingora has them in the middle of its own.
fn in_short(cause: &str) -> String {
    let words = cause.rsplit_once("tls connect error cause: ").map_or(cause, |(_, words)| words);
    words.split_once(", SNI: ").map_or(words, |(words, _)| words).to_owned()
}
