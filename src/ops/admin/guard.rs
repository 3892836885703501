//! Who may change something at the admin listener: who brings its token.

use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tracing::warn;

use crate::setup::LiveSettings;

/// Refuses every change without the token. It stands before all routes, so that a new one has it, too.
pub(super) async fn guard(
    State(live): State<LiveSettings>,
    request: Request,
    next: Next,
) -> Response {
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return next.run(request).await;
    }
    let setup = live.now();
    let refusal = match &setup.admin_token {
        Some(token) if token.is_in(request.headers()) => return next.run(request).await,
        Some(_) => (
            StatusCode::UNAUTHORIZED,
            [(header::WWW_AUTHENTICATE, "Bearer realm=\"herald admin\"")],
            "this needs the token of server.admin_token_file: Authorization: Bearer <token>\n",
        )
            .into_response(),
        None => (
            StatusCode::FORBIDDEN,
            "nothing can be changed here while server.admin_token_file is not set\n",
        )
            .into_response(),
    };
    warn!(
        method = %request.method(),
        status = refusal.status().as_u16(),
        "admin request refused"
    );
    refusal
}
