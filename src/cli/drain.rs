//! `herald drain`: has one gateway drain and end, as SIGTERM does.

use super::operator::{OperatorArgs, OperatorClient};
use super::{CliError, output};
use crate::config::Config;
use crate::ops::operator::wire::{DrainCommand, DrainReport, OperatorEndpoint};

/// Arguments of `herald drain`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The gateway closes its sockets with 1012 over server.drain, and its process ends with 0."
)]
pub(super) struct Args {
    /// Its name or process, as `herald gateways` has it.
    #[arg(value_name = "GATEWAY")]
    gateway: String,
    #[command(flatten)]
    operator: OperatorArgs,
}

pub(super) async fn run(args: Args, config: Config) -> Result<(), CliError> {
    let mut client = OperatorClient::open(&config, &args.operator).await?;
    let gateway = args.gateway.clone();
    let command = DrainCommand {
        gateway: args.gateway,
    };
    let answer = client
        .request_one::<DrainReport>(OperatorEndpoint::Drain, &command, &gateway)
        .await?;
    if args.operator.json {
        return output::json_lines(&[answer]);
    }
    let sockets = answer.body.sockets;
    let gateway = output::harmless(&answer.gateway);
    output::line(format!("{gateway} drains {sockets} sockets")).map(drop)
}
