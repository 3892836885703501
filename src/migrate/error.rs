//! Why migrations cannot be applied or judged, each cause with its own words.

use std::time::Duration;

use async_nats::jetstream::ErrorCode;

use super::difference::{Difference, list, ways_back};

/// Why migrations were not applied. `Display` says what to do about it and holds no secret.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// A migration file is not right. Those of the binary are tested, so this is a developer's.
    #[error("migration {name} cannot be read: {problem}")]
    File { name: String, problem: String },

    /// A file changed after it was applied.
    #[error(
        "migration {name} was changed after it was applied: the ledger has checksum {applied}, this \
         herald has {ours}. Applied files stay as they are: restore it, and put the change into a new one"
    )]
    Changed {
        name: String,
        applied: String,
        ours: String,
    },

    /// A newer Herald applied migrations that this one cannot work with.
    #[error(
        "the ledger is ahead of this herald: it has {}, which this version does not know and which \
         breaks older gateways. Run a newer herald",
        .breaking.join(", ")
    )]
    Ahead {
        /// The unknown migrations that break older gateways.
        breaking: Vec<String>,
    },

    /// A file is new to the ledger but stands before one that is already applied.
    #[error(
        "migration {pending} is not applied but {applied}, which comes after it, is. A new migration \
         takes the next number"
    )]
    OutOfOrder { pending: String, applied: String },

    /// A stream that the ledger says was made is not there.
    #[error(
        "stream {stream} is missing, though the ledger says that {migration} made it. It was deleted, or \
         nats.stream was changed: restore the stream from a backup or the setting, or, to start anew, \
         delete the bucket HERALD_MIGRATIONS (after nats.prefix, if that is set) and migrate"
    )]
    Missing { stream: String, migration: String },

    /// Somebody changed an object by hand, and no promise is kept with it.
    #[error(
        "a JetStream object was changed by hand, and Herald cannot work with it: {}. {}",
        list(.0),
        ways_back(.0)
    )]
    Drift(Vec<Difference>),

    /// A stream of that name was there before, and is another.
    #[error(
        "a stream of that name exists with other settings, and no migration made it: {}. Rename, change or \
         remove it, or set nats.prefix, or nats.stream to another name",
        list(.0)
    )]
    OtherSettings(Vec<Difference>),

    /// Another stream holds the subjects.
    #[error(
        "stream {stream} cannot be made: another stream already takes some of its subjects ({subjects})"
    )]
    SubjectsTaken { stream: String, subjects: String },

    /// The account has no room for it, or wants to know how much it needs.
    #[error(
        "the NATS account does not take stream {stream}: {description}. {way} (docs/configuration.md, \
         \"Limits of an account\")"
    )]
    Limits {
        stream: String,
        description: String,
        way: String,
    },

    /// The ledger's bucket has no room.
    #[error(
        "the bucket of the ledger takes no more, so that nothing is migrated: {description}. Give it room: \
         nats stream edit {stream} --max-bytes={bytes} --max-msgs=-1"
    )]
    LedgerFull {
        stream: String,
        description: String,
        bytes: i64,
    },

    /// Nobody answers the JetStream API, and this is why.
    #[error("{cause}: nobody answers {subject}. {way}")]
    NoJetStream {
        subject: String,
        cause: String,
        way: &'static str,
    },

    /// JetStream answers, and no stream takes what is written.
    #[error(
        "no stream takes {subject}: the bucket was only just made and its server is not known everywhere, or \
         it was deleted"
    )]
    NoStream { subject: String },

    /// The server has JetStream, this account does not.
    #[error(
        "JetStream is not enabled for this NATS account: add `jetstream: enabled` to it in the server's \
         configuration"
    )]
    NoJetStreamForAccount,

    /// The user may not publish there.
    #[error(
        "NATS denies this user to publish to {subject}: grant it, or use the user that may (see \
         nats/production.conf)"
    )]
    PublishDenied { subject: String },

    /// The user may not receive answers.
    #[error(
        "NATS denies this user to subscribe to {subject}, where it would receive answers: set \
         nats.inbox_prefix to the prefix this user has"
    )]
    SubscribeDenied { subject: String },

    /// The server answered with an error that has no case of its own here.
    #[error("NATS refuses {subject}: {description} (error {})", .code.0)]
    Refused {
        subject: String,
        description: String,
        code: ErrorCode,
        /// Whether the server is to be asked again later (HTTP-like code 503).
        later: bool,
    },

    /// The answer is not what the JetStream API answers.
    #[error("the answer to {subject} cannot be read: {problem}")]
    Answer { subject: String, problem: String },

    /// No answer came.
    #[error(
        "NATS ({servers}) did not answer {subject}: timed out after {patience:.1?}. It is away, or its leader is"
    )]
    NoAnswer {
        servers: String,
        subject: String,
        patience: Duration,
    },

    /// The client does not send.
    #[error("the NATS client cannot send to {subject}: {problem}")]
    Client { subject: String, problem: String },

    /// An entry of the ledger is not one.
    #[error("entry {key} of the bucket HERALD_MIGRATIONS cannot be read: {problem}")]
    Ledger { key: String, problem: String },
}

impl MigrateError {
    /// Whether the same call may succeed later with nothing changed by anybody.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::NoAnswer { .. } | Self::NoStream { .. } => true,
            Self::Refused { later, .. } => *later,
            _ => false,
        }
    }
}
