//! Tests of what is pure: files, comparison, judgement, and how all of it stands together.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::report::{FieldState, compare, same};
use super::*;

fn config() -> NatsConfig {
    NatsConfig {
        stream: "MINE".to_owned(),
        replicas: 3,
        max_age: Duration::from_secs(60),
        ..NatsConfig::default()
    }
}

fn read(text: &str) -> Result<Migration, String> {
    Migration::read("0001_test", text, &config())
}

const HEAD: &str = "description = \"d\"\nbreaks_older_gateways = true\n";

#[test]
fn placeholders_take_the_settings_values_and_durations_become_nanoseconds() {
    let text = format!(
        "{HEAD}[[create]]\nname = \"${{stream}}\"\nnum_replicas = \"${{replicas}}\"\nmax_age = \"${{max_age}}\"\n\
         duplicate_window = \"min(2m, ${{max_age}})\"\nmax_msgs = 5\n\
         [[update]]\nstream = \"SESSIONS\"\nset = {{ max_age = \"1h\" }}\n"
    );
    let migration = read(&text).unwrap();
    assert!(migration.breaks_older_gateways);
    let [create, update] = &migration.operations[..] else {
        panic!("two operations");
    };
    assert_eq!(
        (create.stream.as_str(), create.kind),
        ("MINE", OperationKind::Create)
    );
    assert_eq!(
        Value::Object(create.config.clone()),
        json!({
            "name": "MINE",
            "num_replicas": 3,
            "max_age": 60_000_000_000_i64,
            "duplicate_window": 60_000_000_000_i64,
            "max_msgs": 5
        })
    );
    assert_eq!(
        (update.stream.as_str(), update.kind),
        ("SESSIONS", OperationKind::Update)
    );
    assert_eq!(update.config["max_age"], json!(3_600_000_000_000_i64));
}

#[test]
fn a_limit_in_bytes_is_that_of_its_setting_and_left_alone_where_that_is_not_set() {
    let text = format!(
        "{HEAD}[[update]]\nstream = \"DEAD\"\nset = {{ max_bytes = \"${{dead_max_bytes}}\" }}\n"
    );
    for (setting, want) in [(None, None), (Some(0), Some(-1)), (Some(7), Some(7))] {
        let config = NatsConfig {
            dead_max_bytes: setting,
            ..config()
        };
        let migration = Migration::read("0001_test", &text, &config).unwrap();
        let [update] = &migration.operations[..] else {
            panic!("{migration:?}");
        };
        let got = update.config.get("max_bytes").and_then(Value::as_i64);
        assert_eq!(got, want, "{setting:?}");
        assert_eq!(update.named, ["max_bytes"]);
    }
}

#[test]
fn a_prefix_is_put_on_streams_and_subjects_and_leaves_the_checksum() {
    let text = format!(
        "{HEAD}[[create]]\nname = \"${{stream}}\"\nsubjects = [\"ws.>\"]\nretention = \"limits\"\n\
         republish = {{ src = \"ws.>\", dest = \"live.ws.>\" }}\n[[update]]\nstream = \"DEAD\"\nset = {{ max_msgs = 1 }}\n"
    );
    let config = NatsConfig {
        prefix: Some("blue".to_owned()),
        ..config()
    };
    let migration = Migration::read("0001_test", &text, &config).unwrap();
    assert_eq!(migration.checksum, read(&text).unwrap().checksum);
    let [create, update] = &migration.operations[..] else {
        panic!("{migration:?}");
    };
    assert_eq!(
        Value::Object(create.config.clone()),
        json!({
            "name": "blue-MINE",
            "subjects": ["blue.ws.>"],
            "retention": "limits",
            "republish": {"src": "blue.ws.>", "dest": "blue.live.ws.>"}
        })
    );
    assert_eq!(
        (create.stream.as_str(), update.stream.as_str()),
        ("blue-MINE", "blue-DEAD")
    );
}

#[test]
fn the_checksum_is_of_the_file_as_it_is() {
    let text = format!("{HEAD}[[create]]\nname = \"A\"\n");
    let one = read(&text).unwrap().checksum;
    assert_eq!(one.len(), 64);
    assert_ne!(one, read(&format!("{text}\n")).unwrap().checksum);
}

