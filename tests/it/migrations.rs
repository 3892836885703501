//! Migrations: each is applied once, by however many processes, and what is applied is what the
//! design says.

use std::time::Duration;

use async_nats::{Client, jetstream};
use futures_util::StreamExt;
use futures_util::future::join_all;
use herald::config::{NatsConfig, Secret};
use herald::migrate::{self, Applied, ApplyReport, MigrateError, MigrationSet, Migrator, Status};
use serde_json::{Map, Value, json};

use crate::support::command::herald;
use crate::support::nats::{JETSTREAM, Nats};
use crate::support::proxy::Proxy;
use crate::support::{PATIENCE, eventually, soon};

/// A later migration that lengthens the life of claims.
pub(crate) const LONGER: &str = "description = \"Keep claims for longer\"\nbreaks_older_gateways = false\n\
     [[update]]\nstream = \"SESSIONS\"\nset = { max_age = \"48h\" }\n";

const HOUR: u64 = 3_600_000_000_000;

pub(crate) fn config(nats: &Nats) -> NatsConfig {
    NatsConfig {
        url: Secret::from(nats.url()),
        ..NatsConfig::default()
    }
}

/// The set of the binary and [`LONGER`].
pub(crate) fn extended() -> MigrationSet {
    MigrationSet::embedded().with("0006_longer", LONGER)
}

/// Asks the JetStream API as it is, so that nothing between could leave a field out.
pub(crate) async fn api(client: &Client, request: &str, body: &Value) -> Value {
    let body = match body {
        Value::Null => String::new(),
        body => body.to_string(),
    };
    let subject = format!("$JS.API.{request}");
    let answer = client.request(subject, body.into()).await.unwrap();
    serde_json::from_slice(&answer.payload).unwrap()
}

/// The configuration of a stream; empty where there is none.
pub(crate) async fn stream(client: &Client, name: &str) -> Map<String, Value> {
    let info = api(client, &format!("STREAM.INFO.{name}"), &Value::Null).await;
    info["config"].as_object().cloned().unwrap_or_default()
}

/// Changes fields of a stream by hand.
pub(crate) async fn edit(client: &Client, name: &str, fields: Value) {
    let mut config = stream(client, name).await;
    config.extend(fields.as_object().unwrap().clone());
    let answer = api(client, &format!("STREAM.UPDATE.{name}"), &json!(config)).await;
    assert_eq!(answer["error"], Value::Null);
}

pub(crate) async fn bucket(client: &Client) -> jetstream::kv::Store {
    let context = jetstream::new(client.clone());
    context.get_key_value("HERALD_MIGRATIONS").await.unwrap()
}

