//! Tokens that end soon, are over, or are for another workspace.

use std::time::Duration;

use super::*;
use crate::support::token::expiring;

#[tokio::test]
async fn tokens_of_five_seconds_lose_no_event_and_no_socket() {
    let Some(scene) = Scene::new().await else {
        return;
    };
    let tab = scene.tab("&lives=6").await;
    for number in 0..60 {
        scene.event(&number.to_string()).await;
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    has(&tab, &numbers(0..60)).await;
    assert_eq!(scene.opened().await, 1.0);
    assert_eq!(tab.eval("gaps").await, json!([]));
    assert!(tab.eval("asked").await.as_u64() >= Some(4));
    is_clean(&tab).await;
}

#[tokio::test]
async fn the_token_is_in_the_url_where_that_is_asked_for_and_nowhere_else() {
    let Some(scene) = Scene::new().await else {
        return;
    };
    for (user, query, in_url, protocols) in [
        ("ann", "", false, 3),
        ("bob", "&tokenIn=subprotocol", false, 3),
        ("cid", "&tokenIn=query", true, 2),
    ] {
        let tab = scene.tab(&format!("&user={user}{query}")).await;
        let socket = tab.eval("window.sockets[0]").await;
        let url = socket[0].as_str().unwrap_or_default();
        assert_eq!(url.contains("token=ey"), in_url, "{user}");
        assert_eq!(
            socket[1].as_array().map(Vec::len),
            Some(protocols),
            "{user}"
        );
        assert_eq!(socket[1][0], "herald.v2");
        scene.event(user).await;
        has(&tab, &[user.to_owned()]).await;
    }
}

#[tokio::test]
async fn an_expired_token_from_a_cache_says_so_and_waits_longer_each_time() {
    let Some(scene) = Scene::new().await else {
        return;
    };
    let cached = expiring("ann", "acme", -10);
    let tab = scene.page("plain", &format!("&cached={cached}")).await;
    tab.becomes("asked >= 4").await;
    tab.becomes("client.getSnapshot().status.state === 'waiting'")
        .await;
    let status = tab.eval("client.getSnapshot().status").await;
    assert_eq!(status["reason"], "getToken gave a token that has expired");
    // The gateway was asked once: it would say the same.
    assert_eq!(tab.eval("connects.length").await, 1);
    let said = tab.eval("JSON.stringify([told, states, errors])").await;
    for part in cached.split('.') {
        assert!(!said.to_string().contains(part), "{said}");
    }
}

#[tokio::test]
async fn a_workspace_that_is_refused_stops_all_tabs_with_its_reason() {
    let Some(scene) = Scene::new().await else {
        return;
    };
    let tabs = [
        scene.page("plain", "&workspace=globex").await,
        scene.page("plain", "&workspace=globex").await,
    ];
    for tab in &tabs {
        tab.becomes("client.getSnapshot().status.state === 'stopped'")
            .await;
        let status = tab.eval("client.getSnapshot().status").await;
        assert_eq!(status["code"], 4001, "{status}");
        assert_eq!(status["reason"], "no access to this workspace");
    }
    // No tab goes on where another was refused.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let closed = scene
        .gateway
        .metric("herald_connections_closed_total", "4001")
        .await;
    assert!(closed <= 2.0, "{closed}");
}

/// Whoever logs in as another gets another's notifications, and sees none of before.
#[tokio::test]
async fn another_user_of_the_same_page_begins_anew() {
    let Some(scene) = Scene::new().await else {
        return;
    };
    let tab = scene.tab("&user=ann").await;
    scene.event("for ann").await;
    has(&tab, &["for ann".to_owned()]).await;
    tab.eval("ask_as = 'bob'; client.renew()").await;
    tab.becomes("client.getSnapshot().notifications.length === 0")
        .await;
    tab.becomes("states.filter(({ state }) => state === 'open').length > 1")
        .await;
    assert_eq!(
        tab.eval("gaps").await,
        json!([]),
        "nothing was bob's before"
    );
    let to_bob = json!({ "title": "for bob", "recipients": ["bob"] });
    scene.publisher.event("acme.custom.x", &to_bob).await;
    tab.becomes("titles.includes('for bob')").await;
    scene.one_socket_is_open().await;
}
