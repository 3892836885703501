//! `herald sessions`, `disconnect`, `gateways` and `drain`, run as operators run them.

use std::collections::BTreeSet;

use async_nats::Client;
use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::operator::{gateways, named};
use crate::support::client::Client as Socket;
use crate::support::command::{Output, herald};
use crate::support::gateway::Gateway;
use crate::support::nats::Nats;
use crate::support::production::Production;
use crate::support::token::assert_no_part_of_a_token;
use crate::support::{PATIENCE, eventually};

async fn run(nats: &Nats, arguments: &[&str]) -> Output {
    let output = herald(nats, &[], arguments).await;
    assert_no_part_of_a_token(&format!("{}{}", output.stdout, output.stderr));
    output
}

/// The objects of standard output, one a line.
fn objects(output: &Output) -> Vec<Value> {
    let lines = output.stdout.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Waits until each of `count` gateways knows all others.
async fn know_each_other(nats: &Nats, count: usize) {
    let known = eventually(PATIENCE, async || {
        let output = run(nats, &["gateways", "--json"]).await;
        let answers = objects(&output);
        let processes: BTreeSet<_> = answers
            .iter()
            .map(|answer| answer["process"].to_string())
            .collect();
        processes.len() == count && heard(nats).await == count * (count - 1)
    });
    assert!(known.await, "each knows the others");
}

/// How many others all gateways know, together.
async fn heard(nats: &Nats) -> usize {
    let client = nats.connect().await;
    let inbox = client.new_inbox();
    let answers = client.subscribe(inbox.clone()).await.unwrap();
    let sent = client.publish_with_reply("herald.query.gateways", inbox, "{}".into());
    sent.await.unwrap();
    let time = tokio::time::sleep(std::time::Duration::from_millis(500));
    let known = answers.take_until(time).map(|answer| {
        let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
        answer["peers"].as_array().map_or(0, Vec::len)
    });
    known.fold(0, async |all, one| all + one).await
}

/// Runs `herald` with the words of `line`.
async fn type_in(nats: &Nats, line: &str) -> Output {
    let words: Vec<_> = line.split(' ').collect();
    run(nats, &words).await
}

#[tokio::test]
async fn sessions_of_all_gateways_are_listed_and_counted() {
    let nats = Nats::jetstream().await;
    let [first, second] = gateways(&nats, ["gw-1", "gw-2"]).await;
    let _ann = Socket::join(&first, "ann", "acme").await;
    let _bob = Socket::join(&second, "bob", "acme").await;
    let _eve = Socket::join(&second, "e\u{1b}[2Jve", "globex").await;
    let output = run(&nats, &["sessions"]).await.ok();
    let lines: Vec<_> = output.stdout.lines().collect();
    assert_eq!(lines.len(), 4, "{output:?}");
    assert!(lines[1].starts_with("acme") && lines[1].contains("ann") && lines[1].contains("gw-1"));
    assert!(!output.stdout.contains('\u{1b}'), "{output:?}");
    let output = type_in(&nats, "sessions --json --user bob").await.ok();
    let row = output.json();
    assert_eq!(
        (&row["workspace"], &row["gateway"]),
        (&json!("acme"), &json!("gw-2"))
    );
    for (line, want) in [
        ("sessions --count", "3 sessions on 2 gateways\n"),
        (
            "sessions --count --gateway gw-2",
            "2 sessions on 1 gateway\n",
        ),
        ("sessions --count --older 1h", "0 sessions on 2 gateways\n"),
        (
            "sessions --count --by workspace",
            "WORKSPACE  SESSIONS\nacme       2\nglobex     1\n",
        ),
        (
            "sessions --count --by gateway",
            "GATEWAY  SESSIONS\ngw-2     2\ngw-1     1\n",
        ),
        (
            "sessions --count --json",
            "{\"gateways\":2,\"sessions\":3}\n",
        ),
        (
            "sessions --count --by user --workspace globex --json",
            "{\"sessions\":1,\"user\":\"e\\u001b[2Jve\"}\n",
        ),
    ] {
        let output = type_in(&nats, line).await.ok();
        assert_eq!(output.stdout, want, "{line}");
    }
}

#[tokio::test]
async fn a_session_a_user_and_a_workspace_are_disconnected() {
    let nats = Nats::jetstream().await;
    let [first, second] = gateways(&nats, ["gw-1", "gw-2"]).await;
    let mut ann = Socket::join(&first, "ann", "acme").await;
    let mut bob = Socket::join(&second, "bob", "acme").await;
    let mut eve = Socket::join(&second, "eve", "globex").await;
    let output = type_in(&nats, "sessions --json --user bob").await.ok();
    let row = output.json();
    let session = row["session"].as_str().unwrap();
    let line = format!("disconnect --session {session} --code 1012");
    let output = type_in(&nats, &line).await.ok();
    assert_eq!(output.stdout, "closing 1 on 1 gateway\n");
    assert_eq!(bob.closed().await.0, 1012);
    let mut bob = Socket::join(&first, "bob", "acme").await;
    let output = type_in(&nats, "disconnect --user bob --code 4001")
        .await
        .ok();
    assert_eq!(output.stdout, "closing 1 on 1 gateway\n");
    assert_eq!(bob.closed().await, (4001, "revoked".to_owned()));
    let line = "disconnect --workspace globex --over 100ms --json";
    let output = type_in(&nats, line).await.ok();
    let closing = objects(&output)
        .into_iter()
        .map(|answer| answer["closing"].clone());
    assert_eq!(closing.collect::<Vec<_>>(), [0, 1]);
    assert_eq!(eve.closed().await, (4003, "token expired".to_owned()));
    let output = type_in(&nats, "disconnect --user nobody").await.ok();
    assert_eq!(output.stdout, "no such session\n");
    for (line, words) in [
        ("disconnect", "required"),
        ("disconnect --session 7 --user ann", "cannot be used with"),
        (
            "disconnect --user ann --code 4009",
            "code must be 1012, 4001, 4003 or 4008",
        ),
        (
            "disconnect --user ann --reason go",
            "must be `token expired`",
        ),
        (
            "disconnect --user ann --over 11m",
            "over_ms is more than 600000",
        ),
    ] {
        let output = type_in(&nats, line).await;
        assert!(
            output.code == Some(2) && output.stderr.contains(words),
            "{output:?}"
        );
    }
    assert!(ann.is_open().await);
}

#[tokio::test]
async fn gateways_are_listed_change_their_log_level_and_drain() {
    let nats = Nats::jetstream().await;
    let [first, mut second] = gateways(&nats, ["gw-1", "gw-2"]).await;
    let mut ann = Socket::join(&first, "ann", "acme").await;
    let output = type_in(&nats, "gateways").await.ok();
    let lines: Vec<_> = output.stdout.lines().collect();
    assert!(lines[0].starts_with("GATEWAY"), "{output:?}");
    assert!(lines[1].starts_with("gw-1") && lines[1].contains("  yes "));
    assert!(lines[1].contains(" 1/100000 "), "{output:?}");
    assert!(lines[2].starts_with("gw-2"), "{output:?}");
    let output = type_in(&nats, "gateways gw-2 --json").await.ok();
    let answer = output.json();
    assert_eq!(answer["gateway"], "gw-2");
    assert_eq!(answer["revocations"]["sequence"], 0);
    assert_eq!(answer["revocations"]["entries"], 0);
    let age = answer["revocations"]["age_s"].as_f64().unwrap();
    assert!((0.0..60.0).contains(&age), "{answer}");
    assert_eq!(answer["keys"], Value::Null, "no key comes from an address");

    let output = type_in(&nats, "gateways gw-1 --log-level warn").await.ok();
    assert_eq!(output.stdout, "gw-1 logs warn\n");
    let line = "gateways gw-1 --log-level reset --json";
    let output = type_in(&nats, line).await.ok();
    assert_eq!(output.json()["log_level"], "trace");
    let output = type_in(&nats, "gateways gw-1 --log-level loud").await;
    let said = "gw-1: no log filter";
    assert!(output.code == Some(1) && output.stderr.contains(said));
    let output = type_in(&nats, "gateways --log-level debug").await;
    assert_eq!(output.code, Some(2), "{output:?}");

    let output = type_in(&nats, "drain gw-2").await.ok();
    assert_eq!(output.stdout, "gw-2 drains 0 sockets\n");
    assert_eq!(second.ended().await, Some(0));
    assert!(ann.is_open().await);
    let output = type_in(&nats, "drain gw-2 --timeout 300ms").await;
    let said = "no gateway gw-2 answered";
    assert!(output.code == Some(1) && output.stderr.contains(said));
    // It said that it leaves, so nobody misses it.
    let output = type_in(&nats, "sessions --json").await.ok();
    assert_eq!(objects(&output).len(), 1);
}

/// What a revoked token could still do where it is not in force is what its operator has to know.
#[tokio::test]
async fn a_revocation_says_where_it_is_in_force_and_names_who_does_not_answer() {
    let nats = Nats::jetstream().await;
    let running = gateways(&nats, ["gw-1", "gw-2"]).await;
    know_each_other(&nats, 2).await;
    running[1].signal("STOP");
    let output = type_in(&nats, "revoke --user ann --no-issuer").await;
    assert_eq!(output.code, Some(1), "{output:?}");
    assert!(
        output
            .stdout
            .contains("(REVOKED 1)\nin force on 1 gateway\n")
    );
    for words in ["it is stored, but", "gw-2 did not answer (last heard "] {
        assert!(output.stderr.contains(words), "{output:?}");
    }
    let output = type_in(&nats, "revoke --user ann --no-issuer --json").await;
    let printed = objects(&output);
    assert_eq!(printed[0], json!({"stream": "REVOKED", "sequence": 2}));
    assert_eq!(printed[1], json!({"in_force": ["gw-1"], "behind": []}));
    assert_eq!(printed[2]["missing"][0]["gateway"], "gw-2");
    let output = type_in(&nats, "revoke --user ann --no-issuer --no-wait").await;
    assert_eq!(output.stdout.lines().count(), 1, "{output:?}");
    assert_eq!((output.code, output.stderr.as_str()), (Some(0), ""));
    running[1].signal("CONT");
    let listed = eventually(PATIENCE, async || {
        let output = type_in(&nats, "gateways").await;
        output.stdout.matches("  3 (").count() == 2
    });
    assert!(listed.await, "both have read it");
}

/// One that hangs is named by the others.
#[tokio::test]
async fn a_gateway_that_does_not_answer_is_named() {
    let nats = Nats::jetstream().await;
    let running = gateways(&nats, ["gw-1", "gw-2", "gw-3"]).await;
    know_each_other(&nats, 3).await;
    let _ann = Socket::join(&running[0], "ann", "acme").await;
    running[2].signal("STOP");
    let commands: [&[&str]; 4] = [
        &["sessions", "--json"],
        &["sessions", "--count", "--json"],
        &["gateways", "--json"],
        &["disconnect", "--user", "nobody", "--json"],
    ];
    for arguments in commands {
        let output = run(&nats, arguments).await;
        assert_eq!(output.code, Some(1), "{output:?}");
        let said = "herald: gw-3 did not answer (last heard ";
        assert!(output.stderr.starts_with(said), "{output:?}");
        let objects = objects(&output);
        let (missing, answers) = objects.split_last().unwrap();
        assert_eq!(missing["missing"][0]["gateway"], "gw-3", "{output:?}");
        assert!(!answers.is_empty(), "{output:?}");
    }
    let output = run(&nats, &["gateways"]).await;
    assert!(
        output.code == Some(1) && output.stdout.lines().count() == 3,
        "{output:?}"
    );
    running[2].signal("CONT");
    let answers = eventually(PATIENCE, async || {
        run(&nats, &["gateways"]).await.code == Some(0)
    });
    assert!(answers.await);
}

#[tokio::test]
async fn nobody_who_answers_is_said_in_words() {
    let nats = Nats::jetstream().await;
    for arguments in [
        &["gateways"][..],
        &["sessions"],
        &["disconnect", "--user", "ann"],
    ] {
        let output = run(&nats, arguments).await;
        assert_eq!(output.code, Some(1), "{output:?}");
        assert!(output.stderr.contains("no gateway answered"), "{output:?}");
    }
    // Who may not ask is told what is missing.
    let production = Production::migrated().await;
    let environment = production.environment("runtime");
    let environment: Vec<_> = environment
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    for (arguments, subject) in [
        (&["sessions"][..], "publish to herald.query.sessions"),
        (&["drain", "gw-1"], "publish to herald.command.drain"),
    ] {
        let output = herald(&production.0, &environment, arguments).await;
        assert!(
            output.code == Some(1) && output.stderr.contains(subject),
            "{output:?}"
        );
    }
}

#[tokio::test]
async fn the_operator_of_production_uses_all_commands() {
    let production = Production::migrated().await;
    let mut gateway = named(production.gateway("gateway"), "gw-1").ready().await;
    let mut ann = Socket::join(&gateway, "ann", "acme").await;
    let environment = production.environment("operator");
    let environment: Vec<_> = environment
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let operator = async |arguments: &[&str]| {
        let output = herald(&production.0, &environment, arguments).await.ok();
        output.stdout
    };
    assert!(operator(&["gateways"]).await.contains("gw-1"));
    assert!(operator(&["sessions"]).await.contains("ann"));
    assert_eq!(
        operator(&["disconnect", "--user", "ann"]).await,
        "closing 1 on 1 gateway\n"
    );
    assert_eq!(ann.closed().await.0, 4003);
    assert_eq!(
        operator(&["gateways", "gw-1", "--log-level", "debug"]).await,
        "gw-1 logs debug\n"
    );
    assert_eq!(
        operator(&["drain", "gw-1"]).await,
        "gw-1 drains 0 sockets\n"
    );
    assert_eq!(gateway.ended().await, Some(0));
}

/// Sessions of each simulated gateway.
pub(crate) const SIMULATED: usize = 11_000;
/// Of one page, as the command wants them.
const PAGE: usize = 2000;

/// A gateway of the tests that has `SIMULATED` sessions. Its pages are made beforehand.
async fn simulate(client: Client, number: usize) {
    let gateway = format!("sim-{number}");
    let process = format!("00000000-0000-4000-8000-{number:012}");
    let row = |row: usize| {
        json!({
            "session": format!("{number:04x}{row:028x}"), "workspace": format!("workspace-{}", row % 100),
            "user": format!("user-{number}-{row}"), "issuer": "https://id.example.com",
            "opened": "2026-11-28T17:00:00Z", "expires": "2026-11-28T18:00:00Z",
        })
    };
    let firsts = (0..SIMULATED).step_by(PAGE);
    let pages: Vec<bytes::Bytes> = firsts
        .map(|first| {
            let end = SIMULATED.min(first + PAGE);
            let rows: Vec<_> = (first..end).map(row).collect();
            let next = (end < SIMULATED).then(|| end.to_string());
            let page =
                json!({"gateway": gateway, "process": process, "sessions": rows, "next": next});
            page.to_string().into()
        })
        .collect();
    let mut queries = client.subscribe("herald.query.sessions").await.unwrap();
    let presence = json!({"gateway": gateway, "process": process, "is": "here"});
    let sent = client.publish("herald.gateways", presence.to_string().into());
    sent.await.unwrap();
    client.flush().await.unwrap();
    tokio::spawn(async move {
        while let Some(query) = queries.next().await {
            let body: Value = serde_json::from_slice(&query.payload).unwrap();
            let is_meant = body["gateway"].is_null() || body["gateway"] == process.as_str();
            let Some(reply) = query.reply.filter(|_| is_meant) else {
                continue;
            };
            assert_eq!(body["limit"], PAGE);
            let after = body["after"].as_str();
            let first: usize = after.map_or(0, |after| after.parse().unwrap());
            client
                .publish(reply, pages[first / PAGE].clone())
                .await
                .unwrap();
        }
    });
}

/// Each session is listed exactly once, however many pages and gateways there are. How long it takes is measured by
/// `make check-long`.
#[tokio::test]
async fn a_hundred_thousand_sessions_of_ten_gateways_are_listed_exactly_once() {
    let (nats, gateway, sockets) = ten_gateways(50).await;
    let output = run(&nats, &["sessions", "--json", "--timeout", "30s"])
        .await
        .ok();
    let sessions: BTreeSet<_> = output
        .stdout
        .lines()
        .map(|line| {
            let row: Value = serde_json::from_str(line).unwrap();
            row["session"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(output.stdout.lines().count(), 9 * SIMULATED + 50);
    assert_eq!(sessions.len(), 9 * SIMULATED + 50);
    drop((gateway, sockets));
}

/// Nine simulated gateways and a real one with `count` sockets.
pub(crate) async fn ten_gateways(count: usize) -> (Nats, Gateway, Vec<Socket>) {
    let nats = Nats::jetstream().await;
    let builder = Gateway::builder(&nats).set("log.level", "info");
    let gateway = named(builder, "gw-1").ready().await;
    let mut sockets = Vec::new();
    for number in 0..count {
        let (user, workspace) = (
            format!("user-{number}"),
            format!("workspace-{}", number % 20),
        );
        sockets.push(Socket::join(&gateway, &user, &workspace).await);
    }
    for number in 1..10 {
        simulate(nats.connect().await, number).await;
    }
    let known = eventually(PATIENCE, async || heard(&nats).await == 9);
    assert!(known.await, "the gateway knows all others");
    (nats, gateway, sockets)
}
