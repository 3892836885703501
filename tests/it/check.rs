//! Verifies that `herald check` names everything that is wrong at once, tells by its exit code whose it
//! is, and changes nothing, with the permissions of production.

use herald::migrate;
use serde_json::{Value, json};

use crate::support::command::{Output, herald};
use crate::support::nats::Nats;
use crate::support::production::{Production, User};
use crate::support::token::SECRET;

async fn check(nats: &Nats, settings: &[(&str, &str)], arguments: &[&str]) -> Output {
    let mut environment = vec![("HERALD_AUTH__HMAC_SECRET", SECRET)];
    environment.extend(settings);
    herald(nats, &environment, &[&["check"], arguments].concat()).await
}

/// As `user` of production.
async fn check_as(production: &Production, user: &str, settings: &[(&str, &str)]) -> Output {
    let own = production.environment(user);
    let mut environment: Vec<(&str, &str)> = own
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    environment.extend(settings);
    check(&production.0, &environment, &["--nats"]).await
}

async fn messages(operator: &User, stream: &str) -> Value {
    let subject = format!("$JS.API.STREAM.INFO.{stream}");
    let answer = operator.client.request(subject, "".into()).await.unwrap();
    let info: Value = serde_json::from_slice(&answer.payload).unwrap();
    info["state"]["last_seq"].clone()
}

#[tokio::test]
async fn everything_wrong_with_the_settings_is_named_at_once() {
    let nats = Nats::start("").await;
    let wrong = [
        ("HERALD_AUTH__HMAC_SECRET", "short-and-secret"),
        ("HERALD_PROJECTION__RULES", "absent.toml"),
        ("HERALD_SERVER__TLS_CERT", "absent.crt"),
        ("HERALD_SERVER__TLS_KEY", "absent.key"),
        ("HERALD_LOG__LEVEL", "herald=loud"),
        ("HERALD_NATS__CREDENTIALS_FILE", "absent.creds"),
    ];
    let output = check(&nats, &wrong, &["--nats"]).await;
    assert_eq!(output.code, Some(2), "{output:?}");
    for part in ["keys", "rules", "tls", "log", "nats settings"] {
        assert!(output.stderr.contains(&format!("{part}: ")), "{output:?}");
        assert!(!output.stdout.contains(&format!("{part}: ")), "{output:?}");
    }
    assert!(output.stdout.contains("ok   settings: "), "{output:?}");
    assert!(!output.stderr.contains("short-and-secret"), "{output:?}");
}

#[tokio::test]
async fn without_the_server_only_the_settings_count() {
    let nats = Nats::start("").await;
    let output = check(&nats, &[("HERALD_NATS__URL", "127.0.0.1:1")], &["--json"])
        .await
        .ok();
    let report = output.json();
    assert_eq!(report["ok"], true);
    assert_eq!(
        report["findings"][1],
        json!({"part": "keys", "state": "ok", "detail": "tokens can be verified: all by auth.hmac_secret"})
    );
}

#[tokio::test]
async fn the_built_in_rules_are_printed_as_a_file_that_can_be_used() {
    let nats = Nats::start("").await;
    let rules = check(&nats, &[], &["--print-rules"]).await.ok().stdout;
    assert_eq!(
        rules,
        include_str!("../../src/projection/default_rules.toml")
    );
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rules.toml");
    std::fs::write(&file, rules).unwrap();
    let file = file.display().to_string();
    let output = check(&nats, &[("HERALD_PROJECTION__RULES", &file)], &[]).await;
    assert!(output.ok().stdout.contains(&format!("rules: {file}")));
}

#[tokio::test]
async fn the_gateways_permissions_suffice_and_nothing_comes_of_trying_them() {
    let production = Production::migrated().await;
    let output = check_as(&production, "gateway", &[]).await.ok();
    assert!(
        output.stdout.contains("ok   nats permissions"),
        "{output:?}"
    );
    assert!(output.stdout.contains("ok   migrations"), "{output:?}");
    let operator = production.user("operator").await;
    for stream in ["EVENTS", "SESSIONS", "DEAD", "REVOKED"] {
        assert_eq!(messages(&operator, stream).await, 0, "{stream}");
    }
    // On a server without users everything is permitted, and nothing comes of it there either.
    let nats = Nats::jetstream().await;
    let client = nats.connect().await;
    migrate::apply(&client, &Default::default()).await.unwrap();
    let before = ledger(&client).await;
    check(&nats, &[], &["--nats"]).await.ok();
    assert_eq!(ledger(&client).await, before);
}

/// The last sequence of the ledger's stream.
async fn ledger(client: &async_nats::Client) -> u64 {
    let context = async_nats::jetstream::new(client.clone());
    let stream = context.get_stream("KV_HERALD_MIGRATIONS").await.unwrap();
    stream.cached_info().state.last_sequence
}

