//! A stream that is purged, deleted and made again, or restored from an older state, while a gateway serves:
//! what is stored once the gateway has noticed reaches the sockets that are there, and those that come, once each.

use std::time::Duration;

use async_nats::Client as NatsClient;
use futures_util::StreamExt;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::timeout;

use crate::support::cable::Cable;
use crate::support::client::Client;
use crate::support::gateway::Gateway;
use crate::support::nats::Nats;
use crate::support::nats::cluster::request;
use crate::support::publisher::Publisher;
use crate::support::token::token;
use crate::support::{PATIENCE, eventually};

/// A nats-server, a gateway that reaches it by a cable, and a socket of `ann`'s in `acme` that has had one
/// event.
struct Scene {
    nats: Nats,
    client: NatsClient,
    publisher: Publisher,
    cable: Cable,
    gateway: Gateway,
    ann: Client,
}

impl Scene {
    async fn new() -> Self {
        let nats = Nats::jetstream().await;
        let (cable, gateway) = Gateway::behind_a_cable(&nats).await;
        let ann = Client::join(&gateway, "ann", "acme").await;
        let mut scene = Self {
            client: nats.connect().await,
            publisher: Publisher::on(&nats).await,
            nats,
            cable,
            gateway,
            ann,
        };
        scene.publish(&["first"]).await;
        assert_eq!(titles(&mut scene.ann, 1).await, ["first"]);
        scene
    }

    async fn publish(&self, titles: &[&str]) {
        for title in titles {
            let subject = format!("acme.custom.{}", title.len());
            self.publisher
                .event(&subject, &json!({ "title": title }))
                .await;
        }
    }

    async fn api(&self, verb: &str, stream: &str, body: &Value) -> Value {
        let subject = format!("$JS.API.STREAM.{verb}.{stream}");
        let answer = request(&self.client, &subject, &body.to_string()).await;
        let answer = answer.expect("JetStream answers");
        assert!(answer["error"].is_null(), "{verb} {stream}: {answer}");
        answer
    }

    /// What the server has stored up to here.
    async fn copy_store(&mut self) -> TempDir {
        self.nats.stop().await;
        let copy = self.nats.copy_store().await;
        self.nats.start_again().await;
        copy
    }

    /// The server is as it was when `copy` was taken: its disk lost what came later, or a snapshot of it
    /// was restored.
    async fn go_back_to(&mut self, copy: &TempDir) {
        self.nats.stop().await;
        self.nats.put_store_back(copy).await;
        self.nats.start_again().await;
    }

    /// Waits until the room has been compared with the stream twice more.
    async fn swept(&self) {
        let name = "herald_sweeps_total";
        let before = self.gateway.metric(name, "").await;
        let swept = eventually(PATIENCE, async || {
            self.gateway.metric(name, "").await > before + 1.5
        });
        assert!(swept.await, "the room is swept");
    }

    /// Waits until the room has met `count` other streams. The events that it may notice by may be missing.
    async fn noticed(&self, count: u32) {
        let line = "stream was re-created or restored, following it from its last message; events stored in it before may be missing";
        let noticed = eventually(PATIENCE, async || {
            self.publish(&["missing"]).await;
            let label = "reason=\"anew\"";
            let counted = self.gateway.metric("herald_repairs_total", label).await;
            counted >= f64::from(count) && self.gateway.log_line(line).is_some()
        });
        assert!(noticed.await, "{}", self.gateway.output());
    }

    async fn make_again(&self, stream: &str) {
        let info = self.api("INFO", stream, &json!({})).await;
        self.api("DELETE", stream, &json!({})).await;
        self.api("CREATE", stream, &info["config"]).await;
    }
}

/// The titles of the next `count` notifications, without those that [`Scene::noticed`] may find delivered.
async fn titles(client: &mut Client, count: usize) -> Vec<String> {
    let mut titles = Vec::new();
    while titles.len() < count {
        let title = client.notification().await["title"].clone();
        if title != "missing" {
            titles.push(title.as_str().expect("a title").to_owned());
        }
    }
    titles
}

