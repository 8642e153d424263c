//! The token API on the wire: what comes back, from a status, headers and a body to a token or an [`Error`].

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::RETRY_AFTER;
use http::{HeaderMap, StatusCode};
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::super::{Error, TokenDetails};
use crate::clock::Timestamp;
use crate::credential::{Credential, Kind};
use crate::secret::Secret;

/// The longest token that is taken. Header sections of common servers end at 8 to 64 KiB.
const TOKEN_BYTES: usize = 16 * 1024;
/// No `Retry-After` holds calls off for longer.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(3600);
/// As much of the service's own message as errors show, in characters.
const MESSAGE_CHARS: usize = 200;
/// As much of it as is looked at, in characters: masking makes it shorter.
const MESSAGE_CHARS_READ: usize = 2000;
/// In place of a secret.
const MASK: &str = "[redacted]";
/// A part of a secret that is at least this long is masked too: some services show the beginning of what they refuse.
const MASKED_PREFIX: usize = 8;

/// Whether [`token`], [`details`] or [`refusal`] look at the body of an answer with this status. The rest need not be read.
pub(in super::super) fn has_readable_body(status: StatusCode) -> bool {
    matches!(status, StatusCode::OK | StatusCode::CREATED | StatusCode::BAD_REQUEST | StatusCode::FORBIDDEN)
}

/// The token in an answer of `create_token` or `refresh_token`: 201 by the reference; 200 with a token in it is as good.
pub(in super::super) fn token(status: StatusCode, body: &[u8]) -> Result<Secret, Error> {
    #[derive(Deserialize)]
    struct TokenResponse {
        access_token: Option<String>,
    }
    if !matches!(status, StatusCode::CREATED | StatusCode::OK) {
        return Err(unexpected(status));
    }
    let answer: TokenResponse =
        serde_json::from_slice(body).map_err(|_| Error::Protocol("not a JSON object with an access_token".to_owned()))?;
    let token = answer.access_token.map(Secret::from).ok_or_else(|| Error::Protocol("no access_token in the answer".to_owned()))?;
    let fault = match token.expose() {
        "" => "an empty access_token",
        text if text.len() > TOKEN_BYTES => "an access_token longer than 16 KiB",
        text if !text.bytes().all(|byte| byte.is_ascii_graphic()) => "an access_token that no header can carry",
        _ => return Ok(token),
    };
    Err(Error::Protocol(fault.to_owned()))
}

/// The details in an answer of `get_token_details`. A field that is `null` is absent.
pub(in super::super) fn details(status: StatusCode, body: &[u8]) -> Result<TokenDetails, Error> {
    if status != StatusCode::OK {
        return Err(unexpected(status));
    }
    let unreadable = |_| Error::Protocol("not a JSON object of token details".to_owned());
    let mut fields: Map<String, Value> = serde_json::from_slice(body).map_err(unreadable)?;
    fields.retain(|_, value| !value.is_null());
    serde_json::from_value(Value::Object(fields)).map_err(unreadable)
}

/// That an answer of `revoke_token` says yes: 204, with nothing in it to look at.
pub(in super::super) fn revoked(status: StatusCode) -> Result<(), Error> {
    if status == StatusCode::NO_CONTENT { Ok(()) } else { Err(unexpected(status)) }
}

/// The error for a status that is not 2xx, by the table of the API's reference; none for a 2xx.
/// `secrets` are masked in what the service says about it.
pub(in super::super) fn refusal(status: StatusCode, headers: &HeaderMap, body: &[u8], secrets: &[Secret], now: Timestamp) -> Option<Error> {
    Some(match status {
        StatusCode::BAD_REQUEST => Error::Rejected(message(body, secrets)),
        StatusCode::UNAUTHORIZED => Error::Denied,
        StatusCode::FORBIDDEN => Error::Forbidden(message(body, secrets)),
        StatusCode::TOO_MANY_REQUESTS => Error::RateLimited { retry_after: retry_after(headers, now) },
        StatusCode::REQUEST_TIMEOUT => Error::Unavailable(format!("status {}", status.as_u16())),
        _ if status.is_success() => return None,
        _ if status.is_server_error() => Error::Unavailable(format!("status {}", status.as_u16())),
        _ => unexpected(status),
    })
}

