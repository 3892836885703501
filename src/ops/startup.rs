//! From a gateway that listens to one that serves: connects to NATS, waits for the migrations, starts what reads and
//! writes there, and opens the acceptor.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio_util::context::TokioContext;
use tracing::{Instrument, warn};

use super::error::ServeError;
use super::health::Health;
use super::operator::Operator;
use super::{observed, revoked_sockets, watch, withdrawn_keys};
use crate::config::{Config, names};
use crate::migrate;
use crate::nats::{
    ClaimChecker, ClaimWriter, Connection, DeadLetters, Denials, DirectGet, Leader, Notices,
    Readable, Repairer, RevocationReader, RevocationReads, StreamEndReader, Sweeper, Unroutable,
    WatchedStream, permissions,
};
use crate::publishing::{Publishing, StoreSettings};
use crate::room::{Damper, ReorderBudget, RoomContext, RoomThreads, Rooms};
use crate::server::Acceptor;
use crate::setup::LiveSettings;
use crate::telemetry::{self, Failure, Telemetry, UNLIMITED};

/// Pause between looks at migrations that another process is to apply.
const MIGRATIONS_PAUSE: Duration = Duration::from_secs(1);
/// Pause between looks at keys that are being fetched.
const KEYS_PAUSE: Duration = Duration::from_millis(50);

/// What the start of a gateway goes by.
pub(super) struct Startup<'a> {
    /// What the process was started with.
    pub(super) config: &'a Config,
    pub(super) live: &'a LiveSettings,
    pub(super) telemetry: &'a Telemetry,
    pub(super) acceptor: &'a Acceptor,
    pub(super) health: &'a Health,
    pub(super) operator: &'a Arc<Operator>,
    /// Where it is on, with its thread.
    pub(super) publishing: Option<(&'a Publishing, Handle)>,
    /// The tasks without which nothing works.
    pub(super) tasks: &'a mut JoinSet<()>,
}

/// What the gateway reads at the leaders of its streams.
#[derive(Clone)]
struct Leaders {
    events: Leader,
    sessions: Leader,
}

