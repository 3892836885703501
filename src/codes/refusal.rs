//! HTTP refusals: the one table of why a request gets no socket, or a connection no answer. It has the status, the
//! label in metrics, when the client may try again, and the body.
//!
//! What the contract names is no refusal: it is upgraded and closed with its code, see [`super::CloseReason`].

use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

/// How long a client waits if nothing better is known.
const SOON: Option<u64> = Some(2);
/// How long it waits if others of its address, or of its workspace, have to leave first.
const AFTER_OTHERS: Option<u64> = Some(10);
/// How long it waits if the operator has to make room.
const AFTER_OPERATOR: Option<u64> = Some(30);
/// The caller knows how long, or the client need not come back.
const NO: Option<u64> = None;

macro_rules! refusals {
    ($( $(#[$doc:meta])* $reason:ident $status:literal $label:literal $after:ident $text:literal )+) => {
        /// Why a request gets an HTTP error instead of a socket.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum HttpRefusal {
            $( $(#[$doc])* $reason, )+
        }

        impl HttpRefusal {
            pub const ALL: &[Self] = &[$( Self::$reason ),+];

            /// The HTTP status; 0 if the connection is closed before its first answer.
            pub const fn status(self) -> u16 {
                match self {
                    $( Self::$reason => $status, )+
                }
            }

            /// The label in metrics. Empty if it is not counted: then it is no join.
            pub const fn label(self) -> &'static str {
                match self {
                    $( Self::$reason => $label, )+
                }
            }

            /// When the client may try again.
            pub const fn retry_after(self) -> Option<Duration> {
                let seconds = match self {
                    $( Self::$reason => $after, )+
                };
                match seconds {
                    Some(seconds) => Some(Duration::from_secs(seconds)),
                    None => None,
                }
            }

            /// The body, without its newline.
            pub const fn text(self) -> &'static str {
                match self {
                    $( Self::$reason => $text, )+
                }
            }
        }
    };
}

// Each refusal: the status, the label in metrics, when to try again, the body.
refusals! {
    /// RFC 6455 4.1.
    BadKey 400 "" NO "Sec-WebSocket-Key is not 16 bytes in base64"
    /// A handshake has no body (RFC 6455 4.1), and the frames that follow it would be taken for one.
    Body 400 "" NO "a WebSocket handshake has no body"
    /// None of the offered subprotocols can be selected. A browser would fail on the 101, after its claim
    /// has closed the user's other socket.
    Subprotocol 400 "subprotocol" NO
        "none of the offered subprotocols can be selected: \
         offer herald.v2 or herald.v1, or herald.v2 or herald.v1 beside bearer.<token>, or none"
    /// A page of this origin may not connect.
    Origin 403 "origin" NO "this origin may not connect"
    /// The token came in a cookie, and no page says that it is its own.
    NoOrigin 403 "no_origin" NO
        "a token in a cookie needs an Origin header, which browsers send: \
         give the token in Authorization: Bearer"
    /// The body goes on with the right path.
    Path 404 "path" NO "There is nothing at this path."
    /// Connections of this user replace each other.
    Flapping 409 "flapping" NO "connections of this user replace each other"
    /// The request is no WebSocket handshake. The body goes on with an example.
    NoHandshake 426 "" NO "This is a WebSocket endpoint."
    Rate 429 "rate" SOON "too many new connections, try again later"
    AddressRate 429 "address_rate" SOON "too many new connections from this address, try again later"
    WorkspaceRate 429 "workspace_rate" SOON "too many new connections to this workspace, try again later"
    /// The address has as many sockets, or as many connections that are no sockets yet, as it may have.
    AddressConnections 429 "address_connections" AFTER_OTHERS "too many connections from this address"
    /// The same token came several times within a short time, and was expired each time.
    TokenExpired 429 "token_expired" NO "this token is expired: get a new one"
    /// The token becomes valid soon, or the key set that may have its key is read again soon. 4001 would make the
    /// client stop for good.
    TokenNotYet 503 "token_not_yet" NO
        "this token is not valid yet, or its key is not known yet: try again later"
    Draining 503 "draining" SOON "the gateway is restarting"
    Capacity 503 "capacity" SOON "the gateway is full"
    /// The workspace has as many sockets at this gateway as it may have.
    WorkspaceFull 503 "workspace_full" AFTER_OTHERS "too many connections to this workspace"
    /// More joins wait than can begin in time.
    Busy 503 "busy" SOON "the gateway is busy"
    /// NATS does not answer, or has not yet. If a stream cannot be read, the body says which and why.
    Nats 503 "nats" SOON "NATS is away"
    /// No claim of a new user can be stored. Claims go by age, or the operator makes room: neither is soon.
    SessionsFull 503 "sessions_full" AFTER_OPERATOR
        "the store of sessions is full: only users who connected recently can connect"
    /// Nobody's claim can be stored, not even one that replaces another.
    AccountFull 503 "sessions_full" AFTER_OPERATOR
        "the NATS account has no room: nobody can connect until it has"
    /// The client sends no request while others wait. It gets no answer.
    Silent 0 "silent" NO ""
    /// A trusted proxy sent no PROXY header, or somebody else sent one. It gets no answer.
    ProxyProtocol 0 "proxy_protocol" NO ""
}

/// The value of `Retry-After`: no earlier than `after`.
pub(crate) fn whole_seconds(after: Duration) -> HeaderValue {
    HeaderValue::from(after.as_secs() + u64::from(after.subsec_nanos() > 0))
}

impl HttpRefusal {
    /// The answer, with `text` as its body.
    pub(crate) fn answer(self, text: &str, retry_after: Option<Duration>) -> Response {
        let status = StatusCode::from_u16(self.status()).unwrap_or(StatusCode::BAD_REQUEST);
        let mut response = (status, format!("{text}\n")).into_response();
        if let Some(after) = retry_after {
            let headers = response.headers_mut();
            headers.insert(header::RETRY_AFTER, whole_seconds(after));
        }
        response
    }
}

impl IntoResponse for HttpRefusal {
    fn into_response(self) -> Response {
        self.answer(self.text(), self.retry_after())
    }
}
