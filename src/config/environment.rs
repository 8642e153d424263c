//! What the environment says: `${NAME}` inside values, and `BEARERD__SECTION__KEY` in place of them.

use std::collections::BTreeMap;

use super::diagnostic::{Findings, instead_of};
use super::document::{Content, Entry, Kind, Node, Scalar};
use super::place::{KeyPath, Origin};
use super::schema::Shape;

/// Environment variables by name.
pub type Environment = BTreeMap<String, String>;

/// What the name of an override begins with.
const PREFIX: &str = "BEARERD__";
/// What stands between the steps of its key.
const SEPARATOR: &str = "__";

/// The variables of this process. Those that are not text are left out: no configuration can name them.
pub fn of_process() -> Environment {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))).collect()
}

/// Expands `${NAME}` in every value of the file; `$$` is a dollar. Values of overrides are taken as they are.
pub fn expand(node: &mut Node, environment: &Environment, path: &KeyPath, findings: &mut Findings<'_>) {
    match &mut node.content {
        Content::List(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                expand(item, environment, &path.item(index), findings);
            }
        }
        Content::Map(entries) => {
            for entry in entries {
                expand(&mut entry.value, environment, &path.key(&entry.key), findings);
            }
        }
        Content::Scalar(scalar) if scalar.kind == Kind::Text => match expanded(&scalar.text, environment) {
            Ok(None) => {}
            Ok(Some((text, kind))) => (scalar.text, scalar.kind) = (text, kind),
            Err((message, help)) => {
                scalar.kind = Kind::Unknown;
                findings.add(&node.origin, path, message, help);
            }
        },
        Content::Scalar(_) => {}
    }
}

/// `None` where there is nothing to expand. A value that holds a variable has no type of its own any more.
fn expanded(text: &str, environment: &Environment) -> Result<Option<(String, Kind)>, (String, String)> {
    if !text.contains('$') {
        return Ok(None);
    }
    let (mut result, mut kind, mut rest) = (String::new(), Kind::Text, text);
    while let Some(dollar) = rest.find('$') {
        result.push_str(&rest[..dollar]);
        rest = &rest[dollar + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            result.push('$');
            rest = after;
            continue;
        }
        let Some((name, after)) = rest.strip_prefix('{').and_then(|inner| inner.split_once('}')) else {
            return Err(("a `$` begins `${NAME}`".to_owned(), "write `$$` for a dollar".to_owned()));
        };
        if !is_name(name) {
            return Err((
                "`${...}` holds something else than the name of an environment variable".to_owned(),
                "names have letters, digits and `_`; write `$$` for a dollar".to_owned(),
            ));
        }
        let Some(value) = environment.get(name) else {
            return Err((
                format!("the environment variable `{name}` is not set"),
                format!("set it, or write `$${{{name}}}` if the text itself is meant"),
            ));
        };
        result.push_str(value);
        kind = Kind::Untyped;
        rest = after;
    }
    result.push_str(rest);
    Ok(Some((result, kind)))
}

fn is_name(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && text.chars().all(|char| char.is_ascii_alphanumeric() || char == '_')
}

/// Puts the values of `BEARERD__...` variables into the tree.
pub fn override_values(root: &mut Node, shape: Shape<'_>, environment: &Environment, findings: &mut Findings<'_>) {
    for (variable, value) in environment {
        let Some(steps) = variable.strip_prefix(PREFIX) else { continue };
        let steps: Vec<&str> = steps.split(SEPARATOR).collect();
        let origin = Origin::Variable(variable.clone());
        if let Err(refused) = put(root, shape, &KeyPath::default(), &steps, &origin, value) {
            findings.add(&origin, &refused.path, refused.message, refused.help);
        }
    }
}

/// Why an override cannot be put in.
struct Refused {
    path: KeyPath,
    message: String,
    help: Option<String>,
}

fn put(node: &mut Node, shape: Shape<'_>, path: &KeyPath, steps: &[&str], origin: &Origin, value: &str) -> Result<(), Refused> {
    let Some((step, rest)) = steps.split_first() else {
        if !shape.is_scalar() {
            return Err(Refused {
                path: path.clone(),
                message: format!("`{path}` is not a single value"),
                help: Some("only single values outside lists can be set so".to_owned()),
            });
        }
        let scalar = Scalar { kind: Kind::Untyped, text: value.to_owned(), shown: "its value".to_owned() };
        *node = Node { origin: origin.clone(), content: Content::Scalar(scalar) };
        return Ok(());
    };
    let object = shape.object_for(node);
    let names = object.map(|object| object.key_names(node)).unwrap_or_default();
    let Some((name, inner)) =
        object.zip(names.iter().find(|name| folded(name) == folded(step))).and_then(|(object, name)| Some((name, object.value(name)?)))
    else {
        let known: Vec<String> = names.iter().map(|name| name.to_uppercase().replace('-', "_")).collect();
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        let within = if path.as_str().is_empty() { String::new() } else { format!(" in `{path}`") };
        let help = instead_of(step, &known, "known keys");
        return Err(Refused {
            path: path.key(&step.to_lowercase()),
            message: format!("there is no key `{step}`{within}"),
            help: Some(help),
        });
    };
    let mut entries = match std::mem::replace(&mut node.content, Content::Map(Vec::new())) {
        Content::Map(entries) => entries,
        Content::List(_) | Content::Scalar(_) => Vec::new(),
    };
    let index = entries.iter().position(|entry| entry.key == *name).unwrap_or_else(|| {
        let value = Node { origin: origin.clone(), content: Content::Map(Vec::new()) };
        entries.push(Entry { key: name.clone(), origin: origin.clone(), value });
        entries.len() - 1
    });
    let result = put(&mut entries[index].value, inner, &path.key(name), rest, origin, value);
    node.content = Content::Map(entries);
    result
}

