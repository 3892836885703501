//! Requests to the operator service of all gateways: who answers, and who should have. The commands `sessions`,
//! `disconnect`, `gateways`, `drain` and `revoke` use it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_nats::{HeaderMap, Message, StatusCode};
use bytes::Bytes;
use futures_util::StreamExt;
use serde::Serialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Value;
use tokio::time::{Instant, timeout, timeout_at};

use super::nats::NatsConnection;
use super::{CliError, output};
use crate::config::{Config, Names, parse_duration};
use crate::ops::operator::wire::{Answer, ErrorReport, OperatorEndpoint, PeerReport};

/// After the last answer that is awaited, so long for a gateway that is too new to be known to others.
const SETTLE: Duration = Duration::from_millis(250);
/// The pause before a query is sent again whose answers are not yet as they are awaited.
const AGAIN: Duration = Duration::from_millis(100);
/// A gateway that was heard within this time has to answer.
const EXPECTED_S: f64 = 60.0;

/// What all commands for operators take.
#[derive(Debug, clap::Args)]
pub(super) struct OperatorArgs {
    /// How long to wait for gateways that do not answer.
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = parse_duration)]
    timeout: Duration,
    /// Print JSON, one object a line, instead of a table.
    #[arg(long)]
    pub(super) json: bool,
}

/// A command's connection to the gateways.
#[derive(Debug)]
pub(super) struct OperatorClient {
    nats: NatsConnection,
    names: Names,
    timeout: Duration,
}

/// What came of a request to all gateways.
#[derive(Debug)]
pub(super) struct Answers<T> {
    pub(super) answers: Vec<Answer<T>>,
    pub(super) silent: Silent,
}

/// Who did not answer, or not as it should.
#[derive(Debug, Default)]
pub(super) struct Silent {
    /// Those that others have heard.
    missing: Vec<PeerReport>,
    /// One sentence for each other failure.
    pub(super) failures: Vec<String>,
}

/// The answer of one gateway, or what it says against the request.
enum Read<T> {
    Answer(Answer<T>),
    Failure(Answer<IgnoredAny>, String),
    /// It is none that this version knows.
    Unknown(String),
}

impl OperatorClient {
    /// # Errors
    /// Where NATS cannot be reached.
    pub(super) async fn open(config: &Config, args: &OperatorArgs) -> Result<Self, CliError> {
        let nats = NatsConnection::open(&config.nats, "herald operator").await?;
        Ok(Self::new(nats, config, args))
    }

    /// Over a connection that there is.
    pub(super) fn new(nats: NatsConnection, config: &Config, args: &OperatorArgs) -> Self {
        Self {
            nats,
            names: config.nats.names(),
            timeout: args.timeout,
        }
    }

    /// Sends a request to all gateways, and waits for the answers of all that are known to be there.
    ///
    /// # Errors
    /// Where nobody answers, or the NATS user may not send it.
    pub(super) async fn request_all<T: DeserializeOwned>(
        &mut self,
        endpoint: OperatorEndpoint,
        request: &impl Serialize,
    ) -> Result<Answers<T>, CliError> {
        self.request(endpoint, request, None, |_| true).await
    }

    /// Sends a query to all gateways, again and again, until all that are known to be there have an answer as `is_done`
    /// wants it. After the timeout, the last answer of each.
    ///
    /// # Errors
    /// As [`OperatorClient::request_all`].
    pub(super) async fn query_until<T: DeserializeOwned>(
        &mut self,
        endpoint: OperatorEndpoint,
        query: &impl Serialize,
        is_done: impl Fn(&Answer<T>) -> bool,
    ) -> Result<Answers<T>, CliError> {
        self.request(endpoint, query, None, is_done).await
    }

    /// Sends a request to the gateway that it names.
    ///
    /// # Errors
    /// Where that one does not answer, or not as it should.
    pub(super) async fn request_one<T: DeserializeOwned>(
        &mut self,
        endpoint: OperatorEndpoint,
        request: &impl Serialize,
        gateway: &str,
    ) -> Result<Answer<T>, CliError> {
        let answered = self
            .request(endpoint, request, Some(gateway), |_| true)
            .await?;
        if let Some(failure) = answered.silent.failures.first() {
            return Err(CliError::Failure(failure.clone()));
        }
        let mut answers = answered.answers.into_iter();
        answers.next().ok_or_else(|| self.nobody(Some(gateway)))
    }

