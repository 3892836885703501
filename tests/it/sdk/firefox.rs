//! The main scenarios in Firefox: a plain page, tabs that share a socket, and a gateway that is killed.

use std::time::Duration;

use super::*;
use crate::support::firefox::Firefox;

#[tokio::test]
async fn tabs_of_firefox_share_a_socket_that_stays_alive() {
    let Some(firefox) = Firefox::start().await else {
        return;
    };
    let nats = Nats::jetstream().await;
    let site = Site::start().await;
    let gateway = Gateway::on(&nats).await;
    let publisher = Publisher::on(&nats).await;
    let event = async |title: &str| {
        let payload = json!({ "title": title });
        publisher.event("acme.custom.x", &payload).await;
    };
    let opened =
        async |gateway: &Gateway| gateway.metric("herald_connections_opened_total", "").await;
    let page = format!(
        "{}/plain.html?url=ws%3A%2F%2F{}%2F",
        site.origin(),
        gateway.address
    );

    let first = firefox.open(&page).await;
    first.becomes(OPEN).await;
    let second = firefox.open(&page).await;
    let third = firefox.open(&page).await;
    for tab in [&second, &third] {
        tab.becomes(OPEN).await;
    }
    for number in 0..20 {
        event(&number.to_string()).await;
    }
    for tab in [&first, &second, &third] {
        tab.becomes("titles.length === 20").await;
        assert_eq!(tab.eval("titles").await, json!(numbers(0..20)));
    }
    assert_eq!(opened(&gateway).await, 1.0);
    assert_eq!(first.eval("holds").await, true);

    // The holding tab closes.
    let since = now();
    first.close().await;
    let holds = format!("window.holds && openedAt > {since}");
    let taken = eventually(Duration::from_secs(30), async || {
        second.eval(&holds).await == true || third.eval(&holds).await == true
    });
    assert!(taken.await, "no tab took over");
    event("after the close").await;
    for tab in [&second, &third] {
        tab.becomes("titles.at(-1) === 'after the close'").await;
    }
    assert_eq!(opened(&gateway).await, 2.0);

    let port = gateway.port();
    let mut gateway = gateway;
    gateway.signal("KILL");
    gateway.ended().await;
    let again = Gateway::builder(&nats).set("server.listen", format!("127.0.0.1:{port}"));
    let gateway = again.ready().await;
    gateway.metric_becomes("herald_connections", "", 1.0).await;
    event("after the kill").await;
    for tab in [&second, &third] {
        tab.becomes("titles.at(-1) === 'after the kill'").await;
        assert_eq!(
            tab.eval("new Set(titles).size === titles.length").await,
            true
        );
        tab.becomes("gaps.length === 2").await;
        assert_eq!(tab.eval("errors").await, json!([]));
    }
    assert_eq!(opened(&gateway).await, 1.0);
}
