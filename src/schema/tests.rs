//! The files agree with each other, with the code, and with the contract.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};

use super::*;
use crate::codes::{CloseReason, ProblemType};
use crate::event::{Category, Severity, WorkspaceSlug};
use crate::projection::DEFAULT_RULES;

fn json_of(name: &str) -> Value {
    serde_json::from_str(&find(name).unwrap().text).unwrap()
}

/// All references, wherever they stand.
fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(object) => {
            found.extend(object.get("$ref").and_then(Value::as_str));
            object.values().for_each(|value| references(value, found));
        }
        Value::Array(list) => list.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

#[test]
fn each_file_is_given_out_and_stands_by_itself() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("api/schemas");
    let files = std::fs::read_dir(folder).unwrap();
    let files: BTreeSet<_> = files
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    let listed = SCHEMAS.map(|(name, _)| format!("{name}.json"));
    assert_eq!(files, BTreeSet::from(listed));
    for name in names() {
        let json = json_of(name);
        let mut links = Vec::new();
        references(&json, &mut links);
        for link in links {
            let pointer = link
                .strip_prefix('#')
                .unwrap_or_else(|| panic!("{name}: {link}"));
            assert!(json.pointer(pointer).is_some(), "{name}: {link}");
        }
    }
    for (name, _) in SCHEMAS {
        let json = json_of(name);
        let dialect = "https://json-schema.org/draft/2020-12/schema";
        assert_eq!(json["$schema"], dialect, "{name}");
        // Code generators name types by it.
        let title = json["title"].as_str().unwrap();
        assert!(
            title.chars().all(|char| char.is_ascii_alphabetic()),
            "{name}"
        );
        assert!(json["description"].is_string(), "{name}");
    }
    let titles = SCHEMAS.map(|(name, _)| json_of(name)["title"].to_string());
    assert_eq!(BTreeSet::from(titles).len(), SCHEMAS.len());
}

#[test]
fn an_unknown_name_gets_a_list_of_all() {
    for (name, title) in [
        ("notification", "Notification"),
        ("record.created", "RecordCreated"),
        ("custom.order_placed", "CustomEvent"),
        ("system.maintenance", "SystemEvent"),
        ("control.hello", "ControlHello"),
    ] {
        assert_eq!(json_of(name)["title"], title);
    }
    assert_eq!(json_of("asyncapi")["asyncapi"], "3.0.0");
    for (name, meant) in [
        ("notificatoin", "did you mean `notification`?"),
        ("record.create", "did you mean `record.created`?"),
        (
            "",
            "there are asyncapi, openapi, close-codes, notification,",
        ),
        ("../asyncapi", "there are asyncapi"),
    ] {
        let said = find(name).unwrap_err();
        assert!(
            said.contains(meant) && said.contains("control.hello"),
            "{said}"
        );
    }
}

/// What a generated client sends, the parsers take.
#[test]
fn the_document_of_http_publishing_has_the_problems_that_there_are() {
    let document = json_of(OPENAPI);
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    let types = &document["components"]["schemas"]["problem"]["properties"]["type"]["enum"];
    let known = ProblemType::ALL.map(|it| format!("urn:herald:problem:{}", it.as_str()));
    assert_eq!(*types, json!(known));
    let post = &document["paths"]["/v1/workspaces/{workspace}/events/{event}"]["post"];
    let statuses: BTreeSet<_> = ProblemType::ALL.map(|it| it.status().to_string()).into();
    let documented = post["responses"].as_object().unwrap().keys().cloned();
    let documented: BTreeSet<_> = documented
        .filter(|status| !status.starts_with('2'))
        .collect();
    assert_eq!(documented, statuses);
    // Its events are those of the other files, but that it says nothing of one that looks like a CloudEvent: such an
    // object is taken, as one.
    for name in ["event", "cloudevent"] {
        let text = file(name).unwrap();
        let text = text.replace("\"event.json\"", "\"#/components/schemas/event\"");
        let mut wanted: Value = serde_json::from_str(&text).unwrap();
        let members = wanted.as_object_mut().unwrap();
        members.remove("$schema");
        members.remove("not");
        assert_eq!(document["components"]["schemas"][name], wanted, "{name}");
    }
    let pattern = post["parameters"][1]["schema"]["pattern"].as_str().unwrap();
    for category in Category::ALL {
        let names = category.names().map(|names| names.join("|"));
        let part = names.map(|names| format!("{}\\.({names})", category.as_str()));
        assert!(
            pattern.contains(part.as_deref().unwrap_or(category.as_str())),
            "{pattern}"
        );
    }
}

#[test]
fn the_document_is_of_this_version_and_has_the_table_of_close_codes() {
    let document = json_of(ASYNCAPI);
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    let codes = &document["channels"]["socket"]["x-close-codes"];
    assert_eq!(*codes, json_of(CLOSE_CODES));
    for reason in CloseReason::ALL {
        let reasons = codes[reason.code().to_string()]["reasons"].as_array();
        assert!(
            reasons.unwrap().contains(&json!(reason.text())),
            "{reason:?}"
        );
    }
}

