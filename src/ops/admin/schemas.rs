//! `/schemas`: the contract as the version that runs has it, for generators and people.

use axum::Router;
use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::schema;

/// The routes.
pub(super) fn router() -> Router {
    Router::new()
        .route("/schemas", get(list))
        .route("/schemas/{name}", get(one))
}

/// `GET /schemas`: the names.
async fn list() -> Response {
    let names: Vec<_> = schema::names().collect();
    let text = format!("{}\n", serde_json::json!(names));
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}

/// `GET /schemas/notification`, also as the file that it is elsewhere: `notification.json`.
async fn one(Path(name): Path<String>) -> Response {
    let name = name.strip_suffix(".json").unwrap_or(&name);
    match schema::find(name) {
        Ok(found) => {
            let kind = [(header::CONTENT_TYPE, found.content_type)];
            (kind, found.text).into_response()
        }
        Err(unknown) => (StatusCode::NOT_FOUND, format!("{unknown}\n")).into_response(),
    }
}
