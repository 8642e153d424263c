//! The one table from a reason to what the caller gets: status, headers, problem body (RFC 9457). Plain data, no proxy in it.

pub mod recent;

use std::borrow::Cow;
use std::time::Duration;

use http::{HeaderValue, StatusCode};
use serde_json::json;

/// The header that every 401 must have (RFC 9110 section 11.6.1).
pub const CHALLENGE: &str = "WWW-Authenticate";

/// The challenge without an error code (RFC 6750 section 3.1).
pub const CHALLENGE_ALONE: &str = r#"Bearer realm="bearerd""#;
/// The challenge to a credential that is not valid (RFC 6750 section 3.1).
pub const CHALLENGE_AGAIN: &str = r#"Bearer realm="bearerd", error="invalid_token""#;

/// Why a request was not served. The word is the same in bodies, metrics and logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// No route matches.
    NoRoute,
    /// No credential of a kind that the route takes.
    MissingCredential,
    /// A malformed, duplicated or ambiguous credential.
    InvalidCredential,
    /// A presented JWT is invalid, expired or revoked, or of a kind that the route does not take.
    InvalidToken,
    /// The token's claims do not satisfy the route.
    InsufficientScope,
    /// The token service said 401.
    Denied,
    /// The token service said 403.
    Forbidden,
    /// The token service said 400: the route's parameters are wrong.
    TokenRequestRejected,
    /// The token service refuses bearerd's own mounted key.
    MountedCredentialDenied,
    /// The token service cannot be asked, and there is no valid token.
    TokenServiceUnavailable,
    /// Too many mints wait, or this one waited too long.
    MintBudget,
    /// The route's rate limit is reached.
    RateLimited,
    /// The caller's header section is over the listener's limits, or over what the upstream takes.
    HeaderTooLarge,
    /// With what bearerd adds, the header section is over what the upstream takes: no fault of the caller.
    HeaderTooLargeWithOurs,
    /// The header section did not arrive in time.
    HeaderTimeout,
    /// The upstream cannot be reached.
    UpstreamConnect,
    /// The upstream broke off, or answered what is not HTTP.
    UpstreamReset,
    /// The upstream took too long.
    UpstreamTimeout,
    /// Malformed or ambiguous HTTP.
    BadRequest,
    /// A fault of bearerd itself.
    Internal,
}

