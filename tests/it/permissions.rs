//! The users of `nats/production.conf` may do what they need and nothing else, and what an untrusted
//! publisher sends reaches its own workspace alone, whatever reply subject it names.

use async_nats::{HeaderMap, Message, Request, Subscriber};
use futures_util::stream::select_all;
use futures_util::{FutureExt, StreamExt};
use herald::migrate;
use serde_json::{Value, json};

use crate::support::PATIENCE;
use crate::support::command::herald;
use crate::support::production::{Production, User};

/// The next message of a subscription, which must come.
async fn next(subscriber: &mut Subscriber) -> Message {
    let next = tokio::time::timeout(PATIENCE, subscriber.next()).await;
    next.expect("a message comes")
        .expect("the connection is open")
}

/// Subscribes. A subscription is in force once a later request on its connection is answered.
async fn listen(user: &User, subject: &str) -> Subscriber {
    let subscriber = user.client.subscribe(subject.to_owned()).await.unwrap();
    state(user, "EVENTS").await;
    subscriber
}

/// Publishes and returns the answer of JetStream on the user's own inbox.
async fn publish(user: &User, subject: &str, headers: HeaderMap) -> Value {
    let request = Request::new().headers(headers).payload("{}".into());
    let answer = user
        .client
        .send_request(subject.to_owned(), request)
        .await
        .unwrap();
    serde_json::from_slice(&answer.payload).unwrap()
}

async fn ask(user: &User, request: &str, body: &Value) -> Value {
    let body = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    let subject = format!("$JS.API.{request}");
    let answer = user.client.request(subject, body.into()).await.unwrap();
    serde_json::from_slice(&answer.payload).unwrap()
}

/// Messages in a stream and its last sequence.
async fn state(user: &User, stream: &str) -> (u64, u64) {
    let info = ask(user, &format!("STREAM.INFO.{stream}"), &Value::Null).await;
    let number = |name: &str| info["state"][name].as_u64().unwrap();
    (number("messages"), number("last_seq"))
}

/// The subjects of the messages in EVENTS, as the operator reads them.
async fn events(operator: &User) -> Vec<String> {
    let mut events = Vec::new();
    let mut from = 1;
    loop {
        let request = json!({"seq": from, "next_by_subj": ">"});
        let answer = ask(operator, "STREAM.MSG.GET.EVENTS", &request).await;
        let message = &answer["message"];
        let Some(sequence) = message["seq"].as_u64() else {
            return events;
        };
        events.push(message["subject"].as_str().unwrap().to_owned());
        from = sequence + 1;
    }
}

#[tokio::test]
async fn the_migrator_migrates_and_reconciles() {
    let production = Production::start().await;
    let environment = production.environment("migrator");
    let mut environment: Vec<(&str, &str)> = environment
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    herald(&production.0, &environment, &["migrate"]).await.ok();
    environment.push(("HERALD_NATS__MAX_AGE", "2h"));
    let output = herald(&production.0, &environment, &["migrate", "--json"])
        .await
        .ok();
    assert_eq!(output.json()["reconciled"][0]["field"], "max_age");
    herald(&production.0, &environment, &["migrate", "--status"])
        .await
        .ok();
}

#[tokio::test]
async fn gateway_and_operator_see_how_the_migrations_stand() {
    let production = Production::start().await;
    let config = production.config("gateway");
    let gateway = production.user("gateway").await;
    let status = migrate::status(&gateway.client, &config).await.unwrap();
    assert_eq!(status.pending().count(), 5);
    let error = migrate::apply(&gateway.client, &config).await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains("$JS.API.STREAM.CREATE.KV_HERALD_MIGRATIONS"),
        "{error}"
    );

    let production = Production::migrated().await;
    for user in ["gateway", "operator"] {
        let mut connection = production.user(user).await;
        let config = production.config(user);
        assert!(
            migrate::status(&connection.client, &config)
                .await
                .unwrap()
                .is_applied()
        );
        // With nothing to do, applying asks for no more than that.
        assert!(
            migrate::apply(&connection.client, &config)
                .await
                .unwrap()
                .applied
                .is_empty()
        );
        assert_eq!(connection.denied().await, [""; 0]);
    }
}

