//! What the admin listener serves beside health: `/metrics`, the log level and the contract as schemas.
//! What changes something needs the [`guard`].

mod guard;
mod schemas;

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::sync::{mpsc, oneshot};
use tracing::error;

use crate::setup::LiveSettings;
use crate::telemetry::{FILTER_BYTES_MAX, Format, LevelError, LogLevel, Metrics, Telemetry};

/// The routes that show something and need nothing else: `/metrics` and `/schemas`.
pub(super) fn readable(telemetry: &Telemetry) -> Router {
    Router::new()
        .route("/metrics", get(exposition))
        .with_state(Scrapes::start(Arc::clone(telemetry.metrics())))
        .merge(schemas::router())
}

/// All routes: `readable`, the log level, and `more` that change nothing.
pub(super) fn router(
    telemetry: &Telemetry,
    live: &LiveSettings,
    readable: Router,
    more: Router,
) -> Router {
    let level = get(level).put(set_level).delete(reset_level);
    Router::new()
        .route("/log-level", level)
        .layer(DefaultBodyLimit::max(FILTER_BYTES_MAX))
        .with_state(telemetry.level().clone())
        .merge(readable)
        .merge(more)
        .layer(from_fn_with_state(live.clone(), guard::guard))
}

/// One renderer for all scrapes: those that wait share what is rendered next, so that a storm of them
/// costs no more than a few. Cheap to clone.
#[derive(Debug, Clone)]
struct Scrapes {
    /// The other end is the renderer's task. A waiting scrape is a connection, and these are bounded by
    /// the process' files.
    requests: mpsc::UnboundedSender<ScrapeRequest>,
}

type ScrapeRequest = (Format, oneshot::Sender<Option<Bytes>>);

impl Scrapes {
    fn start(metrics: Arc<Metrics>) -> Self {
        let (requests, inbox) = mpsc::unbounded_channel();
        tokio::spawn(render(metrics, inbox));
        Self { requests }
    }

    /// The exposition, begun after this call.
    async fn scrape(&self, format: Format) -> Option<Bytes> {
        let (sender, answer) = oneshot::channel();
        self.requests.send((format, sender)).ok()?;
        answer.await.ok()?
    }
}

async fn render(metrics: Arc<Metrics>, mut inbox: mpsc::UnboundedReceiver<ScrapeRequest>) {
    while let Some(first) = inbox.recv().await {
        let mut requested = vec![first];
        while let Ok(more) = inbox.try_recv() {
            requested.push(more);
        }
        for format in [Format::Text, Format::OpenMetrics] {
            let waiting = requested.extract_if(.., |(wanted, _)| *wanted == format);
            let waiting: Vec<ScrapeRequest> = waiting.collect();
            if waiting.is_empty() {
                continue;
            }
            let metrics = Arc::clone(&metrics);
            // It reads files, and takes longer than a socket should wait for its thread.
            let rendered = tokio::task::spawn_blocking(move || metrics.render(format)).await;
            let text = match rendered {
                Ok(Ok(text)) => Some(Bytes::from(text)),
                Ok(Err(error)) => {
                    error!(%error, "metrics cannot be rendered");
                    None
                }
                Err(error) => {
                    error!(%error, "metrics cannot be rendered");
                    None
                }
            };
            for (_, answer) in waiting {
                // A scrape that gave up meanwhile does not want it any more.
                let _ = answer.send(text.clone());
            }
        }
    }
}

/// `GET /metrics`.
async fn exposition(State(scrapes): State<Scrapes>, headers: HeaderMap) -> Response {
    let accept = headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let format = Format::accepted(accept);
    match scrapes.scrape(format).await {
        Some(text) => ([(header::CONTENT_TYPE, format.content_type())], text).into_response(),
        None => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// `GET /log-level`: the filter that holds.
async fn level(State(level): State<LogLevel>) -> String {
    level.current() + "\n"
}

/// `PUT /log-level`: another filter, until the next start.
async fn set_level(State(level): State<LogLevel>, body: String) -> Response {
    answer(&level, level.set(&body))
}

/// `DELETE /log-level`: the configured one.
async fn reset_level(State(level): State<LogLevel>) -> Response {
    answer(&level, level.reset())
}

fn answer(level: &LogLevel, result: Result<(), LevelError>) -> Response {
    match result {
        Ok(()) => (StatusCode::OK, level.current() + "\n").into_response(),
        Err(error @ LevelError::Filter(_)) => {
            (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response()
        }
        Err(error @ LevelError::Fixed) => {
            (StatusCode::CONFLICT, format!("{error}\n")).into_response()
        }
    }
}