/// Each event has a subject, a schema and a message, and no other has.
#[test]
fn the_document_has_the_subjects_that_there_are() {
    let document = json_of(ASYNCAPI);
    let channels = document["channels"].as_object().unwrap();
    let mut found: BTreeSet<_> = channels
        .values()
        .map(|channel| channel["address"].as_str().unwrap().to_owned())
        .collect();
    for other in ["/", "ws.{workspace}.{category}.{name}"] {
        assert!(found.remove(other), "{other}");
    }
    let mut wanted = BTreeSet::new();
    for category in Category::ALL {
        let category_name = category.as_str();
        let names = category.names().unwrap_or(&["{name}"]);
        for name in names {
            let subject = format!("ws.{{workspace}}.{category_name}.{name}");
            let schema = match category.names() {
                Some(_) => format!("{category_name}.{name}"),
                None => category_name.to_owned(),
            };
            let channel = channels.values().find(|it| it["address"] == *subject);
            let link = channel.unwrap()["messages"]["event"]["$ref"]
                .as_str()
                .unwrap();
            let message = document.pointer(link.trim_start_matches('#')).unwrap();
            let payload = json!(format!("#/components/schemas/{schema}"));
            assert_eq!(message["payload"]["$ref"], payload, "{subject}");
            wanted.insert(subject);
        }
    }
    assert_eq!(found, wanted);
    let categories = &channels["foreign"]["parameters"]["category"]["enum"];
    assert_eq!(*categories, json!(Category::ALL.map(Category::as_str)));
    let types = json!(Severity::ALL.map(Severity::as_str));
    assert_eq!(
        json_of("notification")["properties"]["type"]["anyOf"][0]["enum"],
        types
    );
    let mut or_null = types.as_array().unwrap().clone();
    or_null.push(Value::Null);
    assert_eq!(
        json_of("event")["properties"]["type"]["enum"],
        json!(or_null)
    );
    let query = &channels["socket"]["bindings"]["ws"]["query"]["properties"];
    let pattern = query["workspaceSlug"]["pattern"].as_str().unwrap();
    let most = WorkspaceSlug::MAX_LEN - 1;
    assert_eq!(pattern, format!("^[A-Za-z0-9][A-Za-z0-9_-]{{0,{most}}}$"));
}

/// The fields of an event that the built-in rules make something of are those of its schema.
#[test]
fn the_fields_of_an_event_are_those_of_its_built_in_rule() {
    // Said to be taken and never shown.
    const INSIDE: [&str; 2] = ["data", "error"];
    let rules: toml::Table = DEFAULT_RULES.parse().unwrap();
    let rules = rules["rule"].as_array().unwrap();
    let own = json_of("event");
    let own = own["properties"].as_object().unwrap();
    for (name, _) in SCHEMAS {
        let Ok(event) = EventName::parse(name) else {
            continue;
        };
        let rule = rules
            .iter()
            .find(|rule| rule["match"].as_str().unwrap() == event.to_string());
        let wanted: BTreeSet<_> = rule.unwrap()["fields"]
            .as_array()
            .unwrap()
            .iter()
            .map(|field| field.as_str().unwrap().to_owned())
            .collect();
        let schema = json_of(name);
        let parts = schema["$defs"].as_object().unwrap().values();
        let found: BTreeSet<_> = parts
            .chain([&schema])
            .filter_map(|part| part["properties"].as_object())
            .flat_map(serde_json::Map::keys)
            .filter(|field| !own.contains_key(*field) && !INSIDE.contains(&field.as_str()))
            .cloned()
            .collect();
        assert_eq!(found, wanted, "{name}");
    }
}

/// `field: string;` and `field?: string;` of the contract's own interface.
#[test]
fn a_notification_has_the_fields_of_the_contract() {
    let contract = include_str!("../../docs/contract.txt");
    let (_, interface) = contract.split_once("interface Notification {\n").unwrap();
    let (interface, _) = interface.split_once("\n}").unwrap();
    let schema = json_of("notification");
    let required = schema["required"].as_array().unwrap();
    let mut properties = schema["properties"].as_object().unwrap().clone();
    for line in interface.lines() {
        let (name, rest) = line.split_once(':').unwrap();
        let (kind, _) = rest.trim().split_once(';').unwrap();
        let optional = name.strip_suffix('?');
        let name = optional.unwrap_or(name);
        let property = properties.remove(name).unwrap();
        assert_eq!(
            required.contains(&json!(name)),
            optional.is_none(),
            "{name}"
        );
        let of = property["type"].as_str().unwrap_or("any");
        assert_eq!(of, kind, "{name}");
    }
    assert!(properties.is_empty(), "{properties:?}");
}
