//! Where a claim stands: names parted by dots, as `realm_access.roles`. A name that has dots itself is quoted, as `'https://acme.example/org'.id`.

use std::fmt;

/// The path of a claim. Never empty.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Path(Vec<String>);

/// The text is no path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPath {
    /// Nothing between two dots, or nothing at all.
    #[error("a name is empty")]
    EmptyName,
    /// A quote that is not closed, or closed before the name ends.
    #[error("a quoted name must be closed with `'`, and end there")]
    Quote,
}

impl Path {
    /// Reads it.
    ///
    /// # Errors
    /// When a name is empty or a quote stands alone.
    pub fn parse(text: &str) -> Result<Self, BadPath> {
        let mut names = Vec::new();
        let mut rest = text;
        loop {
            let (name, tail) = match rest.strip_prefix('\'') {
                Some(quoted) => quoted.split_once('\'').ok_or(BadPath::Quote)?,
                None => rest.split_at(rest.find('.').unwrap_or(rest.len())),
            };
            if name.is_empty() {
                return Err(BadPath::EmptyName);
            }
            names.push(name.to_owned());
            rest = match tail.strip_prefix('.') {
                Some(rest) => rest,
                None if tail.is_empty() => return Ok(Self(names)),
                None => return Err(BadPath::Quote),
            };
        }
    }

    /// The name at the top, and those below it.
    pub(super) fn split(&self) -> Option<(&str, &[String])> {
        self.0.split_first().map(|(first, rest)| (first.as_str(), rest))
    }

    /// Whether it is one name, this one.
    pub fn is(&self, name: &str) -> bool {
        self.0.len() == 1 && self.0[0] == name
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, name) in self.0.iter().enumerate() {
            let dot = if place > 0 { "." } else { "" };
            let quote = if name.contains('.') { "'" } else { "" };
            write!(f, "{dot}{quote}{name}{quote}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read_and_shown_again() {
        for text in ["sub", "a.b.c", "'https://acme.example/org'.id", "a.'b.c'"] {
            assert_eq!(Path::parse(text).map(|path| path.to_string()).as_deref(), Ok(text));
        }
        for (text, expected) in [
            ("", BadPath::EmptyName),
            ("a.", BadPath::EmptyName),
            (".a", BadPath::EmptyName),
            ("a..b", BadPath::EmptyName),
            ("'a", BadPath::Quote),
            ("'a'b", BadPath::Quote),
        ] {
            assert_eq!(Path::parse(text), Err(expected), "{text}");
        }
    }
}
