//! The traces of a command that publishes or receives, and what a user reads of them.

use crate::telemetry::CommandTraces;

/// Starts them for the command `name`.
pub(super) fn start(name: &'static str) -> CommandTraces {
    let traces = CommandTraces::start(name);
    super::output::messages(traces.warnings());
    traces
}

/// Exports what waits. A command does not fail because of its traces.
pub(super) async fn end(traces: &CommandTraces) {
    if let Err(error) = traces.end().await {
        eprintln!("herald: the last spans are not exported: {error}");
    }
}
