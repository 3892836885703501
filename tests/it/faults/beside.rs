//! Gateways that are not as the others: with the same instance id, with a clock that jumps, of an older
//! version.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;

use crate::support::client::Client;
use crate::support::gateway::Gateway;
use crate::support::nats::Nats;
use crate::support::publisher::Publisher;
use crate::support::token::expiring;

#[tokio::test]
async fn two_gateways_with_the_same_instance_id_replace_each_others_sessions() {
    let nats = Nats::jetstream().await;
    let same = "service.instance.id=the-same";
    let mut gateways = Vec::new();
    for _ in 0..2 {
        let gateway = Gateway::builder(&nats).variable("OTEL_RESOURCE_ATTRIBUTES", same);
        gateways.push(gateway.ready().await);
    }
    let mut standing = Client::join(&gateways[0], "ann", "acme").await;
    for turn in 1..4 {
        let mut newer = Client::join(&gateways[turn % 2], "ann", "acme").await;
        assert_eq!(standing.closed().await.0, 4009);
        assert!(newer.is_open().await);
        standing = newer;
    }
}

/// A claim of a gateway of the first version, which named its instance and not its process.
#[tokio::test]
async fn a_claim_of_an_older_gateway_replaces_and_is_replaced() {
    let nats = Nats::jetstream().await;
    let gateway = Gateway::on(&nats).await;
    let publisher = Publisher::on(&nats).await;
    let mut ann = Client::join(&gateway, "ann", "acme").await;
    let stored = publisher.claim_over_the_last().await;
    assert_eq!(ann.closed().await.0, 4009);
    let mut again = Client::join(&gateway, "ann", "acme").await;
    assert!(again.is_open().await);
    let mut stream = publisher
        .context
        .get_stream("SESSIONS")
        .await
        .expect("it is there");
    assert!(stream.info().await.expect("info").state.last_sequence > stored);
}

/// libfaketime, which shows a process another time of day; `None`, and a line that says so, where it is
/// not. Where `HERALD_TEST_FAKETIME` is set it must be there.
fn faketime() -> Option<PathBuf> {
    let folders = [
        "/usr/lib/x86_64-linux-gnu/faketime",
        "/usr/lib/aarch64-linux-gnu/faketime",
        "/usr/lib/faketime",
    ];
    let found = folders
        .iter()
        .map(|folder| PathBuf::from(folder).join("libfaketimeMT.so.1"))
        .find(|path| path.is_file());
    if found.is_none() {
        assert!(
            std::env::var_os("HERALD_TEST_FAKETIME").is_none(),
            "no libfaketime"
        );
        crate::support::skipped("no libfaketime (Debian: apt install faketime)");
    }
    found
}

#[tokio::test]
async fn a_jump_of_one_gateways_clock_moves_expiry_and_nothing_else() {
    let Some(library) = faketime() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let clock = folder.path().join("clock");
    std::fs::write(&clock, "+0").expect("written");
    let nats = Nats::jetstream().await;
    let straight = Gateway::on(&nats).await;
    let jumping = Gateway::builder(&nats)
        .variable("LD_PRELOAD", library.display())
        .variable("FAKETIME_TIMESTAMP_FILE", clock.display())
        .variable("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        .variable("FAKETIME_NO_CACHE", "1")
        .set("sockets.ping", "1s")
        .ready()
        .await;
    let publisher = Publisher::on(&nats).await;
    let join = async |gateway: &Gateway, user: &str, seconds: i64| {
        let token = expiring(user, "acme", seconds);
        Client::connect(gateway, &format!("token={token}&workspaceSlug=acme")).await
    };
    let mut ann = join(&straight, "ann", 1800).await;
    let mut soon = join(&jumping, "soon", 1800).await;
    let mut later = join(&jumping, "later", 3 * 3600).await;
    let mut turn = 0;
    for jump in ["+0", "+1h", "-1h"] {
        std::fs::write(&clock, jump).expect("written");
        if jump == "+1h" {
            // Its token has expired by this gateway's clock, whatever the others say.
            assert_eq!(soon.closed().await.0, 4003);
        }
        // The same bytes on both, once each, in order: identity and timestamp are the stream's.
        for name in ["a", "b", "a"] {
            turn += 1;
            let title = json!({ "title": format!("{jump} {turn}") });
            publisher
                .event(&format!("acme.custom.{name}"), &title)
                .await;
        }
        for _ in 0..3 {
            assert_eq!(ann.text().await, later.text().await, "{jump}");
        }
        // The newest stays wherever it is: no clock is asked.
        let eve = format!("eve{turn}");
        let mut here = join(&jumping, &eve, 3 * 3600).await;
        let mut there = join(&straight, &eve, 3 * 3600).await;
        assert_eq!(here.closed().await.0, 4009, "{jump}");
        let mut here_again = join(&jumping, &eve, 3 * 3600).await;
        assert_eq!(there.closed().await.0, 4009, "{jump}");
        assert!(here_again.is_open().await);
    }
    assert!(later.is_quiet(Duration::from_millis(300)).await);
    assert!(jumping.metric("herald_events_late_total", "").await < 0.5);
}
