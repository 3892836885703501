//! `herald dead-letters`: the events that could not become notifications, and why.

use super::nats::{NatsConnection, ReadFrom};
use super::{CliError, output};
use crate::config::{Config, names};
use crate::event::WorkspaceSlug;
use crate::nats::DeadLetterReport;

const HEADINGS: [&str; 6] = [
    "WORKSPACE",
    "SEQUENCE",
    "SUBJECT",
    "REASON",
    "TIME",
    "DETAIL",
];

/// Arguments of `herald dead-letters`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "SEQUENCE and TIME are those of the event in its own stream. To see its payload: \
    `nats stream get DEAD --last-for dead.<workspace>.<sequence>`."
)]
pub(super) struct Args {
    /// Only those of this workspace. `_unroutable` lists those whose subject names no workspace.
    #[arg(long, value_name = "SLUG", value_parser = parse_workspace)]
    workspace: Option<WorkspaceSlug>,
    /// Print one JSON object a line instead of a table.
    #[arg(long)]
    json: bool,
}

fn parse_workspace(text: &str) -> Result<WorkspaceSlug, String> {
    let unroutable = WorkspaceSlug::unroutable();
    if text == unroutable.as_str() {
        return Ok(unroutable);
    }
    WorkspaceSlug::parse(text).map_err(|error| error.to_string())
}

pub(super) async fn run(args: Args, config: Config) -> Result<(), CliError> {
    let mut nats = NatsConnection::open(&config.nats, "herald dead-letters").await?;
    let names = config.nats.names();
    let subject = match &args.workspace {
        Some(workspace) => names::letter(workspace, "*"),
        None => names::ALL_LETTERS.to_owned(),
    };
    let mut rows = Vec::new();
    nats.read(names.dead(), &subject, ReadFrom::Sequence(0), |raw| {
        let letter = DeadLetterReport::new(&raw);
        if args.json {
            return output::line(letter.json());
        }
        rows.push(cells(letter));
        Ok(true)
    })
    .await?;
    match (args.json, rows.is_empty()) {
        (true, _) => Ok(()),
        (false, true) => {
            eprintln!("herald: no dead letters");
            Ok(())
        }
        (false, false) => output::lines(output::table(HEADINGS, rows)),
    }
}

/// In the order of [`HEADINGS`].
fn cells(letter: DeadLetterReport) -> [String; 6] {
    let cut = letter.payload_bytes.map_or_else(String::new, |bytes| {
        format!(" (cut short, the payload had {bytes} bytes)")
    });
    [
        letter.workspace,
        letter.sequence.to_string(),
        letter.subject,
        letter.reason,
        letter.time,
        letter.detail + &cut,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_that_was_cut_says_so() {
        let letter = DeadLetterReport {
            detail: "d".to_owned(),
            payload_bytes: Some(130_048),
            ..DeadLetterReport::default()
        };
        let [.., detail] = cells(letter);
        assert_eq!(detail, "d (cut short, the payload had 130048 bytes)");
    }
}
