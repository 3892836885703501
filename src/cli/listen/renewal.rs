//! A new token for a connection that is open, before the one it was opened with expires. What fails here is no
//! matter as long as the token holds, and then the gateway closes with 4003, which is another way to a new token.

use std::pin::Pin;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use tokio::time::Instant;

use super::token::TokenSource;
use crate::config::Secret;

/// A token is renewed so long before its end, or with a third of its time left where that is less.
const BEFORE: Duration = Duration::from_secs(60);

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
    /// Why there is none this time, in words that hold nothing of it.
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
}
