//! Problems: the one table of why HTTP publishing refuses a request, or an event of a batch (RFC 9457). It has the
//! status, the title, and when the client may try again. [`ProblemDetails`] is how a problem is written, here and at
//! the console.

use std::time::Duration;

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::word_enum::word_enum;

/// Problem details as they are written (RFC 9457, section 3), with `more` members.
#[derive(Debug, Serialize)]
pub struct ProblemDetails<'a, M> {
    /// `urn:herald:problem:<word>`.
    #[serde(rename = "type")]
    type_uri: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    #[serde(flatten)]
    more: M,
}

impl<'a, M: Serialize> ProblemDetails<'a, M> {
    /// `detail` is a sentence for people.
    pub(crate) fn new(word: &str, title: &'a str, status: u16, detail: &'a str, more: M) -> Self {
        Self {
            type_uri: format!("urn:herald:problem:{word}"),
            title,
            status,
            detail,
            more,
        }
    }
}

impl<M: Serialize> IntoResponse for ProblemDetails<'_, M> {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status);
        let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let kind = [(header::CONTENT_TYPE, "application/problem+json")];
        // Strings and numbers alone: it cannot fail.
        let body = serde_json::to_string(&self).unwrap_or_default();
        (status, kind, body).into_response()
    }
}

word_enum! {
    /// What is wrong with a request to publish. The word ends its `type`, `urn:herald:problem:<word>`, and is stable
    /// across versions.
    pub enum ProblemType {
        /// The body or a header cannot be read.
        Malformed = "malformed",
        /// A token in a URL is in logs and histories: it is refused, whatever it is.
        TokenInUrl = "token-in-url",
        IdempotencyKey = "idempotency-key",
        NoToken = "no-token",
        BadToken = "bad-token",
        ExpiredToken = "expired-token",
        RevokedToken = "revoked-token",
        /// The token does not grant the workspace or the category.
        NotGranted = "not-granted",
        /// A browser says that a page of another origin makes the request.
        Origin = "origin",
        UnknownPath = "unknown-path",
        Method = "method",
        /// The body did not come in time.
        SlowBody = "slow-body",
        TooLarge = "too-large",
        MediaType = "media-type",
        /// No gateway would make a notification of the event.
        BadEvent = "bad-event",
        /// Some events of a batch are refused.
        Batch = "batch",
        Rate = "rate",
        Concurrency = "concurrency",
        /// The token becomes valid soon, or its key is being fetched.
        TokenNotYet = "token-not-yet",
        /// There is no connection to NATS yet, or none now.
        Starting = "starting",
        Draining = "draining",
        /// No stream takes the event.
        NoStream = "no-stream",
        /// The stream, or the account, has no room.
        Full = "full",
        /// NATS refused the event for a reason of its own.
        Refused = "refused",
        /// The event was sent, and no acknowledgement came.
        NotAcknowledged = "not-acknowledged",
        /// Another copy with the same key is being stored.
        InProcess = "in-process",
        /// Some events of a batch may be stored, or can be sent again.
        BatchUnsure = "batch-unsure",
    }
}

impl ProblemType {
    /// The HTTP status.
    pub const fn status(self) -> u16 {
        match self {
            Self::Malformed | Self::TokenInUrl | Self::IdempotencyKey => 400,
            Self::NoToken | Self::BadToken | Self::ExpiredToken | Self::RevokedToken => 401,
            Self::NotGranted | Self::Origin => 403,
            Self::UnknownPath => 404,
            Self::Method => 405,
            Self::SlowBody => 408,
            Self::TooLarge => 413,
            Self::MediaType => 415,
            Self::BadEvent | Self::Batch => 422,
            Self::Rate | Self::Concurrency => 429,
            Self::TokenNotYet
            | Self::Starting
            | Self::Draining
            | Self::NoStream
            | Self::Full
            | Self::Refused
            | Self::NotAcknowledged
            | Self::InProcess
            | Self::BatchUnsure => 503,
        }
    }

    /// The same for every problem of this type (RFC 9457, section 3.1.3).
    pub const fn title(self) -> &'static str {
        match self {
            Self::Malformed => "The request cannot be read",
            Self::TokenInUrl => "A token does not belong in a URL",
            Self::IdempotencyKey => "The Idempotency-Key is not right",
            Self::NoToken => "There is no token",
            Self::BadToken => "The token is not one for publishing here",
            Self::ExpiredToken => "The token is expired",
            Self::RevokedToken => "The token is revoked",
            Self::NotGranted => "The token does not grant this",
            Self::Origin => "Another site's page cannot publish",
            Self::UnknownPath => "There is nothing at this path",
            Self::Method => "The method is not one of this path",
            Self::SlowBody => "The body did not come in time",
            Self::TooLarge => "The request is too large",
            Self::MediaType => "The media type is not taken",
            Self::BadEvent => "A gateway would refuse this event",
            Self::Batch => "Some events are refused",
            Self::Rate => "Too many events",
            Self::Concurrency => "Too many requests at once",
            Self::TokenNotYet => "The token is not valid yet",
            Self::Starting => "NATS is away",
            Self::Draining => "The gateway is restarting",
            Self::NoStream => "No stream takes this event",
            Self::Full => "There is no room for the event",
            Self::Refused => "NATS refused the event",
            Self::NotAcknowledged => "NATS did not acknowledge the event",
            Self::InProcess => "Another copy of the event is in process",
            Self::BatchUnsure => "Some events are not stored, or nobody knows",
        }
    }

    /// When the client may try again, if nothing better is known.
    pub const fn retry_after(self) -> Option<Duration> {
        match self {
            Self::Rate => Some(Duration::from_secs(1)),
            // The operator has to do something.
            Self::Full | Self::NoStream | Self::Refused => Some(Duration::from_secs(30)),
            _ if self.status() == 503 || self.status() == 429 => Some(Duration::from_secs(2)),
            _ => None,
        }
    }

    /// Whether the event may be stored all the same.
    pub const fn may_be_stored(self) -> bool {
        matches!(
            self,
            Self::NotAcknowledged | Self::InProcess | Self::BatchUnsure
        )
    }
}
