//! Refusals as problem details (RFC 9457).

use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value;

use super::check::RefusedEvent;
use crate::codes::ProblemType;
use crate::event::Reason;

/// Why a request to publish, or an event of a batch, is refused. Nothing of a token is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishProblem {
    pub problem: ProblemType,
    detail: String,
    /// Of a bad event: the kind of its fault.
    reason: Option<Reason>,
    retry_after: Option<Duration>,
    /// Of a batch: what became of each event.
    events: Option<Value>,
}

impl PublishProblem {
    pub fn new(problem: ProblemType, detail: impl Into<String>) -> Self {
        Self {
            problem,
            detail: detail.into(),
            reason: None,
            retry_after: problem.retry_after(),
            events: None,
        }
    }

    /// It is known when the client may try again.
    #[must_use]
    pub(super) fn after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// It is one of a batch, of which this became of each event.
    #[must_use]
    pub(super) fn with_events(mut self, events: Value) -> Self {
        self.events = Some(events);
        self
    }

    /// A sentence for people.
    pub(super) fn detail(&self) -> &str {
        &self.detail
    }

    /// The problem details.
    pub fn details(&self) -> ProblemDetails<'_> {
        let Self { problem, .. } = self;
        ProblemDetails {
            type_uri: format!("urn:herald:problem:{}", problem.as_str()),
            title: problem.title(),
            status: problem.status(),
            detail: &self.detail,
            stored: match (&self.events, problem.may_be_stored()) {
                (Some(_), _) => "some",
                (None, true) => "unknown",
                (None, false) => "no",
            },
            reason: self.reason.map(Reason::as_str),
            events: self.events.as_ref(),
        }
    }
}

/// Problem details as they are written.
#[derive(Debug, Serialize)]
pub struct ProblemDetails<'a> {
    #[serde(rename = "type")]
    type_uri: String,
    title: &'static str,
    status: u16,
    detail: &'a str,
    /// Whether the event is stored: `no`, `unknown`, or `some` of a batch.
    stored: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
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
        let status = StatusCode::from_u16(self.problem.status());
        let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let kind = [(header::CONTENT_TYPE, "application/problem+json")];
        // Strings and numbers alone: it cannot fail.
        let details = serde_json::to_string(&self.details()).unwrap_or_default();
        let mut response = (status, kind, details).into_response();
        let headers = response.headers_mut();
        if let Some(after) = self.retry_after {
            let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        let challenge = match self.problem {
            // RFC 6750, section 3.
            ProblemType::NoToken => Some("Bearer realm=\"herald publishing\""),
            _ if status == StatusCode::UNAUTHORIZED => {
                Some("Bearer realm=\"herald publishing\", error=\"invalid_token\"")
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
