//! Refusals as problem details (RFC 9457).

use std::time::Duration;

use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value;

use super::check::RefusedEvent;
use crate::codes::{ProblemDetails, ProblemType};
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
    pub fn details(&self) -> ProblemDetails<'_, PublishMembers<'_>> {
        let Self { problem, .. } = self;
        let members = PublishMembers {
            stored: match (&self.events, problem.may_be_stored()) {
                (Some(_), _) => "some",
                (None, true) => "unknown",
                (None, false) => "no",
            },
            reason: self.reason.map(Reason::as_str),
            events: self.events.as_ref(),
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
            let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        let challenge = match self.problem {
            // RFC 6750, section 3.
            ProblemType::NoToken => Some("Bearer realm=\"herald publishing\""),
            problem if problem.status() == 401 => {
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
