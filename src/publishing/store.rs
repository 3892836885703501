//! The connection that publishes, with a login of its own, and whether an event can be stored now.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Client, HeaderMap};
use bytes::Bytes;
use tokio::sync::Notify;
use tracing::{info, warn};

use super::check::{not_stored, unsure};
use super::problem::PublishProblem;
use crate::codes::ProblemType;
use crate::config::{Names, NatsConfig, PublishConfig, names};
use crate::event::WorkspaceSlug;
use crate::nats::{
    ConnectError, Connection, PubAck, PublishError, connect, duplicate_window, permissions,
    publish_once, stream_of,
};

/// How long the acknowledgement may take.
const ACK_TIMEOUT: Duration = Duration::from_secs(5);
/// The pause before it is tried again whether events can be stored.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// How often it is tried while they can: the window may change, and the stream.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);
/// The name of the connection at the NATS server.
const NAME: &str = "herald publishing";

/// Where events are stored. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct EventStore(Arc<StoreState>);

#[derive(Debug, Default)]
struct StoreState {
    client: OnceLock<Client>,
    /// Since the last look; of the beginning nothing is known.
    fitness: RwLock<Fitness>,
    /// The stream's window, in milliseconds.
    window: AtomicU64,
    /// What the server denied since the last look.
    denied: Mutex<Option<String>>,
    denial: Notify,
}

/// Whether events can be stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
enum Fitness {
    #[default]
    Unknown,
    Fit,
    /// Why not, for operators.
    Unfit(ProblemType, String),
}

/// Why events cannot be stored now.
#[derive(Debug)]
enum Obstacle {
    /// It does not change by itself.
    Lasting(String),
    Passing(ProblemType, String),
}

/// What the publishing connection is made with.
#[derive(Debug)]
pub(crate) struct StoreSettings {
    nats: NatsConfig,
    publish: PublishConfig,
    /// The gateway's own connection, which may read about the stream.
    gateway: Connection,
}

impl StoreSettings {
    pub(crate) fn new(nats: &NatsConfig, publish: &PublishConfig, gateway: Connection) -> Self {
        Self {
            nats: publish.nats(nats),
            publish: publish.clone(),
            gateway,
        }
    }
}

impl EventStore {
    /// Connects, and finds out whether events can be stored. Returns what goes on finding out.
    ///
    /// # Errors
    /// A sentence, where the settings or the permissions are wrong.
    pub(super) async fn open(
        &self,
        settings: StoreSettings,
    ) -> Result<impl Future<Output = Infallible> + use<>, String> {
        if let Err(Obstacle::Lasting(why)) = self.look(&settings).await {
            return Err(why);
        }
        let store = self.clone();
        Ok(async move { store.keep_looking(&settings).await })
    }

    async fn keep_looking(&self, settings: &StoreSettings) -> Infallible {
        loop {
            let pause = match self.look(settings).await {
                Ok(()) => LOOK_INTERVAL,
                Err(_) => RETRY_PAUSE,
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.0.denial.notified(), if pause == LOOK_INTERVAL => {}
            }
        }
    }

    /// Looks once, and says in the log what has changed.
    async fn look(&self, settings: &StoreSettings) -> Result<(), Obstacle> {
        let found = self.try_all(settings).await;
        let fitness = match &found {
            Ok(()) => Fitness::Fit,
            Err(Obstacle::Lasting(why)) => Fitness::Unfit(ProblemType::Refused, why.clone()),
            Err(Obstacle::Passing(problem, why)) => Fitness::Unfit(*problem, why.clone()),
        };
        let mut known = self
            .0
            .fitness
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if *known != fitness {
            match &fitness {
                Fitness::Unfit(_, why) => warn!(why, "http publishing waits"),
                Fitness::Fit | Fitness::Unknown => info!("http publishing is ready"),
            }
            *known = fitness;
        }
        found
    }

    async fn try_all(&self, settings: &StoreSettings) -> Result<(), Obstacle> {
        let client = self.connected(settings).await?;
        self.prove(client, settings).await?;
        let names = settings.nats.names();
        match duplicate_window(settings.gateway.client(), &names).await {
            Ok(window) => {
                let millis = u64::try_from(window.as_millis()).unwrap_or(u64::MAX);
                self.0.window.store(millis, Ordering::Relaxed);
            }
            // The last one that is known does.
            Err(_) if self.0.window.load(Ordering::Relaxed) > 0 => {}
            Err(error) => {
                let why = format!("the stream {} cannot be read: {error}", names.events());
                return Err(Obstacle::Passing(ProblemType::Starting, why));
            }
        }
        Ok(())
    }

    async fn connected(&self, settings: &StoreSettings) -> Result<&Client, Obstacle> {
        if let Some(client) = self.0.client.get() {
            return Ok(client);
        }
        let (state, config) = (Arc::clone(&self.0), settings.nats.clone());
        let happens = move |event| {
            if let Some(denial) = permissions::denial(&event, &config) {
                *state.denied.lock().unwrap_or_else(PoisonError::into_inner) = Some(denial);
                state.denial.notify_one();
            }
        };
        match connect(&settings.nats, NAME, happens).await {
            Ok(client) => Ok(self.0.client.get_or_init(|| client)),
            Err(error @ ConnectError::Unreachable(_)) => {
                Err(Obstacle::Passing(ProblemType::Starting, error.to_string()))
            }
            Err(error) => Err(Obstacle::Lasting(
                settings.publish.renamed(&error.to_string()),
            )),
        }
    }

