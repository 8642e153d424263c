//! Whoever a token is made for: a key, what is left of its grants, and what the token says beside them.

use std::sync::Arc;

use super::api_key::ApiKey;
use super::grants::{Grants, NotGranted};
use crate::token_service::TokenParams;

/// An authenticated caller; also what a session remembers.
#[derive(Clone, Debug)]
pub struct Holder {
    /// The key that it comes from.
    pub key: Arc<ApiKey>,
    /// What it may do: the key's grants or less.
    pub grants: Arc<Grants>,
    /// What the caller says of itself.
    pub context: Context,
    /// The session that it acts in, where there is one. All that is made in a session has its id and ends with it.
    pub sid: Option<String>,
}

/// The parameters of `create_token` that grant nothing and are put into the token as they are.
#[derive(Clone, Debug, Default)]
pub struct Context {
    /// `clientId`.
    pub client_id: Option<String>,
    /// `domain`.
    pub domain: Option<String>,
    /// `data`.
    pub data: Option<String>,
    /// `cwid`.
    pub cwid: Option<String>,
    /// `cid`.
    pub cid: Option<String>,
}

impl Holder {
    /// The holder of a key, with all that it grants.
    pub fn of_key(key: &Arc<ApiKey>) -> Self {
        let context = Context { cwid: key.workgroup.clone(), ..Context::default() };
        Self { key: Arc::clone(key), grants: Arc::clone(&key.grants), context, sid: None }
    }

    /// The same holder with what `params` leaves of its grants. What `params` does not say stays as it is.
    ///
    /// # Errors
    /// When `params` asks for more than is granted, or for another workgroup than the key's.
    pub fn narrow(self, params: &TokenParams) -> Result<Self, NotGranted> {
        if let (Some(only), Some(asked)) = (&self.key.workgroup, &params.cwid)
            && only != asked
        {
            return Err(NotGranted { what: "cwid", names: vec![asked.clone()] });
        }
        let asks_less = !(params.scopes.is_empty() && params.acl.is_empty() && params.mem.is_empty());
        let grants = if asks_less { Arc::new(self.grants.narrow(params)?) } else { self.grants };
        let context = Context {
            client_id: params.client_id.clone().or(self.context.client_id),
            domain: params.domain.clone().or(self.context.domain),
            data: params.data.clone().or(self.context.data),
            cwid: params.cwid.clone().or(self.context.cwid),
            cid: params.cid.clone().or(self.context.cid),
        };
        Ok(Self { grants, context, ..self })
    }
}