#[tokio::test]
async fn a_gateway_can_do_its_work() {
    let production = Production::migrated().await;
    let mut gateway = production.user("gateway").await;
    let runtime = production.user("runtime").await;
    let mut live = listen(&gateway, "live.ws.acme.>").await;
    let mut claims = listen(&gateway, "live.session.acme.*").await;
    for stream in ["EVENTS", "SESSIONS"] {
        let advisory = format!("$JS.EVENT.ADVISORY.STREAM.LEADER_ELECTED.{stream}");
        assert!(gateway.may_subscribe(&advisory).await, "{advisory}");
    }
    let ack = publish(&runtime, "ws.acme.record.created", HeaderMap::new()).await;
    assert_eq!((&ack["stream"], &ack["seq"]), (&json!("EVENTS"), &json!(1)));
    assert_eq!(
        next(&mut live).await.subject.as_str(),
        "live.ws.acme.record.created"
    );

    let ack = publish(&gateway, "session.acme.0123", HeaderMap::new()).await;
    assert_eq!(ack["stream"], "SESSIONS");
    assert_eq!(
        next(&mut claims).await.subject.as_str(),
        "live.session.acme.0123"
    );
    let ack = publish(&gateway, "dead.acme.1", HeaderMap::new()).await;
    assert_eq!(ack["stream"], "DEAD");

    // Floor, sweep and repair.
    let floor = ask(
        &gateway,
        "STREAM.MSG.GET.EVENTS",
        &json!({"last_by_subj": "ws.>"}),
    )
    .await;
    assert_eq!(floor["message"]["seq"], 1);
    for (stream, request) in [
        ("EVENTS", json!({"multi_last": ["ws.acme.>"]})),
        (
            "EVENTS",
            json!({"seq": 1, "batch": 10, "next_by_subj": "ws.acme.>"}),
        ),
        ("SESSIONS", json!({"multi_last": ["session.acme.*"]})),
    ] {
        let inbox = gateway.client.new_inbox();
        let mut answers = gateway.client.subscribe(inbox.clone()).await.unwrap();
        let subject = format!("$JS.API.DIRECT.GET.{stream}");
        let body = request.to_string().into();
        gateway
            .client
            .publish_with_reply(subject, inbox, body)
            .await
            .unwrap();
        assert!(
            next(&mut answers)
                .await
                .headers
                .unwrap()
                .get_last("Nats-Sequence")
                .is_some()
        );
        assert_eq!(next(&mut answers).await.status.unwrap().as_u16(), 204);
    }
    assert_eq!(gateway.denied().await, [""; 0]);
}

#[tokio::test]
async fn an_operator_looks_and_asks_the_gateways() {
    let production = Production::migrated().await;
    let (gateway, mut operator) = (
        production.user("gateway").await,
        production.user("operator").await,
    );
    publish(&gateway, "dead.acme.7", HeaderMap::new()).await;
    let request = json!({"seq": 1, "next_by_subj": "dead.>"});
    let letter = ask(&operator, "STREAM.MSG.GET.DEAD", &request).await;
    assert_eq!(letter["message"]["subject"], "dead.acme.7");

    let mut questions = listen(&gateway, "$SRV.PING.herald").await;
    let (answer, ()) = tokio::join!(
        operator.client.request("$SRV.PING.herald", "".into()),
        async {
            let question = next(&mut questions).await;
            let reply = question.reply.unwrap();
            gateway.client.publish(reply, "here".into()).await.unwrap();
        }
    );
    assert_eq!(answer.unwrap().payload, "here");
    assert_eq!(operator.denied().await, [""; 0]);
}

