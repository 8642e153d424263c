//! What a route demands of its callers beside a credential: how JWTs are checked, what claims must say, how often one may come.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::token_service::ClientTls;
use super::units;

/// How a JWT that a caller brings is checked by its signature.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Jwt {
    /// Where the issuer publishes its keys (RFC 7517). Fetched in the background; no redirect is followed.
    #[schemars(extend("format" = "http-url"))]
    pub jwks_url: Option<String>,
    /// The keys as a file, read again when it changes; in place of `jwks_url`.
    #[schemars(with = "Option<String>", extend("format" = "path"))]
    pub jwks_file: Option<PathBuf>,
    /// The algorithms that are taken. What the token's header says chooses among them, no more.
    #[schemars(length(min = 1))]
    pub algorithms: Vec<Algorithm>,
    /// What `iss` may be; anything where empty.
    pub issuers: Vec<String>,
    /// What `aud` must have one of; anything where empty.
    pub audiences: Vec<String>,
    /// How far `nbf` and `iat` may be ahead of our clock. `exp` is strict.
    #[serde(with = "units::Duration")]
    #[schemars(with = "units::Duration")]
    pub leeway: Duration,
    /// Private CA and client certificate towards `jwks_url`.
    pub tls: ClientTls,
}

impl Default for Jwt {
    fn default() -> Self {
        Self {
            jwks_url: None,
            jwks_file: None,
            algorithms: vec![Algorithm::RS256],
            issuers: Vec::new(),
            audiences: Vec::new(),
            leeway: Duration::from_secs(30),
            tls: ClientTls::default(),
        }
    }
}

/// A signature algorithm (RFC 7518 section 3.1, RFC 8037). None of them has a shared secret: a key set is public.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[allow(missing_docs, reason = "the names are the standard's")]
pub enum Algorithm {
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    EdDSA,
}

/// What the token's claims must say.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Require {
    /// Scopes; all of them.
    #[schemars(extend("items" = { "type": "string", "format": "scope" }))]
    pub scopes: Vec<String>,
    /// By the claim's path (`realm_access.roles`): what must stand there.
    #[schemars(extend("propertyNames" = { "format": "claim-path" }))]
    pub claims: BTreeMap<String, Expected>,
    /// What the caller's certificate must say: `subject`, `common_name`, `dns`, `uri`, `email`, `serial`, `sha256`.
    #[schemars(extend("propertyNames" = { "format": "certificate-field" }))]
    pub client_certificate: BTreeMap<String, Expected>,
}

impl Require {
    /// Whether nothing is required of the token.
    pub fn is_empty(&self) -> bool {
        self.scopes.is_empty() && self.claims.is_empty()
    }
}

/// What must stand in a claim: a value, one of a list, or more to say.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Expected {
    /// This value; text with a `*` in it is a pattern.
    Value(Scalar),
    /// One of these values.
    OneOf(Vec<Scalar>),
    /// Something else.
    Told(Told),
}

/// A single value. Types count: the number 7 is not the text `7`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Scalar {
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Integer(#[schemars(range(min = -9_007_199_254_740_991_i64, max = 9_007_199_254_740_991_i64))] i64),
    /// Text.
    Text(String),
}

/// What must stand in a claim, where a value alone does not say it.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Told {
    /// It must be there, or must not.
    Present(bool),
    /// This value as it is, with its `*`.
    Equals(Scalar),
    /// One of these values as they are.
    OneOf(Vec<Scalar>),
    /// Text of this shape: `*` stands for any characters, or none.
    Glob(#[schemars(extend("format" = "name"))] String),
}

/// How often one may come.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    /// Requests that are let through in `per`. They may come all at once.
    #[schemars(range(min = 1))]
    pub requests: u32,
    /// The time in which the allowance comes back whole.
    #[serde(default = "one_second", with = "units::Duration")]
    #[schemars(with = "units::Duration")]
    pub per: Duration,
    /// Who has an allowance of its own.
    #[serde(default)]
    pub by: RateLimitBy,
    /// Allowances remembered at one time; past it, those that were not used for longest are whole again.
    #[serde(default = "hundred_thousand")]
    #[schemars(range(min = 1))]
    pub max_entries: usize,
}

const fn one_second() -> Duration {
    Duration::from_secs(1)
}

const fn hundred_thousand() -> usize {
    100_000
}

/// Who has an allowance of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RateLimitBy {
    /// Each credential.
    #[default]
    Credential,
    /// Each address that connects; of IPv6, each network of 64 bits. Behind a trusted peer, the address that it names.
    Peer,
    /// The route: all share one.
    Route,
}