/// The names in variables are upper case, and have no `-`.
fn folded(name: &str) -> String {
    name.to_lowercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::document;
    use crate::config::schema::Schema;
    use proptest::prelude::*;

    fn environment(pairs: &[(&str, &str)]) -> Environment {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn overridden(text: &str, pairs: &[(&str, &str)]) -> (Node, Vec<String>) {
        let mut findings = Findings::new("f", text);
        let mut root = document::parse(text, &mut findings).unwrap();
        let schema = Schema::of_config();
        override_values(&mut root, schema.root(), &environment(pairs), &mut findings);
        (root, findings.sorted().iter().map(ToString::to_string).collect())
    }

    fn text<'a>(root: &'a Node, keys: &[&str]) -> &'a str {
        let node = keys.iter().fold(root, |node, key| node.get(key).unwrap());
        match &node.content {
            Content::Scalar(scalar) => &scalar.text,
            _ => panic!("no scalar"),
        }
    }

    #[test]
    fn variables_and_dollars_are_expanded() {
        let environment = environment(&[("HOST", "app"), ("PORT_1", "80")]);
        assert_eq!(expanded("${HOST}:${PORT_1}", &environment), Ok(Some(("app:80".to_owned(), Kind::Untyped))));
        assert_eq!(expanded("$$HOST $${HOST}", &environment), Ok(Some(("$HOST ${HOST}".to_owned(), Kind::Text))));
        assert_eq!(expanded("plain", &environment), Ok(None));
        assert!(expanded("${MISSING}", &environment).unwrap_err().0.contains("`MISSING` is not set"));
        for broken in ["$HOST", "${HOST", "${}", "${HOST:-x}", "cost $"] {
            assert!(expanded(broken, &environment).unwrap_err().1.contains("$$"), "{broken}");
        }
    }

    #[test]
    fn an_override_replaces_or_adds_a_value() {
        let file = "logging: {level: info}\ntoken_services: {my-iap: {kind: iap, url: x}}\n";
        let (root, found) = overridden(
            file,
            &[
                ("BEARERD__LOGGING__LEVEL", "debug"),
                ("BEARERD__TOKEN_SERVICES__MY_IAP__MINT__RATE", "5"),
                ("BEARERD__SHUTDOWN__DELAY", "1s"),
                ("OTHER", "x"),
            ],
        );
        assert_eq!(found, Vec::<String>::new());
        assert_eq!(text(&root, &["logging", "level"]), "debug");
        assert_eq!(text(&root, &["token_services", "my-iap", "mint", "rate"]), "5");
        assert_eq!(text(&root, &["shutdown", "delay"]), "1s");
    }

    #[test]
    fn an_unknown_override_is_named() {
        let (_, found) =
            overridden("{}", &[("BEARERD__LOGING__LEVEL", "debug"), ("BEARERD__ROUTES", "x"), ("BEARERD__UPSTREAMS__APP__HOST", "x")]);
        assert_eq!(found[0], "environment variable BEARERD__LOGING__LEVEL: there is no key `LOGING`, did you mean `LOGGING`?");
        assert_eq!(
            found[1],
            "environment variable BEARERD__ROUTES: `routes` is not a single value\n  = help: only single values outside lists can be set so"
        );
        assert_eq!(
            found[2],
            "environment variable BEARERD__UPSTREAMS__APP__HOST: there is no key `APP` in `upstreams`\n  = help: known keys: there are none"
        );
    }

    proptest! {
        #[test]
        fn text_without_dollars_and_doubled_dollars_survive(text in ".{0,40}") {
            let doubled = text.replace('$', "$$");
            let got = expanded(&doubled, &Environment::new()).unwrap().map_or(doubled, |(text, _)| text);
            prop_assert_eq!(got, text);
        }

        #[test]
        fn no_text_panics(text in "[$a-z{}_]{0,30}") {
            let _ = expanded(&text, &environment(&[("a", "b")]));
        }
    }
}
