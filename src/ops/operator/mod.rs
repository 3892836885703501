//! The operator service: who is connected, how the gateways are, and what an operator has them do. A NATS micro service
//! (ADR-32) with one instance for each gateway, on plain subscriptions: every gateway gets every request, and one that
//! a request does not mean says nothing.
//!
//! Whoever may publish events can have the server send its acknowledgement to any subject. So no request is taken without
//! a reply subject, which acknowledgements do not have. None is answered but in an inbox. And a request is an object
//! whose keys are all known ([`wire`]).

mod commands;
mod discovery;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod listing;
mod peers;
mod schemas;
pub(crate) mod wire;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use async_nats::{HeaderMap, Message, Subject};
use futures_util::StreamExt;
use futures_util::stream::select_all;
use serde::Serialize;
use tokio::sync::{Semaphore, SetOnce};
use tokio::time::{interval, timeout};
use tracing::{debug, error, info};
use uuid::Uuid;

use self::commands::{Disconnector, set_log_level};
use self::discovery::{EndpointStats, Instance};
pub(super) use self::listing::list;
use self::listing::written;
use self::peers::{PRESENCE_INTERVAL, Peers, Presence, PresenceState};
use self::wire::{
    Answer, ClosingReport, DrainCommand, DrainReport, ErrorReport, GatewayReport, GatewaysQuery,
    KeysReport, LogLevelCommand, LogLevelReport, OperatorEndpoint, RequestError, RevocationsReport,
    SessionsQuery, parse,
};
use super::health::Health;
use crate::auth::RevokedSet;
use crate::config::{Names, names};
use crate::nats::{Connection, Intake, RevocationReads, is_reply_subject};
use crate::server::Acceptor;
use crate::setup::LiveSettings;
use crate::telemetry::{Metrics, Telemetry, UNLIMITED};

/// Requests of one endpoint that are worked on at a time.
const WORKING: usize = 4;
/// Those that wait beside them. Further ones are refused.
const WAITING: usize = 64;
/// An answer that has not left by then is late.
const SEND: Duration = Duration::from_secs(1);

/// The service's instance of this gateway.
#[derive(Debug)]
pub(super) struct Operator {
    gateway: Arc<str>,
    process: Uuid,
    started: String,
    telemetry: Telemetry,
    live: LiveSettings,
    acceptor: Arc<Acceptor>,
    health: Arc<Health>,
    disconnector: Disconnector,
    peers: Peers,
    endpoints: [Arc<EndpointState>; OperatorEndpoint::ALL.len()],
    /// Refusals and answers to discovery that may be under way.
    immediate: Arc<Semaphore>,
    /// Set once there is a connection.
    edge: OnceLock<Edge>,
    /// Set once the stream of revocations is read.
    revocation_reads: OnceLock<RevocationReads>,
    drain: SetOnce<()>,
    is_leaving: AtomicBool,
}

/// What the service needs of NATS.
#[derive(Debug)]
struct Edge {
    nats: Connection,
    names: Names,
    intake: Intake,
}

#[derive(Debug)]
struct EndpointState {
    endpoint: OperatorEndpoint,
    /// Those that are worked on, and those that wait.
    admitted: Arc<Semaphore>,
    working: Semaphore,
    stats: EndpointStats,
}

/// The answer to a request: none if another gateway is meant.
type Answered = Result<Option<Vec<u8>>, RequestError>;

impl Operator {
    pub(super) fn new(
        telemetry: &Telemetry,
        live: LiveSettings,
        acceptor: Arc<Acceptor>,
        health: Arc<Health>,
    ) -> Arc<Self> {
        Arc::new(Self {
            gateway: Arc::clone(telemetry.name()),
            process: telemetry.instance(),
            started: written(SystemTime::now()),
            telemetry: telemetry.clone(),
            live,
            disconnector: Disconnector::new(Arc::clone(&acceptor)),
            acceptor,
            health,
            peers: Peers::new(telemetry.instance()),
            endpoints: OperatorEndpoint::ALL.map(|endpoint| Arc::new(EndpointState::new(endpoint))),
            immediate: Arc::new(Semaphore::new(WORKING + WAITING)),
            edge: OnceLock::new(),
            revocation_reads: OnceLock::new(),
            drain: SetOnce::new(),
            is_leaving: AtomicBool::new(false),
        })
    }

