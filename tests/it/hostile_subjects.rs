//! A publisher chooses its subject, and nats-server lets almost any bytes through. Verifies that none
//! of them reaches another workspace, another subscription or the connection.

use std::collections::BTreeSet;

use async_nats::jetstream;
use serde_json::json;

use crate::support::client::Client;
use crate::support::gateway::Gateway;
use crate::support::nats::Nats;
use crate::support::publisher::Publisher;
use crate::support::raw_nats::RawNats;
use crate::support::{PATIENCE, eventually};

/// What may follow `ws.acme.` and is no event's name. nats-server 2.15 stores each of these.
const SUBJECTS: &[&[u8]] = &[
    b"custom.\xff",
    b"custom.\xc2",
    b"custom.a\xe2\x80",
    b"custom.a\xe2\x80.b",
    b"\xf0\x9f.x",
    "custom.x\u{a0}".as_bytes(),
    "\u{a0}.x".as_bytes(),
    "custom.x\u{a0}17".as_bytes(),
    "custom.x\u{85}1".as_bytes(),
    "custom.x\u{2028}2".as_bytes(),
    "custom.x\u{3000}3".as_bytes(),
    b"custom.x\x0b4",
    b"custom.x\x0c5",
    b"custom.\x00",
    b"custom.*",
    b">",
    b"*.created",
    "custom.\u{fffd}".as_bytes(),
];

fn subject(rest: &[u8]) -> Vec<u8> {
    [b"ws.acme.", rest].concat()
}

/// How many letters there are, and of how many events.
async fn letters(nats: &Nats) -> (u64, usize) {
    let jetstream = jetstream::new(nats.connect().await);
    let mut dead = jetstream.get_stream("DEAD").await.expect("it exists");
    let count = dead.info().await.expect("info").state.messages;
    let mut subjects = BTreeSet::new();
    for sequence in 1..=count {
        let letter = dead.get_raw_message(sequence).await.expect("a letter");
        let reason = letter.headers.get_last("Herald-Reason").expect("a reason");
        assert!(["subject", "unknown_category"].contains(&reason.as_str()));
        subjects.insert(letter.subject);
    }
    (count, subjects.len())
}

async fn has_letters(nats: &Nats, wanted: usize) {
    let complete = eventually(PATIENCE, async || letters(nats).await.1 >= wanted).await;
    let (count, events) = letters(nats).await;
    assert!(complete && events == wanted, "{events} of {wanted}");
    assert_eq!(count as usize, wanted);
}

async fn never_disconnected(gateway: &Gateway) {
    let disconnected = gateway
        .metric("herald_nats_events_total", "\"disconnected\"")
        .await;
    assert!(disconnected < 0.5, "{}", gateway.output());
}

#[tokio::test]
async fn a_subject_that_is_none_is_a_bad_event_of_its_own_workspace() {
    let nats = Nats::jetstream().await;
    let gateway = Gateway::on(&nats).await;
    let publisher = Publisher::on(&nats).await;
    let mut hostile = RawNats::on(&nats).await;
    let mut ann = Client::join(&gateway, "ann", "acme").await;
    for (number, rest) in SUBJECTS.iter().enumerate() {
        hostile.publish(&subject(rest), b"{}").await;
        hostile.flush().await;
        // While it is the stream's last message, another workspace is joined.
        let workspace = format!("w{number}");
        let mut bob = Client::join(&gateway, "bob", &workspace).await;
        let good = json!({ "title": format!("good {number}") });
        publisher.event("acme.custom.good", &good).await;
        publisher
            .event(&format!("{workspace}.custom.good"), &good)
            .await;
        assert_eq!(bob.notification().await["title"], good["title"]);
        assert_eq!(ann.notification().await["title"], good["title"]);
    }
    has_letters(&nats, SUBJECTS.len()).await;
    never_disconnected(&gateway).await;
}

#[tokio::test]
async fn a_subject_that_is_none_is_repaired_past() {
    let nats = Nats::jetstream().await;
    let gateway = Gateway::on(&nats).await;
    let publisher = Publisher::on(&nats).await;
    let mut hostile = RawNats::on(&nats).await;
    let mut ann = Client::join(&gateway, "ann", "acme").await;
    publisher
        .unheard("EVENTS", async || {
            for rest in SUBJECTS {
                hostile.publish(&subject(rest), b"{}").await;
            }
            hostile.flush().await;
            let lost = json!({ "title": "lost" });
            publisher.event("acme.custom.x", &lost).await;
        })
        .await;
    publisher
        .event("acme.custom.x", &json!({ "title": "next" }))
        .await;
    assert_eq!(ann.notification().await["title"], "lost");
    assert_eq!(ann.notification().await["title"], "next");
    has_letters(&nats, SUBJECTS.len()).await;
    never_disconnected(&gateway).await;
}

