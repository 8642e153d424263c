//! What a caller's certificate says of it, put so that routes can demand it and upstreams be told.

use rustls::pki_types::CertificateDer;
use serde_json::json;
use sha2::{Digest, Sha256};
use x509_parser::extensions::GeneralName;
use x509_parser::objects::{oid_registry, oid2abbrev};
use x509_parser::prelude::{FromDer, X509Certificate, X509Name};

use crate::claims::{Claims, Unreadable};

/// What is read of a certificate.
pub const FIELDS: [&str; 7] = ["subject", "common_name", "dns", "uri", "email", "serial", "sha256"];

/// Reads a certificate that the handshake has found good: `subject` (as text, in the certificate's order, escaped as in RFC 4514 section 2.4), `common_name`, `dns`, `uri` and `email`
/// (lists, from the alternative names of RFC 5280 section 4.2.1.6), `serial` and `sha256` (hexadecimal).
///
/// # Errors
/// When it is not one of X.509.
pub fn read(certificate: &CertificateDer<'_>) -> Result<Claims, Unreadable> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| Unreadable)?;
    let (mut dns, mut uri, mut email) = (Vec::new(), Vec::new(), Vec::new());
    if let Ok(Some(names)) = parsed.subject_alternative_name() {
        for name in &names.value.general_names {
            match name {
                GeneralName::DNSName(name) => dns.push(*name),
                GeneralName::URI(name) => uri.push(*name),
                GeneralName::RFC822Name(name) => email.push(*name),
                _ => {}
            }
        }
    }
    let common_name = parsed.subject().iter_common_name().find_map(|name| name.as_str().ok());
    let told = json!({
        "subject": subject(parsed.subject()),
        "common_name": common_name,
        "dns": dns,
        "uri": uri,
        "email": email,
        "serial": hex(parsed.raw_serial()),
        "sha256": hex(&Sha256::digest(certificate)),
    });
    Claims::parse(told.to_string().as_bytes())
}

/// `O=Acme, CN=alice`. What a name holds itself is escaped, or a name could pass for several.
fn subject(name: &X509Name<'_>) -> String {
    let mut parts = Vec::new();
    for attribute in name.iter_attributes() {
        let kind = oid2abbrev(attribute.attr_type(), oid_registry()).map_or_else(|_| attribute.attr_type().to_id_string(), str::to_owned);
        let value = attribute.as_str().map_or_else(|_| format!("#{}", hex(attribute.as_slice())), escaped);
        parts.push(format!("{kind}={value}"));
    }
    parts.join(", ")
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for (place, char) in text.char_indices() {
        let is_edge = place == 0 || place + char.len_utf8() == text.len();
        if matches!(char, ',' | '+' | '"' | '\\' | '<' | '>' | ';' | '=') || (is_edge && matches!(char, ' ' | '#')) {
            escaped.push('\\');
        }
        escaped.push(char);
    }
    escaped
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a text does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claims::Path;
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};

    /// A name that looks like two is still one.
    #[test]
    fn a_subject_cannot_pass_for_another() {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "eve, O=Acme");
        let made = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let claims = read(made.der()).unwrap();
        assert_eq!(claims.member("subject").unwrap(), r"CN=eve\, O\=Acme");
    }

    #[test]
    fn names_of_every_kind_are_told() {
        let mut params = CertificateParams::new(vec!["app.test".to_owned()]).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "Acme");
        params.distinguished_name.push(DnType::CommonName, "alice");
        params.subject_alt_names.push(SanType::URI("spiffe://acme/alice".try_into().unwrap()));
        let made = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let claims = read(made.der()).unwrap();
        let at = |path: &str| claims.at(&Path::parse(path).unwrap()).map(std::borrow::Cow::into_owned).unwrap();
        assert_eq!(at("common_name"), "alice");
        assert_eq!(at("subject"), "O=Acme, CN=alice");
        assert_eq!((at("dns"), at("uri")), (json!(["app.test"]), json!(["spiffe://acme/alice"])));
        assert_eq!(at("sha256").as_str().unwrap().len(), 64);
        assert!(read(&CertificateDer::from(vec![1, 2, 3])).is_err());
    }
}
