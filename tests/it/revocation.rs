//! What is revoked is out: on open sockets, at joins and at refreshes, over restarts, and whatever others have the
//! server write into the stream of revocations.

use std::path::Path;
use std::time::{Duration, Instant};

use async_nats::Client as NatsClient;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::migrations::{api, stream};
use crate::support::cable::Cable;
use crate::support::client::Client;
use crate::support::command::{Output, finish, finish_with};
use crate::support::gateway::{Builder, Gateway};
use crate::support::nats::Nats;
use crate::support::production::Production;
use crate::support::token::{at, signed, with_key};
use crate::support::{PATIENCE, eventually};

const REVOKED: (u16, &str) = (4001, "revoked");

async fn run(builder: &Builder, arguments: &[&str]) -> Output {
    finish(tokio::process::Command::from(builder.command(arguments))).await
}

async fn revoke(builder: &Builder, arguments: &[&str]) -> Output {
    run(builder, &[&["revoke"], arguments].concat()).await.ok()
}

/// A token of `user`, issued so many seconds from now.
fn issued(user: &str, offset: i64) -> String {
    signed(&json!({ "sub": user, "workspaces": "*", "exp": at(600), "iat": at(offset) }))
}

fn query(token: &str, workspace: &str) -> String {
    format!("token={token}&workspaceSlug={workspace}")
}

async fn join(gateway: &Gateway, token: &str, workspace: &str) -> Client {
    let mut client = Client::connect(gateway, &query(token, workspace)).await;
    assert!(client.is_open().await);
    client
}

/// How a join ends that is upgraded and closed at once.
async fn refused(gateway: &Gateway, token: &str) -> (u16, String) {
    let mut client = Client::connect(gateway, &query(token, "acme")).await;
    client.closed().await
}

fn is_revoked(end: &(u16, String)) -> bool {
    (end.0, end.1.as_str()) == REVOKED
}

#[tokio::test]
async fn a_revoked_users_sockets_end_everywhere_and_only_a_newer_token_gets_in() {
    let nats = Nats::jetstream().await;
    let builder = Gateway::builder(&nats);
    let (one, two) = tokio::join!(builder.clone().ready(), builder.clone().ready());
    let old = issued("ada", -10);
    let mut sockets = [
        join(&one, &old, "acme").await,
        join(&two, &old, "globex").await,
        // It may have been issued before.
        join(
            &two,
            &signed(&json!({ "sub": "ada", "workspaces": "*", "exp": at(600) })),
            "initech",
        )
        .await,
    ];
    let mut bob = join(&one, &issued("bob", -10), "acme").await;
    let fresh = issued("ada", 5);
    let mut renewed = join(&one, &old, "umbrella").await;
    renewed
        .send(&json!({ "type": "token", "token": fresh }).to_string())
        .await;
    one.metric_becomes(
        "herald_token_checks_total",
        "result=\"ok\",use=\"refresh\"",
        1.0,
    )
    .await;

    let output = revoke(
        &builder,
        &["--user", "ada", "--no-issuer", "--note", "ticket 4711"],
    )
    .await;
    let stored = Instant::now();
    let lines: Vec<_> = output.stdout.lines().collect();
    let said = "revoked user ada, tokens without an issuer, tokens issued before 20";
    assert!(lines[0].starts_with(said), "{output:?}");
    assert_eq!(lines[1..], ["in force on 2 gateways"]);
    for gateway in [&one, &two] {
        let sequence = gateway.metric("herald_revocations_sequence", "").await;
        assert_eq!(sequence, 1.0, "it says so before it is");
    }
    for socket in &mut sockets {
        assert!(is_revoked(&socket.closed().await));
    }
    // A second, and what a busy machine needs.
    assert!(
        stored.elapsed() < Duration::from_secs(3),
        "{:?}",
        stored.elapsed()
    );
    // A token of after it is not revoked, also where the socket was opened by another.
    assert!(renewed.is_open().await);
    assert!(bob.is_open().await);
    for gateway in [&one, &two] {
        assert!(is_revoked(&refused(gateway, &old).await));
    }
    assert_eq!(two.metric("herald_revocations_closed_total", "").await, 2.0);
    assert_eq!(two.metric("herald_revocations", "kind=\"user\"").await, 1.0);
    assert_eq!(two.metric("herald_revocations_sequence", "").await, 1.0);
    assert!(
        two.metric("herald_token_checks_total", "result=\"revoked\"")
            .await
            >= 1.0
    );
}