    /// Lets operators see how far the revocations are read. Called once.
    pub(super) fn show_revocations(&self, reads: RevocationReads) {
        self.revocation_reads.get_or_init(|| reads);
    }

    /// Waits until an operator has this gateway drain.
    pub(super) async fn drain_commanded(&self) {
        self.drain.wait().await;
    }

    /// Says that this gateway is there, and answers requests. Ends with the NATS client.
    pub(super) async fn serve(self: Arc<Self>, nats: Connection, intake: Intake) {
        let names = self.live.now().config.nats.names();
        let edge = Edge {
            nats,
            names,
            intake,
        };
        let edge = self.edge.get_or_init(|| edge);
        let own = [names::ALL_QUERIES, names::ALL_COMMANDS, names::PRESENCE];
        let subjects = own.map(|plain| edge.names.subject(plain));
        let discovery = [names::DISCOVERY.to_owned()];
        let mut subscriptions = Vec::new();
        for subject in subjects.into_iter().chain(discovery) {
            match edge.nats.client().subscribe(subject.clone()).await {
                Ok(subscription) => subscriptions.push(subscription),
                Err(error) => return error!(%error, subject, "operator service not subscribed"),
            }
        }
        let mut messages = select_all(subscriptions);
        let mut presence = interval(PRESENCE_INTERVAL);
        loop {
            tokio::select! {
                message = messages.next() => match message {
                    Some(message) => self.received(edge, message),
                    None => return,
                },
                _ = presence.tick() => self.say(edge, PresenceState::Here).await,
            }
        }
    }

    /// Says that this gateway leaves.
    pub(super) async fn leave(&self) {
        self.is_leaving.store(true, Ordering::Relaxed);
        let Some(edge) = self.edge.get() else {
            return;
        };
        self.say(edge, PresenceState::Leaving).await;
        // The process may end at once.
        if edge.nats.is_connected() && timeout(SEND, edge.nats.client().flush()).await.is_err() {
            debug!("the end of this gateway was not sent in time");
        }
    }

    async fn say(&self, edge: &Edge, is: PresenceState) {
        // After a reconnect it would be about the past.
        let is_over = is == PresenceState::Here && self.is_leaving.load(Ordering::Relaxed);
        if is_over || !edge.nats.is_connected() {
            return;
        }
        let presence = Presence {
            gateway: self.gateway.as_ref().to_owned(),
            process: self.process.to_string(),
            is,
        };
        let body = serde_json::to_vec(&presence).unwrap_or_default();
        let subject = edge.names.subject(names::PRESENCE).into();
        edge.send(subject, HeaderMap::new(), body).await;
    }

    /// A message came. Nothing here waits.
    fn received(self: &Arc<Self>, edge: &Edge, message: Message) {
        if message.subject.starts_with("$SRV.") {
            return self.discovered(edge, &message);
        }
        let Some(subject) = edge.names.plain(&message.subject) else {
            return;
        };
        if subject == names::PRESENCE {
            match Presence::parse(&message.payload) {
                Some(presence) => self.peers.heard(presence, Instant::now()),
                // As a look at what this user may publish is, too.
                None => debug!("presence ignored"),
            }
            return;
        }
        let Some(reply) = reply_subject(&message) else {
            self.metrics().operator_request("refused");
            return debug!(subject, "request without an inbox for its answer refused");
        };
        let mut endpoints = self.endpoints.iter();
        let state = endpoints.find(|state| state.endpoint.subject() == subject);
        let Some(state) = state.cloned() else {
            let text = format!("{subject} is no request of this version");
            return self.answer_at_once(reply, Err(RequestError::new(404, text)));
        };
        let Ok(guard) = Arc::clone(&state.admitted).try_acquire_owned() else {
            let text = "too many requests at a time: send it again";
            return self.answer_at_once(reply, Err(RequestError::new(429, text)));
        };
        let this = Arc::clone(self);
        // A task of its own, so that no request ends the service.
        tokio::spawn(async move {
            this.work(&state, reply, &message.payload).await;
            drop(guard);
        });
    }

    /// Answers, as long as not too many answers are under way.
    fn answer_at_once(self: &Arc<Self>, reply: Subject, answered: Answered) {
        let Ok(guard) = Arc::clone(&self.immediate).try_acquire_owned() else {
            return self.metrics().operator_request("busy");
        };
        let this = Arc::clone(self);
        tokio::spawn(async move {
            this.answer(reply, answered).await;
            drop(guard);
        });
    }