/// After a reconnect a room delivers nothing until a sweep has said what the stream holds; and a sweep names
/// the stream's last message in its question. Where that cannot be named, each room had to be repaired.
#[tokio::test]
async fn quiet_rooms_need_no_repair_after_a_reconnect_while_such_a_subject_is_the_last() {
    let nats = Nats::jetstream().await;
    let (cable, gateway) = Gateway::behind_a_cable(&nats).await;
    let publisher = Publisher::on(&nats).await;
    let mut hostile = RawNats::on(&nats).await;
    let mut bob = Client::join(&gateway, "bob", "globex").await;
    for (round, rest) in [&b"custom.\xff"[..], b">", b"custom.*"].iter().enumerate() {
        let before = gateway.metric("herald_sweeps_total", "").await;
        cable.cut();
        gateway
            .metric_becomes(
                "herald_nats_events_total",
                "\"disconnected\"",
                (round + 1) as f64,
            )
            .await;
        // In claims, too: what a gateway asks of SESSIONS names its last message.
        hostile.publish(&subject(rest), b"{}").await;
        hostile
            .publish(&[b"session.acme.", *rest].concat(), b"{}")
            .await;
        hostile.flush().await;
        cable.mend();
        gateway
            .metric_becomes(
                "herald_nats_events_total",
                "\"connected\"",
                (round + 2) as f64,
            )
            .await;
        let swept = eventually(PATIENCE, async || {
            gateway.metric("herald_sweeps_total", "").await > before
        });
        assert!(swept.await, "{}", gateway.output());
        let title = json!({ "title": format!("after {round}") });
        publisher.event("globex.custom.x", &title).await;
        assert_eq!(bob.notification().await["title"], title["title"]);
    }
    let repairs = gateway
        .metric("herald_repairs_total", "\"reconnect\"")
        .await;
    assert!(repairs < 0.5, "{repairs}");
    let mut ann = Client::join(&gateway, "ann", "acme").await;
    assert!(ann.is_open().await && bob.is_open().await);
}

/// The same where the gateway has never seen a subject that it can name, right after its start. One that fits
/// the last one would bring the last message of each of these subjects, or be refused for their number.
#[tokio::test]
async fn such_a_subject_that_was_the_last_at_the_start_costs_no_repair_and_hides_nothing() {
    for rest in [&b"custom.\xff"[..], b">", b"custom.*", b"custom.a."] {
        let nats = Nats::jetstream().await;
        let mut hostile = RawNats::on(&nats).await;
        // The streams.
        drop(Gateway::on(&nats).await);
        for number in 0..1100 {
            let another = format!("ws.acme.custom.x{number}");
            hostile.publish(another.as_bytes(), b"{}").await;
        }
        hostile.publish(&subject(rest), b"{}").await;
        hostile
            .publish(&[b"session.acme.", rest].concat(), b"{}")
            .await;
        hostile.flush().await;
        let (cable, gateway) = Gateway::behind_a_cable(&nats).await;
        let mut bob = Client::join(&gateway, "bob", "globex").await;
        let mut cyd = Client::join(&gateway, "cyd", "initech").await;
        let publisher = Publisher::on(&nats).await;
        for (round, is_missed) in [(1.0, false), (2.0, true)] {
            cable.cut();
            gateway
                .metric_becomes("herald_nats_events_total", "\"disconnected\"", round)
                .await;
            let title = json!({ "title": "missed" });
            if is_missed {
                publisher.event("globex.custom.x", &title).await;
                hostile.publish(&subject(rest), b"{}").await;
                hostile.flush().await;
            }
            let before = gateway.metric("herald_sweeps_total", "").await;
            cable.mend();
            let swept = eventually(PATIENCE, async || {
                gateway.metric("herald_sweeps_total", "").await > before + 1.5
            });
            assert!(swept.await, "{}", gateway.output());
            if is_missed {
                assert_eq!(bob.notification().await["title"], title["title"]);
            }
            let repairs = gateway
                .metric("herald_repairs_total", "\"reconnect\"")
                .await;
            let wanted = f64::from(u8::from(is_missed));
            assert!((repairs - wanted).abs() < 0.5, "{repairs} {rest:?}");
        }
        let title = json!({ "title": "live" });
        for (client, subject) in [
            (&mut bob, "globex.custom.x"),
            (&mut cyd, "initech.custom.x"),
        ] {
            publisher.event(subject, &title).await;
            assert_eq!(client.notification().await["title"], "live");
        }
        assert!(bob.is_open().await && cyd.is_open().await);
    }
}

#[tokio::test]
async fn a_subject_chooses_no_subscription() {
    const SUBSCRIPTIONS: usize = 100;
    let nats = Nats::jetstream().await;
    let gateway = Gateway::on(&nats).await;
    let publisher = Publisher::on(&nats).await;
    let mut ann = Client::join(&gateway, "ann", "acme").await;
    let mut bob = Client::join(&gateway, "bob", "globex").await;
    let mut hostile = RawNats::on(&nats).await;
    for sid in 0..SUBSCRIPTIONS {
        let subject = format!("ws.acme.custom.x\u{a0}{sid}");
        hostile.publish(subject.as_bytes(), b"{}").await;
    }
    hostile.flush().await;
    // Each is an event of its own workspace, and nothing more.
    has_letters(&nats, SUBSCRIPTIONS).await;
    let title = json!({ "title": "good" });
    for (client, subject) in [(&mut ann, "acme.custom.x"), (&mut bob, "globex.custom.x")] {
        publisher.event(subject, &title).await;
        assert_eq!(client.notification().await["title"], "good");
    }
    assert!(gateway.log_line("leader elected").is_none());
    for reason in ["forged", "bad_claim"] {
        let dropped = gateway.metric("herald_live_dropped_total", reason).await;
        assert!(dropped < 0.5, "{reason}: {dropped}");
    }
    never_disconnected(&gateway).await;
}
