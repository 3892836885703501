//! `herald disconnect`: ends a session, or those of a user or a workspace, on all gateways.

use std::time::Duration;

use super::operator::{OperatorArgs, OperatorClient};
use super::{CliError, output};
use crate::config::{Config, parse_duration};
use crate::ops::operator::wire::{Answer, ClosingReport, DisconnectCommand, OperatorEndpoint};

/// Arguments of `herald disconnect`.
#[derive(Debug, clap::Args)]
#[command(
    group = clap::ArgGroup::new("whose").required(true).multiple(true).args(["session", "user", "workspace"]),
    after_help = "Codes: 1012 (reconnect), 4001 (stop: `revoked` or `no access to this workspace`), 4003 (reconnect with \
    a new token), 4008 (reconnect). A disconnect ends what is open and keeps nobody out: take away the right first."
)]
pub(super) struct Args {
    /// One session, as `herald sessions` has it.
    #[arg(long, value_name = "ID", conflicts_with_all = ["user", "issuer", "workspace"])]
    session: Option<String>,
    /// All sessions of this user, as the token calls the user.
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// The user's issuer, the token's `iss`. Without it, users of all issuers.
    #[arg(long, value_name = "ISSUER", requires = "user")]
    issuer: Option<String>,
    /// All sessions of this workspace or, with --user, those of the user there.
    #[arg(long, value_name = "SLUG")]
    workspace: Option<String>,
    /// The close code: 1012, 4001, 4003 or 4008.
    #[arg(long, value_name = "CODE", default_value_t = 4003)]
    code: u16,
    /// Which reason of the code [default: its first].
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Spread the closes over this time, ten minutes at most. Not with 4001, which ends at once.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    over: Option<Duration>,
    #[command(flatten)]
    operator: OperatorArgs,
}

pub(super) async fn run(args: Args, config: Config) -> Result<(), CliError> {
    let over = |over: Duration| u64::try_from(over.as_millis()).unwrap_or(u64::MAX);
    let command = DisconnectCommand {
        session: args.session,
        user: args.user,
        issuer: args.issuer,
        workspace: args.workspace,
        code: Some(args.code),
        reason: args.reason,
        over_ms: args.over.map(over),
    };
    // As a gateway would refuse it.
    let checked = command
        .close_reason()
        .and_then(|reason| command.window(reason));
    checked.map_err(CliError::usage)?;
    let mut client = OperatorClient::open(&config, &args.operator).await?;
    let answered = client
        .request_all::<ClosingReport>(OperatorEndpoint::Disconnect, &command)
        .await?;
    if args.operator.json {
        output::json_lines(&answered.answers)?;
    } else {
        let closing = |answer: &Answer<ClosingReport>| answer.body.closing;
        let sockets: usize = answered.answers.iter().map(closing).sum();
        let gateways = answered.answers.iter().filter(|answer| closing(answer) > 0);
        output::line(match gateways.count() {
            0 => "no such session".to_owned(),
            1 => format!("closing {sockets} on 1 gateway"),
            gateways => format!("closing {sockets} on {gateways} gateways"),
        })?;
    }
    answered.silent.report(args.operator.json)
}