#[tokio::test]
async fn a_revocation_is_in_force_at_refreshes_and_over_restarts_until_it_is_lifted() {
    let nats = Nats::jetstream().await;
    let builder = Gateway::builder(&nats);
    let (one, two) = tokio::join!(builder.clone().ready(), builder.clone().ready());
    let (old, fresh) = (issued("ada", -10), issued("ada", 5));
    revoke(
        &builder,
        &["--user", "ada", "--no-issuer", "--note", "ticket 4711"],
    )
    .await;

    // At a refresh: the socket ends.
    let mut standing = join(&two, &fresh, "hooli").await;
    standing
        .send(&json!({ "type": "token", "token": old }).to_string())
        .await;
    assert!(is_revoked(&standing.closed().await));

    // Over a restart.
    let mut two = two;
    two.terminate();
    two.ended().await;
    let two = builder.clone().ready().await;
    assert!(is_revoked(&refused(&two, &old).await));
    join(&two, &fresh, "acme").await;

    let listed = revoke(&builder, &["--list", "--json"]).await.json();
    assert_eq!(listed["sequence"], 1);
    assert_eq!(listed["do"], "revoke");
    assert_eq!(listed["what"], json!({ "user": "ada" }));
    assert_eq!(listed["note"], "ticket 4711");
    assert_eq!(listed["in_force"], true);

    let undone = revoke(
        &builder,
        &["--user", "ada", "--no-issuer", "--undo", "--json"],
    )
    .await;
    let printed: Vec<Value> = undone
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(printed[0], json!({ "stream": "REVOKED", "sequence": 2 }));
    assert_eq!(printed[1]["in_force"].as_array().unwrap().len(), 2);
    assert_eq!(printed[1]["behind"], json!([]));
    for gateway in [&one, &two] {
        join(gateway, &old, "acme").await;
    }
    let table = revoke(&builder, &["--list"]).await.stdout;
    assert!(
        table.contains("lifted") && table.contains("ticket 4711"),
        "{table}"
    );
    let nothing = revoke(&builder, &["--user", "bob", "--no-issuer", "--undo"]).await;
    assert!(
        nothing.stderr.contains("that is not revoked"),
        "{nothing:?}"
    );
}

#[tokio::test]
async fn one_token_is_revoked_by_itself_and_nothing_of_it_is_printed() {
    let nats = Nats::jetstream().await;
    let builder = Gateway::builder(&nats);
    let gateway = builder.clone().ready().await;
    let with = |jti: Option<&str>| {
        signed(
            &json!({ "sub": "ada", "workspaces": "*", "exp": at(600), "iat": at(-10), "jti": jti }),
        )
    };
    let (leaked, other) = (with(Some("leaked-one")), with(Some("another-one")));
    let mut theirs = join(&gateway, &leaked, "acme").await;
    let mut ours = join(&gateway, &other, "globex").await;
    let with_stdin = async |token: &str| {
        let command = builder.command(&["revoke", "--token", "-"]);
        let output = finish_with(command.into(), &format!("{token}\n")).await;
        (output.code, output.stdout + &output.stderr)
    };
    let (code, printed) = with_stdin(&leaked).await;
    assert_eq!(code, Some(0), "{printed}");
    crate::support::token::assert_no_part_of_a_token(&printed);
    for needle in ["leaked-one", "ada"] {
        assert!(!printed.contains(needle), "{printed}");
    }
    assert!(is_revoked(&theirs.closed().await));
    assert!(is_revoked(&refused(&gateway, &leaked).await));
    assert!(ours.is_open().await);
    let (code, printed) = with_stdin(&with(None)).await;
    assert_eq!(code, Some(2), "{printed}");
    assert!(
        printed.contains("it has no jti") || printed.contains("has no jti"),
        "{printed}"
    );
    let (code, printed) = with_stdin("no token").await;
    assert_eq!(code, Some(2), "{printed}");
    // The same by its name.
    revoke(&builder, &["--token-id", "another-one", "--no-issuer"]).await;
    assert!(is_revoked(&ours.closed().await));
    gateway
        .metric_becomes("herald_revocations", "kind=\"token\"", 2.0)
        .await;
}

