//! The requests and answers as JSON Schemas, which the service's INFO has in the metadata of each endpoint.

use serde_json::{Map, Value, json};

use super::wire::{END_REASONS, OperatorEndpoint, PAGE_SESSIONS};

/// The schemas of a request and its answer, as text: metadata of a micro service has no other values.
pub(super) fn of(endpoint: OperatorEndpoint) -> [String; 2] {
    [request(endpoint), answer(endpoint)].map(|schema| schema.to_string())
}

/// An object with these keys and no other. What has no `|` at its end may be missing.
fn object(keys: &[(&str, Value)], required: &[&str]) -> Value {
    let properties: Map<String, Value> = keys
        .iter()
        .map(|(name, schema)| ((*name).to_owned(), schema.clone()))
        .collect();
    json!({
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

fn text() -> Value {
    json!({ "type": "string" })
}

fn number() -> Value {
    json!({ "type": "integer", "minimum": 0 })
}

fn request(endpoint: OperatorEndpoint) -> Value {
    let [_, most] = PAGE_SESSIONS;
    match endpoint {
        OperatorEndpoint::Gateways => object(&[("gateway", text())], &[]),
        OperatorEndpoint::Sessions => object(
            &[
                ("gateway", text()),
                ("workspace", text()),
                ("user", text()),
                ("issuer", text()),
                ("older_s", number()),
                ("younger_s", number()),
                ("after", text()),
                (
                    "limit",
                    json!({ "type": "integer", "minimum": 1, "maximum": most }),
                ),
                ("count", json!({ "type": "boolean" })),
            ],
            &[],
        ),
        OperatorEndpoint::Disconnect => {
            let codes = END_REASONS.map(|reason| json!(reason.code()));
            let codes: Vec<_> = codes.into_iter().fold(Vec::new(), |mut codes, code| {
                if !codes.contains(&code) {
                    codes.push(code);
                }
                codes
            });
            let reasons = END_REASONS.map(|reason| reason.text());
            object(
                &[
                    ("session", text()),
                    ("user", text()),
                    ("issuer", text()),
                    ("workspace", text()),
                    ("code", json!({ "enum": codes })),
                    ("reason", json!({ "enum": reasons })),
                    ("over_ms", number()),
                ],
                &[],
            )
        }
        OperatorEndpoint::Drain => object(&[("gateway", text())], &["gateway"]),
        OperatorEndpoint::LogLevel => {
            let level = json!({ "type": ["string", "null"] });
            object(
                &[("gateway", text()), ("level", level)],
                &["gateway", "level"],
            )
        }
    }
}

/// Later versions may add keys to an answer.
fn answer(endpoint: OperatorEndpoint) -> Value {
    let own: &[&str] = match endpoint {
        OperatorEndpoint::Gateways => &["version", "started", "ready", "sockets", "migrations"],
        OperatorEndpoint::Sessions => &["sessions"],
        OperatorEndpoint::Disconnect => &["closing"],
        OperatorEndpoint::Drain => &["sockets"],
        OperatorEndpoint::LogLevel => &["log_level"],
    };
    let required: Vec<_> = ["gateway", "process"].iter().chain(own).collect();
    json!({ "type": "object", "required": required })
}
