//! Promise 7: a bad event harms nothing, and is in DEAD once, with its reason, however many gateways
//! read it. The good events around it arrive, in order.

pub(crate) mod cases;

use std::collections::{BTreeMap, VecDeque};

use async_nats::HeaderMap;
use async_nats::jetstream::stream::Stream;
use serde_json::{Value, json};

use self::cases::{LARGEST, RULES, STREAM_LARGEST, payload_of};
use crate::support::client::Client;
use crate::support::command::herald;
use crate::support::gateway::{Gateway, file};
use crate::support::nats::Nats;
use crate::support::publisher::Publisher;

async fn dead(nats: &Nats) -> Stream {
    let context = async_nats::jetstream::new(nats.connect().await);
    context.get_stream("DEAD").await.unwrap()
}

/// What `herald dead-letters --json` prints, by sequence.
async fn listed(nats: &Nats) -> BTreeMap<u64, Value> {
    let output = herald(nats, &[], &["dead-letters", "--json"]).await.ok();
    let rows: Vec<Value> = output
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let count = rows.len();
    let listed: BTreeMap<u64, Value> = rows
        .into_iter()
        .map(|row| (row["sequence"].as_u64().unwrap(), row))
        .collect();
    assert_eq!(listed.len(), count, "a letter twice");
    listed
}

/// Waits until both gateways have dealt with `bad` events: one of them stored each letter, the other
/// found it there.
async fn dealt_with(gateways: &[Gateway; 2], bad: usize) {
    let bad = bad as f64;
    for gateway in gateways {
        let letters = "herald_dead_letters_total";
        gateway.metric_becomes(letters, "outcome", bad).await;
        assert!(gateway.metric(letters, "dropped").await < 0.5);
    }
    let [first, second] = gateways;
    let published = first.metric("herald_dead_letters_total", "published").await
        + second
            .metric("herald_dead_letters_total", "published")
            .await;
    assert!((published - bad).abs() < 0.5, "{published} of {bad}");
}

#[tokio::test]
async fn each_bad_event_is_one_dead_letter_with_its_reason_and_good_ones_arrive_between() {
    let nats = Nats::jetstream().await;
    let folder = tempfile::tempdir().unwrap();
    let rules = file(folder.path(), "rules.toml", RULES);
    let start = async || {
        let builder = Gateway::builder(&nats).set("projection.rules", &rules);
        builder.ready().await
    };
    let gateways = [start().await, start().await];
    let publisher = Publisher::on(&nats).await;
    let mut ann = Client::join(&gateways[0], "ann", "acme").await;
    let mut bob = Client::join(&gateways[1], "bob", "acme").await;

    let cases = cases::all();
    let mut letters = BTreeMap::new();
    let mut reasons = BTreeMap::new();
    for (index, case) in cases.iter().enumerate() {
        let subject = format!("acme.{}", case.subject);
        let sequence = publisher
            .raw(&subject, case.header_map(), case.payload.clone())
            .await;
        let sentinel = json!({ "title": format!("after {index}") });
        publisher.event("acme.custom.sentinel", &sentinel).await;
        for client in [&mut ann, &mut bob] {
            if case.reason.is_none() {
                let event = client.notification().await["metadata"]["event"].clone();
                assert_eq!(event, case.subject, "{}", case.name());
            }
            let next = client.notification().await;
            assert_eq!(next["title"], sentinel["title"], "{}", case.name());
        }
        if let Some(reason) = case.reason {
            letters.insert(sequence, case);
            *reasons.entry(reason).or_insert(0) += 1;
        }
    }

    dealt_with(&gateways, letters.len()).await;
    for gateway in &gateways {
        for (reason, count) in &reasons {
            let label = format!("reason=\"{reason}\"");
            let counted = gateway.metric("herald_events_bad_total", &label).await;
            assert!(
                (counted - f64::from(*count)).abs() < 0.5,
                "{reason}: {counted}"
            );
        }
    }
    let listed = listed(&nats).await;
    assert_eq!(
        listed.keys().collect::<Vec<_>>(),
        letters.keys().collect::<Vec<_>>()
    );
    let dead = dead(&nats).await;
    for (sequence, case) in letters {
        let row = &listed[&sequence];
        assert_eq!(row["reason"], case.reason.unwrap(), "{}", case.name());
        assert_eq!(row["subject"], format!("ws.acme.{}", case.subject));
        assert_eq!(row["workspace"], "acme");
        let letter = format!("dead.acme.{sequence}");
        let letter = dead.get_last_raw_message_by_subject(&letter).await.unwrap();
        let reason = letter.headers.get("Herald-Reason").unwrap();
        assert_eq!(reason.as_str(), case.reason.unwrap());
        assert!(letter.payload == case.payload, "{}", case.name());
    }
}

