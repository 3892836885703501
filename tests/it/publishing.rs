//! Verifies that `herald publish` tells the truth: what it says is not stored is not, what it cannot know it says,
//! and it takes what a gateway takes and nothing else.

use async_nats::jetstream;
use herald::config::NatsConfig;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::support::client::Client;
use crate::support::command::{Output, finish};
use crate::support::gateway::{Builder, Gateway, file};
use crate::support::nats::Nats;

async fn run(builder: &Builder, arguments: &[&str]) -> Output {
    let publish = [&["publish", "acme"], arguments].concat();
    finish(tokio::process::Command::from(builder.command(&publish))).await
}

async fn stored(client: &async_nats::Client) -> u64 {
    let context = jetstream::new(client.clone());
    let stream = context.get_stream("EVENTS").await.unwrap();
    stream.cached_info().state.last_sequence
}

/// Was told as failed, though it was stored.
#[tokio::test]
async fn with_an_inbox_that_is_denied_nothing_is_stored() {
    let nats = Nats::start(
        "jetstream: enabled\nauthorization { users: [\
        { user: all, password: p }, \
        { user: one, password: p, permissions: { publish: \"ws.acme.>\", subscribe: \"_INBOX_one.>\" } } ] }",
    )
    .await;
    let all = nats.connect_as("all", "p", "_INBOX").await.unwrap();
    herald::migrate::apply(&all, &NatsConfig::default())
        .await
        .unwrap();
    let builder = Gateway::without_nats().set("nats.url", nats.url_for("one", "p"));
    let denied = run(&builder, &["custom.x"]).await;
    assert_eq!(
        (denied.code, denied.stdout.as_str()),
        (Some(1), ""),
        "{denied:?}"
    );
    assert!(denied.stderr.contains("nats.inbox_prefix"), "{denied:?}");
    assert_eq!(stored(&all).await, 0);
    let with_its_own = builder.set("nats.inbox_prefix", "_INBOX_one");
    let published = run(&with_its_own, &["custom.x"]).await.ok();
    assert_eq!(published.stdout, "EVENTS 1\n");
    assert_eq!(stored(&all).await, 1);
}

#[tokio::test]
async fn what_another_stream_takes_is_published_with_a_warning() {
    let nats = Nats::jetstream().await;
    let context = jetstream::new(nats.connect().await);
    let config = jetstream::stream::Config {
        name: "OTHER".to_owned(),
        subjects: vec!["ws.>".to_owned()],
        ..Default::default()
    };
    context.create_stream(config).await.unwrap();
    let output = run(&Gateway::builder(&nats), &["custom.x"]).await.ok();
    assert_eq!(output.stdout, "OTHER 1\n");
    assert!(
        output.stderr.contains("the stream OTHER stores") && output.stderr.contains("be EVENTS"),
        "{output:?}"
    );
}

/// As nats/production.conf says for an untrusted workspace of a deployment with a prefix.
#[tokio::test]
async fn an_account_that_imports_its_subject_publishes_to_a_stream_of_another_name() {
    let nats = Nats::start(
        "jetstream: enabled\naccounts {\n  HERALD { jetstream: enabled, users: [ { user: h, password: p } ],\n    \
        exports: [ { service: \"blue.ws.acme.>\", accounts: [ ACME ] } ] }\n  \
        ACME { users: [ { user: a, password: p } ],\n    imports: [ \
        { service: { account: HERALD, subject: \"blue.ws.acme.>\" }, to: \"ws.acme.>\" } ] }\n}\n",
    )
    .await;
    let herald = nats.connect_as("h", "p", "_INBOX").await.unwrap();
    let config = jetstream::stream::Config {
        name: "blue-EVENTS".to_owned(),
        subjects: vec!["blue.ws.>".to_owned()],
        ..Default::default()
    };
    let context = jetstream::new(herald);
    context.create_stream(config).await.unwrap();
    let builder = Gateway::without_nats().set("nats.url", nats.url_for("a", "p"));
    let output = run(&builder, &["custom.x"]).await.ok();
    assert_eq!(output.stdout, "blue-EVENTS 1\n");
    assert!(
        output
            .stderr
            .contains("warning: the stream blue-EVENTS stores"),
        "{output:?}"
    );
}

