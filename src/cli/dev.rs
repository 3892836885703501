//! `herald dev`.

use super::CliError;
use crate::config::Config;

/// Arguments of `herald dev`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) async fn run(_args: Args, _config: Config) -> Result<(), CliError> {
    Err(CliError::Failure("not built yet".to_owned()))
}
