//! Whether the process lives, and whether it should get new sockets.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::sync::SetOnce;

use crate::nats::{Connection, Readable};
use crate::setup::LiveSettings;

/// What `/readyz` looks at.
#[derive(Debug)]
pub(super) struct Health {
    /// Set when migrations are applied and rooms can open.
    opened: SetOnce<(Readable, Connection)>,
    /// What is waited for until then. A lock, held to read or write it.
    waits: Mutex<String>,
    draining: AtomicBool,
    live: LiveSettings,
}

impl Health {
    pub(super) fn new(live: LiveSettings) -> Self {
        Self {
            opened: SetOnce::new(),
            waits: Mutex::new("waiting for NATS and its migrations".to_owned()),
            draining: AtomicBool::new(false),
            live,
        }
    }

    /// Migrations are applied and NATS is there.
    pub(super) fn opened(&self, readable: Readable, nats: Connection) {
        // A gateway opens once.
        let _ = self.opened.set((readable, nats));
    }

    /// This is waited for before the gateway opens.
    pub(super) fn waits(&self, why: impl std::fmt::Display) {
        let mut waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner);
        *waits = format!("waiting for NATS and its migrations: {why}");
    }

    /// Waits for [`Health::opened`].
    pub(super) async fn wait_opened(&self) {
        self.opened.wait().await;
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
        let Some((readable, nats)) = self.opened.get() else {
            let waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner);
            return Some(waits.clone());
        };
        let trouble = readable.trouble(self.live.now().config.server.unready_after)?;
        Some(match nats.absence() {
            Some(cause) => format!("{trouble}: {cause}"),
            None => trouble,
        })
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