    async fn request<T: DeserializeOwned>(
        &mut self,
        endpoint: OperatorEndpoint,
        request: &impl Serialize,
        gateway: Option<&str>,
        is_done: impl Fn(&Answer<T>) -> bool,
    ) -> Result<Answers<T>, CliError> {
        let subject = self.names.subject(endpoint.subject());
        let body = Bytes::from(serde_json::to_vec(request).map_err(CliError::failure)?);
        let client = self.nats.client.clone();
        let time = self.timeout;
        let collecting = async {
            let inbox = client.new_inbox();
            let mut messages = client
                .subscribe(inbox.clone())
                .await
                .map_err(CliError::failure)?;
            let mut collected = Collected::new(gateway.is_some());
            let deadline = Instant::now() + time;
            loop {
                let sent = client.publish_with_reply(subject.clone(), inbox.clone(), body.clone());
                sent.await.map_err(CliError::failure)?;
                let again = Instant::now() + AGAIN;
                let mut until = deadline;
                while let Ok(Some(message)) = timeout_at(until, messages.next()).await {
                    if message.status == Some(StatusCode::NO_RESPONDERS) {
                        return Ok(collected.end());
                    }
                    collected.take(&message);
                    let settled = Instant::now() + SETTLE;
                    until = deadline.min(match collected.is_complete() {
                        _ if !collected.all(&is_done) => again,
                        true => settled,
                        false => deadline,
                    });
                }
                if collected.all(&is_done) || Instant::now() >= deadline {
                    return Ok::<_, CliError>(collected.end());
                }
            }
        };
        let answered = self.nats.allowed(collecting).await??;
        if answered.answers.is_empty() && answered.silent.failures.is_empty() {
            return Err(self.nobody(gateway));
        }
        Ok(answered)
    }

    /// One page after another of one process; `None` once it does not answer.
    pub(super) async fn next_page<T: DeserializeOwned>(
        &self,
        endpoint: OperatorEndpoint,
        request: &impl Serialize,
    ) -> Result<Answer<T>, String> {
        let subject = self.names.subject(endpoint.subject());
        let body = serde_json::to_vec(request).map_err(|error| error.to_string())?;
        let requested = self.nats.client.request(subject, body.into());
        let message = match timeout(self.timeout, requested).await {
            Ok(Ok(message)) => message,
            Ok(Err(error)) => return Err(error.to_string()),
            Err(_) => return Err("no answer in time".to_owned()),
        };
        match read(&message) {
            Read::Answer(answer) => Ok(answer),
            Read::Failure(_, text) | Read::Unknown(text) => Err(text),
        }
    }

    fn nobody(&self, gateway: Option<&str>) -> CliError {
        let time = self.timeout;
        CliError::Failure(match gateway {
            Some(gateway) => format!(
                "no gateway {gateway} answered within {time:?}: `herald gateways` lists them"
            ),
            None => format!(
                "no gateway answered within {time:?}: does one run with this NATS account and nats.prefix?"
            ),
        })
    }
}

/// What has come so far.
#[derive(Debug)]
struct Collected<T> {
    /// Only one gateway is meant.
    is_of_one: bool,
    /// The last answer of each process, or what it said against the request.
    answered: BTreeMap<String, Result<Answer<T>, String>>,
    /// Answers in a form that is not known.
    unknown: BTreeSet<String>,
    /// By process.
    peers: BTreeMap<String, PeerReport>,
}

impl<T: DeserializeOwned> Collected<T> {
    fn new(is_of_one: bool) -> Self {
        Self {
            is_of_one,
            answered: BTreeMap::new(),
            unknown: BTreeSet::new(),
            peers: BTreeMap::new(),
        }
    }

    fn take(&mut self, message: &Message) {
        let (process, peers, answer) = match read::<T>(message) {
            Read::Answer(mut answer) => {
                let peers = std::mem::take(&mut answer.peers);
                (answer.process.clone(), peers, Ok(answer))
            }
            Read::Failure(head, text) => {
                let failure = format!("{}: {text}", head.gateway);
                (head.process, head.peers, Err(failure))
            }
            Read::Unknown(text) => {
                self.unknown.insert(text);
                return;
            }
        };
        self.answered.insert(process, answer);
        for peer in peers {
            // That which was heard last.
            let known = self.peers.entry(peer.process.clone());
            let known = known.or_insert_with(|| peer.clone());
            known.heard_s = known.heard_s.min(peer.heard_s);
        }
    }

    fn missing(&self) -> impl Iterator<Item = &PeerReport> {
        let missing = self.peers.values().filter(|_| !self.is_of_one);
        missing.filter(|peer| !self.answered.contains_key(&peer.process))
    }

    /// Whether all answers are as `is_done` wants them.
    fn all(&self, is_done: impl Fn(&Answer<T>) -> bool) -> bool {
        self.answered.values().flatten().all(is_done)
    }

    fn is_complete(&self) -> bool {
        let is_expected = |peer: &PeerReport| peer.heard_s <= EXPECTED_S;
        !self.answered.is_empty() && !self.missing().any(is_expected)
    }

