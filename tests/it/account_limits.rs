//! Verifies that Herald runs in an account that asks for limits and has little room, and that what is full refuses:
//! publishers of events are told, newcomers are put off, and who is there stays.

use serde_json::{Value, json};

use crate::migrations::{edit, stream};
use crate::support::client::Client;
use crate::support::command::{Output, finish, herald};
use crate::support::gateway::{Builder, Gateway};
use crate::support::nats::Nats;
use crate::support::publisher::Publisher;
use crate::support::token::token;
use crate::support::{PATIENCE, eventually};

/// An account that takes no stream without a limit, and has 100 MB in all.
const SMALL: &str = "jetstream: enabled\naccounts {\n  SMALL {\n    jetstream: {\n      max_mem: 1MB\n      \
    max_file: 100MB\n      max_streams: 10\n      max_bytes_required: true\n    }\n    \
    users: [ { user: u, password: p } ]\n  }\n}\nno_auth_user: u\n";

/// The numbers of docs/configuration.md for such an account.
const NUMBERS: [(&str, u32); 3] = [
    ("nats.max_bytes", 64_000_000),
    ("nats.sessions_max_bytes", 16_000_000),
    ("nats.dead_max_bytes", 16_000_000),
];

async fn run(builder: &Builder, arguments: &[&str]) -> Output {
    finish(tokio::process::Command::from(builder.command(arguments))).await
}

fn query(user: &str) -> String {
    format!("token={}&workspaceSlug=acme", token(user, "acme"))
}

#[tokio::test]
async fn an_account_that_asks_for_limits_and_has_little_room_runs_herald() {
    let nats = Nats::start(SMALL).await;
    let client = nats.connect().await;
    let bare = Gateway::builder(&nats);
    for arguments in [&["migrate"][..], &["serve"]] {
        let output = run(&bare, arguments).await;
        assert_eq!(output.code, Some(1), "{output:?}");
        for words in [
            "stream KV_HERALD_MIGRATIONS",
            "max bytes",
            "nats.max_bytes",
            "Limits of an account",
        ] {
            assert!(output.stderr.contains(words), "{words}: {output:?}");
        }
    }
    // With room asked for that the account has not.
    let greedy = bare.clone().set("nats.max_bytes", 900_000_000);
    let output = run(&greedy, &["migrate"]).await;
    assert_eq!(output.code, Some(1), "{output:?}");
    assert!(output.stderr.contains("stream EVENTS"), "{output:?}");
    assert!(
        output.stderr.contains("set nats.max_bytes")
            || output.stderr.contains("Set nats.max_bytes"),
        "{output:?}"
    );

    let mut builder = bare;
    for (key, bytes) in NUMBERS {
        builder = builder.set(key, bytes);
    }
    let gateway = builder.clone().ready().await;
    let mut ann = Client::join(&gateway, "ann", "acme").await;
    let publisher = Publisher::on(&nats).await;
    publisher
        .event("acme.custom.x", &json!({ "title": "T" }))
        .await;
    assert_eq!(ann.notification().await["title"], "T");
    for (name, bytes) in [
        ("EVENTS", 64_000_000),
        ("SESSIONS", 16_000_000),
        ("DEAD", 16_000_000),
        ("REVOKED", 1_048_576),
        ("KV_HERALD_MIGRATIONS", 1_048_576),
    ] {
        let config = stream(&client, name).await;
        assert_eq!(config["max_bytes"], bytes, "{name}");
        assert_eq!(config["discard"], "new", "{name}");
    }
    let status = run(&builder, &["migrate", "--status", "--json"])
        .await
        .ok()
        .json();
    assert_eq!(status["is_applied"], true);
    assert_eq!(
        (&status["differences"], &status["edits"]),
        (&json!([]), &json!([]))
    );
}

fn with(builder: &Builder, limits: [u32; 3]) -> Builder {
    let keys = NUMBERS.map(|(key, _)| key);
    let limits = keys.into_iter().zip(limits);
    limits.fold(builder.clone(), |builder, (key, bytes)| {
        builder.set(key, bytes)
    })
}

