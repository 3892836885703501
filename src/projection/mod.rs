//! An event becomes a notification, encoded once for all its sockets. Pure.
//!
//! The same event, rules and settings give the same bytes on every gateway: nothing here reads a
//! clock, a random number or a map without an order.

mod encode;
mod fields;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod identity;
mod rules;
mod template;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::sync::Arc;

use chrono::SecondsFormat;

use self::encode::{Encoded, Metadata};
pub(crate) use self::identity::EventIdentity;
use self::rules::{Rule, RuleSet, SeverityRule};
use self::template::{Context, Template};
use crate::config::{ProjectionConfig, TypeMode, near, read_bounded, text};
use crate::event::{BadEvent, Event, EventName, Payload, Reason, Severity, StoredMessage, decode};
use crate::json::Value;

pub use self::encode::ENCODED_MAX;
pub use self::rules::DEFAULT_RULES;
pub use crate::event::Recipients;

/// A notification ready for sockets.
#[derive(Debug, Clone)]
pub struct Notification {
    /// `notif_<uuid v7>`.
    pub id: String,
    /// The JSON text that each socket gets: at most [`ENCODED_MAX`] bytes, without line breaks.
    pub encoded: String,
    pub recipients: Recipients,
}

/// A field that a rule makes nothing of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unused {
    /// Its name, or several joined by dots.
    pub path: String,
    /// How messages name the rule.
    pub rule: String,
    /// What may have been meant.
    pub nearest: Option<String>,
}

/// Rules, settings and the stream's name: all that the mapping depends on.
#[derive(Debug)]
pub struct Projector {
    rules: RuleSet,
    stream: String,
    type_mode: TypeMode,
    traceparent: bool,
}

/// The rules file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct RulesError(pub String);

impl Projector {
    /// Reads the rules (built in, or `projection.rules`).
    ///
    /// # Errors
    /// [`RulesError`] naming the file, and each rule with what is wrong with it.
    pub fn from_config(config: &ProjectionConfig, stream: &str) -> Result<Self, RulesError> {
        let rules = match &config.rules {
            None => RuleSet::parse(DEFAULT_RULES)
                .map_err(|problems| RulesError(format!("built-in rules: {}", problems.join("; ")))),
            Some(path) => {
                let path_text = path.display();
                let text = text(read_bounded(path))
                    .map_err(|error| RulesError(format!("cannot read {path_text}: {error}")))?;
                RuleSet::parse(&text).map_err(|problems| {
                    let lines: Vec<_> = problems
                        .iter()
                        .map(|problem| format!("{path_text}: {problem}"))
                        .collect();
                    RulesError(lines.join("\n"))
                })
            }
        }?;
        Ok(Self {
            rules,
            stream: stream.to_owned(),
            type_mode: config.type_mode,
            traceparent: config.traceparent,
        })
    }

    /// Maps one stored message: decode, rule, encode.
    ///
    /// # Errors
    /// [`BadEvent`] for the dead-letter stream.
    pub fn project(&self, message: &StoredMessage) -> Result<Notification, BadEvent> {
        self.notification(message, self.decode(message)?, self.identity(message))
    }

    /// Reads one stored message as the rule of its event says.
    ///
    /// # Errors
    /// [`BadEvent`] for the dead-letter stream.
    pub(crate) fn decode(&self, message: &StoredMessage) -> Result<Event, BadEvent> {
        decode(message, |name| &self.rules.find(name).payload)
    }

    /// Fields of the payload that its event's rule makes nothing of. None where the event is bad, or where
    /// the payload is foreign: most of that is meant for others.
    pub fn unused(&self, message: &StoredMessage) -> Vec<Unused> {
        let Ok(event) = self.decode(message) else {
            return Vec::new();
        };
        let rule = self.rules.find(&event.name);
        if rule.payload != Payload::Herald {
            return Vec::new();
        }
        let known = rule.fields.paths();
        let known: Vec<&str> = fields::OWN
            .into_iter()
            .chain(known.iter().map(String::as_str))
            .collect();
        let unused = rule.fields.unused(&event.fields).into_iter();
        let found = unused.map(|path| Unused {
            nearest: near(&path, known.iter().copied()).map(str::to_owned),
            path,
            rule: rule.label.clone(),
        });
        found.collect()
    }