    fn end(self) -> Answers<T> {
        let missing = self.missing().cloned().collect();
        let mut answers = Vec::new();
        let mut failures: Vec<_> = self.unknown.into_iter().collect();
        for answer in self.answered.into_values() {
            match answer {
                Ok(answer) => answers.push(answer),
                Err(failure) => failures.push(failure),
            }
        }
        answers.sort_by(|one, other| one.gateway.cmp(&other.gateway));
        Answers {
            answers,
            silent: Silent { missing, failures },
        }
    }
}

fn read<T: DeserializeOwned>(message: &Message) -> Read<T> {
    let header = |headers: &HeaderMap| headers.get("Nats-Service-Error-Code").is_some();
    if message.headers.as_ref().is_some_and(header) {
        let head = serde_json::from_slice::<Answer<IgnoredAny>>(&message.payload);
        let report = serde_json::from_slice::<ErrorReport>(&message.payload);
        if let (Ok(head), Ok(report)) = (head, report) {
            return Read::Failure(head, report.error.text);
        }
    }
    match serde_json::from_slice(&message.payload) {
        Ok(answer) => Read::Answer(answer),
        Err(_) => {
            let body = serde_json::from_slice::<Value>(&message.payload).unwrap_or_default();
            let who = body.get("gateway").and_then(Value::as_str);
            let who = who.unwrap_or("a gateway");
            Read::Unknown(format!(
                "{who} answers in the form of another version: use that version's `herald`"
            ))
        }
    }
}

impl Silent {
    /// Says who did not answer.
    ///
    /// # Errors
    /// Where one should have, or answered with an error.
    pub(super) fn report(self, json: bool) -> Result<(), CliError> {
        if json && !self.missing.is_empty() {
            let missing = serde_json::json!({ "missing": self.missing });
            output::line(missing)?;
        }
        let said = |peer: &PeerReport| {
            let gateway = output::harmless(&peer.gateway);
            format!(
                "{gateway} did not answer (last heard {:.0} s ago)",
                peer.heard_s
            )
        };
        let (expected, gone): (Vec<_>, Vec<_>) = self
            .missing
            .iter()
            .partition(|peer| peer.heard_s <= EXPECTED_S);
        output::messages(gone.into_iter().map(said));
        let failures = self.failures.iter().map(|text| output::harmless(text));
        let failures: Vec<_> = failures.chain(expected.into_iter().map(said)).collect();
        if failures.is_empty() {
            return Ok(());
        }
        Err(CliError::Failure(failures.join("\n")))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn message(body: &Value) -> Message {
        Message {
            subject: "_INBOX.x".into(),
            reply: None,
            payload: body.to_string().into(),
            headers: None,
            status: None,
            description: None,
            length: 0,
        }
    }

    fn answer(process: &str, peers: &[(&str, f64)]) -> Message {
        let peers: Vec<_> = peers
            .iter()
            .map(|(process, heard_s)| json!({"gateway": process, "process": process, "heard_s": heard_s}))
            .collect();
        message(&json!({"gateway": process, "process": process, "closing": 1, "peers": peers}))
    }

    fn collected(is_of_one: bool, messages: &[Message]) -> Collected<IgnoredAny> {
        let mut collected = Collected::new(is_of_one);
        for message in messages {
            collected.take(message);
        }
        collected
    }

    #[test]
    fn those_that_any_gateway_has_heard_of_late_are_waited_for() {
        let first = answer("a", &[("b", 3.0), ("old", 100.0)]);
        let second = answer("b", &[("a", 1.0), ("c", 70.0), ("old", 90.0)]);
        assert!(!collected(false, &[]).is_complete());
        let one = collected(false, std::slice::from_ref(&first));
        assert!(!one.is_complete());
        let missing = one.end().silent.missing;
        assert_eq!(missing.len(), 2);
        let both = collected(false, &[second, first.clone()]);
        assert!(both.is_complete());
        let ended = both.end();
        let heard: Vec<_> = ended
            .silent
            .missing
            .iter()
            .map(|peer| peer.heard_s)
            .collect();
        assert_eq!(heard, [70.0, 90.0]);
        let gateways: Vec<_> = ended.answers.iter().map(|answer| &answer.gateway).collect();
        assert_eq!(gateways, ["a", "b"]);
        // Of one that is named no other answers.
        assert!(collected(true, &[first]).is_complete());
    }

    #[test]
    fn an_answer_in_another_form_is_no_answer_and_names_its_gateway() {
        let ended = collected(false, &[message(&json!({"gateway": "gw-9"}))]).end();
        assert!(ended.answers.is_empty());
        let [failure] = ended.silent.failures.as_slice() else {
            panic!("{:?}", ended.silent);
        };
        assert!(failure.contains("gw-9 answers in the form of another version"));
        let silent = Silent {
            failures: vec![failure.clone()],
            ..Silent::default()
        };
        assert!(silent.report(false).is_err());
        assert!(Silent::default().report(true).is_ok());
    }
}