/// In an account that is small, one stream's room is another's.
#[tokio::test]
async fn what_is_lowered_makes_room_for_what_is_made_or_raised() {
    let nats = Nats::start(SMALL).await;
    let client = nats.connect().await;
    let bare = Gateway::builder(&nats);
    let greedy = run(
        &with(&bare, [90_000_000, 16_000_000, 16_000_000]),
        &["migrate"],
    )
    .await;
    assert_eq!(greedy.code, Some(1), "{greedy:?}");
    assert!(greedy.stderr.contains("stream SESSIONS"), "{greedy:?}");
    for limits in [
        [64_000_000, 16_000_000, 16_000_000],
        [20_000_000, 16_000_000, 60_000_000],
        [16_000_000, 60_000_000, 20_000_000],
    ] {
        run(&with(&bare, limits), &["migrate"]).await.ok();
        for (name, bytes) in ["EVENTS", "SESSIONS", "DEAD"].into_iter().zip(limits) {
            let config = stream(&client, name).await;
            assert_eq!(config["max_bytes"], bytes, "{name} {limits:?}");
            assert_eq!(config["discard"], "new", "{name}");
        }
    }
}

#[tokio::test]
async fn what_an_account_takes_of_one_stream_is_said() {
    let one = SMALL.replace(
        "max_bytes_required",
        "disk_max_stream_bytes: 30000000\n      max_bytes_required",
    );
    let nats = Nats::start(&one).await;
    let bare = Gateway::builder(&nats);
    for (limits, words) in [
        (
            [40_000_000, 16_000_000, 16_000_000],
            "takes at most 30000000 bytes for one stream: lower nats.max_bytes,",
        ),
        (
            [0, 16_000_000, 16_000_000],
            "nats.max_bytes to a number of bytes: 0 is no limit, and the account requires one",
        ),
    ] {
        let output = run(&with(&bare, limits), &["migrate"]).await;
        assert_eq!(output.code, Some(1), "{output:?}");
        assert!(output.stderr.contains(words), "{words}: {output:?}");
    }
    for (key, _) in NUMBERS {
        let output = run(&bare.clone().set(key, 100), &["check"]).await;
        assert_eq!(output.code, Some(2), "{output:?}");
        assert!(
            output.stderr.contains(&format!("{key} must be at least")),
            "{output:?}"
        );
    }
}

/// Then nobody can connect, not even who has a claim: other words than of a full SESSIONS.
#[tokio::test]
async fn a_full_account_refuses_with_words_of_its_own() {
    let nats = Nats::start(
        "jetstream: enabled\naccounts { A { jetstream: { max_mem: 1MB, max_file: 2550000 }, \
        users: [ { user: u, password: p } ] } }\nno_auth_user: u\n",
    )
    .await;
    let builder = Gateway::builder(&nats).set("nats.dead_max_bytes", 200_000);
    let gateway = builder.clone().ready().await;
    let mut ann = Client::join(&gateway, "ann", "acme").await;
    // Until not even what is as small as a claim has room.
    for size in [40_000, 4_000, 400, 1] {
        let payload = json!({ "title": "x".repeat(size) }).to_string();
        for round in 0.. {
            let output = run(&builder, &["publish", "acme", "custom.x", &payload]).await;
            if output.code != Some(0) {
                assert!(output.stderr.contains("is full"), "{output:?}");
                break;
            }
            ann.notification().await;
            assert!(round < 80, "it never fills");
        }
    }
    let refused = Client::attempt(&gateway, &query("bob")).await.unwrap_err();
    assert_eq!(refused.status, 503);
    assert!(
        refused.body.contains("the NATS account has no room"),
        "{refused:?}"
    );
    assert!(
        refused.retry_after.is_some_and(|seconds| seconds >= 10),
        "{refused:?}"
    );
    gateway
        .metric_becomes("herald_connections_refused_total", "sessions_full", 1.0)
        .await;
    gateway
        .logged("join refused, the nats account has no room")
        .await;
    assert!(ann.is_open().await);
}

