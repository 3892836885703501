//! An event becomes a notification, encoded once for all its sockets. Pure.

use std::collections::BTreeSet;

use crate::config::ProjectionConfig;
use crate::event::{BadEvent, StoredMessage};

/// Who an event is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recipients {
    /// Everyone in the workspace (`recipients` was absent).
    Everyone,
    /// The users with these token subjects; nobody where it is empty.
    Users(BTreeSet<String>),
}

/// A notification ready for sockets.
#[derive(Debug, Clone)]
pub struct Notification {
    /// `notif_<uuid v7>`.
    pub id: String,
    /// The JSON text that each socket gets.
    pub encoded: String,
    pub recipients: Recipients,
}

/// Rules, settings and the stream's name: all that the mapping depends on.
#[derive(Debug)]
pub struct Projector {}

/// The rules file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct RulesError(pub String);

impl Projector {
    /// Reads the rules (built in, or `projection.rules`).
    ///
    /// # Errors
    /// [`RulesError`] naming the file, the rule and what is wrong with it.
    pub fn from_config(_config: &ProjectionConfig, _stream: &str) -> Result<Self, RulesError> {
        Ok(Self {})
    }

    /// Maps one stored message: decode, rule, encode.
    ///
    /// # Errors
    /// [`BadEvent`] for the dead-letter stream.
    pub fn project(&self, _message: &StoredMessage) -> Result<Notification, BadEvent> {
        Err(BadEvent::new(crate::event::Reason::Json, "not built yet"))
    }
}
