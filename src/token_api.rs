//! Routes that stand in for a token service: the four endpoints of its API, served from the exchange. An SDK can point its host here.
//!
//! Statuses and bodies are the API's own, errors `{code, message, details}`, so that a client cannot tell the difference, except by speed.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use serde_json::json;

use crate::exchange::{Error, Exchange, Refused, Service, Terms};
use crate::refusal::{self, Reason};
use crate::secret::Secret;
use crate::token_service::request::{self, Malformed};
use crate::token_service::{self, TokenDetails};

/// The paths that such a route takes, and no others.
pub const PATHS: [&str; 3] = [TOKENS, DETAILS, REFRESH];
const TOKENS: &str = "/v1/tokens";
const DETAILS: &str = "/v1/tokens/details";
const REFRESH: &str = "/v1/tokens:refresh";

const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// RFC 9110 section 11.6.1.
const CHALLENGE: HeaderValue = HeaderValue::from_static(refusal::CHALLENGE_ALONE);
/// With the reason (RFC 6750 section 3.1), where there was a credential.
const CHALLENGE_AGAIN: HeaderValue = HeaderValue::from_static(refusal::CHALLENGE_AGAIN);
const JSON_ONLY: &str = "send JSON, with Content-Type: application/json";

/// What `DELETE /v1/tokens` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnRevoke {
    /// The token dies, here and at the token service.
    Revoke,
    /// The caller is done with it; others who share the key go on with theirs.
    Release,
}

/// A route of this kind.
pub struct TokenApi {
    /// The door to tokens.
    pub exchange: Arc<Exchange>,
    /// The token service that it stands in for.
    pub service: Arc<Service>,
    /// The route's name.
    pub route: String,
    /// All but the parameters, which callers bring.
    pub terms: Terms,
    /// What a revocation does.
    pub on_revoke: OnRevoke,
    /// A token is minted anew when less than this part of its life (0 to 1) is left.
    pub min_remaining: f64,
}

/// A request, its body read whole.
pub struct Request<'a> {
    /// The method.
    pub method: &'a Method,
    /// The path, one of [`PATHS`].
    pub path: &'a str,
    /// The query.
    pub query: &'a str,
    /// The headers.
    pub headers: &'a HeaderMap,
    /// The body.
    pub body: &'a [u8],
}

/// What goes back.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// Headers beside `Content-Length`.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body; none where it is empty.
    pub body: Bytes,
    /// Why it is not what was asked for, in the metrics' words.
    pub reason: Option<Reason>,
}

impl TokenApi {
    /// Serves one request.
    pub async fn answer(&self, asked: &Request<'_>) -> Answer {
        let outcome = match (asked.path, asked.method) {
            (TOKENS, &Method::POST) => self.create(asked).await,
            (TOKENS, &Method::DELETE) => self.revoke(asked).await,
            (DETAILS, &Method::GET) => self.details(asked).await,
            (REFRESH, &Method::POST) => self.refresh(asked).await,
            (path, _) => return Answer::wrong_method(path),
        };
        outcome.unwrap_or_else(|malformed| {
            Answer::error(StatusCode::BAD_REQUEST, "invalid_request", &malformed.0).because(Reason::InvalidCredential)
        })
    }

    async fn create(&self, asked: &Request<'_>) -> Result<Answer, Malformed> {
        let request::Query { params, api_key } = request::query(asked.query)?;
        let Some(credential) = request::credential(asked.headers, api_key)? else {
            let message = "there is no credential: send X-API-Key, or Authorization with Basic or Bearer";
            return Ok(Answer::error(StatusCode::UNAUTHORIZED, "unauthorized", message)
                .with(WWW_AUTHENTICATE, CHALLENGE)
                .because(Reason::MissingCredential));
        };
        let grant = self.exchange.grant(&self.route, &self.service, Terms { params, ..self.terms.clone() });
        Ok(match self.exchange.issue(&Arc::new(grant), &credential, self.min_remaining).await {
            Ok(granted) => Answer::token(&granted.token().value()),
            Err(error) => Answer::no_token(&error),
        })
    }

    async fn details(&self, asked: &Request<'_>) -> Result<Answer, Malformed> {
        let Some(token) = request::bearer(asked.headers) else { return Ok(Answer::bare_401()) };
        Ok(match self.exchange.details(&self.service, &token).await {
            Ok(details) => Answer::details(&details),
            Err(Refused::Relayed(token_service::Error::Denied)) => Answer::bare_401(),
            Err(refused) => Answer::refused(&refused),
        })
    }

