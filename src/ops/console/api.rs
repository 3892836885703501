//! What the page reads: the gateway, a token explained, sessions and dead letters.

use std::borrow::Cow;
use std::future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_nats::HeaderMap as NatsHeaders;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use chrono::Utc;
use serde::Serialize;
use serde_json::json;

use super::{Console, ConsoleProblem};
use crate::auth::{AuthError, Identity, Workspaces};
use crate::codes::CloseReason;
use crate::config::{allows, names};
use crate::event::{EventName, PAYLOAD_MAX, WorkspaceSlug};
use crate::nats::{
    DeadLetterReport, DirectGet, DirectGetError, connect, event_channel, permissions,
};
use crate::ops::operator::{self, wire::SessionsQuery};
use crate::publishing::{self, PublishProblem};

/// Rows of one answer.
const PAGE: usize = 100;
/// Bytes of dead letters that one answer is made of: one may have 64 KiB.
const PAGE_BYTES: usize = 4 * 1024 * 1024;
/// The largest body: more than an event may have, so that what is said of it is what a gateway says.
const BODY_MAX: usize = 16 * PAYLOAD_MAX;
/// The longest name for which a token is signed in development.
const USER_MAX: usize = 64;

type ConsoleAnswer = Result<Response, ConsoleProblem>;

pub(super) fn router(console: &Arc<Console>) -> Router {
    Router::new()
        .route("/about", get(about))
        .route("/token", get(token))
        .route("/sessions", get(sessions))
        .route("/dead-letters", get(dead_letters))
        .route("/preview/{workspace}/{event}", post(preview))
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .with_state(Arc::clone(console))
}

fn json_answer(body: &impl Serialize) -> ConsoleAnswer {
    let body = serde_json::to_string(body).map_err(|error| {
        ConsoleProblem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            error.to_string(),
        )
    })?;
    let content_type = [(header::CONTENT_TYPE, "application/json")];
    Ok((content_type, body).into_response())
}

/// The value of a parameter of the query.
fn parameter<'a>(query: &'a Option<String>, name: &str) -> Option<Cow<'a, str>> {
    let query = query.as_deref().unwrap_or_default().as_bytes();
    let mut parameters = form_urlencoded::parse(query);
    parameters.find_map(|(its_name, value)| (its_name == name).then_some(value))
}

fn bad_query(detail: &str) -> ConsoleProblem {
    ConsoleProblem::new(StatusCode::BAD_REQUEST, "bad-query", detail)
}