#[tokio::test]
async fn what_a_stream_made_again_stores_reaches_everybody_once_it_is_noticed() {
    let mut scene = Scene::new().await;
    scene.publish(&["second", "third"]).await;
    assert_eq!(titles(&mut scene.ann, 2).await, ["second", "third"]);
    scene.make_again("EVENTS").await;
    // Joins go on at once, with the new stream's floor.
    let mut bob = Client::join(&scene.gateway, "bob", "acme").await;
    scene.noticed(1).await;
    scene.publish(&["a", "bb", "a again", "ccc"]).await;
    for client in [&mut scene.ann, &mut bob] {
        assert_eq!(titles(client, 4).await, ["a", "bb", "a again", "ccc"]);
    }
    scene.make_again("EVENTS").await;
    scene.noticed(2).await;
    scene.publish(&["once more"]).await;
    for client in [&mut scene.ann, &mut bob] {
        assert_eq!(titles(client, 1).await, ["once more"]);
        assert!(client.is_quiet(Duration::from_millis(500)).await);
    }
}

#[tokio::test]
async fn while_the_stream_is_away_joins_are_put_off_and_sockets_stay() {
    let mut scene = Scene::new().await;
    let info = scene.api("INFO", "EVENTS", &json!({})).await;
    scene.api("DELETE", "EVENTS", &json!({})).await;
    let query = format!("token={}&workspaceSlug=acme", token("bob", "acme"));
    let refused = Client::attempt(&scene.gateway, &query).await;
    assert_eq!(refused.expect_err("there is no stream").status, 503);
    assert!(scene.ann.is_open().await);
    scene.api("CREATE", "EVENTS", &info["config"]).await;
    let mut bob = Client::join(&scene.gateway, "bob", "acme").await;
    scene.noticed(1).await;
    scene.publish(&["again"]).await;
    for client in [&mut scene.ann, &mut bob] {
        assert_eq!(titles(client, 1).await, ["again"]);
    }
}

#[tokio::test]
async fn a_purge_takes_nothing_from_what_comes_after_it() {
    let mut scene = Scene::new().await;
    scene.api("PURGE", "EVENTS", &json!({})).await;
    let mut bob = Client::join(&scene.gateway, "bob", "acme").await;
    scene.publish(&["second", "third"]).await;
    for client in [&mut scene.ann, &mut bob] {
        assert_eq!(titles(client, 2).await, ["second", "third"]);
        assert!(client.is_quiet(Duration::from_millis(500)).await);
    }
}

#[tokio::test]
async fn what_a_restored_stream_stores_under_sequences_given_before_is_delivered() {
    let mut scene = Scene::new().await;
    let backup = Backup::of(&scene.client, "EVENTS").await;
    scene.publish(&["lost", "lost too", "and this"]).await;
    assert_eq!(
        titles(&mut scene.ann, 3).await,
        ["lost", "lost too", "and this"]
    );
    scene.api("DELETE", "EVENTS", &json!({})).await;
    backup.restore(&scene.client, "EVENTS").await;
    let mut bob = Client::join(&scene.gateway, "bob", "acme").await;
    scene.noticed(1).await;
    scene
        .publish(&["new", "newer", "newest", "new again", "end"])
        .await;
    for client in [&mut scene.ann, &mut bob] {
        let got = titles(client, 5).await;
        assert_eq!(got, ["new", "newer", "newest", "new again", "end"]);
        assert!(client.is_quiet(Duration::from_millis(500)).await);
    }
}

#[tokio::test]
async fn a_server_whose_disk_lost_events_of_others_alone_takes_nothing_from_a_room() {
    let mut scene = Scene::new().await;
    let copy = scene.copy_store().await;
    for _ in 0..5 {
        let event = json!({ "title": "of others" });
        scene.publisher.event("globex.custom.x", &event).await;
    }
    // The room learns that nothing up to there is for it.
    scene.swept().await;
    scene.go_back_to(&copy).await;
    scene.noticed(1).await;
    scene.publish(&["new", "newer", "newest"]).await;
    assert_eq!(titles(&mut scene.ann, 3).await, ["new", "newer", "newest"]);
    assert!(scene.ann.is_quiet(Duration::from_millis(500)).await);
}

#[tokio::test]
async fn a_server_that_went_back_while_a_gateway_was_cut_off_is_found_out() {
    let mut scene = Scene::new().await;
    let copy = scene.copy_store().await;
    scene.publish(&["was lost", "lost too", "and this"]).await;
    let before = titles(&mut scene.ann, 3).await;
    assert_eq!(before, ["was lost", "lost too", "and this"]);
    scene.cable.cut();
    scene.go_back_to(&copy).await;
    // More than was lost, of the same subject: the last of them has a sequence as it should be.
    scene
        .publish(&["the 1st.", "the 2nd.", "the 3rd.", "the 4th.", "the 5th."])
        .await;
    scene.cable.mend();
    scene.noticed(1).await;
    scene.publish(&["new", "newer"]).await;
    assert_eq!(titles(&mut scene.ann, 2).await, ["new", "newer"]);
    assert!(scene.ann.is_quiet(Duration::from_millis(500)).await);
}