#[test]
fn what_is_wrong_with_a_file_is_said() {
    for (text, problem) in [
        ("", "description"),
        (
            &format!("{HEAD}[[create]]\nmax_msgs = 1\n"),
            "missing field `name`",
        ),
        (
            &format!("{HEAD}[[create]]\nname = \"A\"\nmax_age = \"soon\"\n"),
            "max_age",
        ),
        (
            &format!("{HEAD}[[create]]\nname = \"A\"\nstorage = \"${{nonsense}}\"\n"),
            "placeholder",
        ),
        (&format!("{HEAD}[[update]]\nset = {{}}\n"), "stream"),
        (&format!("{HEAD}[[delete]]\nname = \"A\"\n"), "delete"),
    ] {
        let error = read(text).unwrap_err();
        assert!(error.contains(problem), "{text}: {error}");
    }
}

#[test]
fn no_file_in_the_folder_is_forgotten() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations");
    let mut found: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    found.sort();
    let known: Vec<String> = FILES
        .iter()
        .map(|(name, _)| format!("{name}.toml"))
        .collect();
    assert_eq!(found, known);
    // Their order is that of their numbers.
    for (name, _) in FILES {
        let (number, _) = name.split_once('_').unwrap();
        assert!(number.len() == 4 && number.parse::<u16>().is_ok(), "{name}");
    }
}

#[test]
fn every_embedded_file_reads_whatever_the_settings() {
    for max_age in [Duration::from_millis(100), Duration::MAX] {
        let config = NatsConfig {
            max_age,
            revoked_max_age: Some(max_age),
            ..NatsConfig::default()
        };
        let migrations = MigrationSet::embedded().resolve(&config).unwrap();
        let wishes = fold(migrations.iter().flat_map(|one| &one.operations));
        let streams: Vec<&str> = wishes.keys().copied().collect();
        assert_eq!(streams, ["DEAD", "EVENTS", "REVOKED", "SESSIONS"]);
        // The server takes no window that is longer than the age.
        for stream in ["EVENTS", "REVOKED"] {
            let nanoseconds = |field: &str| wishes[stream][field].as_i64().unwrap();
            assert!(nanoseconds("duplicate_window") <= nanoseconds("max_age"));
        }
    }
}

#[test]
fn a_stream_is_made_with_the_limit_that_a_setting_gives_it_later() {
    let config = NatsConfig {
        max_bytes: Some(1000),
        sessions_max_bytes: Some(0),
        ..NatsConfig::default()
    };
    let migrations = MigrationSet::embedded().resolve(&config).unwrap();
    let made: Vec<(&str, i64)> = migrations
        .iter()
        .flat_map(|migration| &migration.operations)
        .filter(|operation| operation.kind == OperationKind::Create)
        .map(|operation| {
            let bytes = operation.config["max_bytes"].as_i64().unwrap();
            (operation.stream.as_str(), bytes)
        })
        .collect();
    assert_eq!(
        made,
        [
            ("EVENTS", 1000),
            ("SESSIONS", -1),
            ("DEAD", 268_435_456),
            ("REVOKED", 1_048_576)
        ]
    );
}

#[test]
fn revocations_are_kept_for_as_long_as_a_token_may_live() {
    const MINUTE: i64 = 60_000_000_000;
    for (kept, age, window) in [
        (None, 0, 2 * MINUTE),
        (Some(3600), 60 * MINUTE, 2 * MINUTE),
        (Some(60), MINUTE, MINUTE),
    ] {
        let config = NatsConfig {
            revoked_max_age: kept.map(Duration::from_secs),
            ..NatsConfig::default()
        };
        let migrations = MigrationSet::embedded().resolve(&config).unwrap();
        let wishes = fold(migrations.iter().flat_map(|one| &one.operations));
        let revoked = &wishes["REVOKED"];
        assert_eq!(revoked["max_age"], age);
        assert_eq!(revoked["duplicate_window"], window);
        assert_eq!(revoked["max_bytes"], -1);
        // Where tokens live longer than entries, they would come back.
        for (found, forgets) in [
            (0, false),
            (age, false),
            (30_000_000_000_i64, true),
            (90 * MINUTE, age == 0),
        ] {
            let mut streams: BTreeMap<String, Map<String, Value>> = wishes
                .iter()
                .map(|(stream, wish)| ((*stream).to_owned(), wish.clone()))
                .collect();
            streams
                .get_mut("REVOKED")
                .unwrap()
                .insert("max_age".to_owned(), found.into());
            let ledger = migrations
                .iter()
                .map(|one| (one.name.clone(), Applied::now(one)))
                .collect();
            let status = Status::new(&migrations, &ledger, &streams, &config);
            let why = status.forgets_revocations(&config);
            assert_eq!(why.is_some(), forgets, "{kept:?} {found}: {why:?}");
        }
    }
}

