//! While it runs: limits, reloads, revocations, a drain.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::{count, on, ready};
use crate::support::PATIENCE;
use crate::support::command::finish;
use crate::support::eventually;
use crate::support::gateway::{Gateway, file};
use crate::support::nats::Nats;
use crate::support::token::{PUBLISH_AUDIENCE, at, publisher, remember, signed};

const ONE: &str = "one-static-token-of-32-characters";
const TWO: &str = "two-static-token-of-32-characters";

#[tokio::test]
async fn each_token_has_its_own_rate() {
    let nats = Nats::jetstream().await;
    let builder = Gateway::builder(&nats).set("publish.rate", 5);
    let (gateway, sender) = ready(builder).await;
    let mut stored = 0;
    let limited = loop {
        let answer = sender.event(&[]).await;
        if answer.status != 201 {
            break answer;
        }
        stored += 1;
        assert!(stored < 100);
    };
    limited.assert_is(429, "rate", "no");
    assert!(stored >= 5, "{stored}");
    // Another user has a rate of their own, and another token of the same one has not.
    let same = sender.with_token(&publisher("ci", &json!(["acme"]), &json!("*")));
    let statuses = join_all((0..5).map(|_| same.event(&[]))).await;
    assert!(statuses.iter().any(|answer| answer.status == 429));
    let other = sender.with_token(&publisher("other", &json!("*"), &json!("*")));
    assert_eq!(other.event(&[]).await.status, 201);
    let event = json!({"specversion": "1.0", "id": "e", "source": "s", "type": "t"});
    let batch = json!(vec![event; 6]).to_string();
    let kind = [("content-type", "application/cloudevents-batch+json")];
    let third = sender.with_token(&publisher("third", &json!("*"), &json!("*")));
    let answer = third.post("acme/custom.x", &kind, &batch).await;
    // To wait would not help.
    answer.assert_is(413, "too-large", "no");
    assert!(
        answer.body["detail"]
            .as_str()
            .unwrap()
            .contains("send fewer"),
        "{answer:?}"
    );
    assert!(gateway.metric("herald_publish_limited_total", "rate").await >= 2.0);
}

#[tokio::test]
async fn each_token_has_so_many_requests_at_once_and_a_body_has_its_time() {
    let nats = Nats::jetstream().await;
    let builder = Gateway::builder(&nats).set("publish.concurrency", 2);
    let (gateway, sender) = ready(builder).await;
    let mut slow = Vec::new();
    let began = Instant::now();
    for _ in 0..2 {
        let mut tcp = TcpStream::connect(&gateway.publish).await.unwrap();
        let head = format!(
            "POST /v1/workspaces/acme/events/custom.x HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {}\r\n\
             Expect: 100-continue\r\nContent-Length: 2\r\n\r\n",
            sender.token
        );
        tcp.write_all(head.as_bytes()).await.unwrap();
        // It counts, and its body is waited for.
        let mut interim = [0; 25];
        tokio::io::AsyncReadExt::read_exact(&mut tcp, &mut interim)
            .await
            .unwrap();
        assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
        tcp.write_all(b"{").await.unwrap();
        slow.push(tcp);
    }
    sender.event(&[]).await.assert_is(429, "concurrency", "no");
    let other = sender.with_token(&publisher("other", &json!("*"), &json!("*")));
    assert_eq!(other.event(&[]).await.status, 201);
    // What does not come is not waited for.
    let mut answer = String::new();
    let mut first = slow.remove(0);
    let read = tokio::io::AsyncReadExt::read_to_string(&mut first, &mut answer);
    tokio::time::timeout(Duration::from_secs(20), read)
        .await
        .unwrap()
        .unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 408 ") && answer.contains("slow-body"),
        "{answer}"
    );
    assert!(began.elapsed() >= Duration::from_secs(9));
    assert!(eventually(PATIENCE, async || sender.event(&[]).await.status == 201).await);
}

#[tokio::test]
async fn a_reload_changes_the_static_tokens_and_the_limits() {
    let folder = tempfile::tempdir().unwrap();
    remember(ONE.to_owned());
    remember(TWO.to_owned());
    let tokens = file(folder.path(), "tokens", format!("one {ONE} * *\n"));
    let nats = Nats::jetstream().await;
    let builder = Gateway::builder(&nats).set("publish.tokens_file", &tokens);
    let (gateway, sender) = ready(builder).await;
    let (one, two) = (sender.with_token(ONE), sender.with_token(TWO));
    assert_eq!(
        (one.event(&[]).await.status, two.event(&[]).await.status),
        (201, 401)
    );
    file(folder.path(), "tokens", format!("two {TWO} * *\n"));
    gateway.signal("HUP");
    assert!(eventually(PATIENCE, async || two.event(&[]).await.status == 201).await);
    assert_eq!(one.event(&[]).await.status, 401);
    // What is wrong changes nothing.
    file(folder.path(), "tokens", "two short * *\n");
    gateway.signal("HUP");
    gateway.prints("32 to 256").await;
    assert_eq!(two.event(&[]).await.status, 201);
}

#[tokio::test]
async fn what_is_revoked_publishes_nothing_though_it_was_verified_before() {
    let nats = Nats::jetstream().await;
    let builder = Gateway::builder(&nats);
    let (_gateway, sender) = ready(builder.clone()).await;
    let grant = json!({"workspaces": "*", "categories": "*"});
    let claims = json!({"sub": "ci", "aud": PUBLISH_AUDIENCE, "publish": grant, "jti": "t1", "iat": at(0), "exp": at(600)});
    let sender = sender.with_token(&signed(&claims));
    assert_eq!(sender.event(&[]).await.status, 201);
    let revoke = builder.command(&["revoke", "--token-id", "t1", "--no-issuer"]);
    let revoked = finish(tokio::process::Command::from(revoke)).await;
    assert_eq!(revoked.code, Some(0), "{revoked:?}");
    let refused = eventually(PATIENCE, async || {
        sender.event(&[]).await.problem() == "revoked-token"
    })
    .await;
    assert!(refused);
    sender
        .event(&[])
        .await
        .assert_is(401, "revoked-token", "no");
    // A token ends by itself, too.
    let short = json!({"sub": "x", "aud": PUBLISH_AUDIENCE, "publish": {"workspaces": "*", "categories": "*"}, "exp": at(2)});
    let short = sender.with_token(&signed(&short));
    assert_eq!(short.event(&[]).await.status, 201);
    assert!(
        eventually(PATIENCE, async || short.event(&[]).await.problem()
            == "expired-token")
        .await
    );
}

#[tokio::test]
async fn a_drain_ends_what_is_under_way_and_takes_nothing_new() {
    let nats = Nats::jetstream().await;
    let (mut gateway, sender) = on(&nats).await;
    let sending = {
        let sender = sender.clone();
        tokio::spawn(async move {
            let mut stored = 0;
            while let Ok(answer) = sender.try_post("acme/custom.x", &[], "{}").await {
                match answer.status {
                    201 => stored += 1,
                    _ => {
                        answer.assert_is(503, "draining", "no");
                        break;
                    }
                }
            }
            stored
        })
    };
    assert!(eventually(PATIENCE, async || count(&nats).await > 20).await);
    gateway.terminate();
    let stored = sending.await.unwrap();
    assert_eq!(gateway.ended().await, Some(0));
    assert_eq!(count(&nats).await, stored);
}