    /// The id and the derived trace of what `message` becomes, good or bad.
    pub(crate) fn identity(&self, message: &StoredMessage) -> EventIdentity {
        EventIdentity::new(&self.stream, message.sequence, message.time)
    }

    /// Maps an event that [`Projector::decode`] read from `message`.
    ///
    /// # Errors
    /// [`BadEvent`] for the dead-letter stream.
    pub(crate) fn notification(
        &self,
        message: &StoredMessage,
        event: Event,
        identity: EventIdentity,
    ) -> Result<Notification, BadEvent> {
        let rule = self.rules.find(&event.name);
        let fields = Arc::new(rule.fields.filter(event.fields));
        // Only where a template needs it: most publishers give the texts themselves.
        let context = || {
            let context = Context::new(&event.name, message.workspace(), Arc::clone(&fields));
            match rule.payload {
                Payload::Herald => context,
                Payload::Foreign { .. } => context.with_payload(),
            }
        };
        let severity = match event.severity {
            Some(severity) => severity,
            None => self.severity(rule, context)?,
        };
        let title = match event.title {
            Some(title) => Cow::Owned(title),
            None => self.render(rule, "title", &rule.title, context)?,
        };
        let text = match event.message {
            Some(text) => Cow::Owned(text),
            None => self.render(rule, "message", &rule.message, context)?,
        };
        // The publisher's, else the derived one.
        let traceparent = self
            .traceparent
            .then(|| event.traceparent.unwrap_or_else(|| identity.traceparent()));
        let id = identity.notification_id();
        let own = |rest| Metadata::Object {
            event: &event.name,
            event_id: event.event_id.as_deref(),
            traceparent: traceparent.as_deref(),
            rest,
        };
        let encoded = encoded(&Encoded {
            id: &id,
            title: &title,
            message: &text,
            kind: &self.kind(rule, severity, &event.name),
            timestamp: &message.time.to_rfc3339_opts(SecondsFormat::Millis, true),
            metadata: match &event.metadata {
                None => own(&fields),
                Some(Value::Object(given)) => own(given),
                Some(other) => Metadata::Other(other),
            },
        })?;
        Ok(Notification {
            id,
            encoded,
            recipients: event.recipients,
        })
    }

    fn severity(
        &self,
        rule: &Rule,
        context: impl FnOnce() -> Context,
    ) -> Result<Severity, BadEvent> {
        let template = match &rule.severity {
            SeverityRule::Fixed(severity) => return Ok(*severity),
            SeverityRule::Template(template) => template,
        };
        let text = self.render(rule, "type", template, context)?;
        Severity::parse(text.trim()).ok_or_else(|| {
            let detail = format!(
                "the template `type` of {} gave none of info, success, warning, error, alert",
                rule.label
            );
            BadEvent::new(Reason::Template, detail)
        })
    }

    fn render<'a>(
        &self,
        rule: &Rule,
        key: &str,
        template: &'a Template,
        context: impl FnOnce() -> Context,
    ) -> Result<Cow<'a, str>, BadEvent> {
        self.rules
            .templates
            .render(template, context)
            .map_err(|error| {
                let detail = format!("the template `{key}` of {} failed: {error}", rule.label);
                BadEvent::new(Reason::Template, detail)
            })
    }

    /// The `type` that is written.
    fn kind<'a>(&self, rule: &'a Rule, severity: Severity, event: &EventName) -> Cow<'a, str> {
        match (self.type_mode, severity, &rule.event) {
            (TypeMode::Severity, _, _) | (TypeMode::Event, Severity::Alert, _) => {
                severity.as_str().into()
            }
            (TypeMode::Event, _, Some(name)) => name.into(),
            (TypeMode::Event, _, None) => {
                format!("{}_{}", event.category().as_str(), event.name()).into()
            }
        }
    }
}

fn encoded(notification: &Encoded<'_>) -> Result<String, BadEvent> {
    // What is around these, but for a publisher's metadata: so the text is not moved as it grows.
    let around = 300;
    let length = notification.title.len() + notification.message.len() + around;
    let mut text = String::with_capacity(length);
    if notification.write(&mut text).is_ok() && text.len() <= ENCODED_MAX {
        return Ok(text);
    }
    let detail = format!("the encoded notification is over {ENCODED_MAX} bytes");
    Err(BadEvent::new(Reason::NotificationTooLarge, detail))
}
