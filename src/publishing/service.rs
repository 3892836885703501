//! HTTP publishing: a request in, an answer out.

use std::convert::Infallible;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_nats::{Client, HeaderMap as NatsHeaders};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::future::join_all;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::{Span, debug};

use super::answer::{Outcome, batch, stored};
use super::authorize::{Authorized, PublisherKey, authorize};
use super::check::{check, message};
use super::coalescing::Coalescing;
use super::guard;
use super::limits::PublishLimits;
use super::problem::PublishProblem;
use super::request::{self, BatchElement, EventTarget, PublishMode, malformed};
use super::store::{EventStore, NewEvent, StoreSettings, message_id, store};
use crate::admission::KeyGuard;
use crate::auth::Revocations;
use crate::codes::ProblemType;
use crate::config::{Names, names};
use crate::event::StoredMessage;
use crate::nats::PubAck;
use crate::schema;
use crate::setup::{LiveSettings, Setup};
use crate::telemetry::{Metrics, Publication, publish_request};

/// How long a body may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the requests under way may take at a drain: as long as an acknowledgement.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// HTTP publishing. Clones share it.
#[derive(Debug, Clone)]
pub struct Publishing(Arc<Service>);

#[derive(Debug)]
struct Service {
    live: LiveSettings,
    names: Names,
    revocations: Revocations,
    metrics: Arc<Metrics>,
    store: EventStore,
    limits: PublishLimits,
    is_draining: AtomicBool,
    under_way: TaskTracker,
    /// That have come.
    requests: AtomicU64,
    coalescing: Mutex<Coalescing>,
}

/// A request that may publish, before its body is read.
struct AdmittedRequest {
    setup: Arc<Setup>,
    key: PublisherKey,
    mode: PublishMode,
    /// The Idempotency-Key.
    id: Option<String>,
    headers: NatsHeaders,
    client: Client,
    _counted: KeyGuard<PublisherKey>,
    _under_way: TaskTrackerToken,
}

impl Publishing {
    pub(crate) fn new(live: LiveSettings, revocations: Revocations, metrics: Arc<Metrics>) -> Self {
        Self(Arc::new(Service {
            names: live.now().config.nats.names(),
            live,
            revocations,
            metrics,
            store: EventStore::default(),
            limits: PublishLimits::default(),
            is_draining: AtomicBool::new(false),
            under_way: TaskTracker::new(),
            requests: AtomicU64::new(0),
            coalescing: Mutex::new(Coalescing::new(Instant::now())),
        }))
    }

    /// Connects to NATS. Returns what keeps finding out whether events can be stored.
    ///
    /// # Errors
    /// A sentence, where the settings or the permissions are wrong.
    pub(crate) async fn open(
        &self,
        settings: StoreSettings,
    ) -> Result<impl Future<Output = Infallible> + use<>, String> {
        self.0.store.open(settings).await
    }

    /// `POST /v1/workspaces/<slug>/events/<category>.<name>`, `/readyz` and `/openapi.json`. It can be nested.
    pub(crate) fn router(&self) -> Router {
        Router::new()
            .fallback(respond)
            .with_state(Arc::clone(&self.0))
    }

    /// For its thread, before that waits for input: pauses while requests are many.
    pub(crate) fn coalesce(&self) {
        let Service {
            requests,
            under_way,
            coalescing,
            ..
        } = &*self.0;
        let pause = coalescing
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pause(
                requests.load(Ordering::Relaxed),
                under_way.len(),
                Instant::now(),
            );
        if let Some(pause) = pause {
            std::thread::sleep(pause);
        }
    }

    /// Refuses new requests, and waits for those under way.
    pub(crate) async fn drain(&self) {
        self.0.is_draining.store(true, Ordering::Relaxed);
        self.0.under_way.close();
        if timeout(DRAIN_TIMEOUT, self.0.under_way.wait())
            .await
            .is_err()
        {
            debug!("requests to publish are still under way");
        }
    }
}

async fn respond(State(service): State<Arc<Service>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    if let Err(problem) = guard::check_head(&parts) {
        return service.counted(None, last_of_connection(problem.into_response()));
    }
    let is_read = matches!(parts.method, Method::GET | Method::HEAD);
    match parts.uri.path() {
        "/readyz" if is_read => service.readiness(),
        "/openapi.json" if is_read => openapi(),
        "/readyz" | "/openapi.json" => not_allowed("GET, HEAD"),
        path => match EventTarget::parse(path) {
            Err(problem) => service.counted(None, last_of_connection(problem.into_response())),
            Ok(_) if parts.method != Method::POST => service.counted(None, not_allowed("POST")),
            Ok(target) => service.publish(&target, &parts, body).await,
        },
    }
}

