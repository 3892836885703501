//! Whether the process lives, and whether it should get new sockets.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::sync::SetOnce;

use super::Live;
use crate::ingest::Readable;

/// What `/readyz` looks at.
#[derive(Debug)]
pub(super) struct Health {
    /// Set when migrations are applied and rooms can open.
    readable: SetOnce<Readable>,
    draining: AtomicBool,
    live: Live,
}

impl Health {
    pub(super) fn new(live: Live) -> Self {
        Self {
            readable: SetOnce::new(),
            draining: AtomicBool::new(false),
            live,
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

    /// Whether a drain has begun.
    pub(super) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// `None` if ready, else why not.
    fn unready(&self) -> Option<String> {
        if self.is_draining() {
            return Some("draining".to_owned());
        }
        let Some(readable) = self.readable.get() else {
            return Some("waiting for NATS and its migrations".to_owned());
        };
        readable.trouble(self.live.now().config.server.unready_after)
    }
}

/// The routes, for both listeners.
pub(super) fn router(health: &Arc<Health>) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(Arc::clone(health))
}

/// `GET /healthz`: the process lives.
async fn healthz() -> &'static str {
    "ok\n"
}

/// `GET /readyz`: 200 or 503 with the reason.
async fn readyz(State(health): State<Arc<Health>>) -> (StatusCode, String) {
    match health.unready() {
        None => (StatusCode::OK, "ready\n".to_owned()),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, why + "\n"),
    }
}
