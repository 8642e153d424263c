//! Requests to `token_api` routes: read whole, answered by [`TokenApi`].

use std::time::Duration;

use http::header::CONTENT_LENGTH;
use http::{HeaderValue, StatusCode};
use pingora::http::ResponseHeader;
use pingora::proxy::Session;
use tokio::time;

use super::answer;
use crate::refusal::Reason;
use crate::token_api::{Answer, Request, TokenApi};

/// Bytes of a body; none of the API's is near that.
const MAX_BODY: usize = 64 * 1024;
/// Time for a whole body to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves one request. Tells why it was refused, where it was.
pub(super) async fn serve(session: &mut Session, token_api: &TokenApi) -> pingora::Result<Option<Reason>> {
    let answer = match time::timeout(BODY_TIMEOUT, body(session)).await {
        Ok(Ok(Some(body))) => {
            let request = session.req_header();
            let (path, query) = (request.uri.path(), request.uri.query().unwrap_or_default());
            token_api.answer(&Request { method: &request.method, path, query, headers: &request.headers, body: &body }).await
        }
        Ok(Ok(None)) => refused(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large", "the body is longer than 64 KiB"),
        Ok(Err(error)) => return Err(error),
        Err(_) => refused(StatusCode::REQUEST_TIMEOUT, "request_timeout", "the body took too long to arrive"),
    };
    let reason = answer.reason;
    write(session, answer).await?;
    Ok(reason)
}

fn refused(status: StatusCode, code: &str, message: &str) -> Answer {
    Answer { reason: Some(Reason::BadRequest), ..Answer::error(status, code, message) }
}

/// The body; none where it is too long.
async fn body(session: &mut Session) -> pingora::Result<Option<Vec<u8>>> {
    let mut whole = Vec::new();
    while let Some(part) = session.read_request_body().await? {
        if whole.len() + part.len() > MAX_BODY {
            return Ok(None);
        }
        whole.extend_from_slice(&part);
    }
    Ok(Some(whole))
}

async fn write(session: &mut Session, answer: Answer) -> pingora::Result<()> {
    answer::announce_end(session);
    let mut header = ResponseHeader::build(answer.status, Some(8))?;
    for (name, value) in answer.headers {
        header.insert_header(name, value)?;
    }
    if answer.status != StatusCode::NO_CONTENT {
        header.insert_header(CONTENT_LENGTH, HeaderValue::from(answer.body.len()))?;
    }
    let is_empty = answer.body.is_empty();
    session.write_response_header(Box::new(header), is_empty).await?;
    if !is_empty {
        session.write_response_body(Some(answer.body), true).await?;
    }
    answer::discard_body(session).await;
    Ok(())
}
