//! The few JetStream API requests that migrations need, with the server's answers as values.
//!
//! Requests are written by hand because the files use StreamConfig's own field names: whatever the
//! server knows can be declared, and what a stream has beyond that survives an update unharmed.

use std::time::{Duration, Instant};

use async_nats::{Client, HeaderMap, Request, RequestErrorKind, header};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::denial::{self, Denial};
use super::error::MigrateError;
use super::judge::Role;
use crate::config::NatsConfig;

/// How long a request that may be repeated is repeated. The election of a stream's leader takes a few
/// seconds, and what was sent meanwhile is answered by nobody.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// How many answers are waited for in that time: 5 s each.
const ATTEMPTS: u32 = 4;

/// The pause before a request is repeated that the server put off.
const PAUSE: Duration = Duration::from_millis(250);

/// After this long without an answer it is found out whether the server denies the request.
const DOUBT_AFTER: Duration = Duration::from_secs(1);

/// `err_code`s of the JetStream API (server/errors.json of nats-server).
mod code {
    /// What an account allows: its resources, storage, memory, streams, what the servers have, a limit in bytes
    /// for each stream, and the largest such limit.
    pub(super) const LIMITS: [u64; 7] = [
        10002,
        10047,
        10028,
        TOO_MANY_STREAMS,
        10023,
        LIMIT_REQUIRED,
        LIMIT_TOO_HIGH,
    ];
    pub(super) const TOO_MANY_STREAMS: u64 = 10027;
    pub(super) const LIMIT_REQUIRED: u64 = 10113;
    pub(super) const LIMIT_TOO_HIGH: u64 = 10122;
    pub(super) const STORE_FAILED: u64 = 10077;
    pub(super) const NO_MESSAGE: u64 = 10037;
    pub(super) const NOT_ENABLED_FOR_ACCOUNT: u64 = 10039;
    pub(super) const NAME_IN_USE: u64 = 10058;
    pub(super) const STREAM_NOT_FOUND: u64 = 10059;
    pub(super) const SUBJECTS_OVERLAP: u64 = 10065;
    pub(super) const WRONG_LAST_SEQUENCE: u64 = 10071;
    /// The same without the sequence in its text, as some paths of the server answer.
    pub(super) const WRONG_LAST_SEQUENCE_CONSTANT: u64 = 10164;
}

/// Requests on one connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Api<'a> {
    pub(super) client: &'a Client,
    pub(super) config: &'a NatsConfig,
    /// How long a request that may be repeated is repeated.
    pub(super) patience: Duration,
}

/// What STREAM.CREATE came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Created {
    /// The stream is there now, with exactly the configuration sent.
    Done,
    /// There is a stream of that name with another configuration.
    NameInUse,
}

/// What a conditional write came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    /// Stored with this sequence.
    At(u64),
    /// The subject's last sequence is not the expected one.
    Conflict,
}

/// A message of a stream.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) subject: String,
    pub(super) sequence: u64,
    /// Its headers as they are on the wire.
    pub(super) headers: Vec<u8>,
    pub(super) payload: Vec<u8>,
}

/// Either part of an answer of the API.
#[derive(Debug, Deserialize)]
struct Failure {
    error: Option<ApiError>,
}

#[derive(Debug, Deserialize)]
struct ApiError {
    code: u64,
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

impl ApiError {
    /// Whether the server is to be asked again later, such as while a cluster elects.
    fn is_passing(&self) -> bool {
        self.code == 503 && !self.is_full()
    }

    /// Whether a stream has no room. One code is for all that it does not store: the text tells them apart.
    fn is_full(&self) -> bool {
        let texts = ["maximum bytes exceeded", "maximum messages exceeded"];
        self.err_code == code::STORE_FAILED
            && texts.iter().any(|text| self.description.contains(text))
    }
}

impl Stored {
    /// Whether a header `name` has a value that `holds`.
    pub(super) fn has_header(&self, name: &str, holds: impl Fn(&str) -> bool) -> bool {
        String::from_utf8_lossy(&self.headers).lines().any(|line| {
            line.split_once(':')
                .is_some_and(|(key, value)| key.eq_ignore_ascii_case(name) && holds(value.trim()))
        })
    }
}

/// An answer or the server's refusal of it.
type Answer<T> = Result<T, ApiError>;

impl Api<'_> {
    /// The configuration of `stream`, or nothing where there is no such stream.
    pub(super) async fn stream_config(
        &self,
        stream: &str,
    ) -> Result<Option<Map<String, Value>>, MigrateError> {
        #[derive(Deserialize)]
        struct Info {
            config: Map<String, Value>,
        }
        let subject = self.config.names().api("STREAM.INFO", stream);
        match self.read::<Info>(&subject, None).await? {
            Ok(info) => Ok(Some(info.config)),
            Err(error) if error.err_code == code::STREAM_NOT_FOUND => Ok(None),
            Err(error) => Err(refused(&subject, error)),
        }
    }

