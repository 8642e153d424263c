//! Claims in, a verdict and header values out: what a route requires of a token, and what its upstream is told of the holder. Pure.
//!
//! A token's claims never change, nor does a route's policy: so each is judged by the other once, and the verdict is kept with the token. Whoever shares
//! the token through another route is judged by that route's policy (CVE-2026-33496).

mod condition;
mod headers;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::HeaderValue;

pub use condition::{BadGlob, Condition, Glob};
pub use headers::{Circumstances, Rendered};

use crate::claims::{Claims, Path};
use crate::refusal::{CHALLENGE, Reason, Refusal};
use crate::template::Template;

/// What one route requires and tells.
pub struct Policy {
    /// Unlike any other policy's of this process.
    id: usize,
    scopes: Vec<String>,
    claims: Vec<(Path, Condition)>,
    /// What the caller's certificate must say; one must be shown where this is not empty.
    certificate: Vec<(Path, Condition)>,
    headers: Vec<(&'static str, Template)>,
    /// The route's name, for templates and the log.
    route: String,
    /// Nothing in it depends on who calls.
    is_same_for_all: bool,
    /// What is told where there is no token.
    without_token: Vec<(&'static str, Rendered)>,
}

/// What came of a policy and a token's claims.
pub struct Judgement {
    /// Why the holder may not; nothing where it may.
    pub denial: Option<Refusal>,
    /// What the upstream is told of the holder.
    pub headers: Vec<(&'static str, Rendered)>,
}

impl Policy {
    /// A policy for the route of this name.
    pub fn new(route: &str, scopes: Vec<String>, claims: Vec<(Path, Condition)>, headers: Vec<(&'static str, Template)>) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let is_same_for_all = scopes.is_empty() && claims.is_empty() && !headers.iter().any(|(_, template)| template.has_claims());
        let mut policy = Self {
            id,
            scopes,
            claims,
            certificate: Vec::new(),
            headers,
            route: route.to_owned(),
            is_same_for_all,
            without_token: Vec::new(),
        };
        policy.without_token = policy.told(&Claims::default());
        policy
    }

    /// The same, for callers who show a certificate that says this.
    #[must_use]
    pub fn with_certificate(mut self, certificate: Vec<(Path, Condition)>) -> Self {
        self.certificate = certificate;
        self
    }

    /// Why a caller with this certificate, or without one, may not use the route, whatever credential it brings.
    pub fn refuses_certificate(&self, shown: Option<&Claims>) -> Option<Refusal> {
        if self.certificate.is_empty() {
            return None;
        }
        let Some(shown) = shown else {
            return Some(Refusal::new(Reason::InsufficientScope, "This route is for callers who show a client certificate."));
        };
        let (path, _) = self.certificate.iter().find(|(path, condition)| !condition.holds(path, shown))?;
        Some(Refusal::new(Reason::InsufficientScope, format!("The `{path}` of the client certificate is not what this route requires.")))
    }

    /// Whether nothing in it depends on who calls: then no claims need to be read.
    pub const fn is_same_for_all(&self) -> bool {
        self.is_same_for_all
    }

    /// What the upstream is told where there is no token.
    pub fn without_token(&self) -> &[(&'static str, Rendered)] {
        &self.without_token
    }

    /// Judges the holder of these claims.
    pub fn judge(&self, claims: &Claims) -> Judgement {
        let denial = self.denial(claims);
        let headers = if denial.is_none() { self.told(claims) } else { Vec::new() };
        Judgement { denial, headers }
    }

    fn denial(&self, claims: &Claims) -> Option<Refusal> {
        if let Err(missing) = claims.has_scopes(&self.scopes) {
            return Some(self.insufficient(format!("The token lacks the scope `{missing}`, which this route requires.")));
        }
        let unmet = self.claims.iter().find(|(path, condition)| !condition.holds(path, claims));
        unmet.map(|(path, _)| self.insufficient(format!("The claim `{path}` of the token is not what this route requires.")))
    }

    /// RFC 6750 section 3.1: `scope` names what is needed.
    fn insufficient(&self, detail: String) -> Refusal {
        let scope = if self.scopes.is_empty() { String::new() } else { format!(", scope=\"{}\"", self.scopes.join(" ")) };
        let challenge = HeaderValue::try_from(format!("Bearer realm=\"bearerd\", error=\"insufficient_scope\"{scope}"));
        let refusal = Refusal::new(Reason::InsufficientScope, detail);
        match challenge {
            Ok(challenge) => refusal.header(CHALLENGE, challenge),
            Err(_) => refusal,
        }
    }

    fn told(&self, claims: &Claims) -> Vec<(&'static str, Rendered)> {
        let render = |(name, template): &(&'static str, Template)| match headers::render(template, &self.route, claims) {
            Ok(rendered) => rendered.map(|rendered| (*name, rendered)),
            Err(headers::Unfit(path)) => {
                tracing::warn!(route = %self.route, header = name, claim = %path, "a claim cannot be told in a header; the header is left out");
                None
            }
        };
        self.headers.iter().filter_map(render).collect()
    }
}

/// The verdicts on one token, by policy: a list that only grows, at most by one for each policy. Reading it takes no lock.
#[derive(Default)]
pub struct Judged(OnceLock<Box<Verdict>>);

struct Verdict {
    policy: usize,
    judgement: Judgement,
    next: Judged,
}

/// One after the other: a token that outlives many reloads has many verdicts, and a chain of drops would use up the stack.
impl Drop for Judged {
    fn drop(&mut self) {
        let mut next = self.0.take();
        while let Some(mut verdict) = next {
            next = verdict.next.0.take();
        }
    }
}

impl Judged {
    /// The verdict of `policy`, made with `claims` the first time.
    pub fn by(&self, policy: &Policy, claims: impl FnOnce() -> Claims) -> &Judgement {
        let mut place = self;
        while let Some(verdict) = place.0.get() {
            if verdict.policy == policy.id {
                return &verdict.judgement;
            }
            place = &verdict.next;
        }
        let mut fresh = Box::new(Verdict { policy: policy.id, judgement: policy.judge(&claims()), next: Self::default() });
        loop {
            // Another request may have put its own there meanwhile: for this policy, which is as good, or for another, behind which ours goes.
            let mut ours = Some(fresh);
            let there = place.0.get_or_init(|| ours.take().unwrap_or_else(|| unreachable!("called once")));
            match ours {
                None => return &there.judgement,
                Some(_) if there.policy == policy.id => return &there.judgement,
                Some(left) => fresh = left,
            }
            place = &there.next;
        }
    }
}

impl std::fmt::Debug for Judged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Judged")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Map, Value, json};

    fn policy(scopes: &[&str], claims: Vec<(&str, Condition)>) -> Policy {
        let claims = claims.into_iter().map(|(path, condition)| (Path::parse(path).unwrap(), condition)).collect();
        Policy::new("r", scopes.iter().map(|scope| (*scope).to_owned()).collect(), claims, Vec::new())
    }

    fn claims(value: &Value) -> Claims {
        Claims::parse(value.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn a_denial_names_what_is_missing() {
        let policy = policy(&["A", "B"], vec![("tid", Condition::Equals(json!("acme")))]);
        let denial = policy.judge(&claims(&json!({ "scope": "A" }))).denial.unwrap();
        assert!(denial.detail.contains("`B`"), "{}", denial.detail);
        let challenge = denial.headers().into_iter().find(|(name, _)| *name == "WWW-Authenticate").unwrap().1;
        assert_eq!(challenge, "Bearer realm=\"bearerd\", error=\"insufficient_scope\", scope=\"A B\"");
        let denial = policy.judge(&claims(&json!({ "scope": "A,B", "tid": "other" }))).denial.unwrap();
        assert!(denial.detail.contains("`tid`") && !denial.detail.contains("acme"), "{}", denial.detail);
        assert!(policy.judge(&claims(&json!({ "scope": "A,B", "tid": "acme" }))).denial.is_none());
    }

    #[test]
    fn verdicts_of_several_policies_are_kept_apart() {
        let (one, other) = (policy(&["A"], Vec::new()), policy(&["B"], Vec::new()));
        let judged = Judged::default();
        for _ in 0..2 {
            assert!(judged.by(&one, || claims(&json!({ "scope": "A" }))).denial.is_none());
            assert!(judged.by(&other, || claims(&json!({ "scope": "A" }))).denial.is_some());
        }
    }

    /// While one verdict is made, another request may put its own where that was to go.
    #[test]
    fn cve_2026_33496_a_verdict_that_comes_between_is_not_taken_for_another_policys() {
        let (one, other) = (policy(&["A"], Vec::new()), policy(&["B"], Vec::new()));
        let judged = Judged::default();
        let scoped = |scope: &str| claims(&json!({ "scope": scope }));
        let verdict = judged.by(&one, || {
            assert!(judged.by(&other, || scoped("B")).denial.is_none());
            scoped("B")
        });
        assert!(verdict.denial.is_some());
        let judged = Judged::default();
        let mut first: Option<*const Judgement> = None;
        let verdict = judged.by(&one, || {
            first = Some(judged.by(&one, || scoped("A")));
            scoped("A")
        });
        assert_eq!(first, Some(std::ptr::from_ref(verdict)), "one policy has one verdict");
    }

    #[test]
    fn a_token_that_outlives_many_reloads_is_dropped_without_using_up_the_stack() {
        let judged = Judged::default();
        // Appended at the end, so that making the chain does not walk it again and again.
        let mut last = &judged;
        for id in 0..200_000 {
            let judgement = Judgement { denial: None, headers: Vec::new() };
            let verdict = Box::new(Verdict { policy: id, judgement, next: Judged::default() });
            last = &last.0.get_or_init(|| verdict).next;
        }
        drop(judged);
    }

    #[test]
    fn many_at_once_agree() {
        let policies: Vec<Policy> = (0..8).map(|n| policy(if n % 2 == 0 { &["A"] } else { &["B"] }, Vec::new())).collect();
        let judged = Judged::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for (n, policy) in policies.iter().enumerate() {
                        assert_eq!(judged.by(policy, || claims(&json!({ "scope": "A" }))).denial.is_some(), n % 2 == 1);
                    }
                });
            }
        });
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            "\\PC{0,12}".prop_map(Value::from),
            "(acme|A|B|A,B|admin)".prop_map(Value::from)
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map("[a-z]{1,4}", inner, 0..4).prop_map(|map| Value::Object(map.into_iter().collect()))
            ]
        })
    }

    fn any_claims() -> impl Strategy<Value = Map<String, Value>> {
        proptest::collection::btree_map("(scope|scp|tid|acl|mem|sub|x)", any_value(), 0..7).prop_map(|map| map.into_iter().collect())
    }

    fn strict() -> Policy {
        let one_of = Condition::OneOf(vec![json!("acme"), json!(7)]);
        policy(&["A"], vec![("tid", one_of), ("acl", Condition::Equals(json!("admin"))), ("x.y", Condition::Present(true))])
    }

    proptest! {
        #[test]
        fn whatever_the_claims_there_is_a_verdict(members in any_claims()) {
            let template = Template::parse("{claims.sub}-{claims.acl}{claims.mem}").unwrap();
            let policy = Policy::new("r", vec!["A".into()], vec![(Path::parse("tid").unwrap(), Condition::Present(true))], vec![("X-A", template)]);
            let _ = policy.judge(&claims(&Value::Object(members)));
        }

        /// Spaces between members and other names around them change nothing.
        #[test]
        fn what_is_denied_stays_denied_in_another_order_and_with_more_around_it(members in any_claims(), padding in "[ \\n\\t]{0,9}", extra in proptest::collection::btree_map("pad[a-z]{1,5}", any_value(), 0..4)) {
            let plain = strict().judge(&claims(&Value::Object(members.clone()))).denial.is_some();
            let mut texts: Vec<String> = members.iter().chain(&extra).map(|(name, value)| format!("{padding}{}{padding}:{padding}{value}", json!(name))).collect();
            texts.reverse();
            let padded = Claims::parse(format!("{padding}{{{}}}{padding}", texts.join(",")).as_bytes()).unwrap();
            prop_assert_eq!(strict().judge(&padded).denial.is_some(), plain);
        }
    }
}
