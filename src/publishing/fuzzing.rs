//! What the fuzz targets reach of HTTP publishing: how a request is read, up to what is sent to NATS.

use async_nats::HeaderMap as NatsHeaders;
use axum::http::request::Parts;
use bytes::Bytes;

use super::guard;
use super::problem::PublishProblem;
use super::request::{self, EventTarget, PublishMode};

/// What a request is read as.
#[derive(Debug)]
pub struct ReadRequest {
    /// As the subject has it.
    pub workspace: String,
    /// `category.name`.
    pub event: String,
    /// The Idempotency-Key.
    pub key: Option<String>,
    /// Of each event on NATS.
    pub headers: NatsHeaders,
    /// Of a batch those of its elements, otherwise the body.
    pub payloads: Vec<Bytes>,
}

/// Reads a request.
///
/// # Errors
/// What the client would be told.
pub fn read(parts: &Parts, body: &Bytes) -> Result<ReadRequest, PublishProblem> {
    guard::check_head(parts)?;
    guard::check_origin(&parts.headers)?;
    let target = EventTarget::parse(parts.uri.path())?;
    let mode = request::mode(&parts.headers)?;
    let key = request::idempotency_key(&parts.headers)?.map(str::to_owned);
    let headers = request::nats_headers(mode, &parts.headers)?;
    let payloads = match mode {
        PublishMode::Batch => {
            let elements = request::batch(body)?;
            elements.into_iter().map(|it| it.payload).collect()
        }
        _ => vec![body.clone()],
    };
    Ok(ReadRequest {
        workspace: target.workspace.to_string(),
        event: target.event.to_string(),
        key,
        headers,
        payloads,
    })
}