/// What a server does with the event itself, which comes after one that only asks.
#[derive(Clone, Copy)]
enum Answer {
    Nothing,
    Hangup,
    Words(&'static str),
}

/// A server that speaks as much of NATS as one publication needs.
async fn server(answer: Answer) -> (String, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let place = listener.local_addr().unwrap().to_string();
    let task = tokio::spawn(async move {
        let mut asked = 0;
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            // Who hangs up ends its own connection alone.
            let _ = speak(stream, answer, &mut asked).await;
        }
    });
    (place, task)
}

async fn speak(stream: TcpStream, answer: Answer, asked: &mut u32) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let info = json!({
        "server_id": "x", "server_name": "x", "version": "2.15.0", "go": "", "host": "", "port": 1, "proto": 1,
        "headers": true, "max_payload": 1_048_576, "jetstream": true
    });
    stream
        .write_all(format!("INFO {info}\r\n").as_bytes())
        .await?;
    let mut sid = String::new();
    let mut line = String::new();
    while stream.read_line(&mut line).await? > 0 {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        line.clear();
        match words.first().map(String::as_str) {
            Some("PING") => stream.write_all(b"PONG\r\n").await?,
            Some("SUB") => sid.clone_from(words.last().unwrap()),
            Some("HPUB") => {
                let length: usize = words.last().unwrap().parse().unwrap();
                stream.read_exact(&mut vec![0; length + 2]).await?;
                *asked += 1;
                let said = match (*asked, answer) {
                    (1, _) => {
                        r#"{"error":{"code":400,"err_code":10060,"description":"no"},"stream":"EVENTS","seq":0}"#
                    }
                    (_, Answer::Nothing) => continue,
                    (_, Answer::Hangup) => return Ok(()),
                    (_, Answer::Words(words)) => words,
                };
                let reply = &words[2];
                let answer = format!("MSG {reply} {sid} {}\r\n{said}\r\n", said.len());
                stream.write_all(answer.as_bytes()).await?;
            }
            _ => {}
        }
    }
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_known_is_said_with_the_way_to_find_out() {
    let full = r#"{"error":{"code":503,"err_code":10077,"description":"maximum bytes exceeded"},"stream":"EVENTS","seq":0}"#;
    let in_process = r#"{"error":{"code":409,"err_code":10158,"description":"duplicate message id is in process"},"stream":"EVENTS","seq":0}"#;
    let replay = "herald replay --workspace acme";
    for (answer, id, words) in [
        (
            Answer::Nothing,
            None,
            &["may be stored", "not acknowledge within 10s", replay][..],
        ),
        (Answer::Hangup, Some("e-1"), &["may be stored", "--id e-1"]),
        (Answer::Words("+OK"), None, &["may be stored", replay]),
        (Answer::Words(full), None, &["is full", "Nothing is stored"]),
        (
            Answer::Words(in_process),
            Some("e-2"),
            &["may be stored", "in process", "--id e-2"],
        ),
    ] {
        let (place, task) = server(answer).await;
        let builder = Gateway::without_nats().set("nats.url", &place);
        let mut arguments = vec!["custom.x"];
        arguments.extend(id.into_iter().flat_map(|id| ["--id", id]));
        let output = run(&builder, &arguments).await;
        assert_eq!(
            (output.code, output.stdout.as_str()),
            (Some(1), ""),
            "{output:?}"
        );
        for word in words {
            assert!(output.stderr.contains(word), "{word}: {output:?}");
        }
        task.abort();
    }
}

