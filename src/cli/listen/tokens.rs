//! The token of `herald listen`: where it comes from, how it is kept out of what is printed, and its renewal.
//!
//! An open connection gets a new token before the one it was opened with expires. A failure here does no harm as long as
//! the old token is valid. After that the gateway closes with 4003, which leads to a new token as well.

use std::pin::Pin;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use tokio::time::Instant;

use crate::cli::token::from_command;
use crate::config::Secret;

/// A token is renewed so long before its end, or with a third of its time left where that is less.
const BEFORE: Duration = Duration::from_secs(60);

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

    /// Makes the next [`TokenSource::current`] run the command.
    pub(super) fn forget_current(&mut self) {
        self.previous = self.current.take().or(self.previous.take());
    }

    /// The token, if there is one.
    pub(super) fn known(&self) -> Option<&str> {
        Some(self.current.as_ref()?.expose().trim())
    }

    /// The next token, from the command.
    pub(super) fn run_command(
        &self,
    ) -> impl Future<Output = Result<Secret, String>> + Send + 'static {
        let command = self.command.clone();
        async move { run(command.as_deref()).await }
    }

    /// Uses another token from now on.
    pub(super) fn replace(&mut self, token: Secret) -> &str {
        self.previous = self.current.take();
        self.current.insert(token).expose()
    }

    /// The token, from the command if there is none.
    ///
    /// # Errors
    /// What went wrong with the command, without its output.
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
    from_command(command.ok_or("there is no --token-command")?, &[]).await
}

type Running = Pin<Box<dyn Future<Output = Result<Secret, String>> + Send>>;

/// When and how one connection gets its next token.
pub(super) struct Renewal<'a> {
    tokens: &'a mut TokenSource,
    /// The least time from one to the next.
    every: Duration,
    /// `None`: never.
    due: Option<Instant>,
    running: Option<Running>,
}

impl<'a> Renewal<'a> {
    pub(super) fn new(tokens: &'a mut TokenSource, every: Duration) -> Self {
        let expiry = tokens.known().and_then(expiry);
        let due = expiry.filter(|_| tokens.can_renew());
        Self {
            due: due.and_then(|expiry| instant(time_left(expiry, SystemTime::now()))),
            tokens,
            every,
            running: None,
        }
    }

    /// The next token to send. Safe to cancel.
    ///
    /// # Errors
    /// Why there is none this time, without the token.
    pub(super) async fn next(&mut self) -> Result<String, String> {
        let Some(due) = self.due else {
            return std::future::pending().await;
        };
        let running = match &mut self.running {
            Some(running) => running,
            None => {
                tokio::time::sleep_until(due).await;
                self.running.insert(Box::pin(self.tokens.run_command()))
            }
        };
        let output = running.await;
        self.running = None;
        let now = SystemTime::now();
        let token = output.and_then(|token| {
            judge(self.tokens.known(), token.expose(), now)?;
            Ok(token)
        });
        let next = match &token {
            Ok(token) => expiry(token.expose()).map(|expiry| time_left(expiry, now)),
            Err(_) => Some(self.every),
        };
        self.due = next.and_then(|next| instant(next.max(self.every)));
        match token {
            Ok(token) => Ok(self.tokens.replace(token).to_owned()),
            Err(why) => Err(format!(
                "the token was not renewed: {why}; next attempt in {} s",
                self.every.as_secs()
            )),
        }
    }
}

/// Whether a token is worth sending instead of the `known` one. A bad one would end the connection.
fn judge(known: Option<&str>, token: &str, now: SystemTime) -> Result<(), String> {
    let Some(new) = expiry(token) else {
        return Err("the token command printed a token without an expiry time".to_owned());
    };
    if known == Some(token) {
        return Err("the token command printed the same token".to_owned());
    }
    if new <= now {
        return Err("the token command printed a token that has expired".to_owned());
    }
    if known.and_then(expiry).is_some_and(|old| new <= old) {
        return Err("the token command printed a token that expires no later".to_owned());
    }
    Ok(())
}

/// When a token expires, if it is a JWT that says so. Its signature is the gateway's matter.
fn expiry(token: &str) -> Option<SystemTime> {
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let claims: Value = serde_json::from_slice(&payload).ok()?;
    let seconds = Duration::try_from_secs_f64(claims.get("exp")?.as_f64()?).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(seconds)
}

/// How long to wait before a token is renewed.
fn time_left(expiry: SystemTime, now: SystemTime) -> Duration {
    let left = expiry.duration_since(now).unwrap_or_default();
    left - BEFORE.min(left / 3)
}

fn instant(after: Duration) -> Option<Instant> {
    Instant::now().checked_add(after)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(exp: &str) -> String {
        let payload = URL_SAFE_NO_PAD.encode(format!(r#"{{"sub":"u","exp":{exp}}}"#));
        format!("e30.{payload}.c2ln")
    }

    #[test]
    fn a_token_is_renewed_a_minute_before_its_end_or_in_its_last_third() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        for (exp, wait) in [
            ("1003600", Some(3540)),
            ("1003600.5", Some(3540)),
            ("1000030", Some(20)),
            ("1000000", Some(0)),
            ("1", Some(0)),
            ("\"soon\"", None),
            ("-1", None),
            ("1e300", None),
        ] {
            let wait_for = expiry(&token(exp)).map(|expiry| time_left(expiry, now).as_secs());
            assert_eq!(wait_for, wait, "{exp}");
        }
        for opaque in ["", "opaque", "a.b.c", "e30.e30.e30"] {
            assert_eq!(expiry(opaque), None, "{opaque}");
        }
    }

    #[test]
    fn only_a_token_that_expires_later_is_sent() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        let known = token("2000");
        for (new, why) in [
            (token("2001"), None),
            (known.clone(), Some("the same token")),
            (token("2000.0"), Some("expires no later")),
            (token("1500"), Some("expires no later")),
            (token("999"), Some("has expired")),
            ("opaque".to_owned(), Some("without an expiry time")),
        ] {
            let judged = judge(Some(&known), &new, now);
            assert_eq!(judged.is_ok(), why.is_none(), "{new}: {judged:?}");
            assert!(
                judged
                    .err()
                    .unwrap_or_default()
                    .contains(why.unwrap_or_default())
            );
        }
    }

    fn source_of(command: &str) -> TokenSource {
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
            let error = source_of(command).current().await.unwrap_err();
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
