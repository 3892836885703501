//! The name of one socket's session, unique across gateways.

use std::fmt;

use uuid::Uuid;

/// A session: one accepted socket of one user in one workspace.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(Uuid);

impl SessionId {
    /// A new random id (RFC 9562 UUIDv4).
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }

    /// A random byte that is the session's own, for spreading sessions.
    pub fn low_byte(self) -> u8 {
        (self.0.as_u128() & 0xff) as u8
    }

    /// As it goes over the wire.
    pub(crate) fn uuid(self) -> Uuid {
        self.0
    }

    #[cfg(test)]
    pub(crate) fn from_u128(number: u128) -> Self {
        Self(Uuid::from_u128(number))
    }
}

impl From<Uuid> for SessionId {
    fn from(uuid: Uuid) -> Self {
        Self(uuid)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_simple().fmt(f)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