#[test]
fn a_later_migration_wins_field_by_field() {
    let set = MigrationSet::default()
        .with("0001_a", "description = \"\"\nbreaks_older_gateways = false\n[[create]]\nname = \"A\"\nmax_msgs = 1\nmax_bytes = 1\n")
        .with("0002_b", "description = \"\"\nbreaks_older_gateways = false\n[[update]]\nstream = \"A\"\nset = { max_msgs = 2 }\n");
    let migrations = set.resolve(&NatsConfig::default()).unwrap();
    let wishes = fold(migrations.iter().flat_map(|one| &one.operations));
    let wish = &wishes["A"];
    assert_eq!(wish["max_msgs"], 2);
    assert_eq!(wish["max_bytes"], 1);
}

/// The settings that decide fields are known to the comparison, which reads no file.
#[test]
fn a_placeholder_stands_where_a_setting_decides_and_nowhere_else() {
    let config = NatsConfig::default();
    let mut found = Vec::new();
    for (_, text) in FILES {
        let file: Document = toml::from_str(text).unwrap();
        let creates = file.create.into_iter().map(|one| (one.name, one.fields));
        let updates = file.update.into_iter().map(|one| (one.stream, one.set));
        for (stream, fields) in creates.chain(updates) {
            let stream = stream.replace("${stream}", &config.stream);
            assert!(!stream.contains("${"), "{stream}");
            let role = Role::of(&stream, &config);
            for (field, value) in fields {
                let text = value.as_str().unwrap_or_default();
                // The window follows the age: it is judged by itself.
                if field != "duplicate_window" && text.contains("${") {
                    let setting = role.setting(&field).unwrap_or_default();
                    assert_eq!(
                        format!("${{{setting}}}")
                            .replace("nats.", "")
                            .replace("auth.", ""),
                        text
                    );
                    found.push(setting);
                }
            }
        }
    }
    found.sort_unstable();
    found.dedup();
    assert_eq!(
        found,
        [
            "auth.max_token_age",
            "nats.dead_max_bytes",
            "nats.max_age",
            "nats.max_bytes",
            "nats.replicas",
            "nats.sessions_max_bytes"
        ]
    );
}

/// The migrations of the binary, those of them that the ledger has, and a stream as it is with `change`.
fn standing(applied: &[Applied], change: &Value) -> Status {
    let config = NatsConfig::default();
    let migrations = MigrationSet::embedded().resolve(&config).unwrap();
    let wishes = fold(migrations.iter().flat_map(|one| &one.operations));
    let mut found: BTreeMap<String, Map<String, Value>> = wishes
        .into_iter()
        .map(|(stream, wish)| (stream.to_owned(), wish))
        .collect();
    let events = found.get_mut("EVENTS").unwrap();
    events.extend(change.as_object().unwrap().clone());
    let mut ledger: BTreeMap<String, Applied> = migrations
        .iter()
        .map(|one| (one.name.clone(), Applied::now(one)))
        .collect();
    ledger.extend(applied.iter().map(|one| (one.name.clone(), one.clone())));
    ledger.retain(|_, applied| !applied.checksum.is_empty());
    Status::new(&migrations, &ledger, &found, &config)
}

/// An entry with this checksum; without one it is not there.
fn entry(name: &str, checksum: &str, fields: &[&str]) -> Applied {
    let fields: Vec<&str> = fields.to_vec();
    let entry = json!({"name": name, "checksum": checksum, "breaks_older_gateways": false,
        "changes": {"EVENTS": fields}});
    serde_json::from_value(entry).unwrap()
}