/// What no user but the named ones may publish to, each with those who may.
const PUBLISH: &[(&str, &[&str])] = &[
    ("ws.globex.record.created", &["runtime"]),
    ("ws.acme.record.created", &["runtime", "acme"]),
    ("live.ws.acme.record.created", &[]),
    ("live.session.acme.0123", &[]),
    ("session.acme.0123", &["gateway"]),
    ("session.acme.0123.more", &[]),
    ("herald.sessions.acme.0123", &["gateway"]),
    ("herald.sessions.acme.0123.more", &[]),
    ("herald.other.acme.0123", &[]),
    ("herald.query.gateways", &["operator"]),
    ("herald.query.sessions", &["operator"]),
    ("herald.command.disconnect", &["operator"]),
    ("herald.command.drain", &["operator"]),
    ("herald.command.log-level", &["operator"]),
    ("herald.query.gateways.more", &[]),
    ("herald.command.drain.more", &[]),
    ("herald.gateways", &["gateway"]),
    ("herald.gateways.more", &[]),
    ("dead.acme.1", &["gateway"]),
    ("dead.acme.1.more", &[]),
    ("revoked.0123", &["operator"]),
    ("revoked.0123.more", &[]),
    ("live.revoked.0123", &[]),
    (
        "$JS.API.STREAM.INFO.REVOKED",
        &["gateway", "operator", "migrator"],
    ),
    ("$JS.API.DIRECT.GET.REVOKED", &["gateway", "operator"]),
    ("$JS.API.STREAM.CREATE.REVOKED", &["migrator"]),
    ("$JS.API.STREAM.UPDATE.REVOKED", &["migrator"]),
    ("$JS.API.STREAM.DELETE.REVOKED", &[]),
    ("$JS.API.STREAM.PURGE.REVOKED", &[]),
    ("$JS.API.STREAM.MSG.DELETE.REVOKED", &[]),
    ("$JS.API.STREAM.RESTORE.REVOKED", &[]),
    ("$JS.API.CONSUMER.CREATE.REVOKED", &[]),
    ("$KV.HERALD_MIGRATIONS.0001_events", &["migrator"]),
    ("$KV.OTHER.key", &[]),
    ("$JS.API.INFO", &[]),
    ("$JS.API.STREAM.NAMES", &[]),
    (
        "$JS.API.STREAM.INFO.EVENTS",
        &["gateway", "operator", "migrator"],
    ),
    ("$JS.API.STREAM.INFO.OTHER", &[]),
    ("$JS.API.STREAM.CREATE.EVENTS", &["migrator"]),
    ("$JS.API.STREAM.CREATE.OTHER", &[]),
    ("$JS.API.STREAM.UPDATE.EVENTS", &["migrator"]),
    ("$JS.API.STREAM.DELETE.EVENTS", &[]),
    ("$JS.API.STREAM.PURGE.EVENTS", &[]),
    ("$JS.API.STREAM.SNAPSHOT.EVENTS", &[]),
    ("$JS.API.STREAM.RESTORE.EVENTS", &[]),
    ("$JS.API.STREAM.MSG.DELETE.EVENTS", &[]),
    ("$JS.API.STREAM.LEADER.STEPDOWN.EVENTS", &[]),
    ("$JS.API.STREAM.MSG.GET.EVENTS", &["gateway", "operator"]),
    ("$JS.API.STREAM.MSG.GET.DEAD", &["operator"]),
    (
        "$JS.API.STREAM.MSG.GET.KV_HERALD_MIGRATIONS",
        &["gateway", "operator", "migrator"],
    ),
    ("$JS.API.DIRECT.GET.EVENTS", &["gateway", "operator"]),
    ("$JS.API.DIRECT.GET.SESSIONS", &["gateway", "operator"]),
    ("$JS.API.CONSUMER.CREATE.EVENTS", &[]),
    ("$SRV.PING", &["operator"]),
    ("$SRV.INFO.herald", &["operator"]),
    ("$SRV.STATS.herald.6f", &["operator"]),
    ("_INBOX_operator.x", &["gateway"]),
    ("_INBOX_gateway.x", &[]),
    ("_INBOX_migrator.x", &[]),
    ("_INBOX_runtime.x", &[]),
    ("_INBOX_acme.x", &[]),
    ("$SYS.REQ.SERVER.PING", &[]),
];

/// The same for subscriptions.
const SUBSCRIBE: &[(&str, &[&str])] = &[
    (">", &[]),
    ("ws.>", &[]),
    ("ws.acme.>", &[]),
    ("live.>", &[]),
    ("live.ws.acme.>", &["gateway"]),
    ("live.session.acme.*", &["gateway"]),
    ("live.session.>", &[]),
    ("live.revoked.>", &["gateway"]),
    ("revoked.>", &[]),
    ("herald.sessions.*.*", &["gateway"]),
    ("herald.>", &[]),
    ("herald.query.*", &["gateway"]),
    ("herald.query.sessions", &["gateway"]),
    ("herald.command.*", &["gateway"]),
    ("herald.gateways", &["gateway"]),
    ("session.>", &[]),
    ("dead.>", &[]),
    ("$KV.HERALD_MIGRATIONS.>", &[]),
    ("$JS.API.>", &[]),
    ("$JS.EVENT.ADVISORY.>", &[]),
    (
        "$JS.EVENT.ADVISORY.STREAM.LEADER_ELECTED.EVENTS",
        &["gateway"],
    ),
    ("$SRV.PING.herald", &["gateway"]),
    ("_INBOX.>", &[]),
    ("_INBOX_gateway.x.*", &["gateway"]),
    ("_INBOX_operator.x.*", &["operator"]),
    ("_INBOX_migrator.x.*", &["migrator"]),
    ("_INBOX_runtime.x.*", &["runtime"]),
    ("_INBOX_acme.x.*", &["acme"]),
];

