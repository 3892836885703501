//! Events: what a schema refuses is what a gateway makes a dead letter of, and what it takes arrives.

use std::collections::BTreeSet;

use async_nats::HeaderMap;
use serde_json::{Value, json};

use super::cases::{self, Both, Case};
use super::judge::verdicts;
use crate::bad_events::cases as bad_events;
use crate::support::client::Client;
use crate::support::command::herald;
use crate::support::gateway::Gateway;
use crate::support::nats::Nats;
use crate::support::publisher::Publisher;

/// The ways in which the document lets the event be: of one of them each schema must take its value.
fn ways(
    event: &str,
    headers: &[(&'static str, String)],
    payload: &str,
) -> Vec<Vec<(String, Value)>> {
    let value: Value = serde_json::from_str(payload).unwrap_or_default();
    let is_structured = |(name, value): &(&str, String)| {
        *name == "content-type" && value.starts_with("application/cloudevents")
    };
    if headers.iter().any(is_structured) {
        return vec![vec![("cloudevent".to_owned(), value)]];
    }
    if headers.iter().any(|(name, _)| name.starts_with("ce-")) {
        let given = headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), json!(value)));
        let mut all = vec![(
            "cloudevent.headers".to_owned(),
            Value::Object(given.collect()),
        )];
        if !value.is_null() {
            all.push(("event".to_owned(), value));
        }
        return vec![all];
    }
    let kind = match event.split_once('.') {
        Some((category @ ("system" | "custom"), _)) => category,
        _ => event,
    };
    ["cloudevent", kind]
        .map(|schema| vec![(schema.to_owned(), value.clone())])
        .into()
}

/// Which of these events the schemas take.
fn taken(events: &[Vec<Vec<(String, Value)>>]) -> Vec<bool> {
    let all: Vec<_> = events.iter().flatten().flatten().cloned().collect();
    let mut verdicts = verdicts(&all).into_iter();
    let mut is_right = |way: &Vec<_>| {
        // Each has its own verdict, also where the first would do.
        let faults = verdicts.by_ref().take(way.len()).flatten();
        faults.count() == 0
    };
    events
        .iter()
        .map(|ways| {
            ways.iter()
                .map(&mut is_right)
                .fold(false, |any, right| any | right)
        })
        .collect()
}

#[tokio::test]
async fn what_the_schemas_refuse_is_a_dead_letter_and_what_they_take_arrives() {
    let cases = cases::all();
    let nats = Nats::jetstream().await;
    let gateway = Gateway::on(&nats).await;
    let publisher = Publisher::on(&nats).await;
    let mut ann = Client::join(&gateway, "ann", "acme").await;
    let mut sequences = Vec::new();
    for case in &cases {
        let mut headers = HeaderMap::new();
        for (name, value) in &case.headers {
            headers.append(*name, value.as_str());
        }
        let subject = format!("acme.{}", case.event);
        sequences.push(publisher.raw(&subject, headers, case.payload.clone()).await);
    }
    let end = json!({ "title": "the end" });
    publisher.event("acme.custom.x", &end).await;
    let mut arrived = Vec::new();
    while arrived
        .last()
        .is_none_or(|last: &Value| last["title"] != end["title"])
    {
        arrived.push(ann.notification().await);
    }
    arrived.pop();
    let is_dead = |case: &Case| matches!(case.both, Both::Refuse | Both::OnlyGateway);
    let dead = cases.iter().filter(|case| is_dead(case)).count();
    gateway
        .metric_becomes("herald_dead_letters_total", "published", dead as f64)
        .await;
    let letters = herald(&nats, &[], &["dead-letters", "--json"]).await.ok();
    let letters: BTreeSet<u64> = letters
        .stdout
        .lines()
        .map(|line| {
            serde_json::from_str::<Value>(line).unwrap()["sequence"]
                .as_u64()
                .unwrap()
        })
        .collect();

    let ways: Vec<_> = cases
        .iter()
        .map(|case| ways(&case.event, &case.headers, &case.payload))
        .collect();
    for ((case, sequence), is_taken) in cases.iter().zip(sequences).zip(taken(&ways)) {
        let name = format!("{} {:?} {}", case.event, case.headers, case.payload);
        assert_eq!(
            letters.contains(&sequence),
            is_dead(case),
            "the gateway: {name}"
        );
        let takes = matches!(case.both, Both::Take | Both::OnlyGateway);
        assert_eq!(is_taken, takes, "the schema: {name}");
    }
    // One is for nobody.
    assert_eq!(arrived.len(), cases.len() - dead - 1);
    let sent: Vec<_> = arrived
        .into_iter()
        .map(|one| ("notification".to_owned(), one))
        .collect();
    let wrong: Vec<_> = verdicts(&sent)
        .into_iter()
        .zip(&sent)
        .filter(|(fault, _)| fault.is_some())
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

fn payload(case: &bad_events::Case) -> &str {
    std::str::from_utf8(&case.payload).unwrap()
}

/// The events of which another test shows what a real gateway makes of them.
#[test]
fn the_schemas_agree_on_the_events_that_are_known_to_be_bad() {
    // What stands in bytes, subjects, rules and sizes, a schema cannot say.
    const SEEN: [&str; 4] = ["field", "recipients", "cloudevent", "not_an_object"];
    let cases: Vec<_> = bad_events::all()
        .into_iter()
        .filter(|case| case.reason.is_none_or(|reason| SEEN.contains(&reason)))
        // A parser of others takes fewer texts than a gateway. Headers that are given twice are no JSON.
        .filter(|case| serde_json::from_slice::<Value>(&case.payload).is_ok())
        .filter(|case| {
            let names: BTreeSet<_> = case
                .headers
                .iter()
                .map(|(name, _)| name.to_lowercase())
                .collect();
            names.len() == case.headers.len()
        })
        .collect();
    assert!(cases.len() > 40, "{}", cases.len());
    let ways: Vec<_> = cases
        .iter()
        .map(|case| ways(&case.subject, &case.headers, payload(case)))
        .collect();
    for (case, is_taken) in cases.iter().zip(taken(&ways)) {
        if is_taken {
            // What is written in percent signs or base64 is not looked into.
            let headers = case.headers.iter().map(|(_, value)| value.as_str());
            let is_inside =
                |text: &str| text == "text/plain" || text.contains("\"data_base64\":\"e3\"");
            let is_inside = headers.chain([payload(case)]).any(is_inside);
            assert!(case.reason.is_none() || is_inside, "{}", case.name());
        } else {
            assert!(case.reason.is_some(), "{}", case.name());
        }
    }
}
