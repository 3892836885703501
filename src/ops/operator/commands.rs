//! What a gateway does for an operator: ends sessions, drains, changes its log level.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tracing::info;

use super::listing::{is_of, parse_session};
use super::wire::{DisconnectCommand, RequestError};
use crate::codes::CloseReason;
use crate::ops::closing::close_over;
use crate::room::SessionId;
use crate::server::Acceptor;
use crate::telemetry::{LevelError, LogLevel, UNLIMITED};

/// Disconnects whose sockets are being closed, at a time.
const DISCONNECTS: usize = 16;

/// Ends sessions.
#[derive(Debug)]
pub(super) struct Disconnector {
    acceptor: Arc<Acceptor>,
    under_way: Arc<Semaphore>,
}

impl Disconnector {
    pub(super) fn new(acceptor: Arc<Acceptor>) -> Self {
        Self {
            acceptor,
            under_way: Arc::new(Semaphore::new(DISCONNECTS)),
        }
    }

    /// Begins to close the sockets that are meant, and says how many they are.
    ///
    /// # Errors
    /// Where `command` says nothing that can be done, or too much is under way.
    pub(super) async fn disconnect(
        &self,
        command: DisconnectCommand,
    ) -> Result<usize, RequestError> {
        let (by, session, reason, window) = command.check()?;
        let guard = Arc::clone(&self.under_way).try_acquire_owned();
        let guard =
            guard.map_err(|_| RequestError::new(429, "too many disconnects are under way"))?;
        let directory = Arc::clone(self.acceptor.directory());
        let sessions = match session {
            Some(session) => directory
                .get(session)
                .map(|_| session)
                .into_iter()
                .collect(),
            None => {
                let (workspace, user) = (command.workspace.as_deref(), command.user.as_deref());
                let issuer = command.issuer.as_deref();
                let wanted = |socket: &_| is_of(socket, workspace, user, issuer);
                directory.select(wanted).await
            }
        };
        let sockets = sessions.len();
        let Some(rooms) = self.acceptor.rooms().filter(|_| sockets > 0).cloned() else {
            return Ok(0);
        };
        let code = reason.code();
        info!(target: UNLIMITED, sockets, code, by, "sessions ended by an operator");
        if reason.is_immediate() {
            for socket in sessions
                .iter()
                .filter_map(|session| directory.get(*session))
            {
                socket.writer.end_now(reason);
            }
        } else {
            tokio::spawn(async move {
                close_over(&rooms, &directory, sessions, reason, window, |_| true).await;
                drop(guard);
            });
        }
        Ok(sockets)
    }
}

impl DisconnectCommand {
    /// By what sessions are chosen, which one ends if one is named, with which reason, and over which time.
    ///
    /// # Errors
    /// Where the command says nothing that can be done.
    pub(super) fn check(
        &self,
    ) -> Result<(&'static str, Option<SessionId>, CloseReason, Duration), RequestError> {
        let by = self.target()?;
        let session = self.session.as_deref().map(parse_session).transpose()?;
        let reason = self.close_reason()?;
        Ok((by, session, reason, self.window(reason)?))
    }

    /// Whose sessions end, in a word.
    ///
    /// # Errors
    /// Where the command does not name exactly that.
    fn target(&self) -> Result<&'static str, RequestError> {
        let Self {
            session,
            user,
            issuer,
            workspace,
            ..
        } = self;
        match (session, user, issuer, workspace) {
            (Some(_), None, None, None) => Ok("session"),
            (None, Some(_), _, _) => Ok("user"),
            (None, None, None, Some(_)) => Ok("workspace"),
            _ => Err(RequestError::bad(
                "name a session, or a user (with an issuer and a workspace, if you like), or a workspace",
            )),
        }
    }
}

/// Sets the log level, or resets it to what is configured; what holds now.
///
/// # Errors
/// Where `filter` is none.
pub(super) fn set_log_level(
    level: &LogLevel,
    filter: Option<&str>,
) -> Result<String, RequestError> {
    // The change itself logs the filter.
    let changed = match filter {
        Some(filter) => level.set(filter),
        None => level.reset(),
    };
    match changed {
        Ok(()) => {
            info!(target: UNLIMITED, "log level changed by an operator");
            Ok(level.current())
        }
        Err(error @ LevelError::Filter(_)) => Err(RequestError::bad(error.to_string())),
        Err(error @ LevelError::Fixed) => Err(RequestError::new(500, error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disconnect_names_whose_sessions_end() {
        for (body, want) in [
            (r#"{"session":"7"}"#, Some("session")),
            (r#"{"user":"ada"}"#, Some("user")),
            (
                r#"{"user":"ada","issuer":"i","workspace":"w"}"#,
                Some("user"),
            ),
            (r#"{"workspace":"acme"}"#, Some("workspace")),
            ("{}", None),
            (r#"{"code":4001}"#, None),
            (r#"{"issuer":"i"}"#, None),
            (r#"{"issuer":"i","workspace":"w"}"#, None),
            (r#"{"session":"7","user":"ada"}"#, None),
            (r#"{"session":"7","workspace":"w"}"#, None),
        ] {
            let command: DisconnectCommand = serde_json::from_str(body).unwrap();
            assert_eq!(command.target().ok(), want, "{body}");
        }
    }
}