fn unexpected(status: StatusCode) -> Error {
    let code = status.as_u16();
    Error::Protocol(if status.is_redirection() {
        format!("a redirect (status {code}), which is not followed: set the token service's `url` to where it leads")
    } else if status == StatusCode::NOT_FOUND {
        format!("status {code}: see that the token service's `url` is right")
    } else {
        format!("unexpected status {code}")
    })
}

/// All texts that would give the credential away. Base64 hides nothing, so what is inside counts as well, and what it is made into.
pub(in super::super) fn secrets_of(credential: &Credential) -> Vec<Secret> {
    let mut secrets = vec![credential.value.clone()];
    if credential.kind == Kind::Basic
        && let Ok(bytes) = STANDARD.decode(credential.value.expose())
        && let Ok(text) = String::from_utf8(bytes)
    {
        if let Some((_, password)) = text.split_once(':') {
            secrets.push(password.into());
        }
        secrets.push(text.into());
    }
    with_encoded(secrets)
}

/// The same for a token.
pub(in super::super) fn secrets_of_token(token: &Secret) -> Vec<Secret> {
    with_encoded(vec![token.clone()])
}

fn with_encoded(mut secrets: Vec<Secret>) -> Vec<Secret> {
    let encoded: Vec<Secret> = secrets.iter().map(|secret| STANDARD.encode(secret.expose()).into()).collect();
    secrets.extend(encoded);
    secrets
}

/// `Retry-After`: seconds or an HTTP date (RFC 9110 section 10.2.3), at most an hour; anything else counts as none.
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let span = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        Duration::from_secs(text.parse().unwrap_or(u64::MAX))
    } else {
        until(httpdate::parse_http_date(text).ok()?, now)
    };
    Some(span.min(LONGEST_RETRY_AFTER))
}

fn until(date: SystemTime, now: Timestamp) -> Duration {
    let since_epoch = date.duration_since(UNIX_EPOCH).unwrap_or_default();
    let millis = i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX);
    Timestamp::from_millis(millis).since(now)
}

/// What `{code, message}` says, fit for a log line: one line, short, no secret in it.
fn message(body: &[u8], secrets: &[Secret]) -> String {
    #[derive(Deserialize)]
    struct ErrorResponse {
        code: Option<String>,
        message: Option<String>,
    }
    let parts = serde_json::from_slice::<ErrorResponse>(body).map_or([None, None], |error| [error.code, error.message]);
    let said = parts.into_iter().flatten().filter(|part| !part.trim().is_empty()).collect::<Vec<_>>().join(": ");
    if said.is_empty() {
        return "it does not say why".to_owned();
    }
    let read: String = said.chars().take(MESSAGE_CHARS_READ).collect();
    // The longest first: a password alone must not be cut out of `user:password` before that is found whole.
    let mut longest_first: Vec<&Secret> = secrets.iter().filter(|secret| !secret.expose().is_empty()).collect();
    longest_first.sort_by_key(|secret| std::cmp::Reverse(secret.expose().len()));
    // The service may show what it refuses as a part of a URL. Before that is decoded, what stands there as it is: it may have `%` in it.
    let whole = longest_first.iter().fold(read, |text, secret| text.replace(secret.expose(), MASK));
    let decoded = percent_decode_str(&whole).decode_utf8_lossy();
    let visible: String = decoded.chars().filter(|char| !char.is_control()).collect();
    longest_first.iter().fold(visible, |text, secret| masked(&text, secret.expose())).chars().take(MESSAGE_CHARS).collect()
}

