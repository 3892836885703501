//! The names of everything in NATS: streams, the ledger's bucket, subjects, and the requests of the API. Pure. No other
//! file spells these names, since `nats.prefix` and `nats.domain` are added here.
//!
//! With a prefix `blue` each subject begins with `blue.`, and each stream and bucket with `blue-`. Within
//! Herald subjects are *plain*, without it: it is put on what leaves for NATS and taken off what comes.

use std::fmt::Display;

use super::NatsConfig;

/// First words of subjects and streams of Herald's own, in small letters: as a prefix, one of them would
/// put a deployment's names among those of one that has no prefix.
const WORDS: &[&str] = &[
    "ws",
    "live",
    "session",
    "sessions",
    "dead",
    "revoked",
    "herald",
    "event",
    "events",
    "migrations",
    "kv",
    "obj",
    "js",
    "sys",
    "srv",
    "inbox",
    "api",
    // The categories of events.
    "record",
    "function",
    "system",
    "custom",
];
/// The longest prefix, as the longest stream's name.
const PREFIX_MAX: usize = 64;

/// The names of one deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// Before each subject: nothing, or `blue.`.
    subjects: String,
    /// Before each stream and bucket: nothing, or `blue-`.
    objects: String,
    events: String,
    sessions: String,
    dead: String,
    revoked: String,
    ledger: String,
    keys: String,
    /// `$JS.API.`, or that of the domain.
    api: String,
    has_domain: bool,
}

impl Names {
    pub(super) fn new(config: &NatsConfig) -> Self {
        let with = |separator: char| match config.prefix.as_deref().unwrap_or_default() {
            "" => String::new(),
            prefix => format!("{prefix}{separator}"),
        };
        let (subjects, objects) = (with('.'), with('-'));
        let bucket = format!("{objects}HERALD_MIGRATIONS");
        let domain = config.domain.as_deref().unwrap_or_default();
        Self {
            events: format!("{objects}{}", config.stream),
            sessions: format!("{objects}SESSIONS"),
            dead: format!("{objects}DEAD"),
            revoked: format!("{objects}REVOKED"),
            ledger: format!("KV_{bucket}"),
            keys: format!("$KV.{bucket}."),
            api: match domain {
                "" => "$JS.API.".to_owned(),
                domain => format!("$JS.{domain}.API."),
            },
            has_domain: !domain.is_empty(),
            subjects,
            objects,
        }
    }

    /// A stream or a bucket.
    pub fn object(&self, plain: &str) -> String {
        format!("{}{plain}", self.objects)
    }

    /// The stream of events.
    pub fn events(&self) -> &str {
        &self.events
    }

    /// The stream of claims.
    pub fn sessions(&self) -> &str {
        &self.sessions
    }

    /// The stream of dead letters.
    pub fn dead(&self) -> &str {
        &self.dead
    }

    /// The stream of revocations.
    pub fn revoked(&self) -> &str {
        &self.revoked
    }

    /// The stream behind the bucket of the migrations' ledger.
    pub fn ledger(&self) -> &str {
        &self.ledger
    }

    /// The subjects that the bucket's keys are stored under begin with this.
    pub fn keys(&self) -> &str {
        &self.keys
    }

    /// Where the bucket's key is written. A leaf node lets no `$KV.` pass: what is for another domain goes by
    /// that domain's API.
    pub fn key(&self, key: &str) -> String {
        let subject = format!("{}{key}", self.keys);
        match self.has_domain {
            true => format!("{}{subject}", self.api),
            false => subject,
        }
    }

    /// The subject of a request of JetStream's API, such as `STREAM.INFO`, about `stream`.
    pub fn api(&self, request: &str, stream: &str) -> String {
        format!("{}{request}.{stream}", self.api)
    }

    /// The subject of the request for the limits of the account.
    pub fn api_info(&self) -> String {
        format!("{}INFO", self.api)
    }

    /// Where the election of a leader of `stream` is announced.
    pub fn elected(&self, stream: &str) -> String {
        format!("$JS.EVENT.ADVISORY.STREAM.LEADER_ELECTED.{stream}")
    }