    async fn work(&self, state: &EndpointState, reply: Subject, body: &[u8]) {
        let Ok(_turn) = state.working.acquire().await else {
            return;
        };
        let began = Instant::now();
        let answered = self.fulfil(state.endpoint, body).await;
        // Others are meant.
        let is_fulfilled = match &answered {
            Ok(None) => return,
            Ok(Some(_)) => true,
            Err(_) => false,
        };
        state.stats.count(answered.as_ref().err(), began.elapsed());
        self.answer(reply, answered).await;
        if is_fulfilled && state.endpoint == OperatorEndpoint::Drain {
            info!(target: UNLIMITED, "drain commanded by an operator");
            // A second command changes nothing.
            let _ = self.drain.set(());
        }
    }

    async fn fulfil(&self, endpoint: OperatorEndpoint, body: &[u8]) -> Answered {
        match endpoint {
            OperatorEndpoint::Gateways => {
                let query: GatewaysQuery = parse(body)?;
                if !self.is_meant(query.gateway.as_deref()) {
                    return Ok(None);
                }
                self.answer_with(self.report(), true)
            }
            OperatorEndpoint::Sessions => {
                let query: SessionsQuery = parse(body)?;
                if !self.is_meant(query.gateway.as_deref()) {
                    return Ok(None);
                }
                let is_first = query.after.is_none();
                let page = list(self.acceptor.directory(), &query).await?;
                self.answer_with(page, is_first)
            }
            OperatorEndpoint::Disconnect => {
                let closing = self.disconnector.disconnect(parse(body)?).await?;
                self.answer_with(ClosingReport { closing }, true)
            }
            OperatorEndpoint::Drain => {
                let command: DrainCommand = parse(body)?;
                if !self.is_named(&command.gateway)? {
                    return Ok(None);
                }
                let sockets = self.acceptor.directory().len();
                self.answer_with(DrainReport { sockets }, true)
            }
            OperatorEndpoint::LogLevel => {
                let command: LogLevelCommand = parse(body)?;
                if !self.is_named(&command.gateway)? {
                    return Ok(None);
                }
                let log_level = set_log_level(self.telemetry.level(), command.level.as_deref())?;
                self.answer_with(LogLevelReport { log_level }, true)
            }
        }
    }

    /// Whether a query for `gateway`, or for all, is for this one.
    fn is_meant(&self, gateway: Option<&str>) -> bool {
        gateway.is_none_or(|name| name == &*self.gateway || self.is_process(name))
    }

    fn is_process(&self, name: &str) -> bool {
        Uuid::try_parse(name) == Ok(self.process)
    }

    /// Whether a command for `gateway` is for this one.
    ///
    /// # Errors
    /// Where it may be for another as well.
    fn is_named(&self, gateway: &str) -> Result<bool, RequestError> {
        if self.is_process(gateway) {
            return Ok(true);
        }
        if gateway != &*self.gateway {
            return Ok(false);
        }
        if self.peers.has(gateway, Instant::now()) {
            let text = "two gateways have this name: name the process, as `herald gateways` has it";
            return Err(RequestError::new(409, text));
        }
        Ok(true)
    }

    fn report(&self) -> GatewayReport {
        let live = self.live.now();
        let rooms = self.acceptor.rooms();
        let why = self.health.unready();
        GatewayReport {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started: self.started.clone(),
            ready: why.is_none(),
            why,
            draining: self.health.is_draining(),
            sockets: self.acceptor.directory().len(),
            sockets_max: live.config.sockets.max_connections,
            rooms: rooms.map_or(0, |rooms| rooms.all().len()),
            waiting_bytes: self.acceptor.queues().now().1.unsigned_abs(),
            intake_percent: self.edge.get().map_or(0, |edge| edge.intake.busy_percent()),
            memory_bytes: Metrics::resident_memory(),
            migrations: self.health.migrations(),
            log_level: self.telemetry.level().current(),
            revocations: self.revocations(),
            keys: self.keys(),
        }
    }

    fn revocations(&self) -> Option<RevocationsReport> {
        let last = self.revocation_reads.get()?.last();
        Some(RevocationsReport {
            sequence: last.sequence,
            entries: self.acceptor.revocations().look(RevokedSet::len),
            age_s: seconds(last.whole?.elapsed()),
        })
    }

