//! The few JetStream API requests that migrations need, with the server's answers as values.
//!
//! Requests are written by hand because the files use StreamConfig's own field names: whatever the
//! server knows can be declared, and what a stream has beyond that survives an update unharmed.

use std::time::{Duration, Instant};

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::RawMessage;
use async_nats::{Client, HeaderMap, Request, RequestErrorKind, header};
use bytes::Bytes;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::error::MigrateError;
use super::judge::{LEDGER_BYTES_MAX, Role};
use crate::config::NatsConfig;
use crate::ingest::permissions::{self, Probe};

/// How long a request is repeated. The election of a stream's leader takes a few seconds, and what was
/// sent meanwhile is answered by nobody.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// How many answers are waited for in that time: 5 s each.
const ATTEMPTS: u32 = 4;

/// The pause before a request is repeated that the server put off.
const PAUSE: Duration = Duration::from_millis(250);

/// After this long without an answer it is found out whether the server denies the request.
const DOUBT_AFTER: Duration = Duration::from_secs(1);

/// What an account allows: its resources, storage, memory, streams, what the servers have, a limit in bytes
/// for each stream, and the largest such limit.
const LIMITS: [ErrorCode; 7] = [
    ErrorCode::ACCOUNT_RESOURCES_EXCEEDED,
    ErrorCode::STORAGE_RESOURCES_EXCEEDED,
    ErrorCode::MEMORY_RESOURCES_EXCEEDED,
    ErrorCode::MAXIMUM_STREAMS_LIMIT,
    ErrorCode::INSUFFICIENT_RESOURCES,
    ErrorCode::STREAM_MAX_BYTES_REQUIRED,
    ErrorCode::STREAM_MAX_STREAM_BYTES_EXCEEDED,
];

/// Requests on one connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Api<'a> {
    pub(super) client: &'a Client,
    pub(super) config: &'a NatsConfig,
    /// How long a request is repeated.
    pub(super) patience: Duration,
}

/// An answer of the API.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Answer<T> {
    // First, for a refusal may have fields of an answer as well.
    Refused { error: ApiError },
    Said(T),
}

#[derive(Debug, Deserialize)]
struct ApiError {
    code: u64,
    #[serde(default)]
    err_code: ErrorCode,
    #[serde(default)]
    description: String,
}