#[tokio::test]
async fn all_tokens_of_a_key_are_revoked_by_its_thumbprint() {
    let keys = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/keys");
    let nats = Nats::jetstream().await;
    let builder = Gateway::builder(&nats).unset("auth.hmac_secret").set(
        "auth.public_key_file",
        keys.join("ed25519.public.pem").display(),
    );
    let gateway = builder.clone().ready().await;
    let private = std::fs::read(keys.join("ed25519.private.pem")).unwrap();
    let key = EncodingKey::from_ed_pem(&private).unwrap();
    let claims = json!({ "sub": "ada", "workspaces": "*", "exp": at(600), "iat": at(0) });
    let token = with_key(&claims, Algorithm::EdDSA, &key);
    let mut socket = join(&gateway, &token, "acme").await;

    // RFC 8037 appendix A.3: the hash of the members that are required, in their order.
    let pem = std::fs::read_to_string(keys.join("ed25519.public.pem")).unwrap();
    let der: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let der = STANDARD.decode(der).unwrap();
    let x = URL_SAFE_NO_PAD.encode(&der[der.len() - 32..]);
    let members = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#);
    let thumbprint = URL_SAFE_NO_PAD.encode(Sha256::digest(members));
    revoke(&builder, &["--key", &thumbprint]).await;
    assert!(is_revoked(&socket.closed().await));
    assert!(is_revoked(&refused(&gateway, &token).await));
    revoke(&builder, &["--key", &thumbprint, "--undo"]).await;
    gateway
        .metric_becomes("herald_revocations_sequence", "", 2.0)
        .await;
    join(&gateway, &token, "acme").await;
}

/// A revoked publisher must not lift its own revocation, nor make the gateways forget it.
#[tokio::test]
async fn what_a_publisher_has_the_server_write_there_revokes_and_lifts_nothing() {
    let production = Production::migrated().await;
    let gateway = production.gateway("gateway").ready().await;
    let operator = production.gateway("operator");
    let token = issued("ada", -10);
    let mut ada = join(&gateway, &token, "acme").await;
    let mut bob = join(&gateway, &issued("bob", -10), "acme").await;
    revoke(&operator, &["--user", "ada", "--no-issuer"]).await;
    assert!(is_revoked(&ada.closed().await));

    let reader = production.user("operator").await;
    let config = stream(&reader.client, "REVOKED").await;
    assert_eq!(config["deny_purge"], true);
    // The subject of the entry itself, and one that is free.
    let request = json!({ "seq": 1 }).to_string();
    let first = reader
        .client
        .request("$JS.API.DIRECT.GET.REVOKED", request.into());
    let first = first.await.unwrap().headers.unwrap();
    let entry = first.get_last("Nats-Subject").unwrap().as_str().to_owned();
    let runtime = production.user("runtime").await;
    let lift = r#"{"do":"lift","what":{"user":"ada"}}"#;
    for reply in [
        entry.as_str(),
        "revoked.0123456789abcdef0123456789abcdef",
        "live.revoked.0123",
    ] {
        for id in [lift, lift] {
            let mut headers = async_nats::HeaderMap::new();
            headers.insert("Nats-Msg-Id", id);
            runtime
                .client
                .publish_with_reply_and_headers(
                    "ws.acme.custom.x",
                    reply.to_owned(),
                    headers,
                    lift.into(),
                )
                .await
                .unwrap();
        }
    }
    runtime.client.flush().await.unwrap();
    gateway
        .metric_becomes("herald_revocations_ignored", "", 4.0)
        .await;
    gateway.logged("an entry of REVOKED is not ours").await;
    assert_eq!(gateway.log_lines("an entry of REVOKED is not ours"), 1);
    assert!(is_revoked(&refused(&gateway, &token).await));
    assert!(bob.is_open().await);
    let list = revoke(&operator, &["--list", "--json"]).await;
    assert_eq!(list.json()["in_force"], true);
    assert!(
        list.stderr.contains("4 messages of REVOKED are no entries"),
        "{list:?}"
    );
    // Nobody else writes there, and the command says why not.
    for user in ["gateway", "runtime", "migrator"] {
        let denied = run(
            &production.gateway(user),
            &["revoke", "--user", "bob", "--no-issuer"],
        )
        .await;
        assert_eq!(denied.code, Some(1), "{denied:?}");
        assert!(
            denied
                .stderr
                .contains("NATS does not allow this user to publish to revoked."),
            "{denied:?}"
        );
    }
}

