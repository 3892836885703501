//! Lines on standard output, whose reader may go away at any time.

use std::io::{ErrorKind, Write as _};

use super::CliError;

/// Prints one line. Says whether to go on: `head` closes the pipe, which is no failure.
///
/// # Errors
/// [`CliError::Failure`] where the output cannot be written for another reason.
pub(super) fn line(text: &str) -> Result<bool, CliError> {
    let mut out = std::io::stdout().lock();
    let written = out
        .write_all(text.as_bytes())
        .and_then(|()| out.write_all(b"\n"))
        .and_then(|()| out.flush());
    match written {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(CliError::Failure(format!("cannot write: {error}"))),
    }
}

/// `text` without control characters: what a publisher chose must not steer a terminal.
pub(super) fn harmless(text: &str) -> String {
    text.chars()
        .map(|char| match char {
            char if char.is_control() => char::REPLACEMENT_CHARACTER,
            char => char,
        })
        .collect()
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
}
