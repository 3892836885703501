//! Judges values by the schemas that `herald schema` prints. By Ajv, which the official CloudEvents SDK brings
//! already, and whose strict mode finds mistakes of the schemas, too.

use std::process::Command;

use serde_json::{Map, Value, json};

use crate::support::clients::{CLIENTS, node};
use crate::support::gateway::{HERALD, file, run};

/// What `herald schema` prints with these arguments.
pub(super) fn printed(arguments: &[&str]) -> String {
    let mut command = Command::new(HERALD);
    command.arg("schema").args(arguments);
    let (code, out, err) = run(command);
    assert_eq!((code, err.as_str()), (Some(0), ""), "{arguments:?}");
    out
}

fn json_of(name: &str) -> Value {
    serde_json::from_str(&printed(&[name])).expect("JSON")
}

/// The names of the JSON Schemas.
pub(super) fn names() -> Vec<String> {
    let list = printed(&["--list"]);
    let names = list
        .lines()
        .filter(|name| !["asyncapi", "openapi", "close-codes"].contains(name));
    names.map(str::to_owned).collect()
}

/// Why each value is not what the schema says; `None`: it is. The schemas themselves must be without fault.
pub(super) fn verdicts(values: &[(String, Value)]) -> Vec<Option<String>> {
    let schemas = names()
        .into_iter()
        .map(|name| (name.clone(), json_of(&name)));
    let values: Vec<_> = values
        .iter()
        .map(|(schema, value)| json!({ "schema": schema, "value": value }))
        .collect();
    let input = json!({
        "schemas": schemas.collect::<Map<_, _>>(),
        "document": json_of("asyncapi"),
        "values": values,
    });
    let folder = tempfile::tempdir().expect("a temporary folder");
    let input = file(folder.path(), "input.json", input.to_string());
    let mut command = node();
    command.args(["schemas.mjs", &input]).current_dir(CLIENTS);
    let (code, out, err) = run(command);
    assert_eq!(code, Some(0), "{out}\n{err}");
    let mut output: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(output["faults"], json!([]));
    serde_json::from_value(output["verdicts"].take()).expect("verdicts")
}
