//! Whether the process lives, and whether it should get new sockets.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use serde::{Deserialize, Serialize};
use tokio::sync::SetOnce;

use crate::migrate::{MigrationState, Status};
use crate::nats::{Connection, Readable};
use crate::setup::LiveSettings;

/// What `/readyz` looks at.
#[derive(Debug)]
pub(super) struct Health {
    /// Set when migrations are applied and rooms can open.
    opened: SetOnce<(Readable, Connection)>,
    /// What is waited for until then. A lock, held to read or write it.
    waits: Mutex<String>,
    /// A lock for a moment, as the one above.
    migrations: Mutex<MigrationsReport>,
    draining: AtomicBool,
    live: LiveSettings,
}

/// How the migrations stood when the gateway last looked: until it opened.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct MigrationsReport {
    /// The last one that is applied.
    pub(crate) last: Option<String>,
    pub(crate) pending: Vec<String>,
}

impl Health {
    pub(super) fn new(live: LiveSettings) -> Self {
        Self {
            opened: SetOnce::new(),
            waits: Mutex::new("waiting for NATS and its migrations".to_owned()),
            migrations: Mutex::default(),
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
        self.waits_for(format!("NATS and its migrations: {why}"));
    }

    /// `what` is waited for before the gateway opens.
    pub(super) fn waits_for(&self, what: impl std::fmt::Display) {
        let mut waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner);
        *waits = format!("waiting for {what}");
    }

    /// The migrations were looked at.
    pub(super) fn migrations_are(&self, status: &Status) {
        let is_applied = |state| matches!(state, MigrationState::Applied | MigrationState::Unknown);
        let mut newest_first = status.migrations.iter().rev();
        let last = newest_first.find(|entry| is_applied(entry.state));
        let report = MigrationsReport {
            last: last.map(|entry| entry.name.clone()),
            pending: status.pending().map(str::to_owned).collect(),
        };
        *self
            .migrations
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = report;
    }

    pub(super) fn migrations(&self) -> MigrationsReport {
        let report = self.migrations.lock();
        report.unwrap_or_else(PoisonError::into_inner).clone()
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
    pub(super) fn unready(&self) -> Option<String> {
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
