//! `herald schema`: the contract as an AsyncAPI document, and its parts as JSON Schemas.

use super::CliError;
use super::output::line;
use crate::schema::{self, ASYNCAPI};

/// `herald schema`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// One of `--list`, or an event such as `custom.order_placed`.
    #[arg(default_value = ASYNCAPI, hide_default_value = true)]
    name: String,
    /// Print the names of all that there is.
    #[arg(long, conflicts_with = "name")]
    list: bool,
}

/// Runs it.
///
/// # Errors
/// A name that there is not; an output that takes nothing.
pub(super) fn run(args: &Args) -> Result<(), CliError> {
    if args.list {
        let names: Vec<_> = schema::names().collect();
        return line(&names.join("\n")).map(drop);
    }
    let found = schema::find(&args.name).map_err(CliError::Usage)?;
    line(found.text.trim_end()).map(drop)
}
