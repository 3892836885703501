//! `herald serve`: builds the parts, runs them, ends them in order.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::map_response;
use axum::response::Response;
use axum::routing::any;
use tokio::runtime::Handle;
use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;
use tokio_util::context::TokioContext;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, debug, error, info, warn};

use super::admin;
use super::health::{self, Health};
use super::reload::Reloader;
use super::{drain, observed};
use crate::config::{Config, names};
use crate::conn;
use crate::migrate;
use crate::nats::{
    ClaimChecker, ClaimWriter, ConnectError, Connection, DeadLetters, Denials, DirectGet, Intake,
    Leader, Losses, Notices, Readable, Repairer, StreamEndReader, Sweeper, Unroutable,
    WatchedStream, notices, permissions,
};
use crate::room::{Damper, ReorderBudget, Resync, RoomContext, RoomThreads, Rooms};
use crate::server::{self, Acceptor, OpenFiles, PendingConnections, elsewhere, upgrade};
use crate::setup::{LiveSettings, Setup};
use crate::socket::QueueDepth;
use crate::telemetry::{self, Failure, Metrics, Telemetry, UNLIMITED};

/// So much later than what it takes along, the end of the NATS client may be known.
const LOST: Duration = Duration::from_millis(200);
/// How often the lag behind the stream is measured: a read at its leader each time.
const LAG_EVERY: Duration = Duration::from_secs(15);
/// Pause between looks at what happened to the connection: an overload drops many messages a second.
const LOSSES_PAUSE: Duration = Duration::from_millis(100);
/// Pause between looks at migrations that another process is to apply.
const MIGRATIONS_PAUSE: Duration = Duration::from_secs(1);

/// Why a gateway does not run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// An address that cannot be bound.
    #[error("cannot listen on {setting} {address}: {source}")]
    Bind {
        setting: &'static str,
        address: SocketAddr,
        source: std::io::Error,
    },
    /// The operating system gives no thread.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Migrate(#[from] migrate::MigrateError),
    /// What the NATS user lacks, one sentence each.
    #[error("{}", .0.join("\n"))]
    Denied(Vec<String>),
    /// A task without which nothing works ended by itself, which it never should.
    #[error("a part of the gateway has failed, see the log: start the gateway again")]
    Failed,
    /// The NATS client ended by itself, which it never should.
    #[error("the NATS client has failed and will not reconnect: start the gateway again")]
    Lost,
}

/// A gateway that listens. [`Gateway::run`] makes it one that serves.
#[derive(Debug)]
pub struct Gateway {
    /// What it was started with, for all that only a start takes.
    started: Arc<Setup>,
    live: LiveSettings,
    telemetry: Telemetry,
    acceptor: Arc<Acceptor>,
    health: Arc<Health>,
    files: OpenFiles,
    public: tokio::net::TcpListener,
    admin: tokio::net::TcpListener,
}

/// Builds and runs a gateway until `stop`, then drains it; a second `stop` ends it at once. Meanwhile
/// `reloads` gives it new settings.
///
/// # Errors
/// [`ServeError`].
pub async fn serve<S: Future<Output = ()>, R: Future<Output = Infallible>>(
    setup: Setup,
    telemetry: Telemetry,
    stop: impl Fn() -> S,
    reloads: impl FnOnce(Reloader) -> R,
) -> Result<(), ServeError> {
    let gateway = Gateway::bind(setup, telemetry)?;
    let reloads = reloads(gateway.reloader());
    tokio::select! {
        served = gateway.run(stop) => served,
        never = reloads => match never {},
    }
}

impl Gateway {
    /// Binds both listeners.
    ///
    /// # Errors
    /// [`ServeError::Bind`].
    pub fn bind(setup: Setup, telemetry: Telemetry) -> Result<Self, ServeError> {
        let live = LiveSettings::new(setup);
        let started = live.now();
        let config = &started.config;
        let files = OpenFiles::of_process();
        files.warn_if_too_few(&config.sockets);
        let queues = Arc::default();
        observed::queues(telemetry.metrics().meter(), &queues);
        let acceptor = Acceptor::new(live.clone(), files.sockets, queues, &telemetry);
        let acceptor = Arc::new(acceptor);
        let public = bind(
            "server.listen",
            config.server.listen,
            config.sockets.send_buffer,
        )?;
        let admin = bind("server.admin_listen", config.server.admin_listen, 0)?;
        Ok(Self {
            health: Arc::new(Health::new(live.clone())),
            started,
            live,
            telemetry,
            acceptor,
            files,
            public,
            admin,
        })
    }