impl Reason {
    /// Every reason: the rows of the table.
    pub const ALL: [Self; 20] = [
        Self::NoRoute,
        Self::MissingCredential,
        Self::InvalidCredential,
        Self::InvalidToken,
        Self::InsufficientScope,
        Self::Denied,
        Self::Forbidden,
        Self::TokenRequestRejected,
        Self::MountedCredentialDenied,
        Self::TokenServiceUnavailable,
        Self::MintBudget,
        Self::RateLimited,
        Self::HeaderTooLarge,
        Self::HeaderTooLargeWithOurs,
        Self::HeaderTimeout,
        Self::UpstreamConnect,
        Self::UpstreamReset,
        Self::UpstreamTimeout,
        Self::BadRequest,
        Self::Internal,
    ];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        self.row().0
    }

    /// The status that the caller gets.
    pub const fn status(self) -> StatusCode {
        self.row().1
    }

    /// The table: word, status, title.
    const fn row(self) -> (&'static str, StatusCode, &'static str) {
        match self {
            Self::NoRoute => ("no_route", StatusCode::NOT_FOUND, "No route"),
            Self::MissingCredential => ("missing_credential", StatusCode::UNAUTHORIZED, "Credential missing"),
            Self::InvalidCredential => ("invalid_credential", StatusCode::BAD_REQUEST, "Credential malformed or ambiguous"),
            Self::InvalidToken => ("invalid_token", StatusCode::UNAUTHORIZED, "Token not accepted"),
            Self::InsufficientScope => ("insufficient_scope", StatusCode::FORBIDDEN, "Token not sufficient"),
            Self::Denied => ("denied", StatusCode::UNAUTHORIZED, "Credential denied"),
            Self::Forbidden => ("forbidden", StatusCode::FORBIDDEN, "Forbidden"),
            Self::TokenRequestRejected => ("token_request_rejected", StatusCode::BAD_GATEWAY, "Token request rejected"),
            Self::MountedCredentialDenied => ("mounted_credential_denied", StatusCode::BAD_GATEWAY, "The proxy's own credential denied"),
            Self::TokenServiceUnavailable => ("token_service_unavailable", StatusCode::SERVICE_UNAVAILABLE, "Token service unavailable"),
            Self::MintBudget => ("mint_budget", StatusCode::SERVICE_UNAVAILABLE, "Too many tokens asked for at once"),
            Self::RateLimited => ("rate_limited", StatusCode::TOO_MANY_REQUESTS, "Too many requests"),
            Self::HeaderTooLarge => ("header_too_large", StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "Header section too large"),
            Self::HeaderTooLargeWithOurs => ("header_too_large", StatusCode::BAD_GATEWAY, "Header section too large for the upstream"),
            Self::HeaderTimeout => ("header_timeout", StatusCode::REQUEST_TIMEOUT, "Header section too slow"),
            Self::UpstreamConnect => ("upstream_connect", StatusCode::BAD_GATEWAY, "Upstream not reachable"),
            Self::UpstreamReset => ("upstream_reset", StatusCode::BAD_GATEWAY, "Upstream broke off"),
            Self::UpstreamTimeout => ("upstream_timeout", StatusCode::GATEWAY_TIMEOUT, "Upstream too slow"),
            Self::BadRequest => ("bad_request", StatusCode::BAD_REQUEST, "Bad request"),
            Self::Internal => ("internal", StatusCode::INTERNAL_SERVER_ERROR, "Internal error"),
        }
    }

    /// The challenge that goes with it (RFC 9110 section 11.6.1, RFC 6750 section 3); no error code where no credential came.
    const fn challenge(self) -> Option<&'static str> {
        match self {
            Self::MissingCredential => Some(CHALLENGE_ALONE),
            Self::InvalidCredential => Some(r#"Bearer realm="bearerd", error="invalid_request""#),
            Self::Denied | Self::InvalidToken => Some(CHALLENGE_AGAIN),
            Self::InsufficientScope => Some(r#"Bearer realm="bearerd", error="insufficient_scope""#),
            _ => None,
        }
    }

    /// What an operator can do about it.
    pub const fn advice(self) -> &'static str {
        match self {
            Self::NoRoute => "No route takes this host, path and method. `bearerd explain` says why each one does not.",
            Self::MissingCredential => "The caller sent no credential of a kind that the route lists in `credentials`.",
            Self::InvalidCredential => "The caller sent a credential twice, several at once, or a malformed one. See `on_multiple`.",
            Self::InvalidToken => {
                "The caller's JWT is expired, revoked, of another issuer or audience, or signed by an unknown key. See `validate.jwt`."
            }
            Self::InsufficientScope => "The token is good, its claims do not satisfy `require` of the route.",
            Self::Denied => "The token service does not know this key. Ask its owner whether it was rotated or deleted.",
            Self::Forbidden => "The token service knows this key and does not allow it these parameters. Look at `token` of the route.",
            Self::TokenRequestRejected => {
                "The token service refuses the route's parameters. Look at `token` of the route: client_id, domain, scopes."
            }
            Self::MountedCredentialDenied => {
                "The token service refuses bearerd's own mounted key. Put a good one into its file; it is read again by itself."
            }
            Self::TokenServiceUnavailable => "The token service fails or cannot be reached. `bearerd doctor` says which step fails.",
            Self::MintBudget => "More new keys than `mint.rate` and `mint.concurrency` allow. Raise them if the token service can take it.",
            Self::RateLimited => "The route's `rate_limit` is reached.",
            Self::HeaderTooLarge => "The caller's header section is over `limits.header_bytes`, or over `header_bytes` of the upstream.",
            Self::HeaderTooLargeWithOurs => {
                "With the token, the header section is over `header_bytes` of the upstream. Raise it there and here, or ask for fewer scopes."
            }
            Self::HeaderTimeout => "The caller did not send its header section within `limits.header_timeout`.",
            Self::UpstreamConnect => {
                "No server of the upstream accepts connections. Is the app running, on this port? With `tls`, the log's `cause` says what the handshake failed at."
            }
            Self::UpstreamReset => "The upstream closed the connection before it answered. Look at its log.",
            Self::UpstreamTimeout => "The upstream did not answer within its `timeouts`.",
            Self::BadRequest => {
                "The request is malformed or can be read in two ways. The caller, or a proxy before bearerd, must send it properly."
            }
            Self::Internal => "A fault of bearerd itself: please report it with the log line.",
        }
    }

    /// Whether the upstream failed, and nobody else.
    pub const fn is_upstream(self) -> bool {
        matches!(self, Self::UpstreamConnect | Self::UpstreamReset | Self::UpstreamTimeout)
    }

    /// The label `result` of `auth_decisions_total` for a request that ended so: a refusal of the caller, or a failure of ours.
    pub const fn result(self) -> &'static str {
        match self {
            Self::TokenRequestRejected
            | Self::MountedCredentialDenied
            | Self::TokenServiceUnavailable
            | Self::MintBudget
            | Self::HeaderTooLargeWithOurs
            | Self::Internal => "error",
            _ => "denied",
        }
    }
}

