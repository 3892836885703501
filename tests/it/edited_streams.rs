//! Verifies that a stream that its operator edited ends no gateway and no migration, but where a promise would be
//! broken, and that each edit is told in the same words everywhere and left alone.

use async_nats::Client;
use serde_json::{Map, Value, json};

use crate::migrations::{edit, stream};
use crate::support::command::{Output, finish};
use crate::support::gateway::{Builder, Gateway};
use crate::support::nats::Nats;
use crate::support::{PATIENCE, eventually};

async fn run(builder: &Builder, arguments: &[&str]) -> Output {
    finish(tokio::process::Command::from(builder.command(arguments))).await
}

/// The edits that a gateway warns of, in its words.
fn warned(gateway: &Gateway) -> Vec<String> {
    let output = gateway.output();
    let lines = output
        .lines()
        .filter(|line| line.contains("\"a stream was changed by hand\""));
    let edits = lines.map(|line| {
        let line: Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["level"], "WARN", "{line}");
        line["edit"].as_str().unwrap().to_owned()
    });
    edits.collect()
}

/// What an operator may do. The first is `nats stream edit EVENTS --max-bytes=1GB`.
const EDITS: &[(&str, &str)] = &[
    ("EVENTS", r#"{"max_bytes": 1000000000}"#),
    (
        "EVENTS",
        r#"{"max_msgs": 1000000, "max_msgs_per_subject": 1000}"#,
    ),
    (
        "EVENTS",
        r#"{"max_msg_size": 65536, "duplicate_window": 600000000000}"#,
    ),
    (
        "EVENTS",
        r#"{"description": "ours", "compression": "s2", "metadata": {"team": "a"}}"#,
    ),
    ("EVENTS", r#"{"allow_rollup_hdrs": true}"#),
    (
        "SESSIONS",
        r#"{"max_bytes": 50000000, "max_age": 43200000000000}"#,
    ),
    ("SESSIONS", r#"{"deny_delete": true, "deny_purge": true}"#),
    ("DEAD", r#"{"max_msgs": 10, "max_bytes": 1000000}"#),
    (
        "DEAD",
        r#"{"max_age": 60000000000, "duplicate_window": 60000000000}"#,
    ),
    (
        "DEAD",
        r#"{"republish": {"src": "dead.>", "dest": "letters.>"}}"#,
    ),
    ("KV_HERALD_MIGRATIONS", r#"{"max_msgs": 1000}"#),
];

/// What is said of them, with a word of what comes of it or what to do.
const TOLD: &[(&str, &str)] = &[
    (
        "KV_HERALD_MIGRATIONS: max_msgs is 1000, wanted no limit",
        "takes no further migration",
    ),
    (
        "DEAD: duplicate_window is 1m, wanted 2m",
        "nats stream edit DEAD",
    ),
    (
        "DEAD: max_age is 1m, wanted 7days",
        "kept in another number, or for another time",
    ),
    (
        "DEAD: max_bytes is 1000000, wanted 268435456",
        "nats.dead_max_bytes",
    ),
    (
        "DEAD: max_msgs is 10, wanted 100000",
        "nats stream edit DEAD",
    ),
    ("DEAD: republish is {", "sent to another subject as well"),
    (
        "EVENTS: allow_rollup_hdrs is true, wanted false",
        "a publisher can remove events",
    ),
    (
        "EVENTS: duplicate_window is 10m, wanted 2m",
        "nats stream edit EVENTS",
    ),
    (
        "EVENTS: max_bytes is 1000000000, wanted no limit",
        "nats.max_bytes",
    ),
    (
        "EVENTS: max_msg_size is 65536, wanted 131072",
        "nats stream edit EVENTS",
    ),
    (
        "EVENTS: max_msgs is 1000000, wanted no limit",
        "refuses new events",
    ),
    (
        "EVENTS: max_msgs_per_subject is 1000, wanted no limit",
        "nats stream edit EVENTS",
    ),
    (
        "SESSIONS: max_age is 12h, wanted 1day",
        "nats stream edit SESSIONS",
    ),
    (
        "SESSIONS: max_bytes is 50000000, wanted no limit",
        "nats.sessions_max_bytes",
    ),
];

fn fields(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

async fn streams(client: &Client) -> Vec<Map<String, Value>> {
    let mut all = Vec::new();
    for name in ["EVENTS", "SESSIONS", "DEAD"] {
        all.push(stream(client, name).await);
    }
    all
}

#[tokio::test]
async fn an_operators_edits_are_told_and_left_alone() {
    let nats = Nats::jetstream().await;
    let client = nats.connect().await;
    let builder = Gateway::builder(&nats);
    drop(builder.clone().ready().await);
    for (name, change) in EDITS {
        edit(&client, name, fields(change)).await;
    }
    let edited = streams(&client).await;

    let gateway = builder.clone().ready().await;
    let all_there = eventually(PATIENCE, async || warned(&gateway).len() >= TOLD.len());
    assert!(all_there.await, "{:#?}", warned(&gateway));
    let warned = warned(&gateway);
    assert_eq!(warned.len(), TOLD.len(), "{warned:#?}");
    for ((words, way), warned) in TOLD.iter().zip(&warned) {
        assert!(
            warned.contains(words) && warned.contains(way),
            "{words}: {warned}"
        );
    }
    let migrate = run(&builder, &["migrate"]).await.ok();
    let status = run(&builder, &["migrate", "--status"]).await.ok();
    let check = run(&builder, &["check", "--nats"]).await.ok();
    for edit in &warned {
        assert!(migrate.stderr.contains(edit), "{edit}: {migrate:?}");
        assert!(status.stdout.contains(edit), "{edit}: {status:?}");
        assert!(check.stdout.contains(edit), "{edit}: {check:?}");
    }
    assert_eq!(streams(&client).await, edited, "nothing is undone");

    // What has a setting is reconciled, and nothing else with it.
    let longer = builder.clone().set("nats.max_age", "2h");
    let output = run(&longer, &["migrate", "--json"]).await.ok();
    assert_eq!(output.json()["reconciled"][0]["field"], "max_age");
    let mut expected = edited;
    expected[0].insert("max_age".to_owned(), json!(7_200_000_000_000_u64));
    assert_eq!(streams(&client).await, expected);
}

/// Edits with which a promise is broken, and how each is named.
const BROKEN: &[(&str, &str, &str)] = &[
    (
        "EVENTS",
        r#"{"subjects": ["ws.acme.>"]}"#,
        r#"subjects is ["ws.acme.>"], wanted ["ws.>"]"#,
    ),
    ("EVENTS", r#"{"republish": null}"#, "republish is not set"),
    (
        "EVENTS",
        r#"{"republish": {"src": "ws.>", "dest": "live.ws.>", "headers_only": true}}"#,
        "republish is {",
    ),
    (
        "SESSIONS",
        r#"{"republish": {"src": "session.>", "dest": "other.session.>"}}"#,
        "republish is {",
    ),
    (
        "EVENTS",
        r#"{"allow_direct": false}"#,
        "allow_direct is false",
    ),
    (
        "DEAD",
        r#"{"allow_direct": false}"#,
        "allow_direct is false",
    ),
    (
        "EVENTS",
        r#"{"duplicate_window": 1000000000}"#,
        "duplicate_window is 1s, wanted 2m (a publisher's retry would be stored twice)",
    ),
    (
        "EVENTS",
        r#"{"retention": "interest"}"#,
        "retention is \"interest\"",
    ),
    ("EVENTS", r#"{"no_ack": true}"#, "no_ack is true"),
    (
        "EVENTS",
        r#"{"subject_transform": {"src": "ws.>", "dest": "ws.other.>"}}"#,
        "subject_transform is {",
    ),
    (
        "SESSIONS",
        r#"{"max_msg_size": 100}"#,
        "max_msg_size is 100",
    ),
    (
        "SESSIONS",
        r#"{"discard_new_per_subject": true}"#,
        "discard_new_per_subject is true",
    ),
    (
        "EVENTS",
        r#"{"max_msgs_per_subject": 1000, "discard_new_per_subject": true}"#,
        "discard_new_per_subject is true",
    ),
    (
        "EVENTS",
        r#"{"sources": [{"name": "SESSIONS"}]}"#,
        "sources is [",
    ),
    (
        "SESSIONS",
        r#"{"max_age": 5000000000, "duplicate_window": 5000000000}"#,
        "duplicate_window is 5s, wanted 2m",
    ),
    (
        "SESSIONS",
        r#"{"max_age": 60000000000, "duplicate_window": 60000000000}"#,
        "duplicate_window is 1m, wanted 2m (a claim that is sent again would be stored twice; a longer one needs",
    ),
    (
        "KV_HERALD_MIGRATIONS",
        r#"{"max_bytes": 100}"#,
        "max_bytes is 100, wanted 1048576 (the bucket has no room for the ledger",
    ),
    (
        "KV_HERALD_MIGRATIONS",
        r#"{"max_msgs": 5}"#,
        "max_msgs is 5, wanted no limit (the bucket has no room for the ledger",
    ),
    (
        "KV_HERALD_MIGRATIONS",
        r#"{"max_bytes": 1000000, "discard": "old"}"#,
        "discard is \"old\", wanted \"new\" (the bucket would forget",
    ),
];

#[tokio::test]
async fn an_edit_that_breaks_a_promise_ends_serve_and_migrate_and_is_left_alone() {
    let nats = Nats::jetstream().await;
    let client = nats.connect().await;
    let builder = Gateway::builder(&nats);
    drop(builder.clone().ready().await);
    for (name, change, words) in BROKEN {
        let words = format!("stream {name}: {words}");
        let before = stream(&client, name).await;
        edit(&client, name, fields(change)).await;
        let edited = stream(&client, name).await;
        let commands: [&[&str]; 4] = [
            &["serve"],
            &["migrate"],
            &["migrate", "--status"],
            &["check", "--nats"],
        ];
        for arguments in commands {
            let output = run(&builder, arguments).await;
            assert_eq!(output.code, Some(1), "{words}: {arguments:?} {output:?}");
            for words in [words.as_str(), "nats stream edit"] {
                assert!(
                    output.stderr.contains(words),
                    "{words}: {arguments:?} {output:?}"
                );
            }
        }
        assert_eq!(stream(&client, name).await, edited);
        edit(&client, name, Value::Object(with_nulls(before, &edited))).await;
    }
    builder.ready().await;
}

/// The entries that are lost make the files look wrong.
#[tokio::test]
async fn a_bucket_that_forgets_is_named_and_not_what_it_forgot() {
    let nats = Nats::jetstream().await;
    let client = nats.connect().await;
    let builder = Gateway::builder(&nats);
    run(&builder, &["migrate"]).await.ok();
    for (change, words) in [
        (
            r#"{"max_msgs": 2, "discard": "old"}"#,
            "discard is \"old\", wanted \"new\"",
        ),
        (
            r#"{"max_age": 1000000000, "max_msgs": -1, "discard": "new", "duplicate_window": 1000000000}"#,
            "max_age is 1s, wanted no limit",
        ),
        (
            r#"{"max_age": 0, "retention": "interest"}"#,
            "retention is \"interest\", wanted \"limits\"",
        ),
    ] {
        edit(&client, "KV_HERALD_MIGRATIONS", fields(change)).await;
        for arguments in [&["migrate"][..], &["serve"], &["check", "--nats"]] {
            let output = run(&builder, arguments).await;
            assert_eq!(output.code, Some(1), "{words}: {arguments:?} {output:?}");
            for words in [
                &format!("stream KV_HERALD_MIGRATIONS: {words}"),
                "the bucket would forget",
                "nats stream edit KV_HERALD_MIGRATIONS",
            ] {
                assert!(
                    output.stderr.contains(words),
                    "{words}: {arguments:?} {output:?}"
                );
            }
        }
    }
}

#[tokio::test]
async fn what_cannot_be_undone_is_not_said_to_be_edited_back() {
    let nats = Nats::jetstream().await;
    let client = nats.connect().await;
    let builder = Gateway::builder(&nats);
    run(&builder, &["migrate"]).await.ok();
    edit(&client, "DEAD", json!({ "sealed": true })).await;
    let told = run(&builder, &["migrate", "--status"]).await.ok();
    let line = told
        .stdout
        .lines()
        .find(|line| line.contains("stream DEAD: sealed is true"))
        .unwrap();
    for words in ["it takes no dead letter any more", "nats stream rm DEAD"] {
        assert!(line.contains(words), "{line}");
    }
    edit(&client, "EVENTS", json!({ "sealed": true })).await;
    for arguments in [&["migrate"][..], &["serve"]] {
        let output = run(&builder, arguments).await;
        assert_eq!(output.code, Some(1), "{output:?}");
        assert!(
            output.stderr.contains("stream EVENTS: sealed is true")
                && output.stderr.contains("nats stream rm EVENTS")
                && !output.stderr.contains("nats stream edit EVENTS"),
            "{output:?}"
        );
    }
}

/// `before`, with what it lacks of `after` unset.
fn with_nulls(mut before: Map<String, Value>, after: &Map<String, Value>) -> Map<String, Value> {
    for name in after.keys() {
        before.entry(name).or_insert(Value::Null);
    }
    before
}
