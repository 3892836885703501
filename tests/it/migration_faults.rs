//! What stands in a migration's way is named, each fault by itself, and nothing is repaired
//! silently.

use std::time::Duration;

use herald::config::{NatsConfig, Secret};
use herald::migrate::{self, MigrateError, MigrationSet, Migrator};
use serde_json::{Value, json};

use crate::migrations::{LONGER, api, bucket, config, edit, entry, extended, stream};
use crate::support::command::herald;
use crate::support::nats::{JETSTREAM, Nats};

#[tokio::test]
async fn a_file_changed_after_it_was_applied_is_named() {
    let nats = Nats::jetstream().await;
    let client = nats.connect().await;
    let config = config(&nats);
    migrate::apply(&client, &config).await.unwrap();
    let text = MigrationSet::embedded()
        .text("0002_sessions")
        .unwrap()
        .to_owned();
    let set = extended().with("0002_sessions", &format!("{text}# a comment\n"));
    let migrator = Migrator::new(&client, &config, &set).unwrap();
    let error = migrator.apply().await.unwrap_err();
    let checksum = entry(&client, "0002_sessions").await.checksum;
    let MigrateError::Changed {
        name,
        applied,
        ours,
    } = &error
    else {
        panic!("{error:?}");
    };
    assert_eq!(name, "0002_sessions");
    assert!(*applied == checksum && ours != applied);
    let text = error.to_string();
    for words in [name, applied, ours] {
        assert!(text.contains(&format!("{words:.12}")), "{words}: {text}");
    }
    // And nothing after it was applied.
    assert!(
        bucket(&client)
            .await
            .get("0006_longer")
            .await
            .unwrap()
            .is_none()
    );
    assert!(!migrator.status().await.unwrap().is_applied());
}

#[tokio::test]
async fn a_ledger_ahead_is_refused_only_where_it_breaks_older_gateways() {
    let nats = Nats::jetstream().await;
    let client = nats.connect().await;
    let config = config(&nats);
    // It changes a field that this binary knows otherwise, which is then no drift.
    Migrator::new(&client, &config, &extended())
        .unwrap()
        .apply()
        .await
        .unwrap();
    let report = migrate::apply(&client, &config).await.unwrap();
    assert_eq!(report.unknown, ["0006_longer"]);
    let output = herald(&nats, &[], &["migrate"]).await.ok();
    assert!(output.stderr.contains("0006_longer"), "{output:?}");

    let breaking = LONGER.replace(
        "breaks_older_gateways = false",
        "breaks_older_gateways = true",
    );
    let set = extended().with("0007_breaking", &breaking);
    Migrator::new(&client, &config, &set)
        .unwrap()
        .apply()
        .await
        .unwrap();
    let error = migrate::apply(&client, &config).await.unwrap_err();
    assert!(
        matches!(&error, MigrateError::Ahead { breaking } if *breaking == ["0007_breaking"]),
        "{error:?}"
    );
    let output = herald(&nats, &[], &["migrate", "--status"]).await;
    assert_eq!(output.code, Some(1));
    assert!(output.stderr.contains("ahead") && output.stderr.contains("0007_breaking"));
    assert!(
        !output.stderr.contains("0006_longer"),
        "only what breaks: {output:?}"
    );
    assert!(
        output.stdout.contains("0006_longer"),
        "the table has all: {output:?}"
    );
}

#[tokio::test]
async fn a_new_file_before_an_applied_one_is_refused() {
    let nats = Nats::jetstream().await;
    let client = nats.connect().await;
    let config = config(&nats);
    Migrator::new(&client, &config, &extended())
        .unwrap()
        .apply()
        .await
        .unwrap();
    let set = extended().with("0003_late", LONGER);
    let error = Migrator::new(&client, &config, &set)
        .unwrap()
        .apply()
        .await
        .unwrap_err();
    assert!(
        matches!(&error, MigrateError::OutOfOrder { pending, applied }
            if pending == "0003_late" && applied == "0006_longer"),
        "{error:?}"
    );
}

