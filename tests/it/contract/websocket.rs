//! The snippets "Native WebSocket" and "Using with a WebSocket Library" (`ws`).

use serde_json::json;

use super::{NOTIFICATIONS, OPEN, WORKSPACE, assert_notification, one_of_each_category, refusals};
use crate::support::contract::Snippet;
use crate::support::stage::Stage;
use crate::support::token::token;

#[tokio::test]
async fn the_native_websocket_snippet_receives_every_category() {
    let stage = Stage::new().await;
    let snippet = Snippet::Native.for_gateway(stage.gateway.port(), &token("ann", WORKSPACE));
    let mut client = stage.run(&snippet, &[]);
    client.console(OPEN).await;
    stage.publish(&one_of_each_category()).await;
    for expected in NOTIFICATIONS {
        let printed = client.console("Received notification:").await;
        assert_notification(&printed[1], expected);
    }
    // And nothing else.
    assert_eq!(client.count("Received notification:"), NOTIFICATIONS.len());
}

#[tokio::test]
async fn the_native_websocket_snippet_sees_why_it_is_refused() {
    let stage = Stage::new().await;
    for (token, slug, (code, reason)) in refusals() {
        let snippet = Snippet::Native
            .for_gateway(stage.gateway.port(), &token)
            .in_workspace(slug);
        let mut client = stage.run(&snippet, &[]);
        assert_eq!(client.closed().await, (code, reason.to_owned()));
        let printed = client.console("Disconnected from notifications").await;
        assert_eq!(printed[1..], [json!(code), json!(reason)]);
        match code {
            4001 => drop(client.console("Authentication failed").await),
            4003 => drop(client.console("Token expired — obtain a new token").await),
            _ => {}
        }
        assert!(client.ended().await);
        assert_eq!(client.count("WebSocket error:"), 0, "{}", client.told());
    }
}

#[tokio::test]
async fn the_ws_library_snippet_receives_every_category() {
    let stage = Stage::new().await;
    let snippet = Snippet::Library.for_gateway(stage.gateway.port(), &token("ann", WORKSPACE));
    let mut client = stage.run(&snippet, &[]);
    client.console("Connected to Centrali notifications").await;
    stage.publish(&one_of_each_category()).await;
    for expected in NOTIFICATIONS {
        let printed = client.console("Notification:").await;
        assert_notification(&printed[1], expected);
        // Its own handler, which knows an alert by its type.
        let (prefix, message) = match expected {
            [_, "alert", _, message] => ("Alert:", message),
            [_, _, _, message] => ("Notification:", message),
        };
        assert_eq!(client.console(prefix).await[1], message);
    }
    // And nothing else: each was printed, and again by its handler but for the alert.
    assert_eq!(client.count("Notification:"), 2 * NOTIFICATIONS.len() - 1);
}

#[tokio::test]
async fn the_ws_library_snippet_switches_on_the_type_where_the_type_is_the_event() {
    let stage = Stage::with(|gateway| gateway.set("projection.type", "event")).await;
    let snippet = Snippet::Library.for_gateway(stage.gateway.port(), &token("ann", WORKSPACE));
    let mut client = stage.run(&snippet, &[]);
    client.console("Connected to Centrali notifications").await;
    stage
        .publish(&json!([
            ["my-workspace.record.created", {}],
            ["my-workspace.function.completed", {}],
            ["my-workspace.custom.alert", { "message": "The disk is full." }],
            ["my-workspace.record.deleted", { "recordId": "r1" }],
        ]))
        .await;
    assert_eq!(
        client.console("Notification:").await[1]["type"],
        "record_created"
    );
    client.console("New record created").await;
    assert_eq!(
        client.console("Notification:").await[1]["type"],
        "function_complete"
    );
    client.console("Function execution complete").await;
    assert_eq!(client.console("Notification:").await[1]["type"], "alert");
    assert_eq!(client.console("Alert:").await[1], "The disk is full.");
    assert_eq!(
        client.console("Notification:").await[1]["type"],
        "record_deleted"
    );
    assert_eq!(
        client.console("Notification:").await[1],
        "Record r1 was deleted."
    );
}

#[tokio::test]
async fn the_ws_library_snippet_sees_why_it_is_refused() {
    let stage = Stage::new().await;
    for (token, slug, (code, reason)) in refusals() {
        let snippet = Snippet::Library
            .for_gateway(stage.gateway.port(), &token)
            .in_workspace(slug);
        let mut client = stage.run(&snippet, &[]);
        client
            .console(&format!("Connection closed: {code} - {reason}"))
            .await;
        assert!(client.ended().await);
        assert_eq!(client.count("WebSocket error:"), 0, "{}", client.told());
    }
}
