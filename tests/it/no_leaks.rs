//! Nothing of a token shows, in no log line, metric, span or message on NATS, in no answer to an operator and no output of
//! a command. But for the user's name, with its issuer: where sessions or revocations are listed, or the user is named.

use std::sync::{Arc, Mutex};

use async_nats::{Client as NatsClient, Message};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::operator::named;
use crate::support::client::Client;
use crate::support::command::{Output, finish_with};
use crate::support::gateway::{Builder, Gateway};
use crate::support::nats::Nats;
use crate::support::otlp::Collector;
use crate::support::publisher::Publisher;
use crate::support::token::{assert_no_part_of_a_token, at, signed};
use crate::support::{PATIENCE, eventually};

/// Values of claims that show nowhere.
const SECRETS: [&str; 4] = [
    "jti-of-ulla",
    "ulla@mail.example",
    "scope-of-ulla",
    "audience-of-ulla",
];
/// Values that name a user.
const USERS: [&str; 3] = ["ulla-the-user", "otto-the-other", "https://issuer.example"];

fn claims(user: &str) -> Value {
    json!({
        "sub": user, "iss": USERS[2], "workspaces": ["acme", "workspace-of-ulla"], "iat": at(-60), "exp": at(600),
        "jti": SECRETS[0], "email": SECRETS[1], "scope": SECRETS[2], "aud": SECRETS[3],
    })
}

fn with(claims: &Value, key: &str, value: Value) -> String {
    let mut claims = claims.clone();
    claims[key] = value;
    signed(&claims)
}

/// Everything that anybody sends over NATS.
#[derive(Clone, Default)]
struct Tap(Arc<Mutex<Vec<Message>>>);

impl Tap {
    async fn on(nats: &NatsClient) -> Self {
        let tap = Self::default();
        let mut all = nats.subscribe(">").await.unwrap();
        nats.flush().await.unwrap();
        let messages = Arc::clone(&tap.0);
        tokio::spawn(async move {
            while let Some(message) = all.next().await {
                messages.lock().unwrap().push(message);
            }
        });
        tap
    }

    fn messages(&self) -> Vec<Message> {
        self.0.lock().unwrap().clone()
    }
}

/// Whether users are named where this message is: a request that names one, the answer with rows of sessions, and
/// entries of REVOKED.
fn may_name_a_user(message: &Message) -> bool {
    let subject = message.subject.as_str();
    let headers = message.headers.as_ref();
    let is_entry = headers
        .and_then(|headers| headers.get_last("Nats-Subject"))
        .is_some_and(|subject| subject.as_str().starts_with("revoked."));
    let is_rows = || {
        let body: Value = serde_json::from_slice(&message.payload).unwrap_or_default();
        body["sessions"].is_array()
    };
    let named = [
        "herald.query.sessions",
        "herald.command.disconnect",
        "revoked.",
        "live.revoked.",
    ];
    named.iter().any(|begin| subject.starts_with(begin)) || is_entry || is_rows()
}

fn assert_none_of(needles: &[&str], hay: &str, what: &str) {
    for needle in needles {
        let line = hay.lines().find(|line| line.contains(needle));
        assert_eq!(line, None, "{what} shows {needle}");
    }
}

async fn run(builder: &Builder, arguments: &[&str], input: &str) -> Output {
    finish_with(builder.command(arguments).into(), input).await
}

/// Sockets in each way in which one opens, ends or is refused.
async fn use_sockets(gateway: &Gateway, publisher: &Publisher) -> Vec<Client> {
    let ulla = claims(USERS[0]);
    let good = signed(&ulla);
    let query = |token: &str| format!("token={token}&workspaceSlug=acme");
    let mut replaced = Client::connect(gateway, &query(&good)).await;
    let mut open = Client::connect(gateway, &query(&good)).await;
    replaced.closed().await;
    publisher
        .event("acme.custom.x", &json!({"title": "x"}))
        .await;
    open.notification().await;
    let other = signed(&claims(USERS[1]));
    let mut refreshed = Client::connect(gateway, &query(&other)).await;
    let fresh = json!({ "type": "token", "token": with(&claims(USERS[1]), "iat", json!(at(5))) });
    refreshed.send(&fresh.to_string()).await;
    assert!(refreshed.is_open().await);
    for (bad, workspace) in [
        (with(&ulla, "exp", json!(at(-600))), "acme"),
        (with(&ulla, "nbf", json!(at(600))), "acme"),
        (with(&ulla, "iat", json!("yesterday")), "acme"),
        (with(&ulla, "workspaces", json!("elsewhere")), "acme"),
        (good.clone(), "globex"),
        (format!("{good}x"), "acme"),
        (good.chars().rev().skip(5).collect(), "acme"),
    ] {
        let query = format!("token={bad}&workspaceSlug={workspace}");
        if let Ok(mut client) = Client::attempt(gateway, &query).await {
            client.closed().await;
        }
    }
    let mut wrong = Client::connect(gateway, &query(&with(&ulla, "sub", json!("third")))).await;
    let of_other = json!({ "type": "token", "token": other });
    wrong.send(&of_other.to_string()).await;
    wrong.closed().await;
    vec![open, refreshed]
}

