use super::*;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use jsonwebtoken::EncodingKey;
use proptest::prelude::*;
use serde_json::json;

const ALL: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// A P-256 key of our own, with what it publishes.
struct Signer {
    private: EncodingKey,
    public: Value,
}

impl Signer {
    fn new(kid: &str) -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let private = EncodingKey::from_ec_der(pair.to_pkcs8v1().unwrap().as_ref());
        let mut public = serde_json::to_value(Jwk::from_encoding_key(&private, Algorithm::ES256).unwrap()).unwrap();
        public["kid"] = json!(kid);
        public.as_object_mut().unwrap().remove("alg");
        Self { private, public }
    }

    fn sign(&self, header: &str, payload: &str) -> String {
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
        let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), &self.private, Algorithm::ES256).unwrap();
        format!("{signed}.{signature}")
    }

    fn set(&self) -> KeySet {
        set(std::slice::from_ref(&self.public))
    }
}

fn set(keys: &[Value]) -> KeySet {
    KeySet::parse(json!({ "keys": keys }).to_string().as_bytes()).unwrap()
}

fn verify(set: &KeySet, token: &str) -> Result<Claims, Fault> {
    set.verify(token, &[Algorithm::ES256])
}

const ES256: &str = r#"{"alg":"ES256","kid":"k1"}"#;

const RFC_7515_PAYLOAD: &str = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";

#[test]
fn rfc_7515_a_2_rs256() {
    let keys = set(&[json!({
        "kty": "RSA", "e": "AQAB",
        "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ",
    })]);
    let token = format!(
        "eyJhbGciOiJSUzI1NiJ9.{RFC_7515_PAYLOAD}.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw"
    );
    assert_eq!(keys.verify(&token, &ALL).ok().and_then(|claims| claims.member("iss").cloned()), Some(json!("joe")));
    assert_eq!(keys.verify(&token, &[Algorithm::PS256]).err(), Some(Fault::Algorithm));
}

#[test]
fn rfc_7515_a_3_es256() {
    let keys = set(&[json!({
        "kty": "EC", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
    })]);
    let token = format!(
        "eyJhbGciOiJFUzI1NiJ9.{RFC_7515_PAYLOAD}.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"
    );
    assert!(keys.verify(&token, &ALL).is_ok());
}

/// Its payload is no JSON: that the signature is right shows in what is complained about.
#[test]
fn rfc_8037_a_4_eddsa_and_rfc_7520_4_1_rs256() {
    let ed25519 = json!({ "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" });
    let token = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
    assert_eq!(set(&[ed25519]).verify(token, &ALL).err(), Some(Fault::Malformed));
    let rsa = json!({
        "kty": "RSA", "kid": "bilbo.baggins@hobbiton.example", "use": "sig", "e": "AQAB",
        "n": "n4EPtAOCc9AlkeQHPzHStgAbgs7bTZLwUBZdR8_KuKPEHLd4rHVTeT-O-XV2jRojdNhxJWTDvNd7nqQ0VEiZQHz_AJmSCpMaJMRBSFKrKb2wqVwGU_NsYOYL-QtiWN2lbzcEe6XC0dApr5ydQLrHqkHHig3RBordaZ6Aj-oBHqFEHYpPe7Tpe-OfVfHd1E6cS6M1FZcD1NNLYD5lFHpPI9bTwJlsde3uhGqC0ZCuEHg8lhzwOHrtIQbS0FVbb9k3-tVTU4fg_3L_vniUFAKwuCLqKnS2BYwdq_mzSnbLY7h_qixoR7jig3__kRhuaxwUkRz5iaiQkqgc5gHdrNP5zw",
    });
    let token = "eyJhbGciOiJSUzI1NiIsImtpZCI6ImJpbGJvLmJhZ2dpbnNAaG9iYml0b24uZXhhbXBsZSJ9.SXTigJlzIGEgZGFuZ2Vyb3VzIGJ1c2luZXNzLCBGcm9kbywgZ29pbmcgb3V0IHlvdXIgZG9vci4gWW91IHN0ZXAgb250byB0aGUgcm9hZCwgYW5kIGlmIHlvdSBkb24ndCBrZWVwIHlvdXIgZmVldCwgdGhlcmXigJlzIG5vIGtub3dpbmcgd2hlcmUgeW91IG1pZ2h0IGJlIHN3ZXB0IG9mZiB0by4.MRjdkly7_-oTPTS3AXP41iQIGKa80A0ZmTuV5MEaHoxnW2e5CZ5NlKtainoFmKZopdHM1O2U4mwzJdQx996ivp83xuglII7PNDi84wnB-BDkoBwA78185hX-Es4JIwmDLJK3lfWRa-XtL0RnltuYv746iYTh_qHRD68BNt1uSNCrUCTJDt5aAE6x8wW1Kt9eRo4QPocSadnHXFxnt8Is9UzpERV0ePPQdLuW3IS_de3xyIrDaLGdjluPxUAhb6L2aXic1U12podGU0KLUQSE_oI-ZnmKJ3F4uOZDnd6QZWJushZ41Axf_fcIe8u9ipH84ogoree7vjbU5y18kDquDg";
    let bilbo = set(&[rsa]);
    assert_eq!(bilbo.verify(token, &ALL).err(), Some(Fault::Malformed));
    let broken = token.replace(".MRjd", ".MRjc");
    assert_eq!(bilbo.verify(&broken, &ALL).err(), Some(Fault::Signature));
}