#[tokio::test]
async fn limits_in_bytes_are_reconciled_where_they_are_set() {
    let nats = Nats::jetstream().await;
    let client = nats.connect().await;
    let max_bytes = async |name: &str| stream(&client, name).await["max_bytes"].as_i64();
    herald(&nats, &[], &["migrate"]).await.ok();
    assert_eq!(max_bytes("EVENTS").await, Some(-1));
    assert_eq!(max_bytes("DEAD").await, Some(268_435_456));
    for (value, want) in [("5000000", 5_000_000), ("7000000", 7_000_000), ("0", -1)] {
        let settings = [
            ("HERALD_NATS__MAX_BYTES", value),
            ("HERALD_NATS__SESSIONS_MAX_BYTES", value),
            ("HERALD_NATS__DEAD_MAX_BYTES", value),
        ];
        let status = herald(&nats, &settings, &["migrate", "--status"])
            .await
            .ok();
        assert!(
            status
                .stdout
                .contains("differs from the settings: stream EVENTS: max_bytes"),
            "{status:?}"
        );
        herald(&nats, &settings, &["migrate"]).await.ok();
        for name in ["EVENTS", "SESSIONS", "DEAD"] {
            assert_eq!(max_bytes(name).await, Some(want), "{name}");
        }
    }
    // An operator's own stays while nothing is set.
    edit(&client, "EVENTS", json!({ "max_bytes": 3_000_000 })).await;
    herald(&nats, &[], &["migrate"]).await.ok();
    assert_eq!(max_bytes("EVENTS").await, Some(3_000_000));
    let text = herald(
        &nats,
        &[("HERALD_NATS__MAX_BYTES", "9223372036854775808")],
        &["migrate"],
    )
    .await;
    assert_eq!(text.code, Some(2), "{text:?}");
}

#[tokio::test]
async fn full_events_refuse_their_publisher_and_keep_what_is_stored() {
    let nats = Nats::jetstream().await;
    let settings = [("HERALD_NATS__MAX_BYTES", "300000")];
    herald(&nats, &settings, &["migrate"]).await.ok();
    let payload = json!({ "title": "x".repeat(40_000) }).to_string();
    let mut stored = 0;
    let refused = loop {
        let output = herald(&nats, &settings, &["publish", "acme", "custom.x", &payload]).await;
        if output.code != Some(0) {
            break output;
        }
        stored += 1;
        assert!(stored < 20, "it never fills");
    };
    assert!(stored > 1, "{refused:?}");
    assert!(
        refused.stderr.contains("is full: maximum bytes exceeded"),
        "{refused:?}"
    );
    let replayed = herald(&nats, &settings, &["replay", "--workspace", "acme"])
        .await
        .ok();
    assert_eq!(replayed.stdout.lines().count(), stored, "none is dropped");
}

#[tokio::test]
async fn full_sessions_refuse_newcomers_with_a_503_of_its_own_and_close_nobody() {
    let nats = Nats::jetstream().await;
    let gateway = Gateway::builder(&nats)
        .set("nats.sessions_max_bytes", 6000)
        .ready()
        .await;
    let mut inside = Vec::new();
    let refused = loop {
        match Client::attempt(&gateway, &query(&format!("user-{}", inside.len()))).await {
            Ok(client) => inside.push(client),
            Err(refused) => break refused,
        }
        assert!(inside.len() < 50, "it never fills");
    };
    assert!(inside.len() > 1);
    assert_eq!(refused.status, 503);
    assert!(
        refused.body.contains("the store of sessions is full"),
        "{refused:?}"
    );
    assert!(
        refused.retry_after.is_some_and(|seconds| seconds >= 10),
        "{refused:?}"
    );
    gateway
        .metric_becomes("herald_connections_refused_total", "sessions_full", 1.0)
        .await;
    let line = gateway
        .logged("join refused, the stream of claims is full")
        .await;
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(
        (&line["level"], &line["stream"]),
        (&json!("WARN"), &json!("SESSIONS"))
    );
    // Who is there hears on, and comes back.
    let publisher = Publisher::on(&nats).await;
    publisher
        .event("acme.custom.x", &json!({ "title": "T" }))
        .await;
    for client in &mut inside {
        assert_eq!(client.notification().await["title"], "T");
    }
    // Its claim is of a sequence with more digits than the one before.
    assert!(inside.len() > 10);
    let mut again = Client::connect(&gateway, &query("user-0")).await;
    assert!(again.is_open().await);
    assert_eq!(inside[0].closed().await.0, 4009);
    // With room there is a place for everybody.
    let client = nats.connect().await;
    edit(&client, "SESSIONS", json!({ "max_bytes": 1_000_000 })).await;
    let joined = eventually(PATIENCE, async || {
        Client::attempt(&gateway, &query("new")).await.is_ok()
    });
    assert!(joined.await);
}
