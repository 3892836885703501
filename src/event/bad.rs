//! Why an event is bad: data for a dead letter, not an exception path.

use std::fmt;

/// The kind of fault; a metric label and the dead letter's `Herald-Reason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The workspace in the subject is no slug, so that no room has it.
    Workspace,
    /// The subject is not `ws.<workspace>.<category>.<name>`.
    Subject,
    /// The category is none of record, function, system, custom.
    UnknownCategory,
    /// A record or function event of a name that does not exist.
    UnknownName,
    /// The payload is over 64 KiB.
    TooLarge,
    /// The payload is not UTF-8.
    Utf8,
    /// The payload is not JSON, or is nested too deeply.
    Json,
    /// The payload is JSON but no object.
    NotAnObject,
    /// A field of the payload has the wrong type or an unknown value.
    Field,
    /// `recipients` is not a list of strings.
    Recipients,
    /// The CloudEvents envelope is not right.
    CloudEvent,
    /// A rule's template failed or went over its limits.
    Template,
    /// The encoded notification is over 64 KiB.
    NotificationTooLarge,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Workspace,
        Self::Subject,
        Self::UnknownCategory,
        Self::UnknownName,
        Self::TooLarge,
        Self::Utf8,
        Self::Json,
        Self::NotAnObject,
        Self::Field,
        Self::Recipients,
        Self::CloudEvent,
        Self::Template,
        Self::NotificationTooLarge,
    ];

    /// The reason as one lower-case word, stable across versions.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Workspace => "workspace",
            Self::Subject => "subject",
            Self::UnknownCategory => "unknown_category",
            Self::UnknownName => "unknown_name",
            Self::TooLarge => "too_large",
            Self::Utf8 => "utf8",
            Self::Json => "json",
            Self::NotAnObject => "not_an_object",
            Self::Field => "field",
            Self::Recipients => "recipients",
            Self::CloudEvent => "cloudevent",
            Self::Template => "template",
            Self::NotificationTooLarge => "notification_too_large",
        }
    }
}

/// A bad event: its reason and a sentence for the publisher, which holds no value of the payload.
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