#[test]
fn what_is_signed_right_is_taken_whatever_order_its_header_has() {
    let signer = Signer::new("k1");
    for header in [ES256, r#"{"kid":"k1","typ":"JWT","alg":"ES256"}"#, r#"{"alg":"ES256"}"#] {
        let claims = verify(&signer.set(), &signer.sign(header, r#"{"sub":"alice"}"#)).ok();
        assert_eq!(claims.and_then(|claims| claims.member("sub").cloned()), Some(json!("alice")), "{header}");
    }
}

/// Also CVE-2026-22818.
#[test]
fn cve_2026_22817_the_header_chooses_among_what_is_allowed_and_no_more() {
    let signer = Signer::new("k1");
    let token = signer.sign(ES256, "{}");
    assert_eq!(signer.set().verify(&token, &[Algorithm::RS256]).err(), Some(Fault::Algorithm));
    let (_, rest) = token.split_once('.').unwrap();
    for name in ["none", "None", "NONE", "nOnE", "HS256", "RS256", "ES384", "ES512", "EdDSA", "es256", "", "ES256 "] {
        let header = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"{name}","kid":"k1"}}"#));
        let fault = signer.set().verify(&format!("{header}.{rest}"), &ALL).err();
        assert!(matches!(fault, Some(Fault::Algorithm | Fault::Signature)), "{name}: {fault:?}");
    }
    for header in [r#"{"alg":null}"#, r#"{"alg":["ES256"]}"#, r#"{"kid":"k1"}"#, r#"{"alg":"ES256","kid":1}"#, "[]", "1"] {
        let forged = format!("{}.{rest}", URL_SAFE_NO_PAD.encode(header));
        assert_eq!(signer.set().verify(&forged, &ALL).err(), Some(Fault::Malformed), "{header}");
    }
}

/// The classic: HMAC under the public key's text, which everybody has.
#[test]
fn cve_2026_44699_hs256_with_the_public_key_fails() {
    let signer = Signer::new("k1");
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","kid":"k1"}"#);
    let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode("{}"));
    for secret in [signer.public.to_string(), signer.public["x"].as_str().unwrap().to_owned()] {
        let key = EncodingKey::from_secret(secret.as_bytes());
        let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), &key, Algorithm::HS256).unwrap();
        let token = format!("{signed}.{signature}");
        assert_eq!(signer.set().verify(&token, &ALL).err(), Some(Fault::Algorithm));
        assert_eq!(signer.set().verify(&token, &[Algorithm::HS256]).err(), Some(Fault::Algorithm));
    }
}

/// Also CVE-2026-35042.
#[test]
fn cve_2026_32597_crit_is_never_ignored() {
    let signer = Signer::new("k1");
    for header in [
        r#"{"alg":"ES256","crit":["exp"],"exp":1}"#,
        r#"{"alg":"ES256","crit":[]}"#,
        r#"{"alg":"ES256","crit":null}"#,
        r#"{"alg":"ES256","b64":false,"crit":["b64"]}"#,
    ] {
        assert_eq!(verify(&signer.set(), &signer.sign(header, "{}")).err(), Some(Fault::Critical), "{header}");
    }
}

