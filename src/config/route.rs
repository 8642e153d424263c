//! Routes: which requests, which credentials, which token, which upstream.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::policy::{Jwt, RateLimit, Require};
use super::units;

/// A route. The first whose `match` fits serves the request.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Route {
    /// Its name in logs and metrics; `route-1`, `route-2`, ... by default.
    #[schemars(extend("format" = "name"))]
    pub name: Option<String>,
    /// Which requests it takes; all by default.
    #[serde(rename = "match")]
    pub matches: Match,
    /// The upstream that serves it.
    pub upstream: Option<String>,
    /// A fixed answer in place of an upstream.
    pub respond: Option<Respond>,
    /// The token service's own endpoints, served from the cache in place of an upstream: an SDK points its host here. Takes the paths of that API
    /// and leaves all others to later routes.
    pub token_api: Option<TokenApi>,
    /// Whether a credential is needed.
    pub auth: Auth,
    /// Which credentials it takes, in order: `[api_key, basic, session_token]` by default, and `jwt` where `validate.jwt` is set.
    #[schemars(with = "Vec<CredentialSource>")]
    pub credentials: Option<Vec<CredentialSource>>,
    /// What happens when a request brings several of the listed kinds.
    pub on_multiple: OnMultiple,
    /// The parameters of `create_token`.
    pub token: Token,
    /// How tokens are checked.
    pub validate: Validate,
    /// What the token's claims must say, on each request.
    pub require: Require,
    /// `false` is shadow mode: everything is decided and counted, and the request goes on exactly as it came.
    pub enforce: bool,
    /// How often one may come.
    pub rate_limit: Option<RateLimit>,
    /// What the upstream sees beside the token.
    pub headers: Headers,
    /// Renew the tokens of credentials that were used within 24 hours, not only of those that were used since the last mint.
    pub keep_warm: bool,
    /// How often a psToken's session is extended while tokens that were minted from it are in use.
    #[serde(with = "units::Duration")]
    #[schemars(with = "units::Duration")]
    pub session_refresh: Duration,
    /// What happens when the upstream answers 401 to an injected token.
    pub on_upstream_401: OnUpstream401,
    /// What becomes of requests that go on past the end of their token: streams, WebSockets, long answers.
    pub on_expiry: OnExpiry,
    /// How long a token that shows no expiry (a psToken) is used.
    #[serde(with = "units::Duration")]
    #[schemars(with = "units::Duration")]
    pub session_lifetime: Duration,
}

impl Default for Route {
    fn default() -> Self {
        Self {
            name: None,
            matches: Match::default(),
            upstream: None,
            respond: None,
            token_api: None,
            auth: Auth::default(),
            credentials: None,
            on_multiple: OnMultiple::default(),
            token: Token::default(),
            validate: Validate::default(),
            require: Require::default(),
            enforce: true,
            rate_limit: None,
            headers: Headers::default(),
            keep_warm: false,
            session_refresh: Duration::from_secs(30 * 60),
            on_upstream_401: OnUpstream401::default(),
            on_expiry: OnExpiry::default(),
            session_lifetime: Duration::from_secs(12 * 3600),
        }
    }
}

impl Route {
    /// Which credentials it takes.
    pub fn credentials(&self) -> Cow<'_, [CredentialSource]> {
        if let Some(listed) = &self.credentials {
            return Cow::Borrowed(listed);
        }
        let mut kinds = vec![CredentialKind::ApiKey, CredentialKind::Basic, CredentialKind::SessionToken];
        if self.validate.jwt.is_some() {
            kinds.push(CredentialKind::Jwt);
        }
        kinds.into_iter().map(CredentialSource::Kind).collect()
    }

    /// Whether it takes JWTs.
    pub fn takes_jwt(&self) -> bool {
        self.credentials().iter().any(|source| matches!(source, CredentialSource::Kind(CredentialKind::Jwt)))
    }

    /// Whether it cannot do without a token service: to mint, or to ask about tokens.
    pub fn needs_token_service(&self) -> bool {
        let mints = self.credentials().iter().any(|source| !matches!(source, CredentialSource::Kind(CredentialKind::Jwt)));
        self.auth == Auth::Required && (mints || self.validate.details_of_presented() != Details::Off)
    }

    /// bearerd's own key, where the route uses one.
    pub fn mounted(&self) -> Option<&Mounted> {
        self.credentials.iter().flatten().find_map(|source| match source {
            CredentialSource::Placed(Placed::Mounted(mounted)) => Some(mounted),
            _ => None,
        })
    }

    /// Its name, at this place among the routes.
    pub fn name_at(&self, index: usize) -> String {
        self.name.clone().unwrap_or_else(|| Self::default_name(index))
    }

    /// The name of a route without one of its own, from its index in the list.
    fn default_name(index: usize) -> String {
        format!("route-{}", index + 1)
    }
}

