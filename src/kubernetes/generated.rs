//! The configuration of a sidecar whose pod names no ConfigMap.

use url::Url;

use super::annotations::{Source, Wanted};

/// Where the sidecar finds the key of its own.
pub const KEY_FILE: &str = "/secrets/api-key";

/// The text; none where a ConfigMap has it. `ends` says whether the pod ends by itself.
pub fn configuration(wanted: &Wanted, ends: bool) -> Option<String> {
    let port = wanted.port;
    let (listener, token_service, rest) = match &wanted.source {
        Source::ConfigMap(_) => return None,
        Source::Inbound { token_service, upstream_port } => (
            format!("address: 0.0.0.0:{port}"),
            token_service,
            format!("upstreams:\n  app: {{ servers: [\"127.0.0.1:{upstream_port}\"] }}\nroutes:\n  - {{ name: app, upstream: app }}\n"),
        ),
        // On loopback: whoever reaches this listener has the token.
        Source::Outbound { token_service, upstream } => (
            format!("address: 127.0.0.1:{port}"),
            token_service,
            format!(
                "upstreams:\n  platform: {}\nroutes:\n  - name: platform\n    upstream: platform\n    credentials: [{{ mounted: {{ file: {KEY_FILE}, revoke_on_change: true }} }}]\n    keep_warm: true\n",
                platform(upstream)
            ),
        ),
        Source::Decision { token_service } => {
            (format!("address: 127.0.0.1:{port}, mode: decision"), token_service, "routes:\n  - { name: all }\n".to_owned())
        }
    };
    // A native sidecar is told to stop once the app has stopped, and no endpoint leads to a Job's pod: nobody is left to wait for.
    let delay = if wanted.native || ends { "0s" } else { "5s" };
    Some(format!(
        "listeners:\n  - {{ {listener} }}\ntoken_services:\n  default: {{ kind: iap, url: {} }}\n{rest}shutdown: {{ delay: {delay}, drain_timeout: 20s }}\n",
        quoted(token_service.as_str().trim_end_matches('/'))
    ))
}

fn platform(upstream: &Url) -> String {
    let host = upstream.host_str().unwrap_or_default();
    let server = quoted(&format!("{host}:{}", upstream.port_or_known_default().unwrap_or(443)));
    let tls = if upstream.scheme() == "https" { ", tls: {}" } else { "" };
    format!("{{ servers: [{server}], host: upstream{tls} }}")
}

/// In quotes as YAML and JSON have them, and so that no `$` begins a variable.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text.replace('$', "$$")).to_string()
}