    /// Where sockets are served; the port that was taken where port 0 was asked for.
    ///
    /// # Errors
    /// Where the socket does not say.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.public.local_addr()
    }

    /// Where metrics are served.
    ///
    /// # Errors
    /// Where the socket does not say.
    pub fn admin_address(&self) -> std::io::Result<SocketAddr> {
        self.admin.local_addr()
    }

    /// Ends when [`Gateway::run`] has come so far that sockets may join.
    pub fn ready(&self) -> impl Future<Output = ()> + use<> {
        let health = Arc::clone(&self.health);
        async move { health.wait_opened().await }
    }

    /// What gives it new settings while it runs.
    pub fn reloader(&self) -> Reloader {
        Reloader {
            live: self.live.clone(),
            files: self.files,
            started: Arc::clone(&self.started),
            level: self.telemetry.level().clone(),
            health: Arc::clone(&self.health),
            metrics: Arc::clone(self.telemetry.metrics()),
        }
    }

    /// Serves until `stop`, then drains.
    ///
    /// # Errors
    /// Where NATS gives an answer that will not change by itself.
    pub async fn run<S: Future<Output = ()>>(self, stop: impl Fn() -> S) -> Result<(), ServeError> {
        let cancel = CancellationToken::new();
        let connections = TaskTracker::new();
        let public = self.public_router();
        let admin = admin::router(&self.telemetry, &self.live, health::router(&self.health));
        info!(
            listen = %local(&self.public),
            admin_listen = %local(&self.admin),
            path = self.acceptor.path(),
            tls = self.started.tls.is_some(),
            "listening"
        );
        let mut parts = JoinSet::new();
        let live = self.live.clone();
        parts.spawn(conn::tls::watch(
            move || live.now().tls.clone(),
            cancel.clone(),
        ));
        let metrics = self.telemetry.metrics();
        let pending =
            PendingConnections::public(self.live.clone(), self.files, Arc::clone(metrics));
        let admin_pending = PendingConnections::admin(self.files, Arc::clone(metrics));
        for (listener, tls, router, pending) in [
            (self.public, Some(self.live.clone()), public, pending),
            (self.admin, None, admin, admin_pending),
        ] {
            parts.spawn(server::accept(
                listener,
                tls,
                router,
                pending,
                connections.clone(),
                cancel.clone(),
            ));
        }
        let _ending = cancel.clone().drop_guard();
        let workers = Handle::current();
        let intake = Intake::start(&workers, cancel.clone());
        let (intake, intake_ended) = intake.map_err(ServeError::Thread)?;
        parts.spawn(intake_ended);
        observed::intake(metrics.meter(), intake.clone());
        let reader = intake.runtime().clone();
        let threads = RoomThreads {
            intake,
            workers,
            cancel,
        };
        let open = open(
            &self.started.config,
            &self.live,
            &self.telemetry,
            &self.acceptor,
            &self.health,
            threads,
            &mut parts,
        );
        // What it spawns runs on the intake, the connection to NATS first of all.
        let open = TokioContext::new(open, reader);
        let rooms = tokio::select! {
            opened = open => opened?,
            () = stop() => return Ok(()),
        };
        info!("ready");
        end_of_serving(stop, parts, &rooms, || {
            let span = telemetry::drain(self.acceptor.sockets().len());
            end(&self.live, &rooms, &self.acceptor, &self.health).instrument(span)
        })
        .await
    }

    fn public_router(&self) -> Router {
        Router::new()
            .route(self.acceptor.path(), any(upgrade))
            .fallback(elsewhere)
            .with_state(Arc::clone(&self.acceptor))
            .merge(health::router(&self.health))
            .layer(map_response(last_of_its_connection))
    }
}

