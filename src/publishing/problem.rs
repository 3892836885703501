//! Refusals as problem details (RFC 9457).

use std::time::Duration;

use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value;

use super::check::RefusedEvent;
use crate::codes::{ProblemDetails, ProblemType, whole_seconds};
use crate::event::Reason;

/// Why a request to publish, or an event of a batch, is refused. Nothing of a token is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishProblem {
    pub problem: ProblemType,
    detail: String,
    /// Of a bad event: the kind of its fault.
    reason: Option<Reason>,
    retry_after: Option<Duration>,
    /// How long the stream knows an Idempotency-Key, where that counts.
    deduplication: Option<Duration>,
    /// Of a batch.
    batch: Option<BatchOutcome>,
}

/// What became of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BatchOutcome {
    /// Of each event.
    pub(super) events: Value,
    /// `some` of it, `no`, or `unknown`.
    pub(super) stored: &'static str,
}

impl PublishProblem {
    pub fn new(problem: ProblemType, detail: impl Into<String>) -> Self {
        Self {
            problem,
            detail: detail.into(),
            reason: None,
            retry_after: problem.retry_after(),
            deduplication: None,
            batch: None,
        }
    }

    /// It is known when the client may try again.
    #[must_use]
    pub(super) fn after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// A second request with the same Idempotency-Key is safe for so long.
    #[must_use]
    pub(super) fn within(mut self, window: Duration) -> Self {
        self.deduplication = Some(window);
        self
    }

    /// It is one of a batch.
    #[must_use]
    pub(super) fn with_batch(mut self, batch: BatchOutcome) -> Self {
        self.batch = Some(batch);
        self
    }

    /// A sentence for people.
    pub(super) fn detail(&self) -> &str {
        &self.detail
    }

    /// The problem details.
    pub fn details(&self) -> ProblemDetails<'_, PublishMembers<'_>> {
        let Self { problem, .. } = self;
        let members = PublishMembers {
            stored: match &self.batch {
                Some(batch) => batch.stored,
                None if problem.may_be_stored() => "unknown",
                None => "no",
            },
            reason: self.reason.map(Reason::as_str),
            deduplication_seconds: self.deduplication.map(|window| window.as_secs()),
            events: self.batch.as_ref().map(|batch| &batch.events),
        };
        let (word, title) = (problem.as_str(), problem.title());
        ProblemDetails::new(word, title, problem.status(), &self.detail, members)
    }
}

/// What the problems of HTTP publishing have beyond RFC 9457.
#[derive(Debug, Serialize)]
pub struct PublishMembers<'a> {
    /// Whether the event is stored: `no`, `unknown`, or `some` of a batch.
    stored: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(
        rename = "deduplicationSeconds",
        skip_serializing_if = "Option::is_none"
    )]
    deduplication_seconds: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    events: Option<&'a Value>,
}

impl From<RefusedEvent> for PublishProblem {
    fn from(refused: RefusedEvent) -> Self {
        let problem = match refused.0.reason {
            Reason::TooLarge => ProblemType::TooLarge,
            _ => ProblemType::BadEvent,
        };
        Self {
            reason: Some(refused.0.reason),
            ..Self::new(problem, refused.to_string())
        }
    }
}

impl IntoResponse for PublishProblem {
    fn into_response(self) -> Response {
        let mut response = self.details().into_response();
        let headers = response.headers_mut();
        if let Some(after) = self.retry_after {
            headers.insert(header::RETRY_AFTER, whole_seconds(after));
        }
        let challenge = match self.problem {
            // RFC 6750, section 3.
            ProblemType::NoToken => Some("Bearer realm=\"herald publishing\""),
            problem if problem.status() == 401 => {
                Some("Bearer realm=\"herald publishing\", error=\"invalid_token\"")
            }
            ProblemType::NotGranted => {
                Some("Bearer realm=\"herald publishing\", error=\"insufficient_scope\"")
            }
            _ => None,
        };
        if let Some(challenge) = challenge {
            let challenge = HeaderValue::from_static(challenge);
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}
