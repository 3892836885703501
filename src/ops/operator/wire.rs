//! What operators and gateways say to each other, in JSON. `docs/operations.md` has the subjects.
//!
//! Whoever may publish events can have the server send its own answers to any subject. None of those is a request: each
//! is an object with keys of its own, and here unknown keys are refused.

use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::codes::CloseReason;
use crate::config::names;
use crate::ops::health::MigrationsReport;
use crate::word_enum::word_enum;

/// The largest request: the names of users and issuers come from tokens, which have 16 KiB at most.
const REQUEST_MAX: usize = 32 * 1024;
/// Sessions of one page, where a request does not say, and at most.
pub(crate) const PAGE_SESSIONS: [usize; 2] = [1000, 2000];
/// The longest time over which sockets are closed.
pub(crate) const OVER_MAX: Duration = Duration::from_secs(600);
/// The reasons for which an operator may end a session. The first is the default; of each code the first one is the
/// default of that code.
pub(crate) const END_REASONS: [CloseReason; 5] = [
    CloseReason::TokenExpired,
    CloseReason::Restart,
    CloseReason::Revoked,
    CloseReason::NoAccess,
    CloseReason::Inactive,
];

/// A request that is not fulfilled, as the header of NATS' micro services has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{text}")]
pub(crate) struct RequestError {
    pub(crate) code: u16,
    pub(crate) text: String,
}

impl RequestError {
    pub(crate) fn new(code: u16, text: impl Into<String>) -> Self {
        Self {
            code,
            text: text.into(),
        }
    }

    /// What was requested cannot be understood.
    pub(crate) fn bad(text: impl Into<String>) -> Self {
        Self::new(400, text)
    }
}

word_enum! {
    /// What is requested, each on a subject of its own. The word is its name in lists of the service's endpoints.
    pub(crate) enum OperatorEndpoint {
        Gateways = "gateways",
        Sessions = "sessions",
        Disconnect = "disconnect",
        Drain = "drain",
        LogLevel = "log-level",
    }
}

impl OperatorEndpoint {
    /// The plain subject of its requests.
    pub(crate) const fn subject(self) -> &'static str {
        match self {
            Self::Gateways => names::QUERY_GATEWAYS,
            Self::Sessions => names::QUERY_SESSIONS,
            Self::Disconnect => names::COMMAND_DISCONNECT,
            Self::Drain => names::COMMAND_DRAIN,
            Self::LogLevel => names::COMMAND_LOG_LEVEL,
        }
    }
}

/// Reads a request.
///
/// # Errors
/// What is wrong with it, in words for an operator.
pub(crate) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, RequestError> {
    if body.len() > REQUEST_MAX {
        let text = format!("the body is larger than {REQUEST_MAX} bytes");
        return Err(RequestError::bad(text));
    }
    // A list of an object's values would be taken, too.
    if !body.starts_with(b"{") {
        return Err(RequestError::bad("the body must be a JSON object"));
    }
    serde_json::from_slice(body)
        .map_err(|error| RequestError::bad(format!("the body cannot be read: {error}")))
}

/// Which gateways are there, and how they are.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GatewaysQuery {
    /// One alone, by its name or process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) gateway: Option<String>,
}

/// Which sockets are open: a page of them, or how many.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SessionsQuery {
    /// Those of one gateway, by its name or process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) gateway: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) workspace: Option<String>,
    /// As the token calls the user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) user: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) issuer: Option<String>,
    /// Open for so many seconds at least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) older_s: Option<u64>,
    /// Open for so many seconds at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) younger_s: Option<u64>,
    /// The `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) after: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) limit: Option<usize>,
    /// Only how many there are.
    #[serde(default)]
    pub(crate) count: bool,
}

/// Ends one session, or those of a user, in one workspace or in all, or those of a workspace.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DisconnectCommand {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) session: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) user: Option<String>,
    /// Of the user. Without it, all users of that name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) issuer: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) workspace: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) code: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) over_ms: Option<u64>,
}

/// Drains one gateway, by its name or process, and ends it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DrainCommand {
    pub(crate) gateway: String,
}

/// Sets what one gateway logs.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LogLevelCommand {
    pub(crate) gateway: String,
    /// `null`: what is configured. It must be there.
    #[serde(deserialize_with = "Option::deserialize")]
    pub(crate) level: Option<String>,
}

