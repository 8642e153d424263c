//! The same changes for pods that are admitted: an AdmissionReview (`admission.k8s.io/v1`) in, one with a JSON Patch out. Nothing else is done, so that a dry run
//! is like any other.

pub mod metrics;
pub mod server;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::error::Category;

use super::{Changes, Defaults, changes};
use metrics::Outcome;

const VERSION: &str = "admission.k8s.io/v1";
const KIND: &str = "AdmissionReview";

/// Why there is no answer that Kubernetes could read: nobody knows to what.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not JSON, or without what a review must have. What stands there is not shown: pods hold secrets.
    #[error("not an AdmissionReview with a request: {} (line {}, column {})", fault(.0), .0.line(), .0.column())]
    Malformed(#[from] serde_json::Error),
    /// Another version, or another kind of object.
    #[error("an AdmissionReview of {VERSION} is expected: set `admissionReviewVersions: [v1]`")]
    Version,
}

fn fault(error: &serde_json::Error) -> &'static str {
    match error.classify() {
        Category::Data => "a field is missing, or not of its type",
        Category::Syntax => "no JSON",
        Category::Eof | Category::Io => "it breaks off",
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Review {
    api_version: String,
    kind: String,
    request: Request,
}

/// What counts of a request.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    uid: String,
    #[serde(default)]
    operation: String,
    /// `status` and others; empty where the object itself is meant.
    #[serde(default)]
    sub_resource: Option<String>,
    /// For the log.
    #[serde(default)]
    namespace: String,
    /// For the log.
    #[serde(default)]
    dry_run: bool,
    /// Nothing where it is deleted.
    #[serde(default)]
    object: Value,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    api_version: &'static str,
    kind: &'static str,
    response: Response,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Response {
    uid: String,
    allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

/// What `kubectl` shows to whoever is refused.
#[derive(Debug, Serialize)]
struct Status {
    code: u16,
    reason: &'static str,
    message: String,
}

/// Answers a review: the bytes of the answer, and what became of it.
///
/// # Errors
/// Where what came is no review. A pod with mistakes is one that is not allowed, with what is wrong.
pub fn review(body: &[u8], defaults: &Defaults) -> Result<(Vec<u8>, Outcome), Error> {
    let Review { api_version, kind, request } = serde_json::from_slice(body)?;
    if (api_version.as_str(), kind.as_str()) != (VERSION, KIND) {
        return Err(Error::Version);
    }
    let response = respond(request, defaults)?;
    let outcome = match (response.allowed, &response.patch) {
        (false, _) => Outcome::Refused,
        (true, None) => Outcome::Skipped,
        (true, Some(_)) => Outcome::Injected,
    };
    Ok((serde_json::to_vec(&Answer { api_version: VERSION, kind: KIND, response })?, outcome))
}

fn respond(request: Request, defaults: &Defaults) -> Result<Response, serde_json::Error> {
    let Request { uid, operation, sub_resource, namespace, dry_run, object } = request;
    // A pod that is there already takes no other containers.
    let is_fixed = object.get("kind").and_then(Value::as_str) == Some("Pod") && operation != "CREATE";
    if is_fixed || sub_resource.is_some_and(|name| !name.is_empty()) {
        return Ok(Response { uid, allowed: true, ..Response::default() });
    }
    match changes(&object, defaults) {
        Ok(Changes { edits, labels, warnings }) => {
            let operations: Vec<Value> = edits.iter().chain(&labels).flat_map(super::edit::Edit::operations).collect();
            let patch = if operations.is_empty() { None } else { Some(STANDARD.encode(serde_json::to_vec(&operations)?)) };
            if patch.is_some() {
                tracing::info!(uid, namespace, dry_run, "injected");
            }
            Ok(Response { uid, allowed: true, patch_type: patch.as_ref().map(|_| "JSONPatch"), patch, warnings, ..Response::default() })
        }
        Err(errors) => {
            let told: Vec<String> = errors.iter().map(ToString::to_string).collect();
            tracing::warn!(uid, namespace, dry_run, mistakes = told.join("; "), "refused");
            let status = Status { code: 422, reason: "Invalid", message: format!("bearerd cannot be put in: {}", told.join("; ")) };
            Ok(Response { uid, status: Some(status), ..Response::default() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn answer(review: &Value) -> Result<Value, String> {
        let defaults = Defaults { image: "bearerd:1".to_owned(), token_service: None };
        let (answer, _) = super::review(review.to_string().as_bytes(), &defaults).map_err(|error| error.to_string())?;
        Ok(serde_json::from_slice(&answer).unwrap())
    }

    fn asking(operation: &str, sub_resource: &str) -> Value {
        let annotations = json!({ "bearerd.dev/inject": "true", "bearerd.dev/config": "c" });
        let object = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "annotations": annotations }, "spec": { "containers": [{ "name": "a" }] } });
        json!({ "apiVersion": VERSION, "kind": KIND, "request": { "uid": "u", "operation": operation, "subResource": sub_resource, "object": object } })
    }

    #[test]
    fn only_pods_that_are_made_are_changed() {
        assert_eq!(answer(&asking("CREATE", "")).unwrap()["response"]["patchType"], "JSONPatch");
        for (operation, sub_resource) in [("UPDATE", ""), ("CREATE", "ephemeralcontainers"), ("CONNECT", "exec")] {
            assert_eq!(answer(&asking(operation, sub_resource)).unwrap()["response"], json!({ "uid": "u", "allowed": true }));
        }
        let deleted = json!({ "apiVersion": VERSION, "kind": KIND, "request": { "uid": "d", "operation": "DELETE", "object": null } });
        assert_eq!(answer(&deleted).unwrap()["response"], json!({ "uid": "d", "allowed": true }));
    }

    #[test]
    fn what_is_no_review_has_no_answer() {
        assert!(answer(&json!({})).unwrap_err().contains("not an AdmissionReview"));
        let mut old = asking("CREATE", "");
        old["apiVersion"] = "admission.k8s.io/v1beta1".into();
        assert!(answer(&old).unwrap_err().contains("admissionReviewVersions"));
    }

    proptest! {
        #[test]
        fn no_body_panics(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = review(&body, &Defaults { image: String::new(), token_service: None });
        }
    }
}