impl Startup<'_> {
    /// Connects, waits for the migrations, and opens the acceptor.
    ///
    /// # Errors
    /// Where NATS gives an answer that will not change by itself.
    pub(super) async fn open(mut self, threads: RoomThreads) -> Result<Rooms, ServeError> {
        let denials = Denials::new(self.config.nats.clone());
        let metrics = Arc::clone(self.telemetry.metrics());
        let waits = |why| self.health.waits(why);
        let nats = Connection::establish(&self.config.nats, metrics, &denials, waits).await?;
        // Before the gateway is open, so that operators see what it waits for.
        let operator = Arc::clone(self.operator);
        let serving = operator.serve(nats.clone(), threads.intake.clone());
        self.tasks.spawn_on(serving, &threads.workers);
        migrated(&nats, self.config, self.health).await?;
        permitted(self.config).await?;
        self.open_publishing(&nats).await?;
        let names = self.config.nats.names();
        let leader = |stream: &str, subjects: &'static str| {
            Leader::new(nats.clone(), &names, stream, subjects)
        };
        let leaders = Leaders {
            events: leader(names.events(), names::ALL_EVENTS).observed(self.telemetry.metrics()),
            sessions: leader(names.sessions(), names::ALL_CLAIMS),
        };
        let context = self.context(nats.clone(), &leaders, denials);
        let workers = threads.workers.clone();
        let rooms = Rooms::new(Arc::new(context), threads);
        let revocations = self.read_revocations(
            &nats,
            leader(names.revoked(), names::ALL_REVOCATIONS),
            &workers,
        );
        self.tasks
            .spawn(watch::losses(rooms.clone(), revocations.clone()));
        self.tasks.spawn(watch::receive_notices(rooms.clone()));
        for leader in [leaders.events.clone(), leaders.sessions] {
            self.tasks.spawn(watch::elections(leader, rooms.clone()));
        }
        self.tasks.spawn(watch::lag(
            leaders.events,
            rooms.clone(),
            Arc::clone(self.telemetry.metrics()),
        ));
        let directory = Arc::clone(self.acceptor.directory());
        let withdrawn = withdrawn_keys::watch(self.live.clone(), rooms.clone(), directory);
        // Not on the intake: it may have to look at all sockets.
        self.tasks.spawn_on(withdrawn, &workers);
        self.health.waits("revocations are being read");
        let fails = |cause: &str| {
            self.health
                .waits(format!("revocations are not read yet: {cause}"));
        };
        revocations.wait_whole(fails).await;
        self.keys_fetched().await;
        self.acceptor.open(rooms.clone());
        let context = rooms.context();
        self.health
            .opened(context.readable.clone(), context.nats.clone());
        Ok(rooms)
    }

    /// Connects HTTP publishing, where it is on. It keeps nobody else waiting: what may pass it waits for by itself.
    async fn open_publishing(&mut self, nats: &Connection) -> Result<(), ServeError> {
        if let Some((publishing, thread)) = self.publishing.take() {
            let Config {
                publish,
                nats: settings,
                ..
            } = self.config;
            let settings = StoreSettings::new(settings, publish, nats.clone());
            // The connection's own task runs where it was made.
            let opening = TokioContext::new(publishing.open(settings), thread.clone());
            let looks = opening.await.map_err(|why| ServeError::Denied(vec![why]))?;
            self.tasks.spawn_on(async { match looks.await {} }, &thread);
        }
        Ok(())
    }

    /// Starts to read what is revoked, and to end its sockets.
    fn read_revocations(
        &mut self,
        nats: &Connection,
        leader: Leader,
        workers: &Handle,
    ) -> RevocationReads {
        let names = self.config.nats.names();
        let revocations = self.acceptor.revocations().clone();
        let reader = RevocationReader {
            connection: nats.clone(),
            direct: DirectGet::new(nats.clone(), &names, names.revoked()),
            names,
            leader: leader.for_many(),
            revocations: revocations.clone(),
        };
        let metrics = Arc::clone(self.telemetry.metrics());
        let directory = Arc::clone(self.acceptor.directory());
        let revoked = revocations.clone();
        let (reads, reader) = reader.start(move || {
            let (revoked, directory) = (revoked.clone(), Arc::clone(&directory));
            let metrics = Arc::clone(&metrics);
            async move { revoked_sockets::end_revoked(&revoked, &directory, &metrics).await }
        });
        // Not on the intake: it may have to look at all sockets.
        self.tasks.spawn_on(reader, workers);
        observed::revocations(self.telemetry.metrics().meter(), &revocations, &reads);
        self.operator.show_revocations(reads.clone());
        reads
    }

    /// Waits until the keys of all issuers are known: with none, a good token would be refused.
    async fn keys_fetched(&self) {
        while let Some(why) = self.live.now().verifier.missing_keys() {
            self.health.waits_for(why);
            tokio::time::sleep(KEYS_PAUSE).await;
        }
    }

    /// Starts the tasks that all rooms need.
    fn context(&mut self, nats: Connection, leaders: &Leaders, denials: Denials) -> RoomContext {
        let metrics = Arc::clone(self.telemetry.metrics());
        let names = self.config.nats.names();
        let Leaders { events, sessions } = leaders.clone();
        let events_direct = DirectGet::new(nats.clone(), &names, names.events());
        let (stream_end, reader) = StreamEndReader::start(events.clone());
        self.tasks.spawn(reader);
        let claims = ClaimWriter::new(
            &nats,
            names.clone(),
            sessions.clone(),
            &self.telemetry.instance().to_string(),
        );
        let sweeper = Sweeper {
            events: events.clone(),
            direct: events_direct.clone(),
        };
        let (sweeps, sweeper) = sweeper.start();
        self.tasks.spawn(sweeper);
        let sessions_direct = DirectGet::new(nats.clone(), &names, names.sessions());
        let looked = vec![
            WatchedStream::new(&events, &events_direct),
            WatchedStream::new(&sessions, &sessions_direct),
        ];
        let known = self.live.clone();
        let unready_after = move || known.now().config.server.unready_after;
        self.tasks.spawn(
            denials
                .clone()
                .watch(nats.client().clone(), unready_after.clone()),
        );
        let (readable, look) = Readable::start(looked, denials, unready_after);
        self.tasks.spawn(look);
        observed::readable(metrics.meter(), readable.clone());
        let checker = ClaimChecker {
            direct: sessions_direct,
            leader: sessions,
            claims: claims.clone(),
        };
        let (claim_checks, checker) = checker.start();
        self.tasks.spawn(checker);
        let (notices, sender) = Notices::start(nats.clone(), names.clone());
        self.tasks.spawn(sender);
        let (dead_letters, publisher) = DeadLetters::start(nats.clone(), names.clone());
        self.tasks.spawn(publisher);
        observed::dead_letters(metrics.meter(), dead_letters.counters());
        let unroutable = Unroutable {
            connection: nats.clone(),
            names: names.clone(),
            events: events.clone(),
            direct: events_direct.clone(),
            letters: dead_letters.clone(),
        };
        self.tasks
            .spawn(observed::started(metrics.meter(), unroutable));
        RoomContext {
            repairer: Repairer::new(events_direct, events, stream_end.clone()),
            reorder_budget: ReorderBudget::default(),
            sweeps,
            claim_checks,
            damper: Damper::new(notices),
            dead_letters,
            queues: Arc::clone(self.acceptor.queues()),
            stream_end,
            claims,
            live: self.live.clone(),
            names,
            nats,
            readable,
            metrics,
        }
    }
}

/// Applies the migrations, or waits until another process has.
async fn migrated(nats: &Connection, config: &Config, health: &Health) -> Result<(), ServeError> {
    let mut said = String::new();
    loop {
        let tried = async { try_migrated(nats, config, health).await.record_error() };
        match tried.instrument(telemetry::migrate()).await {
            Ok(None) => return Ok(()),
            Ok(Some(why)) if why == said => {}
            Ok(Some(why)) => {
                warn!(why, "waiting for migrations");
                health.waits(&why);
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
    health: &Health,
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
    health.migrations_are(&status);
    if let Some(first) = status.pending().next() {
        return Ok(Some(format!(
            "{first} is not applied: herald migrate applies it"
        )));
    }
    status.check()?;
    if let Some(forgets) = status.forgets_revocations(&config.nats) {
        return Ok(Some(forgets));
    }
    for difference in &status.differences {
        warn!(target: UNLIMITED, %difference, "jetstream differs from the settings, herald migrate reconciles it");
    }
    for edit in &status.edits {
        warn!(target: UNLIMITED, edit = edit.advice(), "a stream was changed by hand");
    }
    Ok(None)
}

/// Refuses to serve where the NATS user lacks a permission. The server reports it only when it is
/// used, and then answers nothing: joins would fail for ever, or sockets would get nothing.
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
