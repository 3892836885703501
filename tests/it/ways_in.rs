//! Verifies that every command gets into NATS by each of the ways that a server may ask for, that two at once are
//! refused by name, and that finding out what a user may do leaves no trace in the server's log.

use std::path::Path;

use serde_json::json;

use crate::support::client::Client;
use crate::support::command::{Output, finish};
use crate::support::gateway::{Builder, Gateway, file};
use crate::support::nats::{Choice, JETSTREAM, Nats, choice, free_port};
use crate::support::production::Production;
use crate::support::publisher::Publisher;
use crate::support::tls::Certificates;
use crate::support::{PATIENCE, eventually};

async fn run(builder: &Builder, arguments: &[&str]) -> Output {
    finish(tokio::process::Command::from(builder.command(arguments))).await
}

/// Every command that connects does its work.
async fn all_get_in(builder: &Builder) {
    run(builder, &["migrate"]).await.ok();
    let gateway = builder.clone().ready().await;
    let mut ann = Client::join(&gateway, "ann", "acme").await;
    let publish = ["publish", "acme", "custom.x", r#"{"title":"T"}"#];
    let published = run(builder, &publish).await.ok();
    assert_eq!(published.stdout, "EVENTS 1\n");
    assert_eq!(ann.notification().await["title"], "T");
    let replayed = run(builder, &["replay", "--workspace", "acme"]).await.ok();
    assert!(replayed.stdout.contains("\"T\""), "{replayed:?}");
    run(builder, &["dead-letters"]).await.ok();
    run(builder, &["migrate", "--status"]).await.ok();
    run(builder, &["check", "--nats"]).await.ok();
}

/// `serve`, `check` and `migrate` refuse the settings, in these words and without a secret.
async fn refused(builder: &Builder, words: &[&str]) {
    for arguments in [&["serve"][..], &["check"], &["migrate"]] {
        let output = run(builder, arguments).await;
        assert_eq!(output.code, Some(2), "{arguments:?} {output:?}");
        for word in words {
            assert!(
                output.stderr.contains(word),
                "{word}: {arguments:?} {output:?}"
            );
        }
        assert!(!output.stderr.contains("hunter"), "{output:?}");
    }
}

#[tokio::test]
async fn a_token_is_a_way_in() {
    let folder = tempfile::tempdir().unwrap();
    let token = |text: &str| file(folder.path(), "token", text);
    let nats = Nats::start(&format!(
        "{JETSTREAM}authorization {{ token: \"to-ken.of/the test\" }}\n"
    ))
    .await;
    let builder = Gateway::builder(&nats);
    let with = builder.clone().set(
        "nats.token_file",
        token("\u{feff}\n to-ken.of/the test\r\n"),
    );
    all_get_in(&with).await;
    let url = format!("nats://to-ken.of%2Fthe%20test@127.0.0.1:{}", nats.port());
    let in_url = Gateway::without_nats().set("nats.url", url);
    run(&in_url, &["migrate", "--status"]).await.ok();
    for (text, words) in [
        ("hunter-two", "NATS refused the credentials"),
        ("", "one line"),
        ("hunter\ntwo", "one line"),
    ] {
        let with = builder.clone().set("nats.token_file", token(text));
        let output = run(&with, &["check", "--nats"]).await;
        assert_ne!(output.code, Some(0), "{output:?}");
        assert!(
            output.stderr.contains(words) && output.stderr.contains("nats.token_file"),
            "{output:?}"
        );
        assert!(!output.stderr.contains("hunter"), "{output:?}");
    }
}

#[tokio::test]
async fn the_seed_of_an_nkey_is_a_way_in() {
    let folder = tempfile::tempdir().unwrap();
    let pair = nkeys::KeyPair::new_user();
    let seed = pair.seed().unwrap();
    let nats = Nats::start(&format!(
        "{JETSTREAM}authorization {{ users: [ {{ nkey: {} }} ] }}\n",
        pair.public_key()
    ))
    .await;
    let builder = Gateway::builder(&nats);
    let with = |text: &str| {
        builder
            .clone()
            .set("nats.nkey_file", file(folder.path(), "user.nk", text))
    };
    all_get_in(&with(&format!("{seed}\n"))).await;
    let lines = format!("-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n");
    run(&with(&lines), &["migrate"]).await.ok();
    // Another's seed, one that is cut short, and a public key.
    let other = nkeys::KeyPair::new_user().seed().unwrap();
    let output = run(&with(&other), &["migrate"]).await;
    assert!(
        output.stderr.contains("NATS refused the credentials"),
        "{output:?}"
    );
    for text in [seed.get(..50).unwrap(), &pair.public_key(), "", "hunter"] {
        refused(
            &with(text),
            &["nats.nkey_file", "user.nk", "begins with SU"],
        )
        .await;
    }
}

#[tokio::test]
async fn a_client_certificate_is_a_way_in() {
    if *choice() == Choice::Docker {
        // A container does not see the certificate's files.
        return;
    }
    let certificates = Certificates::new();
    let path = |path: std::path::PathBuf| path.display().to_string();
    let (authority, cert, key) = (
        path(certificates.authority()),
        path(certificates.certificate()),
        path(certificates.key()),
    );
    let nats = Nats::start(&format!(
        "{JETSTREAM}tls {{ cert_file: \"{cert}\", key_file: \"{key}\", ca_file: \"{authority}\", verify: true }}\n"
    ))
    .await;
    let builder = Gateway::without_nats()
        .set("nats.url", format!("tls://localhost:{}", nats.port()))
        .set("nats.ca_file", &authority);
    let output = run(&builder, &["migrate"]).await;
    assert_eq!(output.code, Some(1), "without a certificate: {output:?}");
    let with = builder
        .clone()
        .set("nats.client_cert", &cert)
        .set("nats.client_key", &key);
    all_get_in(&with).await;
    let both = ["nats.client_cert and nats.client_key go together"];
    refused(&builder.clone().set("nats.client_cert", &cert), &both).await;
    refused(&builder.clone().set("nats.client_key", &key), &both).await;
    let absent = with.clone().set("nats.client_key", "/absent/key.pem");
    refused(&absent, &["nats.client_key", "/absent/key.pem"]).await;
    let others = Certificates::new();
    let others = with.clone().set("nats.client_key", path(others.key()));
    refused(
        &others,
        &["nats.client_key", "not the key of nats.client_cert"],
    )
    .await;
    let none = with.set(
        "nats.client_cert",
        file(Path::new(&std::env::temp_dir()), "no.pem", "no certificate"),
    );
    refused(&none, &["nats.client_cert", "no.pem", "no PEM certificate"]).await;
}

#[tokio::test]
async fn two_ways_in_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let seed = nkeys::KeyPair::new_user().seed().unwrap();
    let token = file(folder.path(), "token", "hunter");
    let nkey = file(folder.path(), "nkey", seed);
    let builder = Gateway::without_nats().set("nats.url", "nats://127.0.0.1:1");
    let with_user = Gateway::without_nats().set("nats.url", "nats://ann:hunter@127.0.0.1:1");
    for (builder, words) in [
        (
            builder
                .clone()
                .set("nats.token_file", &token)
                .set("nats.nkey_file", &nkey),
            ["nats.token_file", "nats.nkey_file"],
        ),
        (
            builder
                .clone()
                .set("nats.credentials_file", "x.creds")
                .set("nats.token_file", &token),
            ["nats.credentials_file", "nats.token_file"],
        ),
        (
            builder
                .clone()
                .set("nats.credentials_file", "x.creds")
                .set("nats.nkey_file", &nkey),
            ["nats.credentials_file", "nats.nkey_file"],
        ),
        (
            with_user.clone().set("nats.token_file", &token),
            ["nats.url", "nats.token_file"],
        ),
        (
            with_user.clone().set("nats.nkey_file", &nkey),
            ["nats.url", "nats.nkey_file"],
        ),
    ] {
        refused(&builder, &words).await;
    }
}