fn openapi() -> Response {
    match schema::find(schema::OPENAPI) {
        Ok(found) => ([(header::CONTENT_TYPE, found.content_type)], found.text).into_response(),
        Err(unknown) => (StatusCode::NOT_FOUND, unknown).into_response(),
    }
}

/// No answer allows a page of another origin anything: a preflight gets this as any other request.
fn not_allowed(allow: &'static str) -> Response {
    let problem = PublishProblem::new(ProblemType::Method, format!("this path takes {allow}"));
    let mut response = last_of_connection(problem.into_response());
    response
        .headers_mut()
        .insert(header::ALLOW, HeaderValue::from_static(allow));
    response
}

/// The answer to a request whose body nobody reads: what comes next on the connection would be that body.
fn last_of_connection(mut response: Response) -> Response {
    response
        .headers_mut()
        .insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

impl Service {
    fn readiness(&self) -> Response {
        match self.store.obstacle() {
            _ if self.is_draining.load(Ordering::Relaxed) => (
                StatusCode::SERVICE_UNAVAILABLE,
                "the gateway is restarting\n",
            )
                .into_response(),
            Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
            None => "ready\n".into_response(),
        }
    }

    async fn publish(&self, target: &EventTarget, parts: &Parts, body: Body) -> Response {
        let began = Instant::now();
        self.requests.fetch_add(1, Ordering::Relaxed);
        let admitted = match self.admit(target, parts).await {
            Ok(admitted) => admitted,
            Err(problem) => {
                let response = last_of_connection(problem.into_response());
                return self.counted(None, response);
            }
        };
        let mode = admitted.mode;
        let span = publish_request(&admitted.headers);
        let answered = self.answer(target, admitted, body, &span).await;
        let response = answered.unwrap_or_else(IntoResponse::into_response);
        self.metrics.publish_took(began.elapsed());
        debug!(
            workspace = target.workspace.as_str(),
            event = %target.event,
            status = response.status().as_u16(),
            "publish request"
        );
        self.counted(Some(mode), response)
    }

    fn counted(&self, mode: Option<PublishMode>, response: Response) -> Response {
        let class = match response.status().as_u16() / 100 {
            2 => "2xx",
            4 => "4xx",
            _ => "5xx",
        };
        self.metrics
            .publish_request(class, mode.map_or("none", PublishMode::as_str));
        response
    }

    /// All checks that need no body.
    async fn admit(
        &self,
        target: &EventTarget,
        parts: &Parts,
    ) -> Result<AdmittedRequest, PublishProblem> {
        guard::check_origin(&parts.headers)?;
        let setup = self.live.now();
        let Authorized { key, grant } =
            authorize(&setup, &self.revocations, &parts.headers).await?;
        if self.is_draining.load(Ordering::Relaxed) {
            let why = "the gateway is restarting: send the event again, another gateway takes it";
            return Err(PublishProblem::new(ProblemType::Draining, why));
        }
        let category = target.event.category();
        if !grant.allows(&target.workspace, category) {
            let why = format!(
                "this token does not grant {} events of the workspace {}",
                category.as_str(),
                target.workspace
            );
            return Err(PublishProblem::new(ProblemType::NotGranted, why));
        }
        let mode = request::mode(&parts.headers)?;
        let id = request::idempotency_key(&parts.headers)?.map(str::to_owned);
        let headers = request::nats_headers(mode, &parts.headers)?;
        let length = parts.headers.get(header::CONTENT_LENGTH);
        let length = length.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        if length.is_some_and(|length| length > mode.bytes_max() as u64) {
            return Err(mode.too_large());
        }
        let publish = &setup.config.publish;
        let counted = self
            .limits
            .begin(&key, publish.concurrency)
            .ok_or_else(|| {
                self.metrics.publish_limited("concurrency");
                let why = format!(
                    "this token has {} requests under way, publish.concurrency",
                    publish.concurrency
                );
                PublishProblem::new(ProblemType::Concurrency, why)
            })?;
        if mode != PublishMode::Batch {
            self.take_rate(&setup, &key, 1)?;
        }
        let client = self.store.client()?.clone();
        Ok(AdmittedRequest {
            setup,
            key,
            mode,
            id,
            headers,
            client,
            _counted: counted,
            _under_way: self.under_way.token(),
        })
    }

    fn take_rate(
        &self,
        setup: &Setup,
        key: &PublisherKey,
        events: usize,
    ) -> Result<(), PublishProblem> {
        let rate = setup.config.publish.rate;
        let events = u32::try_from(events).unwrap_or(u32::MAX);
        self.limits.take(key, events, rate, Instant::now()).map_err(|wait| {
            self.metrics.publish_limited("rate");
            if events > rate {
                let why = format!("{events} events at once are more than a second's worth, {rate} (publish.rate): send fewer");
                return PublishProblem::new(ProblemType::TooLarge, why);
            }
            let why = format!("this token may publish {rate} events a second, publish.rate");
            PublishProblem::new(ProblemType::Rate, why).after(wait)
        })
    }

    /// Reads the body, and stores what it has.
    async fn answer(
        &self,
        target: &EventTarget,
        admitted: AdmittedRequest,
        body: Body,
        span: &Span,
    ) -> Result<Response, Response> {
        let mode = admitted.mode;
        let body = Limited::new(body, mode.bytes_max()).collect();
        let body = match timeout(BODY_TIMEOUT, body).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) => {
                let problem = if error.is::<LengthLimitError>() {
                    mode.too_large()
                } else {
                    malformed("the body broke off, or its chunks cannot be read")
                };
                return Err(last_of_connection(problem.into_response()));
            }
            Err(_) => {
                let why = format!("the body did not come within {BODY_TIMEOUT:?}");
                let problem = PublishProblem::new(ProblemType::SlowBody, why);
                return Err(last_of_connection(problem.into_response()));
            }
        };
        if mode == PublishMode::Batch {
            return self
                .batch(target, &admitted, &body, span)
                .await
                .map_err(IntoResponse::into_response);
        }
        let mut admitted = admitted;
        let stored_event = async {
            if body.trim_ascii().is_empty() && !mode.may_be_empty() {
                return Err(malformed(
                    "the body is empty: an event is a JSON object, {} is enough",
                ));
            }
            let headers = std::mem::take(&mut admitted.headers);
            let event = self.checked(target, &admitted, None, headers, body)?;
            self.store(target, &admitted.client, event, span).await
        };
        let ack = stored_event.await.map_err(IntoResponse::into_response)?;
        Ok(stored(&ack, self.store.window()))
    }

    /// The event as it is sent, if a gateway would take it.
    fn checked(
        &self,
        target: &EventTarget,
        admitted: &AdmittedRequest,
        index: Option<usize>,
        mut headers: NatsHeaders,
        payload: Bytes,
    ) -> Result<StoredMessage, PublishProblem> {
        if let Some(id) = &admitted.id {
            headers.insert("Nats-Msg-Id", message_id(&target.workspace, id, index));
        }
        let subject = names::event(&target.workspace, &target.event);
        let message = message(&subject, headers, payload);
        match check(&admitted.setup.projector, &message) {
            Ok(_) => Ok(message),
            Err(refused) => {
                self.metrics.publish_event("refused");
                Err(refused.into())
            }
        }
    }

    async fn store(
        &self,
        target: &EventTarget,
        client: &Client,
        event: StoredMessage,
        span: &Span,
    ) -> Result<PubAck, PublishProblem> {
        let mut headers = event.headers.unwrap_or_default();
        let publication =
            Publication::below(span, &event.subject, event.payload.len(), &mut headers);
        let new = NewEvent {
            subject: &event.subject,
            headers,
            payload: event.payload,
        };
        let stored = store(
            client,
            &self.names,
            new,
            self.store.window(),
            &target.workspace,
        )
        .await;
        let outcome = match &stored {
            Ok(ack) if ack.duplicate => "duplicate",
            Ok(_) => "stored",
            Err(problem) if problem.problem.may_be_stored() => "unknown",
            Err(_) => "refused",
        };
        self.metrics.publish_event(outcome);
        match &stored {
            Ok(ack) => publication.stored(&ack.stream, ack.sequence),
            Err(problem) => publication.failed(problem.detail()),
        }
        stored
    }

    /// Checks all events of a batch, then stores those that are right, side by side.
    async fn batch(
        &self,
        target: &EventTarget,
        admitted: &AdmittedRequest,
        body: &Bytes,
        span: &Span,
    ) -> Result<Response, PublishProblem> {
        let elements = request::batch(body)?;
        self.take_rate(&admitted.setup, &admitted.key, elements.len())?;
        let checked = elements.into_iter().enumerate().map(|(index, element)| {
            let BatchElement { id, payload } = element;
            let event = self.checked(
                target,
                admitted,
                Some(index),
                admitted.headers.clone(),
                payload,
            );
            (id, event)
        });
        let checked: Vec<_> = checked.collect();
        // Sent in this order, over one connection: those of one subject are stored in it.
        let outcomes = join_all(checked.into_iter().map(async |(id, event)| {
            let outcome = match event {
                Ok(event) => self.store(target, &admitted.client, event, span).await,
                Err(problem) => Err(problem),
            };
            Outcome {
                id,
                stored: outcome,
            }
        }))
        .await;
        Ok(batch(&outcomes, self.store.window()))
    }
}