#[tokio::test]
async fn an_object_changed_by_hand_is_named_and_left_alone() {
    let nats = Nats::jetstream().await;
    let client = nats.connect().await;
    let config = config(&nats);
    migrate::apply(&client, &config).await.unwrap();
    edit(
        &client,
        "EVENTS",
        json!({"max_msg_size": 1_048_576, "republish": null}),
    )
    .await;
    let changed = stream(&client, "EVENTS").await;
    let migrator = Migrator::new(&client, &config, &extended()).unwrap();
    let error = migrator.apply().await.unwrap_err();
    let MigrateError::Drift(drift) = &error else {
        panic!("{error:?}");
    };
    let fields: Vec<(&str, &str)> = drift
        .iter()
        .map(|drift| (drift.stream.as_str(), drift.field.as_str()))
        .collect();
    // The other is the operator's own.
    assert_eq!(fields, [("EVENTS", "republish")]);
    let text = error.to_string();
    assert!(
        text.contains("stream EVENTS: republish is not set, wanted {"),
        "{text}"
    );
    let output = herald(&nats, &[], &["migrate"]).await;
    assert_eq!(output.code, Some(1));
    assert!(output.stderr.contains("changed by hand"), "{output:?}");
    assert_eq!(stream(&client, "EVENTS").await, changed);
    assert_ne!(
        stream(&client, "SESSIONS").await["max_age"],
        48 * 3_600_000_000_000_u64
    );
}

#[tokio::test]
async fn a_stream_that_was_made_and_is_gone_is_named() {
    let nats = Nats::jetstream().await;
    let client = nats.connect().await;
    let config = config(&nats);
    migrate::apply(&client, &config).await.unwrap();
    api(&client, "STREAM.DELETE.SESSIONS", &Value::Null).await;
    let error = migrate::apply(&client, &config).await.unwrap_err();
    assert!(
        matches!(&error, MigrateError::Missing { stream, migration }
            if stream == "SESSIONS" && migration == "0002_sessions"),
        "{error:?}"
    );
    assert!(stream(&client, "SESSIONS").await.is_empty());
}

#[tokio::test]
async fn a_stream_of_that_name_with_other_settings_is_named_and_left_alone() {
    let nats = Nats::jetstream().await;
    let client = nats.connect().await;
    let config = config(&nats);
    let theirs = json!({"name": "EVENTS", "subjects": ["orders.>"], "storage": "memory"});
    api(&client, "STREAM.CREATE.EVENTS", &theirs).await;
    let before = stream(&client, "EVENTS").await;
    for error in [
        migrate::apply(&client, &config).await.unwrap_err(),
        migrate::status(&client, &config)
            .await
            .unwrap()
            .check()
            .unwrap_err(),
    ] {
        let MigrateError::OtherSettings(mismatches) = &error else {
            panic!("{error:?}");
        };
        assert!(
            mismatches
                .iter()
                .any(|mismatch| mismatch.field == "subjects")
        );
        assert!(error.to_string().contains("other settings"), "{error}");
    }
    assert_eq!(stream(&client, "EVENTS").await, before);
    let status = migrate::status(&client, &config).await.unwrap();
    assert_eq!(status.pending().count(), 5, "nothing is applied");
}

#[tokio::test]
async fn a_stream_of_the_same_settings_is_taken_as_it_is() {
    let nats = Nats::jetstream().await;
    let client = nats.connect().await;
    let config = config(&nats);
    let migrator = Migrator::new(&client, &config, &MigrationSet::embedded()).unwrap();
    let mut wanted = migrator.migrations()[0].operations[0].config.clone();
    // A value of the settings may differ, as if a process had been cut short before they changed.
    wanted.insert("max_age".to_owned(), json!(7_200_000_000_000_u64));
    api(&client, "STREAM.CREATE.EVENTS", &json!(wanted)).await;
    let report = migrator.apply().await.unwrap();
    assert_eq!(report.applied.len(), 5);
    assert_eq!(report.differences.len(), 1);
    assert_eq!(
        stream(&client, "EVENTS").await["max_age"],
        7_200_000_000_000_u64
    );
}

#[tokio::test]
async fn another_stream_on_the_same_subjects_is_named() {
    let nats = Nats::jetstream().await;
    let client = nats.connect().await;
    let theirs = json!({"name": "THEIRS", "subjects": ["session.acme.*"]});
    api(&client, "STREAM.CREATE.THEIRS", &theirs).await;
    let error = migrate::apply(&client, &config(&nats)).await.unwrap_err();
    assert!(
        matches!(&error, MigrateError::SubjectsTaken { stream, .. } if stream == "SESSIONS"),
        "{error:?}"
    );
    assert!(error.to_string().contains("session.>"), "{error}");
}

#[tokio::test]
async fn a_server_without_jetstream_is_named() {
    let nats = Nats::start("").await;
    let client = nats.connect().await;
    let error = migrate::apply(&client, &config(&nats)).await.unwrap_err();
    assert!(
        matches!(error, MigrateError::NoJetStream { .. }),
        "{error:?}"
    );
    let output = herald(&nats, &[], &["migrate"]).await;
    assert_eq!(output.code, Some(1));
    assert!(
        output
            .stderr
            .contains("JetStream is not enabled on the NATS server"),
        "{output:?}"
    );
}