#[tokio::test]
async fn a_gateway_at_a_leaf_node_has_its_streams_in_the_domain_of_the_hub() {
    if *choice() == Choice::Docker {
        // A container publishes its port for clients alone, and none for leaf nodes.
        return;
    }
    let port = free_port();
    let hub = Nats::start(&format!(
        "jetstream {{ domain: hub }}\nleafnodes {{ listen: \"127.0.0.1:{port}\" }}\n"
    ))
    .await;
    let leaf = Nats::start(&format!(
        "jetstream {{ domain: edge }}\nleafnodes {{ remotes: [ {{ url: \"nats://127.0.0.1:{port}\" }} ] }}\n"
    ))
    .await;
    let builder = Gateway::builder(&leaf).set("nats.domain", "hub");
    let joined = eventually(PATIENCE, async || {
        run(&builder, &["migrate"]).await.code == Some(0)
    });
    assert!(joined.await, "{:?}", run(&builder, &["migrate"]).await);
    let streams = async |nats: &Nats| {
        let client = nats.connect().await;
        let answer = client
            .request("$JS.API.STREAM.NAMES", "".into())
            .await
            .unwrap();
        let answer: serde_json::Value = serde_json::from_slice(&answer.payload).unwrap();
        answer["total"].clone()
    };
    assert_eq!(
        (streams(&hub).await, streams(&leaf).await),
        (json!(5), json!(0))
    );
    all_get_in(&builder).await;

    let gateway = builder.ready().await;
    let mut first = Client::join(&gateway, "ann", "acme").await;
    // What the hub's own publishers send, also where its live copy is lost.
    let publisher = Publisher::on(&hub).await;
    publisher
        .unheard("EVENTS", async || {
            publisher
                .event("acme.custom.y", &json!({ "title": "lost" }))
                .await
        })
        .await;
    publisher
        .event("acme.custom.y", &json!({ "title": "next" }))
        .await;
    assert_eq!(first.notification().await["title"], "lost");
    assert_eq!(first.notification().await["title"], "next");
    // Claims.
    let second = Client::join(&gateway, "ann", "acme").await;
    assert_eq!(first.closed().await.0, 4009);
    drop(second);
    gateway
        .metric_becomes("herald_stream_readable", "", 4.0)
        .await;
    let bad = run(
        &Gateway::builder(&leaf).set("nats.domain", "a.b"),
        &["check"],
    )
    .await;
    assert_eq!(bad.code, Some(2), "{bad:?}");
    assert!(bad.stderr.contains("nats.domain"), "{bad:?}");
}

