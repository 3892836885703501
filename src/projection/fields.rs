//! The allow-list of one rule: which of a payload's fields may leave.

use std::collections::BTreeMap;

use crate::json::{Map, Value};

/// The fields of a payload that Herald takes itself.
pub(super) const OWN: [&str; 5] = ["title", "message", "type", "metadata", "recipients"];

/// Names that a rule for Herald's own payloads cannot allow: Herald takes these fields of a payload itself, or writes these
/// keys of the metadata itself.
const RESERVED: [&str; 8] = [
    "title",
    "message",
    "type",
    "metadata",
    "recipients",
    "event",
    "eventId",
    "traceparent",
];

/// A tree of field names.
#[derive(Debug, Clone, Default)]
pub(super) struct AllowList(BTreeMap<String, Node>);

#[derive(Debug, Clone)]
enum Node {
    /// The value as a whole.
    Whole,
    /// Of an object, these fields.
    Parts(BTreeMap<String, Node>),
}

impl AllowList {
    /// Adds a path such as `data.status`, of a payload that is foreign or not.
    ///
    /// # Errors
    /// What is wrong with the path, as the end of a sentence that begins with the path.
    pub(super) fn add(&mut self, path: &str, is_foreign: bool) -> Result<(), String> {
        let names = names(path)?;
        if !is_foreign && names.first().is_some_and(|first| RESERVED.contains(first)) {
            return Err(
                "is Herald's own and cannot be allowed, but with payload = \"foreign\"".to_owned(),
            );
        }
        insert(&mut self.0, &names);
        Ok(())
    }

    /// Whether a template may read the path, or something of it.
    pub(super) fn allows(&self, path: &str) -> bool {
        let mut nodes = &self.0;
        for name in path.split('.') {
            match nodes.get(name) {
                None => return false,
                Some(Node::Whole) => return true,
                Some(Node::Parts(parts)) => nodes = parts,
            }
        }
        true
    }

    /// Whether a template may name `field`.
    pub(super) fn has(&self, field: &str) -> bool {
        self.0.contains_key(field)
    }

    /// The allowed names at the top.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The paths that are allowed.
    pub(super) fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        list(&self.0, "", &mut paths);
        paths
    }

    /// The paths of `payload` that are not allowed, each as short as possible.
    pub(super) fn unused(&self, payload: &Map) -> Vec<String> {
        let mut paths = Vec::new();
        unused(&self.0, payload, "", &mut paths);
        paths
    }

    /// Keeps of `payload` what is allowed, without copying any of it. Of `data.status`, the object
    /// `data` stays with only `status` in it, and of a list each object with that; of anything else
    /// nothing stays.
    pub(super) fn filter(&self, payload: Map) -> Map {
        filter(&self.0, payload)
    }
}

fn list(nodes: &BTreeMap<String, Node>, above: &str, paths: &mut Vec<String>) {
    for (name, node) in nodes {
        let path = format!("{above}{name}");
        match node {
            Node::Whole => paths.push(path),
            Node::Parts(parts) => list(parts, &format!("{path}."), paths),
        }
    }
}

fn unused(nodes: &BTreeMap<String, Node>, payload: &Map, above: &str, paths: &mut Vec<String>) {
    for (name, value) in payload {
        let path = format!("{above}{name}");
        match (nodes.get(name.as_str()), value) {
            (Some(Node::Whole), _) | (Some(Node::Parts(_)), Value::Array(_)) => {}
            (Some(Node::Parts(parts)), Value::Object(object)) => {
                unused(parts, object, &format!("{path}."), paths);
            }
            _ => paths.push(path),
        }
    }
}

/// The names of a path.
///
/// # Errors
/// What is wrong with it, as the end of a sentence that begins with the path.
pub(super) fn names(path: &str) -> Result<Vec<&str>, String> {
    let names: Vec<&str> = path.split('.').collect();
    if names.iter().any(|name| name.is_empty()) {
        return Err("is not a field name, nor several joined by dots".to_owned());
    }
    Ok(names)
}

fn insert(nodes: &mut BTreeMap<String, Node>, names: &[&str]) {
    let Some((first, rest)) = names.split_first() else {
        return;
    };
    if rest.is_empty() {
        nodes.insert((*first).to_owned(), Node::Whole);
        return;
    }
    let node = nodes
        .entry((*first).to_owned())
        .or_insert_with(|| Node::Parts(BTreeMap::new()));
    // The whole, where it is allowed already, has the part in it.
    if let Node::Parts(parts) = node {
        insert(parts, rest);
    }
}

fn filter(nodes: &BTreeMap<String, Node>, mut payload: Map) -> Map {
    let kept = nodes.iter().filter_map(|(name, node)| {
        let value = payload.remove(name)?;
        let value = match (node, value) {
            (Node::Whole, value) => value,
            (Node::Parts(parts), Value::Object(object)) => Value::Object(filter(parts, object)),
            (Node::Parts(parts), Value::Array(list)) => {
                let objects = list.into_iter().filter_map(|value| match value {
                    Value::Object(object) => Some(Value::Object(filter(parts, object))),
                    _ => None,
                });
                Value::Array(objects.collect())
            }
            (Node::Parts(_), _) => return None,
        };
        Some((name.clone(), value))
    });
    kept.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::AllowList;
    use crate::json::parse;

    fn filtered(paths: &[&str], payload: &Value) -> Value {
        let mut list = AllowList::default();
        for path in paths {
            list.add(path, false).unwrap();
        }
        let Ok(crate::json::Value::Object(payload)) = parse(payload.to_string().as_bytes()) else {
            panic!("an object");
        };
        let filtered = crate::json::Value::Object(list.filter(payload));
        filtered.into()
    }

    #[test]
    fn only_what_is_listed_stays() {
        let payload = json!({
            "a": 1, "b": {"c": 2, "d": {"e": 3, "f": 4}}, "n": null, "b.c": 5,
            "l": [{"c": 6, "d": 7}, 8, [{"c": 9}], {"d": 10}],
        });
        for (paths, want) in [
            (vec![], json!({})),
            (vec!["a", "n", "x"], json!({"a": 1, "n": null})),
            (vec!["b.c"], json!({"b": {"c": 2}})),
            (vec!["b.d.e", "b.c"], json!({"b": {"c": 2, "d": {"e": 3}}})),
            (
                vec!["b", "b.c"],
                json!({"b": {"c": 2, "d": {"e": 3, "f": 4}}}),
            ),
            (
                vec!["b.c", "b"],
                json!({"b": {"c": 2, "d": {"e": 3, "f": 4}}}),
            ),
            (vec!["a.c", "b.c.x"], json!({"b": {}})),
            (vec!["l.c"], json!({"l": [{"c": 6}, {}]})),
        ] {
            assert_eq!(filtered(&paths, &payload), want, "{paths:?}");
        }
    }

    #[test]
    fn a_path_that_is_none_or_heralds_own_is_refused() {
        for path in [
            "",
            ".",
            "a.",
            ".a",
            "a..b",
            "eventId",
            "recipients",
            "event.x",
        ] {
            assert!(AllowList::default().add(path, false).is_err(), "{path:?}");
        }
        // The sender's, in a foreign payload.
        assert!(AllowList::default().add("event.x", true).is_ok());
        assert!(AllowList::default().add("a..b", true).is_err());
    }
}
