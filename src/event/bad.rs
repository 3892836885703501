//! Why an event is bad: data for a dead letter, not an exception path.

use std::fmt;

use crate::word_enum::word_enum;

word_enum! {
    /// The kind of fault; a metric label and the dead letter's `Herald-Reason`. The words are stable across versions.
    pub enum Reason {
        /// The workspace in the subject is no slug, so that no room has it.
        Workspace = "workspace",
        /// The subject is not `ws.<workspace>.<category>.<name>`.
        Subject = "subject",
        /// The category is none of record, function, system, custom.
        UnknownCategory = "unknown_category",
        /// A record or function event of a name that does not exist.
        UnknownName = "unknown_name",
        /// The payload is over 64 KiB.
        TooLarge = "too_large",
        /// The payload is not UTF-8.
        Utf8 = "utf8",
        /// The payload is not JSON, or is nested too deeply.
        Json = "json",
        /// The payload is JSON but no object.
        NotAnObject = "not_an_object",
        /// A field of the payload has the wrong type or an unknown value.
        Field = "field",
        /// `recipients` is not a list of strings.
        Recipients = "recipients",
        /// The CloudEvents envelope is not right.
        CloudEvent = "cloudevent",
        /// A rule's template failed or went over its limits.
        Template = "template",
        /// The encoded notification is over 64 KiB.
        NotificationTooLarge = "notification_too_large",
    }
}

/// A bad event: its reason and a sentence for the publisher, which has no value of the payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadEvent {
    pub reason: Reason,
    pub detail: String,
}

impl BadEvent {
    /// A bad event with its detail.
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self {
            reason,
            detail: detail.into(),
        }
    }
}

impl fmt::Display for BadEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason.as_str(), self.detail)
    }
}