#[tokio::test]
async fn sizes_are_exact_to_the_byte() {
    let nats = Nats::jetstream().await;
    let gateway = Gateway::on(&nats).await;
    let publisher = Publisher::on(&nats).await;
    let mut ann = Client::join(&gateway, "ann", "acme").await;
    // How long a notification is beside its title.
    let titled = |length: usize| json!({ "title": "t".repeat(length), "message": "m" });
    publisher.event("acme.custom.x", &titled(1)).await;
    let rest = ann.text().await.len() - 1;
    let fits = titled(LARGEST - rest);
    publisher.event("acme.custom.x", &fits).await;
    assert_eq!(ann.text().await.len(), LARGEST);
    publisher
        .event("acme.custom.x", &titled(LARGEST - rest + 1))
        .await;
    publisher.event("acme.custom.x", &titled(1)).await;
    assert_eq!(ann.text().await.len(), rest + 1);
    let too_large = "notification_too_large";
    gateway
        .metric_becomes("herald_events_bad_total", too_large, 1.0)
        .await;

    // What the stream refuses, its publisher sees, and nobody else.
    let mut headers = HeaderMap::new();
    headers.insert("x", "y");
    for (headers, payload) in [
        (HeaderMap::new(), payload_of(STREAM_LARGEST + 1)),
        (headers, payload_of(STREAM_LARGEST)),
    ] {
        let subject = "ws.acme.custom.x".to_owned();
        let sent = publisher
            .context
            .publish_with_headers(subject, headers, payload.into())
            .await
            .unwrap();
        assert!(sent.await.is_err());
    }
    publisher.event("acme.custom.x", &titled(2)).await;
    assert_eq!(ann.text().await.len(), rest + 2);
    gateway
        .metric_becomes("herald_events_bad_total", "", 1.0)
        .await;
}

/// Publishes `count` bad events, a good one behind each tenth, as fast as the stream takes them; the
/// titles of the good ones are numbers from `from` on.
async fn flood(publisher: &Publisher, count: usize, from: &mut u64) {
    let bad = [
        "{",
        "[]",
        "\u{ff}",
        "{\"title\":7}",
        "{\"recipients\":null}",
    ];
    let mut acks = VecDeque::new();
    for index in 0..count {
        let mut payloads = vec![bad[index % bad.len()].to_owned()];
        if index % 10 == 9 {
            payloads.push(json!({ "title": from.to_string() }).to_string());
            *from += 1;
        }
        for payload in payloads {
            let sent = publisher
                .context
                .publish("ws.acme.custom.x", payload.into());
            acks.push_back(sent.await.unwrap());
        }
        // The client lets only some thousand publishes wait for their acknowledgements.
        while acks.len() > 500 {
            acks.pop_front().unwrap().await.unwrap();
        }
    }
    for ack in acks {
        ack.await.unwrap();
    }
}

#[tokio::test]
async fn ten_thousand_bad_events_at_once_harm_no_good_one_and_are_dead_once() {
    const BAD: usize = 10_000;
    let nats = Nats::jetstream().await;
    let gateways = [Gateway::on(&nats).await, Gateway::on(&nats).await];
    let publisher = Publisher::on(&nats).await;
    let mut ann = Client::join(&gateways[0], "ann", "acme").await;
    let mut bob = Client::join(&gateways[1], "bob", "acme").await;
    let mut sent = 0;
    flood(&publisher, BAD, &mut sent).await;
    // The good ones do not wait for the bad ones, which go to DEAD at their own pace.
    for got in 0..sent {
        for client in [&mut ann, &mut bob] {
            assert_eq!(client.notification().await["title"], got.to_string());
        }
    }
    dealt_with(&gateways, BAD).await;
    for gateway in &gateways {
        gateway
            .metric_becomes("herald_events_bad_total", "", BAD as f64)
            .await;
    }
    let state = dead(&nats).await.info().await.unwrap().state.clone();
    let all = BAD as u64;
    assert_eq!((state.messages, state.subjects_count), (all, all));
    assert_eq!(listed(&nats).await.len(), BAD);
}

#[tokio::test]
async fn an_event_that_nobody_was_connected_for_is_not_judged_but_replay_judges_it() {
    let nats = Nats::jetstream().await;
    let gateway = Gateway::on(&nats).await;
    let publisher = Publisher::on(&nats).await;
    // Before there is a room, and in the time in which a room waits for its next socket.
    let first = publisher.raw("acme.custom.x", HeaderMap::new(), "{").await;
    let ann = Client::join(&gateway, "ann", "acme").await;
    drop(ann);
    gateway.metric_becomes("herald_connections", "", 0.0).await;
    let second = publisher.raw("acme.custom.x", HeaderMap::new(), "[]").await;
    publisher
        .event("acme.custom.x", &json!({ "title": "unheard" }))
        .await;
    let mut ann = Client::join(&gateway, "ann", "acme").await;
    publisher
        .event("acme.custom.x", &json!({ "title": "heard" }))
        .await;
    assert_eq!(ann.notification().await["title"], "heard");
    assert!(gateway.metric("herald_events_bad_total", "").await < 0.5);
    assert!(gateway.metric("herald_dead_letters_total", "outcome").await < 0.5);

    let arguments = ["replay", "--workspace", "acme", "--since", "10m"];
    let replay = herald(&nats, &[], &arguments).await.ok();
    assert!(
        replay
            .stderr
            .contains(&format!("event {first} is bad: json: "))
            && replay
                .stderr
                .contains(&format!("event {second} is bad: not_an_object: "))
            && replay.stderr.contains("2 notifications, 2 bad events"),
        "{replay:?}"
    );
    let titles: Vec<Value> = replay
        .stdout
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["title"].clone())
        .collect();
    assert_eq!(titles, ["unheard", "heard"]);
    // A replay computes; it stores nothing.
    assert!(listed(&nats).await.is_empty());
    // Only now there is one to judge.
    let third = publisher.raw("acme.custom.x", HeaderMap::new(), "{").await;
    gateway
        .metric_becomes("herald_dead_letters_total", "published", 1.0)
        .await;
    assert_eq!(listed(&nats).await.into_keys().collect::<Vec<_>>(), [third]);
}