#[tokio::test]
async fn every_user_may_do_what_it_needs_and_nothing_else() {
    let production = Production::migrated().await;
    for user in ["gateway", "operator", "migrator", "runtime", "acme"] {
        let mut connection = production.user(user).await;
        for (subject, users) in PUBLISH {
            let may = connection.may_publish(subject).await;
            assert_eq!(may, users.contains(&user), "{user} publishes to {subject}");
        }
        for (subject, users) in SUBSCRIBE {
            let may = connection.may_subscribe(subject).await;
            assert_eq!(may, users.contains(&user), "{user} subscribes to {subject}");
        }
    }
}

#[tokio::test]
async fn an_untrusted_publisher_is_stored_acknowledged_and_deduplicated() {
    const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let production = Production::migrated().await;
    let (acme, gateway) = (
        production.user("acme").await,
        production.user("gateway").await,
    );
    let mut live = listen(&gateway, "live.ws.acme.>").await;
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Msg-Id", "acme-1");
    headers.insert("traceparent", TRACE);
    let first = publish(&acme, "ws.acme.record.created", headers.clone()).await;
    assert_eq!(first, json!({"stream": "EVENTS", "seq": 1}));
    let again = publish(&acme, "ws.acme.record.created", headers).await;
    assert_eq!(
        again,
        json!({"stream": "EVENTS", "seq": 1, "duplicate": true})
    );
    let event = next(&mut live).await;
    let headers = event.headers.unwrap();
    assert_eq!(headers.get_last("traceparent").unwrap().as_str(), TRACE);
    assert_eq!(headers.get_last("Nats-Msg-Id").unwrap().as_str(), "acme-1");
    assert_eq!(headers.get_last("Nats-Sequence").unwrap().as_str(), "1");
}

/// Where an attacker would like a PubAck to be written.
const REPLIES: &[&str] = &[
    "ws.globex.record.created",
    "session.globex.0123",
    "dead.globex.1",
    "live.ws.globex.record.created",
    "live.session.globex.0123",
    "herald.sessions.globex.0123456789abcdef0123456789abcdef",
    "revoked.0123456789abcdef0123456789abcdef",
    "live.revoked.0123456789abcdef0123456789abcdef",
    "$JS.API.STREAM.PURGE.REVOKED",
    "$JS.API.STREAM.PURGE.EVENTS",
    "$JS.API.STREAM.DELETE.EVENTS",
    "$KV.HERALD_MIGRATIONS.0004_forged",
    "herald.query.gateways",
    "herald.query.sessions",
    "herald.command.disconnect",
    "herald.command.drain",
    "herald.command.log-level",
    "herald.gateways",
    "$SRV.PING",
    "$SRV.PING.herald",
    "_INBOX_gateway.forged.1",
    "_INBOX_operator.forged.1",
];

/// The event whose way is traced.
const TRACED: &str = "ws.acme.record.deleted";

/// What came of an attack.
#[derive(Debug)]
struct Outcome {
    /// Subjects of what the account HERALD's users heard, but for events of acme and the sentinels.
    heard: Vec<String>,
    /// Subjects of what EVENTS holds.
    events: Vec<String>,
    /// Messages in SESSIONS and in DEAD, but for the sentinels.
    sessions: u64,
    dead: u64,
    /// Whether the ledger holds what no migration wrote.
    forged_ledger: bool,
}

/// Publishes events of acme, and names each of [`REPLIES`] for what the server makes of them.
async fn send_to_replies(attacker: &User) {
    for reply in REPLIES {
        let (subject, reply) = ("ws.acme.record.created", (*reply).to_owned());
        attacker
            .client
            .publish_with_reply(subject, reply.clone(), "{}".into())
            .await
            .unwrap();
        // A refusal, whose text the publisher chooses in part, and a trace of the message's way.
        let mut refused = HeaderMap::new();
        refused.insert("Nats-Expected-Last-Msg-Id", "\",\"gateway\":\"gw-1");
        let mut traced = HeaderMap::new();
        traced.insert("Nats-Trace-Dest", reply.as_str());
        attacker
            .client
            .publish_with_reply_and_headers(subject, reply, refused, "{}".into())
            .await
            .unwrap();
        attacker
            .client
            .publish_with_headers(TRACED, traced, "{}".into())
            .await
            .unwrap();
    }
}

