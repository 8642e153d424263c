//! The `iap` client over TLS: whom it trusts, as whom it shows itself, and what it says when that fails.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bearerd::clock::Clock;
use bearerd::config::token_service::{ClientTls, Iap};
use bearerd::token_service::iap::IapTokenService;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio_rustls::TlsAcceptor;

use super::{create, settings, unavailable};
use crate::support::http::read_head;
use crate::support::server::Server;

/// An authority, and files that it made.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    directory: tempfile::TempDir,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem, directory: tempfile::tempdir().unwrap() }
    }

    /// A certificate for a name, and its key.
    fn issue(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    fn file(&self, name: &str, text: &str) -> Option<PathBuf> {
        let path = self.directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        Some(path)
    }

    fn ca(&self) -> ClientTls {
        ClientTls { ca: self.file("ca.crt", &self.pem), ..ClientTls::default() }
    }

    /// A token service for `name`, which asks for a client certificate of this authority if told so.
    async fn serve(&self, name: &str, wants_certificate: bool) -> Server {
        let (certificate, key) = self.issue(name);
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().unwrap();
        let builder = if wants_certificate {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap()).unwrap();
            builder.with_client_cert_verifier(WebPkiClientVerifier::builder_with_provider(roots.into(), provider).build().unwrap())
        } else {
            builder.with_no_client_auth()
        };
        let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
        let mut config = builder.with_single_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap()).unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Server::start(move |_, stream| {
            let acceptor = acceptor.clone();
            async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"http/1.1".as_slice()));
                let mut stream = BufReader::new(stream);
                while let Ok(Some(_)) = read_head(&mut stream).await {
                    let answer = b"HTTP/1.1 201 Created\r\nContent-Length: 20\r\n\r\n{\"access_token\":\"t\"}";
                    stream.write_all(answer).await.unwrap();
                }
            }
        })
        .await
    }
}

fn client(server: &Server, tls: ClientTls) -> IapTokenService {
    IapTokenService::new(&Iap { tls, ..settings(format!("https://localhost:{}", server.address().port())) }, Clock::system()).unwrap()
}

#[tokio::test]
async fn a_private_authority_is_trusted() {
    let authority = Authority::new();
    let server = authority.serve("localhost", false).await;
    let client = client(&server, authority.ca());
    for _ in 0..2 {
        assert_eq!(create(&client).await.unwrap().expose(), "t");
    }
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn an_address_is_as_good_as_a_name() {
    let authority = Authority::new();
    let server = authority.serve("127.0.0.1", false).await;
    let client =
        IapTokenService::new(&Iap { tls: authority.ca(), ..settings(format!("https://{}", server.address())) }, Clock::system()).unwrap();
    assert!(create(&client).await.is_ok());
}

#[tokio::test]
async fn an_unknown_authority_is_not_trusted_and_the_error_helps() {
    let (authority, other) = (Authority::new(), Authority::new());
    let server = authority.serve("localhost", false).await;
    for tls in [ClientTls::default(), other.ca()] {
        let text = unavailable(create(&client(&server, tls)).await);
        assert!(text.starts_with("TLS: certificate not trusted") && text.contains("tls.ca"), "{text}");
    }
}

#[tokio::test]
async fn another_name_is_not_trusted() {
    let authority = Authority::new();
    let server = authority.serve("elsewhere.test", false).await;
    let text = unavailable(create(&client(&server, authority.ca())).await);
    assert!(text.starts_with("TLS: certificate not trusted") && text.contains("localhost"), "{text}");
}

#[tokio::test]
async fn a_client_certificate_is_shown() {
    let authority = Authority::new();
    let server = authority.serve("localhost", true).await;
    let (certificate, key) = authority.issue("bearerd");
    let tls =
        ClientTls { certificate: authority.file("c.crt", &certificate), private_key: authority.file("c.key", &key), ..authority.ca() };
    assert!(create(&client(&server, tls)).await.is_ok());
    let text = unavailable(create(&client(&server, authority.ca())).await);
    assert!(text.contains("tls.certificate"), "{text}");
}

#[tokio::test]
async fn a_server_without_tls_is_told_apart() {
    let server = Server::start(|_, mut stream| async move {
        let mut hello = [0; 16];
        let _ = stream.read_exact(&mut hello).await;
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let text = unavailable(create(&client(&server, ClientTls::default())).await);
    assert!(text.contains("does not speak TLS"), "{text}");
}

#[tokio::test]
async fn connecting_includes_tls_and_ends_in_time() {
    let server = Server::start(|_, mut stream| async move { drop(stream.read_to_end(&mut Vec::new()).await) }).await;
    let url = format!("https://{}", server.address());
    let client = IapTokenService::new(&Iap { connect_timeout: Duration::from_millis(200), ..settings(url) }, Clock::system()).unwrap();
    assert_eq!(unavailable(create(&client).await), "connecting timed out after 200ms");
}
