//! What a stored dead letter says, for people and programs. Pure.

use serde::Serialize;

use crate::event::StoredMessage;

/// One dead letter, without its payload.
#[derive(Debug, Default, Serialize)]
pub(crate) struct DeadLetterReport {
    pub(crate) workspace: String,
    /// That of the event in its own stream.
    pub(crate) sequence: u64,
    pub(crate) subject: String,
    pub(crate) reason: String,
    pub(crate) time: String,
    pub(crate) detail: String,
    /// Of the whole payload, where the letter was cut short and has its beginning only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) payload_bytes: Option<u64>,
}

impl DeadLetterReport {
    pub(crate) fn new(raw: &StoredMessage) -> Self {
        let mut tokens = raw.subject.split('.').skip(1);
        let mut token = || tokens.next().unwrap_or_default();
        let header = |name: &str| {
            let value = raw.headers.as_ref().and_then(|headers| headers.get(name));
            value.map_or(String::new(), |value| value.as_str().to_owned())
        };
        Self {
            workspace: token().to_owned(),
            sequence: token().parse().unwrap_or_default(),
            subject: header("Herald-Subject"),
            reason: header("Herald-Reason"),
            time: header("Herald-Time"),
            detail: header("Herald-Detail"),
            payload_bytes: header("Herald-Payload-Bytes").parse().ok(),
        }
    }

    /// One line.
    pub(crate) fn json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_has_the_sequence_as_a_number() {
        let letter = DeadLetterReport {
            workspace: "acme".to_owned(),
            sequence: 7,
            payload_bytes: Some(130_048),
            ..DeadLetterReport::default()
        };
        assert_eq!(
            letter.json(),
            r#"{"workspace":"acme","sequence":7,"subject":"","reason":"","time":"","detail":"","payload_bytes":130048}"#
        );
    }
}
