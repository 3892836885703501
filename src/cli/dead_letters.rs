//! `herald dead-letters`: the events that could not become notifications, and why.

use async_nats::Client;

use super::nats::{NatsConnection, no_stream};
use super::{CliError, output};
use crate::config::{Config, NatsConfig, names};
use crate::event::WorkspaceSlug;
use crate::nats::{DirectGet, DirectGetError, RawStored};

/// Letters of one read, and about how many bytes: their payloads come along.
const BATCH: usize = 512;
const BATCH_BYTES: usize = 4 * 1024 * 1024;

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
    after_help = "SEQUENCE and TIME are those of the event in its own stream. \
    `nats stream get DEAD --last-for dead.<workspace>.<sequence>` shows its payload."
)]
pub(super) struct Args {
    /// Only those of this workspace; `_unroutable`: of events whose subject names no workspace.
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

/// One row.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    /// In the order of [`HEADINGS`].
    cells: [String; 6],
    /// Bytes of the payload, where the letter was cut short and has its beginning only.
    payload_bytes: Option<u64>,
}

pub(super) async fn run(args: Args, config: Config) -> Result<(), CliError> {
    let mut nats = NatsConnection::open(&config, "herald dead-letters").await?;
    let names = config.nats.names();
    let get = DirectGet::new(nats.client.clone(), &names, names.dead());
    let subject = match &args.workspace {
        Some(workspace) => names::letter(workspace, "*"),
        None => names::ALL_LETTERS.to_owned(),
    };
    let mut rows = Vec::new();
    let mut from = 0;
    loop {
        let reading = read(&get, &mut from, &subject, &mut rows);
        let read = nats.allowed(reading).await?;
        let more = read.map_err(|error| failure(&error, &nats.client, &config.nats))?;
        // JSON needs no widths, so that it need not wait for the last row.
        if args.json {
            for row in rows.drain(..) {
                if !output::line(&row.json())? {
                    return Ok(());
                }
            }
        }
        if !more {
            break;
        }
    }
    if args.json {
        return Ok(());
    }
    if rows.is_empty() {
        eprintln!("herald: no dead letters");
        return Ok(());
    }
    for line in table(&rows) {
        if !output::line(&line)? {
            return Ok(());
        }
    }
    Ok(())
}

/// Reads one batch from sequence `from` on; says whether there are more.
async fn read(
    get: &DirectGet,
    from: &mut u64,
    subject: &str,
    rows: &mut Vec<Row>,
) -> Result<bool, DirectGetError> {
    let mut batch = get
        .next_by_subject(*from, BATCH, BATCH_BYTES, subject)
        .await?;
    while let Some(raw) = batch.next().await? {
        *from = raw.sequence + 1;
        rows.push(Row::new(&raw));
    }
    Ok(batch.end().pending > 0)
}

impl Row {
    fn new(raw: &RawStored) -> Self {
        let mut tokens = raw.subject.split('.').skip(1);
        let mut token = || tokens.next().unwrap_or_default().to_owned();
        let header = |name: &str| {
            let value = raw.headers.as_ref().and_then(|headers| headers.get(name));
            value.map(|value| value.as_str().to_owned())
        };
        let payload_bytes = header("Herald-Payload-Bytes");
        Self {
            payload_bytes: payload_bytes.and_then(|bytes| bytes.parse().ok()),
            cells: [
                token(),
                token(),
                header("Herald-Subject").unwrap_or_default(),
                header("Herald-Reason").unwrap_or_default(),
                header("Herald-Time").unwrap_or_default(),
                header("Herald-Detail").unwrap_or_default(),
            ],
        }
    }

    /// The cells as the table has them.
    fn shown(&self) -> [String; 6] {
        let mut cells = self.cells.clone().map(|cell| output::harmless(&cell));
        if let (Some(bytes), [.., detail]) = (self.payload_bytes, &mut cells) {
            detail.push_str(&format!(" (cut short, the payload had {bytes} bytes)"));
        }
        cells
    }

    fn json(&self) -> String {
        let [workspace, sequence, subject, reason, time, detail] = &self.cells;
        let sequence = sequence.parse::<u64>().unwrap_or(0);
        let text = |text: &str| serde_json::Value::from(text);
        let cut = self
            .payload_bytes
            .map_or_else(String::new, |bytes| format!(r#","payload_bytes":{bytes}"#));
        format!(
            r#"{{"workspace":{},"sequence":{sequence},"subject":{},"reason":{},"time":{},"detail":{}{cut}}}"#,
            text(workspace),
            text(subject),
            text(reason),
            text(time),
            text(detail)
        )
    }
}

/// The rows under their headings, in columns as wide as they need.
fn table(rows: &[Row]) -> Vec<String> {
    let headings = HEADINGS.map(str::to_owned);
    let cells: Vec<[String; 6]> = std::iter::once(headings)
        .chain(rows.iter().map(Row::shown))
        .collect();
    let mut widths = [0; 6];
    for row in &cells {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    cells
        .iter()
        .map(|row| {
            let padded: Vec<String> = row
                .iter()
                .zip(widths)
                .map(|(cell, width)| format!("{cell:width$}"))
                .collect();
            padded.join("  ").trim_end().to_owned()
        })
        .collect()
}

fn failure(error: &DirectGetError, client: &Client, config: &NatsConfig) -> CliError {
    let names = config.names();
    let stream = names.dead();
    CliError::Failure(match error {
        DirectGetError::NoResponders => no_stream(client, config, stream),
        DirectGetError::Timeout(_) => format!(
            "{error} at {}: is NATS up, and may this user publish to {}?",
            config.hosts(),
            names.api("DIRECT.GET", stream)
        ),
        _ => error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(cells: [&str; 6]) -> Row {
        Row {
            cells: cells.map(str::to_owned),
            payload_bytes: None,
        }
    }

    #[test]
    fn a_letter_that_was_cut_says_so() {
        let cut = Row {
            payload_bytes: Some(130_048),
            ..row(["acme", "7", "s", "too_large", "t", "d"])
        };
        let table = table(std::slice::from_ref(&cut));
        let detail = "d (cut short, the payload had 130048 bytes)";
        assert!(table.iter().any(|line| line.ends_with(detail)), "{table:?}");
        assert!(
            cut.json()
                .ends_with(r#""detail":"d","payload_bytes":130048}"#)
        );
    }

    #[test]
    fn a_table_is_as_wide_as_its_cells_and_steers_no_terminal() {
        let lines = table(&[
            row(["acme", "7", "ws.acme.x\u{1b}", "subject", "t", "d"]),
            row(["a-long-workspace", "8", "s", "json", "t", ""]),
        ]);
        assert_eq!(
            lines,
            [
                "WORKSPACE         SEQUENCE  SUBJECT     REASON   TIME  DETAIL",
                "acme              7         ws.acme.x\u{fffd}  subject  t     d",
                "a-long-workspace  8         s           json     t",
            ]
        );
    }

    #[test]
    fn json_has_the_sequence_as_a_number() {
        assert_eq!(
            row(["acme", "7", "s", "json", "t", "d"]).json(),
            r#"{"workspace":"acme","sequence":7,"subject":"s","reason":"json","time":"t","detail":"d"}"#
        );
    }
}