    /// The name of the gateways' NATS micro service.
    pub fn service(&self) -> String {
        self.object("herald")
    }

    /// `plain`, as NATS has it.
    pub fn subject(&self, plain: &str) -> String {
        format!("{}{plain}", self.subjects)
    }

    /// `subject` without the prefix; `None` if it is another deployment's.
    pub fn plain<'a>(&self, subject: &'a str) -> Option<&'a str> {
        subject.strip_prefix(self.subjects.as_str())
    }
}

/// Subjects of all events.
pub const ALL_EVENTS: &str = "ws.>";
/// Subjects of all claims.
pub const ALL_CLAIMS: &str = "session.>";
/// Subjects of all dead letters.
pub const ALL_LETTERS: &str = "dead.*.*";
/// Subjects of all revocations.
pub const ALL_REVOCATIONS: &str = "revoked.>";
/// Subjects of messages between gateways.
pub const ALL_NOTICES: &str = "herald.sessions.*.*";

/// What operators want to know of gateways.
pub const ALL_QUERIES: &str = "herald.query.*";
/// What operators have gateways do.
pub const ALL_COMMANDS: &str = "herald.command.*";
pub const QUERY_GATEWAYS: &str = "herald.query.gateways";
pub const QUERY_SESSIONS: &str = "herald.query.sessions";
pub const COMMAND_DISCONNECT: &str = "herald.command.disconnect";
pub const COMMAND_DRAIN: &str = "herald.command.drain";
pub const COMMAND_LOG_LEVEL: &str = "herald.command.log-level";
/// Where each gateway says again and again that it is there.
pub const PRESENCE: &str = "herald.gateways";

/// Where the micro services of an account are looked for: `$SRV.<verb>[.<name>[.<instance>]]`, never with a prefix.
pub const DISCOVERY: &str = "$SRV.>";

/// The plain subject of an event; `event` may be a pattern.
pub fn event(workspace: impl Display, event: impl Display) -> String {
    format!("ws.{workspace}.{event}")
}

/// The plain subject of the claims of a user; `user` may be `*`.
pub fn claim(workspace: impl Display, user: impl Display) -> String {
    format!("session.{workspace}.{user}")
}

/// The plain subject of the letter about the event at `sequence`, which may be `*`.
pub fn letter(workspace: impl Display, sequence: impl Display) -> String {
    format!("dead.{workspace}.{sequence}")
}

/// The plain subject of the revocation with this id.
pub fn revocation(id: impl Display) -> String {
    format!("revoked.{id}")
}

/// The plain subject of notices about a user's sockets.
pub fn notice(workspace: impl Display, user: impl Display) -> String {
    format!("herald.sessions.{workspace}.{user}")
}

/// Where what is stored under the plain `subject` is republished.
pub fn live(subject: impl Display) -> String {
    format!("{LIVE}{subject}")
}

/// The plain subject that what came on the plain `live` is stored under.
pub fn stored(live: &str) -> Option<&str> {
    live.strip_prefix(LIVE)
}

const LIVE: &str = "live.";

/// What is wrong with `prefix`, beside these other settings.
pub(super) fn problem(config: &NatsConfig) -> Option<String> {
    let prefix = config.prefix.as_deref().unwrap_or_default();
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    let ends = [prefix.bytes().next(), prefix.bytes().last()];
    let is_name =
        prefix.len() <= PREFIX_MAX && prefix.bytes().all(is_word) && !ends.contains(&Some(b'-'));
    if !is_name {
        return Some(format!(
            "nats.prefix must be letters and digits, with - between them, at most {PREFIX_MAX}, such as team-a"
        ));
    }
    let small = prefix.to_ascii_lowercase();
    let first_of_inbox = config.inbox_prefix.split('.').next().unwrap_or_default();
    let is_taken = WORDS.contains(&small.as_str())
        || small.starts_with("herald")
        || prefix.eq_ignore_ascii_case(&config.stream)
        || prefix == first_of_inbox;
    (is_taken && !prefix.is_empty()).then(|| {
        format!("nats.prefix must not be `{prefix}`, which is a name of Herald's own: choose another, such as team-a")
    })
}

