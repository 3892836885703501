//! What a handshake offers that cannot be had is refused before it costs anything: above all not the
//! socket that its user has open.

use futures_util::future::join_all;

use crate::support::attempt::{Attempt, connect, local, send};
use crate::support::client::Client;
use crate::support::gateway::Gateway;
use crate::support::nats::Nats;
use crate::support::raw::handshake;
use crate::support::token::token;

/// An attempt of `user` with these lines of `Sec-WebSocket-Protocol`.
async fn offering(gateway: &Gateway, user: &str, lines: &[&str]) -> Attempt {
    let name = "Sec-WebSocket-Protocol";
    let headers: Vec<_> = lines.iter().map(|line| (name, *line)).collect();
    let stream = connect(gateway, local(1)).await;
    send(stream, &handshake(user, "acme"), &headers).await
}

/// A browser takes a 101 that selects none of its subprotocols for a failure. Then the tab that was open
/// had been closed with 4009 for nothing.
#[tokio::test]
async fn an_offer_that_cannot_succeed_is_told_what_to_offer_and_costs_no_open_tab() {
    let nats = Nats::jetstream().await;
    let gateway = Gateway::on(&nats).await;
    let mut tab = Client::join(&gateway, "ann", "acme").await;
    let carrier = format!("bearer.{}", token("ann", "acme"));
    let offers: [&[&str]; 9] = [
        &[&carrier],
        &["graphql-ws"],
        &["graphql-ws, graphql-transport-ws", &carrier],
        &["Herald.V1", &carrier],
        &["herald.v1.x"],
        &["herald.v1 graphql-ws"],
        &["herald.v1;q=1"],
        &["bearer.herald.v1"],
        &["h\u{e9}rald.v1"],
    ];
    let refused = join_all(offers.map(|lines| offering(&gateway, "ann", lines))).await;
    for (lines, attempt) in offers.iter().zip(&refused) {
        assert_eq!(attempt.status, 400, "{lines:?}: {attempt:?}");
        let says = attempt.body.contains("herald.v1 beside bearer.<token>");
        assert!(says, "{attempt:?}");
        assert_eq!(attempt.retry_after(), None, "it would fail again");
    }
    assert!(tab.is_open().await, "the open tab was closed");
    let count = gateway
        .metric("herald_connections_refused_total", "\"subprotocol\"")
        .await;
    assert_eq!(count, offers.len() as f64);
    // No token was looked at but the tab's own.
    let checks = gateway.metric("herald_token_checks_total", "join").await;
    assert_eq!(checks, 1.0);
}

#[tokio::test]
async fn ours_is_selected_wherever_it_stands_and_an_empty_offer_is_none() {
    let nats = Nats::jetstream().await;
    let gateway = Gateway::on(&nats).await;
    let bob = format!("bearer.{}", token("bob", "acme"));
    let ours = Some("herald.v1");
    let newest = Some("herald.v2");
    let cases: [(&[&str], Option<&str>); 10] = [
        (&[], None),
        (&[""], None),
        (&[" , "], None),
        (&["herald.v1"], ours),
        (&[&bob, "graphql-ws", "herald.v1"], ours),
        (&[",herald.v1\t, ,graphql-ws"], ours),
        (&["h\u{e9}rald.v2, herald.v1"], ours),
        (&["herald.v2"], newest),
        (&["herald.v1, herald.v2", &bob], newest),
        (&["herald.v2, herald.v1", &bob], newest),
    ];
    for (lines, selected) in cases {
        let attempt = offering(&gateway, "bob", lines).await;
        assert_eq!(attempt.status, 101, "{lines:?}: {attempt:?}");
        let header = attempt.header("sec-websocket-protocol");
        assert_eq!(header, selected, "{lines:?}");
    }
}

/// Its body would swallow the first frames; and HTTP/1.0 has no upgrade.
#[tokio::test]
async fn a_handshake_that_cannot_be_one_costs_no_open_tab_either() {
    let nats = Nats::jetstream().await;
    let gateway = Gateway::on(&nats).await;
    let mut tab = Client::join(&gateway, "ann", "acme").await;
    let request = handshake("ann", "acme");
    let sized = request.replace("Host: x", "Host: x\r\nContent-Length: 5") + "hello";
    let unsent = request.replace("Host: x", "Host: x\r\nContent-Length: 5");
    let chunked = request.replace("Host: x", "Host: x\r\nTransfer-Encoding: chunked");
    let old = request.replace("HTTP/1.1", "HTTP/1.0");
    let key = request.replace("dGhl", "dGh");
    let version = request.replace("Version: 13", "Version: 8");
    for (request, status) in [
        (&sized, 400),
        (&unsent, 400),
        (&chunked, 400),
        (&key, 400),
        (&old, 426),
        (&version, 426),
    ] {
        let attempt = send(connect(&gateway, local(1)).await, request, &[]).await;
        assert_eq!(attempt.status, status, "{request}");
    }
    assert!(tab.is_open().await, "the open tab was closed");
    // An empty body is none.
    let empty = handshake("bob", "acme").replace("Host: x", "Host: x\r\nContent-Length: 0");
    let attempt = send(connect(&gateway, local(1)).await, &empty, &[]).await;
    assert_eq!(attempt.status, 101);
}
