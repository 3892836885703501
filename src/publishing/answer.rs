//! What a client is told of what is stored, and of each event of a batch. Refusals are [`super::problem`]s. Pure.

use std::time::Duration;

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Value, json};

use super::problem::{BatchOutcome, PublishProblem};
use crate::codes::ProblemType;
use crate::nats::PubAck;

/// What became of one event of a batch.
#[derive(Debug)]
pub(super) struct Outcome {
    /// Its CloudEvents `id`, if it has one.
    pub(super) id: Option<String>,
    pub(super) stored: Result<PubAck, PublishProblem>,
}

impl Outcome {
    /// As an element of `events`.
    fn report(&self) -> Value {
        match &self.stored {
            Ok(ack) => json!({
                "id": self.id,
                "status": status(ack).as_u16(),
                "stream": ack.stream,
                "sequence": ack.sequence,
                "duplicate": ack.duplicate,
            }),
            Err(problem) => json!({
                "id": self.id,
                "status": problem.problem.status(),
                "problem": problem.details(),
            }),
        }
    }
}

fn status(ack: &PubAck) -> StatusCode {
    match ack.duplicate {
        true => StatusCode::OK,
        false => StatusCode::CREATED,
    }
}

/// The answer of a stored event, as it is written.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StoredEvent<'a> {
    stream: &'a str,
    sequence: u64,
    duplicate: bool,
    deduplication_seconds: u64,
}

/// The answer of a stored event. The stream knows its id for as long as `window`.
pub(super) fn stored(ack: &PubAck, window: Duration) -> Response {
    let body = StoredEvent {
        stream: &ack.stream,
        sequence: ack.sequence,
        duplicate: ack.duplicate,
        deduplication_seconds: window.as_secs(),
    };
    answer(status(ack), &body)
}

/// What became of each event: 2xx if all are stored, 503 if sending some again may help, 422 otherwise.
pub(super) fn batch(outcomes: &[Outcome], window: Duration) -> Response {
    let events: Value = outcomes.iter().map(Outcome::report).collect();
    let acks = || outcomes.iter().filter_map(|it| it.stored.as_ref().ok());
    let refused: Vec<ProblemType> = outcomes
        .iter()
        .filter_map(|it| Some(it.stored.as_ref().err()?.problem))
        .collect();
    if refused.is_empty() {
        let status = match acks().any(|ack| !ack.duplicate) {
            true => StatusCode::CREATED,
            false => StatusCode::OK,
        };
        let body = json!({ "events": events, "deduplicationSeconds": window.as_secs() });
        return answer(status, &body);
    }
    let why = format!(
        "{} of {} events are not stored, or nobody knows: `events` says what became of each",
        refused.len(),
        outcomes.len()
    );
    let stored = if acks().next().is_some() {
        "some"
    } else if refused.iter().any(|problem| problem.may_be_stored()) {
        "unknown"
    } else {
        "no"
    };
    let batch = BatchOutcome { events, stored };
    let problem = match refused.iter().any(|problem| problem.status() == 503) {
        true => PublishProblem::new(ProblemType::BatchUnsure, why).within(window),
        false => PublishProblem::new(ProblemType::Batch, why),
    };
    problem.with_batch(batch).into_response()
}

fn answer(status: StatusCode, body: &impl Serialize) -> Response {
    // Strings and numbers alone: it cannot fail.
    let text = serde_json::to_string(body).unwrap_or_default();
    (status, [(header::CONTENT_TYPE, "application/json")], text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_says_whether_any_of_it_is_stored() {
        let ack = |duplicate| {
            Ok(PubAck {
                stream: "EVENTS".to_owned(),
                sequence: 7,
                duplicate,
            })
        };
        let problem = |problem| Err(PublishProblem::new(problem, "why"));
        use ProblemType::{BadEvent, NotAcknowledged, Starting};
        for (outcomes, status, said) in [
            (vec![], 200, None),
            (vec![ack(true)], 200, None),
            (vec![ack(true), ack(false)], 201, None),
            (vec![problem(BadEvent)], 422, Some("no")),
            (vec![problem(BadEvent), ack(true)], 422, Some("some")),
            (vec![problem(Starting)], 503, Some("no")),
            (vec![problem(NotAcknowledged)], 503, Some("unknown")),
            (
                vec![problem(NotAcknowledged), ack(false)],
                503,
                Some("some"),
            ),
        ] {
            let outcomes: Vec<Outcome> = outcomes
                .into_iter()
                .map(|stored| Outcome { id: None, stored })
                .collect();
            let response = batch(&outcomes, Duration::from_secs(120));
            assert_eq!(response.status(), status, "{outcomes:?}");
            let body = axum::body::to_bytes(response.into_body(), 10_000);
            let body = futures_util::FutureExt::now_or_never(body)
                .unwrap()
                .unwrap();
            let body: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(body["stored"].as_str(), said, "{outcomes:?}");
            let has_window = body["deduplicationSeconds"] == 120;
            assert_eq!(has_window, status != 422, "{outcomes:?}");
            assert_eq!(body["events"].as_array().unwrap().len(), outcomes.len());
        }
    }
}
