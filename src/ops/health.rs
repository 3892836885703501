//! Whether the process lives, and whether it should get new sockets.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use tokio::sync::SetOnce;

use crate::ingest::Link;

/// What `/readyz` looks at.
#[derive(Debug)]
pub(super) struct Health {
    /// Set when migrations are applied and rooms can open.
    link: SetOnce<Link>,
    draining: AtomicBool,
    unready_after: Duration,
}

impl Health {
    pub(super) fn new(unready_after: Duration) -> Self {
        Self {
            link: SetOnce::new(),
            draining: AtomicBool::new(false),
            unready_after,
        }
    }

    /// Migrations are applied and NATS is there.
    pub(super) fn opened(&self, link: Link) {
        // A gateway opens once.
        let _ = self.link.set(link);
    }

    /// Waits for [`Health::opened`].
    pub(super) async fn wait_opened(&self) {
        self.link.wait().await;
    }

    /// A drain has begun.
    pub(super) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// `None` if ready, else why not.
    fn unready(&self) -> Option<&'static str> {
        if self.draining.load(Ordering::Relaxed) {
            return Some("draining\n");
        }
        let Some(link) = self.link.get() else {
            return Some("waiting for NATS and its migrations\n");
        };
        let presence = link.presence();
        let away = !presence.connected && presence.since.elapsed() >= self.unready_after;
        away.then_some("NATS is away\n")
    }
}

/// `GET /healthz`: the process lives.
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// `GET /readyz`: 200 or 503 with the reason.
pub(super) async fn readyz(State(health): State<Arc<Health>>) -> (StatusCode, &'static str) {
    match health.unready() {
        None => (StatusCode::OK, "ready\n"),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, why),
    }
}
