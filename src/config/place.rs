//! Where something stands: in which file and line, or in which environment variable, and under which key.

use std::fmt;

/// A stretch of one line of the configuration file, counted in characters from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The line.
    pub line: usize,
    /// The column of its first character.
    pub column: usize,
    /// How many characters it has; 0 where only its beginning is known.
    pub length: usize,
}

/// Where a key or a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The configuration file.
    File(Span),
    /// The environment variable of this name.
    Variable(String),
}

/// The dotted path of a key, as `routes[0].upstream`; empty for the whole document.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyPath(String);

impl KeyPath {
    /// The path of a key inside this one.
    pub fn key(&self, name: &str) -> Self {
        let separator = if self.0.is_empty() { "" } else { "." };
        Self(format!("{}{separator}{name}", self.0))
    }

    /// The path of a list's item, counted from 0.
    pub fn item(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }

    /// The path without its last step; `None` for the whole document.
    pub fn parent(&self) -> Option<Self> {
        if self.0.is_empty() {
            return None;
        }
        let end = self.0.rfind(['.', '[']).unwrap_or(0);
        Some(Self(self.0[..end].to_owned()))
    }

    /// Whether the path that is written `other` is this one, or inside it.
    pub fn contains(&self, other: &str) -> bool {
        match other.strip_prefix(&self.0) {
            Some(rest) => self.0.is_empty() || rest.is_empty() || rest.starts_with(['.', '[']),
            None => false,
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_dotted_and_know_their_parents() {
        let path = KeyPath::default().key("routes").item(0).key("upstream");
        assert_eq!(path.as_str(), "routes[0].upstream");
        assert_eq!(path.parent().unwrap().as_str(), "routes[0]");
        assert_eq!(path.parent().unwrap().parent().unwrap().as_str(), "routes");
        assert_eq!(KeyPath::default().key("routes").parent(), Some(KeyPath::default()));
        assert_eq!(KeyPath::default().parent(), None);
    }

    #[test]
    fn inside_counts_whole_steps() {
        let first = KeyPath::default().key("routes").item(1);
        assert!(first.contains("routes[1].name"));
        assert!(first.contains("routes[1]"));
        assert!(!first.contains("routes[10]"));
        assert!(!KeyPath::default().key("route").contains("routes"));
        assert!(KeyPath::default().contains("routes"));
    }
}
