//! A mistake in a configuration, told as a compiler tells it: file, line, column, what is wrong, what to write instead.

use std::fmt;

use serde::Serialize;

use super::place::{KeyPath, Origin, Span};

/// The characters of a source line that are shown at most; longer lines are cut around the mistake.
const SHOWN: usize = 160;

/// One mistake, or one warning.
///
/// It never holds a value that came from the environment: that may be a secret. The text is shown as it is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// The configuration file, as it was named.
    pub file: String,
    /// The line, from 1; none where the whole file or an environment variable is meant.
    pub line: Option<usize>,
    /// The column in characters, from 1.
    pub column: Option<usize>,
    /// The environment variable that the value comes from, where it is not the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variable: Option<String>,
    /// The dotted path of the key, as `routes[0].upstream`; empty where no key is meant.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
    #[serde(skip)]
    excerpt: Option<Excerpt>,
    /// Whether its line holds a secret for sure.
    #[serde(skip)]
    is_secret: bool,
}

/// A source line with the offending part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Excerpt {
    text: String,
    span: Span,
}

/// The help, phrased as a question that continues the message.
pub const DID_YOU_MEAN: &str = "did you mean ";

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.variable, self.line, self.column) {
            (Some(variable), ..) => write!(f, "environment variable {variable}: ")?,
            (None, Some(line), Some(column)) => write!(f, "{}:{line}:{column}: ", self.file)?,
            _ => write!(f, "{}: ", self.file)?,
        }
        f.write_str(&self.message)?;
        let (continued, apart) = match &self.help {
            Some(help) if help.starts_with(DID_YOU_MEAN) => (Some(help), None),
            help => (None, help.as_ref()),
        };
        if let Some(help) = continued {
            write!(f, ", {help}")?;
        }
        if let Some(excerpt) = &self.excerpt {
            write!(f, "\n{excerpt}")?;
        }
        if let Some(help) = apart {
            let indent = self.excerpt.as_ref().map_or(0, |excerpt| excerpt.span.line.to_string().len());
            write!(f, "\n{:indent$}  = help: {help}", "")?;
        }
        Ok(())
    }
}

impl fmt::Display for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.span.line.to_string();
        let start = self.span.column.saturating_sub(1);
        let skipped = if self.text.chars().count() > SHOWN { start.saturating_sub(SHOWN / 2) } else { 0 };
        let shown: Vec<char> = self.text.chars().skip(skipped).take(SHOWN).map(visible).collect();
        let start = (start - skipped).min(shown.len());
        let length = self.span.length.clamp(1, shown.len().saturating_sub(start).max(1));
        let lead: String = shown[..start].iter().map(|char| if *char == '\t' { '\t' } else { ' ' }).collect();
        writeln!(f, " {number} | {}", shown.iter().collect::<String>())?;
        write!(f, " {:width$} | {lead}{}", "", "^".repeat(length), width = number.len())
    }
}

/// The character itself, or a stand-in for one that would act on a terminal.
fn visible(char: char) -> char {
    if char.is_control() && char != '\t' { char::REPLACEMENT_CHARACTER } else { char }
}

/// `text` between backticks, fit for one line of a message: control characters escaped, long text cut.
pub fn quoted(text: &str) -> String {
    let mut shown = String::from("`");
    for char in text.chars().take(SHOWN / 2) {
        if char.is_control() { shown.extend(char.escape_default()) } else { shown.push(char) }
    }
    if text.chars().nth(SHOWN / 2).is_some() {
        shown.push('…');
    }
    shown.push('`');
    shown
}

/// A list of words in backticks: `` `a`, `b`, `c` ``.
pub fn listed<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    words.into_iter().map(quoted).collect::<Vec<_>>().join(", ")
}

/// The help for a word that is not known: the one word that it is most like, or else all that there are.
pub fn instead_of(given: &str, known: &[&str], all: &str) -> String {
    match closest(given, known) {
        Some(word) => format!("{DID_YOU_MEAN}{}?", quoted(word)),
        None if known.is_empty() => format!("{all}: there are none"),
        None => format!("{all}: {}", listed(known.iter().copied())),
    }
}

/// The known word that `given` was likely meant to be: at most one slip in three letters, or more letters at the end; case, `-` and `_`
/// do not count.
pub fn closest<'a>(given: &str, known: &[&'a str]) -> Option<&'a str> {
    let folded = |text: &str| text.to_lowercase().replace('-', "_");
    let given = folded(given);
    known
        .iter()
        .map(|word| (strsim::damerau_levenshtein(&given, &folded(word)), *word))
        .filter(|(distance, word)| *distance < word.chars().count())
        .filter(|(distance, word)| {
            let slips = (word.chars().count().max(given.chars().count()) / 3).max(1);
            *distance <= slips || (word.len() > 2 && given.starts_with(&folded(word)))
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}

/// A configuration's text under its name, and what was found in it.
#[derive(Debug)]
pub struct Findings<'a> {
    file: &'a str,
    text: &'a str,
    found: Vec<Diagnostic>,
}

impl<'a> Findings<'a> {
    /// Nothing found yet.
    pub const fn new(file: &'a str, text: &'a str) -> Self {
        Self { file, text, found: Vec::new() }
    }

    /// Adds a finding, with the source line that it is about.
    pub fn add(&mut self, origin: &Origin, key: &KeyPath, message: impl Into<String>, help: impl Into<Option<String>>) {
        let excerpt = match origin {
            Origin::File(span) => {
                self.text.lines().nth(span.line.saturating_sub(1)).map(|line| Excerpt { text: line.to_owned(), span: *span })
            }
            Origin::Variable(_) => None,
        };
        self.push(origin, key, message.into(), help.into(), excerpt);
    }

