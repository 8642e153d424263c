//! Manifests as texts: YAML or JSON in, the same with the sidecar out. Whatever is not changed stays byte for byte: comments, order, spelling.
//!
//! A parser says where each value stands, and the text is edited there. The result is read again, and taken only if it says what it should.

mod join;
mod splice;
mod tree;
mod value;
mod write;

use granit_parser::ScanError;
use serde_json::Value;

use super::annotations::{METRICS_LABEL, PREFIX};
use super::edit::{Edit, Path, Step};
use super::workload::may_have_pods;
use super::{Defaults, changes, fault};
pub use join::joined;
use splice::{Splice, spliced, splices};
use tree::{Document, Node, parse};
use value::value;

/// Why manifests are refused.
#[derive(Debug, thiserror::Error)]
#[error("{line}:{column}: {fault}")]
pub struct Error {
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1.
    pub column: usize,
    /// What is wrong there.
    pub fault: Fault,
}

/// What is wrong.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// It is no YAML.
    #[error("not valid YAML: {0}")]
    Syntax(String),
    /// Text for a program that makes manifests.
    #[error("{0}; `{{{{` begins a template: render it, as `helm template` does, and inject what comes out")]
    Template(String),
    /// Kubernetes would not read it.
    #[error("{0}")]
    Unreadable(&'static str),
    /// The sidecar does not fit.
    #[error("{0}")]
    Object(#[from] fault::Error),
    /// The text cannot be edited there.
    #[error("bearerd cannot be put in: {0}")]
    Unplaced(&'static str),
}

/// Manifests with what they asked for.
#[derive(Debug)]
pub struct Injected {
    /// The text.
    pub text: String,
    /// What the owners of the objects should know.
    pub warnings: Vec<String>,
}

/// Puts the sidecar into every pod that asks for it.
///
/// # Errors
/// Every object with a mistake, with its place; then nothing is changed.
pub fn inject(text: &str, defaults: &Defaults) -> Result<Injected, Vec<Error>> {
    let documents = parse(text).map_err(|error| vec![explained(text, syntax(&error))])?;
    let mut plan = Plan::default();
    for (index, document) in documents.iter().enumerate() {
        if let Err(mut errors) = plan.add(text, index, document, defaults) {
            plan.errors.append(&mut errors);
        }
    }
    if !plan.errors.is_empty() {
        return Err(plan.errors.into_iter().map(|error| explained(text, error)).collect());
    }
    let result = spliced(text, plan.splices);
    check(&documents, &result, &plan.expected)?;
    Ok(Injected { text: result, warnings: plan.warnings })
}

/// What is to be done with all documents.
#[derive(Default)]
struct Plan {
    splices: Vec<Splice>,
    warnings: Vec<String>,
    /// The documents that are changed, and what they say then.
    expected: Vec<(usize, Value)>,
    errors: Vec<Error>,
}

impl Plan {
    fn add(&mut self, text: &str, index: usize, document: &Document, defaults: &Defaults) -> Result<(), Vec<Error>> {
        let root = &document.root;
        if !may_have_pods(root.text("apiVersion").unwrap_or_default(), root.text("kind").unwrap_or_default()) {
            return Ok(());
        }
        // What is odd about objects that do not ask is none of our business.
        if !root.has_key_like(PREFIX) {
            return Ok(());
        }
        let unreadable = |found: value::Unreadable| vec![error(found.line, found.column, Fault::Unreadable(found.message))];
        let mut object = value(document).map_err(unreadable)?;
        let mut changes = changes(&object, defaults).map_err(|errors| {
            let placed = |found: fault::Error| {
                let node = nearest(root, &found.at);
                error(node.line, node.column, found.into())
            };
            errors.into_iter().map(placed).collect::<Vec<_>>()
        })?;
        self.warnings.append(&mut changes.warnings);
        if changes.edits.is_empty() {
            return Ok(());
        }
        for label in changes.labels {
            match splices(text, document, std::slice::from_ref(&label)) {
                Ok(_) => changes.edits.push(label),
                Err(found) => self.warnings.push(format!("{}:{}: no label `{METRICS_LABEL}`: {}", found.line, found.column, found.message)),
            }
        }
        let unplaced = |found: splice::Unplaced| vec![error(found.line, found.column, Fault::Unplaced(found.message))];
        self.splices.extend(splices(text, document, &changes.edits).map_err(unplaced)?);
        changes.edits.iter().for_each(|edit| {
            // What cannot be applied makes a difference that `check` finds.
            let _ = Edit::apply(edit, &mut object);
        });
        self.expected.push((index, object));
        Ok(())
    }
}

/// Whether the result says what it should: the documents that are changed their changes, the others the same.
fn check(before: &[Document], result: &str, expected: &[(usize, Value)]) -> Result<(), Vec<Error>> {
    const FORM: &str = "it is written in a form that cannot be changed in place: write it line by line, without brackets, `?` or tabs";
    let failed = |at: &Document| vec![error(at.root.line, at.root.column, Fault::Unplaced(FORM))];
    let Some(first) = expected.first().and_then(|(index, _)| before.get(*index)) else { return Ok(()) };
    let after = parse(result).map_err(|_| failed(first))?;
    if after.len() != before.len() {
        return Err(failed(first));
    }
    for (index, (before, after)) in before.iter().zip(&after).enumerate() {
        let holds = match expected.iter().find(|(changed, _)| *changed == index) {
            Some((_, expected)) => value(after).is_ok_and(|value| value == *expected),
            None => before.root.says_the_same(&after.root),
        };
        if !holds {
            return Err(failed(before));
        }
    }
    Ok(())
}

/// The node at a path, or the last one on the way that is there; of a key's value, the key.
fn nearest<'d>(root: &'d Node, path: &Path) -> &'d Node {
    let (mut shown, mut node) = (root, root);
    for step in path.steps() {
        let next = match (step, &node.content) {
            (Step::Key(key), _) => node.entry(key),
            (Step::Item(index), tree::Content::List(_, items)) => items.get(*index).map(|item| (item, item)),
            (Step::Item(_), _) => None,
        };
        let Some(next) = next else { break };
        (shown, node) = next;
    }
    shown
}

fn syntax(found: &ScanError) -> Error {
    error(found.marker().line(), found.marker().col() + 1, Fault::Syntax(found.info()))
}

/// A template in braces is a map in YAML, or nothing.
fn explained(text: &str, found: Error) -> Error {
    match found.fault {
        Fault::Syntax(_) | Fault::Unreadable(_) if text.contains("{{") => {
            Error { fault: Fault::Template(found.fault.to_string()), ..found }
        }
        _ => found,
    }
}

const fn error(line: usize, column: usize, fault: Fault) -> Error {
    Error { line, column, fault }
}