pub(crate) async fn entry(client: &Client, name: &str) -> Applied {
    let bytes = bucket(client).await.get(name).await.unwrap().unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

#[tokio::test]
async fn a_fresh_server_gets_the_objects_of_the_design() {
    let nats = Nats::jetstream().await;
    let client = nats.connect().await;
    let report = migrate::apply(&client, &config(&nats)).await.unwrap();
    assert_eq!(
        report.applied,
        [
            "0001_events",
            "0002_sessions",
            "0003_dead",
            "0004_limits",
            "0005_revoked"
        ]
    );
    assert!(report.differences.is_empty() && report.unknown.is_empty());

    let events = stream(&client, "EVENTS").await;
    assert_eq!(events["subjects"], json!(["ws.>"]));
    assert_eq!(events["storage"], "file");
    assert_eq!(events["retention"], "limits");
    assert_eq!(events["discard"], "new");
    assert_eq!(events["num_replicas"], 1);
    assert_eq!(events["max_age"], HOUR);
    assert_eq!(events["duplicate_window"], HOUR / 30);
    assert_eq!(events["max_msg_size"], 131_072);
    assert_eq!(
        events["republish"],
        json!({"src": "ws.>", "dest": "live.ws.>"})
    );
    assert_eq!(events["allow_direct"], true);
    assert_eq!(events["allow_rollup_hdrs"], false);
    assert_eq!(events["allow_msg_ttl"], false);

    let sessions = stream(&client, "SESSIONS").await;
    assert_eq!(sessions["subjects"], json!(["session.>"]));
    assert_eq!(sessions["storage"], "file");
    assert_eq!(sessions["max_msgs_per_subject"], 1);
    assert_eq!(sessions["max_age"], 24 * HOUR);
    assert_eq!(
        sessions["republish"],
        json!({"src": "session.>", "dest": "live.session.>"})
    );
    assert_eq!(sessions["allow_direct"], true);

    let dead = stream(&client, "DEAD").await;
    assert_eq!(dead["subjects"], json!(["dead.>"]));
    assert_eq!(dead["max_msgs_per_subject"], 1);
    assert_eq!(dead["discard"], "new");
    assert_eq!(dead["discard_new_per_subject"], true);
    assert!(dead["max_msgs"].as_i64() > Some(0) && dead["max_bytes"].as_i64() > Some(0));

    let applied = entry(&client, "0002_sessions").await;
    assert_eq!(applied.name, "0002_sessions");
    assert_eq!(applied.checksum.len(), 64);
    assert_eq!(applied.applied_by, env!("CARGO_PKG_VERSION"));
    assert!(!applied.breaks_older_gateways);
    chrono::DateTime::parse_from_rfc3339(&applied.applied_at).unwrap();
}

#[tokio::test]
async fn the_objects_do_what_they_are_for() {
    let nats = Nats::jetstream().await;
    let client = nats.connect().await;
    migrate::apply(&client, &config(&nats)).await.unwrap();
    let context = jetstream::new(client.clone());
    let mut live = client.subscribe("live.>").await.unwrap();
    for (subject, live_subject) in [
        ("ws.acme.record.created", "live.ws.acme.record.created"),
        ("session.acme.user", "live.session.acme.user"),
    ] {
        context
            .publish(subject, "1".into())
            .await
            .unwrap()
            .await
            .unwrap();
        assert_eq!(live.next().await.unwrap().subject.as_str(), live_subject);
    }
    context
        .publish("dead.acme.1", "first".into())
        .await
        .unwrap()
        .await
        .unwrap();
    let second = context
        .publish("dead.acme.1", "second".into())
        .await
        .unwrap()
        .await;
    assert!(second.is_err(), "a second letter of one event: {second:?}");
    let too_large = vec![b'x'; 131_073];
    let refused = context
        .publish("ws.acme.record.created", too_large.into())
        .await
        .unwrap()
        .await;
    assert!(
        refused.is_err(),
        "an event over the stream's limit: {refused:?}"
    );
}

#[tokio::test]
async fn what_is_applied_is_not_applied_again_also_after_a_restart() {
    let mut nats = Nats::jetstream().await;
    let client = nats.connect().await;
    migrate::apply(&client, &config(&nats)).await.unwrap();
    let before = entry(&client, "0001_events").await;
    nats.restart().await;
    let client = nats.connect().await;
    assert!(
        migrate::status(&client, &config(&nats))
            .await
            .unwrap()
            .is_applied()
    );
    let report = migrate::apply(&client, &config(&nats)).await.unwrap();
    assert!(report.applied.is_empty());
    assert_eq!(entry(&client, "0001_events").await, before);
}

/// Gateways of two versions that start together on a new server, as in a rolling start.
#[tokio::test]
async fn ten_at_once_say_that_each_migration_is_applied_once_and_all_start() {
    for round in 0..3 {
        let nats = Nats::jetstream().await;
        let config = config(&nats);
        let one = async |number: usize| {
            let client = nats.connect().await;
            let set = match number % 2 {
                0 => MigrationSet::embedded(),
                _ => extended(),
            };
            let migrator = Migrator::new(&client, &config, &set).unwrap();
            let report = migrator.apply().await.unwrap();
            assert!(migrator.status().await.unwrap().is_applied());
            report.applied
        };
        let mut applied: Vec<String> = join_all((0..10).map(one)).await.concat();
        applied.sort();
        assert_eq!(
            applied,
            [
                "0001_events",
                "0002_sessions",
                "0003_dead",
                "0004_limits",
                "0005_revoked",
                "0006_longer"
            ],
            "round {round}"
        );
        // What the last file wants is there, and nothing of it was undone.
        let client = nats.connect().await;
        let sessions = stream(&client, "SESSIONS").await;
        assert_eq!(sessions["max_age"], 48 * HOUR, "round {round}");
        assert_eq!(sessions["discard"], "new", "round {round}");
    }
}

#[tokio::test]
async fn a_stream_of_another_name_and_a_short_age_work() {
    let nats = Nats::jetstream().await;
    let client = nats.connect().await;
    let config = NatsConfig {
        stream: "MINE".to_owned(),
        max_age: Duration::from_secs(1),
        ..config(&nats)
    };
    migrate::apply(&client, &config).await.unwrap();
    let events = stream(&client, "MINE").await;
    assert_eq!(events["subjects"], json!(["ws.>"]));
    assert_eq!(events["max_age"], 1_000_000_000);
    assert_eq!(
        events["duplicate_window"], 1_000_000_000,
        "no longer than the age"
    );
    assert!(stream(&client, "EVENTS").await.is_empty());
    assert!(
        migrate::status(&client, &config)
            .await
            .unwrap()
            .is_applied()
    );
}

#[tokio::test]
async fn an_update_changes_its_fields_and_no_others() {
    let nats = Nats::jetstream().await;
    let client = nats.connect().await;
    let config = config(&nats);
    migrate::apply(&client, &config).await.unwrap();
    let mut expected = stream(&client, "SESSIONS").await;
    let migrator = Migrator::new(&client, &config, &extended()).unwrap();
    let status = migrator.status().await.unwrap();
    assert_eq!(status.pending().collect::<Vec<_>>(), ["0006_longer"]);
    assert_eq!(migrator.apply().await.unwrap().applied, ["0006_longer"]);
    expected.insert("max_age".to_owned(), json!(48 * HOUR));
    assert_eq!(stream(&client, "SESSIONS").await, expected);
    assert!(migrator.status().await.unwrap().is_applied());
}

#[tokio::test]
async fn a_migration_cut_short_is_finished() {
    let nats = Nats::jetstream().await;
    let client = nats.connect().await;
    let config = config(&nats);
    // Streams made and not yet in the ledger, one field changed and not yet in the ledger.
    migrate::apply(&client, &config).await.unwrap();
    for name in ["0003_dead", "0004_limits", "0005_revoked"] {
        bucket(&client).await.delete(name).await.unwrap();
    }
    let report = migrate::apply(&client, &config).await.unwrap();
    assert_eq!(report.applied, ["0003_dead", "0004_limits", "0005_revoked"]);
    edit(&client, "SESSIONS", json!({"max_age": 48 * HOUR})).await;
    let migrator = Migrator::new(&client, &config, &extended()).unwrap();
    assert_eq!(migrator.apply().await.unwrap().applied, ["0006_longer"]);
}

/// They take a lock under a key of the bucket, and leave it there.
#[tokio::test]
async fn the_lock_of_older_gateways_is_no_entry_and_nobody_waits_for_it() {
    let nats = Nats::jetstream().await;
    let client = nats.connect().await;
    let config = config(&nats);
    migrate::apply(&client, &config).await.unwrap();
    let bucket = bucket(&client).await;
    let held = "herald 0.1.0 8f2c7a52-0f0b-4a5e-9d4e-0c9fbb4f2f0a";
    bucket.put("lock", held.into()).await.unwrap();
    let status = migrate::status(&client, &config).await.unwrap();
    assert!(status.is_applied() && status.unknown().next().is_none());
    assert!(status.edits.is_empty(), "{status:?}");
    let migrator = Migrator::new(&client, &config, &extended()).unwrap();
    assert_eq!(
        soon(migrator.apply()).await.unwrap().applied,
        ["0006_longer"]
    );
    let lock = bucket.get("lock").await.unwrap();
    assert_eq!(lock.as_deref(), Some(held.as_bytes()), "it is theirs");
    // Released, as they leave it.
    bucket.delete("lock").await.unwrap();
    let report = migrator.apply().await.unwrap();
    assert!(report.applied.is_empty() && report.unknown.is_empty());
}

/// A process that stands still before `request`, while another with the files of `fast` applies all. Returns what
/// the slow one, with the files of `slow`, comes to, and the other's last look.
async fn overtaken(
    request: &str,
    slow: &MigrationSet,
    fast: &MigrationSet,
) -> (
    Result<ApplyReport, MigrateError>,
    Status,
    Map<String, Value>,
) {
    let nats = Nats::jetstream().await;
    let proxy = Proxy::holding_at(nats.port(), request).await;
    let slow_config = NatsConfig {
        url: Secret::from(proxy.url()),
        ..config(&nats)
    };
    let fast_config = config(&nats);
    let slow_client = async_nats::connect(proxy.url()).await.unwrap();
    let fast_client = nats.connect().await;
    let slow = Migrator::new(&slow_client, &slow_config, slow).unwrap();
    let fast = Migrator::new(&fast_client, &fast_config, fast).unwrap();
    let (report, ()) = tokio::join!(soon(slow.apply()), async {
        proxy.held().await;
        let report = fast.apply().await.unwrap();
        assert_eq!(report.applied.last().unwrap(), "0006_longer");
        proxy.release();
    });
    let status = fast.status().await.unwrap();
    (report, status, stream(&fast_client, "SESSIONS").await)
}

#[tokio::test]
async fn a_slow_process_undoes_nothing_of_what_a_fast_one_did() {
    for (request, applied) in [
        ("STREAM.CREATE.SESSIONS", &["0001_events"][..]),
        // The configuration that it is about to send was read before the fast one changed it.
        (
            "STREAM.UPDATE.SESSIONS",
            &["0001_events", "0002_sessions", "0003_dead"],
        ),
        // All is done but for the entry.
        ("KV.HERALD_MIGRATIONS.0002_sessions", &["0001_events"]),
    ] {
        let (report, status, sessions) = overtaken(request, &extended(), &extended()).await;
        assert_eq!(report.unwrap().applied, applied, "{request}");
        assert_eq!(sessions["max_age"], 48 * HOUR, "{request}");
        assert_eq!(sessions["discard"], "new", "{request}");
        assert!(status.is_applied() && status.edits.is_empty(), "{status:?}");
    }
}

/// An update sends the whole configuration as it was read, and this one knows nothing of what it undoes.
#[tokio::test]
async fn what_an_older_version_undoes_in_a_race_is_put_right() {
    let nats = Nats::jetstream().await;
    let of_old = Proxy::holding_at(nats.port(), "STREAM.UPDATE.SESSIONS").await;
    let of_new = Proxy::holding_at(nats.port(), "KV.HERALD_MIGRATIONS.0006_longer").await;
    let behind = |proxy: &Proxy| NatsConfig {
        url: Secret::from(proxy.url()),
        ..config(&nats)
    };
    let (old_config, new_config) = (behind(&of_old), behind(&of_new));
    let old_client = async_nats::connect(of_old.url()).await.unwrap();
    let new_client = async_nats::connect(of_new.url()).await.unwrap();
    let old = Migrator::new(&old_client, &old_config, &MigrationSet::embedded()).unwrap();
    let new = Migrator::new(&new_client, &new_config, &extended()).unwrap();
    let (_, report, ()) = tokio::join!(
        async {
            soon(old.apply()).await.unwrap();
            of_new.release();
        },
        async {
            of_old.held().await;
            soon(new.apply()).await.unwrap()
        },
        async {
            // Claims live longer now, which the ledger does not say yet.
            of_new.held().await;
            of_old.release();
        }
    );
    assert_eq!(report.applied.last().unwrap(), "0006_longer");
    assert!(report.edits.is_empty(), "{report:?}");
    let client = nats.connect().await;
    assert_eq!(stream(&client, "SESSIONS").await["max_age"], 48 * HOUR);
}

#[tokio::test]
async fn who_is_overtaken_with_another_file_is_told() {
    let embedded = MigrationSet::embedded();
    let text = embedded.text("0002_sessions").unwrap();
    let other = extended().with("0002_sessions", &format!("{text}# a comment\n"));
    let entry = "KV.HERALD_MIGRATIONS.0002_sessions";
    let (report, status, _) = overtaken(entry, &other, &extended()).await;
    let error = report.unwrap_err();
    assert!(
        matches!(&error, MigrateError::Changed { name, .. } if name == "0002_sessions"),
        "{error:?}"
    );
    assert!(status.is_applied());
}

#[tokio::test]
async fn an_answer_that_is_lost_costs_nothing() {
    for text in [
        // The bucket's, a stream's that is made, one's that is changed, and entries'.
        r#""name":"KV_HERALD_MIGRATIONS""#,
        r#"stream_create_response","config":{"name":"EVENTS""#,
        r#"stream_update_response","config":{"name":"SESSIONS""#,
        r#"{"stream":"KV_HERALD_MIGRATIONS","seq":1}"#,
        r#"{"stream":"KV_HERALD_MIGRATIONS","seq":5}"#,
    ] {
        let nats = Nats::jetstream().await;
        let proxy = Proxy::losing_answer(nats.port(), text).await;
        let config = NatsConfig {
            url: Secret::from(proxy.url()),
            ..config(&nats)
        };
        let client = async_nats::connect(proxy.url()).await.unwrap();
        let migrator = Migrator::new(&client, &config, &MigrationSet::embedded())
            .unwrap()
            .timeout(Duration::from_secs(2));
        let report = soon(migrator.apply()).await.unwrap();
        assert_eq!(report.applied.len(), 5, "{text}");
        assert!(proxy.has_lost(), "{text}");
    }
}

#[tokio::test]
async fn a_bucket_that_is_not_known_everywhere_is_waited_for() {
    let lossy = |percent: u8| {
        let subject = "$KV.HERALD_MIGRATIONS.0001_events";
        let config = format!(
            r#"{JETSTREAM}mappings: {{ "{subject}": [{{ destination: "nowhere", weight: {percent}% }}] }}"#
        );
        async move { Nats::start(&config).await }
    };
    // Most writes find nobody who listens, as in a cluster just after the bucket was made.
    let nats = lossy(70).await;
    let client = nats.connect().await;
    let report = migrate::apply(&client, &config(&nats)).await.unwrap();
    assert_eq!(report.applied.len(), 5);
    // Where it stays so, that is a passing fault, and JetStream is not said to be missing.
    let nats = lossy(100).await;
    let client = nats.connect().await;
    let config = config(&nats);
    let migrator = Migrator::new(&client, &config, &MigrationSet::embedded()).unwrap();
    let failed = migrator.timeout(Duration::from_secs(1)).apply().await;
    let error = failed.unwrap_err();
    assert!(error.is_transient(), "{error}");
    let text = error.to_string();
    assert!(
        text.starts_with("no stream takes $KV.HERALD_MIGRATIONS.0001_events"),
        "{text}"
    );
}

#[tokio::test]
async fn applying_waits_for_a_server_that_stands_still() {
    let mut nats = Nats::jetstream().await;
    let client = nats.connect().await;
    let config = config(&nats);
    nats.pause().await;
    let apply = migrate::apply(&client, &config);
    let (report, ()) = tokio::join!(apply, async {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        nats.resume().await;
    });
    assert_eq!(report.unwrap().applied.len(), 5);
}

#[tokio::test]
async fn differences_from_the_settings_are_reported_and_reconciled_by_the_command_alone() {
    let nats = Nats::jetstream().await;
    let client = nats.connect().await;
    migrate::apply(&client, &config(&nats)).await.unwrap();
    // What no migration declares is nobody's business but the operator's.
    edit(
        &client,
        "EVENTS",
        json!({"description": "by hand", "compression": "s2"}),
    )
    .await;
    let mut expected = stream(&client, "EVENTS").await;
    let changed = NatsConfig {
        max_age: Duration::from_secs(60),
        ..config(&nats)
    };
    let report = migrate::apply(&client, &changed).await.unwrap();
    let texts: Vec<String> = report.differences.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            "stream EVENTS: duplicate_window is 2m, wanted 1m",
            "stream EVENTS: max_age is 1h, wanted 1m"
        ]
    );
    assert_eq!(
        stream(&client, "EVENTS").await,
        expected,
        "apply leaves them"
    );
    assert!(
        migrate::status(&client, &changed)
            .await
            .unwrap()
            .is_applied()
    );

    let output = herald(
        &nats,
        &[("HERALD_NATS__MAX_AGE", "60s")],
        &["migrate", "--json"],
    )
    .await
    .ok();
    assert_eq!(output.json()["reconciled"], json!(report.differences));
    expected.insert("max_age".to_owned(), json!(60_000_000_000_u64));
    expected.insert("duplicate_window".to_owned(), json!(60_000_000_000_u64));
    assert_eq!(
        stream(&client, "EVENTS").await,
        expected,
        "and nothing else"
    );
    let migrator = Migrator::new(&client, &changed, &MigrationSet::embedded()).unwrap();
    assert!(migrator.reconcile().await.unwrap().is_empty());
}