    /// Adds a finding about a line that holds a secret: no finding shows that line.
    pub fn add_secret(&mut self, origin: &Origin, key: &KeyPath, message: impl Into<String>, help: impl Into<Option<String>>) {
        self.push(origin, key, message.into(), help.into(), None);
        if let Some(last) = self.found.last_mut() {
            last.is_secret = true;
        }
    }

    fn push(&mut self, origin: &Origin, key: &KeyPath, message: String, help: Option<String>, excerpt: Option<Excerpt>) {
        let (line, column, variable) = match origin {
            Origin::File(span) => (Some(span.line), Some(span.column), None),
            Origin::Variable(name) => (None, None, Some(name.clone())),
        };
        self.found.push(Diagnostic {
            file: self.file.to_owned(),
            line,
            column,
            variable,
            key: key.to_string(),
            message,
            help,
            excerpt,
            is_secret: false,
        });
    }

    /// What was found, in the order of the file.
    pub fn sorted(self) -> Vec<Diagnostic> {
        in_order(self.found)
    }

    /// The keys that something was found at.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.found.iter().map(|finding| finding.key.as_str())
    }
}

/// Puts findings in the order of the file, and takes away lines that one of them knows to hold a secret.
pub fn in_order(mut found: Vec<Diagnostic>) -> Vec<Diagnostic> {
    found.sort_by_key(|finding| (finding.variable.is_some(), finding.line, finding.column));
    let secret: Vec<usize> = found.iter().filter(|finding| finding.is_secret).filter_map(|finding| finding.line).collect();
    for finding in found.iter_mut().filter(|finding| finding.line.is_some_and(|line| secret.contains(&line))) {
        finding.excerpt = None;
    }
    found
}

/// A diagnostic about the file as a whole.
pub fn about_file(file: &str, message: String, help: Option<String>) -> Diagnostic {
    Diagnostic {
        file: file.to_owned(),
        line: None,
        column: None,
        variable: None,
        key: String::new(),
        message,
        help,
        excerpt: None,
        is_secret: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(line: usize, column: usize, length: usize) -> Origin {
        Origin::File(Span { line, column, length })
    }

    #[test]
    fn a_finding_reads_like_a_compilers() {
        let mut findings = Findings::new("bearerd.yaml", "routes:\n  - upstrem: app\n");
        findings.add(
            &at(2, 5, 7),
            &KeyPath::default().key("upstrem"),
            "unknown key `upstrem`",
            instead_of("upstrem", &["upstream", "name"], "known keys"),
        );
        assert_eq!(
            findings.sorted()[0].to_string(),
            "bearerd.yaml:2:5: unknown key `upstrem`, did you mean `upstream`?\n 2 |   - upstrem: app\n   |     ^^^^^^^"
        );
    }

    #[test]
    fn other_help_stands_on_a_line_of_its_own() {
        let mut findings = Findings::new("f", "a: 30\n");
        findings.add(&at(1, 4, 2), &KeyPath::default().key("a"), "a duration needs a unit", "write `30s`".to_owned());
        assert_eq!(findings.sorted()[0].to_string(), "f:1:4: a duration needs a unit\n 1 | a: 30\n   |    ^^\n   = help: write `30s`");
    }

    #[test]
    fn a_long_line_is_cut_around_the_mistake() {
        let text = format!("{}here{}", "x".repeat(500), "y".repeat(500));
        let mut findings = Findings::new("f", &text);
        findings.add(&at(1, 501, 4), &KeyPath::default(), "wrong", None);
        let shown = findings.sorted()[0].to_string();
        let lines: Vec<_> = shown.lines().collect();
        assert!(lines[1].chars().count() < 200);
        assert_eq!(lines[1].find("here"), lines[2].find("^^^^"));
    }

    #[test]
    fn terminals_are_not_driven_by_a_file() {
        assert_eq!(quoted("a\u{1b}[31m\n"), "`a\\u{1b}[31m\\n`");
    }

    #[test]
    fn a_line_with_a_secret_is_shown_by_no_finding() {
        let mut findings = Findings::new("f", "{url: canary, a: 1}\nb: 2\n");
        findings.add_secret(&at(1, 7, 6), &KeyPath::default(), "a password", None);
        findings.add(&at(1, 18, 1), &KeyPath::default(), "wrong", None);
        findings.add(&at(2, 4, 1), &KeyPath::default(), "wrong", None);
        let shown: Vec<_> = findings.sorted().iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["f:1:7: a password", "f:1:18: wrong", "f:2:4: wrong\n 2 | b: 2\n   |    ^"]);
    }

    #[test]
    fn only_close_words_are_suggested() {
        assert_eq!(closest("upstrem", &["upstream", "routes"]), Some("upstream"));
        assert_eq!(closest("Token-Services", &["token_services"]), Some("token_services"));
        assert_eq!(closest("warning", &["warn", "error"]), Some("warn"));
        assert_eq!(closest("verbose", &["warn", "error"]), None);
        assert_eq!(closest("x", &["y"]), None);
        assert_eq!(instead_of("zzz", &["a", "b"], "known keys"), "known keys: `a`, `b`");
    }

    proptest! {
        #[test]
        fn any_place_in_any_text_can_be_shown(text in "[a-z\t\r\n é]{0,400}", line in 0..5usize, column in 0..500usize, length in 0..500usize) {
            let mut findings = Findings::new("f", &text);
            findings.add(&at(line, column, length), &KeyPath::default(), "wrong", None);
            prop_assert!(findings.sorted()[0].to_string().contains("wrong"));
        }
    }
}