    /// Makes `stream`; once more with the same configuration changes nothing.
    pub(super) async fn create_stream(
        &self,
        stream: &str,
        config: &Map<String, Value>,
    ) -> Result<Created, MigrateError> {
        let subject = self.config.names().api("STREAM.CREATE", stream);
        match self.ask::<Value>(&subject, Some(&json!(config))).await? {
            Ok(_) => Ok(Created::Done),
            Err(error) if error.err_code == code::NAME_IN_USE => Ok(Created::NameInUse),
            Err(error) if error.err_code == code::SUBJECTS_OVERLAP => {
                Err(MigrateError::SubjectsTaken {
                    stream: stream.to_owned(),
                    subjects: config.get("subjects").unwrap_or(&Value::Null).to_string(),
                })
            }
            Err(error) => Err(self.refused_for(stream, &subject, error).await),
        }
    }

    /// Sets the whole configuration of `stream`.
    pub(super) async fn update_stream(
        &self,
        stream: &str,
        config: &Map<String, Value>,
    ) -> Result<(), MigrateError> {
        let subject = self.config.names().api("STREAM.UPDATE", stream);
        match self.ask::<Value>(&subject, Some(&json!(config))).await? {
            Ok(_) => Ok(()),
            Err(error) => Err(self.refused_for(stream, &subject, error).await),
        }
    }

    /// A refusal to make or change `stream`.
    async fn refused_for(&self, stream: &str, subject: &str, error: ApiError) -> MigrateError {
        if !code::LIMITS.contains(&error.err_code) || error.is_passing() {
            return refused(subject, error);
        }
        let role = Role::of(stream, self.config);
        let way = match (error.err_code, role.setting("max_bytes")) {
            (code::TOO_MANY_STREAMS, _) => "Herald has four streams".to_owned(),
            (code::LIMIT_TOO_HIGH, setting) => {
                let most = match self.stream_bytes_max().await {
                    Some(most) => format!("the account takes at most {most} bytes for one stream"),
                    None => "the account takes less for one stream".to_owned(),
                };
                match setting {
                    Some(setting) => format!("Lower {setting}: {most}"),
                    None => format!("Raise that limit to the 1 MiB of this one: {most}"),
                }
            }
            (code::LIMIT_REQUIRED, Some(setting)) if role.bytes(self.config) == Some(0) => {
                format!(
                    "{setting} = 0 is no limit, and the account requires one: set {setting} to a number of bytes"
                )
            }
            // The ledger's, which has no setting of its own.
            (_, None) => {
                "Set nats.max_bytes, nats.sessions_max_bytes and nats.dead_max_bytes, so that all \
                streams together, and 1 MiB for this one, have room in the account"
                    .to_owned()
            }
            (_, Some(setting)) => {
                format!("Set {setting}, so that all streams together have room in the account")
            }
        };
        MigrateError::Limits {
            stream: stream.to_owned(),
            description: error.description,
            way,
        }
    }

    /// The most bytes that the account takes for one stream. Nothing: it has no such limit, or this user may not
    /// ask, which is no reason to wait.
    async fn stream_bytes_max(&self) -> Option<i64> {
        let subject = self.config.names().api_info();
        let answer = self.client.request(subject, "".into());
        let answer = tokio::time::timeout(DOUBT_AFTER, answer).await.ok()?.ok()?;
        let account: Value = serde_json::from_slice(&answer.payload).ok()?;
        let tier = format!("/tiers/R{}/limits", self.config.replicas);
        ["/limits", &tier].into_iter().find_map(|place| {
            let limits = account.pointer(place)?;
            let most = limits.get("storage_max_stream_bytes")?.as_i64()?;
            (most > 0).then_some(most)
        })
    }

