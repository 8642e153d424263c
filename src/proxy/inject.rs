//! What the upstream sees: the caller's credential and every name that bearerd may set are taken out, then our own are put in.
//!
//! Backends fold header names: `X_API_KEY`, `X.API.KEY` and `X-Api_Key` are one name to a CGI application. So a managed name is compared with all
//! that is neither letter nor digit taken as a dash (CVE-2025-64484, CVE-2026-54763).

use std::borrow::Cow;
use std::net::IpAddr;

use http::header::{AUTHORIZATION, CONNECTION, HOST, TE, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Version};
use pingora::http::RequestHeader;

use crate::authorize::{Circumstances, Rendered};
use crate::claims::Claims;
use crate::credential::{Scheme, Source, scheme};
use crate::token::Token;

/// The request's own name in logs, bodies and towards the upstream.
pub const REQUEST_ID: &str = "X-Request-Id";
const FORWARDED_FOR: &str = "X-Forwarded-For";
const FORWARDED_PROTO: &str = "X-Forwarded-Proto";
const FORWARDED_HOST: &str = "X-Forwarded-Host";
/// The names that say who called and how; a trusted peer's count, `Forwarded` (RFC 7239) says the same.
const FORWARDED: [&str; 4] = ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded"];

/// Hop-by-hop headers (RFC 9110 section 7.6.1) that pingora would strip one by one. `Connection` and `Upgrade` are left to it: see [`nominates`].
const HOP_BY_HOP: [&str; 8] =
    ["keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding", "http2-settings"];

/// Whether the request has headers that say which others are for this hop alone. Only then is pingora's own pass over hop-by-hop headers needed: the
/// fixed ones go in the pass that strips managed names.
pub fn nominates(request: &RequestHeader) -> bool {
    request.headers.contains_key(CONNECTION) || request.headers.contains_key(UPGRADE)
}

/// Names in lower case with dashes, found quickly: most headers have a length that no managed name has.
#[derive(Clone, Debug, Default)]
pub struct Names {
    names: Vec<Box<[u8]>>,
    lengths: u64,
}

impl Names {
    /// Adds a name.
    pub fn insert(&mut self, name: &str) {
        let folded: Box<[u8]> = name.bytes().map(fold).collect();
        if !self.names.contains(&folded) {
            self.lengths |= length_bit(name.len());
            self.names.push(folded);
        }
    }

    /// The names, in lower case with dashes.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.names.iter().filter_map(|name| str::from_utf8(name).ok())
    }

    /// Whether a backend may take `name` for one of these.
    pub fn contains(&self, name: &str) -> bool {
        self.lengths & length_bit(name.len()) != 0
            && self.names.iter().any(|managed| {
                managed.len() == name.len() && managed.iter().zip(name.bytes()).all(|(managed, byte)| *managed == fold(byte))
            })
    }
}

const fn fold(byte: u8) -> u8 {
    if byte.is_ascii_alphanumeric() { byte.to_ascii_lowercase() } else { b'-' }
}

const fn length_bit(length: usize) -> u64 {
    1 << (length % 64)
}

/// What no request may carry on, on any route.
#[derive(Clone, Debug, Default)]
pub struct Managed {
    /// Header names: listed credentials, and all that any route may set.
    pub headers: Names,
    /// Query parameters that hold a credential somewhere, in lower case.
    pub query: Vec<String>,
    /// Some route takes `Basic`.
    pub basic: bool,
    /// Some route takes session tokens.
    pub session_token: bool,
    /// Some route takes JWTs.
    pub jwt: bool,
}

impl Managed {
    /// Starts from what bearerd itself sets.
    pub fn new() -> Self {
        let mut managed = Self::default();
        for name in FORWARDED.into_iter().chain(HOP_BY_HOP).chain([REQUEST_ID]) {
            managed.headers.insert(name);
        }
        managed
    }

