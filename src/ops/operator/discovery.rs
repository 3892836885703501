//! The operator service as NATS' micro services describe themselves (ADR-32), for `nats micro ls`, `info` and `stats`.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use super::schemas;
use super::wire::{OperatorEndpoint, RequestError};
use crate::config::Names;

/// What is said of the service.
const DESCRIPTION: &str = "Live notification gateway: who is connected, and how the gateways are";

/// What an instance says of itself.
#[derive(Debug)]
pub(super) struct Instance<'a> {
    pub(super) names: &'a Names,
    pub(super) gateway: &'a str,
    pub(super) process: String,
    pub(super) started: &'a str,
}

/// What was requested of one endpoint. A lock for a moment.
#[derive(Debug, Default)]
pub(super) struct EndpointStats(Mutex<EndpointCounts>);

#[derive(Debug, Default, Clone)]
struct EndpointCounts {
    requests: u64,
    errors: u64,
    last_error: String,
    took: Duration,
}

impl EndpointStats {
    pub(super) fn count(&self, error: Option<&RequestError>, took: Duration) {
        let mut counts = self.lock();
        counts.requests += 1;
        counts.took += took;
        if let Some(error) = error {
            counts.errors += 1;
            // Its text may quote the request.
            counts.last_error = error.code.to_string();
        }
    }

    fn lock(&self) -> MutexGuard<'_, EndpointCounts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Instance<'_> {
    /// The answer to the request under `subject`, if its verb is known and this instance is meant.
    pub(super) fn answer<'a>(
        &self,
        subject: &str,
        stats: impl Iterator<Item = (OperatorEndpoint, &'a EndpointStats)>,
    ) -> Option<Value> {
        let mut tokens = subject.split('.').skip(1);
        let verb = tokens.next()?;
        let service = self.names.service();
        let is_meant = tokens.next().is_none_or(|name| name == service)
            && tokens.next().is_none_or(|process| process == self.process)
            && tokens.next().is_none();
        if !is_meant {
            return None;
        }
        match verb {
            "PING" => Some(self.response("ping", json!({}))),
            "INFO" => {
                let endpoints = OperatorEndpoint::ALL.map(|endpoint| self.endpoint(endpoint, true));
                let info = json!({ "description": DESCRIPTION, "endpoints": endpoints });
                Some(self.response("info", info))
            }
            "STATS" => {
                let endpoints = stats.map(|(endpoint, stats)| {
                    let counts = stats.lock().clone();
                    merge(self.endpoint(endpoint, false), counts.value())
                });
                let endpoints: Vec<_> = endpoints.collect();
                let stats = json!({ "started": self.started, "endpoints": endpoints });
                Some(self.response("stats", stats))
            }
            _ => None,
        }
    }

    fn response(&self, verb: &str, more: Value) -> Value {
        let common = json!({
            "type": format!("io.nats.micro.v1.{verb}_response"),
            "name": self.names.service(),
            "id": self.process,
            "version": env!("CARGO_PKG_VERSION"),
            "metadata": { "gateway": self.gateway },
        });
        merge(common, more)
    }

    /// All gateways get every request: there is no queue group.
    fn endpoint(&self, endpoint: OperatorEndpoint, with_schemas: bool) -> Value {
        let common = json!({
            "name": endpoint.as_str(),
            "subject": self.names.subject(endpoint.subject()),
            "queue_group": "",
        });
        let metadata = with_schemas.then(|| {
            let [request, response] = schemas::of(endpoint);
            json!({ "metadata": { "request_schema": request, "response_schema": response } })
        });
        merge(common, metadata.unwrap_or_default())
    }
}

impl EndpointCounts {
    fn value(&self) -> Value {
        let nanos = |took: Duration| u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let average = self
            .took
            .checked_div(u32::try_from(self.requests).unwrap_or(u32::MAX));
        json!({
            "num_requests": self.requests,
            "num_errors": self.errors,
            "last_error": self.last_error,
            "processing_time": nanos(self.took),
            "average_processing_time": nanos(average.unwrap_or_default()),
        })
    }
}

/// The fields of both objects.
fn merge(mut one: Value, other: Value) -> Value {
    if let (Value::Object(one), Value::Object(other)) = (&mut one, other) {
        one.extend(other);
    }
    one
}
