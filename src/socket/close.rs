//! Close codes: the one table of the code, its reason in plain words, and what a client does next.

use serde::Serialize;

use crate::auth::AuthError;

/// Why Herald closes a socket. A code says what the client does next; the reason is a short fixed
/// sentence of ours, never the text of a cause (a close frame holds 123 bytes of it, RFC 6455 5.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// 1002: the client broke RFC 6455.
    Protocol,
    /// 1003: the client sent a binary message.
    Binary,
    /// 1007: a text message was not UTF-8.
    Utf8,
    /// 1009: a message went over `sockets.max_message_bytes`.
    MessageTooBig,
    /// 1011: a fault of the gateway's own.
    Internal,
    /// 1012: the gateway restarts.
    Restart,
    /// 4001: no token.
    NoToken,
    /// 4001: a bad token.
    BadToken,
    /// 4001: a fresh token names another user.
    OtherUser,
    /// 4001: the token is not good for the workspace.
    NoAccess,
    /// 4002: no workspaceSlug.
    NoWorkspace,
    /// 4002: a malformed workspaceSlug.
    BadWorkspace,
    /// 4003.
    TokenExpired,
    /// 4008.
    Inactive,
    /// 4009: a newer connection of the same user took over.
    Replaced,
    /// 4010: too slow to keep up.
    TooSlow,
    /// 4029: token frames faster than one in 10 s.
    TooManyTokens,
    /// 4029: frames, of whatever kind, faster than the limit.
    TooManyMessages,
    /// 4029: bytes faster than the limit.
    TooManyBytes,
}

impl CloseReason {
    pub const ALL: [Self; 19] = [
        Self::Protocol,
        Self::Binary,
        Self::Utf8,
        Self::MessageTooBig,
        Self::Internal,
        Self::Restart,
        Self::NoToken,
        Self::BadToken,
        Self::OtherUser,
        Self::NoAccess,
        Self::NoWorkspace,
        Self::BadWorkspace,
        Self::TokenExpired,
        Self::Inactive,
        Self::Replaced,
        Self::TooSlow,
        Self::TooManyTokens,
        Self::TooManyMessages,
        Self::TooManyBytes,
    ];

    /// The close code of RFC 6455 7.4.
    pub const fn code(self) -> u16 {
        match self {
            Self::Protocol => 1002,
            Self::Binary => 1003,
            Self::Utf8 => 1007,
            Self::MessageTooBig => 1009,
            Self::Internal => 1011,
            Self::Restart => 1012,
            Self::NoToken | Self::BadToken | Self::OtherUser | Self::NoAccess => 4001,
            Self::NoWorkspace | Self::BadWorkspace => 4002,
            Self::TokenExpired => 4003,
            Self::Inactive => 4008,
            Self::Replaced => 4009,
            Self::TooSlow => 4010,
            Self::TooManyTokens | Self::TooManyMessages | Self::TooManyBytes => 4029,
        }
    }

    /// The reason text of the close frame.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Protocol => "protocol error",
            Self::Binary => "binary messages are not supported",
            Self::Utf8 => "text message is not valid UTF-8",
            Self::MessageTooBig => "message too big",
            Self::Internal => "internal error",
            Self::Restart => "gateway restarting",
            Self::NoToken => "missing token",
            Self::BadToken => "invalid token",
            Self::OtherUser => "token is for another user",
            Self::NoAccess => "no access to this workspace",
            Self::NoWorkspace => "missing workspaceSlug",
            Self::BadWorkspace => "malformed workspaceSlug",
            Self::TokenExpired => "token expired",
            Self::Inactive => "inactive",
            Self::Replaced => "replaced by a newer connection",
            Self::TooSlow => "too slow to keep up",
            Self::TooManyTokens => "too many token messages",
            Self::TooManyMessages => "too many messages",
            Self::TooManyBytes => "too many bytes",
        }
    }

    /// What to do with what the kernel has still to send to a peer that answers no close frame.
    pub(crate) const fn unsent(self) -> Unsent {
        match self {
            // All that was stored before is for the peer.
            Self::TokenExpired => Unsent::Awaited,
            // The same, but a drain does not wait for long, and who is inactive has read all there was.
            Self::Restart
            | Self::Inactive
            | Self::Internal
            | Self::NoToken
            | Self::BadToken
            | Self::OtherUser
            | Self::NoAccess
            | Self::NoWorkspace
            | Self::BadWorkspace => Unsent::Left,
            // The peer is at fault, or it is dead.
            Self::Protocol
            | Self::Binary
            | Self::Utf8
            | Self::MessageTooBig
            | Self::Replaced
            | Self::TooSlow
            | Self::TooManyTokens
            | Self::TooManyMessages
            | Self::TooManyBytes => Unsent::Dropped,
        }
    }
}

/// What becomes of what the kernel has still to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unsent {
    /// The connection is reset.
    Dropped,
    /// The kernel sends it, with nobody here who reads: it gives up if the peer says anything more.
    Left,
    /// The same, but the peer is read for longer before, since it may have a pong or a heartbeat to say.
    Awaited,
}

impl From<AuthError> for CloseReason {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::Missing => Self::NoToken,
            // Where it can still be said, it is told to come later instead.
            AuthError::Invalid(_) | AuthError::NotJson(..) | AuthError::NotYet(_) => Self::BadToken,
            AuthError::Expired => Self::TokenExpired,
        }
    }
}

/// What a client does after a close.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Advice {
    /// The same would happen again.
    Stop,
    /// A new token first, then reconnect.
    Token,
    /// Wait, longer each time and by chance, then reconnect.
    BackOff,
    /// Reconnect.
    Now,
}