    /// The first message of `stream` from `sequence` on that matches `filter`, read at the leader.
    /// Nothing too where there is no such stream.
    pub(super) async fn next_message(
        &self,
        stream: &str,
        sequence: u64,
        filter: &str,
    ) -> Result<Option<Stored>, MigrateError> {
        #[derive(Deserialize)]
        struct Got {
            message: Message,
        }
        #[derive(Deserialize)]
        struct Message {
            subject: String,
            seq: u64,
            #[serde(default)]
            hdrs: String,
            #[serde(default)]
            data: String,
        }
        let subject = self.config.names().api("STREAM.MSG.GET", stream);
        let request = json!({"seq": sequence, "next_by_subj": filter});
        let message = match self.read::<Got>(&subject, Some(&request)).await? {
            Ok(got) => got.message,
            Err(error) if matches!(error.err_code, code::NO_MESSAGE | code::STREAM_NOT_FOUND) => {
                return Ok(None);
            }
            Err(error) => return Err(refused(&subject, error)),
        };
        let decode = |text: &str| {
            BASE64_STANDARD
                .decode(text)
                .map_err(|error| MigrateError::Answer {
                    subject: subject.clone(),
                    problem: error.to_string(),
                })
        };
        Ok(Some(Stored {
            headers: decode(&message.hdrs)?,
            payload: decode(&message.data)?,
            subject: message.subject,
            sequence: message.seq,
        }))
    }

    /// Writes the ledger's `key` if `expected` is its last sequence there (0: it has none).
    ///
    /// Repeated where no answer comes, and where nobody listens: in a cluster, a stream that was just
    /// made is known to the server that leads it before it is known to ours. The server (2.15) looks at
    /// the expected sequence before it looks for a duplicate, so that a repetition of what was stored
    /// is a conflict: whose message is there then says whether it was.
    pub(super) async fn write(
        &self,
        key: &str,
        expected: u64,
        mut headers: HeaderMap,
        payload: Vec<u8>,
    ) -> Result<Written, MigrateError> {
        #[derive(Deserialize)]
        struct PubAck {
            seq: u64,
        }
        let names = self.config.names();
        let subject = &names.key(key);
        let mark = uuid::Uuid::new_v4().to_string();
        headers.insert(header::NATS_MESSAGE_ID, mark.as_str());
        headers.insert(
            header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE,
            expected.to_string(),
        );
        let payload = bytes::Bytes::from(payload);
        let mut unsure = false;
        let answer = self
            .repeat(async || {
                let request = Request::new()
                    .headers(headers.clone())
                    .payload(payload.clone());
                let answer = self.send::<PubAck>(subject, request).await;
                unsure |= matches!(answer, Err(MigrateError::NoAnswer { .. }));
                answer.map_err(|error| match error {
                    MigrateError::NoJetStream { subject, .. } => MigrateError::NoStream { subject },
                    error => error,
                })
            })
            .await?;
        match answer {
            Ok(ack) => Ok(Written::At(ack.seq)),
            Err(error)
                if matches!(
                    error.err_code,
                    code::WRONG_LAST_SEQUENCE | code::WRONG_LAST_SEQUENCE_CONSTANT
                ) =>
            {
                let last = match unsure {
                    true => {
                        let stored_under = format!("{}{key}", names.keys());
                        self.next_message(names.ledger(), expected + 1, &stored_under)
                            .await?
                    }
                    false => None,
                };
                Ok(match last {
                    Some(last) if last.has_header("Nats-Msg-Id", |id| id == mark) => {
                        Written::At(last.sequence)
                    }
                    _ => Written::Conflict,
                })
            }
            Err(error) if error.is_full() => Err(MigrateError::LedgerFull {
                stream: names.ledger().to_owned(),
                description: error.description,
                bytes: super::ledger::MAX_BYTES,
            }),
            Err(error) => Err(self.refused_for(names.ledger(), subject, error).await),
        }
    }

    /// Asks what changes nothing, again where no answer comes.
    async fn read<T: DeserializeOwned>(
        &self,
        subject: &str,
        body: Option<&Value>,
    ) -> Result<Answer<T>, MigrateError> {
        self.repeat(async || self.ask(subject, body).await).await
    }

