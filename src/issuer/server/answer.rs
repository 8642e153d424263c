//! Answers: tokens, and errors as `{code, message, details}`.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::issuer::refusal::Refusal;
use crate::refusal;
use crate::secret::Secret;

/// What a handler comes to.
pub type Answer = Result<Response, Refusal>;

/// RFC 9110 section 11.6.1: every 401 says how to do it. Bearer is the scheme that bearerd's other doors name too.
pub const CHALLENGE: HeaderValue = HeaderValue::from_static(refusal::CHALLENGE_ALONE);
/// The same with the reason (RFC 6750 section 3.1), where there was a credential.
pub const CHALLENGE_AGAIN: HeaderValue = HeaderValue::from_static(refusal::CHALLENGE_AGAIN);

#[derive(Serialize)]
struct TokenResponse<'t> {
    access_token: &'t str,
    token_type: &'static str,
}

#[derive(Serialize)]
struct ErrorResponse<'t> {
    code: &'t str,
    message: &'t str,
    details: [(); 0],
}

/// 201 with a token.
pub fn token(token: &Secret) -> Response {
    private((StatusCode::CREATED, Json(TokenResponse { access_token: token.expose(), token_type: "Bearer" })))
}

/// An answer that no cache may keep (RFC 6749 section 5.1).
pub fn private(answer: impl IntoResponse) -> Response {
    ([(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))], answer).into_response()
}

/// An error in the API's form.
pub fn error(status: StatusCode, code: &str, message: &str) -> Response {
    private((status, Json(ErrorResponse { code, message, details: [] })))
}

/// 401 where there is no credential at all.
pub fn no_credential() -> Response {
    let message = "there is no credential: send X-API-Key, or Authorization with Basic or Bearer";
    challenge(error(StatusCode::UNAUTHORIZED, "unauthorized", message), CHALLENGE)
}

/// 415.
pub fn unsupported_media_type() -> Response {
    error(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", "send JSON, with Content-Type: application/json")
}

/// With this challenge.
pub fn challenge(mut answer: Response, challenge: HeaderValue) -> Response {
    answer.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    answer
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let message = self.to_string();
        match self {
            Self::Invalid(_) => error(StatusCode::BAD_REQUEST, "invalid_request", &message),
            Self::Denied => challenge(error(StatusCode::UNAUTHORIZED, "unauthorized", &message), CHALLENGE_AGAIN),
            Self::NotGranted(_) => error(StatusCode::FORBIDDEN, "forbidden", &message),
            Self::TooMany(wait) => {
                let mut answer = error(StatusCode::TOO_MANY_REQUESTS, "rate_limited", &message);
                answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs().max(1)));
                answer
            }
            Self::Unavailable(_) => error(StatusCode::SERVICE_UNAVAILABLE, "unavailable", &message),
        }
    }
}
