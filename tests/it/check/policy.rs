//! What a route demands of callers: mistakes in it, and what is likely not meant.

use super::*;

#[test]
fn what_is_demanded_of_callers() {
    assert_route(
        r#"headers: { set: { X-User: "{sub}" } }"#,
        &[(
            6,
            46,
            r#""{sub}""#,
            "`{sub}` cannot be filled in: nothing is known by the name `sub`",
            "write `{claims.NAME}`, `{client_certificate.NAME}`, `{route}`, `{peer}` or `{request_id}`",
        )],
    );
    assert_route(
        r#"headers: { set: { X-User: "{claims.a..b}" } }"#,
        &[(
            6,
            46,
            r#""{claims.a..b}""#,
            "`{claims.a..b}` cannot be filled in: `a..b` is no path of a claim: a name is empty",
            "write `{claims.NAME}`, `{client_certificate.NAME}`, `{route}`, `{peer}` or `{request_id}`",
        )],
    );
    assert_route(
        r#"headers: { set: { X-User: "{claims.sub" } }"#,
        &[(
            6,
            46,
            r#""{claims.sub""#,
            "`{claims.sub` cannot be filled in: a brace stands alone: close it, or write it twice where a brace is meant",
            "write `{claims.NAME}`, `{client_certificate.NAME}`, `{route}`, `{peer}` or `{request_id}`",
        )],
    );
    assert_route(
        r#"auth: none, headers: { set: { X-User: "{claims.sub}" } }"#,
        &[(
            6,
            58,
            r#""{claims.sub}""#,
            "there is no token whose claims could stand here",
            "write `auth: required`, or leave the claim out",
        )],
    );
    assert_route(
        r#"headers: { response: { set: { Content-Length: "1" } } }"#,
        &[(6, 50, "Content-Length", "the header `Content-Length` cannot be set", "remove it: HTTP itself deals with it")],
    );
    assert_route(
        r#"headers: { response: { set: { X-A: "{claims.sub}" }, remove: [Connection] } }"#,
        &[
            (6, 55, r#""{claims.sub}""#, "claims are not told to callers", "write `{route}`, `{peer}` or `{request_id}`, or a fixed value"),
            (6, 82, "Connection", "the header `Connection` cannot be removed", "remove it from the list: HTTP itself deals with it"),
        ],
    );
    assert_route(
        r#"require: { scopes: ["a b"] }"#,
        &[(6, 40, r#""a b""#, "`a b` is not a scope", "write each scope as an item of its own, without blanks and commas")],
    );
    assert_route(
        r#"require: { claims: { "a..b": x } }"#,
        &[(
            6,
            41,
            r#""a..b""#,
            "`a..b` is not the path of a claim: a name is empty",
            "write one such as `tid`, `realm_access.roles` or `'https://example.com/org'.id`",
        )],
    );
    assert_route(
        "require: { claims: { tid: { persent: true } } }",
        &[(6, 48, "persent", "unknown key `persent`", "did you mean `present`?")],
    );
    assert_route(
        r#"require: { claims: { tid: { present: true, glob: "x" } } }"#,
        &[(6, 63, "glob", "only one of `present`, `equals`, `one_of`, `glob` can be given", "remove the other")],
    );
    assert_route(
        "require: { claims: { tid: [a, [b]] } }",
        &[(6, 50, "[", "`tid[1]` must be `true` or `false` or a whole number or text, not a list", "")],
    );
    assert_route(
        "auth: none, require: { scopes: [A] }",
        &[(6, 32, "require", "`require` does nothing without a token", "remove it, or write `auth: required` and an `upstream`")],
    );
    assert_route(
        "token: { return_session_token: true }, require: { scopes: [A] }",
        &[(
            6,
            59,
            "require",
            "`require` beside `return_session_token` lets nobody in",
            "remove `return_session_token`: a psToken shows no claims",
        )],
    );
    assert_route(
        "validate: { jwt: {} }",
        &[(6, 32, "jwt", "there are no keys to check signatures with", "add `jwks_url: https://...`, or `jwks_file: FILE`")],
    );
    assert_route(
        r#"validate: { jwt: { jwks_url: "tokens.example.com", audiences: [x] } }"#,
        &[(6, 49, r#""tokens.example.com""#, "`tokens.example.com` is a URL without a scheme", "write `https://tokens.example.com`")],
    );
    assert_route(
        r#"validate: { jwt: { jwks_url: "https://a/jwks", algorithms: [HS256], audiences: [x] } }"#,
        &[(6, 80, "HS256", "`HS256` is not a value of `algorithms[0]`", "did you mean `RS256`?")],
    );
    assert_route(
        r#"validate: { jwt: { jwks_url: "https://a/jwks", algorithms: [], audiences: [x] } }"#,
        &[(
            6,
            67,
            "algorithms",
            "`algorithms` is empty",
            "it needs one of `RS256`, `RS384`, `RS512`, `PS256`, `PS384`, `PS512`, `ES256`, `ES384`, `EdDSA`",
        )],
    );
    assert_route(
        "credentials: [jwt], validate: { details: off }",
        &[(
            6,
            20,
            "credentials",
            "nothing checks the JWTs that callers bring",
            "add `validate: { jwt: { jwks_url: ... } }`, or a `details` other than `off`",
        )],
    );
    assert_route("rate_limit: { requests: 0 }", &[(6, 44, "0", "`0` is out of range", "write a number from 1 to 4294967295")]);
    assert_route("rate_limit: { requests: 5, per: 0s }", &[(6, 52, "0s", "`per` is too short", "write at least `1ms`")]);
    assert_route(
        "auth: none, rate_limit: { requests: 5 }",
        &[(6, 32, "rate_limit", "the route looks for no credential to count by", "write `by: peer` or `by: route`")],
    );
    assert_route(
        r#"match: { path_regex: "/(" }"#,
        &[(6, 41, r#""/(""#, "`/(` is not a regular expression: unclosed group", "write one such as `/users/[0-9]+`")],
    );
    assert_route(
        r#"match: { path_regex: "/a", path: /b }"#,
        &[(
            6,
            29,
            "path_regex",
            "`path` and `path_regex` together",
            "keep one: `path` is the whole path, `path_prefix` its first segments, `path_regex` what the whole path must fit",
        )],
    );
    assert_route("enforce: maybe", &[(6, 29, "maybe", "`enforce` must be `true` or `false`, not `maybe`", "")]);
}

#[test]
fn a_key_set_file_is_looked_into() {
    for (content, expected) in [
        ("{}", "is not a JWK Set"),
        ("{\"keys\":[]}", "has no key that checks signatures"),
        ("{\"keys\":[{\"kty\":\"oct\",\"k\":\"Y2FuYXJ5\"}]}", "has no key that checks signatures"),
    ] {
        let folder =
            folder_with(&format!("{BASE}routes: [{{ upstream: app, validate: {{ jwt: {{ jwks_file: keys.json, audiences: [x] }} }} }}]\n"));
        fs::write(folder.path().join("keys.json"), content).unwrap();
        let output = check_in(folder.path(), &["-c", "bearerd.yaml"], &[]);
        assert_eq!(output.status.code(), Some(78), "{content}");
        assert!(stderr(&output).contains(expected) && !stderr(&output).contains("Y2FuYXJ5"), "{}", stderr(&output));
    }
}

#[test]
fn what_is_likely_not_meant_is_a_warning() {
    let key_set = "jwks_url: \"https://a/jwks\"";
    for (route, expected) in [
        (format!("validate: {{ jwt: {{ {key_set} }} }}"), "any token that these keys signed is taken"),
        (
            format!("credentials: [api_key], validate: {{ jwt: {{ {key_set}, audiences: [x] }} }}"),
            "`jwt` is not among the route's `credentials`",
        ),
        ("enforce: false".to_owned(), "shadow mode: nobody is refused on this route"),
    ] {
        let output = check(&format!("{BASE}routes:\n - {{upstream: app, {route}}}\n"), &[]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        assert!(stderr(&output).starts_with("warning") && stderr(&output).contains(expected), "{}", stderr(&output));
    }
}

/// Nothing of the token service is needed where signatures alone decide.
#[test]
fn a_route_for_jwts_alone_needs_no_token_service() {
    let text = "upstreams: { app: { servers: [\"a:1\"] } }\nroutes: [{ upstream: app, credentials: [jwt], validate: { jwt: { jwks_url: \"https://a/jwks\", audiences: [x] } } }]\n";
    let output = check(text, &[]);
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""));
}

#[test]
fn a_listener_that_only_decides_needs_no_upstream_and_others_have_no_say_in_decisions() {
    let deciding = "listeners: [{ address: 127.0.0.1:0, mode: decision }]\ntoken_services:\n  default: { kind: iap, url: \"https://tokens.example.com\" }\nroutes: [{}]\n";
    assert_eq!(super::check(deciding, &[]).status.code(), Some(0), "{}", super::stderr(&super::check(deciding, &[])));
    let mixed = deciding.replace("mode: decision }", "mode: decision }, { address: 127.0.0.1:1, decision_status: nginx }");
    let told = super::stderr(&super::check(&mixed, &[]));
    assert!(told.contains("the route has nowhere to go") && told.contains("add `mode: decision`, or remove it"), "{told}");
}