/// A close code: the row of the one table that metrics, `herald listen`, the docs and the SDK go by.
#[derive(Debug, Clone, Copy)]
pub struct CloseCode {
    pub number: u16,
    /// In metrics.
    pub label: &'static str,
    /// When a client sees it.
    pub when: &'static str,
    pub client: Advice,
}

const fn row(number: u16, label: &'static str, client: Advice, when: &'static str) -> CloseCode {
    CloseCode {
        number,
        label,
        when,
        client,
    }
}

/// All codes that are expected, those of others included.
const CLOSE_CODES: [CloseCode; 17] = [
    row(1000, "1000", Advice::BackOff, "normal, not by the gateway"),
    row(1001, "1001", Advice::BackOff, "the other side goes away"),
    row(1002, "1002", Advice::Stop, "protocol error"),
    row(1003, "1003", Advice::Stop, "binary data"),
    row(1005, "1005", Advice::BackOff, "no code was sent"),
    row(
        1006,
        "1006",
        Advice::BackOff,
        "the connection broke, or the handshake failed",
    ),
    row(1007, "1007", Advice::Stop, "invalid UTF-8"),
    row(1009, "1009", Advice::Stop, "message too long"),
    row(1011, "1011", Advice::BackOff, "fault of the gateway"),
    row(1012, "1012", Advice::BackOff, "gateway restarts"),
    row(
        4001,
        "4001",
        Advice::Stop,
        "token missing or invalid, or no access to the workspace",
    ),
    row(4002, "4002", Advice::Stop, "workspace missing or malformed"),
    row(4003, "4003", Advice::Token, "token expired"),
    row(4008, "4008", Advice::Now, "inactive"),
    row(4009, "4009", Advice::Stop, "replaced by a newer connection"),
    row(4010, "4010", Advice::BackOff, "too slow"),
    row(4029, "4029", Advice::BackOff, "too many messages"),
];

/// The row of a code.
pub fn close_code(number: u16) -> Option<&'static CloseCode> {
    const TABLE: &[CloseCode] = &CLOSE_CODES;
    TABLE.iter().find(|code| code.number == number)
}

/// A close code as a metric's label: the code itself where it is one that is expected.
pub fn code_label(number: u16) -> &'static str {
    close_code(number).map_or("other", |code| code.label)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;

    /// Compares a file of the repository with what it is made from; `HERALD_UPDATE=1` writes it.
    fn is_written(path: &str, wanted: &str) {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        if std::env::var_os("HERALD_UPDATE").is_some() {
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(&file, wanted).unwrap();
        }
        let found = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(
            found == wanted,
            "{path} is out of date: HERALD_UPDATE=1 cargo test --lib close::"
        );
    }

    fn lines(values: impl IntoIterator<Item = (String, serde_json::Value)>) -> String {
        let lines: Vec<_> = values
            .into_iter()
            .map(|(key, value)| format!("  {}: {value}", json!(key)))
            .collect();
        format!("{{\n{}\n}}\n", lines.join(",\n"))
    }

    /// What other programs read.
    #[test]
    fn the_generated_files_are_those_of_the_table() {
        let table = CLOSE_CODES.map(|code| {
            let reasons: Vec<_> = CloseReason::ALL
                .iter()
                .filter(|reason| reason.code() == code.number)
                .map(|reason| reason.text())
                .collect();
            let row = json!({ "client": code.client, "when": code.when, "reasons": reasons });
            (code.number.to_string(), row)
        });
        is_written("api/close-codes.json", &lines(table));
        // The SDK carries no more than it needs: what is in no list is backed off from.
        let listed = [Advice::Stop, Advice::Token, Advice::Now].map(|client| {
            let numbers: Vec<_> = CLOSE_CODES
                .iter()
                .filter(|code| code.client == client)
                .map(|code| code.number)
                .collect();
            let name = json!(client);
            (name.as_str().unwrap().to_owned(), json!(numbers))
        });
        is_written("sdk/js/src/close-codes.json", &lines(listed));
    }

    #[test]
    fn each_reason_has_a_row_and_fits_a_close_frame() {
        for reason in CloseReason::ALL {
            assert!(close_code(reason.code()).is_some(), "{reason:?}");
            assert!(reason.text().len() <= 123, "{reason:?}");
        }
        for code in CLOSE_CODES {
            assert_eq!(code.label, code.number.to_string());
        }
        assert_eq!(code_label(4999), "other");
    }

    /// The first cell has the code, the next one each of its reasons, the last what the client does.
    #[test]
    fn the_docs_say_the_same() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let guide = std::fs::read_to_string(root.join("docs/troubleshooting.md")).unwrap();
        let metrics = std::fs::read_to_string(root.join("docs/observability.md")).unwrap();
        for reason in CloseReason::ALL {
            let code = close_code(reason.code()).unwrap();
            let number = code.label;
            let row = guide.lines().find(|line| {
                let is_of = |cell: &str| cell.contains(number);
                line.starts_with('|')
                    && line.split('|').nth(1).is_some_and(is_of)
                    && line.contains(reason.text())
            });
            let row = row.unwrap_or_else(|| panic!("troubleshooting.md has no row for {reason:?}"));
            let client = row.split('|').rev().nth(1).unwrap().trim();
            let says = match code.client {
                Advice::Stop => client.starts_with("stop"),
                Advice::Token => client.starts_with("get a new token"),
                Advice::BackOff => client.starts_with("back off") || client.contains("jitter"),
                Advice::Now => client.starts_with("reconnect"),
            };
            assert!(says, "troubleshooting.md, {number}: {client}");
            assert!(metrics.contains(&format!("`{number}`")), "{number}");
        }
    }
}
