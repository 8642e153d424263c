//! Names that do not resolve, of the upstream and of the token service.

use std::fs;

use rustix::process::Signal;
use serde_json::Value;

use super::stand::{Seen, ask, refused, unavailable};
use crate::support::admin;
use crate::support::client::get;
use crate::support::process::{Process, on_free_ports};
use crate::support::stage::surroundings;
use crate::support::upstream::Reply;

/// One after the other. No label may be as long as the service's, so no name server is asked for that one.
#[tokio::test]
async fn names_that_do_not_resolve_are_outages_and_their_mending_is_noticed() {
    let (service, upstream) = surroundings().await;
    upstream.reply_always(Reply::Mirror(0));
    let nowhere = format!("{}.invalid", "a".repeat(64));
    let text = |service: &str, upstream: &str| {
        on_free_ports(&format!(
            "token_services: {{ default: {{ kind: iap, url: \"http://{service}\" }} }}\nupstreams: {{ app: {{ servers: [\"{upstream}\"] }} }}\n\
             logging: {{ access: false }}\nshutdown: {{ delay: 0s }}\nroutes: [{{ name: app, upstream: app, validate: {{ details: off }} }}]\n"
        ))
    };
    let (real_service, real_upstream) = (service.address().to_string(), upstream.address().to_string());
    let process = Process::run(&text(&format!("{nowhere}:1"), &real_upstream));
    let addresses = process.addresses().await;
    let reload = async |text: String| {
        fs::write(process.directory().join("next"), text).unwrap();
        fs::rename(process.directory().join("next"), process.directory().join("bearerd.yaml")).unwrap();
        assert_eq!(admin::ask(addresses.admin, "POST /api/reload", "X-Bearerd-Admin: 1\r\n", &Value::Null).await.status, 200);
    };
    let seen = async |key: &'static str| ask(addresses.callers[0], key).await;
    assert_eq!(seen("cached").await, unavailable());
    reload(text(&real_service, &real_upstream)).await;
    assert_eq!(seen("cached").await, Seen::Served);
    reload(text(&real_service, "nowhere.invalid:1")).await;
    assert_eq!(seen("cached").await, refused(502, "upstream_connect"));
    assert_eq!(get(addresses.metrics, "/readyz", &[]).await.status, 200);
    reload(text(&real_service, &real_upstream)).await;
    assert_eq!([seen("cached").await, seen("new").await], [Seen::Served, Seen::Served]);
    process.signal(Signal::TERM);
    assert_eq!(process.ended().await.code(), 0);
}