    /// Takes in the credentials of a route.
    pub fn add_source(&mut self, source: &Source) {
        match source {
            Source::Header(name) => self.headers.insert(name.as_str()),
            Source::Query(name) => {
                let name = name.to_ascii_lowercase();
                if !self.query.contains(&name) {
                    self.query.push(name);
                }
            }
            Source::Basic => self.basic = true,
            Source::SessionToken => self.session_token = true,
            Source::Jwt => self.jwt = true,
        }
    }

    /// What must not go on with this request where another proxy sends it on: names that callers may not say, and those of a route, each as it is
    /// known and as the caller spells it. What every proxy writes anew itself is not among them.
    pub fn doomed<'n>(&'n self, removed: &'n Names, headers: &'n HeaderMap) -> impl Iterator<Item = &'n str> {
        let by_every_proxy =
            |name: &&str| !(FORWARDED.contains(name) || HOP_BY_HOP.contains(name) || name.eq_ignore_ascii_case(REQUEST_ID));
        let known = |name: &str| self.headers.iter().chain(removed.iter()).any(|other| other == name);
        let spelled = headers.keys().map(HeaderName::as_str).filter(|name| self.headers.contains(name) || removed.contains(name));
        let credential = headers.get_all(AUTHORIZATION).iter().any(|value| self.is_credential(value)).then_some("authorization");
        let all = self.headers.iter().chain(removed.iter()).chain(spelled.filter(move |name| !known(name))).chain(credential);
        all.filter(by_every_proxy)
    }

    /// Whether an `Authorization` on a public route parses as a credential that some route takes. A list of several is looked through.
    fn is_credential(&self, value: &HeaderValue) -> bool {
        value.as_bytes().split(|byte| *byte == b',').any(|part| match scheme(part).0 {
            Scheme::Basic => self.basic,
            Scheme::SessionToken => self.session_token,
            Scheme::Jwt => self.jwt,
            Scheme::Unknown => false,
        })
    }
}

/// Who is at the other end of a connection.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The address.
    pub address: IpAddr,
    /// Whether its `X-Forwarded-*` headers count.
    pub trusted: bool,
    /// The address as a header value, made once.
    pub header: HeaderValue,
    /// Whether it speaks TLS to us.
    pub over_tls: bool,
}

impl Caller {
    /// A caller at `address`.
    pub fn new(address: IpAddr, trusted: bool, over_tls: bool) -> Self {
        Self { address, trusted, header: as_header(address), over_tls }
    }

    /// For `X-Forwarded-Proto`.
    const fn scheme(&self) -> HeaderValue {
        HeaderValue::from_static(if self.over_tls { "https" } else { "http" })
    }

    /// Who is behind the peer: the address that a trusted one was called from, else the peer's own (CVE-2026-110726: nobody else's word counts).
    pub fn origin(&self, headers: &HeaderMap) -> IpAddr {
        let named = || {
            let line = headers.get_all(FORWARDED_FOR).iter().next_back()?.to_str().ok()?;
            line.rsplit(',').next()?.trim().parse().ok()
        };
        if self.trusted { named().unwrap_or(self.address) } else { self.address }
    }

    /// The same as a header value.
    pub fn origin_header(&self, headers: &HeaderMap) -> Cow<'_, HeaderValue> {
        match self.origin(headers) {
            origin if origin == self.address => Cow::Borrowed(&self.header),
            origin => Cow::Owned(as_header(origin)),
        }
    }
}

fn as_header(address: IpAddr) -> HeaderValue {
    HeaderValue::try_from(address.to_string()).unwrap_or_else(|_| HeaderValue::from_static("unknown"))
}

/// Who calls, and as what the request goes on.
pub struct Facts<'a> {
    /// Who calls.
    pub caller: &'a Caller,
    /// Its id.
    pub request_id: &'a HeaderValue,
    /// The token to inject; none on a public route.
    pub token: Option<&'a Token>,
    /// Whether the upstream may be sent compressed header sections (HTTP/2).
    pub compressed: bool,
    /// What the upstream is told beside it.
    pub told: &'a [(&'static str, Rendered)],
    /// The `Host` to send, where it is not the caller's.
    pub host: Option<&'a HeaderValue>,
    /// What the caller's certificate says.
    pub certificate: Option<&'a Claims>,
    /// The version that the caller spoke.
    pub version: Version,
}