impl DisconnectCommand {
    /// What the sockets are closed with.
    ///
    /// # Errors
    /// Where the command names none of [`END_REASONS`].
    pub(crate) fn close_reason(&self) -> Result<CloseReason, RequestError> {
        let [default, ..] = END_REASONS;
        let code = self.code.unwrap_or(default.code());
        let mut of_code = END_REASONS
            .into_iter()
            .filter(|reason| reason.code() == code)
            .peekable();
        if of_code.peek().is_none() {
            let text = "code must be 1012, 4001, 4003 or 4008";
            return Err(RequestError::bad(text));
        }
        let Some(text) = &self.reason else {
            return Ok(of_code.next().unwrap_or(default));
        };
        let known: Vec<_> = of_code.clone().map(CloseReason::text).collect();
        of_code.find(|reason| reason.text() == text).ok_or_else(|| {
            let known = known.join("` or `");
            RequestError::bad(format!("the reason with {code} must be `{known}`"))
        })
    }

    /// Over which time the closes are spread.
    ///
    /// # Errors
    /// Where it is too long, or `reason` ends sockets at once.
    pub(crate) fn window(&self, reason: CloseReason) -> Result<Duration, RequestError> {
        let window = Duration::from_millis(self.over_ms.unwrap_or(0));
        if window > OVER_MAX {
            let most = OVER_MAX.as_millis();
            return Err(RequestError::bad(format!("over_ms is more than {most}")));
        }
        if reason.is_immediate() && !window.is_zero() {
            let code = reason.code();
            let text = format!("{code} ends sockets at once: over_ms is for other codes");
            return Err(RequestError::bad(text));
        }
        Ok(window)
    }
}

/// Another gateway, as the answering one knows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct PeerReport {
    pub(crate) gateway: String,
    pub(crate) process: String,
    /// How long ago it said last that it is there.
    pub(crate) heard_s: f64,
}

/// What every answer has, beside its own.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Answer<T> {
    pub(crate) gateway: String,
    pub(crate) process: String,
    #[serde(flatten)]
    pub(crate) body: T,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) peers: Vec<PeerReport>,
}

/// The answer to a request that is not fulfilled.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ErrorReport {
    pub(crate) error: RequestError,
}

/// How a gateway is.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct GatewayReport {
    pub(crate) version: String,
    pub(crate) started: String,
    pub(crate) ready: bool,
    /// Why it is not.
    pub(crate) why: Option<String>,
    pub(crate) draining: bool,
    pub(crate) sockets: usize,
    pub(crate) sockets_max: usize,
    pub(crate) rooms: usize,
    /// What waits for all sockets.
    pub(crate) waiting_bytes: u64,
    pub(crate) intake_percent: u32,
    pub(crate) memory_bytes: Option<u64>,
    pub(crate) migrations: MigrationsReport,
    pub(crate) log_level: String,
    /// `None` before the first whole read, until which nobody joins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) revocations: Option<RevocationsReport>,
    /// Of each issuer whose keys come from an address.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) keys: Vec<KeysReport>,
}

/// What a gateway knows of REVOKED.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RevocationsReport {
    /// The last sequence that is in force.
    pub(crate) sequence: u64,
    /// Users, tokens and keys that are revoked.
    pub(crate) entries: usize,
    /// How long ago the last read began that reached the end of the stream.
    pub(crate) age_s: f64,
}

/// The keys of an issuer that come from an address.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct KeysReport {
    /// The table of its settings.
    pub(crate) issuer: String,
    /// Those that are in force.
    pub(crate) keys: usize,
    /// How long ago they were fetched, if they ever were.
    pub(crate) age_s: Option<f64>,
}

/// A socket. Of its token nothing but what names its user, and when it ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SessionReport {
    pub(crate) session: String,
    pub(crate) workspace: String,
    pub(crate) user: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) issuer: Option<String>,
    pub(crate) opened: String,
    pub(crate) expires: String,
}

/// A page of sockets, or how many there are.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct SessionsReport {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) total: Option<usize>,
    #[serde(default)]
    pub(crate) sessions: Vec<SessionReport>,
    /// What the next page comes after, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) next: Option<String>,
}

/// How many sockets are being closed.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ClosingReport {
    pub(crate) closing: usize,
}