/// Lets `attacker` publish one event of acme for each of [`REPLIES`] and looks at everything that
/// could have come of it.
async fn attack(production: &Production, attacker: &str) -> Outcome {
    let attacker = production.user(attacker).await;
    let gateway = production.user("gateway").await;
    let operator = production.user("operator").await;
    let runtime = production.user("runtime").await;
    let migrator = production.user("migrator").await;
    let mut ears = Vec::new();
    for subject in [
        "live.ws.*.>",
        "live.session.*.*",
        "herald.sessions.*.*",
        "herald.query.*",
        "herald.command.*",
        "herald.gateways",
        "$SRV.>",
        "_INBOX_gateway.forged.*",
    ] {
        ears.push(listen(&gateway, subject).await);
    }
    ears.push(listen(&operator, "_INBOX_operator.forged.*").await);

    send_to_replies(&attacker).await;
    // PubAcks leave in the order of the stream: with this one, all before it have left. And a stream
    // takes what arrives in order: with an answer from each, it has stored what went there before.
    publish(&attacker, "ws.acme.record.updated", HeaderMap::new()).await;
    for (user, subject) in [
        (&gateway, "session.sentinel.0123"),
        (&gateway, "dead.sentinel.1"),
        (&migrator, "$KV.HERALD_MIGRATIONS.lock"),
    ] {
        let answer = publish(user, subject, HeaderMap::new()).await;
        assert!(answer["seq"].is_u64(), "{answer}");
    }
    publish(&runtime, "ws.globex.custom.sentinel", HeaderMap::new()).await;
    let mut heard = Vec::new();
    loop {
        let message = next(&mut ears[0]).await;
        let subject = message.subject.to_string();
        let last = subject == "live.ws.globex.custom.sentinel";
        if !subject.starts_with("live.ws.acme.") {
            heard.push(subject);
        }
        if last {
            break;
        }
    }
    // A connection receives in order, so whatever came before the sentinel is there by now.
    while let Some(Some(message)) = select_all(&mut ears).next().now_or_never() {
        heard.push(message.subject.to_string());
    }
    heard.retain(|subject| !subject.contains(".sentinel"));
    let config = production.config("operator");
    let status = migrate::status(&operator.client, &config).await;
    let (sessions, _) = state(&operator, "SESSIONS").await;
    let (dead, _) = state(&operator, "DEAD").await;
    let mut events = events(&operator).await;
    events.retain(|subject| subject != TRACED);
    Outcome {
        heard,
        events,
        sessions: sessions - 1,
        dead: dead - 1,
        forged_ledger: !status.is_ok_and(|status| status.is_applied()),
    }
}

#[tokio::test]
async fn no_reply_that_an_untrusted_publisher_names_is_stored_delivered_or_obeyed() {
    let production = Production::migrated().await;
    let outcome = attack(&production, "acme").await;
    assert_eq!(outcome.heard, [""; 0]);
    let mut events = vec!["ws.acme.record.created"; REPLIES.len()];
    events.extend(["ws.acme.record.updated", "ws.globex.custom.sentinel"]);
    assert_eq!(outcome.events, events);
    assert_eq!((outcome.sessions, outcome.dead), (0, 0));
    assert!(!outcome.forged_ledger);
}

/// Why untrusted publishers have accounts of their own, and proof that the test above would see it.
#[tokio::test]
async fn in_the_shared_account_the_same_replies_do_reach_their_subjects() {
    let production = Production::start().await;
    let migrator = production.user("migrator").await;
    migrate::apply(&migrator.client, &production.config("migrator"))
        .await
        .unwrap();
    let outcome = attack(&production, "runtime").await;
    for subject in [
        "live.ws.globex.record.created",
        "live.session.globex.0123",
        "herald.sessions.globex.0123456789abcdef0123456789abcdef",
        "herald.query.sessions",
        "herald.command.disconnect",
        "herald.command.drain",
        "herald.command.log-level",
        "herald.gateways",
        "$SRV.PING.herald",
        "_INBOX_gateway.forged.1",
    ] {
        assert!(
            outcome.heard.iter().any(|heard| heard == subject),
            "{subject}: {outcome:?}"
        );
    }
    assert!(
        outcome
            .events
            .iter()
            .any(|event| event == "ws.globex.record.created"),
        "{outcome:?}"
    );
    assert_eq!((outcome.sessions, outcome.dead), (1, 1));
    assert!(outcome.forged_ledger);
}

#[tokio::test]
async fn an_untrusted_publisher_cannot_publish_to_another_workspace_or_to_the_api() {
    let production = Production::migrated().await;
    let mut acme = production.user("acme").await;
    for subject in [
        "ws.globex.record.created",
        "session.acme.0123",
        "$JS.API.STREAM.PURGE.EVENTS",
    ] {
        acme.client.publish(subject, "{}".into()).await.unwrap();
        let denied = acme.denied().await;
        assert!(
            matches!(&denied[..], [one] if one.contains(subject)),
            "{denied:?}"
        );
    }
    let operator = production.user("operator").await;
    assert_eq!(state(&operator, "EVENTS").await, (0, 0));
}
