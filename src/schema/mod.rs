//! The contract as schemas: what `herald schema` prints and the admin listener serves. Pure.
//!
//! The files in `api/` are the one source. They refer to each other. What is printed here is complete in itself, so that
//! it can be read from a pipe.

#[cfg(test)]
mod tests;

use std::borrow::Cow;

use crate::config::near;
use crate::event::EventName;

/// The document that has all the others in it.
pub(crate) const ASYNCAPI: &str = "asyncapi";
const CLOSE_CODES: &str = "close-codes";
/// The document of HTTP publishing.
pub(crate) const OPENAPI: &str = "openapi";

const DOCUMENT: &str = include_str!("../../api/asyncapi.json");
const TABLE: &str = include_str!("../../api/close-codes.json");
const HTTP: &str = include_str!("../../api/openapi.json");

/// Which JSON Schema it is. In another document the document says so.
const DIALECT: &str = "  \"$schema\": \"https://json-schema.org/draft/2020-12/schema\",\n";

macro_rules! files {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_str!(concat!("../../api/schemas/", $name, ".json")))),*]
    };
}

const SCHEMAS: [(&str, &str); 25] = files![
    "notification",
    "client",
    "client.heartbeat",
    "client.token",
    "control",
    "control.hello",
    "control.heartbeat",
    "control.token",
    "event",
    "event.headers",
    "record",
    "record.created",
    "record.updated",
    "record.deleted",
    "record.bulk_completed",
    "function",
    "function.started",
    "function.completed",
    "function.failed",
    "function.timeout",
    "system",
    "custom",
    "foreign",
    "cloudevent",
    "cloudevent.headers",
];

/// One of them, as it is printed or served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Schema {
    pub(crate) content_type: &'static str,
    pub(crate) text: Cow<'static, str>,
}

/// The names, the document's first.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    let schemas = SCHEMAS.iter().map(|(name, _)| *name);
    [ASYNCAPI, OPENAPI, CLOSE_CODES].into_iter().chain(schemas)
}

/// The one of that name, or of that event: `custom.order_placed` is a `custom`.
///
/// # Errors
/// All names, and the nearest.
pub(crate) fn find(name: &str) -> Result<Schema, String> {
    match name {
        ASYNCAPI => {
            return Ok(Schema {
                content_type: "application/vnd.aai.asyncapi+json;version=3.0.0",
                text: document().into(),
            });
        }
        OPENAPI => {
            return Ok(Schema {
                content_type: "application/vnd.oai.openapi+json;version=3.1",
                text: HTTP.into(),
            });
        }
        CLOSE_CODES => {
            return Ok(Schema {
                content_type: "application/json",
                text: TABLE.into(),
            });
        }
        _ => {}
    }
    let event = EventName::parse(name).ok();
    let category = event.map(|event| event.category().as_str());
    let file = file(name).or_else(|| file(category?));
    let text = file.map(alone).ok_or_else(|| {
        let meant = near(name, names()).map(|nearest| format!(": did you mean `{nearest}`?"));
        let all: Vec<_> = names().collect();
        format!(
            "there is no schema of that name{}\nthere are {}",
            meant.unwrap_or_default(),
            all.join(", ")
        )
    })?;
    Ok(Schema {
        content_type: "application/schema+json",
        text,
    })
}

fn file(name: &str) -> Option<&'static str> {
    let found = SCHEMAS.iter().find(|(known, _)| *known == name);
    found.map(|(_, text)| *text)
}

/// A schema with those that it names beneath it.
fn alone(text: &'static str) -> Cow<'static, str> {
    let mut needed = named_by(text);
    let mut next = 0;
    while let Some((_, text)) = needed.get(next) {
        for other in named_by(text) {
            if !needed.contains(&other) {
                needed.push(other);
            }
        }
        next += 1;
    }
    let Some(open) = text.trim_end().strip_suffix("\n}") else {
        return text.into();
    };
    if needed.is_empty() {
        return text.into();
    }
    let below: Vec<_> = needed
        .iter()
        .map(|(name, text)| format!("    \"{name}\": {}", inner(text, "    ", "#/$defs/")))
        .collect();
    format!(
        "{},\n  \"$defs\": {{\n{}\n  }}\n}}\n",
        renamed(open, "#/$defs/"),
        below.join(",\n")
    )
    .into()
}

/// The document with all that it names in it.
fn document() -> String {
    let mut text = DOCUMENT.replace(
        "{ \"$ref\": \"./close-codes.json\" }",
        &inner(TABLE, "      ", ""),
    );
    for (name, schema) in SCHEMAS {
        let link = format!("{{ \"$ref\": \"./schemas/{name}.json\" }}");
        text = text.replace(&link, &inner(schema, "      ", "#/components/schemas/"));
    }
    text
}

/// The schemas that a file names.
fn named_by(text: &str) -> Vec<(&'static str, &'static str)> {
    let names = |name: &str| text.contains(&link(name));
    SCHEMAS
        .into_iter()
        .filter(|(name, _)| names(name))
        .collect()
}

/// How one file names another.
fn link(name: &str) -> String {
    format!("\"$ref\": \"{name}.json\"")
}

/// The text with references within the same document: what a file names is at `pointer` there.
fn renamed(text: &str, pointer: &str) -> String {
    SCHEMAS.iter().fold(text.to_owned(), |text, (name, _)| {
        text.replace(&link(name), &format!("\"$ref\": \"{pointer}{name}\""))
    })
}

/// A file as a value within another.
fn inner(text: &str, indent: &str, pointer: &str) -> String {
    let text = renamed(text.trim_end(), pointer).replacen(DIALECT, "", 1);
    text.replace('\n', &format!("\n{indent}"))
}
