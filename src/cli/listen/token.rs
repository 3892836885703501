//! Where `herald listen` has its token from, and keeping it out of what is printed.

use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use crate::config::Secret;

/// A token command that takes longer is ended: it probably waits for someone to type.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);

/// A token and how to get the next one.
#[derive(Debug)]
pub(super) struct TokenSource {
    current: Option<Secret>,
    /// The one before, which a server may still quote.
    previous: Option<Secret>,
    command: Option<String>,
}

impl TokenSource {
    pub(super) fn new(given: Option<Secret>, command: Option<String>) -> Self {
        Self {
            current: given,
            previous: None,
            command,
        }
    }

    pub(super) fn can_renew(&self) -> bool {
        self.command.is_some()
    }

    /// Has the next [`TokenSource::current`] ask the command.
    pub(super) fn forget_current(&mut self) {
        self.previous = self.current.take().or(self.previous.take());
    }

    /// The token, if there is one.
    pub(super) fn known(&self) -> Option<&str> {
        Some(self.current.as_ref()?.expose().trim())
    }

    /// Asks the command.
    pub(super) fn run_command(
        &self,
    ) -> impl Future<Output = Result<Secret, String>> + Send + 'static {
        let command = self.command.clone();
        async move { run(command.as_deref()).await }
    }

    /// Goes on with another token.
    pub(super) fn replace(&mut self, token: Secret) -> &str {
        self.previous = self.current.take();
        self.current.insert(token).expose()
    }

    /// The token, from the command if there is none.
    ///
    /// # Errors
    /// What went wrong with the command, in words that hold nothing of its output.
    pub(super) async fn current(&mut self) -> Result<&str, String> {
        let token = match self.current.take() {
            Some(token) => token,
            None => run(self.command.as_deref()).await?,
        };
        Ok(self.current.insert(token).expose().trim())
    }

    /// `text` without the token: what a server says might quote it.
    pub(super) fn redact(&self, text: &str) -> String {
        let tokens = [&self.current, &self.previous];
        let tokens = tokens.into_iter().flatten();
        let tokens = tokens.map(|token| token.expose().trim());
        tokens
            .filter(|token| !token.is_empty())
            .fold(text.to_owned(), |text, token| text.replace(token, "***"))
    }
}

async fn run(command: Option<&str>) -> Result<Secret, String> {
    let command = command.ok_or("there is no --token-command")?;
    run_with(command, &[]).await
}

/// The token that `command` prints, which is told more by `environment`.
///
/// # Errors
/// What went wrong with it, in words that hold nothing of its output.
pub(in crate::cli) async fn run_with(
    command: &str,
    environment: &[(&str, &str)],
) -> Result<Secret, String> {
    let output = Command::new("sh")
        .args(["-c", command])
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(COMMAND_TIMEOUT, output)
        .await
        .map_err(|_| {
            format!(
                "the token command took over {} s",
                COMMAND_TIMEOUT.as_secs()
            )
        })?
        .map_err(|error| format!("the token command cannot be run: {error}"))?;
    if !output.status.success() {
        return Err(format!("the token command failed: {}", output.status));
    }
    match String::from_utf8(output.stdout) {
        Ok(text) if text.trim().contains(char::is_whitespace) => {
            Err("the token command printed more than a token, which is one word".to_owned())
        }
        Ok(text) if !text.trim().is_empty() => Ok(Secret::from(text.trim())),
        _ => Err("the token command printed no token".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_command(command: &str) -> TokenSource {
        TokenSource::new(None, Some(command.to_owned()))
    }

    #[tokio::test]
    async fn the_command_runs_only_for_a_token_that_is_missing() {
        let directory = tempfile::tempdir().unwrap();
        let count = directory.path().join("count");
        let command = format!(
            "echo x >> {0}; echo ' token-'$(wc -l < {0})",
            count.display()
        );
        let mut tokens = TokenSource::new(Some(Secret::from("given\n")), Some(command));
        assert_eq!(tokens.current().await, Ok("given"));
        assert_eq!(tokens.current().await, Ok("given"));
        tokens.forget_current();
        assert_eq!(tokens.current().await, Ok("token-1"));
        assert_eq!(tokens.current().await, Ok("token-1"));
        tokens.forget_current();
        assert_eq!(tokens.current().await, Ok("token-2"));
    }

    #[tokio::test]
    async fn a_command_that_gives_no_token_is_reported_without_its_output() {
        for (command, expected) in [
            ("echo secret; exit 3", "exit status: 3"),
            ("true", "printed no token"),
            ("echo", "printed no token"),
            ("echo secret of two", "printed more than a token"),
            ("echo warning; echo secret", "printed more than a token"),
            ("printf '\\377'", "printed no token"),
            ("no-such-program-here 2>/dev/null", "exit status: 127"),
        ] {
            let error = from_command(command).current().await.unwrap_err();
            assert!(error.contains(expected), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn the_token_is_taken_out_of_any_text() {
        let tokens = TokenSource::new(Some(Secret::from("a.b.c\n")), None);
        assert_eq!(
            tokens.redact("your token a.b.c is bad"),
            "your token *** is bad"
        );
        assert!(!format!("{tokens:?}").contains("a.b.c"));
        assert_eq!(TokenSource::new(None, None).redact("text"), "text");
    }
}
