//! What a subject says: `ws.<workspace>.<category>.<name>`, nothing before, between or after.

use std::fmt;

use super::{BadEvent, Reason, SlugError, StoredMessage, WorkspaceSlug};
use crate::word_enum::word_enum;

/// Longest event name, in bytes.
pub const NAME_MAX: usize = 64;

const RECORD_NAMES: [&str; 4] = ["created", "updated", "deleted", "bulk_completed"];
const FUNCTION_NAMES: [&str; 4] = ["started", "completed", "failed", "timeout"];

word_enum! {
    /// The contract's four kinds of event, in the order of their names there.
    pub enum Category {
        Record = "record",
        Function = "function",
        System = "system",
        Custom = "custom",
    }
}

impl Category {
    /// The names an event of this category may have; `None`: any.
    pub const fn names(self) -> Option<&'static [&'static str]> {
        match self {
            Self::Record => Some(&RECORD_NAMES),
            Self::Function => Some(&FUNCTION_NAMES),
            Self::System | Self::Custom => None,
        }
    }
}

/// An event's category and name: `record.created`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EventName {
    category: Category,
    name: String,
}

impl EventName {
    /// Reads `<category>.<name>`.
    ///
    /// # Errors
    /// [`Reason::Subject`], [`Reason::UnknownCategory`] or [`Reason::UnknownName`].
    pub fn parse(text: &str) -> Result<Self, BadEvent> {
        text.split_once('.')
            .ok_or_else(not_a_subject)
            .and_then(|(category, name)| Self::from_tokens(category, name))
    }

    fn from_tokens(category: &str, name: &str) -> Result<Self, BadEvent> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        if !(1..=NAME_MAX).contains(&name.len()) || !name.bytes().all(is_plain) {
            return Err(not_a_subject());
        }
        let category = Category::parse(category).ok_or_else(|| {
            BadEvent::new(
                Reason::UnknownCategory,
                "the category is none of record, function, system, custom",
            )
        })?;
        if category.names().is_some_and(|names| !names.contains(&name)) {
            let names = category.names().unwrap_or_default().join(", ");
            let detail = format!(
                "the name of a {} event is one of {names}",
                category.as_str()
            );
            return Err(BadEvent::new(Reason::UnknownName, detail));
        }
        Ok(Self {
            category,
            name: name.to_owned(),
        })
    }

    /// The first half.
    pub fn category(&self) -> Category {
        self.category
    }

    /// The second half.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for EventName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.category.as_str(), self.name)
    }
}

/// The event that the message's subject names.
pub(super) fn event_name(message: &StoredMessage) -> Result<EventName, BadEvent> {
    let mut tokens = message.subject.split('.');
    let parts = (tokens.next(), tokens.next(), tokens.next(), tokens.next());
    match (parts, tokens.next()) {
        ((Some("ws"), Some(workspace), Some(category), Some(name)), None)
            if WorkspaceSlug::is_valid(workspace) =>
        {
            EventName::from_tokens(category, name)
        }
        _ => Err(not_a_subject()),
    }
}

/// Why no room can make a notification of what is stored under `subject`, and whose dead letter it is;
/// `None` of a subject that is right.
pub fn unroutable(subject: &str) -> Option<(WorkspaceSlug, BadEvent)> {
    let mut tokens = subject.splitn(4, '.');
    let (first, workspace) = (tokens.next(), tokens.next().unwrap_or_default());
    let (category, name) = (tokens.next(), tokens.next());
    let workspace = match WorkspaceSlug::parse(workspace) {
        Ok(workspace) => workspace,
        Err(SlugError) => {
            let detail = format!("the second token of the subject is no workspace: {SlugError}");
            let bad = BadEvent::new(Reason::Workspace, detail);
            return Some((WorkspaceSlug::unroutable(), bad));
        }
    };
    let bad = match (first, category, name) {
        (Some("ws"), Some(category), Some(name)) => EventName::from_tokens(category, name).err(),
        _ => Some(not_a_subject()),
    };
    bad.map(|bad| (workspace, bad))
}

fn not_a_subject() -> BadEvent {
    BadEvent::new(
        Reason::Subject,
        "a subject is ws.<workspace>.<category>.<name>, with a name of 1 to 64 letters, digits, - and _",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_that_no_room_can_take_has_its_reason_and_its_workspace() {
        let longest = format!("ws.{}.custom.x", "a".repeat(64));
        for good in [
            "ws.acme.record.created",
            "ws.Acme.custom.Order-placed_2",
            "ws.6F9619FF-8B86-D011-B42D-00C04FC964FF.system.x",
            &longest,
        ] {
            assert_eq!(unroutable(good), None, "{good}");
        }
        let too_long = format!("ws.{}.custom.x", "a".repeat(65));
        for (bad, workspace, reason) in [
            ("ws.café.record.created", "_unroutable", Reason::Workspace),
            ("ws._acme.record.created", "_unroutable", Reason::Workspace),
            ("ws.*.record.created", "_unroutable", Reason::Workspace),
            ("ws", "_unroutable", Reason::Workspace),
            (&too_long, "_unroutable", Reason::Workspace),
            ("ws.my.shop.record.created", "my", Reason::Subject),
            ("ws.acme", "acme", Reason::Subject),
            ("ws.acme.record", "acme", Reason::Subject),
            ("ws.acme.record.", "acme", Reason::Subject),
            ("ws.acme.record.created.x", "acme", Reason::Subject),
            ("ws.acme.orders.created", "acme", Reason::UnknownCategory),
            ("ws.acme.record.create", "acme", Reason::UnknownName),
        ] {
            let (whose, why) = unroutable(bad).unwrap();
            assert_eq!((whose.as_str(), why.reason), (workspace, reason), "{bad}");
        }
    }

    #[test]
    fn an_event_name_is_taken_or_refused_by_its_form() {
        let longest = format!("custom.{}", "a".repeat(64));
        for good in [
            "record.created",
            "record.updated",
            "record.deleted",
            "record.bulk_completed",
            "function.started",
            "function.completed",
            "function.failed",
            "function.timeout",
            "system.maintenance",
            "custom.Order-placed_2",
            &longest,
        ] {
            assert_eq!(EventName::parse(good).unwrap().to_string(), good);
        }
        let too_long = format!("custom.{}", "a".repeat(65));
        for (bad, reason) in [
            ("", Reason::Subject),
            ("record", Reason::Subject),
            ("record.", Reason::Subject),
            ("record.created.x", Reason::Subject),
            ("custom.*", Reason::Subject),
            ("custom.>", Reason::Subject),
            ("custom.a b", Reason::Subject),
            ("custom.é", Reason::Subject),
            (&too_long, Reason::Subject),
            (".x", Reason::UnknownCategory),
            ("Record.created", Reason::UnknownCategory),
            ("session.x", Reason::UnknownCategory),
            ("record.Created", Reason::UnknownName),
            ("record.exploded", Reason::UnknownName),
            ("function.created", Reason::UnknownName),
        ] {
            assert_eq!(EventName::parse(bad).unwrap_err().reason, reason, "{bad:?}");
        }
    }
}
