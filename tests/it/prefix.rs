//! Verifies that deployments with prefixes of their own, and one without, share an account and see nothing of each
//! other, and that what a user gets is the same with a prefix and without.

use async_nats::{HeaderMap, Subscriber};
use futures_util::{FutureExt, StreamExt};
use serde_json::{Value, json};

use crate::migrations::{edit, stream};
use crate::support::client::Client;
use crate::support::command::{Output, finish};
use crate::support::gateway::{Builder, Gateway};
use crate::support::nats::Nats;
use crate::support::production::Production;
use crate::support::{PATIENCE, eventually};

/// The deployments; the first has no prefix.
const PREFIXES: [&str; 3] = ["", "blue", "team-7"];

async fn run(builder: &Builder, arguments: &[&str]) -> Output {
    finish(tokio::process::Command::from(builder.command(arguments))).await
}

fn of(nats: &Nats, prefix: &str) -> Builder {
    let builder = Gateway::builder(nats);
    match prefix {
        "" => builder,
        prefix => builder.set("nats.prefix", prefix),
    }
}

/// A subject, or with `mark` a stream, of the deployment.
fn name(prefix: &str, mark: char, plain: &str) -> String {
    match prefix {
        "" => plain.to_owned(),
        prefix => format!("{prefix}{mark}{plain}"),
    }
}

async fn publish(nats: &Nats, subject: &str, payload: &str, id: &str) -> Value {
    let client = nats.connect().await;
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Msg-Id", id);
    let request = async_nats::Request::new()
        .headers(headers)
        .payload(payload.to_owned().into());
    let answer = client
        .send_request(subject.to_owned(), request)
        .await
        .unwrap();
    serde_json::from_slice(&answer.payload).unwrap()
}

/// The first words of all subjects that were heard and are nobody's inbox or API.
fn first_words(all: &mut Subscriber) -> Vec<String> {
    let mut words = Vec::new();
    while let Some(Some(message)) = all.next().now_or_never() {
        let word = message.subject.split('.').next().unwrap().to_owned();
        if !word.starts_with(['$', '_']) && !words.contains(&word) {
            words.push(word);
        }
    }
    words.sort();
    words
}

/// Whether a notice is among what was heard, all of which is of `blue`.
fn hears_notice_of_blue(all: &mut Subscriber) -> bool {
    let mut found = false;
    while let Some(Some(message)) = all.next().now_or_never() {
        let subject = message.subject.as_str();
        let of_blue = subject.starts_with("blue.") || subject.starts_with(['$', '_']);
        assert!(of_blue, "{subject}");
        found |= subject.starts_with("blue.herald.sessions.acme.");
    }
    found
}

async fn ledgers_know_the_same_files(nats: &Nats, spy: &async_nats::Client) {
    let mut checksums = Vec::new();
    for prefix in PREFIXES {
        let status = run(&of(nats, prefix), &["migrate", "--status", "--json"])
            .await
            .ok()
            .json();
        assert_eq!(status["is_applied"], true, "{status}");
        let migrations = status["migrations"].as_array().unwrap();
        checksums.push(
            migrations
                .iter()
                .map(|entry| entry["checksum"].clone())
                .collect::<Vec<_>>(),
        );
        let ledger = format!("KV_{}", name(prefix, '-', "HERALD_MIGRATIONS"));
        assert_eq!(stream(spy, &ledger).await["name"], json!(ledger));
        run(&of(nats, prefix), &["check", "--nats"]).await.ok();
    }
    assert_eq!(checksums[0], checksums[1]);
    assert_eq!(checksums[0], checksums[2]);
}

#[tokio::test]
async fn deployments_share_an_account_and_see_nothing_of_each_other() {
    let nats = Nats::jetstream().await;
    let spy = nats.connect().await;
    let mut gateways = Vec::new();
    for prefix in PREFIXES {
        gateways.push(of(&nats, prefix).ready().await);
    }
    // One user in one workspace of each, with one id for the events of all.
    let mut anns = Vec::new();
    for gateway in &gateways {
        anns.push(Client::join(gateway, "ann", "acme").await);
    }
    for prefix in PREFIXES {
        let subject = name(prefix, '.', "ws.acme.record.created");
        let payload = json!({ "collection": prefix, "recordId": "r1" }).to_string();
        let ack = publish(&nats, &subject, &payload, "the-same").await;
        assert_eq!(
            ack,
            json!({ "stream": name(prefix, '-', "EVENTS"), "seq": 1 })
        );
        let again = publish(&nats, &subject, &payload, "the-same").await;
        assert_eq!(again["duplicate"], true);
    }
    let mut shapes = Vec::new();
    for (ann, prefix) in anns.iter_mut().zip(PREFIXES) {
        let mut notification = ann.notification().await;
        assert_eq!(
            notification["metadata"]["collection"], prefix,
            "{notification}"
        );
        for field in ["id", "timestamp", "message", "title"] {
            notification[field] = Value::Null;
        }
        notification["metadata"]["collection"] = Value::Null;
        shapes.push(notification);
    }
    assert_eq!(shapes[0], shapes[1]);
    assert_eq!(shapes[0], shapes[2]);

    // A claim closes the socket of its own deployment alone, and its notice is told there alone.
    let mut all = spy.subscribe(">").await.unwrap();
    spy.flush().await.unwrap();
    let mut second = Client::join(&gateways[1], "ann", "acme").await;
    assert_eq!(anns[1].closed().await.0, 4009);
    assert!(eventually(PATIENCE, async || hears_notice_of_blue(&mut all)).await);
    assert!(anns[0].is_open().await && anns[2].is_open().await);

    // A dead letter.
    let ack = publish(&nats, "blue.ws.acme.record.created", "no JSON", "bad").await;
    assert_eq!(ack["seq"], 2);
    let letters = async |prefix: &str| {
        let output = run(&of(&nats, prefix), &["dead-letters", "--json"])
            .await
            .ok();
        output.stdout.lines().count()
    };
    let kept = eventually(PATIENCE, async || letters("blue").await == 1);
    assert!(kept.await);
    assert_eq!((letters("").await, letters("team-7").await), (0, 0));
    assert_eq!(first_words(&mut all), ["blue"]);

    ledgers_know_the_same_files(&nats, &spy).await;
    assert!(second.is_open().await);
}

