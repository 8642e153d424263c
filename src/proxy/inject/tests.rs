//! Units of what upstreams see.

use super::*;
use proptest::prelude::*;

fn stripped(target: &str) -> String {
    let mut request = RequestHeader::build("GET", target.as_bytes(), None).unwrap();
    strip_query(&mut request, &["api_key".to_owned()]).unwrap();
    String::from_utf8(request.raw_path().to_vec()).unwrap()
}

#[test]
fn the_query_loses_the_credential_and_nothing_else() {
    for (target, expected) in [
        ("/a?x=1&api_key=k&y=%20", "/a?x=1&y=%20"),
        ("/a?api_key=k", "/a"),
        ("/a?API%5Fkey=k&api_key=k;z", "/a?z"),
        ("/a?x=1;api_key=k&y", "/a?x=1&y"),
        ("/a?x;y&z", "/a?x;y&z"),
        ("/a?api_keys=1", "/a?api_keys=1"),
        ("/a", "/a"),
        ("/a?", "/a?"),
        ("http://h/a?api_key=k", "http://h/a"),
    ] {
        assert_eq!(stripped(target), expected, "{target}");
    }
}

#[test]
fn cve_2025_64484_aliases_are_one_name() {
    let mut names = Names::default();
    names.insert("X-API-Key");
    for alias in ["x-api-key", "x_api_key", "x.api.key", "x-api_key", "x~api!key"] {
        assert!(names.contains(alias), "{alias}");
    }
    for other in ["xapikey", "x-api-keys", "y-api-key", "x-apiikey"] {
        assert!(!names.contains(other), "{other}");
    }
}

#[test]
fn however_many_managed_names_come_none_stays_and_others_do() {
    let mut managed = Managed::new();
    let mut request = RequestHeader::build("GET", b"/", None).unwrap();
    for number in 0..20 {
        managed.headers.insert(&format!("x-managed-{number}"));
        request.append_header(format!("x-managed-{number}"), "canary").unwrap();
        request.append_header(format!("x-other-{number}"), "kept").unwrap();
    }
    strip_headers(&mut request, &managed, &Names::default(), false);
    assert_eq!((request.headers.len(), request.headers.values().filter(|value| *value == "kept").count()), (20, 20));
}

#[test]
fn a_trusted_peers_word_of_who_called_stays() {
    let mut managed = Managed::new();
    managed.headers.insert("x-api-key");
    for (trusted, left) in [(true, &["x-forwarded-for", "x-other"][..]), (false, &["x-other"])] {
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        for name in ["x-api-key", "x-forwarded-for", "x-other", "te"] {
            request.append_header(name, "x").unwrap();
        }
        strip_headers(&mut request, &managed, &Names::default(), trusted);
        let mut names: Vec<_> = request.headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, left);
    }
}

#[test]
fn a_section_has_as_many_bytes_as_its_text() {
    let mut request = RequestHeader::build("DELETE", b"/a?b", None).unwrap();
    request.append_header("host", "app.test").unwrap();
    request.append_header("x-a", "b").unwrap();
    assert_eq!(section_bytes(&request), "DELETE /a?b HTTP/1.1\r\nhost: app.test\r\nx-a: b\r\n\r\n".len());
}

fn request(version: Version, target: &str, lines: &[(&'static str, &str)]) -> RequestHeader {
    let mut request = RequestHeader::build("GET", target.as_bytes(), None).unwrap();
    request.set_version(version);
    for (name, value) in lines {
        request.append_header(*name, *value).unwrap();
    }
    request
}

fn applied(mut request: RequestHeader) -> RequestHeader {
    let caller = Caller::new(IpAddr::from([127, 0, 0, 1]), false, false);
    let request_id = HeaderValue::from_static("id");
    let version = request.version;
    let facts = Facts {
        caller: &caller,
        request_id: &request_id,
        token: None,
        compressed: false,
        told: &[],
        host: None,
        certificate: None,
        version,
    };
    apply(&mut request, &Managed::new(), &Names::default(), &facts).unwrap();
    request
}

#[test]
fn te_says_trailers_where_the_caller_said_so_on_http_2_alone() {
    for (version, te, expected) in [
        (Version::HTTP_2, "trailers", Some("trailers")),
        (Version::HTTP_2, "gzip", None),
        (Version::HTTP_11, "trailers", None),
        (Version::HTTP_11, "gzip", None),
    ] {
        let request = applied(request(version, "/", &[("host", "a"), ("te", te)]));
        assert_eq!(request.headers.get(TE).map(HeaderValue::as_bytes), expected.map(str::as_bytes), "{version:?} {te}");
    }
}

#[test]
fn a_url_becomes_the_path_in_it_and_other_targets_stay() {
    for (target, expected) in [("http://a/b?c", "/b?c"), ("/b//c?http://a", "/b//c?http://a"), ("*", "*")] {
        assert_eq!(applied(request(Version::HTTP_11, target, &[("host", "a")])).raw_path(), expected.as_bytes());
    }
}

#[test]
fn in_shadow_mode_the_form_of_the_target_and_the_host_alone_change() {
    let mut shadowed = request(Version::HTTP_11, "http://a/b", &[("host", "a"), ("x-api-key", "k")]);
    pass_on(&mut shadowed, Some(&HeaderValue::from_static("upstream"))).unwrap();
    assert_eq!(
        (shadowed.raw_path(), &shadowed.headers[HOST], &shadowed.headers["x-api-key"]),
        (&b"/b"[..], &HeaderValue::from_static("upstream"), &HeaderValue::from_static("k"))
    );
}

proptest! {
    #[test]
    fn no_spelling_of_a_managed_name_survives(flips in proptest::collection::vec(any::<bool>(), 9), glue in "[-_.~!#$%&'*+^`|]{2}") {
        let spelled: String = "x?api?key".chars().zip(flips).map(|(letter, flip)| if flip { letter.to_ascii_uppercase() } else { letter }).collect();
        let mut glue = glue.chars();
        let spelled: String = spelled.chars().map(|letter| if letter == '?' { glue.next().unwrap() } else { letter }).collect();
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        request.append_header(spelled.clone(), "canary").unwrap();
        let mut managed = Managed::new();
        managed.headers.insert("x-api-key");
        strip_headers(&mut request, &managed, &Names::default(), false);
        prop_assert!(request.headers.is_empty(), "{} survived", spelled);
    }
}