#[tokio::test]
async fn it_refuses_exactly_what_a_gateway_refuses() {
    let folder = tempfile::tempdir().unwrap();
    let rules = "[[rule]]\nmatch = \"custom.bad\"\ntype = \"{{ kind }}\"\nfields = [\"kind\"]\n";
    let rules = file(folder.path(), "rules.toml", rules);
    let nats = Nats::jetstream().await;
    let builder = Gateway::builder(&nats).set("projection.rules", rules);
    let gateway = builder.clone().ready().await;
    let mut ann = Client::join(&gateway, "ann", "acme").await;
    // The longest title whose notification is sent, and one byte more.
    let overhead = {
        let output = run(
            &builder,
            &["custom.x", r#"{"title":"","message":""}"#, "--dry-run"],
        );
        output.await.ok().stdout.trim_end().len()
    };
    let title = |length: usize| format!(r#"{{"title":"{}","message":""}}"#, "x".repeat(length));
    let longest = title(65_536 - overhead);
    let payload = file(folder.path(), "payload", &longest);
    let piped = async |payload: &std::path::Path, more: &[&str]| {
        let arguments = [&["publish", "acme", "custom.x", "-"], more].concat();
        let mut command = tokio::process::Command::from(builder.command(&arguments));
        command.stdin(std::fs::File::open(payload).unwrap());
        let output = command.output().await.unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    assert_eq!(piped(payload.as_ref(), &[]).await.0, Some(0));
    let sent = ann.notification().await;
    assert_eq!(sent.to_string().len(), 65_536);
    let longer = file(folder.path(), "payload", title(65_537 - overhead));
    let (code, said) = piped(longer.as_ref(), &[]).await;
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("notification_too_large: "), "{said}");

    for (event, payload, reason) in [
        ("custom.x", r#"{"type":"loud"}"#, "field: "),
        ("custom.x", "[]", "not_an_object: "),
        ("custom.x", r#"{"recipients":null}"#, "recipients: "),
        ("custom.bad", r#"{"kind":"loud"}"#, "template: "),
    ] {
        for more in [&[][..], &["--dry-run"]] {
            let output = run(&builder, &[&[event, payload], more].concat()).await;
            assert_eq!(
                (output.code, output.stdout.as_str()),
                (Some(2), ""),
                "{output:?}"
            );
            let words = format!("a gateway would refuse this event: {reason}");
            assert!(output.stderr.contains(&words), "{output:?}");
        }
    }
    assert_eq!(stored(&nats.connect().await).await, 1);
}

#[tokio::test]
async fn a_dry_run_prints_what_users_would_get_and_publishes_nothing() {
    let nats = Nats::jetstream().await;
    let gateway = Gateway::on(&nats).await;
    let mut ann = Client::join(&gateway, "ann", "acme").await;
    let builder = Gateway::builder(&nats);
    let arguments = ["record.created", r#"{"collection":"orders","titel":"T"}"#];
    // It asks no server.
    let away = builder.clone().set("nats.url", "nats://127.0.0.1:1");
    let dry = run(&away, &[&arguments[..], &["--dry-run"]].concat())
        .await
        .ok();
    assert!(
        dry.stderr.contains("`titel`: did you mean `title`?"),
        "{dry:?}"
    );
    assert!(dry.stderr.contains("nothing is published"), "{dry:?}");
    assert_eq!(dry.stdout.lines().count(), 1, "{dry:?}");
    assert_eq!(stored(&nats.connect().await).await, 0);
    let published = run(&builder, &arguments).await.ok();
    assert!(
        published.stderr.contains("did you mean `title`?"),
        "{published:?}"
    );
    let mut shown: Value = dry.json();
    let mut got = ann.notification().await;
    assert_eq!(shown["id"], "notif_00000000-0000-0000-0000-000000000000");
    for notification in [&mut shown, &mut got] {
        for key in ["id", "timestamp"] {
            assert!(notification[key].take().is_string());
        }
    }
    assert_eq!(shown, got);
    let both = run(&builder, &["custom.x", "--dry-run", "--json"]).await;
    assert_eq!(both.code, Some(2), "{both:?}");
}
