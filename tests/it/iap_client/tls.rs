//! The `iap` client over TLS: whom it trusts, as whom it shows itself, and what it says when that fails.

use std::time::Duration;

use bearerd::clock::Clock;
use bearerd::config::token_service::{ClientTls, Iap};
use bearerd::token_service::iap::IapTokenService;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};

use super::{create, settings, unavailable};
use crate::support::http::read_head;
use crate::support::server::Server;
use crate::support::tls::Authority;

/// A token service for `name`, which asks for a client certificate of the authority if told so.
async fn serve(authority: &Authority, name: &str, wants_certificate: bool) -> Server {
    let acceptor = authority.acceptor(name, wants_certificate, &[b"h2", b"http/1.1"]);
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

fn trusting(authority: &Authority) -> ClientTls {
    ClientTls { ca: Some(authority.ca()), ..ClientTls::default() }
}

fn client(server: &Server, tls: ClientTls) -> IapTokenService {
    IapTokenService::new(&Iap { tls, ..settings(format!("https://localhost:{}", server.address().port())) }, Clock::system()).unwrap()
}

#[tokio::test]
async fn a_private_authority_is_trusted() {
    let authority = Authority::new();
    let server = serve(&authority, "localhost", false).await;
    let client = client(&server, trusting(&authority));
    for _ in 0..2 {
        assert_eq!(create(&client).await.unwrap().expose(), "t");
    }
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn an_address_is_as_good_as_a_name() {
    let authority = Authority::new();
    let server = serve(&authority, "127.0.0.1", false).await;
    let client =
        IapTokenService::new(&Iap { tls: trusting(&authority), ..settings(format!("https://{}", server.address())) }, Clock::system())
            .unwrap();
    assert!(create(&client).await.is_ok());
}

#[tokio::test]
async fn an_unknown_authority_is_not_trusted_and_the_error_helps() {
    let (authority, other) = (Authority::new(), Authority::new());
    let server = serve(&authority, "localhost", false).await;
    for tls in [ClientTls::default(), trusting(&other)] {
        let text = unavailable(create(&client(&server, tls)).await);
        assert!(text.starts_with("TLS: certificate not trusted") && text.contains("tls.ca"), "{text}");
    }
}

#[tokio::test]
async fn another_name_is_not_trusted() {
    let authority = Authority::new();
    let server = serve(&authority, "elsewhere.test", false).await;
    let text = unavailable(create(&client(&server, trusting(&authority))).await);
    assert!(text.starts_with("TLS: certificate not trusted") && text.contains("localhost"), "{text}");
}

#[tokio::test]
async fn a_client_certificate_is_shown() {
    let authority = Authority::new();
    let server = serve(&authority, "localhost", true).await;
    let (certificate, key) = authority.issue("bearerd");
    let tls = ClientTls {
        certificate: Some(authority.file("c.crt", &certificate)),
        private_key: Some(authority.file("c.key", &key)),
        ..trusting(&authority)
    };
    assert!(create(&client(&server, tls)).await.is_ok());
    let text = unavailable(create(&client(&server, trusting(&authority))).await);
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

/// An authority that comes later, in the same file, is trusted without a restart.
#[tokio::test]
async fn files_are_read_again_when_they_change() {
    let (authority, other) = (Authority::new(), Authority::new());
    let server = serve(&authority, "localhost", false).await;
    let ca = authority.file("swapped.crt", &std::fs::read_to_string(other.ca()).unwrap());
    let client = client(&server, ClientTls { ca: Some(ca.clone()), ..ClientTls::default() });
    let trust = client.trust().clone();
    let following = tokio::spawn(async move { trust.keep().await });
    assert!(create(&client).await.is_err());
    // First what cannot be used: the former stays, and nothing else happens.
    std::fs::write(&ca, "no certificate").unwrap();
    std::fs::write(&ca, std::fs::read_to_string(authority.ca()).unwrap()).unwrap();
    let trusted = async { while create(&client).await.is_err() {} };
    tokio::time::timeout(crate::support::events::PATIENCE, trusted).await.expect("the authority is taken");
    following.abort();
}