    /// Whether an event would be stored, and its acknowledgement come back. Nothing is stored by it.
    async fn prove(&self, client: &Client, settings: &StoreSettings) -> Result<(), Obstacle> {
        let denied = || {
            let mut denied = self.0.denied.lock().unwrap_or_else(PoisonError::into_inner);
            denied.take()
        };
        denied();
        let names = settings.nats.names();
        let subject = names.subject(&names::event(permissions::WORKSPACE, "custom.check"));
        let found = tokio::select! {
            found = stream_of(client, subject.clone(), ACK_TIMEOUT) => found,
            () = self.0.denial.notified() => Err(PublishError::Timeout(ACK_TIMEOUT)),
        };
        if let Some(denial) = denied() {
            return Err(Obstacle::Lasting(settings.publish.renamed(&denial)));
        }
        match found {
            Ok(_) => Ok(()),
            Err(PublishError::NoStream) => {
                let why = format!("no stream takes {subject}: `herald migrate` makes it");
                Err(Obstacle::Passing(ProblemType::NoStream, why))
            }
            Err(error) => Err(Obstacle::Passing(ProblemType::Starting, error.to_string())),
        }
    }

    /// Why events cannot be stored now, for operators.
    pub(super) fn obstacle(&self) -> Option<String> {
        let fitness = self
            .0
            .fitness
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        match &*fitness {
            Fitness::Unfit(_, why) => Some(why.clone()),
            Fitness::Fit if self.is_connected() => None,
            Fitness::Fit => Some("there is no connection to NATS".to_owned()),
            Fitness::Unknown => {
                Some("it is being found out whether events can be stored".to_owned())
            }
        }
    }

    fn is_connected(&self) -> bool {
        let client = self.0.client.get();
        client.is_some_and(|client| client.connection_state() == State::Connected)
    }

    /// The connection, if events can be stored. Without one the client would keep them, and send them later.
    ///
    /// # Errors
    /// A problem of status 503.
    pub(super) fn client(&self) -> Result<&Client, PublishProblem> {
        let away = || {
            PublishProblem::new(
                ProblemType::Starting,
                not_stored("there is no connection to NATS"),
            )
        };
        let fitness = self
            .0
            .fitness
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        match &*fitness {
            Fitness::Fit => {}
            Fitness::Unfit(problem @ (ProblemType::NoStream | ProblemType::Refused), _) => {
                // What it is, the log and /readyz say.
                let why =
                    not_stored("the gateway cannot publish to NATS, its operator has to help");
                return Err(PublishProblem::new(*problem, why));
            }
            Fitness::Unfit(..) | Fitness::Unknown => return Err(away()),
        }
        drop(fitness);
        self.0
            .client
            .get()
            .filter(|_| self.is_connected())
            .ok_or_else(away)
    }

    /// How long the stream knows an id.
    pub(super) fn window(&self) -> Duration {
        Duration::from_millis(self.0.window.load(Ordering::Relaxed))
    }
}

/// An event to be stored.
#[derive(Debug)]
pub(super) struct NewEvent<'a> {
    pub(super) subject: &'a str,
    pub(super) headers: HeaderMap,
    pub(super) payload: Bytes,
}

/// The `Nats-Msg-Id` of a sender's key: streams deduplicate across all their subjects, so that it needs its workspace. A
/// blank is in no key, so that no event of a batch has the id of another request.
pub(super) fn message_id(workspace: &WorkspaceSlug, key: &str, index: Option<usize>) -> String {
    match index {
        None => format!("{workspace}:{key}"),
        Some(index) => format!("{workspace}:{key} {index}"),
    }
}

/// Stores the event, and waits for the acknowledgement.
///
/// # Errors
/// Why it is not stored, or that nobody knows.
pub(super) async fn store(
    client: &Client,
    names: &Names,
    event: NewEvent<'_>,
    window: Duration,
    workspace: &WorkspaceSlug,
) -> Result<PubAck, PublishProblem> {
    let has_id = event.headers.get("Nats-Msg-Id").is_some();
    let subject = names.subject(event.subject);
    let stored = publish_once(client, &subject, event.headers, event.payload, ACK_TIMEOUT).await;
    stored.map_err(|error| {
        let problem = match &error {
            PublishError::Timeout(_) | PublishError::Closed | PublishError::NotJetStream => {
                ProblemType::NotAcknowledged
            }
            PublishError::InProcess => ProblemType::InProcess,
            PublishError::NoStream => ProblemType::NoStream,
            PublishError::MaxPayload => ProblemType::TooLarge,
            PublishError::SubjectTaken | PublishError::StreamFull(_) | PublishError::AccountFull(_) => {
                ProblemType::Full
            }
            PublishError::Overtaken | PublishError::Refused(_) => ProblemType::Refused,
        };
        let detail = match (problem.may_be_stored(), has_id) {
            (false, _) => not_stored(&error),
            (true, true) => unsure(
                &error,
                &format!(
                    "send it again with the same Idempotency-Key: within {} s a second one is dropped",
                    window.as_secs()
                ),
            ),
            (true, false) => unsure(
                &error,
                &format!(
                    "`herald replay --workspace {workspace}` shows whether it is. With an Idempotency-Key an event \
                     can be sent again safely"
                ),
            ),
        };
        let is_unsure = problem.may_be_stored();
        let problem = PublishProblem::new(problem, detail);
        if is_unsure {
            problem.within(window)
        } else {
            problem
        }
    })
}