#[tokio::test]
async fn commands_and_repairs_go_by_the_prefix() {
    let mut nats = Nats::jetstream().await;
    let builder = of(&nats, "blue");
    let gateway = builder.clone().ready().await;
    let mut ann = Client::join(&gateway, "ann", "acme").await;
    let send = async |title: &str| {
        let payload = json!({ "title": title }).to_string();
        run(&builder, &["publish", "acme", "custom.x", &payload])
            .await
            .ok()
            .stdout
    };
    assert_eq!(send("one").await, "blue-EVENTS 1\n");
    let first = ann.text().await;
    // One whose live copy is lost, found by the next one's Nats-Last-Sequence.
    let client = nats.connect().await;
    let republish = stream(&client, "blue-EVENTS").await["republish"].clone();
    assert_eq!(republish["dest"], "blue.live.ws.>");
    edit(&client, "blue-EVENTS", json!({ "republish": null })).await;
    send("two").await;
    edit(&client, "blue-EVENTS", json!({ "republish": republish })).await;
    send("three").await;
    let rest = [ann.text().await, ann.text().await];
    assert!(
        rest[0].contains("\"two\"") && rest[1].contains("\"three\""),
        "{rest:?}"
    );
    let replayed = run(&builder, &["replay", "--workspace", "acme"]).await.ok();
    let sent: Vec<&str> = std::iter::once(&first)
        .chain(&rest)
        .map(String::as_str)
        .collect();
    assert_eq!(replayed.stdout.lines().collect::<Vec<_>>(), sent);
    // And over a restart, after which rooms compare with the stream.
    nats.restart().await;
    gateway
        .metric_becomes("herald_nats_reconnects_total", "", 1.0)
        .await;
    let sent = eventually(PATIENCE, async || {
        let payload = r#"{"title":"four"}"#;
        run(
            &builder,
            &["publish", "acme", "custom.x", payload, "--id", "four"],
        )
        .await
        .code
            == Some(0)
    });
    assert!(sent.await);
    assert_eq!(ann.notification().await["title"], "four");
    gateway
        .metric_becomes("herald_events_lost_total", "", 0.0)
        .await;
    gateway
        .metric_becomes("herald_stream_readable", "blue-", 4.0)
        .await;
}

#[tokio::test]
async fn the_permissions_of_production_hold_with_a_prefix_as_the_file_says() {
    let production = Production::start_with_prefix("blue").await;
    let as_user = |user: &str| {
        let config = production.config(user);
        Gateway::without_nats()
            .set("nats.url", config.url.expose())
            .set("nats.inbox_prefix", &config.inbox_prefix)
            .set("nats.migrate", false)
            .set("nats.prefix", "blue")
    };
    run(&as_user("migrator"), &["migrate"]).await.ok();
    let gateway = as_user("gateway").ready().await;
    let check = run(&as_user("gateway"), &["check", "--nats"]).await.ok();
    assert!(check.stdout.contains("ok   nats permissions"), "{check:?}");
    let mut ann = Client::join(&gateway, "ann", "acme").await;
    run(
        &as_user("runtime"),
        &["publish", "acme", "custom.x", r#"{"title":"T"}"#],
    )
    .await
    .ok();
    assert_eq!(ann.notification().await["title"], "T");
    // Without it, nothing may be done.
    let plain = as_user("gateway").unset("nats.prefix");
    let check = run(&plain, &["check", "--nats"]).await;
    assert_eq!(check.code, Some(1), "{check:?}");
    assert!(
        check
            .stderr
            .contains("publish to $JS.API.STREAM.INFO.EVENTS"),
        "{check:?}"
    );
}

#[tokio::test]
async fn a_prefix_that_is_a_name_of_heralds_own_is_refused() {
    let nats = Nats::start("").await;
    for (prefix, words) in [
        ("ws", "a name of Herald's own"),
        ("live", "a name of Herald's own"),
        ("EVENTS", "a name of Herald's own"),
        ("Custom", "a name of Herald's own"),
        ("heralds", "a name of Herald's own"),
        ("a.b", "letters and digits"),
        ("a b", "letters and digits"),
    ] {
        let output = run(&of(&nats, prefix), &["check"]).await;
        assert_eq!(output.code, Some(2), "{output:?}");
        assert!(
            output.stderr.contains("nats.prefix") && output.stderr.contains(words),
            "{output:?}"
        );
    }
}
