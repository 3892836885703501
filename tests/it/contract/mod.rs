//! The contract's own clients, as they are written there: only the host is another, and the token a
//! real one. They see notifications of every category, and the close codes that the contract names.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::contract::CONTRACT;
use crate::support::token::{expiring, token};

mod browser;
mod manager;
mod react;
mod websocket;

/// The workspace that the snippets name.
const WORKSPACE: &str = "my-workspace";

/// What the snippets print once they are connected.
const OPEN: &str = "Connected to notifications";

/// One event of each category, as `[event, payload]`.
fn one_of_each_category() -> Value {
    json!([
        ["my-workspace.record.created", { "collection": "orders", "recordId": "r1" }],
        ["my-workspace.function.completed", { "function": "sync", "executionId": "e1", "durationMs": 7 }],
        ["my-workspace.system.maintenance", {}],
        ["my-workspace.custom.order_shipped", {
            "title": "Order shipped", "message": "Order #12345 is on its way.", "type": "success"
        }],
    ])
}

/// What becomes of them: event, type, title, message.
const NOTIFICATIONS: [[&str; 4]; 4] = [
    [
        "record.created",
        "info",
        "Record created",
        "Record r1 was created in orders.",
    ],
    [
        "function.completed",
        "success",
        "Function completed",
        "sync completed in 7 ms.",
    ],
    [
        "system.maintenance",
        "alert",
        "Scheduled maintenance",
        "Maintenance is planned for my-workspace.",
    ],
    [
        "custom.order_shipped",
        "success",
        "Order shipped",
        "Order #12345 is on its way.",
    ],
];

/// Asserts that `notification` is the contract's `Notification` and says this.
fn assert_notification(notification: &Value, expected: [&str; 4]) {
    let [event, kind, title, message] = expected;
    assert_eq!(notification["metadata"]["event"], event, "{notification}");
    assert_eq!(notification["type"], kind, "{notification}");
    assert_eq!(notification["title"], title, "{notification}");
    assert_eq!(notification["message"], message, "{notification}");
    assert_eq!(notification["read"], false, "{notification}");
    let id = notification["id"].as_str().unwrap_or_default();
    assert!(id.starts_with("notif_"), "{notification}");
    let timestamp = notification["timestamp"].as_str().unwrap_or_default();
    assert!(
        chrono::DateTime::parse_from_rfc3339(timestamp).is_ok(),
        "{notification}"
    );
    let fields: Vec<&String> = notification
        .as_object()
        .expect("an object")
        .keys()
        .collect();
    assert_eq!(fields.len(), 7, "{notification}");
}

/// The tokens and workspaces that are refused, with what the client is told.
fn refusals() -> [(String, &'static str, (u64, &'static str)); 5] {
    let good = token("ann", WORKSPACE);
    [
        ("garbage".to_owned(), WORKSPACE, (4001, "invalid token")),
        (String::new(), WORKSPACE, (4001, "missing token")),
        (good.clone(), "", (4002, "missing workspaceSlug")),
        (good, "My Workspace", (4002, "malformed workspaceSlug")),
        (
            expiring("ann", WORKSPACE, -1),
            WORKSPACE,
            (4003, "token expired"),
        ),
    ]
}

#[test]
fn the_contract_is_the_published_text() {
    let hash = Sha256::digest(CONTRACT);
    let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        hash,
        "b5a42d47f2803f1d8bdf5de1cda09c90a4dd1a781d274ff25bc4fe8ddcc0db03"
    );
}