#[tokio::test]
async fn an_account_without_jetstream_is_named() {
    let accounts = "accounts { BARE { users: [{user: u, password: p}] } }\nno_auth_user: u\n";
    let nats = Nats::start(&format!("{JETSTREAM}{accounts}")).await;
    let client = nats.connect().await;
    let error = migrate::status(&client, &config(&nats)).await.unwrap_err();
    assert!(
        matches!(&error, MigrateError::NoJetStream(text) if text.contains("for this NATS account")),
        "{error:?}"
    );
}

/// Users that lack one permission each, beside one that has them all.
const LIMITED: &str = r#"
accounts {
  A {
    jetstream: enabled
    users: [
      { user: all, password: p }
      { user: reader, password: p, permissions {
          publish: { allow: [">"], deny: ["$JS.API.STREAM.CREATE.>"] } } }
      { user: stranger, password: p, permissions { publish: ["other.>"], subscribe: ["_INBOX.>"] } }
      { user: deaf, password: p, permissions { publish: [">"], subscribe: ["_INBOX_deaf.>"] } }
    ]
  }
}
"#;

async fn limited() -> Nats {
    Nats::start(&format!("{JETSTREAM}{LIMITED}")).await
}

fn config_of(nats: &Nats, user: &str) -> NatsConfig {
    NatsConfig {
        url: Secret::from(nats.url_for(user, "p")),
        ..NatsConfig::default()
    }
}

#[tokio::test]
async fn wrong_credentials_are_named() {
    let nats = limited().await;
    let url = nats.url_for("all", "wrong");
    let output = herald(&nats, &[("HERALD_NATS__URL", &url)], &["migrate"]).await;
    assert_eq!(output.code, Some(1));
    assert!(
        output.stderr.contains("refused the credentials"),
        "{output:?}"
    );
    assert!(
        !output.stderr.contains("wrong"),
        "no password is shown: {output:?}"
    );
}

#[tokio::test]
async fn a_missing_permission_is_named_with_its_subject() {
    let nats = limited().await;
    for (user, subject) in [
        ("stranger", "$JS.API.STREAM.MSG.GET.KV_HERALD_MIGRATIONS"),
        ("reader", "$JS.API.STREAM.CREATE.KV_HERALD_MIGRATIONS"),
    ] {
        let client = nats.connect_as(user, "p", "_INBOX").await.unwrap();
        let error = migrate::apply(&client, &config_of(&nats, user))
            .await
            .unwrap_err();
        assert!(
            matches!(&error, MigrateError::Denied(text) if text.contains(&format!("publish to {subject}:"))),
            "{error:?}"
        );
        assert!(!error.is_transient());
    }
    // The one that only lacks what applying needs can still be told how things stand.
    let client = nats.connect_as("reader", "p", "_INBOX").await.unwrap();
    let status = migrate::status(&client, &config_of(&nats, "reader"))
        .await
        .unwrap();
    assert_eq!(status.pending().count(), 5);
}

#[tokio::test]
async fn an_inbox_that_may_not_be_listened_to_is_named() {
    let nats = limited().await;
    let url = nats.url_for("deaf", "p");
    let output = herald(&nats, &[("HERALD_NATS__URL", &url)], &["migrate"]).await;
    assert_eq!(output.code, Some(1));
    assert!(output.stderr.contains("nats.inbox_prefix"), "{output:?}");
    herald(
        &nats,
        &[
            ("HERALD_NATS__URL", &url),
            ("HERALD_NATS__INBOX_PREFIX", "_INBOX_deaf"),
        ],
        &["migrate"],
    )
    .await
    .ok();
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_a_passing_fault() {
    let mut nats = Nats::jetstream().await;
    let client = nats.connect().await;
    nats.pause().await;
    let config = config(&nats);
    let migrator = Migrator::new(&client, &config, &MigrationSet::embedded()).unwrap();
    let status = migrator.timeout(Duration::from_secs(1)).status().await;
    let error = status.unwrap_err();
    assert!(matches!(error, MigrateError::NoAnswer { .. }), "{error:?}");
    assert!(error.is_transient());
    nats.kill().await;
    let start = std::time::Instant::now();
    let output = herald(&nats, &[], &["migrate"]).await;
    assert_eq!(output.code, Some(1));
    assert!(output.stderr.contains("cannot be reached"), "{output:?}");
    assert!(start.elapsed() < Duration::from_secs(30));
}

#[tokio::test]
async fn replicas_that_the_server_cannot_give_are_named() {
    let nats = Nats::jetstream().await;
    let output = herald(&nats, &[("HERALD_NATS__REPLICAS", "3")], &["migrate"]).await;
    assert_eq!(output.code, Some(1));
    assert!(
        output.stderr.contains("replicas > 1 not supported"),
        "{output:?}"
    );
}
