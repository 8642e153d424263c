//! Header values with gaps: `{claims.sub}`, `{client_certificate.subject}`, `{route}`, `{peer}`, `{request_id}`; `{{` and `}}` are braces. Pure.

use crate::claims::{BadPath, Path};
use crate::tls::client_certificate;

/// A value with gaps, its parts in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Part>);

/// One part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// As it stands.
    Text(String),
    /// What the token says there.
    Claim(Path),
    /// What the caller's certificate says there.
    Certificate(Path),
    /// The route's name.
    Route,
    /// The address of the peer.
    Peer,
    /// The request's id.
    RequestId,
}

/// Why a text is no template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A `{` without its `}`, or the other way round.
    #[error("a brace stands alone: close it, or write it twice where a brace is meant")]
    Brace,
    /// Nothing that bearerd knows.
    #[error("nothing is known by the name `{0}`")]
    Unknown(String),
    /// `claims.` without a path.
    #[error("`{path}` is no path of a claim: {fault}")]
    Path {
        /// What was written.
        path: String,
        /// What is wrong with it.
        fault: BadPath,
    },
}

/// What may stand in a gap.
pub const GAPS: &str = "`{claims.NAME}`, `{client_certificate.NAME}`, `{route}`, `{peer}` or `{request_id}`";

impl Template {
    /// Reads it.
    ///
    /// # Errors
    /// When a brace stands alone or a gap names nothing that is known.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(place) = rest.find(['{', '}']) {
            plain.push_str(&rest[..place]);
            let brace = &rest[place..=place];
            let tail = &rest[place + 1..];
            if let Some(tail) = tail.strip_prefix(brace) {
                plain.push_str(brace);
                rest = tail;
                continue;
            }
            let (name, tail) = tail.split_once('}').filter(|(name, _)| brace == "{" && !name.contains('{')).ok_or(Error::Brace)?;
            if !plain.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut plain)));
            }
            parts.push(gap(name.trim())?);
            rest = tail;
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Ok(Self(parts))
    }

    /// Its parts.
    pub fn parts(&self) -> &[Part] {
        &self.0
    }

    /// Whether it tells something of the caller's certificate.
    pub fn has_certificate(&self) -> bool {
        self.0.iter().any(|part| matches!(part, Part::Certificate(_)))
    }

    /// Whether it tells something of the token's.
    pub fn has_claims(&self) -> bool {
        self.0.iter().any(|part| matches!(part, Part::Claim(_)))
    }
}

fn gap(name: &str) -> Result<Part, Error> {
    match name {
        "route" => Ok(Part::Route),
        "peer" => Ok(Part::Peer),
        "request_id" => Ok(Part::RequestId),
        _ => {
            let path = |path: &str| Path::parse(path).map_err(|fault| Error::Path { path: path.to_owned(), fault });
            match name.split_once('.') {
                Some(("claims", rest)) => path(rest).map(Part::Claim),
                Some(("client_certificate", rest)) if client_certificate::FIELDS.contains(&rest) => path(rest).map(Part::Certificate),
                _ => Err(Error::Unknown(name.to_owned())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parts(text: &str) -> Vec<Part> {
        Template::parse(text).unwrap().0
    }

    #[test]
    fn gaps_and_braces_are_told_apart() {
        let claim = |path| Part::Claim(Path::parse(path).unwrap());
        assert_eq!(parts("a"), [Part::Text("a".into())]);
        assert_eq!(parts(""), []);
        assert_eq!(parts("{claims.sub}@{route}"), [claim("sub"), Part::Text("@".into()), Part::Route]);
        assert_eq!(parts("{{{ peer }}}"), [Part::Text("{".into()), Part::Peer, Part::Text("}".into())]);
        assert_eq!(parts("{claims.'a.b'.c}{request_id}"), [claim("'a.b'.c"), Part::RequestId]);
        for (text, expected) in [
            ("{", Error::Brace),
            ("}", Error::Brace),
            ("{route", Error::Brace),
            ("{rou{te}", Error::Brace),
            ("{sub}", Error::Unknown("sub".into())),
            ("{claims.}", Error::Path { path: String::new(), fault: BadPath::EmptyName }),
        ] {
            assert_eq!(Template::parse(text), Err(expected), "{text}");
        }
    }

    proptest! {
        #[test]
        fn text_with_its_braces_doubled_is_itself(text in "[a-z{} ]{0,20}") {
            let doubled = text.replace('{', "{{").replace('}', "}}");
            let expected: Vec<Part> = if text.is_empty() { Vec::new() } else { vec![Part::Text(text)] };
            prop_assert_eq!(parts(&doubled), expected);
        }
    }
}
