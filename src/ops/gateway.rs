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
use tokio::runtime::{Builder, Handle};
use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;
use tokio_util::context::TokioContext;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, error, info, warn};

use super::console::{Console, Development, Hosts, SocketUrl};
use super::error::ServeError;
use super::health::{self, Health};
use super::operator::Operator;
use super::reload::Reloader;
use super::startup::Startup;
use super::{admin, console, drain, observed};
use crate::conn;
use crate::nats::{Connection, Intake};
use crate::publishing::Publishing;
use crate::room::{RoomThreads, Rooms};
use crate::server::{self, Acceptor, OpenFiles, PendingConnections, elsewhere, upgrade};
use crate::setup::{LiveSettings, Setup};
use crate::telemetry::{self, Metrics, Telemetry};

/// When the NATS client ends, some tasks end with it. They may be noticed this much earlier than the client's end.
const LOST: Duration = Duration::from_millis(200);

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
    /// In `herald dev` alone.
    development: Option<Development>,
    /// That of HTTP publishing, where it is on.
    publish: Option<tokio::net::TcpListener>,
    publishing: Publishing,
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
    /// Binds the listeners.
    ///
    /// # Errors
    /// [`ServeError::Bind`].
    pub fn bind(setup: Setup, telemetry: Telemetry) -> Result<Self, ServeError> {
        let live = LiveSettings::new(setup);
        let started = live.now();
        let config = &started.config;
        let files = OpenFiles::of_process(config.server.publish_listen.is_some());
        let queues = Arc::default();
        observed::queues(telemetry.metrics().meter(), &queues);
        let metrics = Arc::clone(telemetry.metrics());
        let acceptor = Acceptor::new(live.clone(), files.sockets, queues, metrics);
        let acceptor = Arc::new(acceptor);
        let public = bind(
            "server.listen",
            config.server.listen,
            config.sockets.send_buffer,
        )?;
        let admin = bind("server.admin_listen", config.server.admin_listen, 0)?;
        let publish = config.server.publish_listen;
        let publish = publish.map(|address| bind("server.publish_listen", address, 0));
        let publishing = Publishing::new(
            live.clone(),
            acceptor.revocations().clone(),
            Arc::clone(telemetry.metrics()),
        );
        Ok(Self {
            health: Arc::new(Health::new(live.clone())),
            started,
            live,
            telemetry,
            acceptor,
            files,
            public,
            admin,
            development: None,
            publish: publish.transpose()?,
            publishing,
        })
    }

    /// Has it serve the page for a developer, who needs no token.
    pub fn develop(&mut self, development: Development) {
        self.development = Some(development);
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
    pub async fn run<S: Future<Output = ()>>(
        mut self,
        stop: impl Fn() -> S,
    ) -> Result<(), ServeError> {
        let cancel = CancellationToken::new();
        self.files.warn_if_too_few(&self.started.config.sockets);
        let public = self.public_router();
        let publisher = self.publishing_thread(&cancel)?;
        let admin = self.admin_router();
        info!(
            listen = %local(&self.public),
            admin_listen = %local(&self.admin),
            publish_listen = self.publish.as_ref().map(local),
            path = self.acceptor.path(),
            tls = self.started.tls.is_some(),
            "listening"
        );
        let metrics = self.telemetry.metrics();
        let publish = self.publish.zip(publisher.clone());
        let publish = publish.map(|(it, thread)| (it, self.publishing.router(), thread));
        let listeners = Listeners {
            public: (self.public, public),
            admin: (self.admin, admin),
            publish,
        };
        let mut tasks = listen(&self.live, self.files, metrics, listeners, &cancel);
        let _ending = cancel.clone().drop_guard();
        observed::keys(metrics.meter(), self.live.clone());
        self.live.now().verifier.start_fetching();
        let threads = room_threads(cancel, metrics, &mut tasks)?;
        let reader = threads.intake.runtime().clone();
        let operator = Operator::new(
            &self.telemetry,
            self.live.clone(),
            Arc::clone(&self.acceptor),
            Arc::clone(&self.health),
        );
        let startup = Startup {
            config: &self.started.config,
            live: &self.live,
            telemetry: &self.telemetry,
            acceptor: &self.acceptor,
            health: &self.health,
            operator: &operator,
            publishing: publisher.map(|thread| (&self.publishing, thread)),
            tasks: &mut tasks,
        };
        let open = startup.open(threads);
        // What it spawns runs on the intake, the connection to NATS first of all.
        let open = TokioContext::new(open, reader);
        let rooms = tokio::select! {
            opened = open => opened?,
            () = stopped(&stop, &operator) => {
                operator.leave().await;
                return Ok(());
            }
        };
        info!("ready");
        let ended = end_of_serving(stop, &operator, tasks, &rooms, || {
            let span = telemetry::drain(self.acceptor.sockets().len());
            let ending = end(
                &self.live,
                &rooms,
                &self.acceptor,
                &self.health,
                &self.publishing,
            );
            ending.instrument(span)
        })
        .await;
        operator.leave().await;
        ended
    }

    /// Whether events are published by HTTP: on a listener, or from the page of a developer.
    fn publishes(&self) -> bool {
        self.started.config.server.publish_listen.is_some() || self.development.is_some()
    }

    /// Starts the thread of HTTP publishing, where it is on, until `cancel`. A request passes from its connection to that of
    /// NATS, and back, without a thread that wakes another one. However many there are, they take one processor at most.
    fn publishing_thread(&self, cancel: &CancellationToken) -> Result<Option<Handle>, ServeError> {
        if !self.publishes() {
            return Ok(None);
        }
        let publishing = self.publishing.clone();
        let runtime = Builder::new_current_thread()
            .enable_all()
            .on_thread_park(move || publishing.coalesce())
            .build();
        let runtime = runtime.map_err(ServeError::Thread)?;
        let (handle, ended) = (runtime.handle().clone(), cancel.clone().cancelled_owned());
        let thread = std::thread::Builder::new().name("publishing".to_owned());
        let started = thread.spawn(move || runtime.block_on(ended));
        started.map_err(ServeError::Thread)?;
        Ok(Some(handle))
    }

    fn admin_router(&mut self) -> Router {
        let readable = admin::readable(&self.telemetry);
        let health = health::router(&self.health);
        let router = admin::router(&self.telemetry, &self.live, readable.clone(), health);
        match self.console() {
            Some(console) => router.merge(console::router(console, readable)),
            None => router,
        }
    }

    /// What serves the page, where it is to be served.
    fn console(&mut self) -> Option<Console> {
        let server = &self.started.config.server;
        let publishing = self.publishes().then(|| self.publishing.router());
        let development = self.development.take();
        if !server.console && development.is_none() {
            return None;
        }
        let address = |listener: &tokio::net::TcpListener, configured| {
            listener.local_addr().unwrap_or(configured)
        };
        let sockets = match &server.console_sockets {
            Some(url) => SocketUrl::Configured(url.clone()),
            None => SocketUrl::SameHost {
                is_tls: self.started.tls.is_some(),
                address: address(&self.public, server.listen),
                path: server.path.clone(),
            },
        };
        Some(Console {
            hosts: Hosts {
                port: address(&self.admin, server.admin_listen).port(),
                named: server.console_hosts.clone(),
            },
            sockets,
            publishing,
            development,
            live: self.live.clone(),
            acceptor: Arc::clone(&self.acceptor),
            health: Arc::clone(&self.health),
            gateway: Arc::clone(self.telemetry.name()),
        })
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

/// The listeners, each with what it serves.
struct Listeners {
    public: (tokio::net::TcpListener, Router),
    admin: (tokio::net::TcpListener, Router),
    /// With the thread for its connections.
    publish: Option<(tokio::net::TcpListener, Router, Handle)>,
}

/// Accepts connections on all listeners, and looks after the certificate.
fn listen(
    live: &LiveSettings,
    files: OpenFiles,
    metrics: &Arc<Metrics>,
    listeners: Listeners,
    cancel: &CancellationToken,
) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let connections = TaskTracker::new();
    let watched = live.clone();
    tasks.spawn(conn::tls::watch(
        move || watched.now().tls.clone(),
        cancel.clone(),
    ));
    let tls = || Some(live.clone());
    let public = PendingConnections::public(live.clone(), files, Arc::clone(metrics));
    let admin = PendingConnections::admin(files, Arc::clone(metrics));
    let publish = listeners.publish.map(|(listener, router, thread)| {
        let pending = PendingConnections::publishing(files, Arc::clone(metrics));
        ((listener, router), tls(), pending, thread)
    });
    let workers = Handle::current();
    let all = [
        (listeners.public, tls(), public, workers.clone()),
        (listeners.admin, None, admin, workers),
    ];
    for ((listener, router), tls, pending, threads) in all.into_iter().chain(publish) {
        let (connections, cancel) = (connections.clone(), cancel.clone());
        let accepting = server::accept(listener, tls, router, pending, connections, cancel);
        tasks.spawn_on(accepting, &threads);
    }
    tasks
}

/// Waits until the process or this gateway is to end.
async fn stopped<S: Future<Output = ()>>(stop: &impl Fn() -> S, operator: &Operator) {
    tokio::select! {
        () = stop() => {}
        () = operator.drain_commanded() => {}
    }
}

/// Starts the thread that reads from NATS.
fn room_threads(
    cancel: CancellationToken,
    metrics: &Metrics,
    tasks: &mut JoinSet<()>,
) -> Result<RoomThreads, ServeError> {
    let workers = Handle::current();
    let intake = Intake::start(&workers, cancel.clone());
    let (intake, intake_ended) = intake.map_err(ServeError::Thread)?;
    tasks.spawn(intake_ended);
    observed::intake(metrics.meter(), intake.clone());
    Ok(RoomThreads {
        intake,
        workers,
        cancel,
    })
}

/// Waits until the gateway is to end or fails, then ends what has to come to an end: all sockets by `drain`, unless
/// they are lost.
async fn end_of_serving<S: Future<Output = ()>, D: Future<Output = ()>>(
    stop: impl Fn() -> S,
    operator: &Operator,
    mut tasks: JoinSet<()>,
    rooms: &Rooms,
    drain: impl FnOnce() -> D,
) -> Result<(), ServeError> {
    let served = tokio::select! {
        () = stopped(&stop, operator) => Ok(()),
        // Sockets that are closed now come back to another gateway, or to this one's next start.
        () = rooms.context().nats.ended() => Err(ServeError::Lost),
        ended = tasks.join_next() => Err(failed(ended, &rooms.context().nats).await),
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
    // When the NATS client ends, some tasks end as well, at about the same time.
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

/// The drain, in its order.
async fn end(
    live: &LiveSettings,
    rooms: &Rooms,
    acceptor: &Acceptor,
    health: &Health,
    publishing: &Publishing,
) {
    info!("draining");
    health.drain();
    let setup = live.now();
    let server = &setup.config.server;
    tokio::time::sleep(server.drain_delay).await;
    acceptor.drain();
    // First what is being published, so that it is caught up with.
    publishing.drain().await;
    drain::catch_up(rooms, acceptor).await;
    drain::close_all(acceptor.directory(), server.drain).await;
    drain::ended(acceptor).await;
}
