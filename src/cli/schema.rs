//! `herald schema`: the contract as an AsyncAPI document, and its parts as JSON Schemas.

use super::{CliError, output};
use crate::schema::{self, ASYNCAPI};

/// Arguments of `herald schema`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A name that `--list` prints, or an event such as `custom.order_placed`. Without it: the AsyncAPI document.
    #[arg(default_value = ASYNCAPI, hide_default_value = true)]
    name: String,
    /// Print all names.
    #[arg(long, conflicts_with = "name")]
    list: bool,
}

/// # Errors
/// A name that does not exist.
pub(super) fn run(args: &Args) -> Result<(), CliError> {
    if args.list {
        return output::lines(schema::names());
    }
    let found = schema::find(&args.name).map_err(CliError::Usage)?;
    output::lines([found.text.trim_end()])
}