    async fn refresh(&self, asked: &Request<'_>) -> Result<Answer, Malformed> {
        if !request::is_json(asked.headers) {
            return Ok(Answer::error(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", JSON_ONLY));
        }
        let token = request::access_token(asked.body)?;
        Ok(match self.exchange.refresh(&self.service, &token).await {
            Ok(fresh) => Answer::token(&fresh),
            Err(refused) => Answer::refused(&refused),
        })
    }

    async fn revoke(&self, asked: &Request<'_>) -> Result<Answer, Malformed> {
        if !request::is_json(asked.headers) {
            return Ok(Answer::error(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", JSON_ONLY));
        }
        let token = request::access_token(asked.body)?;
        if self.on_revoke == OnRevoke::Release && self.exchange.has_issued(&self.service, &token) {
            return Ok(Answer::empty(StatusCode::NO_CONTENT));
        }
        Ok(match self.exchange.revoke(&self.service, &token).await {
            Ok(()) => Answer::empty(StatusCode::NO_CONTENT),
            Err(refused) => Answer::refused(&refused),
        })
    }
}

impl Answer {
    fn empty(status: StatusCode) -> Self {
        // No cache may keep what is about tokens (RFC 6749 section 5.1).
        Self { status, headers: vec![(CACHE_CONTROL, HeaderValue::from_static("no-store"))], body: Bytes::new(), reason: None }
    }

    fn json(status: StatusCode, body: &serde_json::Value) -> Self {
        Self { body: Bytes::from(body.to_string()), ..Self::empty(status) }.with(CONTENT_TYPE, JSON)
    }

    fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    fn because(self, reason: Reason) -> Self {
        Self { reason: Some(reason), ..self }
    }

    /// As the reference has it: 201.
    fn token(token: &Secret) -> Self {
        Self::json(StatusCode::CREATED, &json!({ "access_token": token.expose(), "token_type": "Bearer" }))
    }

    fn details(details: &TokenDetails) -> Self {
        Self::json(StatusCode::OK, &json!(details))
    }

    /// `details` answers 401 without a body.
    fn bare_401() -> Self {
        Self::empty(StatusCode::UNAUTHORIZED).with(WWW_AUTHENTICATE, CHALLENGE_AGAIN).because(Reason::InvalidToken)
    }

    /// An error in the API's form.
    pub fn error(status: StatusCode, code: &str, message: &str) -> Self {
        Self::json(status, &json!({ "code": code, "message": message, "details": [] }))
    }

    fn wrong_method(path: &str) -> Self {
        let allowed = match path {
            TOKENS => "POST, DELETE",
            DETAILS => "GET",
            _ => "POST",
        };
        Self::error(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "this path has other methods: see Allow")
            .with(ALLOW, HeaderValue::from_static(allowed))
            .because(Reason::BadRequest)
    }

    fn unavailable(reason: Reason, message: &str, retry_after: Duration) -> Self {
        Self::error(StatusCode::SERVICE_UNAVAILABLE, reason.as_str(), message)
            .with(RETRY_AFTER, HeaderValue::from(retry_after.as_secs_f64().ceil().max(1.0) as u64))
            .because(reason)
    }

    fn denied() -> Self {
        Self::error(StatusCode::UNAUTHORIZED, "unauthorized", "the credential is not valid")
            .with(WWW_AUTHENTICATE, CHALLENGE_AGAIN)
            .because(Reason::Denied)
    }

    fn forbidden(message: &str) -> Self {
        Self::error(StatusCode::FORBIDDEN, "forbidden", message).because(Reason::Forbidden)
    }

    fn rejected(message: &str) -> Self {
        Self::error(StatusCode::BAD_REQUEST, "invalid_request", message).because(Reason::TokenRequestRejected)
    }

    fn no_token(error: &Error) -> Self {
        match error {
            Error::Denied | Error::InvalidToken(_) | Error::Revoked => Self::denied(),
            Error::Forbidden(message) => Self::forbidden(message),
            Error::Rejected(message) => Self::rejected(message),
            Error::Unavailable { retry_after, .. } => {
                Self::unavailable(Reason::TokenServiceUnavailable, "the token service cannot be used now", *retry_after)
            }
            Error::Budget => Self::unavailable(Reason::MintBudget, "too many tokens are being asked for at once", Duration::from_secs(1)),
        }
    }

    fn refused(refused: &Refused) -> Self {
        use token_service::Error as Service;
        let outage = |retry_after| Self::unavailable(Reason::TokenServiceUnavailable, "the token service cannot be used now", retry_after);
        match refused {
            Refused::Unavailable(error) => Self::no_token(error),
            Refused::Relayed(Service::Denied) => Self::denied(),
            Refused::Relayed(Service::Forbidden(message)) => Self::forbidden(message),
            Refused::Relayed(Service::Rejected(message)) => Self::rejected(message),
            Refused::Relayed(Service::RateLimited { retry_after }) => outage(retry_after.unwrap_or(Duration::from_secs(1))),
            Refused::Relayed(Service::Unavailable(_) | Service::Protocol(_)) => outage(Duration::from_secs(1)),
        }
    }
}
