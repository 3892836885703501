//! The operator service over NATS itself: who is connected, how the gateways are, and what they do for an operator.
//! `operator_commands` has the commands of the binary, `operator_hostile` what others send there.

use std::collections::{BTreeMap, BTreeSet};

use async_nats::{Client, Message};
use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::support::client::Client as Socket;
use crate::support::gateway::{Builder, Gateway};
use crate::support::nats::Nats;
use crate::support::token::{assert_no_part_of_a_token, at, signed};
use crate::support::{PATIENCE, eventually, program, soon};

/// Names a gateway.
pub(crate) fn named(builder: Builder, name: &str) -> Builder {
    builder.variable(
        "OTEL_RESOURCE_ATTRIBUTES",
        format!("service.instance.id={name}"),
    )
}

/// Gateways of these names.
pub(crate) async fn gateways<const N: usize>(nats: &Nats, names: [&str; N]) -> [Gateway; N] {
    let mut started = Vec::new();
    for name in names {
        started.push(named(Gateway::builder(nats), name).ready().await);
    }
    started.try_into().unwrap()
}

/// The answers of `count` gateways.
pub(crate) async fn answers(
    client: &Client,
    subject: &str,
    body: &str,
    count: usize,
) -> Vec<Message> {
    let inbox = client.new_inbox();
    let answers = client.subscribe(inbox.clone()).await.unwrap();
    let (subject, body) = (subject.to_owned(), body.to_owned());
    let sent = client.publish_with_reply(subject, inbox, body.into());
    sent.await.unwrap();
    soon(answers.take(count).collect()).await
}

/// Those answers by gateway. Nothing of a token may be in them.
async fn by_gateway(
    client: &Client,
    subject: &str,
    body: Value,
    count: usize,
) -> BTreeMap<String, Value> {
    let answers = answers(client, subject, &body.to_string(), count).await;
    let answers = answers.iter().map(|answer| {
        let text = String::from_utf8_lossy(&answer.payload);
        assert_no_part_of_a_token(&text);
        let value: Value = serde_json::from_str(&text).unwrap();
        (value["gateway"].as_str().unwrap().to_owned(), value)
    });
    answers.collect()
}

/// The answer of the one gateway that is meant.
pub(crate) async fn one(client: &Client, subject: &str, body: Value) -> Value {
    let answered = by_gateway(client, subject, body, 1).await;
    answered.into_values().next().unwrap()
}

/// The code and text of a refusal.
pub(crate) fn refusal(message: &Message) -> (String, String) {
    let header = |name: &str| {
        let headers = message.headers.as_ref();
        let value = headers.and_then(|headers| headers.get(name));
        value.map_or(String::new(), |value| value.as_str().to_owned())
    };
    let body: Value = serde_json::from_slice(&message.payload).unwrap();
    let (code, text) = (
        header("Nats-Service-Error-Code"),
        header("Nats-Service-Error"),
    );
    assert_eq!(body["error"]["code"].to_string(), code);
    assert_eq!(body["error"]["text"], text);
    (code, text)
}

