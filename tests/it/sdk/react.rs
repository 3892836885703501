//! `herald-client/react` with the real React in a browser: one socket, whatever React does.

use super::*;

const CONNECTED: &str = "document.querySelector('#two [role=status]')?.textContent === 'Connected'";

#[tokio::test]
async fn the_hook_has_one_socket_in_strict_mode_and_after_server_rendering() {
    let Some(scene) = Scene::new().await else {
        return;
    };
    for (round, query) in ["", "&hydrate"].into_iter().enumerate() {
        let tab = scene.page("react", query).await;
        tab.becomes(CONNECTED).await;
        assert!(
            tab.eval("rendered")
                .await
                .to_string()
                .contains("Disconnected")
        );
        scene.event("one").await;
        scene.event("two").await;
        for panel in ["one", "two"] {
            let items = format!("document.querySelector('#{panel} ul').innerText");
            tab.becomes(&format!("{items} === 'two\\none'")).await;
            let unread = format!("document.querySelector('#{panel} .unread').textContent");
            assert_eq!(tab.eval(&unread).await, "2");
        }
        tab.eval("document.querySelector('#one .read').click()")
            .await;
        tab.becomes("document.querySelector('#two .unread').textContent === '1'")
            .await;
        tab.eval("document.querySelector('#one .clear').click()")
            .await;
        tab.becomes("document.querySelector('#two ul').innerText === ''")
            .await;
        // A newer token goes over the open socket; none at all ends it.
        let fresh = "fetch('/token?user=ann&lives=7200').then((r) => r.text()).then(setToken)";
        tab.eval(fresh).await;
        tab.becomes(CONNECTED).await;
        scene.one_socket_is_open().await;
        assert_eq!(scene.opened().await, 1.0 + round as f64);
        tab.eval("setToken(null)").await;
        scene
            .gateway
            .metric_becomes("herald_connections", "", 0.0)
            .await;
        tab.becomes("document.querySelector('#one .state').textContent === 'idle'")
            .await;
        is_clean(&tab).await;
        tab.close().await;
    }
}