/// A refusal of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The row of the table.
    pub reason: Reason,
    /// The status, where it is not the reason's own.
    status: Option<StatusCode>,
    /// What is wrong and what to do, for a person. Holds no secret.
    pub detail: Cow<'static, str>,
    /// `Retry-After`, rounded up to whole seconds.
    pub retry_after: Option<Duration>,
    /// Headers beside those of the reason; a challenge among them replaces the reason's own.
    more: Vec<(&'static str, HeaderValue)>,
}

impl Refusal {
    /// A refusal that says `detail`.
    pub fn new(reason: Reason, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { reason, status: None, detail: detail.into(), retry_after: None, more: Vec::new() }
    }

    /// The same, with a time after which it is worth to try again.
    #[must_use]
    pub fn retry_after(mut self, span: Duration) -> Self {
        self.retry_after = Some(span);
        self
    }

    /// The same with another status than the reason's own, for callers that know few.
    #[must_use]
    pub const fn with_status(mut self, status: StatusCode) -> Self {
        self.status = Some(status);
        self
    }

    /// The status that the caller gets.
    pub fn status(&self) -> StatusCode {
        self.status.unwrap_or_else(|| self.reason.status())
    }

    /// The same with one more header.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: HeaderValue) -> Self {
        self.more.push((name, value));
        self
    }

    /// The answer's headers beside `Content-Length`: nothing of it may be stored.
    pub fn headers(&self) -> Vec<(&'static str, HeaderValue)> {
        let mut headers = vec![
            ("Content-Type", HeaderValue::from_static("application/problem+json")),
            ("Cache-Control", HeaderValue::from_static("no-store")),
        ];
        let challenge = if self.status() == StatusCode::UNAUTHORIZED {
            self.reason.challenge().or(Some(CHALLENGE_ALONE))
        } else {
            self.reason.challenge()
        };
        if let Some(challenge) = challenge.filter(|_| !self.more.iter().any(|(name, _)| *name == CHALLENGE)) {
            headers.push((CHALLENGE, HeaderValue::from_static(challenge)));
        }
        headers.extend(self.more.iter().cloned());
        if let Some(span) = self.retry_after {
            headers.push(("Retry-After", HeaderValue::from(whole_seconds(span))));
        }
        headers
    }

    /// The problem body.
    pub fn body(&self, request_id: &str) -> Vec<u8> {
        let (word, _, title) = self.reason.row();
        json!({
            "type": format!("urn:bearerd:problem:{word}"),
            "title": title,
            "status": self.status().as_u16(),
            "detail": self.detail,
            "request_id": request_id,
        })
        .to_string()
        .into_bytes()
    }
}

/// At least one second: `Retry-After: 0` invites a storm.
fn whole_seconds(span: Duration) -> u64 {
    (span.as_secs() + u64::from(span.subsec_nanos() > 0)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_own_401_has_a_challenge_and_every_reason_its_own_word() {
        for reason in Reason::ALL {
            let challenges = [Reason::InvalidCredential, Reason::InsufficientScope];
            assert_eq!(reason.status() == StatusCode::UNAUTHORIZED, reason.challenge().is_some() && !challenges.contains(&reason));
            // The design has one word for both: they differ in the status.
            let expected = if reason.as_str() == "header_too_large" { 2 } else { 1 };
            assert_eq!(Reason::ALL.iter().filter(|other| other.as_str() == reason.as_str()).count(), expected);
        }
    }

    #[test]
    fn a_body_is_a_problem_and_nothing_else() {
        let refusal = Refusal::new(Reason::MintBudget, "later").retry_after(Duration::from_millis(1200));
        let body: serde_json::Value = serde_json::from_slice(&refusal.body("id-1")).unwrap();
        assert_eq!(body["type"], "urn:bearerd:problem:mint_budget");
        assert_eq!(body["status"], 503);
        assert_eq!(body["request_id"], "id-1");
        assert!(refusal.headers().contains(&("Retry-After", HeaderValue::from_static("2"))));
    }
}
