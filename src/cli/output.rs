//! What commands print: data on standard output, whose reader may go away at any time, and messages on standard error.

use std::fmt::Display;
use std::io::{BufWriter, ErrorKind, Write as _};

use serde::Serialize;

use super::CliError;

/// Prints one line. Says whether to go on: `head` closes the pipe, which is no failure.
///
/// # Errors
/// [`CliError::Failure`] where the output cannot be written for another reason.
pub(super) fn line(text: impl Display) -> Result<bool, CliError> {
    print([text])
}

/// Prints each line, as long as somebody reads.
///
/// # Errors
/// As [`line`].
pub(super) fn lines(lines: impl IntoIterator<Item = impl Display>) -> Result<(), CliError> {
    print(lines).map(drop)
}

/// Prints each of `values` as JSON, one a line.
///
/// # Errors
/// As [`line`].
pub(super) fn json_lines(values: &[impl Serialize]) -> Result<(), CliError> {
    let texts = values.iter().map(serde_json::to_string);
    let texts: Result<Vec<_>, _> = texts.collect();
    lines(texts.map_err(CliError::failure)?)
}

fn print(lines: impl IntoIterator<Item = impl Display>) -> Result<bool, CliError> {
    let mut out = BufWriter::new(std::io::stdout().lock());
    let mut lines = lines.into_iter();
    let written = lines.try_for_each(|text| writeln!(out, "{text}"));
    match written.and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => {
            // What is left must not be written at the end.
            let _ = out.into_parts();
            Ok(false)
        }
        Err(error) => Err(CliError::Failure(format!("cannot write: {error}"))),
    }
}

/// Messages on standard error, one line each.
pub(super) fn messages(lines: impl IntoIterator<Item = impl Display>) {
    for text in lines {
        eprintln!("herald: {text}");
    }
}

/// The rows under their headings, in columns as wide as they need. A cell steers no terminal.
pub(super) fn table<const N: usize>(
    headings: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> Vec<String> {
    let rows = rows.into_iter().map(|row| row.map(|cell| harmless(&cell)));
    let rows: Vec<_> = std::iter::once(headings.map(str::to_owned))
        .chain(rows)
        .collect();
    let mut widths = [0; N];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let padded = |row: &[String; N]| {
        let cells = row.iter().zip(widths);
        let cells: Vec<_> = cells
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        cells.join("  ").trim_end().to_owned()
    };
    rows.iter().map(padded).collect()
}

/// `text` without control characters: what a publisher chose must not steer a terminal.
pub(super) fn harmless(text: &str) -> String {
    text.replace(char::is_control, "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regression_a_subject_with_an_escape_sequence_does_not_reach_the_terminal() {
        assert_eq!(
            harmless("ws.acme.\u{1b}[2J\u{9b}x"),
            "ws.acme.\u{fffd}[2J\u{fffd}x"
        );
        assert_eq!(harmless("ws.acme.é"), "ws.acme.é");
    }

    #[test]
    fn a_table_is_as_wide_as_its_cells_and_steers_no_terminal() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned);
        let rows = [
            row(["acme", "ws.acme.x\u{1b}", "d"]),
            row(["a-long-workspace", "s", ""]),
        ];
        assert_eq!(
            table(["WORKSPACE", "SUBJECT", "DETAIL"], rows),
            [
                "WORKSPACE         SUBJECT     DETAIL",
                "acme              ws.acme.x\u{fffd}  d",
                "a-long-workspace  s",
            ]
        );
    }
}