/// `text` without `secret`, and without what looks like its beginning.
fn masked(text: &str, secret: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(char) = rest.chars().next() {
        let shared: usize = rest.chars().zip(secret.chars()).take_while(|(a, b)| a == b).map(|(a, _)| a.len_utf8()).sum();
        if shared > 0 && (shared == secret.len() || shared >= MASKED_PREFIX) {
            kept.push_str(MASK);
            rest = &rest[shared..];
        } else {
            kept.push(char);
            rest = &rest[char.len_utf8()..];
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Timestamp = Timestamp::from_secs(784_111_777); // Sun, 06 Nov 1994 08:49:37 GMT

    fn refused(status: u16, body: &str) -> Option<Error> {
        refusal(StatusCode::from_u16(status).unwrap(), &HeaderMap::new(), body.as_bytes(), &["canary-secret".into()], NOW)
    }

    fn waits(value: &str) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, value.parse().unwrap());
        retry_after(&headers, NOW)
    }

    #[test]
    fn each_status_has_its_error() {
        assert_eq!(refused(401, "<html>"), Some(Error::Denied));
        assert_eq!(refused(429, ""), Some(Error::RateLimited { retry_after: None }));
        assert_eq!(refused(400, r#"{"code":"bad","message":"no such scope"}"#), Some(Error::Rejected("bad: no such scope".into())));
        assert_eq!(refused(403, "{}"), Some(Error::Forbidden("it does not say why".into())));
        for status in [408, 500, 502, 503, 504, 599] {
            assert_eq!(refused(status, ""), Some(Error::Unavailable(format!("status {status}"))));
        }
        for status in [301, 302, 303, 304, 307, 308, 402, 404, 405, 407, 409, 418, 451] {
            let Some(Error::Protocol(text)) = refused(status, "") else { panic!("{status}") };
            assert!(text.contains(&status.to_string()), "{text}");
        }
        for status in [200, 201, 202, 204, 206] {
            assert_eq!(refused(status, ""), None);
        }
    }

    #[test]
    fn only_a_good_token_is_taken() {
        let good = br#"{"access_token":"t","token_type":"Bearer","more":[1]}"#;
        for status in [StatusCode::OK, StatusCode::CREATED] {
            assert_eq!(token(status, good).unwrap().expose(), "t");
        }
        for status in [StatusCode::ACCEPTED, StatusCode::NO_CONTENT, StatusCode::PARTIAL_CONTENT] {
            assert!(matches!(token(status, good), Err(Error::Protocol(_))));
        }
        let long = format!(r#"{{"access_token":"{}"}}"#, "x".repeat(TOKEN_BYTES + 1));
        for body in [
            "",
            "<html>",
            "[]",
            "{}",
            r#"{"access_token":null}"#,
            r#"{"access_token":7}"#,
            r#"{"access_token":""}"#,
            r#"{"access_token":"a b"}"#,
        ]
        .into_iter()
        .chain([r#"{"access_token":"a\r\nX: y"}"#, r#"{"access_token":"é"}"#, &long])
        {
            let Err(Error::Protocol(text)) = token(StatusCode::CREATED, body.as_bytes()) else { panic!("{body}") };
            assert!(!text.contains("a b"));
        }
    }

    #[test]
    fn details_may_leave_everything_out() {
        assert_eq!(details(StatusCode::OK, b"{}").unwrap().uid, None);
        let full = br#"{"uid":"u","acls":null,"currentWorkgroup":{"id":"w"},"tid":"t","domain":{"id":"d","name":"n"},"new":1}"#;
        let read = details(StatusCode::OK, full).unwrap();
        assert_eq!(read.uid.as_deref(), Some("u"));
        assert_eq!(read.current_workgroup.unwrap().id.as_deref(), Some("w"));
        assert!(read.acls.is_empty());
        for body in ["", "[]", "null", r#"{"uid":[]}"#] {
            assert!(matches!(details(StatusCode::OK, body.as_bytes()), Err(Error::Protocol(_))), "{body}");
        }
        assert!(matches!(details(StatusCode::CREATED, b"{}"), Err(Error::Protocol(_))));
    }

    #[test]
    fn a_revocation_is_204_and_nothing_else() {
        assert_eq!(revoked(StatusCode::NO_CONTENT), Ok(()));
        assert!(matches!(revoked(StatusCode::OK), Err(Error::Protocol(_))));
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_and_at_most_an_hour() {
        assert_eq!(waits("7"), Some(Duration::from_secs(7)));
        assert_eq!(waits("0"), Some(Duration::ZERO));
        assert_eq!(waits("Sun, 06 Nov 1994 08:50:07 GMT"), Some(Duration::from_secs(30)));
        assert_eq!(waits("Sun, 06 Nov 1994 08:49:07 GMT"), Some(Duration::ZERO), "a date that is past");
        assert_eq!(waits("Sat, 06 Nov 2094 08:49:07 GMT"), Some(LONGEST_RETRY_AFTER));
        assert_eq!(waits("99999999999999999999999999"), Some(LONGEST_RETRY_AFTER));
        for garbage in ["", " ", "-5", "+5", "1.5", "5s", "soon", "Sun, 99 Nov 1994 08:49:37 GMT"] {
            assert_eq!(waits(garbage), None, "{garbage}");
        }
    }

    #[test]
    fn a_message_is_one_short_line() {
        let body = serde_json::json!({ "message": format!("a\r\nb\u{1b}[31m{}", "é".repeat(300)) }).to_string();
        let text = message(body.as_bytes(), &[]);
        assert!(text.starts_with("ab[31mé"));
        assert_eq!(text.chars().count(), MESSAGE_CHARS);
    }

    #[test]
    fn what_is_inside_basic_is_masked_too() {
        let credential = Credential { kind: Kind::Basic, value: "YWxpY2U6aHVudGVyMg==".into() };
        let body = br#"{"code":"no","message":"alice:hunter2 and hunter2 and YWxpY2U6aHVudGVyMg== and YWxpY2U6aH..."}"#;
        assert_eq!(message(body, &secrets_of(&credential)), "no: [redacted] and [redacted] and [redacted] and [redacted]...");
    }

    #[test]
    fn an_empty_password_masks_nothing() {
        let credential = Credential { kind: Kind::Basic, value: STANDARD.encode("alice:").into() };
        assert_eq!(message(br#"{"message":"no such user"}"#, &secrets_of(&credential)), "no such user");
    }

    #[test]
    fn an_encoded_echo_is_masked_too() {
        let credential = Credential { kind: Kind::ApiKey, value: "abc+/%41=".into() };
        let body = br#"{"code":"no","message":"abc+/%41= and abc%2B%2f%2541%3D and YWJjKy8lNDE9 are 100% wrong"}"#;
        assert_eq!(message(body, &secrets_of(&credential)), "no: [redacted] and [redacted] and [redacted] are 100% wrong");
    }

    #[test]
    fn an_encoded_echo_of_a_token_is_masked_too() {
        let body = br#"{"message":"a.b.c and YS5iLmM= are wrong"}"#;
        assert_eq!(message(body, &secrets_of_token(&"a.b.c".into())), "[redacted] and [redacted] are wrong");
    }

    proptest! {
        #[test]
        fn an_echoed_secret_is_masked(before in "[a-z ]{0,30}", secret in "[A-Z0-9.]{1,60}", after in "[a-z ]{0,30}", cut in 8_usize..60) {
            let shown = &secret[..cut.min(secret.len())];
            let body = serde_json::json!({ "message": format!("{before}{secret}{after}{shown}") }).to_string();
            for status in [400, 403] {
                let error = refusal(StatusCode::from_u16(status).unwrap(), &HeaderMap::new(), body.as_bytes(), &[secret.as_str().into()], NOW);
                let text = error.unwrap().to_string();
                prop_assert!(!text.replace("(400)", "").replace("(403)", "").contains(shown), "{}", text);
            }
        }

        #[test]
        fn no_answer_is_a_panic(status in 100_u16..600, body in proptest::collection::vec(any::<u8>(), 0..60), retry in "[ -~]{0,30}") {
            let status = StatusCode::from_u16(status).unwrap();
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, retry.parse().unwrap());
            prop_assert_eq!(refusal(status, &headers, &body, &[], NOW).is_none(), status.is_success());
            let _ = (token(status, &body), details(status, &body), revoked(status));
        }
    }
}
