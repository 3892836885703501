//! Each signal against a gateway with an open socket: some drain it, one reloads (`reload.rs`), and the rest do
//! nothing.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::client::Client;
use crate::support::gateway::Gateway;
use crate::support::nats::Nats;
use crate::support::publisher::Publisher;
use crate::support::{PATIENCE, eventually};

#[tokio::test]
async fn term_int_and_quit_drain() {
    let nats = Nats::jetstream().await;
    for signal in ["TERM", "INT", "QUIT"] {
        let mut gateway = Gateway::builder(&nats)
            .set("server.drain", "0s")
            .ready()
            .await;
        let mut ann = Client::join(&gateway, "ann", "acme").await;
        gateway.signal(signal);
        assert_eq!(ann.closed().await.0, 1012, "{signal}");
        drop(ann);
        assert_eq!(gateway.ended().await, Some(0), "{signal}");
        assert_eq!(gateway.log_lines("drained"), 1, "{signal}");
    }
}

#[tokio::test]
async fn a_second_signal_of_those_ends_at_once() {
    let nats = Nats::jetstream().await;
    for (first, second) in [("QUIT", "QUIT"), ("TERM", "QUIT"), ("QUIT", "INT")] {
        let mut gateway = Gateway::builder(&nats)
            .set("server.drain_delay", "5m")
            .ready()
            .await;
        let _ann = Client::join(&gateway, "ann", "acme").await;
        gateway.signal(first);
        assert!(eventually(PATIENCE, async || gateway.log_lines("draining") == 1).await);
        let start = Instant::now();
        gateway.signal(second);
        assert_eq!(gateway.ended().await, Some(0), "{first} {second}");
        assert!(start.elapsed() < Duration::from_secs(10));
    }
}

/// Log rotation, supervisors and curious people send them; each ended every socket with 1006.
#[tokio::test]
async fn other_signals_leave_every_socket_open() {
    let nats = Nats::jetstream().await;
    let publisher = Publisher::on(&nats).await;
    let mut gateway = Gateway::on(&nats).await;
    let mut ann = Client::join(&gateway, "ann", "acme").await;
    for signal in [
        "USR1", "USR2", "ALRM", "IO", "PIPE", "WINCH", "URG", "CHLD", "HUP",
    ] {
        gateway.signal(signal);
        let heard = eventually(PATIENCE, async || {
            gateway
                .output()
                .contains(&format!("\"signal\":\"SIG{signal}\""))
                || gateway.log_lines("configuration reloaded") == 1
                || matches!(signal, "PIPE" | "WINCH" | "URG" | "CHLD")
        });
        assert!(heard.await, "{signal} is not heard:\n{}", gateway.output());
        publisher
            .event("acme.custom.x", &json!({ "title": signal }))
            .await;
        assert_eq!(ann.notification().await["title"], signal);
    }
    assert!(gateway.alive());
}

#[tokio::test]
async fn signals_are_heard_before_the_gateway_is_ready() {
    let nats = Nats::jetstream().await;
    let mut gateway = Gateway::builder(&nats)
        .set("nats.migrate", false)
        .start()
        .await;
    let waits = eventually(PATIENCE, async || {
        gateway.log_lines("waiting for migrations") == 1
    });
    assert!(waits.await);
    gateway.signal("USR1");
    gateway.signal("HUP");
    let reloaded = eventually(PATIENCE, async || {
        gateway.log_lines("configuration reloaded") == 1 && gateway.log_lines("signal ignored") == 1
    });
    assert!(reloaded.await, "{}", gateway.output());
    assert!(gateway.alive());
    gateway.signal("QUIT");
    assert_eq!(gateway.ended().await, Some(0));
}

#[tokio::test]
async fn a_drain_takes_no_reload() {
    let nats = Nats::jetstream().await;
    let mut gateway = Gateway::builder(&nats)
        .set("server.drain_delay", "5m")
        .ready()
        .await;
    gateway.signal("TERM");
    assert!(eventually(PATIENCE, async || gateway.log_lines("draining") == 1).await);
    gateway.signal("HUP");
    let told = eventually(PATIENCE, async || {
        gateway.log_lines("draining, configuration not reloaded") == 1
    });
    assert!(told.await && gateway.log_lines("configuration reloaded") == 0);
    gateway.signal("TERM");
    assert_eq!(gateway.ended().await, Some(0));
}