/// A drain has begun.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct DrainReport {
    pub(crate) sockets: usize,
}

/// The log level that is in force.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LogLevelReport {
    pub(crate) log_level: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What JetStream answers to a publisher, which may name any subject for it.
    const ANSWERS: [&str; 4] = [
        r#"{"stream":"EVENTS","seq":2}"#,
        r#"{"stream":"EVENTS","seq":2,"duplicate":true}"#,
        r#"{"error":{"code":400,"err_code":10070,"description":"wrong last msg ID: m1"},"stream":"EVENTS","seq":0}"#,
        r#"{"stream":"EVENTS","seq":2,"batch":"{\"gateway\":\"gw-1\"}","count":1}"#,
    ];

    fn refusal<T: DeserializeOwned>(body: &str) -> String {
        let refused = parse::<T>(body.as_bytes());
        refused.err().map_or_else(String::new, |error| error.text)
    }

    #[test]
    fn no_answer_of_jetstream_is_a_request() {
        for answer in ANSWERS {
            for text in [
                refusal::<GatewaysQuery>(answer),
                refusal::<SessionsQuery>(answer),
                refusal::<DisconnectCommand>(answer),
                refusal::<DrainCommand>(answer),
                refusal::<LogLevelCommand>(answer),
            ] {
                assert!(text.contains("unknown field"), "{answer}: {text}");
            }
        }
    }

    #[test]
    fn what_is_no_request_says_why() {
        let large = format!(r#"{{"gateway":"{}"}}"#, "x".repeat(REQUEST_MAX));
        for (body, want) in [
            ("", "must be a JSON object"),
            ("gw-1", "must be a JSON object"),
            (r#"["gw-1"]"#, "must be a JSON object"),
            ("{", "cannot be read"),
            ("{}", "missing field `gateway`"),
            (r#"{"gateway":7}"#, "invalid type"),
            (r#"{"gateway":"a","gateway":"b"}"#, "duplicate field"),
            (r#"{"gateway":"a","force":true}"#, "unknown field"),
            (r#"{"gateway":"a"} {}"#, "trailing"),
            (&large, "larger than"),
        ] {
            let text = refusal::<DrainCommand>(body);
            assert!(text.contains(want), "{body}: {text}");
        }
        // Whoever forgets the level must not reset it.
        let text = refusal::<LogLevelCommand>(r#"{"gateway":"a"}"#);
        assert!(text.contains("missing field `level`"), "{text}");
        assert_eq!(
            refusal::<LogLevelCommand>(r#"{"gateway":"a","level":null}"#),
            ""
        );
        assert_eq!(refusal::<SessionsQuery>("{}"), "");
    }

    #[test]
    fn sessions_end_by_a_row_of_the_table() {
        let with = |code: Option<u16>, reason: Option<&str>, over_ms: Option<u64>| {
            let command = DisconnectCommand {
                code,
                reason: reason.map(str::to_owned),
                over_ms,
                ..DisconnectCommand::default()
            };
            let reason = command.close_reason()?;
            let window = command.window(reason)?;
            Ok::<_, RequestError>((reason, window.as_millis()))
        };
        for (code, reason, over_ms, want) in [
            (None, None, None, CloseReason::TokenExpired),
            (Some(1012), None, Some(600_000), CloseReason::Restart),
            (Some(4001), None, None, CloseReason::Revoked),
            (
                Some(4001),
                Some("no access to this workspace"),
                Some(0),
                CloseReason::NoAccess,
            ),
            (Some(4008), Some("inactive"), Some(5), CloseReason::Inactive),
        ] {
            let got = with(code, reason, over_ms).unwrap();
            assert_eq!(got, (want, u128::from(over_ms.unwrap_or(0))));
        }
        for (code, reason, over_ms, want) in [
            (Some(1000), None, None, "code must be"),
            (Some(4009), None, None, "code must be"),
            (
                Some(4001),
                Some("go away"),
                None,
                "`revoked` or `no access to this workspace`",
            ),
            (
                None,
                Some("revoked"),
                None,
                "with 4003 must be `token expired`",
            ),
            (None, None, Some(600_001), "over_ms is more than"),
            (Some(4001), None, Some(1), "at once"),
        ] {
            let error = with(code, reason, over_ms).unwrap_err();
            assert!(error.code == 400 && error.text.contains(want), "{error}");
        }
    }
}
