//! Which sockets are open, in pages.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use chrono::{DateTime, SecondsFormat};
use tokio::task::yield_now;
use uuid::Uuid;

use super::wire::{PAGE_SESSIONS, RequestError, SessionReport, SessionsQuery, SessionsReport};
use crate::room::SessionId;
use crate::server::{Directory, OpenSocket};

/// Sockets that are looked at between two moments for others.
const LOOK: usize = 256;
/// A page ends here, whatever its limit: NATS takes messages of 1 MiB.
const PAGE_BYTES: usize = 256 * 1024;

/// The page that is wanted, or how many sockets there are.
///
/// # Errors
/// Where `query` has a value that cannot be.
pub(in crate::ops) async fn list(
    directory: &Directory,
    query: &SessionsQuery,
) -> Result<SessionsReport, RequestError> {
    let (limit, mut after) = query.check()?;
    let (mut report, mut bytes, mut total) = (SessionsReport::default(), 0, 0);
    let now = SystemTime::now();
    loop {
        let sockets = directory.page(after, LOOK);
        let Some(last) = sockets.last() else {
            report.total = query.count.then_some(total);
            return Ok(report);
        };
        after = Some(last.session);
        for socket in sockets.iter().filter(|socket| query.wants(socket, now)) {
            total += 1;
            if query.count {
                continue;
            }
            let row = describe(socket);
            bytes += serde_json::to_vec(&row).map_or(0, |row| row.len());
            report.sessions.push(row);
            if report.sessions.len() == limit || bytes >= PAGE_BYTES {
                report.next = Some(socket.session.to_string());
                return Ok(report);
            }
        }
        yield_now().await;
    }
}

/// Reads the name of a session.
///
/// # Errors
/// Where it is none.
pub(super) fn parse_session(text: &str) -> Result<SessionId, RequestError> {
    // In the one form in which it is written; a UUID has others.
    let parsed = Some(text).filter(|text| text.len() == 32);
    let parsed = parsed.and_then(|text| Uuid::try_parse(text).ok());
    let error = || RequestError::bad("a session must be 32 hexadecimal digits");
    parsed.map(SessionId::from).ok_or_else(error)
}

/// Whether `socket` is a socket of this user, of this issuer's, and in this workspace, as far as they are given.
pub(super) fn is_of(
    socket: &OpenSocket,
    workspace: Option<&str>,
    user: Option<&str>,
    issuer: Option<&str>,
) -> bool {
    let is = |wanted: Option<&str>, found: &str| wanted.is_none_or(|wanted| wanted == found);
    is(workspace, socket.workspace().as_str())
        && is(user, &socket.subject)
        && issuer.is_none_or(|issuer| socket.credential().issuer.as_deref() == Some(issuer))
}

impl SessionsQuery {
    /// How many sessions a page has, and the one that it comes after.
    ///
    /// # Errors
    /// Where a value cannot be.
    pub(super) fn check(&self) -> Result<(usize, Option<SessionId>), RequestError> {
        let [default, most] = PAGE_SESSIONS;
        let limit = self.limit.unwrap_or(default);
        if !(1..=most).contains(&limit) {
            return Err(RequestError::bad(format!("limit must be from 1 to {most}")));
        }
        let after = self.after.as_deref().map(parse_session).transpose()?;
        Ok((limit, after))
    }

    fn wants(&self, socket: &OpenSocket, now: SystemTime) -> bool {
        let age = now.duration_since(socket.opened).unwrap_or_default();
        let is_old = |least| age >= Duration::from_secs(least);
        let is_young = |most| age <= Duration::from_secs(most);
        let (workspace, user) = (self.workspace.as_deref(), self.user.as_deref());
        self.older_s.is_none_or(is_old)
            && self.younger_s.is_none_or(is_young)
            && is_of(socket, workspace, user, self.issuer.as_deref())
    }
}

fn describe(socket: &Arc<OpenSocket>) -> SessionReport {
    let credential = socket.credential();
    SessionReport {
        session: socket.session.to_string(),
        workspace: socket.workspace().as_str().to_owned(),
        user: socket.subject.as_ref().to_owned(),
        issuer: credential.issuer.as_deref().map(str::to_owned),
        opened: written(socket.opened),
        expires: written(credential.expires_at),
    }
}

/// A time as RFC 3339 has it, in whole seconds.
pub(super) fn written(time: SystemTime) -> String {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    let seconds = since.unwrap_or_default().as_secs();
    let time = i64::try_from(seconds)
        .ok()
        .and_then(|seconds| DateTime::from_timestamp(seconds, 0));
    // Later than any calendar has.
    time.map_or_else(String::new, |time| {
        time.to_rfc3339_opts(SecondsFormat::Secs, true)
    })
}
