//! The `iap` client against servers that send exact bytes: what goes out, and what it makes of what comes back.

mod tls;

use std::time::Duration;

use bearerd::clock::Clock;
use bearerd::config::token_service::{Breaker, ClientTls, Iap, Mint};
use bearerd::credential::{Credential, Kind};
use bearerd::secret::Secret;
use bearerd::token_service::iap::IapTokenService;
use bearerd::token_service::{Error, TokenParams, TokenService};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

use crate::support::events::Log;
use crate::support::http::{read_body, read_head};
use crate::support::server::{self, Server};
use crate::support::token_service::{Behaviour, Operation, ScriptedTokenService, claims, subject};

/// What a raw server does with one request.
#[derive(Clone, Copy)]
enum Step {
    /// These bytes; the connection stays.
    Answer(&'static str),
    /// These bytes; then it closes.
    Last(&'static str),
    /// These bytes, a reset.
    Reset(&'static str),
    /// These bytes, as often as the other side takes them.
    Endless(&'static str),
}

const CREATED: Step = Step::Answer("HTTP/1.1 201 Created\r\nContent-Length: 20\r\n\r\n{\"access_token\":\"t\"}");

/// Answers request after request, over all connections, by the steps; the last one stands. Logs each request's bytes.
async fn raw(steps: &'static [Step]) -> (Server, Log<String>) {
    let log = Log::default();
    let theirs = log.clone();
    let server = Server::start(move |_, stream| {
        let log = theirs.clone();
        async move {
            let mut stream = BufReader::new(stream);
            while let Ok(Some(head)) = read_head(&mut stream).await {
                let body = read_body(&mut stream, head.request_framing()).await.unwrap();
                let step = steps[log.count(|_| true).min(steps.len() - 1)];
                let lines: String = head.headers.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
                log.push(format!("{}\n{lines}\n{}", head.start, body.text()));
                match step {
                    Step::Answer(bytes) => stream.write_all(bytes.as_bytes()).await.unwrap(),
                    Step::Last(bytes) => return stream.write_all(bytes.as_bytes()).await.unwrap(),
                    Step::Reset(bytes) => {
                        stream.write_all(bytes.as_bytes()).await.unwrap();
                        return server::reset(stream.into_inner());
                    }
                    Step::Endless(bytes) => while stream.write_all(bytes.as_bytes()).await.is_ok() {},
                }
            }
        }
    })
    .await;
    (server, log)
}

fn settings(url: impl Into<String>) -> Iap {
    Iap {
        url: url.into(),
        timeout: Duration::from_secs(30),
        connect_timeout: Duration::from_secs(30),
        skew: Duration::ZERO,
        tls: ClientTls::default(),
        mint: Mint::default(),
        breaker: Breaker::default(),
    }
}

fn client_of(server: &Server) -> IapTokenService {
    IapTokenService::new(&settings(format!("http://{}", server.address())), Clock::system()).unwrap()
}

fn credential(kind: Kind) -> Credential {
    Credential { kind, value: "canary".into() }
}

async fn create(client: &IapTokenService) -> Result<Secret, Error> {
    client.create_token(&credential(Kind::ApiKey), &TokenParams::default()).await
}

async fn create_from(step: &'static [Step]) -> Result<Secret, Error> {
    let (server, _) = raw(step).await;
    create(&client_of(&server)).await
}

fn unavailable(result: Result<Secret, Error>) -> String {
    match result {
        Err(Error::Unavailable(text)) => text,
        other => panic!("{other:?}"),
    }
}

fn protocol(result: Result<Secret, Error>) -> String {
    match result {
        Err(Error::Protocol(text)) => text,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn each_call_goes_out_as_the_api_has_it() {
    let (server, log) = raw(&[
        CREATED,
        CREATED,
        CREATED,
        Step::Answer("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"),
        CREATED,
        Step::Answer("HTTP/1.1 204 No Content\r\n\r\n"),
    ])
    .await;
    let client = client_of(&server);
    let params = TokenParams {
        scopes: vec!["A".into(), "B".into()],
        acl: vec!["x".into(), "y".into()],
        mem: vec!["m".into()],
        cwid: Some("w".into()),
        return_session_token: true,
        ..TokenParams::default()
    };
    for kind in [Kind::ApiKey, Kind::Basic] {
        client.create_token(&credential(kind), &params).await.unwrap();
    }
    client.create_token(&credential(Kind::SessionToken), &TokenParams::default()).await.unwrap();
    client.get_token_details(&"jwt".into()).await.unwrap();
    client.refresh_token(&"ps".into()).await.unwrap();
    client.revoke_token(&"ps".into()).await.unwrap();

    let common = format!("accept: application/json\nuser-agent: bearerd/{}\n", env!("CARGO_PKG_VERSION"));
    let host = format!("host: {}\n", server.address());
    let query = "?scopes=A%2CB&acl=x%2Cy&mem=m&cwid=w&returnSessionToken=true";
    let body = r#"{"access_token":"ps"}"#;
    let json = "content-type: application/json\n";
    assert_eq!(
        log.all(),
        [
            format!("POST /v1/tokens{query} HTTP/1.1\n{common}x-api-key: canary\ncontent-length: 0\n{host}\n"),
            format!("POST /v1/tokens{query} HTTP/1.1\n{common}authorization: Basic canary\ncontent-length: 0\n{host}\n"),
            format!("POST /v1/tokens HTTP/1.1\n{common}authorization: Bearer canary\ncontent-length: 0\n{host}\n"),
            format!("GET /v1/tokens/details HTTP/1.1\n{common}authorization: Bearer jwt\n{host}\n"),
            format!("POST /v1/tokens:refresh HTTP/1.1\n{common}{json}{host}content-length: 21\n\n{body}"),
            format!("DELETE /v1/tokens HTTP/1.1\n{common}{json}{host}content-length: 21\n\n{body}"),
        ]
    );
    assert_eq!(server.connections(), 1, "one connection carries them all");
}

#[tokio::test]
async fn a_path_prefix_is_kept() {
    let (server, log) = raw(&[CREATED]).await;
    let client = IapTokenService::new(&settings(format!("http://{}/iap/", server.address())), Clock::system()).unwrap();
    create(&client).await.unwrap();
    assert!(log.all()[0].starts_with("POST /iap/v1/tokens HTTP/1.1\n"));
}

#[tokio::test]
async fn it_works_with_the_scripted_service() {
    let service = ScriptedTokenService::start().await;
    let client = IapTokenService::new(&settings(service.url()), Clock::system()).unwrap();
    let token = create(&client).await.unwrap();
    assert_eq!(claims(token.expose())["sub"], subject("canary"));
    assert_eq!(client.get_token_details(&token).await.unwrap().uid.as_deref(), Some("u-1"));
    assert_eq!(client.refresh_token(&token).await.unwrap(), token);
    client.revoke_token(&token).await.unwrap();
    for (status, error) in [
        (400, Error::Rejected("scripted: as told".into())),
        (401, Error::Denied),
        (403, Error::Forbidden("scripted: as told".into())),
        (408, Error::Unavailable("status 408".into())),
        (503, Error::Unavailable("status 503".into())),
    ] {
        service.next(Operation::Create, Behaviour::status(status));
        assert_eq!(create(&client).await, Err(error));
    }
    assert_eq!(service.calls(Operation::Create), 6, "nothing is called twice");
}

#[tokio::test]
async fn a_rate_limit_tells_how_long() {
    let wait = |answer| async move { create_from(answer).await.unwrap_err() };
    let seconds = wait(&[Step::Answer("HTTP/1.1 429 Slow\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n")]).await;
    assert_eq!(seconds, Error::RateLimited { retry_after: Some(Duration::from_secs(7)) });
    let date = wait(&[Step::Answer("HTTP/1.1 429 Slow\r\nRetry-After: Tue, 31 Dec 2199 23:59:59 GMT\r\nContent-Length: 0\r\n\r\n")]).await;
    assert_eq!(date, Error::RateLimited { retry_after: Some(Duration::from_secs(3600)) });
}

#[tokio::test]
async fn details_may_deny_without_a_word() {
    let (server, _) = raw(&[
        Step::Answer("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"),
        Step::Endless("HTTP/1.1 401 U\r\nContent-Length: 999999999\r\n\r\n"),
    ])
    .await;
    let client = client_of(&server);
    for _ in 0..2 {
        assert_eq!(client.get_token_details(&"jwt".into()).await.unwrap_err(), Error::Denied);
    }
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let (server, log) = raw(&[Step::Answer("HTTP/1.1 307 Elsewhere\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n"), CREATED]).await;
    assert!(protocol(create(&client_of(&server)).await).contains("redirect (status 307)"));
    assert_eq!(log.all().len(), 1);
}

#[tokio::test]
async fn any_framing_and_content_type_will_do() {
    let token = create_from(&[Step::Answer(
        "HTTP/1.1 201 Created\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\na\r\n{\"access_t\r\na\r\noken\":\"t\"}\r\n0\r\n\r\n",
    )])
    .await;
    assert_eq!(token.unwrap().expose(), "t");
    let token = create_from(&[Step::Last("HTTP/1.1 200 OK\r\n\r\n{\"access_token\":\"until-close\"}")]).await;
    assert_eq!(token.unwrap().expose(), "until-close");
}

#[tokio::test]
async fn what_is_no_answer_is_a_protocol_error() {
    assert!(
        protocol(create_from(&[Step::Answer("HTTP/1.1 201 Created\r\nContent-Length: 6\r\n\r\n<html>")]).await)
            .contains("not a JSON object")
    );
    assert!(
        protocol(create_from(&[Step::Answer("HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}")]).await).contains("no access_token")
    );
    assert!(protocol(create_from(&[Step::Last("SSH-2.0-OpenSSH_9.6\r\n\r\n")]).await).contains("not an HTTP/1.1 answer"));
    assert!(
        protocol(create_from(&[Step::Last("HTTP/1.1 201 C\r\nTransfer-Encoding: chunked\r\n\r\nnot hex\r\n")]).await)
            .contains("not an HTTP/1.1 answer")
    );
}

#[tokio::test]
async fn an_answer_ends_at_256_kib() {
    let endless =
        create_from(&[Step::Endless("HTTP/1.1 201 Created\r\n\r\n                                                            ")]).await;
    assert!(protocol(endless).contains("256 KiB"));
}

#[tokio::test]
async fn a_call_ends_in_time() {
    let service = ScriptedTokenService::start().await;
    let client = IapTokenService::new(&Iap { timeout: Duration::from_millis(300), ..settings(service.url()) }, Clock::system()).unwrap();
    for behaviour in [Behaviour::Hang, Behaviour::Drip] {
        service.next(Operation::Create, behaviour);
        assert_eq!(unavailable(create(&client).await), "timed out after 300ms");
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_an_outage() {
    const HALF: &str = "HTTP/1.1 201 Created\r\nContent-Length: 100\r\n\r\n{\"access_token\":";
    assert!(unavailable(create_from(&[Step::Last(HALF)]).await).contains("closed before the answer was complete"));
    assert!(unavailable(create_from(&[Step::Reset(HALF)]).await).contains("connection"));
    assert!(unavailable(create_from(&[Step::Reset("")]).await).contains("connection"));
}

#[tokio::test]
async fn a_refusal_stands_even_if_its_reason_breaks_off() {
    let refused = create_from(&[Step::Last("HTTP/1.1 403 Forbidden\r\nContent-Length: 100\r\n\r\n{\"message\":")]).await;
    assert_eq!(refused, Err(Error::Forbidden("it does not say why".into())));
}

#[tokio::test]
async fn a_service_that_is_away_is_an_outage_and_may_come_back() {
    let mut service = ScriptedTokenService::start().await;
    let client = IapTokenService::new(&settings(service.url()), Clock::system()).unwrap();
    create(&client).await.unwrap();
    service.stop().await;
    assert_eq!(unavailable(create(&client).await), "connection refused");
    service.restart().await;
    create(&client).await.unwrap();
}

#[tokio::test]
async fn a_name_without_an_address_is_an_outage() {
    // No label may be that long, so no name server is asked.
    let name = format!("{}.invalid", "a".repeat(64));
    let client = IapTokenService::new(&settings(format!("http://{name}")), Clock::system()).unwrap();
    assert!(unavailable(create(&client).await).starts_with(&format!("DNS lookup of {name} failed")));
}

#[tokio::test]
async fn a_request_that_meets_a_stale_connection_goes_out_again() {
    for closing in [[CREATED, Step::Last(""), CREATED].as_slice(), [CREATED, Step::Reset(""), CREATED].as_slice()] {
        let (server, log) = raw(closing.to_vec().leak()).await;
        let client = client_of(&server);
        create(&client).await.unwrap();
        create(&client).await.unwrap();
        assert_eq!((log.all().len(), server.connections()), (3, 2));
    }
}

#[tokio::test]
async fn the_retry_does_not_take_another_stale_connection() {
    let (server, log) = raw(&[CREATED, CREATED, Step::Last(""), CREATED]).await;
    let client = client_of(&server);
    let (one, other) = tokio::join!(create(&client), create(&client));
    assert!(one.is_ok() && other.is_ok());
    create(&client).await.unwrap();
    assert_eq!((log.all().len(), server.connections()), (4, 3));
}

#[tokio::test]
async fn nothing_else_goes_out_again() {
    // A new connection that closes, and one that closes in the middle of a later answer's head.
    for steps in [
        &[Step::Last(""), CREATED] as &'static [Step],
        &[CREATED, Step::Last("HTTP/1.1 20"), CREATED],
        &[CREATED, Step::Last(""), Step::Last(""), CREATED],
    ] {
        let (server, log) = raw(steps).await;
        let client = client_of(&server);
        while create(&client).await.is_ok() {}
        assert_eq!(log.all().len(), steps.len() - 1);
    }
}

#[test]
fn a_url_that_cannot_be_called_is_named() {
    let Err(error) = IapTokenService::new(&settings("tokens.test"), Clock::system()) else { panic!("taken") };
    assert!(error.to_string().contains("`tokens.test`"), "{error}");
}

#[tokio::test]
async fn an_unread_request_is_not_the_end() {
    // The service answers and closes as soon as a connection opens: 408 on an idle connection, as some balancers send.
    let server = Server::start(|_, stream| async move {
        let mut stream = BufReader::new(stream);
        let _ = stream.fill_buf().await;
        let _ = stream.write_all(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
    })
    .await;
    assert_eq!(unavailable(create(&client_of(&server)).await), "status 408");
}
