//! Mistakes in a configuration: what stands there is not told, where it may be a secret.

use super::canary::{assert_clean, secret};
use crate::support::process::{Process, on_free_ports};

#[tokio::test]
async fn a_secret_in_the_wrong_place_of_a_configuration_is_not_shown() {
    let base = "token_services: { default: { kind: iap, url: 'https://tokens.example.com' } }
upstreams: { app: { servers: ['127.0.0.1:3000'] } }
routes: [{ upstream: app }]
";
    let wrong = [
        base.replace("'https://tokens.example.com'", "\"${SECRET}\""),
        base.replace("'https://tokens.example.com'", "\"https://u:${SECRET}@tokens.example.com\""),
        base.replace("kind: iap", "kind: \"${SECRET}\""),
        base.replace("'127.0.0.1:3000'", "\"${SECRET}\""),
        base.replace("upstream: app", "upstream: \"${SECRET}\""),
        base.replace("upstream: app", "upstream: app, auth: \"${SECRET}\""),
        base.replace("upstream: app", "upstream: app, credentials: [\"${SECRET}\"]"),
        base.replace("upstream: app", "upstream: app, credentials: [{ api_key: { header: \"${SECRET}\" } }]"),
        base.replace("upstream: app", "upstream: app, match: { path: \"${SECRET}\" }"),
        base.replace("upstream: app", "upstream: app, match: { methods: [\"${SECRET} x\"] }"),
        base.replace("upstream: app", "upstream: app, token: { service: \"${SECRET}\" }"),
        base.replace("upstream: app", "upstream: app, headers: { set: { X-A: \"${SECRET}\\n\" } }"),
        base.replace("upstream: app", "upstream: app, session_lifetime: \"${SECRET}\""),
        format!("{base}cache: {{ max_tokens: \"${{SECRET}}\" }}\n"),
        format!("{base}workers: \"${{SECRET}}\"\n"),
        format!("{base}logging: {{ level: \"${{SECRET}}\", access: \"${{SECRET}}\" }}\n"),
        format!("{base}shutdown: {{ delay: \"${{SECRET}}\" }}\n"),
        format!("{base}admin: {{ address: \"${{SECRET}}\" }}\n"),
        format!("{base}listeners: [{{ trusted_peers: [\"${{SECRET}}\"], limits: {{ header_bytes: \"${{SECRET}}\" }} }}]\n"),
    ];
    for configuration in wrong {
        for arguments in
            [&["check", "-c", "bearerd.yaml"][..], &["check", "--format", "json", "-c", "bearerd.yaml"], &["run", "-c", "bearerd.yaml"]]
        {
            let directory = tempfile::tempdir().unwrap();
            std::fs::write(directory.path().join("bearerd.yaml"), on_free_ports(&configuration)).unwrap();
            let ended = Process::start_with(arguments, &[("SECRET", &secret("env"))], directory).ended().await;
            assert_eq!(ended.code(), 78, "{configuration}");
            assert_clean(&format!("{arguments:?} of {configuration}"), &format!("{:?}{:?}", ended.stdout, ended.stderr));
        }
    }
}
