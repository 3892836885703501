//! The HTTP of a WebSocket handshake (RFC 6455, section 4.2): whether a request is one, and its answer.

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::request::SubprotocolOffer;
use crate::codes::HttpRefusal;

/// The key of a request that is a WebSocket handshake (RFC 6455 4.2.1); `path` is the sockets'.
pub(super) fn websocket_key(request: &Parts, path: &str) -> Result<String, Box<Response>> {
    let headers = &request.headers;
    let is_upgrade = request.method == Method::GET
        && has_token(headers, header::CONNECTION, "upgrade")
        && has_token(headers, header::UPGRADE, "websocket");
    if !is_upgrade {
        return Err(Box::new(upgrade_required(path)));
    }
    if headers
        .get(header::SEC_WEBSOCKET_VERSION)
        .is_none_or(|version| version != "13")
    {
        return Err(Box::new(upgrade_required(path)));
    }
    headers
        .get(header::SEC_WEBSOCKET_KEY)
        .and_then(|key| key.to_str().ok())
        .filter(|key| STANDARD.decode(key).is_ok_and(|nonce| nonce.len() == 16))
        .map(str::to_owned)
        .ok_or_else(|| Box::new(HttpRefusal::BadKey.into_response()))
}

fn has_token(headers: &HeaderMap, name: header::HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|value| value.trim().eq_ignore_ascii_case(token))
}

pub(super) fn upgrade_required(path: &str) -> Response {
    let text = format!(
        "{} Connect with a WebSocket client (version 13): \
         wss://<host>{path}?token=<JWT>&workspaceSlug=<workspace>",
        HttpRefusal::NoHandshake.text()
    );
    let headers = [
        (header::UPGRADE, "websocket"),
        (header::CONNECTION, "Upgrade"),
        (header::SEC_WEBSOCKET_VERSION, "13"),
    ];
    (headers, HttpRefusal::NoHandshake.answer(&text, None)).into_response()
}

pub(super) fn switching(accept: &str, offer: SubprotocolOffer) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(accept) = HeaderValue::from_str(accept) {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    if let SubprotocolOffer::Ours(subprotocol) = offer {
        headers.insert(
            header::SEC_WEBSOCKET_PROTOCOL,
            HeaderValue::from_static(subprotocol.name()),
        );
    }
    response
}