    fn keys(&self) -> Vec<KeysReport> {
        let live = self.live.now();
        let keys = live.verifier.keys_status(Instant::now());
        let keys = keys.into_iter().map(|(table, status)| KeysReport {
            issuer: table.to_owned(),
            keys: status.keys,
            age_s: status.age.map(seconds),
        });
        keys.collect()
    }

    fn answer_with<T: Serialize>(&self, body: T, with_peers: bool) -> Answered {
        let peers = with_peers.then(|| self.peers.reports(Instant::now()));
        let answer = Answer {
            gateway: self.gateway.as_ref().to_owned(),
            process: self.process.to_string(),
            body,
            peers: peers.unwrap_or_default(),
        };
        let body = serde_json::to_vec(&answer);
        body.map(Some)
            .map_err(|error| RequestError::new(500, error.to_string()))
    }

    async fn answer(&self, reply: Subject, answered: Answered) {
        let (body, headers, result) = match answered {
            Ok(body) => (body.unwrap_or_default(), HeaderMap::new(), "ok"),
            Err(error) => {
                let result = if error.code == 429 { "busy" } else { "refused" };
                let mut headers = HeaderMap::new();
                headers.insert("Nats-Service-Error", one_line(&error.text));
                headers.insert("Nats-Service-Error-Code", error.code.to_string());
                let body = self.answer_with(ErrorReport { error }, true);
                (body.ok().flatten().unwrap_or_default(), headers, result)
            }
        };
        self.metrics().operator_request(result);
        if let Some(edge) = self.edge.get() {
            edge.send(reply, headers, body).await;
        }
    }

    /// A request to all micro services of the account, or to this one.
    fn discovered(self: &Arc<Self>, edge: &Edge, message: &Message) {
        let Some(reply) = reply_subject(message) else {
            return self.metrics().operator_request("refused");
        };
        let instance = Instance {
            names: &edge.names,
            gateway: &self.gateway,
            process: self.process.to_string(),
            started: &self.started,
        };
        let stats = self.endpoints.iter();
        let stats = stats.map(|state| (state.endpoint, &state.stats));
        let Some(answer) = instance.answer(&message.subject, stats) else {
            return;
        };
        self.answer_at_once(reply, Ok(Some(answer.to_string().into_bytes())));
    }

    fn metrics(&self) -> &Metrics {
        self.telemetry.metrics()
    }
}

impl EndpointState {
    fn new(endpoint: OperatorEndpoint) -> Self {
        Self {
            endpoint,
            admitted: Arc::new(Semaphore::new(WORKING + WAITING)),
            working: Semaphore::new(WORKING),
            stats: EndpointStats::default(),
        }
    }
}

impl Edge {
    async fn send(&self, subject: Subject, headers: HeaderMap, body: Vec<u8>) {
        let client = self.nats.client();
        let sent = async {
            if headers.is_empty() {
                client.publish(subject, body.into()).await
            } else {
                client
                    .publish_with_headers(subject, headers, body.into())
                    .await
            }
        };
        match timeout(SEND, sent).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!(%error, "operator service: message not sent"),
            Err(_) => debug!("operator service: message not sent in time"),
        }
    }
}

/// Where the answer to `message` is awaited, if it is a request.
fn reply_subject(message: &Message) -> Option<Subject> {
    let reply = message.reply.clone();
    reply.filter(|reply| is_reply_subject(reply))
}

/// To the millisecond.
fn seconds(time: Duration) -> f64 {
    time.as_millis() as f64 / 1000.0
}

/// Whether a request to `endpoint` with this body is understood.
#[cfg(any(test, feature = "fuzzing"))]
fn is_understood(endpoint: OperatorEndpoint, body: &[u8]) -> bool {
    use wire::DisconnectCommand;
    let checked = match endpoint {
        OperatorEndpoint::Gateways => parse::<GatewaysQuery>(body).map(drop),
        OperatorEndpoint::Sessions => {
            parse::<SessionsQuery>(body).and_then(|query| query.check().map(drop))
        }
        OperatorEndpoint::Disconnect => {
            parse::<DisconnectCommand>(body).and_then(|command| command.check().map(drop))
        }
        OperatorEndpoint::Drain => parse::<DrainCommand>(body).map(drop),
        OperatorEndpoint::LogLevel => parse::<LogLevelCommand>(body).map(drop),
    };
    checked.is_ok()
}

/// A header has one line.
fn one_line(text: &str) -> String {
    text.replace(char::is_control, " ")
}