#[test]
fn a_field_is_not_judged_that_an_unknown_or_the_next_migration_sets() {
    let live = json!({"republish": {"src": "ws.>", "dest": "other.>"}});
    let cases = [
        (standing(&[], &live), 1, 0),
        (
            standing(&[entry("0009_later", "c", &["republish"])], &live),
            0,
            0,
        ),
        (
            standing(&[entry("0009_later", "c", &["max_age"])], &live),
            1,
            0,
        ),
        (standing(&[], &json!({"discard": "old"})), 0, 1),
        // Applied as far as the third; the fourth is begun, or not.
        (standing(&[entry("0004_limits", "", &[])], &json!({})), 0, 0),
        (
            standing(&[entry("0004_limits", "", &[])], &json!({"discard": "old"})),
            0,
            0,
        ),
    ];
    for (number, (status, drift, edits)) in cases.iter().enumerate() {
        assert_eq!(
            (status.drift.len(), status.edits.len()),
            (*drift, *edits),
            "{number}: {status:?}"
        );
    }
}

#[test]
fn values_are_the_same_or_not_as_the_server_means_them() {
    for (wanted, found, expected) in [
        (json!(1), json!(1), true),
        (json!(1), json!(2), false),
        (json!(false), Value::Null, true),
        (json!(true), Value::Null, false),
        (json!(-1), json!(0), true),
        (json!(-1), json!(10), false),
        (json!("file"), json!("memory"), false),
        (json!(["a"]), json!(["a"]), true),
        (json!(["a"]), json!(["a", "b"]), false),
        (
            json!({"src": "a"}),
            json!({"src": "a", "headers_only": false}),
            true,
        ),
        (
            json!({"src": "a"}),
            json!({"src": "a", "headers_only": true}),
            false,
        ),
        (json!({"src": "a"}), json!({"src": "b"}), false),
        (json!({"src": "a"}), Value::Null, false),
    ] {
        assert_eq!(same(&wanted, &found), expected, "{wanted} and {found}");
    }
}

/// A stream as its migration makes it.
fn wanted() -> Map<String, Value> {
    let fields = json!({
        "subjects": ["ws.>"],
        "retention": "limits",
        "storage": "file",
        "discard": "new",
        "max_bytes": -1,
        "max_msgs": -1,
        "max_msg_size": 131_072,
        "max_age": 3600,
        "duplicate_window": 120,
        "allow_direct": true,
        "republish": {"src": "ws.>", "dest": "live.ws.>"},
    });
    fields.as_object().unwrap().clone()
}

/// Fields that differ, each with how it stands.
fn judged(stream: &str, wanted: &Map<String, Value>, change: &Value) -> String {
    let mut found = wanted.clone();
    found.extend(change.as_object().unwrap().clone());
    let compared = compare(stream, wanted, &found, &NatsConfig::default());
    let words = compared.iter().map(|(standing, difference)| {
        let word = match standing {
            FieldState::Broken(_) => "broken",
            FieldState::Edited(_) => "edited",
            FieldState::OfSettings => "setting",
        };
        format!("{word} {}", difference.field)
    });
    words.collect::<Vec<_>>().join(", ")
}

