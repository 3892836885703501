//! A request that is not answered with a socket, and its HTTP where it is not even upgraded.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::admission::Over;
use crate::auth::AuthError;
use crate::room::{Flapping, JoinError};
use crate::socket::CloseReason;

/// What a client is told to wait where nothing better is known.
const RETRY_AFTER: Duration = Duration::from_secs(2);
/// The same where others of its address have to leave first.
const RETRY_AFTER_OTHERS: Duration = Duration::from_secs(10);

/// The same where the operator has to make room.
const RETRY_AFTER_FULL: Duration = Duration::from_secs(30);

/// Why a request gets no socket.
#[derive(Debug)]
pub(super) enum Refusal {
    /// Upgraded and closed with its code.
    Close(CloseReason),
    /// An HTTP error.
    Http(HttpRefusal),
}

/// An HTTP error before the upgrade.
#[derive(Debug)]
pub(super) struct HttpRefusal {
    pub(super) status: StatusCode,
    /// The metric's label.
    pub(super) reason: &'static str,
    text: Cow<'static, str>,
    retry_after: Option<Duration>,
}

impl Refusal {
    /// A page of this origin may not connect.
    pub(super) const ORIGIN: Self = Self::Http(HttpRefusal {
        status: StatusCode::FORBIDDEN,
        reason: "origin",
        text: Cow::Borrowed("this origin may not connect\n"),
        retry_after: None,
    });
    /// The token came in a cookie, and no page says that it is its own.
    pub(super) const NO_ORIGIN: Self = Self::Http(HttpRefusal {
        status: StatusCode::FORBIDDEN,
        reason: "no_origin",
        text: Cow::Borrowed(
            "a token in a cookie needs an Origin header, which browsers send: \
             give the token in Authorization: Bearer\n",
        ),
        retry_after: None,
    });
    /// None of the offered subprotocols can be selected. A browser would fail on the 101, after its claim
    /// has closed the user's other socket.
    pub(super) const SUBPROTOCOL: Self = Self::Http(HttpRefusal {
        status: StatusCode::BAD_REQUEST,
        reason: "subprotocol",
        text: Cow::Borrowed(
            "none of the offered subprotocols can be selected: \
             offer herald.v2 or herald.v1, or herald.v2 or herald.v1 beside bearer.<token>, or none\n",
        ),
        retry_after: None,
    });
    /// The gateway lets nobody in any more.
    pub(super) const DRAINING: Self = Self::later("draining", "the gateway is restarting\n");
    /// As many sockets as there may be.
    pub(super) const CAPACITY: Self = Self::later("capacity", "the gateway is full\n");
    /// More joins wait than can be begun in time.
    pub(super) const BUSY: Self = Self::later("busy", "the gateway is busy\n");
    /// As many sockets as one address may have.
    pub(super) const ADDRESS_CONNECTIONS: Self = Self::too_many(
        "address_connections",
        "too many connections from this address\n",
        RETRY_AFTER_OTHERS,
    );
    /// NATS does not answer, or has not yet.
    pub(super) const NATS: Self = Self::later("nats", "NATS is away\n");

    /// There is no room for one more user. Claims go by age, or somebody makes room: neither is soon.
    const SESSIONS_FULL: Self = Self::Http(HttpRefusal {
        status: StatusCode::SERVICE_UNAVAILABLE,
        reason: "sessions_full",
        text: Cow::Borrowed(
            "the store of sessions is full: only users who connected recently can connect\n",
        ),
        retry_after: Some(RETRY_AFTER_FULL),
    });

    /// There is no room for anybody's claim, not even for one that replaces another.
    const ACCOUNT_FULL: Self = Self::Http(HttpRefusal {
        status: StatusCode::SERVICE_UNAVAILABLE,
        reason: "sessions_full",
        text: Cow::Borrowed("the NATS account has no room: nobody can connect until it has\n"),
        retry_after: Some(RETRY_AFTER_FULL),
    });

    /// A stream cannot be read; `cause` says which and why.
    pub(super) fn unreadable(cause: &impl fmt::Display) -> Self {
        Self::Http(HttpRefusal {
            status: StatusCode::SERVICE_UNAVAILABLE,
            reason: "nats",
            text: Cow::Owned(format!("{cause}\n")),
            retry_after: Some(RETRY_AFTER),
        })
    }

    /// The token was looked at of late, and was expired each time.
    pub(super) const fn token_expired(retry_after: Duration) -> Self {
        Self::too_many(
            "token_expired",
            "this token is expired: get a new one\n",
            retry_after,
        )
    }

    /// The token becomes valid in this time, or the key set that may hold its key is read again. 4001 would
    /// tell the client to stop for good.
    pub(super) const fn token_not_yet(retry_after: Duration) -> Self {
        Self::Http(HttpRefusal {
            status: StatusCode::SERVICE_UNAVAILABLE,
            reason: "token_not_yet",
            text: Cow::Borrowed(
                "this token is not valid yet, or its key is not known yet: try again later\n",
            ),
            retry_after: Some(retry_after),
        })
    }

    const fn later(reason: &'static str, text: &'static str) -> Self {
        Self::Http(HttpRefusal {
            status: StatusCode::SERVICE_UNAVAILABLE,
            reason,
            text: Cow::Borrowed(text),
            retry_after: Some(RETRY_AFTER),
        })
    }

    /// RFC 6585 section 4.
    const fn too_many(reason: &'static str, text: &'static str, retry_after: Duration) -> Self {
        Self::Http(HttpRefusal {
            status: StatusCode::TOO_MANY_REQUESTS,
            reason,
            text: Cow::Borrowed(text),
            retry_after: Some(retry_after),
        })
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
            AuthError::NotYet(ahead) => Self::token_not_yet(ahead),
            error => Self::Close(error.into()),
        }
    }
}

impl From<Over> for Refusal {
    fn from(over: Over) -> Self {
        let (reason, text) = match over {
            Over::All => ("rate", "too many new connections, try again later\n"),
            Over::Address => (
                "address_rate",
                "too many new connections from this address, try again later\n",
            ),
        };
        Self::too_many(reason, text, RETRY_AFTER)
    }
}

impl From<JoinError> for Refusal {
    fn from(error: JoinError) -> Self {
        match error {
            JoinError::Unavailable(None) => Self::NATS,
            JoinError::Unavailable(Some(cause)) => Self::unreadable(&cause),
            JoinError::Full => Self::SESSIONS_FULL,
            JoinError::AccountFull => Self::ACCOUNT_FULL,
            JoinError::Flapping(Flapping { retry_after }) => Self::Http(HttpRefusal {
                status: StatusCode::CONFLICT,
                reason: "flapping",
                text: Cow::Borrowed("connections of this user replace each other\n"),
                retry_after: Some(retry_after),
            }),
        }
    }
}

impl IntoResponse for HttpRefusal {
    fn into_response(self) -> Response {
        let mut response = (self.status, self.text).into_response();
        if let Some(after) = self.retry_after {
            let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
            let headers = response.headers_mut();
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
