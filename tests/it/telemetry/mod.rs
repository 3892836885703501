//! What an operator sees of an event, a connection and the gateway itself: traces, metrics, logs,
//! exported to real receivers.

mod bad_context;
mod collector;
mod connection;
mod dead_collector;
mod logs;
mod metrics;
mod prometheus;
mod sampling;
mod trace;

use std::collections::BTreeSet;

/// The metrics of docs/observability.md: the first cells of its tables that are names.
fn documented() -> BTreeSet<String> {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/observability.md");
    let page = std::fs::read_to_string(page).expect("the page is there");
    page.lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(name, _)| name.to_owned())
        .filter(|name| {
            ["herald_", "process_", "otel_sdk_", "target_info"]
                .iter()
                .any(|prefix| name.starts_with(prefix))
        })
        .collect()
}