/// All commands of operators, with what they print.
async fn use_commands(builder: &Builder, leaked: &str) {
    let user = ["--user", USERS[0], "--issuer", USERS[2]];
    let token_id = ["--token-id", SECRETS[0], "--issuer", USERS[2]];
    let commands: [(&[&str], bool); 16] = [
        (&["gateways"], false),
        (&["gateways", "--json"], false),
        (&["gateways", "gw-1", "--log-level", "trace"], false),
        (&["sessions"], true),
        (&["sessions", "--json"], true),
        (&["sessions", "--count", "--by", "user"], true),
        (&["sessions", "--count"], false),
        (&["sessions", "--count", "--by", "gateway", "--json"], false),
        (&["disconnect", "--user", "nobody"], false),
        (
            &["disconnect", "--user", USERS[0], "--workspace", "acme"],
            false,
        ),
        (&["revoke", "--token", "-"], false),
        (&["revoke", "--token", "-", "--undo", "--json"], false),
        (&[&["revoke"], &token_id[..]].concat(), false),
        (&[&["revoke"], &user[..]].concat(), true),
        (&["revoke", "--list"], true),
        (&["revoke", "--list", "--json"], true),
    ];
    for (arguments, names_users) in commands {
        let output = run(builder, arguments, leaked).await.ok();
        let printed = output.stdout + &output.stderr;
        assert_no_part_of_a_token(&printed);
        let what = format!("{arguments:?}");
        assert_none_of(&SECRETS, &printed, &what);
        if !names_users {
            assert_none_of(&USERS, &printed, &what);
        }
    }
    // What cannot be read is not shown either.
    for input in [
        "no token",
        &leaked.replace('.', ""),
        &leaked.replace('.', "!"),
    ] {
        let output = run(builder, &["revoke", "--token", "-"], input).await;
        assert_eq!(output.code, Some(2), "{output:?}");
        assert_no_part_of_a_token(&(output.stdout + &output.stderr));
    }
}

/// What is not a command of ours, and requests that are refused.
async fn request_all(client: &NatsClient) {
    for subject in [
        "$SRV.PING",
        "$SRV.INFO.herald",
        "$SRV.STATS.herald",
        "herald.query.gateways",
        "herald.query.sessions",
        "herald.command.disconnect",
        "herald.command.drain",
        "herald.command.log-level",
    ] {
        for body in ["{}", "[]", "{\"count\":true}"] {
            let request = client.request(subject, body.into());
            request.await.unwrap();
        }
    }
}

/// The payload; of a stored message that a leader answered with, what it has encoded.
fn readable(payload: &[u8]) -> String {
    let mut value: Value = serde_json::from_slice(payload).unwrap_or_default();
    let Some(Value::Object(stored)) = value.get_mut("message") else {
        return String::from_utf8_lossy(payload).into_owned();
    };
    for name in ["hdrs", "data"] {
        if let Some(Value::String(text)) = stored.get_mut(name) {
            let decoded = STANDARD.decode(&*text).expect("base64");
            *text = String::from_utf8_lossy(&decoded).into_owned();
        }
    }
    value.to_string()
}

#[tokio::test]
async fn nothing_of_a_token_shows_but_the_users_name_where_it_is_requested() {
    let nats = Nats::jetstream().await;
    let client = nats.connect().await;
    let tap = Tap::on(&client).await;
    let collector = Collector::start().await;
    let builder = named(Gateway::builder(&nats), "gw-1").set("telemetry.send_spans", 1000);
    let exported = collector.exported(builder.clone(), "grpc");
    // The collector's variables replace those that name the gateway.
    let gateway = exported.ready().await;
    let publisher = Publisher::on(&nats).await;
    let sockets = Box::pin(use_sockets(&gateway, &publisher)).await;
    request_all(&client).await;
    use_commands(&builder, &signed(&claims(USERS[0]))).await;
    drop(sockets);
    let metrics = gateway.metrics("text/plain").await;
    assert!(metrics.contains("herald_token_checks_total"), "{metrics}");
    run(&builder, &["drain", "gw-1"], "").await.ok();
    gateway.logged("drained").await;
    let exported = eventually(PATIENCE, async || {
        let spans = collector.spans().await;
        let wanted = ["drain", "connection", "send"];
        wanted
            .iter()
            .all(|name| spans.iter().any(|seen| seen.span.name.contains(name)))
    });
    let spans = collector.spans().await;
    let names: std::collections::BTreeSet<_> = spans.iter().map(|seen| &seen.span.name).collect();
    assert!(exported.await, "{names:?}");

    let messages = tap.messages();
    let mut all = String::new();
    for message in &messages {
        let headers = message.headers.as_ref();
        let headers = headers.map_or(String::new(), |headers| format!("{headers:?}"));
        let body = readable(&message.payload);
        let text = format!("{} {headers} {body}\n", message.subject);
        assert_none_of(&SECRETS, &text, "NATS");
        if !may_name_a_user(message) {
            assert_none_of(&USERS, &text, "NATS");
        }
        all += &text;
    }
    assert_no_part_of_a_token(&all);
    let names_ulla =
        |message: &&Message| String::from_utf8_lossy(&message.payload).contains(USERS[0]);
    assert!(
        messages.iter().filter(names_ulla).count() > 5,
        "it is listed"
    );
    let heard = |begin: &str| {
        messages
            .iter()
            .any(|message| message.subject.starts_with(begin))
    };
    for begin in [
        "_INBOX.",
        "herald.sessions.",
        "live.revoked.",
        "session.",
        "herald.gateways",
    ] {
        assert!(heard(begin), "nothing came under {begin}");
    }
    for (what, hay) in [
        ("the metrics", metrics),
        ("the log", gateway.output()),
        ("a span", format!("{spans:#?}")),
        ("a log record", format!("{:#?}", collector.logs().await)),
    ] {
        assert_no_part_of_a_token(&hay);
        assert_none_of(&SECRETS, &hay, what);
        assert_none_of(&USERS, &hay, what);
    }
}