#[tokio::test]
async fn gateways_say_how_they_are_and_which_others_they_know() {
    let nats = Nats::jetstream().await;
    let running = gateways(&nats, ["gw-1", "gw-2"]).await;
    let _ann = Socket::join(&running[0], "ann", "acme").await;
    let client = nats.connect().await;
    let subject = "herald.query.gateways";
    let known = eventually(PATIENCE, async || {
        let all = by_gateway(&client, subject, json!({}), 2).await;
        all.values()
            .all(|answer| answer["peers"].as_array().is_some())
    });
    assert!(known.await, "each knows the other");
    let all = by_gateway(&client, subject, json!({}), 2).await;
    let (first, second) = (&all["gw-1"], &all["gw-2"]);
    assert_eq!(
        (&first["sockets"], &second["sockets"]),
        (&json!(1), &json!(0))
    );
    assert_eq!(
        (&first["rooms"], &first["sockets_max"]),
        (&json!(1), &json!(100_000))
    );
    assert_eq!(first["peers"][0]["gateway"], "gw-2");
    assert_eq!(first["peers"][0]["process"], second["process"]);
    for answer in [first, second] {
        assert_eq!(answer["ready"], true, "{answer}");
        assert_eq!(answer["why"], Value::Null);
        assert_eq!(answer["draining"], false);
        assert_eq!(answer["version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(answer["log_level"], "trace");
        assert_eq!(answer["migrations"]["pending"], json!([]));
        let last = answer["migrations"]["last"].as_str().unwrap();
        assert!(last.starts_with("000"), "{last}");
        assert!(answer["memory_bytes"].as_u64().unwrap() > 1_000_000);
    }
    let process = second["process"].clone();
    for name in [json!("gw-2"), process] {
        let answer = one(&client, subject, json!({ "gateway": name })).await;
        assert_eq!(answer["gateway"], "gw-2");
    }
    running[0]
        .metric_becomes("herald_operator_requests_total", "refused", 0.0)
        .await;
    assert!(
        running[0]
            .metric("herald_operator_requests_total", "ok")
            .await
            > 0.5
    );
}

#[tokio::test]
async fn a_gateway_that_waits_for_migrations_says_so_to_operators() {
    let nats = Nats::jetstream().await;
    let builder = named(Gateway::builder(&nats), "gw-1");
    let gateway = builder.set("nats.migrate", false).start().await;
    let client = nats.connect().await;
    let mut answer = Value::Null;
    let said = eventually(PATIENCE, async || {
        let request = client.request("herald.query.gateways", "{}".into());
        let Ok(message) = request.await else {
            return false;
        };
        answer = serde_json::from_slice(&message.payload).unwrap();
        !answer["migrations"]["pending"]
            .as_array()
            .unwrap()
            .is_empty()
    });
    assert!(said.await, "{answer} {}", gateway.output());
    assert_eq!(answer["ready"], false);
    let why = answer["why"].as_str().unwrap();
    assert!(why.contains("herald migrate applies it"), "{why}");
    let closing = one(&client, "herald.command.disconnect", json!({"user": "ann"})).await;
    assert_eq!(closing["closing"], 0);
}

/// All pages of one gateway.
async fn pages(client: &Client, mut query: Value) -> Vec<Value> {
    let mut rows = Vec::new();
    loop {
        let page = one(client, "herald.query.sessions", query.clone()).await;
        rows.extend(page["sessions"].as_array().unwrap().clone());
        match &page["next"] {
            Value::Null => return rows,
            next => query["after"] = next.clone(),
        }
    }
}

/// Sockets of twelve users, four of them in the workspace `globex` and the others in `acme`.
async fn twelve_sockets(gateway: &Gateway) -> Vec<Socket> {
    let mut sockets = Vec::new();
    for number in 0..12 {
        let workspace = if number % 3 == 0 { "globex" } else { "acme" };
        let user = format!("user-{number}");
        sockets.push(Socket::join(gateway, &user, workspace).await);
    }
    sockets
}

#[tokio::test]
async fn sessions_are_listed_once_each_by_pages() {
    let nats = Nats::jetstream().await;
    let [first, second] = gateways(&nats, ["gw-1", "gw-2"]).await;
    let mut sockets = twelve_sockets(&first).await;
    let claims = json!({
        "sub": "grüße \"x\"", "iss": "https://id.example.com", "workspaces": "acme", "exp": at(3600),
        "jti": "a-name-that-nobody-is-told", "email": "ada@example.com",
    });
    let query = format!("token={}&workspaceSlug=acme", signed(&claims));
    sockets.push(Socket::connect(&second, &query).await);
    let client = nats.connect().await;

    let rows = pages(&client, json!({ "gateway": "gw-1", "limit": 5 })).await;
    let users: BTreeSet<_> = rows.iter().map(|row| row["user"].to_string()).collect();
    assert_eq!((rows.len(), users.len()), (12, 12), "{rows:?}");
    let sessions: Vec<_> = rows.iter().map(|row| row["session"].as_str()).collect();
    assert!(sessions.is_sorted(), "{sessions:?}");

    let all = by_gateway(
        &client,
        "herald.query.sessions",
        json!({"workspace": "acme"}),
        2,
    )
    .await;
    assert_eq!(all["gw-1"]["sessions"].as_array().unwrap().len(), 8);
    let row = &all["gw-2"]["sessions"][0];
    assert_eq!(row["user"], "grüße \"x\"");
    assert_eq!(row["issuer"], "https://id.example.com");
    let keys: Vec<_> = row.as_object().unwrap().keys().collect();
    let want = [
        "expires",
        "issuer",
        "opened",
        "session",
        "user",
        "workspace",
    ];
    assert_eq!(keys, want);
    let now = chrono::Utc::now();
    let time = |key: &str| {
        let time = chrono::DateTime::parse_from_rfc3339(row[key].as_str().unwrap());
        (time.unwrap().to_utc() - now).num_seconds()
    };
    assert!((-60..=0).contains(&time("opened")), "{row}");
    assert!((3500..=3600).contains(&time("expires")), "{row}");
    let text = all["gw-2"].to_string();
    for needle in ["nobody-is-told", "ada@example.com"] {
        assert!(!text.contains(needle), "{text}");
    }
}

#[tokio::test]
async fn sessions_are_found_and_counted_by_what_is_known_of_them() {
    let nats = Nats::jetstream().await;
    let [first, _second] = gateways(&nats, ["gw-1", "gw-2"]).await;
    let _sockets = twelve_sockets(&first).await;
    let client = nats.connect().await;
    for (filter, count) in [
        (json!({}), 12),
        (json!({"user": "user-7"}), 1),
        (json!({"user": "user-7", "workspace": "globex"}), 0),
        (
            json!({"user": "user-7", "issuer": "https://id.example.com"}),
            0,
        ),
        (json!({"older_s": 3000}), 0),
        (json!({"younger_s": 3000}), 12),
    ] {
        let mut query = filter.clone();
        query["gateway"] = json!("gw-1");
        assert_eq!(pages(&client, query.clone()).await.len(), count, "{filter}");
        query["count"] = json!(true);
        let answer = one(&client, "herald.query.sessions", query).await;
        assert_eq!(answer["total"], count, "{filter}");
        assert_eq!(answer["sessions"], json!([]));
    }
    for (bad, text) in [
        (json!({"limit": 0}), "limit must be from 1 to 2000"),
        (json!({"limit": 2001}), "limit must be from 1 to 2000"),
        (json!({"after": "x"}), "32 hexadecimal digits"),
        (json!({"token": true}), "unknown field"),
    ] {
        let answer = answers(&client, "herald.query.sessions", &bad.to_string(), 2).await;
        let (code, said) = refusal(&answer[0]);
        assert!(code == "400" && said.contains(text), "{bad}: {said}");
    }
    first
        .metric_becomes("herald_operator_requests_total", "refused", 4.0)
        .await;
}

/// A page ends before NATS would take no more, and the next one goes on.
#[tokio::test]
async fn users_with_long_names_are_listed_too() {
    let nats = Nats::jetstream().await;
    let [gateway] = gateways(&nats, ["gw-1"]).await;
    let mut sockets = Vec::new();
    for number in 0..60 {
        let user = format!("{number}-{}", "x".repeat(9000));
        sockets.push(Socket::join(&gateway, &user, "acme").await);
    }
    let client = nats.connect().await;
    let rows = pages(&client, json!({ "limit": 2000 })).await;
    let users: BTreeSet<_> = rows.iter().map(|row| row["user"].to_string()).collect();
    assert_eq!((rows.len(), users.len()), (60, 60));
    let user = rows[0]["user"].clone();
    let closing = one(&client, "herald.command.disconnect", json!({"user": user})).await;
    assert_eq!(closing["closing"], 1);
}

#[tokio::test]
async fn a_disconnect_ends_whom_it_names_and_nobody_else() {
    let nats = Nats::jetstream().await;
    let [first, second] = gateways(&nats, ["gw-1", "gw-2"]).await;
    let client = nats.connect().await;
    let join = async |gateway: &Gateway, user: &str, workspace: &str| {
        Socket::join(gateway, user, workspace).await
    };
    let subject = "herald.command.disconnect";
    let mut bob = join(&first, "bob", "acme").await;
    // By user, in one workspace and then in all.
    let mut ann = [
        join(&first, "ann", "acme").await,
        join(&second, "ann", "globex").await,
        join(&first, "ann", "initech").await,
    ];
    let closing = async |body: Value| {
        let answered = by_gateway(&client, subject, body, 2).await;
        ["gw-1", "gw-2"].map(|gateway| answered[gateway]["closing"].as_u64().unwrap())
    };
    let body = json!({"user": "ann", "workspace": "acme"});
    assert_eq!(closing(body).await, [1, 0]);
    assert_eq!(ann[0].closed().await, (4003, "token expired".to_owned()));
    assert!(ann[1].is_open().await && ann[2].is_open().await);
    assert_eq!(closing(json!({"user": "ann", "code": 4001})).await, [1, 1]);
    for socket in &mut ann[1..] {
        assert_eq!(socket.closed().await, (4001, "revoked".to_owned()));
    }
    // By session.
    let rows = pages(&client, json!({"gateway": "gw-1", "user": "bob"})).await;
    let session = rows[0]["session"].clone();
    let mut cyd = join(&first, "cyd", "acme").await;
    let body = json!({"session": session, "code": 1012});
    assert_eq!(closing(body.clone()).await, [1, 0]);
    let want = (1012, "gateway restarting".to_owned());
    assert_eq!(bob.closed().await, want);
    assert!(cyd.is_open().await);
    let gone = eventually(PATIENCE, async || closing(body.clone()).await == [0, 0]);
    assert!(gone.await, "the session is gone");
    // By workspace, spread over a time, with another reason of a code.
    let mut dan = join(&second, "dan", "acme").await;
    let mut eve = join(&second, "eve", "globex").await;
    let body = json!({"workspace": "acme", "code": 4008, "over_ms": 200});
    assert_eq!(closing(body).await, [1, 1]);
    for socket in [&mut cyd, &mut dan] {
        assert_eq!(socket.closed().await, (4008, "inactive".to_owned()));
    }
    let reason = "no access to this workspace";
    let body = json!({"workspace": "globex", "code": 4001, "reason": reason});
    assert_eq!(closing(body).await, [0, 1]);
    assert_eq!(eve.closed().await, (4001, reason.to_owned()));
    let line = first.logged("sessions ended by an operator").await;
    assert!(
        line.contains("\"by\":\"user\"") && !line.contains("ann"),
        "{line}"
    );

    for (bad, text) in [
        (json!({}), "name a session"),
        (json!({"session": session, "user": "ann"}), "name a session"),
        (json!({"session": "x"}), "32 hexadecimal digits"),
        (json!({"user": "ann", "code": 4009}), "code must be"),
        (json!({"user": "ann", "reason": "x"}), "`token expired`"),
        (
            json!({"user": "ann", "code": 4001, "over_ms": 1}),
            "at once",
        ),
    ] {
        let answers = answers(&client, subject, &bad.to_string(), 2).await;
        let (code, said) = refusal(&answers[0]);
        assert!(code == "400" && said.contains(text), "{bad}: {said}");
    }
}

/// What was stored before the command reaches the sockets that it closes.
#[tokio::test]
async fn what_was_stored_before_a_disconnect_is_delivered_first() {
    let nats = Nats::jetstream().await;
    let [gateway] = gateways(&nats, ["gw-1"]).await;
    let publisher = crate::support::publisher::Publisher::on(&nats).await;
    let mut ann = Socket::join(&gateway, "ann", "acme").await;
    for number in 0..50 {
        publisher
            .event("acme.custom.x", &json!({ "title": number.to_string() }))
            .await;
    }
    let client = nats.connect().await;
    one(&client, "herald.command.disconnect", json!({"user": "ann"})).await;
    for number in 0..50 {
        assert_eq!(ann.notification().await["title"], number.to_string());
    }
    assert_eq!(ann.closed().await.0, 4003);
}

#[tokio::test]
async fn a_drain_ends_the_gateway_that_is_named_as_a_signal_does() {
    let nats = Nats::jetstream().await;
    let [mut first, second] = gateways(&nats, ["gw-1", "gw-2"]).await;
    let client = nats.connect().await;
    let mut ann = Socket::join(&first, "ann", "acme").await;
    let mut bob = Socket::join(&second, "bob", "acme").await;
    let answer = one(&client, "herald.command.drain", json!({"gateway": "gw-1"})).await;
    assert_eq!(
        (&answer["gateway"], &answer["sockets"]),
        (&json!("gw-1"), &json!(1))
    );
    assert_eq!(ann.closed().await.0, 1012);
    assert_eq!(first.ended().await, Some(0));
    for message in ["drain commanded by an operator", "drained"] {
        first.logged(message).await;
    }
    assert!(bob.is_open().await);
    // It has said that it leaves.
    let forgotten = eventually(PATIENCE, async || {
        let answer = one(&client, "herald.query.gateways", json!({})).await;
        answer["peers"] == Value::Null
    });
    assert!(forgotten.await, "{}", second.output());
}

#[tokio::test]
async fn two_gateways_of_one_name_are_told_apart_by_their_process() {
    let nats = Nats::jetstream().await;
    let mut running = gateways(&nats, ["twin", "twin"]).await;
    let client = nats.connect().await;
    let body = json!({"gateway": "twin"});
    let refused = eventually(PATIENCE, async || {
        // A gateway knows the other from its first report on, and reports itself to it within 10 s.
        let known = answers(&client, "herald.query.gateways", "{}", 2).await;
        let peers = |message: &Message| {
            let answer: Value = serde_json::from_slice(&message.payload).unwrap();
            answer["peers"].is_array()
        };
        known.iter().all(peers)
    });
    assert!(refused.await);
    for command in ["herald.command.drain", "herald.command.log-level"] {
        let body = if command.ends_with("drain") {
            body.clone()
        } else {
            json!({"gateway": "twin", "level": "debug"})
        };
        for answer in answers(&client, command, &body.to_string(), 2).await {
            let (code, text) = refusal(&answer);
            assert!(code == "409" && text.contains("name the process"), "{text}");
        }
    }
    let answers = answers(&client, "herald.query.gateways", "{}", 2).await;
    let answer: Value = serde_json::from_slice(&answers[0].payload).unwrap();
    let process = answer["process"].as_str().unwrap();
    one(&client, "herald.command.drain", json!({"gateway": process})).await;
    let is_it = |gateway: &Gateway| {
        gateway
            .output()
            .contains(&format!("\"instance\":\"{process}\""))
    };
    let [it, other] = if is_it(&running[0]) { [0, 1] } else { [1, 0] };
    assert_eq!(running[it].ended().await, Some(0));
    assert!(running[other].alive());
}

#[tokio::test]
async fn an_operator_sets_and_resets_a_log_level() {
    let nats = Nats::jetstream().await;
    let [gateway, _other] = gateways(&nats, ["gw-1", "gw-2"]).await;
    let client = nats.connect().await;
    let set = async |level: Value| {
        let body = json!({"gateway": "gw-1", "level": level});
        one(&client, "herald.command.log-level", body).await["log_level"].clone()
    };
    assert_eq!(
        set(json!("warn,herald::room=debug")).await,
        "warn,herald::room=debug"
    );
    let query = json!({"gateway": "gw-1"});
    let answer = one(&client, "herald.query.gateways", query).await;
    assert_eq!(answer["log_level"], "warn,herald::room=debug");
    assert_eq!(set(Value::Null).await, "trace");
    gateway.logged("log level changed by an operator").await;
    for (body, text) in [
        (json!({"gateway": "gw-1"}), "missing field `level`"),
        (json!({"gateway": "gw-1", "level": "loud"}), "no log filter"),
        (json!({"level": "debug"}), "missing field `gateway`"),
    ] {
        let answers = answers(&client, "herald.command.log-level", &body.to_string(), 1).await;
        let (code, said) = refusal(&answers[0]);
        assert!(code == "400" && said.contains(text), "{body}: {said}");
    }
}

/// As ADR-32 has it.
#[tokio::test]
async fn gateways_are_a_nats_micro_service() {
    let nats = Nats::jetstream().await;
    let running = gateways(&nats, ["gw-1", "gw-2"]).await;
    let client = nats.connect().await;
    one(&client, "herald.query.gateways", json!({"gateway": "gw-1"})).await;
    answers(&client, "herald.query.gateways", "[]", 2).await;
    let mut processes = BTreeMap::new();
    for subject in ["$SRV.PING", "$SRV.PING.herald"] {
        for answer in answers(&client, subject, "", 2).await {
            let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
            assert_eq!(answer["type"], "io.nats.micro.v1.ping_response");
            assert_eq!(answer["name"], "herald");
            assert_eq!(answer["version"], env!("CARGO_PKG_VERSION"));
            let name = answer["metadata"]["gateway"].as_str().unwrap().to_owned();
            processes.insert(name, answer["id"].as_str().unwrap().to_owned());
        }
    }
    assert_eq!(processes.len(), 2);
    let process = &processes["gw-1"];
    let of = async |verb: &str| -> Value {
        let subject = format!("$SRV.{verb}.herald.{process}");
        let answers = answers(&client, &subject, "", 1).await;
        serde_json::from_slice(&answers[0].payload).unwrap()
    };
    let info = of("INFO").await;
    assert_eq!(info["type"], "io.nats.micro.v1.info_response");
    let endpoints = info["endpoints"].as_array().unwrap();
    let subjects: Vec<_> = endpoints
        .iter()
        .map(|one| one["subject"].as_str().unwrap())
        .collect();
    let want = [
        "herald.query.gateways",
        "herald.query.sessions",
        "herald.command.disconnect",
        "herald.command.drain",
        "herald.command.log-level",
    ];
    assert_eq!(subjects, want);
    for endpoint in endpoints {
        for schema in ["request_schema", "response_schema"] {
            let schema = endpoint["metadata"][schema].as_str().unwrap();
            let schema: Value = serde_json::from_str(schema).unwrap();
            assert_eq!(schema["type"], "object");
        }
    }
    let stats = of("STATS").await;
    assert_eq!(stats["type"], "io.nats.micro.v1.stats_response");
    let counted = &stats["endpoints"][0];
    assert_eq!(
        (&counted["num_requests"], &counted["num_errors"]),
        (&json!(2), &json!(1))
    );
    assert_eq!(counted["last_error"], "400");
    assert!(counted["processing_time"].as_u64().unwrap() > 0);
    assert!(chrono::DateTime::parse_from_rfc3339(stats["started"].as_str().unwrap()).is_ok());
    nats_micro_shows(&nats, &processes).await;
    drop(running);
}

/// What NATS' own command shows, where it is.
async fn nats_micro_shows(nats: &Nats, processes: &BTreeMap<String, String>) {
    let how = "go install github.com/nats-io/natscli/nats@latest";
    let Some(natscli) = program("nats", "HERALD_TEST_NATSCLI", how) else {
        return;
    };
    let micro = async |arguments: &[&str]| {
        let mut command = tokio::process::Command::new(&natscli);
        let home = tempfile::tempdir().unwrap();
        command
            .env("HOME", home.path())
            .env("XDG_CONFIG_HOME", home.path());
        command
            .args(["--server", &nats.url(), "micro"])
            .args(arguments);
        let output = crate::support::command::finish(command).await.ok();
        output.stdout + &output.stderr
    };
    let listed = micro(&["ls"]).await;
    let shown = micro(&["info", "herald", &processes["gw-1"]]).await;
    let counts = micro(&["stats", "herald"]).await;
    for process in processes.values() {
        assert!(
            listed.contains(process) && counts.contains(process),
            "{listed}{counts}"
        );
    }
    assert!(
        shown.contains("herald.command.drain") && shown.contains("gw-1"),
        "{shown}"
    );
}