/// Turns the caller's request into ours. Safe to repeat on a retry: it always starts from what the caller sent.
///
/// # Errors
/// When a header cannot be set: too many of them.
pub fn apply(request: &mut RequestHeader, managed: &Managed, removed: &Names, facts: &Facts<'_>) -> pingora::Result<()> {
    to_origin_form(request);
    name_host(request)?;
    let forwarded_host = request.headers.get(HOST).cloned();
    let wants_trailers = request.version == Version::HTTP_2 && wants_trailers(&request.headers);
    // As the caller's headers say it: ours would name the peer.
    let peer = facts.caller.origin_header(&request.headers);
    strip_headers(request, managed, removed, facts.caller.trusted);
    if !managed.query.is_empty() {
        strip_query(request, &managed.query)?;
    }
    match facts.token {
        Some(token) => request.insert_header("Authorization", token.authorization().clone())?,
        None => strip_public_authorization(request, managed),
    }
    set_forwarded(request, facts.caller, forwarded_host)?;
    // Appended rather than inserted, as all that was stripped: it is the quicker way, and there is nothing to replace.
    request.append_header(REQUEST_ID, request_id(facts))?;
    // One more line keeps those of proxies before us (RFC 9110 section 7.6.3).
    let via = match facts.version {
        Version::HTTP_10 => "1.0 bearerd",
        Version::HTTP_2 => "2.0 bearerd",
        _ => "1.1 bearerd",
    };
    request.append_header("Via", HeaderValue::from_static(via))?;
    if wants_trailers {
        request.insert_header(TE, HeaderValue::from_static("trailers"))?;
    }
    let circumstances = Circumstances { peer: &peer, request_id: facts.request_id, certificate: facts.certificate };
    for (name, rendered) in facts.told {
        if let Some(value) = rendered.value(&circumstances) {
            request.append_header(*name, value)?;
        }
    }
    if let Some(host) = facts.host {
        request.insert_header(HOST, host.clone())?;
    }
    Ok(())
}

/// No request has the id of another: in the table of headers of an HTTP/2 connection (RFC 7541 section 2.3.2) it would only push out what comes again.
fn request_id(facts: &Facts<'_>) -> HeaderValue {
    let mut value = facts.request_id.clone();
    value.set_sensitive(facts.compressed);
    value
}

/// Bytes of a header section as it goes over the wire in HTTP/1.1.
pub fn section_bytes(request: &RequestHeader) -> usize {
    let line = request.method.as_str().len() + request.raw_path().len() + " HTTP/1.1\r\n".len() + 1;
    let headers = request.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len());
    line + headers.sum::<usize>() + "\r\n".len()
}

/// What a request in shadow mode gets: nothing but what the connection to the upstream needs.
///
/// # Errors
/// When a header cannot be set.
pub fn pass_on(request: &mut RequestHeader, host: Option<&HeaderValue>) -> pingora::Result<()> {
    to_origin_form(request);
    name_host(request)?;
    host.map_or(Ok(()), |host| request.insert_header(HOST, host.clone()))
}

/// `http://host/path` becomes `/path` (RFC 9112 section 3.2.1): `Host` says the same, and many servers know no other form.
fn to_origin_form(request: &mut RequestHeader) {
    if !matches!(request.raw_path().first(), Some(b'/' | b'*')) {
        // pingora keeps only the path in the URI, and the whole beside it; this drops the whole.
        request.set_uri(request.uri.clone());
    }
}

/// HTTP/2 names the host outside the headers (RFC 9113 section 8.3.1). Said there, it lasts whatever becomes of the target; pingora puts it back.
fn name_host(request: &mut RequestHeader) -> pingora::Result<()> {
    match request.uri.authority().filter(|_| !request.headers.contains_key(HOST)).map(|authority| HeaderValue::try_from(authority.as_str()))
    {
        Some(Ok(host)) => request.insert_header(HOST, host),
        _ => Ok(()),
    }
}

