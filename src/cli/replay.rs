//! `herald replay`: what past events would become, computed from the stream and sent to nobody.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::nats::{NatsConnection, ReadFrom};
use super::{CliError, output};
use crate::config::{Config, names};
use crate::event::WorkspaceSlug;
use crate::projection::{Notification, Projector, Recipients};

/// Arguments of `herald replay`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Prints the notifications, one JSON object a line, as the current rules and settings make them. \
    Bad events go to standard error, with their sequence and reason. Nothing is sent to clients."
)]
pub(super) struct Args {
    /// The workspace's slug.
    #[arg(long, value_name = "SLUG", value_parser = WorkspaceSlug::parse)]
    workspace: WorkspaceSlug,
    /// How far to look back. Events older than nats.max_age are gone.
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = parse_since)]
    since: Duration,
    /// Only the notifications for this user. Without it, those for any user.
    #[arg(long, value_name = "USER")]
    user: Option<String>,
}

fn parse_since(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text.trim())
        .map_err(|_| "this is not a duration: write for example 10m or 1h".to_owned())
}

pub(super) async fn run(args: Args, config: Config) -> Result<(), CliError> {
    let projector =
        Projector::from_config(&config.projection, &config.nats.stream).map_err(CliError::usage)?;
    let start = chrono::Duration::from_std(args.since)
        .ok()
        .and_then(|since| Utc::now().checked_sub_signed(since))
        .unwrap_or(DateTime::UNIX_EPOCH);
    let mut nats = NatsConnection::open(&config.nats, "herald replay").await?;
    let names = config.nats.names();
    let subject = names::event(&args.workspace, ">");
    let (mut notifications, mut bad_events) = (0_u64, 0_u64);
    let start = ReadFrom::Time(start);
    nats.read(names.events(), &subject, start, |raw| {
        let sequence = raw.sequence;
        match projector.project(&raw) {
            Ok(notification) if is_for(&notification, args.user.as_deref()) => {
                notifications += 1;
                output::line(&notification.encoded)
            }
            Ok(_) => Ok(true),
            Err(bad) => {
                bad_events += 1;
                eprintln!("herald: event {sequence} is bad: {bad}");
                Ok(true)
            }
        }
    })
    .await?;
    eprintln!("herald: {notifications} notifications, {bad_events} bad events");
    Ok(())
}

fn is_for(notification: &Notification, user: Option<&str>) -> bool {
    match (user, &notification.recipients) {
        (None, _) | (Some(_), Recipients::Everyone) => true,
        (Some(user), Recipients::Users(users)) => users.contains(user),
    }
}
