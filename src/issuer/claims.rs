//! The claims of the JWTs, in the form that clients of the token API read.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Settings;
use super::holder::Holder;
use crate::clock::Timestamp;
use crate::token_service::{Domain, TokenDetails, Workgroup};

/// The payload of a JWT (RFC 7519 section 4); times are whole seconds since the Unix epoch.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Claims {
    /// The issuer, as configured.
    pub iss: String,
    /// The audience, as configured.
    pub aud: String,
    /// The key's subject.
    pub sub: String,
    /// The key's name.
    pub name: String,
    /// The tenant: base64 of text whose last `:` segment it is.
    pub tid: String,
    /// Scopes, parted by commas, not by blanks as in OAuth.
    pub scope: String,
    /// Access control list.
    pub acl: Vec<String>,
    /// Memberships: keys like `cid:<project id>`.
    pub mem: Map<String, Value>,
    /// The authorised party: `clientId`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub azp: Option<String>,
    /// The domain that was logged into: `domain`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// Custom metadata: `data`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// The current workgroup.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cwid: Option<String>,
    /// The current context.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cid: Option<String>,
    /// The session that it was made from: ends with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sid: Option<String>,
    /// Not good before.
    pub nbf: i64,
    /// Made at.
    pub iat: i64,
    /// Not good from then on.
    pub exp: i64,
    /// Its own id, which a revocation names.
    pub jti: String,
}

impl Claims {
    /// The claims of a token for `holder`, made at `now`. It does not outlive the holder's key.
    pub fn new(holder: &Holder, settings: &Settings, now: Timestamp, jti: String) -> Self {
        let end = now.plus(settings.lifetime);
        let end = holder.key.expires.map_or(end, |expires| expires.min(end));
        Self {
            iss: settings.issuer.clone(),
            aud: settings.audience.clone(),
            sub: holder.key.subject.clone(),
            name: holder.key.name.clone(),
            tid: STANDARD.encode(format!("bearerd:tenant:{}", holder.key.tenant)),
            scope: holder.grants.scopes.join(","),
            acl: holder.grants.acl.clone(),
            mem: holder.grants.mem.clone(),
            azp: holder.context.client_id.clone(),
            domain: holder.context.domain.clone(),
            session: holder.context.data.clone(),
            cwid: holder.context.cwid.clone(),
            cid: holder.context.cid.clone(),
            sid: holder.sid.clone(),
            nbf: now.as_secs(),
            iat: now.as_secs(),
            exp: end.as_secs(),
            jti,
        }
    }

    /// Whether the token's time has come and is not over.
    pub fn is_timely(&self, now: Timestamp) -> bool {
        Timestamp::from_secs(self.nbf) <= now && now < Timestamp::from_secs(self.exp)
    }

    /// What `get_token_details` tells of it.
    pub fn into_details(self) -> TokenDetails {
        TokenDetails {
            uid: Some(self.sub.clone()),
            name: Some(self.name),
            username: Some(self.sub),
            current_workgroup: self.cwid.map(|id| Workgroup { id: Some(id), ..Workgroup::default() }),
            tid: Some(self.tid),
            acls: self.acl,
            domain: self.domain.map(|name| Domain { name: Some(name), ..Domain::default() }),
            other: serde_json::Map::new(),
        }
    }
}
