//! `herald dead-letters`: the events that could not become notifications, and why.

use serde::Serialize;

use super::nats::{NatsConnection, ReadFrom};
use super::{CliError, output};
use crate::config::{Config, names};
use crate::event::StoredMessage;
use crate::event::WorkspaceSlug;

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

/// One dead letter, without its payload.
#[derive(Debug, Serialize)]
struct Listed {
    workspace: String,
    sequence: u64,
    subject: String,
    reason: String,
    time: String,
    detail: String,
    /// Of the whole payload, where the letter was cut short and has its beginning only.
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_bytes: Option<u64>,
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
        let letter = Listed::new(&raw);
        if args.json {
            return output::line(letter.json());
        }
        rows.push(letter.cells());
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

impl Listed {
    fn new(raw: &StoredMessage) -> Self {
        let mut tokens = raw.subject.split('.').skip(1);
        let mut token = || tokens.next().unwrap_or_default();
        let header = |name: &str| {
            let value = raw.headers.as_ref().and_then(|headers| headers.get(name));
            value.map_or(String::new(), |value| value.as_str().to_owned())
        };
        Self {
            workspace: token().to_owned(),
            sequence: token().parse().unwrap_or_default(),
            subject: header("Herald-Subject"),
            reason: header("Herald-Reason"),
            time: header("Herald-Time"),
            detail: header("Herald-Detail"),
            payload_bytes: header("Herald-Payload-Bytes").parse().ok(),
        }
    }

    /// In the order of [`HEADINGS`].
    fn cells(self) -> [String; 6] {
        let cut = self.payload_bytes.map_or_else(String::new, |bytes| {
            format!(" (cut short, the payload had {bytes} bytes)")
        });
        [
            self.workspace,
            self.sequence.to_string(),
            self.subject,
            self.reason,
            self.time,
            self.detail + &cut,
        ]
    }

    fn json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(payload_bytes: Option<u64>) -> Listed {
        let text = str::to_owned;
        Listed {
            workspace: text("acme"),
            sequence: 7,
            subject: text("s"),
            reason: text("json"),
            time: text("t"),
            detail: text("d"),
            payload_bytes,
        }
    }

    #[test]
    fn a_letter_that_was_cut_says_so() {
        let cut = letter(Some(130_048));
        assert!(
            cut.json()
                .ends_with(r#""detail":"d","payload_bytes":130048}"#)
        );
        let [.., detail] = cut.cells();
        assert_eq!(detail, "d (cut short, the payload had 130048 bytes)");
    }

    #[test]
    fn json_has_the_sequence_as_a_number() {
        assert_eq!(
            letter(None).json(),
            r#"{"workspace":"acme","sequence":7,"subject":"s","reason":"json","time":"t","detail":"d"}"#
        );
    }
}