/// `GET /about`: what the page works with. In development with a token, for `?user=` and `&workspace=` if they are named.
async fn about(
    State(console): State<Arc<Console>>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> ConsoleAnswer {
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    let host = host.unwrap_or_default();
    let allowed = &console.live.now().config.server.allowed_origins;
    let is_allowed = |scheme: &str| {
        let origin = format!("{scheme}://{host}");
        let mut allowed = allowed.iter();
        allowed.any(|allowed| allows(allowed, origin.as_bytes()))
    };
    let development = match &console.development {
        None => None,
        Some(development) => {
            let user = parameter(&query, "user").unwrap_or(Cow::Borrowed(&development.user));
            let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
            if !(1..=USER_MAX).contains(&user.len()) || !user.bytes().all(is_name) {
                return Err(bad_query("a user is 1 to 64 letters, digits, - and _"));
            }
            let workspace = parameter(&query, "workspace");
            let workspace = workspace.unwrap_or(Cow::Borrowed(&development.workspace));
            let slug =
                WorkspaceSlug::parse(&workspace).map_err(|why| bad_query(&why.to_string()))?;
            Some(json!({
                "user": user,
                "workspace": development.workspace,
                "token": (development.sign)(&user, &slug),
                "publishToken": development.publish_token,
            }))
        }
    };
    json_answer(&json!({
        "version": env!("CARGO_PKG_VERSION"),
        "gateway": console.gateway.as_ref(),
        "unready": console.health.unready(),
        "sockets": console.sockets.at(host),
        "publish": console.publishing.is_some(),
        "originAllowed": allowed.is_empty() || is_allowed("http") || is_allowed("https"),
        "development": development,
    }))
}

/// `GET /token` with the header `Herald-Token`: what this gateway makes of the token now. Its claims the page reads
/// itself.
async fn token(State(console): State<Arc<Console>>, headers: HeaderMap) -> ConsoleAnswer {
    let token = headers.get("herald-token").map(|token| token.to_str());
    let Some(Ok(token)) = token else {
        return Err(bad_query("the token belongs in the header Herald-Token"));
    };
    let setup = console.live.now();
    let now = SystemTime::now();
    let judged = setup
        .verifier
        .judge(token, now, console.acceptor.revocations());
    let judged = judged.map(|verified| verified.identity().clone());
    let issuer = setup.verifier.issuer_table(token);
    let verdict = match judged {
        Ok(identity) => explained(&identity),
        // A later moment decides.
        Err(error @ (AuthError::NotYet(_) | AuthError::UnknownKey)) => {
            json!({ "good": false, "reason": error.to_string() })
        }
        Err(error) => {
            let close = CloseReason::from(error);
            json!({ "good": false, "code": close.code(), "close": close.text(), "reason": error.to_string() })
        }
    };
    json_answer(&json!({ "issuer": issuer, "verdict": verdict }))
}

fn explained(identity: &Identity) -> serde_json::Value {
    let expires = identity.credential.expires_at;
    let expires = expires
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let workspaces = match &identity.workspaces {
        Workspaces::All => vec!["*"],
        Workspaces::Some(slugs) => slugs.iter().map(|slug| slug.as_str()).collect(),
    };
    json!({
        "good": true,
        "user": identity.subject,
        "workspaces": workspaces,
        "expiresAt": u64::try_from(expires.as_millis()).unwrap_or(u64::MAX),
    })
}

/// `GET /sessions?after=`: a page of this gateway's sockets, as the operator service lists them.
async fn sessions(State(console): State<Arc<Console>>, RawQuery(query): RawQuery) -> ConsoleAnswer {
    let query = SessionsQuery {
        after: parameter(&query, "after").map(Cow::into_owned),
        limit: Some(PAGE),
        ..SessionsQuery::default()
    };
    match operator::list(console.acceptor.directory(), &query).await {
        Ok(page) => json_answer(&page),
        Err(error) => Err(bad_query(&error.text)),
    }
}

/// `GET /dead-letters`: those of the last `?since=` seconds, or those `?after=` a position in DEAD; the oldest first.
async fn dead_letters(
    State(console): State<Arc<Console>>,
    RawQuery(query): RawQuery,
) -> ConsoleAnswer {
    let number = |name| -> Result<Option<u64>, ConsoleProblem> {
        let value = parameter(&query, name).map(|value| value.parse());
        value
            .transpose()
            .map_err(|_| bad_query("since and after are whole numbers"))
    };
    let (since, after) = (number("since")?, number("after")?);
    let config = &console.live.now().config.nats;
    let names = config.names();
    // A connection for this alone: what NATS denies the gateway's own makes the gateway unready.
    let (happens, mut events) = event_channel();
    let client = connect(config, "herald console", happens).await;
    let client = client.map_err(|error| not_read(error.to_string()))?;
    let reads = DirectGet::new(client, &names, names.dead());
    let read = async {
        let mut batch = match (after, since) {
            (None, Some(seconds)) => {
                let from = SystemTime::now().checked_sub(Duration::from_secs(seconds));
                let from = from.map_or(chrono::DateTime::UNIX_EPOCH, chrono::DateTime::<Utc>::from);
                reads
                    .next_since(from, PAGE, PAGE_BYTES, names::ALL_LETTERS)
                    .await?
            }
            (after, _) => {
                let from = after.unwrap_or(0).saturating_add(1);
                reads
                    .next_by_subject(from, PAGE, PAGE_BYTES, names::ALL_LETTERS)
                    .await?
            }
        };
        let (mut letters, mut last) = (Vec::new(), 0);
        while let Some(raw) = batch.next().await? {
            last = raw.sequence;
            letters.push(DeadLetterReport::new(&raw));
        }
        let next = (batch.end().pending > 0).then_some(last);
        Ok((letters, next))
    };
    let denied = async {
        while let Some(event) = events.recv().await {
            if let Some(denied) = permissions::denial(&event, config) {
                return denied;
            }
        }
        future::pending().await
    };
    tokio::select! {
        read = read => {
            let (letters, next) = read.map_err(|error: DirectGetError| not_read(error.to_string()))?;
            json_answer(&json!({ "letters": letters, "next": next }))
        }
        denied = denied => Err(ConsoleProblem::new(StatusCode::FORBIDDEN, "permission", denied)),
    }
}

fn not_read(why: String) -> ConsoleProblem {
    ConsoleProblem::new(StatusCode::SERVICE_UNAVAILABLE, "nats", why)
}

/// `POST /preview/{workspace}/{event}` with a payload: the notification that it would become, and what is in it for
/// nothing. Nothing is stored.
async fn preview(
    State(console): State<Arc<Console>>,
    Path((workspace, event)): Path<(String, String)>,
    body: Bytes,
) -> ConsoleAnswer {
    let bad_event =
        |why: String| ConsoleProblem::new(StatusCode::UNPROCESSABLE_ENTITY, "bad-event", why);
    let workspace = WorkspaceSlug::parse(&workspace).map_err(|why| bad_event(why.to_string()))?;
    let event = EventName::parse(&event).map_err(|bad| bad_event(bad.detail))?;
    let subject = names::event(&workspace, &event);
    let message = publishing::message(&subject, NatsHeaders::new(), body);
    let previewed = publishing::preview(&console.live.now().projector, &message);
    let previewed = match previewed {
        Ok(previewed) => previewed,
        Err(refused) => return Ok(PublishProblem::from(refused).into_response()),
    };
    let notification: Option<serde_json::Value> =
        serde_json::from_str(&previewed.notification).ok();
    json_answer(&json!({ "notification": notification, "warnings": previewed.warnings }))
}