/// Whether it can be a JetStream domain: one word of a subject.
pub(super) fn is_domain(domain: &str) -> bool {
    domain.len() <= 255
        && domain
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !b"*>.$\\/".contains(&byte))
        // It would be JetStream's own API.
        && domain != "API"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(prefix: &str, domain: &str) -> NatsConfig {
        NatsConfig {
            prefix: Some(prefix.to_owned()),
            domain: Some(domain.to_owned()),
            ..NatsConfig::default()
        }
    }

    #[test]
    fn a_prefix_is_on_every_name_and_a_domain_on_every_request() {
        let plain = config("", "").names();
        let both = config("blue", "hub").names();
        for (got, want) in [
            (plain.events(), "EVENTS"),
            (plain.ledger(), "KV_HERALD_MIGRATIONS"),
            (
                &plain.key("0001_events"),
                "$KV.HERALD_MIGRATIONS.0001_events",
            ),
            (&plain.api("STREAM.INFO", "S"), "$JS.API.STREAM.INFO.S"),
            (&plain.subject("ws.acme.>"), "ws.acme.>"),
            (both.events(), "blue-EVENTS"),
            (both.sessions(), "blue-SESSIONS"),
            (both.dead(), "blue-DEAD"),
            (both.revoked(), "blue-REVOKED"),
            (both.ledger(), "KV_blue-HERALD_MIGRATIONS"),
            (
                &both.key("0001_events"),
                "$JS.hub.API.$KV.blue-HERALD_MIGRATIONS.0001_events",
            ),
            (both.keys(), "$KV.blue-HERALD_MIGRATIONS."),
            (&both.api("DIRECT.GET", "S"), "$JS.hub.API.DIRECT.GET.S"),
            (&both.subject("ws.acme.>"), "blue.ws.acme.>"),
            (&plain.service(), "herald"),
            (&both.service(), "blue-herald"),
        ] {
            assert_eq!(got, want);
        }
        assert_eq!(both.plain("blue.ws.acme.x"), Some("ws.acme.x"));
        for other in ["ws.acme.x", "bluer.ws.acme.x", "red.ws.acme.x", "blue"] {
            assert_eq!(both.plain(other), None, "{other}");
        }
    }

    #[test]
    fn a_prefix_is_a_word_that_is_none_of_heralds_own() {
        for good in [
            "", "a", "blue", "Team-7", "wsx", "live2", "7", "records", "apis",
        ] {
            assert_eq!(problem(&config(good, "")), None, "{good}");
        }
        for bad in [
            "a.b",
            "a_b",
            "a b",
            "é",
            "-a",
            "a-",
            "*",
            ">",
            "$JS",
            &"x".repeat(65),
        ] {
            let problem = problem(&config(bad, "")).unwrap();
            assert!(problem.contains("letters and digits"), "{bad}: {problem}");
        }
        for taken in [
            "ws", "live", "session", "dead", "herald", "EVENTS", "Events", "SESSIONS", "DEAD",
            "Revoked", "KV", "API", "api", "Record", "function", "SYSTEM", "custom", "Herald-2",
            "HERALDS",
        ] {
            let problem = problem(&config(taken, "")).unwrap();
            assert!(
                problem.contains(taken) && problem.contains("own"),
                "{problem}"
            );
        }
        let own_stream = NatsConfig {
            stream: "Orders".to_owned(),
            ..config("orders", "")
        };
        assert!(problem(&own_stream).is_some());
    }

    #[test]
    fn a_domain_is_one_word() {
        for (domain, is_one) in [
            ("", true),
            ("hub", true),
            ("a-b_c", true),
            ("a.b", false),
            ("a b", false),
            ("*", false),
            ("API", false),
        ] {
            assert_eq!(is_domain(domain), is_one, "{domain}");
        }
    }
}
