//! Which workspaces a claim grants. Pure. What is not exactly one of the forms below grants nothing:
//! a claim that was written for another purpose must never open a workspace.

use super::Workspaces;
use crate::event::WorkspaceSlug;
use crate::json::{Map, Value};

/// The whole claim, or a whole element of its list, that stands for every workspace.
pub(super) const EVERY_WORKSPACE: &str = "*";

/// The workspaces of the claim `name`. Where there is no claim of that name it is a path.
pub(super) fn workspaces(claims: &Map, name: &str, prefix: &str) -> Workspaces {
    let slug = |entry: &str| WorkspaceSlug::parse(entry.strip_prefix(prefix)?).ok();
    match claim(claims, name) {
        Some(Value::String(text)) if text == EVERY_WORKSPACE => Workspaces::All,
        Some(Value::String(text)) => {
            let words = || text.split_ascii_whitespace();
            // Somebody meant it as every workspace, and it never was: nothing of it is believed.
            if words().any(|word| word == EVERY_WORKSPACE) {
                return Workspaces::Some(Vec::new());
            }
            Workspaces::Some(words().filter_map(slug).collect())
        }
        Some(Value::Array(list))
            if list
                .iter()
                .any(|entry| entry.as_str() == Some(EVERY_WORKSPACE)) =>
        {
            Workspaces::All
        }
        Some(Value::Array(list)) => {
            let names = list.iter().filter_map(Value::as_str);
            Workspaces::Some(names.filter_map(slug).collect())
        }
        Some(Value::Object(members)) => {
            // `"acme": false` says no.
            let is_granted = |value: &Value| !matches!(value, Value::Null | Value::Bool(false));
            let members = members.iter().filter(|(_, value)| is_granted(value));
            Workspaces::Some(members.filter_map(|(name, _)| slug(name)).collect())
        }
        Some(Value::Null | Value::Bool(_) | Value::Number(_)) | None => {
            Workspaces::Some(Vec::new())
        }
    }
}

/// The claim of that name, whatever it holds; only where there is none, what stands at the end of
/// the path. Each step is one whole name: a client called `a.b` is not the way to `a`'s `b`.
pub(super) fn claim<'a>(claims: &'a Map, name: &str) -> Option<&'a Value> {
    if let Some(claim) = claims.get(name) {
        return Some(claim);
    }
    let (first, rest) = name.split_once('.')?;
    rest.split('.')
        .try_fold(claims.get(first)?, |value, segment| match value {
            Value::Object(members) => members.get(segment),
            _ => None,
        })
}
