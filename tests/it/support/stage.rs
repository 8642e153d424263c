//! A bearerd between its surroundings, and what most tests ask of them.

use super::bearerd::Bearerd;
use super::client::{Client, Response};
use super::token_service::{ScriptedTokenService, claims};
use super::upstream::{Received, RecordingUpstream};

/// A token service, an upstream, and bearerd between them.
pub struct Stage {
    pub bearerd: Bearerd,
    pub service: ScriptedTokenService,
    pub upstream: RecordingUpstream,
}

impl Stage {
    /// With these routes, in YAML; the upstream is `app`.
    pub async fn with_routes(routes: &str) -> Self {
        Self::configured("", routes).await
    }

    /// With these routes and, before them, `sections` of the configuration.
    pub async fn configured(sections: &str, routes: &str) -> Self {
        let (service, upstream) = surroundings().await;
        let bearerd = Bearerd::start(&configuration(&service, &upstream, sections, routes));
        Self { bearerd, service, upstream }
    }

    /// A new connection of a caller.
    pub async fn client(&self) -> Client {
        Client::connect(self.bearerd.address()).await
    }

    /// The request that reached the upstream last.
    pub fn last(&self) -> Received {
        self.upstream.requests().pop().expect("the upstream was asked")
    }
}

/// A token service and an upstream, for a bearerd that is started otherwise.
pub async fn surroundings() -> (ScriptedTokenService, RecordingUpstream) {
    (ScriptedTokenService::start().await, RecordingUpstream::start().await)
}

/// A configuration with one token service and one upstream.
pub fn configuration(service: &ScriptedTokenService, upstream: &RecordingUpstream, sections: &str, routes: &str) -> String {
    format!(
        "{sections}\ntoken_services: {{ default: {{ kind: iap, url: \"{}\" }} }}\nupstreams: {{ app: {{ servers: [\"{}\"] }} }}\n\
         logging: {{ access: false }}\nroutes:\n{routes}\n",
        service.url(),
        upstream.address(),
    )
}

impl Received {
    /// `sub` of the token that came with it; panics unless there is exactly one.
    pub fn subject(&self) -> String {
        let lines = self.head.all("authorization");
        assert_eq!(lines.len(), 1, "exactly one Authorization: {:?}", self.head);
        claims(lines[0].strip_prefix("Bearer ").expect("a Bearer"))["sub"].as_str().unwrap().to_owned()
    }
}

impl Response {
    /// The word of a problem; panics where this is none, or not a whole one.
    pub fn problem(&self) -> String {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        assert_eq!(self.header("cache-control"), Some("no-store"));
        let body = self.body.json();
        assert_eq!(body["status"], self.status);
        for told in ["detail", "request_id"] {
            assert!(body[told].as_str().is_some_and(|text| !text.is_empty()), "{told}");
        }
        body["type"].as_str().unwrap().strip_prefix("urn:bearerd:problem:").unwrap().to_owned()
    }
}