#[test]
fn cve_2022_21449_and_other_empty_signatures() {
    let signer = Signer::new("k1");
    let token = signer.sign(ES256, "{}");
    let (signed, _) = token.rsplit_once('.').unwrap();
    for signature in [&"A".repeat(86)[..], "AA", &"_".repeat(86)] {
        assert_eq!(verify(&signer.set(), &format!("{signed}.{signature}")).err(), Some(Fault::Signature));
    }
    assert_eq!(verify(&signer.set(), &format!("{signed}.")).err(), Some(Fault::Malformed));
}

#[test]
fn cve_2018_0114_a_key_in_the_header_is_not_looked_at() {
    let (signer, attacker) = (Signer::new("k1"), Signer::new("k1"));
    let jwk = &attacker.public;
    for header in [
        format!(r#"{{"alg":"ES256","kid":"k1","jwk":{jwk}}}"#),
        r#"{"alg":"ES256","kid":"k1","jku":"http://127.0.0.1:1/"}"#.to_owned(),
        r#"{"alg":"ES256","kid":"k1","x5u":"file:///etc/passwd","x5c":["AA"]}"#.to_owned(),
    ] {
        assert_eq!(verify(&signer.set(), &attacker.sign(&header, "{}")).err(), Some(Fault::Signature));
        assert!(verify(&signer.set(), &signer.sign(&header, "{}")).is_ok(), "what is not looked at does no harm");
    }
}

#[test]
fn cve_2025_30204_a_megabyte_of_dots_and_other_shapes() {
    let signer = Signer::new("k1");
    let token = signer.sign(ES256, "{}");
    for shape in [
        ".".repeat(1 << 20),
        String::new(),
        ".".into(),
        "..".into(),
        "a.b".into(),
        format!("{token}."),
        format!(".{token}"),
        format!("{token}.x.y"),
    ] {
        assert_eq!(verify(&signer.set(), &shape).err(), Some(Fault::Malformed));
    }
}

#[test]
fn doubled_names_are_refused_wherever_they_stand() {
    let signer = Signer::new("k1");
    let header = r#"{"alg":"ES256","kid":"k1","alg":"ES256"}"#;
    assert_eq!(verify(&signer.set(), &signer.sign(header, "{}")).err(), Some(Fault::Malformed));
    for payload in [r#"{"sub":"a","sub":"b"}"#, r#"{"sub":"a","s\u0075b":"b"}"#, r#"{"x":{"a":1,"a":2}}"#] {
        assert_eq!(verify(&signer.set(), &signer.sign(ES256, payload)).err(), Some(Fault::Malformed), "{payload}");
    }
}

#[test]
fn keys_are_told_apart_by_name_and_an_unknown_one_is_told() {
    let (one, other, stranger) = (Signer::new("k1"), Signer::new("k2"), Signer::new("k3"));
    let both = set(&[one.public.clone(), other.public.clone()]);
    assert!(verify(&both, &other.sign(r#"{"alg":"ES256","kid":"k2"}"#, "{}")).is_ok());
    assert_eq!(verify(&both, &other.sign(ES256, "{}")).err(), Some(Fault::Signature), "a name is not a hint");
    assert!(verify(&both, &other.sign(r#"{"alg":"ES256"}"#, "{}")).is_ok(), "without one, each that fits is tried");
    assert_eq!(verify(&both, &stranger.sign(r#"{"alg":"ES256"}"#, "{}")).err(), Some(Fault::Signature));
    // CVE-2025-59936: separators in `kid` are letters like others.
    for kid in ["k3", "k1:k2", "", "../k1", "k1\\u0000", "k1 "] {
        let header = format!(r#"{{"alg":"ES256","kid":"{kid}"}}"#);
        assert_eq!(verify(&both, &stranger.sign(&header, "{}")).err(), Some(Fault::UnknownKey), "{kid}");
    }
}

#[test]
fn keys_that_are_not_for_this_are_left_out() {
    let signer = Signer::new("k1");
    let with = |name: &str, value: Value| {
        let mut key = signer.public.clone();
        key[name] = value;
        KeySet::parse(json!({ "keys": [key] }).to_string().as_bytes()).err()
    };
    for (name, value) in [
        ("use", json!("enc")),
        ("key_ops", json!(["sign"])),
        ("key_ops", json!([])),
        ("alg", json!("ES384")),
        ("alg", json!("HS256")),
        ("alg", json!(1)),
        ("d", json!("AAAA")),
        ("kty", json!("XX")),
        ("crv", json!("secp256k1")),
    ] {
        assert_eq!(with(name, value.clone()), Some(Error::NoKey(1)), "{name} {value}");
    }
    assert_eq!(with("key_ops", json!(["verify"])), None);
    assert_eq!(with("use", json!("sig")), None);
    // An `oct` key would be an HMAC key that all the world can read.
    assert_eq!(KeySet::parse(br#"{"keys":[{"kty":"oct","k":"AAAA","alg":"HS256"}]}"#).err(), Some(Error::NoKey(1)));
    let short = json!({ "keys": [{ "kty": "RSA", "e": "AQAB", "n": URL_SAFE_NO_PAD.encode([0xff; 128]) }] });
    assert_eq!(KeySet::parse(short.to_string().as_bytes()).err(), Some(Error::NoKey(1)));
}

#[test]
fn one_odd_key_does_not_take_the_others_with_it() {
    let signer = Signer::new("k1");
    let odd = [json!(1), json!({}), json!({ "kty": "EC", "crv": "P-256", "x": "AA", "y": "AA", "kid": "k1" }), json!({ "kty": "LMS" })];
    let keys = set(&odd.into_iter().chain([signer.public.clone()]).collect::<Vec<_>>());
    assert!(verify(&keys, &signer.sign(ES256, "{}")).is_ok());
    for wrong in ["", "[]", "{}", r#"{"keys":{}}"#, r#"{"keys":[],"keys":[]}"#, "<html>"] {
        assert_eq!(KeySet::parse(wrong.as_bytes()).err(), Some(Error::NotASet), "{wrong}");
    }
    assert_eq!(KeySet::parse(br#"{"keys":[]}"#).err(), Some(Error::NoKey(0)));
}

#[test]
fn rsa_keys_take_every_rsa_algorithm_unless_they_say_which() {
    let pair = aws_lc_rs::rsa::KeyPair::generate(KeySize::Rsa2048).unwrap();
    let der: aws_lc_rs::encoding::Pkcs8V1Der<'_> = aws_lc_rs::encoding::AsDer::as_der(&pair).unwrap();
    let pem = format!(
        "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
        base64::engine::general_purpose::STANDARD.encode(der.as_ref())
    );
    let private = EncodingKey::from_rsa_pem(pem.as_bytes()).unwrap();
    let mut public = serde_json::to_value(Jwk::from_encoding_key(&private, Algorithm::RS256).unwrap()).unwrap();
    public.as_object_mut().unwrap().remove("alg");
    let mut only = public.clone();
    only["alg"] = json!("PS256");
    for (name, algorithm) in
        [("RS256", Algorithm::RS256), ("RS512", Algorithm::RS512), ("PS256", Algorithm::PS256), ("PS384", Algorithm::PS384)]
    {
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"{name}"}}"#)), URL_SAFE_NO_PAD.encode("{}"));
        let token = format!("{signed}.{}", jsonwebtoken::crypto::sign(signed.as_bytes(), &private, algorithm).unwrap());
        assert!(set(&[public.clone()]).verify(&token, &ALL).is_ok(), "{name}");
        assert_eq!(set(&[only.clone()]).verify(&token, &ALL).is_ok(), name == "PS256", "{name}");
    }
}

proptest! {
    #[test]
    fn no_change_to_a_token_leaves_it_good(place in 0usize..1000, byte in 0x21u8..0x7f) {
        let signer = Signer::new("k1");
        let token = signer.sign(ES256, r#"{"sub":"alice","scope":"A"}"#);
        let mut changed = token.clone().into_bytes();
        let place = place % changed.len();
        prop_assume!(changed[place] != byte);
        changed[place] = byte;
        prop_assert!(verify(&signer.set(), std::str::from_utf8(&changed).unwrap()).is_err());
    }

    #[test]
    fn whatever_comes_is_refused_without_harm(text in "\\PC{0,60}", dots in "[A-Za-z0-9_-]{0,20}(\\.[A-Za-z0-9_-]{0,20}){0,4}") {
        let signer = Signer::new("k1");
        prop_assert!(verify(&signer.set(), &text).is_err());
        prop_assert!(verify(&signer.set(), &dots).is_err());
        let _ = KeySet::parse(text.as_bytes());
    }
}
