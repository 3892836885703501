//! All sockets of this gateway, by session: who is connected, by which credential, and how to close them from outside
//! their rooms.
//!
//! Who takes a right away changes the state first, and looks through the directory then. A join enters the directory
//! first, and looks at the state then, just before its 101. So one of the two sees the other.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tokio::task::yield_now;

use crate::auth::{Credential, UserKey};
use crate::event::WorkspaceSlug;
use crate::room::{RoomHandle, SessionId};
use crate::socket::Writer;

/// Sockets that are looked at between two moments for others.
const PAGE: usize = 256;

/// All open sockets. Sessions are random, so that a part of them in their order is a random part of the sockets.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    /// A lock for an insertion, a removal, or the copy of one page.
    sockets: Mutex<BTreeMap<SessionId, Arc<OpenSocket>>>,
}

/// A socket as the rest of the gateway sees it. From before its 101 until its end begins.
#[derive(Debug)]
pub(crate) struct OpenSocket {
    pub(crate) session: SessionId,
    /// What the token calls the user.
    pub(crate) subject: Arc<str>,
    pub(crate) opened: SystemTime,
    pub(crate) writer: Writer,
    pub(crate) room: RoomHandle,
    credential: Mutex<Credential>,
}

/// An entry of the directory. Dropping it takes the socket out.
#[derive(Debug)]
pub(crate) struct DirectoryEntry {
    directory: Arc<Directory>,
    socket: Arc<OpenSocket>,
}

impl Directory {
    /// A socket is opening. From now on it can be found and closed.
    pub(crate) fn enter(self: &Arc<Self>, socket: OpenSocket) -> DirectoryEntry {
        let socket = Arc::new(socket);
        self.lock().insert(socket.session, Arc::clone(&socket));
        DirectoryEntry {
            directory: Arc::clone(self),
            socket,
        }
    }

    /// The socket of this session.
    pub(crate) fn get(&self, session: SessionId) -> Option<Arc<OpenSocket>> {
        self.lock().get(&session).cloned()
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    /// Up to `most` sockets in the order of their sessions, from the first one behind `after` on.
    pub(crate) fn page(&self, after: Option<SessionId>, most: usize) -> Vec<Arc<OpenSocket>> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let sockets = self.lock();
        let page = sockets.range((from, Bound::Unbounded)).take(most);
        page.map(|(_, socket)| Arc::clone(socket)).collect()
    }

    /// The sessions of the sockets that are `wanted`. All that are there throughout are looked at; others get their
    /// turn meanwhile.
    pub(crate) async fn select(&self, wanted: impl Fn(&OpenSocket) -> bool) -> Vec<SessionId> {
        let mut selected = Vec::new();
        let mut after = None;
        loop {
            let page = self.page(after, PAGE);
            let sessions = page.iter().filter(|socket| wanted(socket));
            selected.extend(sessions.map(|socket| socket.session));
            match page.last() {
                Some(last) => after = Some(last.session),
                None => return selected,
            }
            yield_now().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SessionId, Arc<OpenSocket>>> {
        // No code that holds the lock can panic half-way through a change.
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OpenSocket {
    pub(crate) fn new(
        session: SessionId,
        room: RoomHandle,
        writer: Writer,
        subject: Arc<str>,
        credential: Credential,
    ) -> Self {
        Self {
            session,
            subject,
            opened: SystemTime::now(),
            writer,
            room,
            credential: Mutex::new(credential),
        }
    }

    pub(crate) fn workspace(&self) -> &WorkspaceSlug {
        self.room.workspace()
    }

    /// By what it is open now. A fresh token changes all of it but the user.
    pub(crate) fn credential(&self) -> Credential {
        self.lock().clone()
    }

    pub(crate) fn user(&self) -> UserKey {
        self.lock().user
    }

    /// It is open by another credential of its user from now on.
    pub(super) fn renew(&self, credential: Credential) {
        *self.lock() = credential;
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Credential> {
        self.credential
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::ops::Deref for DirectoryEntry {
    type Target = OpenSocket;

    fn deref(&self) -> &OpenSocket {
        &self.socket
    }
}

impl Drop for DirectoryEntry {
    fn drop(&mut self) {
        self.directory.lock().remove(&self.socket.session);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::auth::KeyId;

    const USER: &str = "ada";

    fn socket(number: u128) -> OpenSocket {
        let workspace = WorkspaceSlug::parse("acme").unwrap();
        let thumbprint = "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs";
        let credential = Credential {
            user: UserKey::new(None, USER),
            issuer: None,
            issued_at: None,
            token: None,
            key: KeyId::of_thumbprint(thumbprint).unwrap(),
            expires_at: SystemTime::UNIX_EPOCH,
        };
        let writer = Writer::new(0, Arc::default());
        let room = RoomHandle::of_no_room(workspace);
        OpenSocket::new(
            SessionId::from_u128(number),
            room,
            writer,
            USER.into(),
            credential,
        )
    }

    fn numbers(sockets: &[Arc<OpenSocket>]) -> Vec<SessionId> {
        sockets.iter().map(|socket| socket.session).collect()
    }

    fn ids(numbers: impl IntoIterator<Item = u128>) -> Vec<SessionId> {
        numbers.into_iter().map(SessionId::from_u128).collect()
    }

    #[test]
    fn a_socket_is_there_from_its_entry_to_its_end() {
        let directory = Arc::new(Directory::default());
        let entry = directory.enter(socket(7));
        let found = directory.get(entry.session).unwrap();
        assert_eq!(found.user(), UserKey::new(None, USER));
        let renewed = Credential {
            expires_at: SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1),
            ..found.credential()
        };
        entry.renew(renewed.clone());
        assert_eq!(found.credential().expires_at, renewed.expires_at);
        drop(entry);
        assert!(directory.get(found.session).is_none());
        assert!(directory.page(None, 10).is_empty());
    }

    /// Whatever comes and goes between two pages.
    #[test]
    fn pages_have_each_socket_that_is_there_throughout_once() {
        let directory = Arc::new(Directory::default());
        let mut entries: Vec<_> = (0..10)
            .map(|number| directory.enter(socket(number * 10)))
            .collect();
        let first = directory.page(None, 4);
        assert_eq!(numbers(&first), ids([0, 10, 20, 30]));
        let last = first.last().map(|socket| socket.session);
        // The last of the page ends, and others come on both sides of it.
        drop(entries.remove(3));
        let _others = [5, 35].map(|number| directory.enter(socket(number)));
        let second = directory.page(last, 4);
        assert_eq!(numbers(&second), ids([35, 40, 50, 60]));
        let last = second.last().map(|socket| socket.session);
        assert_eq!(numbers(&directory.page(last, 4)), ids([70, 80, 90]));
    }

    #[tokio::test]
    async fn of_many_sockets_those_that_are_wanted_are_selected() {
        let directory = Arc::new(Directory::default());
        let all = 3 * PAGE as u128;
        let _entries: Vec<_> = (0..all)
            .map(|number| directory.enter(socket(number)))
            .collect();
        let wanted = |number: &u128| number.is_multiple_of(5);
        let wanted = ids((0..all).filter(wanted));
        let selected = directory
            .select(|socket| wanted.contains(&socket.session))
            .await;
        assert_eq!(selected, wanted);
    }
}
