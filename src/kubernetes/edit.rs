//! What is changed in an object: the same list is carried out on the text of a manifest and told as a JSON Patch.

use std::fmt;

use serde_json::{Map, Value, json};

/// One step to a value inside an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The value under this key of a map.
    Key(String),
    /// This item of a list, counted from 0.
    Item(usize),
}

/// Where a value stands in an object; the object itself where there is no step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Path(Vec<Step>);

impl Path {
    /// The place under these keys.
    pub fn of(keys: &[&str]) -> Self {
        Self(keys.iter().map(|key| Step::Key((*key).to_owned())).collect())
    }

    /// The place under a key of what stands here.
    pub fn key(&self, key: &str) -> Self {
        self.then(Step::Key(key.to_owned()))
    }

    /// The place of an item of the list that stands here.
    pub fn item(&self, index: usize) -> Self {
        self.then(Step::Item(index))
    }

    /// The place of something inside of what stands here.
    pub fn join(&self, inner: &Self) -> Self {
        Self(self.0.iter().chain(&inner.0).cloned().collect())
    }

    fn then(&self, step: Step) -> Self {
        Self(self.0.iter().cloned().chain([step]).collect())
    }

    /// The steps from the object to it.
    pub fn steps(&self) -> &[Step] {
        &self.0
    }

    /// What stands there in `object`.
    pub fn find<'v>(&self, object: &'v Value) -> Option<&'v Value> {
        self.0.iter().try_fold(object, |value, step| match step {
            Step::Key(key) => value.get(key),
            Step::Item(index) => value.get(index),
        })
    }

    /// As a JSON Pointer (RFC 6901).
    pub fn pointer(&self) -> String {
        let written = |step: &Step| match step {
            Step::Key(key) => format!("/{}", key.replace('~', "~0").replace('/', "~1")),
            Step::Item(index) => format!("/{index}"),
        };
        self.0.iter().map(written).collect()
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(key) if key.contains(['.', '/', '[']) => write!(f, "['{key}']")?,
                Step::Key(key) if place > 0 => write!(f, ".{key}")?,
                Step::Key(key) => f.write_str(key)?,
                Step::Item(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// One change.
#[derive(Clone, Debug, PartialEq)]
pub enum Edit {
    /// The map at `map` gets this value under `key`, in place of one that is there.
    Set {
        /// The map.
        map: Path,
        /// The key.
        key: String,
        /// Its value.
        value: Value,
    },
    /// The list at `list` gets these items before all others.
    Prepend {
        /// The list.
        list: Path,
        /// The items.
        items: Vec<Value>,
    },
}

impl Edit {
    /// The same change to an object that stands at `outer` in another one.
    pub fn within(self, outer: &Path) -> Self {
        match self {
            Self::Set { map, key, value } => Self::Set { map: outer.join(&map), key, value },
            Self::Prepend { list, items } => Self::Prepend { list: outer.join(&list), items },
        }
    }

    /// As operations of a JSON Patch (RFC 6902): there, `add` replaces what a map has under the key.
    pub fn operations(&self) -> Vec<Value> {
        let add = |path: &Path, value: &Value| json!({ "op": "add", "path": path.pointer(), "value": value });
        match self {
            Self::Set { map, key, value } => vec![add(&map.key(key), value)],
            Self::Prepend { list, items } => items.iter().enumerate().map(|(index, item)| add(&list.item(index), item)).collect(),
        }
    }

    /// Carries it out. `None` where there is no such map or list.
    pub fn apply(&self, object: &mut Value) -> Option<()> {
        match self {
            Self::Set { map, key, value } => {
                map_at(object, map)?.insert(key.clone(), value.clone());
            }
            Self::Prepend { list, items } => {
                object.pointer_mut(&list.pointer())?.as_array_mut()?.splice(0..0, items.iter().cloned());
            }
        }
        Some(())
    }
}

fn map_at<'v>(object: &'v mut Value, path: &Path) -> Option<&'v mut Map<String, Value>> {
    object.pointer_mut(&path.pointer())?.as_object_mut()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_written_for_people_and_for_programs() {
        let path = Path::of(&["spec", "items"]).item(1).key("annotations").key("bearerd.dev/a~b");
        assert_eq!(path.to_string(), "spec.items[1].annotations['bearerd.dev/a~b']");
        assert_eq!(path.pointer(), "/spec/items/1/annotations/bearerd.dev~1a~0b");
    }

    #[test]
    fn edits_are_carried_out_and_told() {
        let mut object = json!({ "spec": { "list": [1], "number": 1 } });
        let edits = [
            Edit::Set { map: Path::of(&["spec"]), key: "number".into(), value: json!(2) },
            Edit::Prepend { list: Path::of(&["spec", "list"]), items: vec![json!(-1), json!(0)] },
        ];
        edits.iter().for_each(|edit| edit.apply(&mut object).unwrap());
        assert_eq!(object, json!({ "spec": { "list": [-1, 0, 1], "number": 2 } }));
        let add = |path: &str, value: i32| json!({ "op": "add", "path": path, "value": value });
        assert_eq!(edits[1].operations(), [add("/spec/list/0", -1), add("/spec/list/1", 0)]);
        assert_eq!(edits[0].clone().within(&Path::of(&["items"]).item(0)).operations()[0]["path"], "/items/0/spec/number");
        assert!(Edit::Prepend { list: Path::of(&["spec"]), items: vec![json!(0)] }.apply(&mut object).is_none());
    }
}