#[tokio::test]
async fn nobody_can_remove_a_revocation() {
    let nats = Nats::jetstream().await;
    let builder = Gateway::builder(&nats);
    let gateway = builder.clone().ready().await;
    revoke(&builder, &["--user", "ada", "--no-issuer"]).await;
    gateway
        .metric_becomes("herald_revocations", "kind=\"user\"", 1.0)
        .await;
    let client = nats.connect().await;
    for (request, body) in [
        ("STREAM.PURGE.REVOKED", Value::Null),
        ("STREAM.MSG.DELETE.REVOKED", json!({ "seq": 1 })),
    ] {
        let answer = api(&client, request, &body).await;
        assert!(answer["error"]["code"].is_u64(), "{request}: {answer}");
    }
    // A stream that is made anew has no entries, and lifts nothing.
    let config = stream(&client, "REVOKED").await;
    api(&client, "STREAM.DELETE.REVOKED", &Value::Null).await;
    api(&client, "STREAM.CREATE.REVOKED", &json!(config)).await;
    revoke(&builder, &["--user", "bob", "--no-issuer"]).await;
    let anew = "the stream of revocations is another one: what was revoked stays revoked";
    let noticed = eventually(PATIENCE, async || gateway.log_lines(anew) == 1);
    assert!(noticed.await, "{}", gateway.output());
    gateway
        .metric_becomes("herald_revocations", "kind=\"user\"", 2.0)
        .await;
    for user in ["ada", "bob"] {
        assert!(
            is_revoked(&refused(&gateway, &issued(user, -10)).await),
            "{user}"
        );
    }
    revoke(&builder, &["--user", "ada", "--no-issuer", "--undo"]).await;
    gateway
        .metric_becomes("herald_revocations", "kind=\"user\"", 1.0)
        .await;
    join(&gateway, &issued("ada", -10), "acme").await;
}

#[tokio::test]
async fn without_nats_what_was_read_is_in_force_and_after_a_reconnect_the_rest() {
    let nats = Nats::jetstream().await;
    let builder = Gateway::builder(&nats);
    let cable = Cable::to(nats.port()).await;
    let gateway = Gateway::without_nats()
        .set("nats.url", cable.url())
        .ready()
        .await;
    revoke(&builder, &["--user", "ada", "--no-issuer"]).await;
    let mut bob = join(&gateway, &issued("bob", -10), "acme").await;
    gateway
        .metric_becomes("herald_revocations_sequence", "", 1.0)
        .await;
    cable.cut();
    let away = eventually(PATIENCE, async || {
        gateway.metric("herald_revocations_age_seconds", "").await > 2.0
    });
    assert!(away.await, "the age does not rise");
    assert!(is_revoked(&refused(&gateway, &issued("ada", -10)).await));
    let output = run(&builder, &["revoke", "--user", "bob", "--no-issuer"]).await;
    assert_eq!(output.code, Some(1), "{output:?}");
    for words in ["it is stored, but", "no gateway answered within 2s"] {
        assert!(output.stderr.contains(words), "{output:?}");
    }
    assert!(output.stdout.ends_with("(REVOKED 2)\n"), "{output:?}");
    assert!(bob.is_open().await);
    cable.mend();
    gateway.logged("reconnected to nats").await;
    let reconnected = Instant::now();
    assert!(is_revoked(&bob.closed().await));
    // A second, and what a busy machine needs.
    assert!(
        reconnected.elapsed() < Duration::from_secs(3),
        "{:?}",
        reconnected.elapsed()
    );
}

