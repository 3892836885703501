//! Whether the process lives, and whether it should get new sockets.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use tokio::sync::SetOnce;

use crate::ingest::Readable;

/// What `/readyz` looks at.
#[derive(Debug)]
pub(super) struct Health {
    /// Set when migrations are applied and rooms can open.
    readable: SetOnce<Readable>,
    draining: AtomicBool,
    unready_after: Duration,
}

impl Health {
    pub(super) fn new(unready_after: Duration) -> Self {
        Self {
            readable: SetOnce::new(),
            draining: AtomicBool::new(false),
            unready_after,
        }
    }

    /// Migrations are applied and NATS is there.
    pub(super) fn opened(&self, readable: Readable) {
        // A gateway opens once.
        let _ = self.readable.set(readable);
    }

    /// Waits for [`Health::opened`].
    pub(super) async fn wait_opened(&self) {
        self.readable.wait().await;
    }

    /// A drain has begun.
    pub(super) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// `None` if ready, else why not.
    fn unready(&self) -> Option<String> {
        if self.draining.load(Ordering::Relaxed) {
            return Some("draining".to_owned());
        }
        let Some(readable) = self.readable.get() else {
            return Some("waiting for NATS and its migrations".to_owned());
        };
        readable.trouble(self.unready_after)
    }
}

/// `GET /healthz`: the process lives.
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// `GET /readyz`: 200 or 503 with the reason.
pub(super) async fn readyz(State(health): State<Arc<Health>>) -> (StatusCode, String) {
    match health.unready() {
        None => (StatusCode::OK, "ready\n".to_owned()),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, why + "\n"),
    }
}