#[tokio::test]
async fn finding_out_what_a_user_may_do_leaves_no_violation_in_the_servers_log() {
    let production = Production::migrated().await;
    let config = production.config("gateway");
    let builder = Gateway::without_nats()
        .set("nats.url", config.url.expose())
        .set("nats.inbox_prefix", &config.inbox_prefix)
        .set("nats.migrate", false);
    drop(builder.clone().ready().await);
    let check = run(&builder, &["check", "--nats"]).await.ok();
    assert!(check.stdout.contains("ok   nats permissions"), "{check:?}");
    let log = production.0.log();
    assert!(!log.contains("Violation"), "{log}");
    // The log is the right one: what is denied does show there.
    let wrong = run(
        &builder.set("nats.inbox_prefix", "_INBOX"),
        &["check", "--nats"],
    )
    .await;
    assert_eq!(wrong.code, Some(1), "{wrong:?}");
    let shows = eventually(PATIENCE, async || production.0.log().contains("Violation"));
    assert!(shows.await);
}

/// It looks at a request's subject without the domain; at a leaf node it is looked at with it.
#[tokio::test]
async fn on_a_server_of_the_domain_permissions_are_those_without_it() {
    let nats = Nats::start(
        "jetstream { domain: hub }\nauthorization { users: [\n  \
        { user: leaf, password: p, permissions: { publish: [ \"$JS.hub.API.>\" ] } },\n  \
        { user: hub, password: p, permissions: { publish: [ \"$JS.API.>\" ] } } ] }\n",
    )
    .await;
    let of = |user: &str| {
        Gateway::without_nats()
            .set("nats.url", nats.url_for(user, "p"))
            .set("nats.domain", "hub")
    };
    let denied = "publish to $JS.API.STREAM.INFO.EVENTS: grant it, or use another user (nats.url)";
    let output = run(&of("leaf"), &["check", "--nats"]).await;
    assert_eq!(output.code, Some(1), "{output:?}");
    assert!(output.stderr.contains(denied), "{output:?}");
    assert!(!output.stderr.contains("timed out"), "{output:?}");
    let output = run(&of("hub"), &["check", "--nats"]).await;
    assert!(!output.stderr.contains("$JS.API.STREAM.INFO"), "{output:?}");
    assert!(output.stderr.contains("dead.herald-check.0"), "{output:?}");
}