/// Which requests a route takes: all conditions that are given must hold.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Match {
    /// Hosts, without port, in any case; `*.example.com` is any one or more labels before it.
    #[schemars(extend("items" = { "type": "string", "format": "host-pattern" }))]
    pub hosts: Vec<String>,
    /// The whole path.
    #[schemars(extend("format" = "absolute-path"))]
    pub path: Option<String>,
    /// Whole leading segments of the path: `/api` fits `/api` and `/api/x`, not `/apix`.
    #[schemars(extend("format" = "absolute-path"))]
    pub path_prefix: Option<String>,
    /// A regular expression that the whole path must fit. It is read byte by byte, and takes time in proportion to the path.
    #[schemars(extend("format" = "path-regex"))]
    pub path_regex: Option<String>,
    /// Methods.
    #[schemars(extend("items" = { "type": "string", "format": "method" }))]
    pub methods: Vec<String>,
    /// Headers that must be there with exactly this value.
    #[schemars(extend("propertyNames" = { "format": "header-name" }, "additionalProperties" = { "type": "string", "format": "header-value" }))]
    pub headers: BTreeMap<String, String>,
}

/// A fixed answer.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Respond {
    /// Its status. A 401 gets a `WWW-Authenticate` unless `headers.response` sets one.
    #[schemars(range(min = 200, max = 599))]
    pub status: u16,
}

/// A route that stands in for a token service.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum TokenApi {
    /// For this token service.
    Service(#[schemars(extend("format" = "name"))] String),
    /// With more to say.
    Detailed(TokenApiDetails),
}

/// How a route stands in for a token service.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TokenApiDetails {
    /// The token service.
    #[schemars(extend("format" = "name"))]
    pub service: String,
    /// What `DELETE /v1/tokens` does to a token that bearerd minted.
    pub on_revoke: OnRevoke,
    /// A token is minted anew for a caller when less than this part of its life is left.
    pub min_remaining: units::Percent,
}

impl Default for TokenApiDetails {
    fn default() -> Self {
        Self { service: "default".to_owned(), on_revoke: OnRevoke::default(), min_remaining: units::Percent(50) }
    }
}

/// What becomes of a token that a caller revokes through a `token_api` route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnRevoke {
    /// It is revoked, for all who use it.
    #[default]
    Revoke,
    /// Others with the same key go on with it.
    Release,
}

impl TokenApi {
    /// All of it.
    pub fn details(&self) -> TokenApiDetails {
        match self {
            Self::Service(service) => TokenApiDetails { service: service.clone(), ..TokenApiDetails::default() },
            Self::Detailed(details) => details.clone(),
        }
    }
}

/// Whether a route needs a credential.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Auth {
    /// A request without a good credential is refused.
    #[default]
    Required,
    /// Public: no credential is looked for, and none is passed on.
    None,
}

/// A kind of credential, by its usual place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CredentialKind {
    /// `X-API-Key`.
    ApiKey,
    /// `Authorization: Basic`, of `user:pass` or of a bare key.
    Basic,
    /// `Authorization: Bearer` with a psToken.
    SessionToken,
    /// `Authorization: Bearer` with a JWT, which is validated and goes on.
    Jwt,
}

/// Where a credential is looked for: a kind, or an API key at a place of its own.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(untagged, deny_unknown_fields)]
pub enum CredentialSource {
    /// A kind at its usual place.
    Kind(CredentialKind),
    /// One that needs to be told more of.
    Placed(Placed),
}

/// A credential at a place of its own.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Placed {
    /// An API key in a named header or query parameter.
    ApiKey(ApiKeyPlace),
    /// bearerd's own API key, from a file: callers send none.
    Mounted(Mounted),
}

/// bearerd's own API key, mounted as a file. It is read again when the file changes.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Mounted {
    /// The file; it holds the key alone.
    #[schemars(with = "String", extend("format" = "path"))]
    pub file: PathBuf,
    /// Revoke the tokens of the old key when the file changes.
    #[serde(default)]
    pub revoke_on_change: bool,
}

/// Where an API key is.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ApiKeyPlace {
    /// In this header.
    Header(#[schemars(extend("format" = "header-name"))] String),
    /// In this query parameter, which is removed from the URL.
    Query(#[schemars(extend("format" = "name"))] String),
}

/// What happens when a request brings several listed credentials.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnMultiple {
    /// It is refused with 400.
    #[default]
    Reject,
    /// The first in list order counts; the others are stripped.
    First,
}