#[tokio::test]
async fn a_gateway_is_not_ready_before_it_has_read_all_revocations() {
    let nobody = "mappings: { \"$JS.API.DIRECT.GET.REVOKED\": [{ destination: \"nowhere\", weight: 100% }] }\n";
    let mut nats = Nats::start(&format!("jetstream: enabled\n{nobody}")).await;
    let builder = Gateway::builder(&nats);
    run(&builder, &["migrate"]).await.ok();
    revoke(&builder, &["--user", "ada", "--no-issuer", "--no-wait"]).await;
    let gateway = builder.clone().start().await;
    let waits = eventually(PATIENCE, async || {
        gateway.get("/readyz").await.1.contains("revocations")
    });
    assert!(waits.await, "{}", gateway.output());
    gateway.logged("revocations not read").await;
    let join = Client::attempt(&gateway, &query(&issued("ada", -10), "acme")).await;
    assert_eq!(join.unwrap_err().status, 503);
    assert_eq!(gateway.get("/readyz").await.0, 503);
    let output = run(&builder, &["revoke", "--user", "bob", "--no-issuer"]).await;
    assert_eq!(output.code, Some(1), "{output:?}");
    assert!(
        output.stdout.ends_with("in force on 0 gateways\n"),
        "{output:?}"
    );
    assert!(
        output.stderr.contains("has read up to 0 only"),
        "{output:?}"
    );
    // Read at the start alone.
    nats.reload("jetstream: enabled\n").await;
    nats.restart().await;
    let ready = eventually(PATIENCE, async || gateway.get("/readyz").await.0 == 200);
    assert!(ready.await, "{}", gateway.output());
    assert!(is_revoked(&refused(&gateway, &issued("ada", -10)).await));
}

async fn messages(client: &NatsClient) -> u64 {
    let info = api(client, "STREAM.INFO.REVOKED", &Value::Null).await;
    info["state"]["messages"].as_u64().unwrap()
}

#[tokio::test]
async fn revocations_end_when_the_tokens_have_and_no_sooner() {
    let nats = Nats::jetstream().await;
    let client = nats.connect().await;
    let builder = Gateway::builder(&nats).set("auth.max_token_age", "2s");
    let gateway = builder.clone().ready().await;
    revoke(&builder, &["--user", "ada", "--no-issuer"]).await;
    gateway
        .metric_becomes("herald_revocations", "kind=\"user\"", 1.0)
        .await;
    // The longest life of a token, and twice the ten seconds that are forgiven to clocks.
    assert_eq!(
        stream(&client, "REVOKED").await["max_age"],
        22_000_000_000_u64
    );
    let ended = eventually(PATIENCE * 2, async || messages(&client).await == 0);
    assert!(ended.await, "the entry stays");
    revoke(&builder, &["--user", "bob", "--no-issuer"]).await;
    gateway
        .metric_becomes("herald_revocations_sequence", "", 2.0)
        .await;
    assert_eq!(
        gateway.metric("herald_revocations", "kind=\"user\"").await,
        1.0
    );

    // With tokens that live longer than entries, a gateway does not open.
    let longer = builder.clone().set("auth.max_token_age", "1h");
    let waiting = longer.clone().set("nats.migrate", false).start().await;
    let waits = eventually(PATIENCE, async || {
        waiting
            .get("/readyz")
            .await
            .1
            .contains("revoked tokens would come back")
    });
    assert!(waits.await, "{}", waiting.output());
    let check = run(&longer, &["check", "--nats"]).await;
    assert_eq!(check.code, Some(1), "{check:?}");
    assert!(check.stderr.contains("auth.max_token_age"), "{check:?}");
    let migrated = run(&longer, &["migrate"]).await.ok();
    assert!(
        migrated
            .stdout
            .contains("reconciled stream REVOKED: max_age is 22s, wanted 1h 20s"),
        "{migrated:?}"
    );
    let ready = eventually(PATIENCE, async || waiting.get("/readyz").await.0 == 200);
    assert!(ready.await, "{}", waiting.output());
    // Without the setting they stay.
    run(&builder.unset("auth.max_token_age"), &["migrate"])
        .await
        .ok();
    assert_eq!(stream(&client, "REVOKED").await["max_age"], 0);
}
