//! The `NotificationManager` of "Reconnection Strategy".

use std::time::Duration;

use super::{NOTIFICATIONS, OPEN, WORKSPACE, assert_notification, one_of_each_category};
use crate::support::contract::Snippet;
use crate::support::eventually;
use crate::support::stage::Stage;
use crate::support::token::{expiring, token};

/// What it prints with the code when its socket is closed.
pub(super) const CLOSED: &str = "Connection closed";
/// What it prints when it gives up.
pub(super) const GIVES_UP: &str = "Max reconnection attempts reached";
/// Within this time two tabs of one user come to rest.
pub(super) const REST: Duration = Duration::from_secs(120);

#[tokio::test]
async fn the_manager_receives_every_category() {
    let stage = Stage::new().await;
    let snippet = Snippet::Manager.for_gateway(stage.gateway.port(), "");
    let mut client = stage.run(&snippet, &[token("ann", WORKSPACE)]);
    client.console(OPEN).await;
    stage.publish(&one_of_each_category()).await;
    for expected in NOTIFICATIONS {
        let printed = client.console("Notification received:").await;
        assert_notification(&printed[1], expected);
    }
    // And nothing else.
    assert_eq!(client.count("Notification received:"), NOTIFICATIONS.len());
}

#[tokio::test]
async fn the_manager_stops_at_a_bad_token() {
    let stage = Stage::new().await;
    let snippet = Snippet::Manager.for_gateway(stage.gateway.port(), "");
    let mut client = stage.run(&snippet, &["garbage".to_owned()]);
    assert_eq!(client.console(CLOSED).await[1], 4001);
    client
        .console("Authentication failed — check your token")
        .await;
    assert!(client.ended().await);
    assert_eq!(client.count(OPEN), 1, "{}", client.told());
}

#[tokio::test]
async fn the_manager_sees_that_the_workspace_is_missing() {
    let stage = Stage::new().await;
    let snippet = Snippet::Manager
        .for_gateway(stage.gateway.port(), "")
        .in_workspace("");
    let mut client = stage.run(&snippet, &[token("ann", WORKSPACE)]);
    assert_eq!(
        client.closed().await,
        (4002, "missing workspaceSlug".to_owned())
    );
    assert_eq!(client.console(CLOSED).await[1], 4002);
}

#[tokio::test]
async fn the_manager_goes_on_with_a_fresh_token() {
    let stage = Stage::new().await;
    let snippet = Snippet::Manager.for_gateway(stage.gateway.port(), "");
    let tokens = [
        expiring("ann", WORKSPACE, -1),
        expiring("ann", WORKSPACE, 4),
        token("ann", WORKSPACE),
    ];
    let mut client = stage.run(&snippet, &tokens);
    // The first token had expired before, the second one does while connected.
    for _ in 0..2 {
        assert_eq!(client.console(CLOSED).await[1], 4003);
        client.console("Reconnecting... Attempt 1").await;
        client.console(OPEN).await;
    }
    stage.publish(&one_of_each_category()).await;
    let printed = client.console("Notification received:").await;
    assert_notification(&printed[1], NOTIFICATIONS[0]);
}

/// Each `open` sets its back-off to the beginning. So it would come once a second for ever.
#[tokio::test]
async fn the_manager_backs_off_with_an_expired_token_from_a_cache() {
    let stage = Stage::new().await;
    let snippet = Snippet::Manager.for_gateway(stage.gateway.port(), "");
    let mut client = stage.run_with_ws(&snippet, &[expiring("ann", WORKSPACE, -1)]);
    client.console("Reconnecting... Attempt 4").await;
    assert_eq!(client.count(OPEN), 3, "{}", client.told());
}

#[tokio::test]
async fn two_tabs_with_managers_of_one_user_come_to_rest_with_one_connected() {
    let stage = Stage::new().await;
    let snippet = Snippet::Manager.for_gateway(stage.gateway.port(), "");
    let tokens = [token("ann", WORKSPACE)];
    let mut tabs = [
        stage.run_with_ws(&snippet, &tokens),
        stage.run_with_ws(&snippet, &tokens),
    ];
    for tab in &mut tabs {
        tab.console(OPEN).await;
    }
    // Each reconnects when the other has replaced it, until the gateway refuses one of them, which
    // then gives up and has nothing left to do.
    let rest = eventually(REST, async || tabs.iter_mut().any(|tab| tab.has_ended()));
    assert!(rest.await, "{}\n\n{}", tabs[0].told(), tabs[1].told());
    let [mut standing, fallen] = tabs;
    let mut fallen = fallen;
    if standing.has_ended() {
        std::mem::swap(&mut standing, &mut fallen);
    }
    assert_eq!(fallen.count(GIVES_UP), 1, "{}", fallen.told());
    assert!(!standing.has_ended(), "{}", standing.told());
    assert_eq!(standing.count(GIVES_UP), 0, "{}", standing.told());
    assert_eq!(
        standing.count(OPEN),
        standing.count(CLOSED) + 1,
        "{}",
        standing.told()
    );
    stage
        .gateway
        .metric_becomes("herald_connections", "", 1.0)
        .await;
    stage.publish(&one_of_each_category()).await;
    for expected in NOTIFICATIONS {
        let printed = standing.console("Notification received:").await;
        assert_notification(&printed[1], expected);
    }
    // The flap rule, and not chance, brought them to rest.
    let refused = stage
        .gateway
        .metric("herald_connections_refused_total", "flapping")
        .await;
    assert!(refused > 4.5, "{refused}");
}
