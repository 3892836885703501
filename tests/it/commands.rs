//! Verifies what `herald publish`, `herald replay` and `herald dead-letters` do against a real
//! server, and that each way they can fail is told plainly and by the exit code.

use std::io::Write as _;
use std::process::{Output, Stdio};

use async_nats::HeaderMap;
use herald::config::NatsConfig;
use herald::event::{BadEvent, Reason, StoredMessage, WorkspaceSlug};
use herald::nats::DeadLetters;
use serde_json::{Value, json};

use crate::support::gateway::{Builder, Gateway};
use crate::support::nats::Nats;
use crate::support::publisher::Publisher;

async fn migrated() -> Nats {
    let nats = Nats::jetstream().await;
    let client = nats.connect().await;
    let config = NatsConfig::default();
    herald::migrate::apply(&client, &config).await.unwrap();
    nats
}

/// Runs `herald`, with `input` on its standard input.
fn run(settings: &Builder, arguments: &[&str], input: &str) -> Output {
    let mut child = settings
        .command(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A command that does not read its input may be gone already.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    child.wait_with_output().unwrap()
}

fn herald(nats: &Nats, arguments: &[&str]) -> Output {
    run(&Gateway::builder(nats), arguments, "")
}

/// Standard output of a command that must end well.
fn out(output: &Output) -> String {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Standard error of a command that must end with `code`.
fn error(output: &Output, code: i32) -> String {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(output.stdout.is_empty());
    text
}

fn json_lines(text: &str) -> Vec<Value> {
    let lines = text.lines().map(serde_json::from_str);
    lines.collect::<Result<_, _>>().unwrap()
}

#[tokio::test]
async fn publish_stores_an_event_and_says_where() {
    let nats = migrated().await;
    let first = herald(&nats, &["publish", "acme", "custom.x"]);
    assert_eq!(out(&first), "EVENTS 1\n");
    let second = [
        "publish",
        "acme",
        "custom.x",
        r#"{"title":"T"}"#,
        "--id",
        "e-1",
        "--json",
    ];
    let stored = json!({"stream": "EVENTS", "sequence": 2, "duplicate": false});
    assert_eq!(json_lines(&out(&herald(&nats, &second))), [stored]);
    // The same id again is a duplicate; in another workspace it is another event.
    let again = herald(&nats, &["publish", "acme", "custom.x", "--id", "e-1"]);
    assert_eq!(out(&again), "EVENTS 2 duplicate\n");
    let other = herald(&nats, &["publish", "globex", "custom.x", "--id", "e-1"]);
    assert_eq!(out(&other), "EVENTS 3\n");
    let arguments = [
        "publish",
        "acme",
        "record.created",
        "-",
        "--id",
        "e 2",
        "--cloudevent",
    ];
    let piped = run(&Gateway::builder(&nats), &arguments, r#"{"recordId":"r1"}"#);
    assert_eq!(out(&piped), "EVENTS 4\n");

    let context = Publisher::on(&nats).await.context;
    let stream = context.get_stream("EVENTS").await.unwrap();
    let event = stream.get_raw_message(4).await.unwrap();
    assert_eq!(event.subject.as_str(), "ws.acme.record.created");
    assert_eq!(event.payload, r#"{"recordId":"r1"}"#);
    let header = |name: &str| event.headers.get(name).unwrap().as_str();
    assert_eq!(header("Nats-Msg-Id"), "acme:e 2");
    assert_eq!(
        (header("ce-id"), header("ce-type")),
        ("e%202", "record.created")
    );
    assert!(herald::event::is_traceparent(header("traceparent")));
}

#[tokio::test]
async fn publish_refuses_a_wrong_event_without_any_server() {
    let settings = Gateway::without_nats().set("nats.url", "nats://127.0.0.1:1");
    for (arguments, want) in [
        (&["publish", "acmé", "custom.x"][..], "slug"),
        (
            &["publish", "acme", "record.create"],
            "created, updated, deleted",
        ),
        (&["publish", "acme", "custom.x", "[]"], "not an object"),
        (&["publish", "acme", "custom.x", "-"], "over 65536 bytes"),
    ] {
        let output = run(&settings, arguments, &" ".repeat(70_000));
        assert!(error(&output, 2).contains(want), "{output:?}");
    }
    let away = run(&settings, &["publish", "acme", "custom.x"], "");
    assert!(error(&away, 1).contains("NATS cannot be reached"));
}

#[tokio::test]
async fn publish_says_what_the_server_has_against_it() {
    let without_stream = Nats::jetstream().await;
    let output = herald(&without_stream, &["publish", "acme", "custom.x"]);
    assert!(
        error(&output, 1).contains("no stream takes ws.acme.custom.x: there is no stream EVENTS")
    );

    let restricted = "jetstream: enabled\nmax_payload: 1024\nauthorization { users: [\
        { user: all, password: p }, \
        { user: one, password: p, permissions: { publish: \"ws.acme.>\", subscribe: \"_INBOX.>\" } } ] }";
    let nats = Nats::start(restricted).await;
    let client = nats.connect_as("all", "p", "_INBOX").await.unwrap();
    herald::migrate::apply(&client, &NatsConfig::default())
        .await
        .unwrap();
    let as_one = Gateway::without_nats().set("nats.url", nats.url_for("one", "p"));
    assert_eq!(
        out(&run(&as_one, &["publish", "acme", "custom.x"], "")),
        "EVENTS 1\n"
    );
    let start = std::time::Instant::now();
    let denied = run(&as_one, &["publish", "globex", "custom.x"], "");
    let text = error(&denied, 1);
    assert!(
        text.contains("does not allow this user to publish to ws.globex.custom.x"),
        "{text}"
    );
    assert!(start.elapsed().as_secs() < 8, "it waited for the timeout");
    let other_prefix = as_one.clone().set("nats.inbox_prefix", "_INBOX_other");
    let text = error(&run(&other_prefix, &["publish", "acme", "custom.x"], ""), 1);
    assert!(
        text.contains("set nats.inbox_prefix to the one that this user has"),
        "{text}"
    );
    for command in [&["dead-letters"][..], &["replay", "--workspace", "acme"]] {
        let text = error(&run(&as_one, command, ""), 1);
        assert!(text.contains("publish to $JS.API.DIRECT.GET."), "{text}");
    }
    let large = format!("{{\"title\":\"{}\"}}", "x".repeat(2000));
    let output = run(&as_one, &["publish", "acme", "custom.x", &large], "");
    assert!(error(&output, 1).contains("larger, with its headers, than NATS takes"));
    let wrong = Gateway::without_nats().set("nats.url", nats.url_for("one", "wrong"));
    let text = error(&run(&wrong, &["publish", "acme", "custom.x"], ""), 1);
    assert!(text.contains("NATS refused the credentials"), "{text}");
}

#[tokio::test]
async fn replay_prints_what_past_events_would_have_been() {
    let nats = migrated().await;
    let publisher = Publisher::on(&nats).await;
    // More than one read's worth.
    for n in 0..1100 {
        let payload = json!({"title": n.to_string(), "metadata": {"n": n}});
        publisher.event("acme.custom.x", &payload).await;
    }
    publisher.event("globex.custom.x", &json!({})).await;
    publisher
        .raw("acme.custom.x", HeaderMap::new(), "not JSON")
        .await;
    publisher
        .event(
            "acme.custom.x",
            &json!({"title": "for u", "recipients": ["u"]}),
        )
        .await;
    publisher
        .event(
            "acme.custom.x",
            &json!({"title": "for v", "recipients": ["v"]}),
        )
        .await;

    let all = herald(&nats, &["replay", "--workspace", "acme", "--since", "1h"]);
    let notifications = json_lines(&out(&all));
    assert_eq!(notifications.len(), 1102);
    for (n, notification) in notifications.iter().take(1100).enumerate() {
        assert_eq!(notification["metadata"]["n"], n);
    }
    let text = String::from_utf8(all.stderr).unwrap();
    assert!(text.contains("event 1102 is bad: json"), "{text}");
    assert!(text.contains("1102 notifications, 1 bad events"), "{text}");

    let arguments = ["replay", "--workspace", "acme", "--user", "u"];
    let for_u = json_lines(&out(&herald(&nats, &arguments)));
    assert_eq!(
        (for_u.len(), &for_u[1100]["title"]),
        (1101, &json!("for u"))
    );
    let none = herald(&nats, &["replay", "--workspace", "nobody"]);
    assert_eq!(out(&none), "");
    let now = herald(&nats, &["replay", "--workspace", "acme", "--since", "0s"]);
    assert_eq!(out(&now), "");

    for (arguments, code, want) in [
        (&["replay", "--workspace", "a.b"][..], 2, "slug"),
        (&["replay", "--workspace", "acme", "--since", "x"], 2, "10m"),
    ] {
        assert!(error(&herald(&nats, arguments), code).contains(want));
    }
    let empty = Nats::jetstream().await;
    let output = herald(&empty, &["replay", "--workspace", "acme"]);
    assert!(error(&output, 1).contains("there is no stream EVENTS"));
}

#[tokio::test]
async fn dead_letters_are_listed_with_their_reasons() {
    let nats = migrated().await;
    let none = herald(&nats, &["dead-letters"]);
    assert_eq!(out(&none), "");
    let names = NatsConfig::default().names();
    let (letters, publisher) = DeadLetters::start(nats.connect().await, names);
    tokio::spawn(publisher);
    for (workspace, sequence) in [("acme", 7), ("globex", 8)] {
        let message = StoredMessage {
            subject: format!("ws.{workspace}.custom.x").into(),
            sequence,
            time: chrono::DateTime::UNIX_EPOCH,
            last_sequence: None,
            headers: None,
            payload: "hunter2".into(),
        };
        letters.report(
            &WorkspaceSlug::parse(workspace).unwrap(),
            &message,
            &BadEvent::new(Reason::Json, "the payload is not JSON"),
        );
    }
    letters.end(crate::support::PATIENCE).await;

    let table = out(&herald(&nats, &["dead-letters"]));
    let lines: Vec<_> = table.lines().collect();
    assert_eq!(lines.len(), 3, "{table}");
    let cells: Vec<_> = lines[1].split_whitespace().collect();
    assert_eq!(
        cells[..5],
        [
            "acme",
            "7",
            "ws.acme.custom.x",
            "json",
            "1970-01-01T00:00:00.000Z"
        ]
    );
    assert!(!table.contains("hunter2"));
    let arguments = ["dead-letters", "--workspace", "globex", "--json"];
    let want = json!({
        "workspace": "globex", "sequence": 8, "subject": "ws.globex.custom.x",
        "reason": "json", "time": "1970-01-01T00:00:00.000Z", "detail": "the payload is not JSON",
    });
    assert_eq!(json_lines(&out(&herald(&nats, &arguments))), [want]);
    let empty = Nats::jetstream().await;
    let output = herald(&empty, &["dead-letters"]);
    assert!(error(&output, 1).contains("there is no stream DEAD"));
}