/// gRPC servers want to hear that trailers arrive; over HTTP/2 on both sides they do.
fn wants_trailers(headers: &HeaderMap) -> bool {
    headers.get_all(TE).iter().any(|value| value.as_bytes().eq_ignore_ascii_case(b"trailers"))
}

fn strip_headers(request: &mut RequestHeader, managed: &Managed, removed: &Names, trusted: bool) {
    // One is the rule (the credential), so the list seldom grows.
    let mut doomed: [Option<HeaderName>; 8] = [const { None }; 8];
    loop {
        let mut found = 0;
        for name in request.headers.keys() {
            let text = name.as_str();
            let managed = managed.headers.contains(text) && !(trusted && FORWARDED.contains(&text));
            if (managed || removed.contains(text)) && found < doomed.len() {
                doomed[found] = Some(name.clone());
                found += 1;
            }
        }
        for name in doomed.iter_mut().filter_map(Option::take) {
            request.remove_header(&name);
        }
        if found < doomed.len() {
            return;
        }
    }
}

fn strip_public_authorization(request: &mut RequestHeader, managed: &Managed) {
    if request.headers.get_all(AUTHORIZATION).iter().any(|value| managed.is_credential(value)) {
        request.remove_header(&AUTHORIZATION);
    }
}

/// Written anew, unless the peer is trusted: then its word is kept and ours added.
fn set_forwarded(request: &mut RequestHeader, caller: &Caller, host: Option<HeaderValue>) -> pingora::Result<()> {
    if !caller.trusted {
        request.append_header(FORWARDED_FOR, caller.header.clone())?;
        request.append_header(FORWARDED_PROTO, caller.scheme())?;
        if let Some(host) = host {
            request.append_header(FORWARDED_HOST, host)?;
        }
        return Ok(());
    }
    let chain = forwarded_chain(request, &caller.header);
    request.insert_header(FORWARDED_FOR, chain)?;
    if !request.headers.contains_key(FORWARDED_PROTO) {
        request.insert_header(FORWARDED_PROTO, caller.scheme())?;
    }
    if let Some(host) = host.filter(|_| !request.headers.contains_key(FORWARDED_HOST)) {
        request.insert_header(FORWARDED_HOST, host)?;
    }
    Ok(())
}

fn forwarded_chain(request: &RequestHeader, caller: &HeaderValue) -> Vec<u8> {
    let mut chain = Vec::new();
    for value in request.headers.get_all(FORWARDED_FOR) {
        chain.extend_from_slice(value.as_bytes());
        chain.extend_from_slice(b", ");
    }
    chain.extend_from_slice(caller.as_bytes());
    chain
}

/// Takes credentials out of the query. The rest stays byte for byte. `;` separates too, since some backends split there.
fn strip_query(request: &mut RequestHeader, names: &[String]) -> pingora::Result<()> {
    let target = request.raw_path();
    let Some(mark) = target.iter().position(|byte| *byte == b'?') else { return Ok(()) };
    let (path, query) = (&target[..mark], &target[mark + 1..]);
    let is_separator = |byte: &u8| matches!(byte, b'&' | b';');
    let holds_credential = |pair: &[u8]| {
        let name = pair.split(|byte| *byte == b'=').next().unwrap_or_default();
        let name: Vec<u8> = percent_encoding::percent_decode(name).collect();
        names.iter().any(|managed| managed.as_bytes().eq_ignore_ascii_case(&name))
    };
    if !query.split(is_separator).any(holds_credential) {
        return Ok(());
    }
    let mut kept = path.to_vec();
    let mut lead = b'?';
    let mut rest = query;
    loop {
        let end = rest.iter().position(is_separator).unwrap_or(rest.len());
        if !holds_credential(&rest[..end]) {
            kept.push(lead);
            kept.extend_from_slice(&rest[..end]);
            lead = b'&';
        }
        match rest.get(end) {
            Some(separator) => {
                lead = if lead == b'?' { b'?' } else { *separator };
                rest = &rest[end + 1..];
            }
            None => return request.set_raw_path(&kept),
        }
    }
}

#[cfg(test)]
mod tests;
