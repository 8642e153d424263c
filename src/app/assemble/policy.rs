//! What a route demands beside a credential, from its section of the configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use http::{HeaderName, Uri};
use jsonwebtoken::Algorithm as Signature;
use serde_json::Value;
use tokio::runtime::Handle;

use super::kept::{Kept, Shelf};
use super::{Error, Services, details, unchecked};
use crate::authorize::{Condition, Glob, Policy};
use crate::claims::Path;
use crate::config::Route;
use crate::config::policy::{self, Algorithm, Expected, Jwt, RateLimitBy, Scalar, Told};
use crate::exchange::{Details as Checks, Exchange, Verifier};
use crate::jwks::rules::Rules;
use crate::jwks::source::Source;
use crate::proxy::ResponseHeaders;
use crate::proxy::inject::Names;
use crate::rate_limit::{By, RateLimit};
use crate::template::Template;

/// The key sets, each fetched once however many routes use it.
#[derive(Default)]
pub(in crate::app) struct KeySources(Shelf<Origin, Source>);

/// Where a key set comes from. Routes that name different TLS files do not share one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Origin {
    File(PathBuf),
    Url(String, [Option<PathBuf>; 3]),
}

impl KeySources {
    pub(in crate::app) fn after(former: Option<&Self>) -> Self {
        Self(Shelf::after(former.map(|former| &former.0)))
    }

    /// All routes are there.
    pub(in crate::app) fn settle(&mut self) {
        self.0.settle();
    }

    /// The key set of a section, fetched once however many routes use it.
    pub(in crate::app) fn of(&mut self, jwt: &Jwt, runtime: &Handle) -> Result<Arc<Source>, Error> {
        let from = match (&jwt.jwks_file, &jwt.jwks_url) {
            (Some(file), _) => Origin::File(file.clone()),
            (None, Some(url)) => Origin::Url(url.clone(), [jwt.tls.ca.clone(), jwt.tls.certificate.clone(), jwt.tls.private_key.clone()]),
            (None, None) => return Err(unchecked("`validate.jwt` needs `jwks_url` or `jwks_file`")),
        };
        self.0.of(from, |from| {
            let source = Arc::new(match from {
                Origin::File(file) => Source::file(file.clone())?,
                Origin::Url(url, _) => {
                    let uri: Uri = url.parse().map_err(unchecked)?;
                    Source::url(uri, &jwt.tls).map_err(|cause| Error::KeySet { url: url.clone(), cause })?
                }
            });
            Ok(Kept::new(&source, runtime, Arc::clone(&source).keep()))
        })
    }
}

/// How the route's JWTs are validated, where it takes any.
pub(super) fn verifier(
    section: &Route,
    name: &str,
    exchange: &Exchange,
    services: &Services,
    sources: &mut KeySources,
) -> Result<Option<Arc<Verifier>>, Error> {
    if !section.takes_jwt() {
        return Ok(None);
    }
    let (signature, rules) = match &section.validate.jwt {
        Some(jwt) => (
            Some((sources.of(jwt, exchange.runtime())?, jwt.algorithms.iter().map(|algorithm| signature(*algorithm)).collect())),
            rules(jwt),
        ),
        None => (None, Rules::default()),
    };
    let details = details(section.validate.details_of_presented());
    let service = services.get(&section.token.service).map(|service| &service.part);
    // Else nobody would vouch for a token.
    let is_asked = details != Checks::Off;
    if (is_asked && service.is_none()) || (!is_asked && signature.is_none()) {
        return Err(unchecked(format!("nothing checks the JWTs of the route `{name}`")));
    }
    Ok(Some(Arc::new(exchange.verifier(name, signature, rules, details, service))))
}

/// What `validate.jwt` says of claims.
pub(in crate::app) fn rules(jwt: &Jwt) -> Rules {
    Rules { issuers: jwt.issuers.clone(), audiences: jwt.audiences.clone(), leeway: jwt.leeway }
}