    /// Repeats `request` while its fault is a passing one and patience lasts.
    async fn repeat<T>(
        &self,
        mut request: impl AsyncFnMut() -> Result<Answer<T>, MigrateError>,
    ) -> Result<Answer<T>, MigrateError> {
        let start = Instant::now();
        loop {
            let answer = request().await;
            let passing = match &answer {
                Ok(Err(error)) => error.is_passing(),
                Ok(Ok(_)) => false,
                Err(error) => error.is_transient(),
            };
            if !passing || start.elapsed() + PAUSE >= self.patience {
                return answer;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        subject: &str,
        body: Option<&Value>,
    ) -> Result<Answer<T>, MigrateError> {
        let payload = body.map(ToString::to_string).unwrap_or_default();
        let request = Request::new().payload(payload.into());
        self.send(subject, request).await
    }

    async fn send<T: DeserializeOwned>(
        &self,
        subject: &str,
        request: Request,
    ) -> Result<Answer<T>, MigrateError> {
        let payload = self.answer(subject, request).await?;
        let unreadable = |error: serde_json::Error| MigrateError::Answer {
            subject: subject.to_owned(),
            problem: error.to_string(),
        };
        let failure: Failure = serde_json::from_slice(&payload).map_err(unreadable)?;
        match failure.error {
            Some(error) if error.err_code == code::NOT_ENABLED_FOR_ACCOUNT => {
                Err(MigrateError::NoJetStreamForAccount)
            }
            Some(error) => Ok(Err(error)),
            None => serde_json::from_slice(&payload).map(Ok).map_err(unreadable),
        }
    }

    /// The bytes of the answer. A request that is denied gets none: where one does not come soon, the
    /// reason is looked for while the wait goes on.
    async fn answer(&self, subject: &str, request: Request) -> Result<bytes::Bytes, MigrateError> {
        let start = Instant::now();
        let patience = self.patience / ATTEMPTS;
        let answer = self
            .client
            .send_request(subject.to_owned(), request.timeout(Some(patience)));
        tokio::pin!(answer);
        let answered = match tokio::time::timeout(DOUBT_AFTER, &mut answer).await {
            Ok(answered) => answered,
            Err(_) => tokio::select! {
                biased;
                // An answer that does come is the truth, whatever the other connection is told.
                answered = &mut answer => answered,
                // Boxed: a connection in the making is large, and this one is rare.
                denial = Box::pin(denial::of(self.config, subject, patience)) => match denial {
                    Some(Denial::Publish(subject)) => {
                        return Err(MigrateError::PublishDenied { subject });
                    }
                    Some(Denial::Subscribe(subject)) => {
                        return Err(MigrateError::SubscribeDenied { subject });
                    }
                    None => answer.await,
                },
            },
        };
        answered
            .map(|message| message.payload)
            .map_err(|error| match error.kind() {
                RequestErrorKind::NoResponders => self.no_jetstream(subject),
                RequestErrorKind::TimedOut => MigrateError::NoAnswer {
                    servers: self.config.hosts(),
                    subject: subject.to_owned(),
                    patience: start.elapsed(),
                },
                _ => MigrateError::Client {
                    subject: subject.to_owned(),
                    problem: error.kind().to_string(),
                },
            })
    }

    /// What it means that nobody answers JetStream's API.
    fn no_jetstream(&self, subject: &str) -> MigrateError {
        let server = self.client.server_info();
        let hosts = self.config.hosts();
        let (cause, way) = match &self.config.domain {
            Some(domain) => {
                let own = match &server.domain {
                    Some(own) => format!("this server's own is {own}"),
                    None => "this server is in none".to_owned(),
                };
                (
                    format!(
                        "there is no JetStream domain {domain} for this account at {hosts} ({own})"
                    ),
                    "Set nats.domain to the domain that has the streams, and see that its server is reachable",
                )
            }
            None if server.jetstream => (
                format!("JetStream is on at {hosts}, but not for this user's account"),
                "Use a user of an account that has JetStream",
            ),
            None => (
                format!("JetStream is not enabled on the NATS server {hosts}"),
                "Add `jetstream { … }` to its configuration; at a leaf node, set nats.domain to its hub's domain",
            ),
        };
        MigrateError::NoJetStream {
            subject: subject.to_owned(),
            cause,
            way,
        }
    }
}

fn refused(subject: &str, error: ApiError) -> MigrateError {
    MigrateError::Refused {
        subject: subject.to_owned(),
        later: error.is_passing(),
        description: error.description,
        code: error.err_code,
    }
}