/// Whether a stream has no room. One code is for all that it does not store: the text tells them apart.
fn is_full(code: ErrorCode, description: &str) -> bool {
    let texts = ["maximum bytes exceeded", "maximum messages exceeded"];
    code == ErrorCode::STREAM_STORE_FAILED && texts.iter().any(|text| description.contains(text))
}

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
        match self.ask::<Info>("STREAM.INFO", stream, "").await {
            Ok(info) => Ok(Some(info.config)),
            Err(MigrateError::Refused {
                code: ErrorCode::STREAM_NOT_FOUND,
                ..
            }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes `stream`; once more with the same configuration changes nothing. Returns the configuration of one
    /// that is there and has another.
    pub(super) async fn create_stream(
        &self,
        stream: &str,
        config: &Map<String, Value>,
    ) -> Result<Option<Map<String, Value>>, MigrateError> {
        self.repeat(async || {
            match self.change("STREAM.CREATE", stream, config).await {
                Ok(()) => Ok(None),
                Err(MigrateError::Refused {
                    code: ErrorCode::STREAM_NAME_EXIST,
                    ..
                }) => match self.stream_config(stream).await? {
                    Some(found) => Ok(Some(found)),
                    // Another process makes it just now.
                    None => Err(MigrateError::NoStream {
                        subject: stream.to_owned(),
                    }),
                },
                Err(MigrateError::Refused {
                    code: ErrorCode::STREAM_SUBJECT_OVERLAP,
                    ..
                }) => Err(MigrateError::SubjectsTaken {
                    stream: stream.to_owned(),
                    subjects: config.get("subjects").unwrap_or(&Value::Null).to_string(),
                }),
                Err(error) => Err(error),
            }
        })
        .await
    }

    /// Sets `fields` of `stream` and leaves its others as they are. Returns whether there is such a stream.
    ///
    /// There is no conditional update: what others change between the two requests is undone. So nothing is sent
    /// that changes nothing, and each attempt looks anew.
    pub(super) async fn update_stream(
        &self,
        stream: &str,
        fields: &Map<String, Value>,
    ) -> Result<bool, MigrateError> {
        self.repeat(async || {
            let Some(found) = self.stream_config(stream).await? else {
                return Ok(false);
            };
            let mut config = found.clone();
            config.extend(fields.clone());
            if config != found {
                self.change("STREAM.UPDATE", stream, &config).await?;
            }
            Ok(true)
        })
        .await
    }

    async fn change(
        &self,
        request: &str,
        stream: &str,
        config: &Map<String, Value>,
    ) -> Result<(), MigrateError> {
        let subject = self.config.names().api(request, stream);
        let payload = json!(config).to_string();
        match self
            .request::<Value>(&subject, HeaderMap::new(), payload.into())
            .await
        {
            Ok(_) => Ok(()),
            Err(error) => Err(self.explained(stream, error).await),
        }
    }

    /// `error`, or what it means where the account does not allow `stream` as it is to be.
    async fn explained(&self, stream: &str, error: MigrateError) -> MigrateError {
        let MigrateError::Refused {
            code,
            description,
            later: false,
            ..
        } = &error
        else {
            return error;
        };
        if !LIMITS.contains(code) {
            return error;
        }
        let role = Role::of(stream, self.config);
        let way = match role.setting("max_bytes") {
            _ if *code == ErrorCode::MAXIMUM_STREAMS_LIMIT => "Herald has four streams".to_owned(),
            setting if *code == ErrorCode::STREAM_MAX_STREAM_BYTES_EXCEEDED => {
                let most = match self.stream_bytes_max().await {
                    Some(most) => format!("the account takes at most {most} bytes for one stream"),
                    None => "the account takes less for one stream".to_owned(),
                };
                match setting {
                    Some(setting) => format!("Lower {setting}: {most}"),
                    None => format!("Raise that limit to the 1 MiB of this one: {most}"),
                }
            }
            Some(setting)
                if *code == ErrorCode::STREAM_MAX_BYTES_REQUIRED
                    && role.bytes(self.config) == Some(0) =>
            {
                format!(
                    "{setting} = 0 is no limit, and the account requires one: set {setting} to a number of bytes"
                )
            }
            Some(setting) => {
                format!("Set {setting}, so that all streams together have room in the account")
            }
            // The ledger's, which has no setting of its own.
            None => {
                "Set nats.max_bytes, nats.sessions_max_bytes and nats.dead_max_bytes, so that all \
                streams together, and 1 MiB for this one, have room in the account"
                    .to_owned()
            }
        };
        MigrateError::Limits {
            stream: stream.to_owned(),
            description: description.clone(),
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

    /// The first message of the ledger from `sequence` on under the key `key`, which may be `>`, read at the
    /// leader. Nothing too where there is no ledger.
    pub(super) async fn next_entry(
        &self,
        sequence: u64,
        key: &str,
    ) -> Result<Option<StreamMessage>, MigrateError> {
        #[derive(Deserialize)]
        struct Got {
            message: RawMessage,
        }
        let names = self.config.names();
        let question = json!({"seq": sequence, "next_by_subj": format!("{}{key}", names.keys())});
        let question = question.to_string();
        let got = self.ask::<Got>("STREAM.MSG.GET", names.ledger(), &question);
        match got.await {
            Ok(got) => StreamMessage::try_from(got.message)
                .map(Some)
                .map_err(|error| MigrateError::Ledger {
                    key: key.to_owned(),
                    problem: error.to_string(),
                }),
            Err(MigrateError::Refused {
                code: ErrorCode::NO_MESSAGE_FOUND | ErrorCode::STREAM_NOT_FOUND,
                ..
            }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Creates the ledger's `key`, over its deletion at `deleted` (0: it never was there). Returns whether it is
    /// this call's; otherwise another process was faster.
    ///
    /// Repeated where no answer comes, and where nobody listens: in a cluster, a stream that was just
    /// made is known to the server that leads it before it is known to ours. The server (2.15) looks at
    /// the expected sequence before it looks for a duplicate, so that a repetition of what was stored
    /// is a conflict: whose message is there then says whether it was.
    pub(super) async fn create_entry(
        &self,
        key: &str,
        deleted: u64,
        payload: Bytes,
    ) -> Result<bool, MigrateError> {
        let names = self.config.names();
        let subject = &names.key(key);
        let mark = uuid::Uuid::new_v4().to_string();
        let mut headers = HeaderMap::new();
        headers.insert(header::NATS_MESSAGE_ID, mark.as_str());
        headers.insert(
            header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE,
            deleted.to_string(),
        );
        let written = self.repeat(async || {
            let written = self.request::<Value>(subject, headers.clone(), payload.clone());
            written.await.map_err(|error| match error {
                MigrateError::NoJetStream { subject, .. } => MigrateError::NoStream { subject },
                error => error,
            })
        });
        match written.await {
            Ok(_) => Ok(true),
            Err(MigrateError::Refused {
                code:
                    ErrorCode::STREAM_WRONG_LAST_SEQUENCE
                    | ErrorCode::STREAM_WRONG_LAST_SEQUENCE_CONSTANT,
                ..
            }) => {
                let stored = self.next_entry(deleted + 1, key).await?;
                Ok(stored.is_some_and(|stored| {
                    let id = stored.headers.get(header::NATS_MESSAGE_ID);
                    id.is_some_and(|id| id.as_str() == mark)
                }))
            }
            Err(MigrateError::Refused {
                code, description, ..
            }) if is_full(code, &description) => Err(MigrateError::LedgerFull {
                stream: names.ledger().to_owned(),
                description,
                bytes: LEDGER_BYTES_MAX,
            }),
            Err(error) => Err(self.explained(names.ledger(), error).await),
        }
    }

    /// Asks what changes nothing, again where no answer comes.
    async fn ask<T: DeserializeOwned>(
        &self,
        request: &str,
        stream: &str,
        body: &str,
    ) -> Result<T, MigrateError> {
        let subject = self.config.names().api(request, stream);
        let body = Bytes::from(body.to_owned());
        self.repeat(async || self.request(&subject, HeaderMap::new(), body.clone()).await)
            .await
    }

    /// Repeats `step` while its fault is a passing one and patience lasts.
    async fn repeat<T>(
        &self,
        mut step: impl AsyncFnMut() -> Result<T, MigrateError>,
    ) -> Result<T, MigrateError> {
        let start = Instant::now();
        loop {
            match step().await {
                Err(error) if error.is_transient() && start.elapsed() + PAUSE < self.patience => {
                    tracing::debug!(%error, "migration step repeated");
                    tokio::time::sleep(PAUSE).await;
                }
                result => return result,
            }
        }
    }

    async fn request<T: DeserializeOwned>(
        &self,
        subject: &str,
        headers: HeaderMap,
        payload: Bytes,
    ) -> Result<T, MigrateError> {
        let mut request = Request::new().payload(payload);
        if !headers.is_empty() {
            request = request.headers(headers);
        }
        let answer = self.answer(subject, request).await?;
        match serde_json::from_slice(&answer) {
            Ok(Answer::Said(said)) => Ok(said),
            Ok(Answer::Refused { error })
                if error.err_code == ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT =>
            {
                Err(MigrateError::NoJetStreamForAccount)
            }
            Ok(Answer::Refused { error }) => Err(MigrateError::Refused {
                subject: subject.to_owned(),
                // Such as while a cluster elects.
                later: error.code == 503 && !is_full(error.err_code, &error.description),
                description: error.description,
                code: error.err_code,
            }),
            Err(error) => Err(MigrateError::Answer {
                subject: subject.to_owned(),
                problem: error.to_string(),
            }),
        }
    }

    /// The bytes of the answer. A request that is denied gets none: where one does not come soon, the
    /// reason is looked for while the wait goes on.
    async fn answer(&self, subject: &str, request: Request) -> Result<Bytes, MigrateError> {
        let start = Instant::now();
        let request = request.timeout(Some(self.patience / ATTEMPTS));
        let answer = self.client.send_request(subject.to_owned(), request);
        tokio::pin!(answer);
        let answered = match tokio::time::timeout(DOUBT_AFTER, &mut answer).await {
            Ok(answered) => answered,
            Err(_) => tokio::select! {
                biased;
                // An answer that does come is the truth, whatever the other connection is told.
                answered = &mut answer => answered,
                // Boxed: a connection in the making is large, and this one is rare.
                denial = Box::pin(self.denial(subject)) => match denial {
                    Some(denial) => return Err(denial),
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

    /// Which permission is missing for `subject`, if one is and that can be found out.
    async fn denial(&self, subject: &str) -> Option<MigrateError> {
        let probes = vec![Probe::Publish(subject.to_owned())];
        let denied = permissions::tried(self.config, "herald-permission-check", probes).await;
        Some(match denied.ok()?.into_iter().next()? {
            Probe::Publish(subject) => MigrateError::PublishDenied { subject },
            Probe::Subscribe(subject) => MigrateError::SubscribeDenied { subject },
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
