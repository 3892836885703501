//! The "React Example": the hook and the panel, under the real React in a document of jsdom.

use serde_json::{Value, json};

use super::{NOTIFICATIONS, OPEN, WORKSPACE, one_of_each_category, refusals};
use crate::support::clients::script::Script;
use crate::support::contract::Snippet;
use crate::support::stage::Stage;
use crate::support::token::{expiring, token};

const CONNECTED: &str = "Status: Connected";
const DISCONNECTED: &str = "Status: Disconnected";

/// Waits until the panel shows `status` and these titles with their messages, and nothing else.
async fn shows(panel: &mut Script, status: &str, items: &[[&str; 2]]) {
    let expected = json!({ "status": status, "items": items });
    let what = format!("{expected}");
    panel.until(&what, |line| line["panel"] == expected).await;
}

/// Has `useAuthToken` return `token` from now on.
fn sign_in(panel: &mut Script, token: &str) {
    panel.command(&json!({ "token": token }));
}

#[tokio::test]
async fn the_react_panel_shows_every_category_and_leaves_nothing_behind() {
    let stage = Stage::new().await;
    let snippet = Snippet::React.for_gateway(stage.gateway.port(), "");
    let mut panel = stage.render(&snippet, "once");
    shows(&mut panel, DISCONNECTED, &[]).await;
    sign_in(&mut panel, &token("ann", WORKSPACE));
    shows(&mut panel, CONNECTED, &[]).await;
    stage.publish(&one_of_each_category()).await;
    // The panel puts the newest first.
    let items: Vec<[&str; 2]> = NOTIFICATIONS
        .iter()
        .rev()
        .map(|[_, _, title, message]| [*title, *message])
        .collect();
    shows(&mut panel, CONNECTED, &items).await;
    stage
        .gateway
        .metric_becomes("herald_connections", "", 1.0)
        .await;
    panel.command(&json!({ "unmount": true }));
    // The panel calls `close()` without a code, which the gateway's answer has to follow.
    assert_eq!(panel.closed().await, (1005, String::new()));
    stage
        .gateway
        .metric_becomes("herald_connections", "", 0.0)
        .await;
    assert!(panel.ended().await);
}

#[tokio::test]
async fn the_react_panel_is_closed_with_the_codes_of_the_contract() {
    let stage = Stage::new().await;
    for (token, slug, (code, reason)) in refusals() {
        if token.is_empty() || slug.is_empty() {
            // The hook does not connect with either.
            continue;
        }
        let snippet = Snippet::React
            .for_gateway(stage.gateway.port(), "")
            .in_workspace(slug);
        let mut panel = stage.render(&snippet, "once");
        shows(&mut panel, DISCONNECTED, &[]).await;
        sign_in(&mut panel, &token);
        assert_eq!(panel.closed().await, (code, reason.to_owned()));
        if code == 4003 {
            panel.console("Token expired — refresh and reconnect").await;
        }
        shows(&mut panel, DISCONNECTED, &[]).await;
    }
}

#[tokio::test]
async fn the_react_panel_goes_on_with_a_fresh_token() {
    let stage = Stage::new().await;
    let snippet = Snippet::React.for_gateway(stage.gateway.port(), "");
    let mut panel = stage.render(&snippet, "once");
    shows(&mut panel, DISCONNECTED, &[]).await;
    sign_in(&mut panel, &expiring("ann", WORKSPACE, 3));
    panel.console(OPEN).await;
    // It expires while connected.
    assert_eq!(panel.closed().await, (4003, "token expired".to_owned()));
    shows(&mut panel, DISCONNECTED, &[]).await;
    sign_in(&mut panel, &token("ann", WORKSPACE));
    shows(&mut panel, CONNECTED, &[]).await;
    // A change of the token while connected: the hook leaves the old socket and opens another.
    sign_in(&mut panel, &expiring("ann", WORKSPACE, 1800));
    panel.console(OPEN).await;
    stage
        .publish(&json!([["my-workspace.custom.hello", {}]]))
        .await;
    let shown = panel.until("a notification", |line| {
        line["panel"]["items"]
            .as_array()
            .is_some_and(|items| !items.is_empty())
    });
    assert_eq!(
        shown.await["panel"]["items"],
        json!([["Hello", "Hello in my-workspace."]])
    );
    stage
        .gateway
        .metric_becomes("herald_connections", "", 1.0)
        .await;
}

#[tokio::test]
async fn the_react_panel_connects_once_in_strict_mode() {
    // In development React mounts everything twice, so that the first socket is closed while it is
    // being opened.
    let stage = Stage::new().await;
    let snippet = Snippet::React.for_gateway(stage.gateway.port(), "");
    let mut panel = stage.render(&snippet, "strict");
    shows(&mut panel, DISCONNECTED, &[]).await;
    sign_in(&mut panel, &token("ann", WORKSPACE));
    panel.console(OPEN).await;
    stage.publish(&one_of_each_category()).await;
    let all = panel.until("all notifications", |line| {
        line["panel"]["items"].as_array().map_or(0, Vec::len) >= NOTIFICATIONS.len()
    });
    assert_eq!(
        all.await["panel"]["items"].as_array().map(Vec::len),
        Some(NOTIFICATIONS.len())
    );
    stage
        .gateway
        .metric_becomes("herald_connections", "", 1.0)
        .await;
    let replaced = |line: &Value| line["closed"]["code"] == 4009;
    assert_eq!(panel.count_where(replaced), 0, "{}", panel.told());
}