#[tokio::test]
async fn every_missing_permission_is_named() {
    let production = Production::migrated().await;
    let output = check_as(&production, "operator", &[]).await;
    assert_eq!(output.code, Some(1), "{output:?}");
    let missing = [
        "subscribe to $SRV.>",
        "subscribe to live.ws.*.>",
        "subscribe to live.session.*.*",
        "subscribe to live.revoked.>",
        "subscribe to herald.sessions.*.*",
        "subscribe to herald.query.*",
        "subscribe to herald.command.*",
        "subscribe to herald.gateways",
        "subscribe to $JS.EVENT.ADVISORY.STREAM.LEADER_ELECTED.EVENTS",
        "subscribe to $JS.EVENT.ADVISORY.STREAM.LEADER_ELECTED.SESSIONS",
        "subscribe to $JS.EVENT.ADVISORY.STREAM.LEADER_ELECTED.REVOKED",
        "publish to session.herald-check.0",
        "publish to dead.herald-check.0",
        "publish to herald.sessions.herald-check.0",
        "publish to herald.gateways",
    ];
    for permission in missing {
        assert!(
            output.stderr.contains(permission),
            "{permission}: {output:?}"
        );
    }
    assert_eq!(
        output.stderr.matches("nats permissions: ").count(),
        missing.len(),
        "{output:?}"
    );
    let runtime = check_as(&production, "runtime", &[]).await;
    assert_eq!(runtime.code, Some(1), "{runtime:?}");
    for missing in [
        "STREAM.INFO.EVENTS",
        "STREAM.MSG.GET.SESSIONS",
        "DIRECT.GET.EVENTS",
    ] {
        let missing = format!("publish to $JS.API.{missing}");
        assert!(runtime.stderr.contains(&missing), "{missing}: {runtime:?}");
    }
}

#[tokio::test]
async fn anothers_inbox_prefix_is_named() {
    let production = Production::migrated().await;
    let settings = [("HERALD_NATS__INBOX_PREFIX", "_INBOX_operator")];
    let output = check_as(&production, "gateway", &settings).await;
    assert_eq!(output.code, Some(1), "{output:?}");
    assert!(
        output.stderr.contains("set nats.inbox_prefix"),
        "{output:?}"
    );
}

#[tokio::test]
async fn what_is_not_migrated_is_wrong_unless_serve_migrates() {
    let production = Production::start().await;
    let output = check_as(&production, "gateway", &[]).await;
    assert_eq!(output.code, Some(1), "{output:?}");
    let pending = "0001_events is not applied: herald migrate applies it";
    assert!(output.stderr.contains(pending), "{output:?}");
    // With nats.migrate it would have to make the streams.
    let settings = [("HERALD_NATS__MIGRATE", "true")];
    let output = check_as(&production, "gateway", &settings).await;
    assert_eq!(output.code, Some(1), "{output:?}");
    for missing in [
        "publish to $JS.API.STREAM.CREATE.SESSIONS",
        "publish to $KV.HERALD_MIGRATIONS.",
    ] {
        assert!(output.stderr.contains(missing), "{missing}: {output:?}");
    }
    let nats = Nats::jetstream().await;
    let output = check(&nats, &[], &["--nats"]).await.ok();
    let note = "note migrations: 0003_dead is not applied: serve applies it";
    assert!(output.stdout.contains(note), "{output:?}");
    let client = nats.connect().await;
    let status = migrate::status(&client, &Default::default()).await.unwrap();
    assert_eq!(status.pending().count(), 5, "looking applies nothing");
}

#[tokio::test]
async fn a_change_by_hand_is_wrong_and_another_value_of_a_setting_is_noted() {
    let nats = Nats::jetstream().await;
    let client = nats.connect().await;
    migrate::apply(&client, &Default::default()).await.unwrap();
    let output = check(&nats, &[("HERALD_NATS__MAX_AGE", "2h")], &["--nats"]).await;
    let note = "note migrations: stream EVENTS: max_age is 1h, wanted 2h";
    assert!(output.ok().stdout.contains(note));
    let context = async_nats::jetstream::new(client);
    let stream = context.get_stream("EVENTS").await.unwrap();
    let mut config = stream.cached_info().config.clone();
    config.allow_direct = false;
    context.update_stream(config).await.unwrap();
    let output = check(&nats, &[], &["--nats"]).await;
    assert_eq!(output.code, Some(1), "{output:?}");
    assert!(output.stderr.contains("changed by hand"), "{output:?}");
    assert!(output.stderr.contains("allow_direct"), "{output:?}");
}

#[tokio::test]
async fn a_server_that_will_not_do_is_told_plainly() {
    let production = Production::start().await;
    let no_jetstream = Nats::start("").await;
    let wrong_password = production.0.url_for("gateway", "not-the-password");
    for (nats, url, want) in [
        (
            &no_jetstream,
            no_jetstream.url(),
            "migrations: JetStream is not enabled",
        ),
        (
            &no_jetstream,
            "127.0.0.1:1".to_owned(),
            "nats connection: NATS cannot be reached",
        ),
        (
            &production.0,
            wrong_password,
            "nats connection: NATS refused the credentials",
        ),
    ] {
        let output = check(nats, &[("HERALD_NATS__URL", &url)], &["--nats"]).await;
        assert_eq!(output.code, Some(1), "{output:?}");
        assert!(output.stderr.contains(want), "{want}: {output:?}");
        assert!(!output.stderr.contains("not-the-password"), "{output:?}");
    }
}