/// What was changed, and what that is.
const CASES: &[(&str, &str, &str)] = &[
    ("EVENTS", "{}", ""),
    ("EVENTS", r#"{"max_bytes": 1000000000}"#, "edited max_bytes"),
    (
        "EVENTS",
        r#"{"max_msgs": 10, "discard": "old"}"#,
        "edited discard, edited max_msgs",
    ),
    ("EVENTS", r#"{"max_msg_size": 1024}"#, "edited max_msg_size"),
    (
        "EVENTS",
        r#"{"description": "x", "compression": "s2", "metadata": {"a": "b"}, "placement": {"tags": ["a"]}, "deny_purge": true}"#,
        "",
    ),
    (
        "EVENTS",
        r#"{"subjects": ["ws.>", "more"]}"#,
        "broken subjects",
    ),
    ("EVENTS", r#"{"republish": null}"#, "broken republish"),
    (
        "EVENTS",
        r#"{"republish": {"src": "ws.>", "dest": "live.ws.>", "headers_only": true}}"#,
        "broken republish",
    ),
    (
        "EVENTS",
        r#"{"allow_direct": false}"#,
        "broken allow_direct",
    ),
    ("EVENTS", r#"{"retention": "interest"}"#, "broken retention"),
    ("EVENTS", r#"{"storage": "memory"}"#, "broken storage"),
    ("SESSIONS", r#"{"storage": "memory"}"#, "edited storage"),
    (
        "SESSIONS",
        r#"{"max_msg_size": 100}"#,
        "broken max_msg_size",
    ),
    (
        "SESSIONS",
        r#"{"max_msg_size": 4096}"#,
        "edited max_msg_size",
    ),
    (
        "SESSIONS",
        r#"{"discard_new_per_subject": true}"#,
        "broken discard_new_per_subject",
    ),
    ("EVENTS", r#"{"no_ack": true}"#, "broken no_ack"),
    ("EVENTS", r#"{"sealed": true}"#, "broken sealed"),
    ("DEAD", r#"{"sealed": true}"#, "edited sealed"),
    (
        "EVENTS",
        r#"{"sources": [{"name": "OTHER"}]}"#,
        "broken sources",
    ),
    ("EVENTS", r#"{"sources": [], "mirror": null}"#, ""),
    ("DEAD", r#"{"mirror": {"name": "OTHER"}}"#, "broken mirror"),
    (
        "EVENTS",
        r#"{"max_msgs_per_subject": 1, "discard_new_per_subject": true}"#,
        "broken discard_new_per_subject, edited max_msgs_per_subject",
    ),
    (
        "EVENTS",
        r#"{"persist_mode": "async"}"#,
        "broken persist_mode",
    ),
    ("EVENTS", r#"{"persist_mode": "default"}"#, ""),
    (
        "EVENTS",
        r#"{"subject_delete_marker_ttl": 60}"#,
        "edited subject_delete_marker_ttl",
    ),
    (
        "EVENTS",
        r#"{"max_consumers": 3, "mirror_direct": true, "deny_delete": true, "consumer_limits": {"max_ack_pending": 1}, "first_seq": 7, "allow_atomic": true}"#,
        "",
    ),
    (
        "EVENTS",
        r#"{"subject_transform": {"src": ">", "dest": "x.>"}}"#,
        "broken subject_transform",
    ),
    // The window: what the settings made, what an operator made, what the server would refuse.
    (
        "EVENTS",
        r#"{"duplicate_window": 60}"#,
        "broken duplicate_window",
    ),
    (
        "EVENTS",
        r#"{"duplicate_window": 600}"#,
        "edited duplicate_window",
    ),
    (
        "EVENTS",
        r#"{"duplicate_window": 60, "max_age": 60}"#,
        "setting duplicate_window, setting max_age",
    ),
    (
        "EVENTS",
        r#"{"duplicate_window": 7200, "max_age": 7200}"#,
        "setting duplicate_window, setting max_age",
    ),
    (
        "SESSIONS",
        r#"{"duplicate_window": 1}"#,
        "broken duplicate_window",
    ),
    (
        "DEAD",
        r#"{"duplicate_window": 1}"#,
        "edited duplicate_window",
    ),
    // The age of these has no setting.
    (
        "SESSIONS",
        r#"{"duplicate_window": 5, "max_age": 5}"#,
        "broken duplicate_window, edited max_age",
    ),
    (
        "SESSIONS",
        r#"{"duplicate_window": 119, "max_age": 119}"#,
        "broken duplicate_window, edited max_age",
    ),
    (
        "DEAD",
        r#"{"duplicate_window": 60, "max_age": 60}"#,
        "edited duplicate_window, edited max_age",
    ),
    (
        "DEAD",
        r#"{"duplicate_window": 7200, "max_age": 7200}"#,
        "edited duplicate_window, edited max_age",
    ),
    ("DEAD", r#"{"max_age": 300}"#, "edited max_age"),
    // What could remove a revocation, or what is less.
    ("REVOKED", r#"{"max_age": 300}"#, "setting max_age"),
    (
        "REVOKED",
        r#"{"duplicate_window": 60, "max_age": 60}"#,
        "setting duplicate_window, setting max_age",
    ),
    ("REVOKED", r#"{"storage": "memory"}"#, "broken storage"),
    (
        "REVOKED",
        r#"{"persist_mode": "async"}"#,
        "broken persist_mode",
    ),
    (
        "REVOKED",
        r#"{"allow_direct": false}"#,
        "broken allow_direct",
    ),
    ("REVOKED", r#"{"republish": null}"#, "broken republish"),
    ("REVOKED", r#"{"max_bytes": 1000000}"#, ""),
    ("REVOKED", r#"{"max_msgs": 1000}"#, "edited max_msgs"),
    (
        "REVOKED",
        r#"{"max_bytes": 1000000, "discard": "old"}"#,
        "broken discard, broken max_bytes",
    ),
    (
        "REVOKED",
        r#"{"max_msgs_per_subject": 1}"#,
        "broken max_msgs_per_subject",
    ),
    (
        "REVOKED",
        r#"{"allow_rollup_hdrs": true, "allow_msg_ttl": true}"#,
        "broken allow_msg_ttl, broken allow_rollup_hdrs",
    ),
];

/// What was changed of the ledger's bucket, and what that is.
const OF_THE_LEDGER: &[(&str, &str)] = &[
    ("{}", ""),
    (r#"{"retention": "interest"}"#, "broken retention"),
    (r#"{"max_age": 60}"#, "broken max_age"),
    (r#"{"duplicate_window": 120000000000}"#, ""),
    (r#"{"discard": "old"}"#, "edited discard"),
    (
        r#"{"discard": "old", "max_msgs": 5}"#,
        "broken discard, broken max_msgs",
    ),
    (
        r#"{"discard": "old", "max_bytes": 1000000}"#,
        "broken discard",
    ),
    (r#"{"max_msgs": 5}"#, "broken max_msgs"),
    (r#"{"max_msgs": 1000}"#, "edited max_msgs"),
    (r#"{"max_bytes": 100}"#, "broken max_bytes"),
    (r#"{"max_bytes": 1000000}"#, ""),
    (
        r#"{"max_msgs_per_subject": -1}"#,
        "edited max_msgs_per_subject",
    ),
    (
        r#"{"max_msgs_per_subject": 5, "max_bytes": 1000000}"#,
        "edited max_msgs_per_subject",
    ),
    (
        r#"{"discard_new_per_subject": true}"#,
        "edited discard_new_per_subject",
    ),
    (
        r#"{"republish": {"src": ">", "dest": "x.>"}}"#,
        "edited republish",
    ),
    (r#"{"storage": "memory"}"#, "edited storage"),
    (r#"{"sealed": true}"#, "broken sealed"),
];

#[test]
fn a_ledger_that_forgets_or_takes_nothing_is_refused() {
    let mut wanted = bucket(&NatsConfig::default());
    // As it is made where no stream has a limit.
    wanted.insert("max_bytes".to_owned(), json!(-1));
    for (change, expected) in OF_THE_LEDGER {
        let change = serde_json::from_str(change).unwrap();
        let judged = judged("KV_HERALD_MIGRATIONS", &wanted, &change);
        assert_eq!(judged, *expected, "{change}");
    }
}

#[test]
fn only_what_breaks_a_promise_is_refused() {
    for (stream, change, expected) in CASES {
        let change = serde_json::from_str(change).unwrap();
        assert_eq!(judged(stream, &wanted(), &change), *expected, "{change}");
    }
}

#[test]
fn a_difference_reads_as_a_sentence() {
    let difference = Difference {
        stream: "EVENTS".to_owned(),
        field: "max_age".to_owned(),
        found: json!(7_200_000_000_000_u64),
        wanted: json!(90_000_000_000_u64),
        consequence: None,
        setting: None,
    };
    assert_eq!(
        difference.to_string(),
        "stream EVENTS: max_age is 2h, wanted 1m 30s"
    );
}

#[test]
fn the_way_back_is_one_that_the_server_takes() {
    let of = |field: &str, wanted: Value| Difference {
        stream: "S".to_owned(),
        field: field.to_owned(),
        found: true.into(),
        wanted,
        consequence: None,
        setting: None,
    };
    for (difference, way) in [
        (of("subjects", Value::Null), "(nats stream edit S)"),
        (
            of("max_bytes", 9.into()),
            "(nats stream edit S --max-bytes=9)",
        ),
        (of("sealed", Value::Null), "nats stream rm S"),
    ] {
        assert!(difference.way_back().contains(way), "{difference:?}");
    }
    let advice = of("sealed", Value::Null).advice();
    assert!(
        advice.contains("restore") && !advice.contains("edit"),
        "{advice}"
    );
}
