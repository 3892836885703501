//! `herald replay`: what past events would have been, computed from the stream and sent to nobody.

use std::time::Duration;

use async_nats::Client;
use chrono::{DateTime, Utc};

use super::nats::{NatsConnection, no_stream};
use super::{CliError, output};
use crate::config::{Config, names};
use crate::event::WorkspaceSlug;
use crate::nats::{Batch, DirectGet, DirectGetError, RawStored};
use crate::projection::{Notification, Projector, Recipients};

/// Messages of one read, and about how many bytes: some hundredths of a second of a broker.
const BATCH: usize = 512;
const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// How often a read that broke off is begun again where it stopped.
const RETRIES: u32 = 3;

/// Arguments of `herald replay`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Prints the notifications, one JSON a line, as they would be with the current rules and \
        settings. Bad events go to standard error, with their sequence and reason. Nothing is sent."
)]
pub(super) struct Args {
    /// The workspace's slug.
    #[arg(long, value_name = "SLUG", value_parser = parse_workspace)]
    workspace: WorkspaceSlug,
    /// How far to look back. Events older than nats.max_age are gone.
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = parse_since)]
    since: Duration,
    /// Only what this user would have got. Without it, events for anybody are printed.
    #[arg(long, value_name = "USER")]
    user: Option<String>,
}

fn parse_workspace(text: &str) -> Result<WorkspaceSlug, String> {
    WorkspaceSlug::parse(text).map_err(|error| error.to_string())
}

fn parse_since(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text.trim())
        .map_err(|_| "this is not a duration: write for example 10m or 1h".to_owned())
}

pub(super) async fn run(args: Args, config: Config) -> Result<(), CliError> {
    let projector = Projector::from_config(&config.projection, &config.nats.stream)
        .map_err(|error| CliError::Usage(error.to_string()))?;
    let start = chrono::Duration::from_std(args.since)
        .ok()
        .and_then(|since| Utc::now().checked_sub_signed(since))
        .unwrap_or(DateTime::UNIX_EPOCH);
    let mut nats = NatsConnection::open(&config, "herald replay").await?;
    let names = config.nats.names();
    let mut reader = StreamReader {
        get: DirectGet::new(nats.client.clone(), &names, names.events()),
        subject: names::event(&args.workspace, ">"),
        from: From::Time(start),
    };
    let mut counts = ReplayCounts::default();
    let mut failures = 0;
    loop {
        let reading = reader.read(|raw| show(raw, &args, &projector, &mut counts));
        match nats.allowed(reading).await? {
            Ok(More::Yes) => failures = 0,
            Ok(More::No) => break,
            Err(ReplayError::Output(error)) => return Err(error),
            Err(ReplayError::Read(error)) => {
                failures += 1;
                let again = matches!(
                    error,
                    DirectGetError::Timeout(_) | DirectGetError::Incomplete
                );
                if !again || failures > RETRIES {
                    return Err(reader.failure(&error, &nats.client, &config));
                }
            }
        }
    }
    eprintln!(
        "herald: {} notifications, {} bad events",
        counts.notifications, counts.bad
    );
    Ok(())
}

#[derive(Debug, Default)]
struct ReplayCounts {
    notifications: u64,
    bad: u64,
}

/// Prints one event. Says whether to go on.
fn show(
    raw: RawStored,
    args: &Args,
    projector: &Projector,
    counts: &mut ReplayCounts,
) -> Result<bool, CliError> {
    let sequence = raw.sequence;
    match projector.project(&raw.into_stored(args.workspace.clone())) {
        Ok(notification) if is_for(&notification, args.user.as_deref()) => {
            counts.notifications += 1;
            output::line(&notification.encoded)
        }
        Ok(_) => Ok(true),
        Err(bad) => {
            counts.bad += 1;
            eprintln!("herald: event {sequence} is bad: {bad}");
            Ok(true)
        }
    }
}

fn is_for(notification: &Notification, user: Option<&str>) -> bool {
    match (user, &notification.recipients) {
        (None, _) | (Some(_), Recipients::Everyone) => true,
        (Some(user), Recipients::Users(users)) => users.contains(user),
    }
}

/// Reads the stream forward, a batch at a time.
#[derive(Debug)]
struct StreamReader {
    get: DirectGet,
    subject: String,
    from: From,
}

/// Where the next read begins.
#[derive(Debug, Clone, Copy)]
enum From {
    Time(DateTime<Utc>),
    Sequence(u64),
}

enum More {
    Yes,
    No,
}

enum ReplayError {
    Read(DirectGetError),
    Output(CliError),
}

impl StreamReader {
    /// Reads one batch, and stands behind the last message that `each` has taken.
    async fn read(
        &mut self,
        mut each: impl FnMut(RawStored) -> Result<bool, CliError>,
    ) -> Result<More, ReplayError> {
        let mut batch = self.batch().await.map_err(ReplayError::Read)?;
        while let Some(raw) = batch.next().await.map_err(ReplayError::Read)? {
            self.from = From::Sequence(raw.sequence + 1);
            if !each(raw).map_err(ReplayError::Output)? {
                return Ok(More::No);
            }
        }
        Ok(match batch.end().pending {
            0 => More::No,
            _ => More::Yes,
        })
    }

    async fn batch(&self) -> Result<Batch, DirectGetError> {
        let (get, subject) = (&self.get, &self.subject);
        match self.from {
            From::Time(time) => get.next_since(time, BATCH, BATCH_BYTES, subject).await,
            From::Sequence(sequence) => {
                get.next_by_subject(sequence, BATCH, BATCH_BYTES, subject)
                    .await
            }
        }
    }

    fn failure(&self, error: &DirectGetError, client: &Client, config: &Config) -> CliError {
        let names = config.nats.names();
        let stream = names.events();
        let at = match self.from {
            From::Time(_) => String::new(),
            From::Sequence(sequence) => format!(" from sequence {sequence} on"),
        };
        CliError::Failure(match error {
            DirectGetError::NoResponders => no_stream(client, &config.nats, stream),
            DirectGetError::Timeout(_) => format!(
                "{error}{at} at {}: is NATS up, and may this user publish to {}?",
                config.nats.hosts(),
                names.api("DIRECT.GET", stream)
            ),
            _ => format!("{error}{at}"),
        })
    }
}
