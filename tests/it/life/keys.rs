//! What a token is kept under: a change in anything that it depends on is another token.
//!
//! CVE-2021-32701, CVE-2026-19202, CVE-2026-35039, CVE-2026-97468: a key that leaves something out, or joins its parts so that two lists look the same.

use bearerd::credential::{Kind, Presented};
use bearerd::exchange::{Details, Service, Terms};
use bearerd::token_service::TokenParams;
use proptest::prelude::*;
use std::sync::Arc;

use super::stand::{SECOND, Stand, bounds, terms};

/// All that a token depends on, from so few letters that near misses are common.
type Tuple = (u8, [Option<String>; 5], [Vec<String>; 3], bool, u8, u8, String);

fn tuple() -> impl Strategy<Value = Tuple> {
    let text = || proptest::option::of("[ab:,]{0,2}");
    let list = || proptest::collection::vec("[ab:,]{0,2}", 0..3);
    let texts = [text(), text(), text(), text(), text()];
    (0u8..3, texts, [list(), list(), list()], any::<bool>(), 0u8..3, 0u8..3, "[abc:]{1,4}")
}

fn key(stand: &Stand, services: &[Arc<Service>], tuple: &Tuple) -> [u8; 32] {
    let (service, [client_id, domain, data, cwid, cid], [scopes, acl, mem], return_session_token, details, kind, text) = tuple.clone();
    let params = TokenParams { client_id, domain, data, scopes, acl, mem, cwid, cid, return_session_token };
    let details = [Details::Off, Details::OnMint, Details::Every(60 * SECOND)][usize::from(details)];
    let grant = stand.exchange.grant("api", &services[usize::from(service)], Terms { params, details, ..terms() });
    let kind = [Kind::ApiKey, Kind::Basic, Kind::SessionToken][usize::from(kind)];
    grant.key(&Presented { kind, value: text.into() }).to_bytes()
}

#[test]
fn tuples_that_differ_never_share_a_token() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let _entered = runtime.enter();
    let stand = Stand::new(terms());
    let service = |kind, url: &str| Arc::new(Service::new("same-name", kind, url, stand.script.clone(), bounds(), &stand.metrics));
    let services = [service("iap", "http://a"), service("iap", "http://b"), service("embedded", "http://a")];
    let of = |kind, text: &str| key(&stand, &services, &(0, Default::default(), Default::default(), false, 0, kind, text.to_owned()));
    assert_ne!(of(1, "a:bc"), of(1, "ab:c"));
    assert_ne!(of(0, "a"), of(2, "a"));
    proptest!(|(one in tuple(), other in tuple())| {
        prop_assert_eq!(one == other, key(&stand, &services, &one) == key(&stand, &services, &other));
        prop_assert_eq!(key(&stand, &services, &one), key(&stand, &services, &one));
    });
}
