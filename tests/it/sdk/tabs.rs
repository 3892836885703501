//! All tabs of a user and workspace share a socket, and each has everything once.

use std::time::Duration;

use super::*;

/// The tab that holds the socket, and the others.
async fn holder(tabs: &[Tab]) -> usize {
    let mut holders = Vec::new();
    for (index, tab) in tabs.iter().enumerate() {
        if tab.eval("window.holds").await == true {
            holders.push(index);
        }
    }
    assert_eq!(holders.len(), 1, "{holders:?}");
    holders[0]
}

/// Waits until one of the tabs has taken over; how long after `since` that was, in milliseconds.
async fn taken_over(tabs: &[Tab], since: f64) -> f64 {
    let mut at = 0.0;
    let taken = eventually(Duration::from_secs(30), async || {
        for tab in tabs {
            let opened = tab.eval("window.holds && client.getSnapshot().connected ? openedAt : 0");
            at = opened.await.as_f64().unwrap_or_default();
            if at > since {
                return true;
            }
        }
        false
    });
    assert!(taken.await, "no tab took over");
    at - since
}

#[tokio::test]
async fn eight_tabs_at_once_have_one_socket_and_everything_once_and_in_order() {
    let Some(scene) = Scene::new().await else {
        return;
    };
    let mut tabs = Vec::new();
    for _ in 0..8 {
        tabs.push(scene.page("plain", "").await);
    }
    for tab in &tabs {
        tab.becomes(OPEN).await;
    }
    scene.events(0..100).await;
    for tab in &tabs {
        has(tab, &numbers(0..100)).await;
        is_clean(tab).await;
    }
    // One that comes later has what comes later.
    let late = scene.tab("").await;
    scene.events(100..110).await;
    has(&late, &numbers(100..110)).await;
    holder(&tabs).await;
    scene.one_socket_is_open().await;
    assert_eq!(scene.opened().await, 1.0);
}

#[tokio::test]
async fn other_users_and_workspaces_stay_apart() {
    let Some(scene) = Scene::new().await else {
        return;
    };
    let ann = scene.tab("&user=ann").await;
    let bob = scene.tab("&user=bob").await;
    let to_bob = json!({ "title": "for bob", "recipients": ["bob"] });
    scene.publisher.event("acme.custom.x", &to_bob).await;
    scene.event("for all").await;
    has(&bob, &["for bob".to_owned(), "for all".to_owned()]).await;
    has(&ann, &["for all".to_owned()]).await;
    assert_eq!(scene.opened().await, 2.0);
}

#[tokio::test]
async fn where_the_holding_tab_closes_or_crashes_another_holds_within_a_second() {
    let Some(scene) = Scene::new().await else {
        return;
    };
    let mut tabs = vec![
        scene.tab("").await,
        scene.tab("").await,
        scene.tab("").await,
    ];
    scene.event("before").await;
    for tab in &tabs {
        has(tab, &["before".to_owned()]).await;
    }
    for crashes in [false, true] {
        let gone = tabs.remove(holder(&tabs).await);
        let since = now();
        if crashes {
            gone.crash().await;
        } else {
            gone.close().await;
        }
        let took = taken_over(&tabs, since).await;
        timely(took, 1000.0);
        let title = format!("after, crashes: {crashes}");
        scene.event(&title).await;
        for tab in &tabs {
            tab.becomes(&format!("titles.at(-1) === {}", json!(title)))
                .await;
        }
        scene.one_socket_is_open().await;
    }
    // Each time something may have been missed.
    assert_eq!(tabs[0].eval("gaps.length").await, 2);
    is_clean(&tabs[0]).await;
}

#[tokio::test]
async fn where_the_holding_tab_is_frozen_another_holds_within_three_seconds() {
    let Some(scene) = Scene::new().await else {
        return;
    };
    let mut tabs = vec![scene.tab("").await, scene.tab("").await];
    scene.event("before").await;
    for tab in &tabs {
        has(tab, &["before".to_owned()]).await;
    }
    let frozen = tabs.remove(holder(&tabs).await);
    let since = now();
    frozen.set_frozen(true).await;
    let took = taken_over(&tabs, since).await;
    timely(took, 3000.0);
    misses_and_is_told(&scene, &frozen, &tabs[0]).await;
    for tab in [&tabs[0], &frozen] {
        tab.becomes("titles.at(-1) === 'after'").await;
        assert_eq!(
            tab.eval("new Set(titles).size === titles.length").await,
            true
        );
    }
    scene.one_socket_is_open().await;
}

/// What comes while `frozen` stands still is in the gap that it is told of; it hears what comes after that.
async fn misses_and_is_told(scene: &Scene, frozen: &Tab, other: &Tab) {
    scene.event("meanwhile").await;
    other.becomes("titles.includes('meanwhile')").await;
    let received = now();
    frozen.set_frozen(false).await;
    let (from, to) = gap(frozen).await;
    assert!(from < received && received <= to, "{from} {received} {to}");
    frozen.becomes(OPEN).await;
    scene.event("after").await;
    frozen.becomes("titles.includes('after')").await;
    is_clean(frozen).await;
}

