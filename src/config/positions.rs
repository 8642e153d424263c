//! Where each key of a document stands, for checks of the finished configuration.

use std::collections::BTreeMap;

use super::document::{Content, Node};
use super::place::{KeyPath, Origin};

/// The places of all keys and values.
pub struct Positions {
    root: Origin,
    keys: BTreeMap<KeyPath, Origin>,
    values: BTreeMap<KeyPath, (Origin, String)>,
    names: BTreeMap<KeyPath, Vec<String>>,
}

impl Positions {
    /// Takes them from the document.
    pub fn of(root: &Node) -> Self {
        let mut positions = Self { root: root.origin.clone(), keys: BTreeMap::new(), values: BTreeMap::new(), names: BTreeMap::new() };
        positions.add(root, &KeyPath::default());
        positions
    }

    fn add(&mut self, node: &Node, path: &KeyPath) {
        match &node.content {
            Content::Scalar(scalar) => {
                self.values.insert(path.clone(), (node.origin.clone(), scalar.shown.clone()));
            }
            Content::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    let path = path.item(index);
                    self.keys.insert(path.clone(), item.origin.clone());
                    self.add(item, &path);
                }
            }
            Content::Map(entries) => {
                self.names.insert(path.clone(), entries.iter().map(|entry| entry.key.clone()).collect());
                for entry in entries {
                    let path = path.key(&entry.key);
                    self.keys.insert(path.clone(), entry.origin.clone());
                    self.add(&entry.value, &path);
                }
            }
        }
    }

    /// Where a key stands; for one that is not in the document, the nearest that it would be inside of.
    pub fn key(&self, path: &KeyPath) -> &Origin {
        self.keys.get(path).or_else(|| path.parent().map(|parent| self.key(&parent))).unwrap_or(&self.root)
    }

    /// Where a single value stands; else where its key does.
    pub fn value(&self, path: &KeyPath) -> &Origin {
        self.values.get(path).map_or_else(|| self.key(path), |(origin, _)| origin)
    }

    /// Whether a key is in the document.
    pub fn has(&self, path: &KeyPath) -> bool {
        self.keys.contains_key(path)
    }

    /// A single value as messages show it.
    pub fn shown(&self, path: &KeyPath) -> &str {
        self.values.get(path).map_or("the default", |(_, shown)| shown)
    }

    /// The keys of a map, whether or not their values are good.
    pub fn names(&self, path: &KeyPath) -> Vec<&str> {
        self.names.get(path).map(|names| names.iter().map(String::as_str).collect()).unwrap_or_default()
    }
}