/// The parameters of `create_token`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Token {
    /// The token service that mints.
    pub service: String,
    /// `clientId`: the authorised party.
    pub client_id: Option<String>,
    /// `domain`.
    pub domain: Option<String>,
    /// `data`: custom metadata.
    pub data: Option<String>,
    /// `scopes`: limits the token to these.
    #[schemars(extend("items" = { "type": "string", "format": "list-item" }))]
    pub scopes: Vec<String>,
    /// `acl`: the access control list.
    #[schemars(extend("items" = { "type": "string", "format": "list-item" }))]
    pub acl: Vec<String>,
    /// `mem`: the membership list.
    #[schemars(extend("items" = { "type": "string", "format": "list-item" }))]
    pub mem: Vec<String>,
    /// `cwid`: the current workgroup.
    pub cwid: Option<String>,
    /// `cid`: the current context.
    pub cid: Option<String>,
    /// `returnSessionToken`: inject a psToken in place of a JWT.
    pub return_session_token: bool,
    /// No token is used for longer than this after its mint; by default as long as it says itself.
    #[serde(with = "units::MaybeDuration")]
    #[schemars(with = "Option<units::Duration>")]
    pub max_age: Option<Duration>,
}

impl Default for Token {
    fn default() -> Self {
        Self {
            service: "default".to_owned(),
            client_id: None,
            domain: None,
            data: None,
            scopes: Vec::new(),
            acl: Vec::new(),
            mem: Vec::new(),
            cwid: None,
            cid: None,
            return_session_token: false,
            max_age: None,
        }
    }
}

/// How tokens are checked.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Validate {
    /// When `get_token_details` is asked; `on_mint` by default. About a JWT that a caller brings it is asked before the first use and then every so
    /// often, at least once a minute where `jwt` is not set; where it is, only if something is written here.
    pub details: Option<Details>,
    /// How a JWT that a caller brings is checked by its signature.
    pub jwt: Option<Jwt>,
}

impl Validate {
    /// When `get_token_details` is asked about a minted token.
    pub fn details_of_minted(&self) -> Details {
        self.details.unwrap_or_default()
    }

    /// When it is asked about a JWT that a caller brings.
    pub fn details_of_presented(&self) -> Details {
        self.details.unwrap_or(if self.jwt.is_some() { Details::Off } else { Details::default() })
    }
}

/// When `get_token_details` is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Details {
    /// Never.
    Off,
    /// Once, after the mint and before the first use.
    #[default]
    OnMint,
    /// Then, and so often after it while the token is in use.
    Every(Duration),
}

impl Details {
    /// Reads `off`, `on_mint` or a duration.
    ///
    /// # Errors
    /// When the text is none of them; the message says what to write.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self::Off),
            "on_mint" => Ok(Self::OnMint),
            _ => units::Duration::parse(text)
                .map(Self::Every)
                .map_err(|_| format!("`{text}` is neither `off`, `on_mint` nor a duration such as `60s`")),
        }
    }
}

impl<'de> Deserialize<'de> for Details {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

impl Serialize for Details {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Off => serializer.serialize_str("off"),
            Self::OnMint => serializer.serialize_str("on_mint"),
            Self::Every(span) => units::Duration::serialize(span, serializer),
        }
    }
}

impl JsonSchema for Details {
    fn schema_name() -> Cow<'static, str> {
        "Details".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "details", "examples": ["off", "on_mint", "60s"] })
    }
}

/// What happens when an upstream answers 401 to an injected token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnUpstream401 {
    /// Another token is minted, at most once in ten seconds for each; where the request allows it, it is sent again with that one.
    #[default]
    Renew,
    /// The caller gets the 401, and nothing else happens.
    Pass,
}

/// What becomes of requests that go on past the end of their token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnExpiry {
    /// They go on.
    #[default]
    Keep,
    /// They are cut off when their token expires or is revoked; the caller comes again with its credential.
    Close,
}

/// Headers towards the upstream, and back.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Headers {
    /// Set; whatever the caller sent under these names, in any alias, is gone. `{claims.NAME}`, `{route}`, `{peer}` and `{request_id}` are filled in;
    /// where a claim is missing, the header is left out.
    #[schemars(extend("propertyNames" = { "format": "header-name" }, "additionalProperties" = { "type": "string", "format": "header-template" }))]
    pub set: BTreeMap<String, String>,
    /// Removed.
    #[schemars(extend("items" = { "type": "string", "format": "header-name" }))]
    pub remove: Vec<String>,
    /// Of the upstream's answer.
    pub response: ResponseHeaders,
}

/// Headers of the upstream's answer.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ResponseHeaders {
    /// Set in place of the upstream's; `{route}`, `{peer}` and `{request_id}` are filled in.
    #[schemars(extend("propertyNames" = { "format": "header-name" }, "additionalProperties" = { "type": "string", "format": "header-template" }))]
    pub set: BTreeMap<String, String>,
    /// Removed.
    #[schemars(extend("items" = { "type": "string", "format": "header-name" }))]
    pub remove: Vec<String>,
}