#[tokio::test]
async fn a_tab_that_was_frozen_while_another_held_is_told_what_it_missed() {
    let Some(scene) = Scene::new().await else {
        return;
    };
    let mut tabs = vec![scene.tab("").await, scene.tab("").await];
    scene.event("before").await;
    for tab in &tabs {
        has(tab, &["before".to_owned()]).await;
    }
    let holder = tabs.remove(holder(&tabs).await);
    let frozen = &tabs[0];
    // Nothing comes meanwhile: so nothing is missed.
    frozen.set_frozen(true).await;
    frozen.set_frozen(false).await;
    frozen
        .becomes("states.filter(({ state }) => state === 'open').length > 1")
        .await;
    scene.event("between").await;
    frozen.becomes("titles.includes('between')").await;
    assert_eq!(frozen.eval("gaps").await, json!([]));
    frozen.set_frozen(true).await;
    misses_and_is_told(&scene, frozen, &holder).await;
    assert_eq!(scene.opened().await, 1.0);
}

/// Its script stands still, without a word before: as in a debugger, or where the browser stopped it.
#[tokio::test]
async fn where_the_holding_tab_hangs_another_takes_the_lock() {
    let Some(scene) = Scene::new().await else {
        return;
    };
    let mut tabs = vec![scene.tab("").await, scene.tab("").await];
    let hung = tabs.remove(holder(&tabs).await);
    let since = now();
    // Does not answer until it is over.
    let hangs = hung.eval("{ const end = Date.now() + 6000; while (Date.now() < end); } 1");
    let goes_on = async {
        let took = taken_over(&tabs, since).await;
        timely(took, 3000.0);
        scene.events(0..20).await;
        has(&tabs[0], &numbers(0..20)).await;
    };
    tokio::join!(hangs, goes_on);
    // It finds out, and follows: neither stopped, nor a second socket.
    hung.becomes("!window.holds").await;
    scene.events(20..30).await;
    for tab in [&tabs[0], &hung] {
        tab.becomes("titles.at(-1) === '29'").await;
        assert_eq!(
            tab.eval("new Set(titles).size === titles.length").await,
            true
        );
        tab.becomes(OPEN).await;
    }
    has(&tabs[0], &numbers(0..30)).await;
    scene.one_socket_is_open().await;
}

/// In another browser, say, with which nothing is shared.
#[tokio::test]
async fn tabs_that_are_replaced_stop_with_a_reason() {
    let Some(scene) = Scene::new().await else {
        return;
    };
    let tabs = [scene.tab("").await, scene.tab("").await];
    let _elsewhere = Client::join(&scene.gateway, "ann", "acme").await;
    for tab in &tabs {
        tab.becomes("client.getSnapshot().status.state === 'stopped'")
            .await;
        let status = tab.eval("client.getSnapshot().status").await;
        assert_eq!(status["code"], 4009, "{status}");
        assert_eq!(status["reason"], "replaced by a newer connection");
    }
    assert_eq!(scene.opened().await, 2.0);
    // Until somebody wants it back.
    tabs[0].eval("client.connect()").await;
    tabs[0].becomes(OPEN).await;
}

/// As in a page that came by plain http: each tab is for itself.
#[tokio::test]
async fn where_the_browser_shares_nothing_the_newest_tab_connects_and_the_other_says_why_it_does_not()
 {
    let Some(scene) = Scene::new().await else {
        return;
    };
    let first = scene.tab("&bare").await;
    scene.event("one").await;
    has(&first, &["one".to_owned()]).await;
    let second = scene.tab("&bare").await;
    first
        .becomes("client.getSnapshot().status.state === 'stopped'")
        .await;
    let status = first.eval("client.getSnapshot().status").await;
    assert_eq!(status["code"], 4009, "{status}");
    assert_eq!(status["reason"], "replaced by a newer connection");
    scene.event("two").await;
    has(&second, &["two".to_owned()]).await;
    assert_eq!(scene.opened().await, 2.0);
    // And back, where its user wants that.
    first.eval("client.connect()").await;
    first.becomes(OPEN).await;
    second
        .becomes("client.getSnapshot().status.code === 4009")
        .await;
    is_clean(&first).await;
}

/// Its application closed it, and knows what it has missed.
#[tokio::test]
async fn a_client_that_was_closed_begins_without_a_gap() {
    let Some(scene) = Scene::new().await else {
        return;
    };
    let tab = scene.tab("").await;
    scene.event("before").await;
    has(&tab, &["before".to_owned()]).await;
    tab.eval("client.close()").await;
    scene
        .gateway
        .metric_becomes("herald_connections", "", 0.0)
        .await;
    tab.eval("client.connect()").await;
    tab.becomes(OPEN).await;
    scene.event("after").await;
    has(&tab, &["before".to_owned(), "after".to_owned()]).await;
    assert_eq!(tab.eval("gaps").await, json!([]));
}
