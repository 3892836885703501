//! Why a request is not answered with a socket that stays open, from whatever refused it.

use std::fmt;
use std::time::Duration;

use axum::response::{IntoResponse, Response};

use crate::admission::Over;
use crate::auth::AuthError;
use crate::codes::{CloseReason, HttpRefusal};
use crate::room::{Flapping, JoinError};

#[derive(Debug)]
pub(super) enum Refusal {
    /// Upgraded and closed with its code.
    Close(CloseReason),
    /// An HTTP error before the upgrade.
    Http(HttpAnswer),
}

/// A row of the table of refusals, and what only the moment knows.
#[derive(Debug)]
pub(super) struct HttpAnswer {
    pub(super) reason: HttpRefusal,
    /// Instead of the table's.
    text: Option<String>,
    retry_after: Option<Duration>,
}

impl Refusal {
    /// A stream cannot be read; `cause` says which and why.
    pub(super) fn unreadable(cause: &impl fmt::Display) -> Self {
        Self::Http(HttpAnswer {
            text: Some(cause.to_string()),
            ..HttpAnswer::from(HttpRefusal::Nats)
        })
    }

    /// The client may try again after this time.
    pub(super) fn later(reason: HttpRefusal, retry_after: Duration) -> Self {
        Self::Http(HttpAnswer {
            retry_after: Some(retry_after),
            ..HttpAnswer::from(reason)
        })
    }
}

impl From<HttpRefusal> for HttpAnswer {
    fn from(reason: HttpRefusal) -> Self {
        Self {
            reason,
            text: None,
            retry_after: reason.retry_after(),
        }
    }
}

impl From<HttpRefusal> for Refusal {
    fn from(reason: HttpRefusal) -> Self {
        Self::Http(reason.into())
    }
}

impl From<CloseReason> for Refusal {
    fn from(reason: CloseReason) -> Self {
        Self::Close(reason)
    }
}

impl From<AuthError> for Refusal {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::NotYet(ahead) => Self::later(HttpRefusal::TokenNotYet, ahead),
            error => Self::Close(error.into()),
        }
    }
}

impl From<Over> for Refusal {
    fn from(over: Over) -> Self {
        match over {
            Over::All => HttpRefusal::Rate.into(),
            Over::Address => HttpRefusal::AddressRate.into(),
            Over::Workspace => HttpRefusal::WorkspaceRate.into(),
        }
    }
}

impl From<JoinError> for Refusal {
    fn from(error: JoinError) -> Self {
        match error {
            JoinError::Unavailable(None) => HttpRefusal::Nats.into(),
            JoinError::Unavailable(Some(cause)) => Self::unreadable(&cause),
            JoinError::Full => HttpRefusal::SessionsFull.into(),
            JoinError::AccountFull => HttpRefusal::AccountFull.into(),
            JoinError::Flapping(Flapping { retry_after }) => {
                Self::later(HttpRefusal::Flapping, retry_after)
            }
        }
    }
}

impl IntoResponse for HttpAnswer {
    fn into_response(self) -> Response {
        let text = self.text.as_deref().unwrap_or(self.reason.text());
        self.reason.answer(text, self.retry_after)
    }
}