#[tokio::test]
async fn the_newest_stays_when_sessions_is_made_again() {
    let mut scene = Scene::new().await;
    let other = Gateway::on(&scene.nats).await;
    // Several claims first, so that the new ones have lower sequences.
    for number in 0..5 {
        drop(Client::join(&other, &format!("u{number}"), "acme").await);
    }
    let mut eve = Client::join(&scene.gateway, "eve", "acme").await;
    scene.make_again("SESSIONS").await;
    let mut newest = Client::join(&other, "eve", "acme").await;
    assert_eq!(eve.closed().await.0, 4009);
    assert!(newest.is_open().await);
    assert!(scene.ann.is_open().await);
    // On the same gateway, too.
    let mut newer_still = Client::join(&other, "eve", "acme").await;
    assert_eq!(newest.closed().await.0, 4009);
    assert!(newer_still.is_open().await);
}

#[tokio::test]
async fn the_newest_stays_when_sessions_is_restored_from_an_older_state() {
    let scene = Scene::new().await;
    let other = Gateway::on(&scene.nats).await;
    drop(Client::join(&other, "eve", "acme").await);
    let backup = Backup::of(&scene.client, "SESSIONS").await;
    for number in 0..5 {
        drop(Client::join(&other, &format!("u{number}"), "acme").await);
    }
    let mut eve = Client::join(&scene.gateway, "eve", "acme").await;
    scene.api("DELETE", "SESSIONS", &json!({})).await;
    backup.restore(&scene.client, "SESSIONS").await;
    // The backup has an older claim of hers; it takes nothing from her.
    let mut bob = Client::join(&other, "bob", "acme").await;
    assert!(bob.is_open().await);
    assert!(eve.is_open().await);
    let mut newest = Client::join(&other, "eve", "acme").await;
    assert_eq!(eve.closed().await.0, 4009);
    assert!(newest.is_open().await);
}

/// A stream's snapshot (`$JS.API.STREAM.SNAPSHOT`), as `nats stream backup` takes it.
struct Backup {
    description: Value,
    chunks: Vec<bytes::Bytes>,
}

impl Backup {
    async fn of(client: &NatsClient, stream: &str) -> Self {
        let inbox = client.new_inbox();
        let mut coming = client.subscribe(inbox.clone()).await.expect("subscribed");
        let subject = format!("$JS.API.STREAM.SNAPSHOT.{stream}");
        let body = json!({ "deliver_subject": inbox }).to_string();
        let description = request(client, &subject, &body).await.expect("it answers");
        assert!(description["error"].is_null(), "{description}");
        let mut chunks = Vec::new();
        loop {
            let chunk = timeout(PATIENCE, coming.next())
                .await
                .expect("it comes")
                .expect("open");
            if let Some(reply) = chunk.reply {
                client
                    .publish(reply, "".into())
                    .await
                    .expect("acknowledged");
            }
            if chunk.payload.is_empty() {
                break;
            }
            chunks.push(chunk.payload);
        }
        Self {
            description,
            chunks,
        }
    }

    async fn restore(&self, client: &NatsClient, stream: &str) {
        let subject = format!("$JS.API.STREAM.RESTORE.{stream}");
        let body = json!({
            "config": self.description["config"],
            "state": self.description["state"],
        });
        let answer = request(client, &subject, &body.to_string())
            .await
            .expect("it answers");
        let to = answer["deliver_subject"]
            .as_str()
            .expect("where to")
            .to_owned();
        for chunk in &self.chunks {
            let sent = client.request(to.clone(), chunk.clone()).await;
            sent.expect("the chunk is taken");
        }
        let done = client.request(to, "".into()).await.expect("it ends");
        let done: Value = serde_json::from_slice(&done.payload).expect("JSON");
        assert!(done["error"].is_null(), "{done}");
        let info = format!("$JS.API.STREAM.INFO.{stream}");
        let there = eventually(PATIENCE, async || {
            let info = request(client, &info, "").await;
            info.is_some_and(|info| info["error"].is_null())
        });
        assert!(there.await, "{stream} is restored");
    }
}