#[tokio::test]
async fn dry_run_and_status_write_nothing() {
    let nats = Nats::jetstream().await;
    let client = nats.connect().await;
    let dry = herald(&nats, &[], &["migrate", "--dry-run"]).await.ok();
    assert!(dry.stdout.contains("would apply 0001_events"), "{dry:?}");
    assert!(dry.stdout.contains("create stream SESSIONS"), "{dry:?}");
    let dry = herald(&nats, &[], &["migrate", "--dry-run", "--json"])
        .await
        .ok();
    assert_eq!(dry.json()["apply"][2]["operations"][0]["stream"], "DEAD");
    assert_eq!(dry.json()["apply"][2]["breaks_older_gateways"], false);
    let status = herald(&nats, &[], &["migrate", "--status"]).await.ok();
    assert!(
        status
            .stdout
            .lines()
            .any(|line| { line.starts_with("0003_dead") && line.contains("pending") })
    );
    let names = api(&client, "STREAM.NAMES", &Value::Null).await;
    assert_eq!(names["total"], 0, "{names}");

    let done = herald(&nats, &[], &["migrate"]).await.ok();
    assert_eq!(
        done.stdout,
        "applied 0001_events\napplied 0002_sessions\napplied 0003_dead\napplied 0004_limits\n\
         applied 0005_revoked\n"
    );
    assert_eq!(done.stderr, "");
    let again = herald(&nats, &[], &["migrate"]).await.ok();
    assert_eq!(again.stdout, "nothing to do\n");
    let status = herald(&nats, &[], &["migrate", "--status", "--json"])
        .await
        .ok()
        .json();
    assert_eq!(status["is_applied"], true);
    assert_eq!(status["migrations"][0]["state"], "applied");
    let usage = herald(&nats, &[], &["migrate", "--status", "--dry-run"]).await;
    assert_eq!(usage.code, Some(2));
}

#[tokio::test]
async fn the_ledger_is_a_bucket_like_any_other() {
    let nats = Nats::jetstream().await;
    let client = nats.connect().await;
    migrate::apply(&client, &config(&nats)).await.unwrap();
    let bucket = bucket(&client).await;
    let status = bucket.status().await.unwrap();
    assert_eq!(status.history(), 1);
    // Keys come by a consumer, which needs the bucket to be one.
    let found = eventually(PATIENCE, async || {
        let keys: Vec<String> = bucket
            .keys()
            .await
            .unwrap()
            .map(Result::unwrap)
            .collect()
            .await;
        keys.len() == 5
    });
    assert!(found.await);
}
