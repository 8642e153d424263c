//! Garbage over a real connection: always an answer, always a 4xx.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::served::{ALICE, Served};

/// Sends bytes, ends the sending side, and reads until the server ends the connection.
async fn answer(address: SocketAddr, sent: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The server may answer and end before it has read all.
    let _ = stream.write_all(sent).await;
    let mut received = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut received)).await;
    assert!(read.is_ok(), "no end of the answer to {}", shown(sent));
    String::from_utf8_lossy(&received).into_owned()
}

fn shown(sent: &[u8]) -> String {
    sent.escape_ascii().to_string().chars().take(300).collect()
}

async fn refused(served: &Served, sent: &[u8]) {
    let answer = answer(served.address, sent).await;
    assert!(answer.starts_with("HTTP/1.1 4"), "{answer:?} to {}", shown(sent));
    for secret in ["panicked", ALICE] {
        assert!(!answer.contains(secret), "{answer}");
    }
}

fn request(line: &[u8], headers: &[&[u8]], body: &[u8]) -> Vec<u8> {
    let mut sent = [line, b" HTTP/1.1\r\nHost: h\r\nConnection: close\r\n"].concat();
    for header in headers {
        sent.extend_from_slice(header);
        sent.extend_from_slice(b"\r\n");
    }
    sent.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
    sent.extend_from_slice(body);
    sent
}

#[tokio::test]
async fn what_is_known_to_hurt_does_not() {
    let served = Served::start().await;
    let create = b"POST /v1/tokens".as_slice();
    let delete = b"DELETE /v1/tokens".as_slice();
    let json = b"Content-Type: application/json".as_slice();
    let alice = format!("X-API-Key: {ALICE}");
    let alice = alice.as_bytes();
    let long = "x".repeat(60_000);
    let mut many = Vec::new();
    many.resize(200, b"X-Filler: 1".as_slice());
    let cases: Vec<Vec<u8>> = vec![
        b"\0\0\0\0\r\n\r\n".to_vec(),
        b"GET\r\n\r\n".to_vec(),
        b"POST /v1/tokens HTTP/9.9\r\n\r\n".to_vec(),
        request(b"POST /v1/tokens?data=\xff\xfe", &[alice], b""),
        request(b"POST /v1/tokens?data=%ff%fe", &[alice], b""),
        request(b"POST /v1/tokens?%ff=%ff", &[alice], b""),
        request(b"POST /v1/tokens?scopes=%00", &[alice], b""),
        request(b"POST /v1/tokens?returnSessionToken[]=True&returnSessionToken=1", &[alice], b""),
        request(format!("POST /v1/tokens?data={long}").as_bytes(), &[alice], b""),
        request(format!("POST /v1/tokens?scopes={}", "a,".repeat(25_000)).as_bytes(), &[alice], b""),
        request(format!("POST /{}", "x".repeat(70_000)).as_bytes(), &[alice], b""),
        request(create, &[b"X-API-Key: \xff\xfe\xfd"], b""),
        request(create, &[b"X-API-Key: a\0b"], b""),
        request(create, &[b"X-API-Key: k", b"X-API-Key: k"], b""),
        request(create, &[format!("X-API-Key: {long}").as_bytes()], b""),
        request(create, &[format!("X-API-Key: {long}{long}").as_bytes()], b""),
        request(create, &[b"Authorization: Basic \xc3\xa4"], b""),
        request(create, &[b"Authorization: Basic ===="], b""),
        request(create, &[b"Authorization: Basic Og=="], b""),
        request(create, &[b"Authorization: Bearer ...."], b""),
        request(create, &[format!("Authorization: Bearer {}", ".".repeat(60_000)).as_bytes()], b""),
        request(create, &many, b""),
        request(delete, &[json], b"{\"access_token\":\"\xff\"}"),
        request(delete, &[json], b"{\"access_token\":1e999999}"),
        request(delete, &[json], b"\xef\xbb\xbf{}"),
        request(delete, &[json], b"{\"access_token\":\"\\ud800\"}"),
        request(delete, &[json], "[".repeat(60_000).as_bytes()),
        request(delete, &[json], "{\"access_token\":".repeat(4_000).as_bytes()),
        request(delete, &[json], &vec![b'x'; 1 << 20]),
        request(delete, &[b"Content-Type: \xff"], b"{\"access_token\":\"t\"}"),
        request(b"POST /v1/tokens:refresh", &[json], b"{\"access_token\":{}}"),
        request(b"GET /v1/tokens/details", &[b"Authorization: Bearer \xff"], b""),
        request(b"GET /v1/tokens/%64etails%00", &[], b""),
        request(b"CONNECT h:1", &[], b""),
        request(b"OPTIONS *", &[], b""),
        b"DELETE /v1/tokens HTTP/1.1\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n".to_vec(),
        b"DELETE /v1/tokens HTTP/1.1\r\nConnection: close\r\nTransfer-Encoding: nonsense\r\n\r\n".to_vec(),
        b"DELETE /v1/tokens HTTP/1.1\r\nConnection: close\r\nContent-Length: -1\r\n\r\n".to_vec(),
        b"DELETE /v1/tokens HTTP/1.1\r\nConnection: close\r\nContent-Length: 99999999999999999999\r\n\r\n".to_vec(),
        b"DELETE /v1/tokens HTTP/1.1\r\nConnection: close\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab".to_vec(),
    ];
    for sent in &cases {
        refused(&served, sent).await;
    }
    served.token("").await;
}

#[tokio::test]
async fn random_bytes_anywhere_are_refused() {
    let served = Served::start().await;
    let mut random = fastrand::Rng::with_seed(20_260_601);
    let lines = ["POST /v1/tokens", "DELETE /v1/tokens", "POST /v1/tokens:refresh", "GET /v1/tokens/details"];
    for _ in 0..600 {
        let mut bytes = |most: usize| -> Vec<u8> {
            let length = random.usize(..most);
            // An end of line would make another request of the rest, and a blank another version.
            std::iter::repeat_with(|| random.u8(..)).filter(|byte| !b"\r\n ".contains(byte)).take(length).collect()
        };
        let (query, credential, kind, body) = (bytes(60), bytes(60), bytes(20), bytes(300));
        let line = [lines[random.usize(..lines.len())].as_bytes(), b"?", &query].concat();
        let names: [&[u8]; 4] = [b"X-API-Key: ", b"Authorization: ", b"Authorization: Basic ", b"Authorization: Bearer "];
        let credential = [names[random.usize(..names.len())], &credential].concat();
        let kind = if random.bool() { b"Content-Type: application/json".to_vec() } else { [b"Content-Type: ".as_slice(), &kind].concat() };
        refused(&served, &request(&line, &[&credential, &kind], &body)).await;
    }
    served.token("").await;
}