/// An algorithm as the library names it.
pub(in crate::app) const fn signature(algorithm: Algorithm) -> Signature {
    match algorithm {
        Algorithm::RS256 => Signature::RS256,
        Algorithm::RS384 => Signature::RS384,
        Algorithm::RS512 => Signature::RS512,
        Algorithm::PS256 => Signature::PS256,
        Algorithm::PS384 => Signature::PS384,
        Algorithm::PS512 => Signature::PS512,
        Algorithm::ES256 => Signature::ES256,
        Algorithm::ES384 => Signature::ES384,
        Algorithm::EdDSA => Signature::EdDSA,
    }
}

/// What the token must say and the upstream is told.
pub(in crate::app) fn policy(section: &Route, name: &str) -> Result<Policy, Error> {
    let conditions = |all: &BTreeMap<String, Expected>| {
        all.iter()
            .map(|(path, expected)| Ok((Path::parse(path).map_err(unchecked)?, condition(expected)?)))
            .collect::<Result<Vec<_>, Error>>()
    };
    let headers = templates(&section.headers.set)?;
    let policy = Policy::new(name, section.require.scopes.clone(), conditions(&section.require.claims)?, headers);
    Ok(policy.with_certificate(conditions(&section.require.client_certificate)?))
}

fn templates(set: &BTreeMap<String, String>) -> Result<Vec<(&'static str, Template)>, Error> {
    set.iter().map(|(name, value)| Ok((lasting(name), Template::parse(value).map_err(unchecked)?))).collect()
}

/// pingora wants names that live as long as the process. Each is kept once, however often the configuration is loaded.
fn lasting(name: &str) -> &'static str {
    static NAMES: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = names.get(name) {
        return known;
    }
    let lasting: &'static str = Box::leak(name.to_owned().into_boxed_str());
    names.insert(lasting);
    lasting
}

fn condition(expected: &Expected) -> Result<Condition, Error> {
    let glob = |pattern: &str| Glob::new(pattern).map(Condition::Glob).map_err(unchecked);
    Ok(match expected {
        Expected::Value(Scalar::Text(text)) if text.contains('*') => glob(text)?,
        Expected::Value(value) | Expected::Told(Told::Equals(value)) => Condition::Equals(self::value(value)),
        Expected::OneOf(values) | Expected::Told(Told::OneOf(values)) => Condition::OneOf(values.iter().map(self::value).collect()),
        Expected::Told(Told::Present(there)) => Condition::Present(*there),
        Expected::Told(Told::Glob(pattern)) => glob(pattern)?,
    })
}

fn value(scalar: &Scalar) -> Value {
    match scalar {
        Scalar::Bool(value) => Value::Bool(*value),
        Scalar::Integer(value) => Value::from(*value),
        Scalar::Text(text) => Value::String(text.clone()),
    }
}

pub(in crate::app) fn removed(section: &Route) -> Names {
    let mut names = Names::default();
    section.headers.remove.iter().for_each(|name| names.insert(name));
    names
}

pub(super) fn response(section: &Route, name: &str) -> Result<ResponseHeaders, Error> {
    let told = Policy::new(name, Vec::new(), Vec::new(), templates(&section.headers.response.set)?);
    let remove = section.headers.response.remove.iter().map(|name| HeaderName::try_from(name.as_str()).map_err(unchecked));
    Ok(ResponseHeaders { set: told.without_token().to_vec(), remove: remove.collect::<Result<_, _>>()? })
}

pub(super) fn rate_limit(section: &Route) -> Option<RateLimit> {
    let policy::RateLimit { requests, per, by, max_entries } = section.rate_limit?;
    let by = match by {
        RateLimitBy::Credential => By::Credential,
        RateLimitBy::Peer => By::Peer,
        RateLimitBy::Route => By::Route,
    };
    Some(RateLimit::new(requests, per, by, max_entries))
}