/// Waits for `stop` or a failure, then ends what has to come to an end: all sockets by `drain`, unless they are lost.
async fn end_of_serving<S: Future<Output = ()>, D: Future<Output = ()>>(
    stop: impl Fn() -> S,
    mut parts: JoinSet<()>,
    rooms: &Rooms,
    drain: impl FnOnce() -> D,
) -> Result<(), ServeError> {
    let served = tokio::select! {
        () = stop() => Ok(()),
        // Sockets that are closed now come back to another gateway, or to this one's next start.
        () = rooms.context().nats.ended() => Err(ServeError::Lost),
        ended = parts.join_next() => Err(failed(ended, &rooms.context().nats).await),
    };
    let dead_letters = &rooms.context().dead_letters;
    let ending = async {
        if served.is_ok() {
            drain().await;
            info!("drained");
        }
        dead_letters.end(drain::DEAD_LETTERS).await;
    };
    tokio::select! {
        () = ending => {}
        () = stop() => {
            warn!("ending at once");
            dead_letters.end(Duration::ZERO).await;
        }
    }
    served
}

/// A connection of the public listener has one request: who sends many takes places from those who come for a
/// socket, and no limit counts them.
async fn last_of_its_connection(mut response: Response) -> Response {
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let headers = response.headers_mut();
        // Beside what there is: a 426 names `Upgrade` there (RFC 9110 section 7.8).
        headers.append(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// What it means that a part has ended.
async fn failed(ended: Option<Result<(), JoinError>>, nats: &Connection) -> ServeError {
    // Without the NATS client some parts end as well; it is told at about the same time.
    if timeout(LOST, nats.ended()).await.is_ok() {
        return ServeError::Lost;
    }
    match ended {
        Some(Err(cause)) => error!(%cause, "a part has failed"),
        Some(Ok(())) | None => error!("a part has ended"),
    }
    ServeError::Failed
}

/// The bound address, for the log.
fn local(listener: &tokio::net::TcpListener) -> String {
    listener
        .local_addr()
        .map_or_else(|error| error.to_string(), |address| address.to_string())
}

fn bind(
    setting: &'static str,
    address: SocketAddr,
    send_buffer: usize,
) -> Result<tokio::net::TcpListener, ServeError> {
    server::bind(address, send_buffer).map_err(|source| ServeError::Bind {
        setting,
        address,
        source,
    })
}

/// Connects, waits for the migrations, and opens the acceptor.
async fn open(
    config: &Config,
    live: &LiveSettings,
    telemetry: &Telemetry,
    acceptor: &Acceptor,
    health: &Health,
    threads: RoomThreads,
    parts: &mut JoinSet<()>,
) -> Result<Rooms, ServeError> {
    let denials = Denials::new(config.nats.names());
    let metrics = Arc::clone(telemetry.metrics());
    let waits = |why| health.waits(why);
    let nats = Connection::establish(&config.nats, metrics, &denials, waits).await?;
    migrated(&nats, config, waits).await?;
    permitted(config).await?;
    let names = config.nats.names();
    let leader =
        |stream: &str, subjects: &'static str| Leader::new(nats.clone(), &names, stream, subjects);
    let leaders = Leaders {
        events: leader(names.events(), names::ALL_EVENTS).observed(telemetry.metrics()),
        sessions: leader(names.sessions(), names::ALL_CLAIMS),
    };
    let context = context(
        config,
        nats.clone(),
        leaders.clone(),
        live,
        telemetry,
        (denials, Arc::clone(acceptor.queues())),
        parts,
    );
    let rooms = Rooms::new(Arc::new(context), threads);
    parts.spawn(resync(rooms.clone()));
    parts.spawn(hear_notices(rooms.clone()));
    for leader in [leaders.events.clone(), leaders.sessions] {
        parts.spawn(elections(leader, rooms.clone()));
    }
    parts.spawn(watch_lag(
        leaders.events,
        rooms.clone(),
        Arc::clone(telemetry.metrics()),
    ));
    acceptor.open(rooms.clone());
    let context = rooms.context();
    health.opened(context.readable.clone(), context.nats.clone());
    Ok(rooms)
}

/// Applies the migrations, or waits until another process has.
async fn migrated(
    nats: &Connection,
    config: &Config,
    waits: impl Fn(String),
) -> Result<(), ServeError> {
    let mut said = String::new();
    loop {
        let tried = async { try_migrated(nats, config).await.record_error() };
        match tried.instrument(telemetry::migrate()).await {
            Ok(None) => return Ok(()),
            Ok(Some(why)) if why == said => {}
            Ok(Some(why)) => {
                warn!(why, "waiting for migrations");
                waits(why.clone());
                said = why;
            }
            Err(error) => return Err(error.into()),
        }
        tokio::time::sleep(MIGRATIONS_PAUSE).await;
    }
}

/// `None` once all migrations are applied, else what is waited for.
async fn try_migrated(
    nats: &Connection,
    config: &Config,
) -> Result<Option<String>, migrate::MigrateError> {
    let waits = |error: migrate::MigrateError| {
        if error.is_transient() {
            Ok(Some(error.to_string()))
        } else {
            Err(error)
        }
    };
    if config.nats.migrate
        && let Err(error) = migrate::apply(nats.client(), &config.nats).await
    {
        return waits(error);
    }
    let status = match migrate::status(nats.client(), &config.nats).await {
        Ok(status) => status,
        Err(error) => return waits(error),
    };
    if let Some(first) = status.pending().next() {
        return Ok(Some(format!(
            "{first} is not applied: herald migrate applies it"
        )));
    }
    status.check()?;
    for difference in &status.differences {
        warn!(target: UNLIMITED, %difference, "jetstream differs from the settings, herald migrate reconciles it");
    }
    for edit in &status.edits {
        warn!(target: UNLIMITED, edit = edit.advice(), "a stream was changed by hand");
    }
    Ok(None)
}

/// Refuses to serve where the NATS user lacks a permission. The server tells of it only when it is
/// used, and then answers nothing: joins would fail for ever, or sockets would hear nothing.
async fn permitted(config: &Config) -> Result<(), ServeError> {
    let probes = permissions::of_serve(&config.nats.names(), &[]);
    match permissions::denied(&config.nats, "herald", probes).await {
        Ok(denied) if denied.is_empty() => Ok(()),
        Ok(denied) => Err(ServeError::Denied(denied)),
        Err(error) => {
            // NATS went away just now. What is denied will show in the log.
            warn!(%error, "permissions not checked");
            Ok(())
        }
    }
}

/// What the gateway reads at the leaders of its streams.
#[derive(Clone)]
struct Leaders {
    events: Leader,
    sessions: Leader,
}

fn context(
    config: &Config,
    nats: Connection,
    leaders: Leaders,
    live: &LiveSettings,
    telemetry: &Telemetry,
    (denials, queues): (Denials, Arc<QueueDepth>),
    parts: &mut JoinSet<()>,
) -> RoomContext {
    let metrics = Arc::clone(telemetry.metrics());
    let names = config.nats.names();
    let Leaders { events, sessions } = leaders;
    let events_direct = DirectGet::new(nats.clone(), &names, names.events());
    let (start_position, reader) = StreamEndReader::start(events.clone());
    parts.spawn(reader);
    let claims = ClaimWriter::new(
        &nats,
        names.clone(),
        sessions.clone(),
        &telemetry.instance().to_string(),
    );
    let sweeper = Sweeper {
        events: events.clone(),
        direct: events_direct.clone(),
    };
    let (sweeps, sweeper) = sweeper.start();
    parts.spawn(sweeper);
    let sessions_direct = DirectGet::new(nats.clone(), &names, names.sessions());
    let looked = vec![
        WatchedStream::new(&events, &events_direct),
        WatchedStream::new(&sessions, &sessions_direct),
    ];
    let known = live.clone();
    let unready_after = move || known.now().config.server.unready_after;
    parts.spawn(denials.clone().watch(
        config.nats.clone(),
        nats.client().clone(),
        unready_after.clone(),
    ));
    let (readable, look) = Readable::start(looked, denials, unready_after);
    parts.spawn(look);
    observed::readable(metrics.meter(), readable.clone());
    let checker = ClaimChecker {
        direct: sessions_direct,
        leader: sessions,
        claims: claims.clone(),
    };
    let (claim_checks, checker) = checker.start();
    parts.spawn(checker);
    let (notices, sender) = Notices::start(nats.clone(), names.clone());
    parts.spawn(sender);
    let (dead_letters, publisher) = DeadLetters::start(nats.clone(), names.clone());
    parts.spawn(publisher);
    observed::dead_letters(metrics.meter(), dead_letters.counters());
    let unroutable = Unroutable {
        connection: nats.clone(),
        names: names.clone(),
        events: events.clone(),
        direct: events_direct.clone(),
        letters: dead_letters.clone(),
    };
    parts.spawn(observed::started(metrics.meter(), unroutable));
    RoomContext {
        repairer: Repairer::new(events_direct, events, start_position.clone()),
        reorder_budget: ReorderBudget::default(),
        sweeps,
        claim_checks,
        damper: Damper::new(notices),
        dead_letters,
        queues,
        start_position,
        claims,
        live: live.clone(),
        names,
        nats,
        readable,
        metrics,
    }
}

/// Measures, for ever, how far the stream is ahead of the rooms.
async fn watch_lag(events: Leader, rooms: Rooms, metrics: Arc<Metrics>) {
    loop {
        tokio::time::sleep(LAG_EVERY).await;
        metrics.nats_connected(rooms.context().nats.is_connected());
        let lowest = rooms.lowest_watermark();
        match (events.end().await, lowest) {
            (Ok(tail), Some(lowest)) => {
                metrics.stream_lag(tail.position.sequence.saturating_sub(lowest))
            }
            (Ok(_), None) => metrics.stream_lag(0),
            // The last value stands; that NATS is away is told elsewhere.
            (Err(error), _) => debug!(%error, "lag not measured"),
        }
    }
}

/// Hears what all gateways tell of a user's sockets. Ends with the NATS client.
async fn hear_notices(rooms: Rooms) {
    use futures_util::StreamExt;
    let (nats, names) = (&rooms.context().nats, &rooms.context().names);
    let Some(mut heard) = notices::subscribe(nats.client(), names).await else {
        error!("notices of other gateways not subscribed to");
        return;
    };
    while let Some(message) = heard.next().await {
        match notices::parse(&message, names) {
            Some((workspace, user, notice)) => rooms.noticed(workspace, user, notice),
            // As a look at what this user may publish is, too.
            None => debug!("notice dropped"),
        }
    }
}

/// Tells the rooms, for ever, of what happened to the connection.
async fn resync(rooms: Rooms) {
    loop {
        let Losses { reconnected, full } = rooms.context().nats.losses().await;
        if reconnected {
            rooms.resync(Resync::Reconnected);
        }
        if !full.is_empty() {
            warn!(
                subscriptions = full.len(),
                "messages dropped, a subscription was full"
            );
            rooms.resync_listening(&full);
        }
        tokio::time::sleep(LOSSES_PAUSE).await;
    }
}

/// Tells the rooms, and who waits for it, of every election of `leader`: some of what was stored before it may
/// not have been republished.
async fn elections(leader: Leader, rooms: Rooms) {
    use futures_util::StreamExt;
    let context = rooms.context();
    let subject = context.names.elected(leader.stream());
    let Ok(mut elections) = context.nats.client().subscribe(subject.clone()).await else {
        error!(
            stream = leader.stream(),
            "leader elections not subscribed to"
        );
        return;
    };
    while let Some(advisory) = elections.next().await {
        if advisory.subject.as_str() != subject {
            continue;
        }
        info!(stream = leader.stream(), "leader elected");
        leader.elected();
        rooms.resync(Resync::Doubt);
    }
}

/// The drain, in its order.
async fn end(live: &LiveSettings, rooms: &Rooms, acceptor: &Acceptor, health: &Health) {
    info!("draining");
    health.drain();
    let setup = live.now();
    let server = &setup.config.server;
    tokio::time::sleep(server.drain_delay).await;
    acceptor.drain();
    drain::catch_up(rooms, acceptor).await;
    drain::close_all(rooms, server.drain).await;
    drain::ended(rooms, acceptor.sockets()).await;
}
