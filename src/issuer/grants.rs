//! What a token may do, and the one way to change it: to less.

use serde_json::{Map, Value};

use crate::token_service::TokenParams;

/// Names shown in a refusal, at most; a request can name thousands.
const SHOWN: usize = 5;

/// Rights of a key, a session or a token.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Grants {
    /// Scopes; none has a `,` in it, since the claim is one comma-separated text.
    pub scopes: Vec<String>,
    /// Access control list.
    pub acl: Vec<String>,
    /// Memberships: keys like `cid:<project id>`, with values that only the holder of the token reads.
    pub mem: Map<String, Value>,
}

/// Something was asked for that is not granted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} not granted to this credential: {}", shown(.names))]
pub struct NotGranted {
    /// The parameter that asked for it.
    pub what: &'static str,
    /// What was asked for in vain.
    pub names: Vec<String>,
}

fn shown(names: &[String]) -> String {
    let mut list: Vec<String> = names.iter().take(SHOWN).map(|name| name.chars().take(100).collect()).collect();
    if names.len() > SHOWN {
        list.push(format!("and {} more", names.len() - SHOWN));
    }
    list.join(", ")
}

impl Grants {
    /// Less of it: of each kind what `params` names, or all where it names none.
    ///
    /// # Errors
    /// When `params` names what is not in here.
    pub fn narrow(&self, params: &TokenParams) -> Result<Self, NotGranted> {
        Ok(Self {
            scopes: narrow_list("scopes", &self.scopes, &params.scopes)?,
            acl: narrow_list("acl", &self.acl, &params.acl)?,
            mem: narrow_mem(&self.mem, &params.mem)?,
        })
    }
}

fn narrow_list(what: &'static str, granted: &[String], asked: &[String]) -> Result<Vec<String>, NotGranted> {
    let missing: Vec<String> = asked.iter().filter(|name| !granted.contains(name)).cloned().collect();
    if !missing.is_empty() {
        return Err(NotGranted { what, names: missing });
    }
    Ok(granted.iter().filter(|name| asked.is_empty() || asked.contains(name)).cloned().collect())
}

fn narrow_mem(granted: &Map<String, Value>, asked: &[String]) -> Result<Map<String, Value>, NotGranted> {
    let missing: Vec<String> = asked.iter().filter(|name| !granted.contains_key(*name)).cloned().collect();
    if !missing.is_empty() {
        return Err(NotGranted { what: "mem", names: missing });
    }
    let kept = granted.iter().filter(|(name, _)| asked.is_empty() || asked.contains(name));
    Ok(kept.map(|(name, value)| (name.clone(), value.clone())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn grants(names: &[String]) -> Grants {
        Grants { scopes: names.to_vec(), acl: names.to_vec(), mem: names.iter().map(|name| (name.clone(), Value::Null)).collect() }
    }

    #[test]
    fn a_refusal_names_what_is_missing_and_stays_short() {
        let params = TokenParams { scopes: (0..1000).map(|n| format!("S{n}")).collect(), ..TokenParams::default() };
        let message = grants(&["S0".to_owned()]).narrow(&params).unwrap_err().to_string();
        assert_eq!(message, "scopes not granted to this credential: S1, S2, S3, S4, S5, and 994 more");
    }

    #[test]
    fn each_kind_is_narrowed_by_itself() {
        let all = grants(&["a".to_owned(), "b".to_owned()]);
        let some = all.narrow(&TokenParams { mem: vec!["b".to_owned()], ..TokenParams::default() }).unwrap();
        assert_eq!((some.scopes, some.acl), (all.scopes, all.acl));
        assert_eq!(some.mem.keys().collect::<Vec<_>>(), ["b"]);
    }

    proptest! {
        #[test]
        fn nothing_is_ever_added(has in proptest::collection::vec("[a-d]", 0..4), asks in proptest::collection::vec("[a-d]", 0..4)) {
            let all = grants(&has);
            let params = TokenParams { scopes: asks.clone(), acl: asks.clone(), mem: asks.clone(), ..TokenParams::default() };
            match all.narrow(&params) {
                Ok(less) => {
                    prop_assert!(asks.iter().all(|name| has.contains(name)));
                    prop_assert!(less.scopes.iter().all(|name| has.contains(name) && (asks.is_empty() || asks.contains(name))));
                    prop_assert_eq!(&less.acl, &less.scopes);
                    prop_assert!(less.mem.keys().all(|name| less.scopes.contains(name)));
                }
                Err(refused) => prop_assert!(refused.names.iter().all(|name| !has.contains(name))),
            }
        }
    }
}
