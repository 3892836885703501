//! Events that come by HTTP: each 2xx is one event in the stream, whoever may not publish publishes nothing, and what
//! cannot be known is said.

mod batches;
mod cloudevents;
mod guide;
mod refused;
mod running;
mod stored;

use std::time::Duration;

use async_nats::jetstream;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};

use crate::support::gateway::{Builder, Gateway};
use crate::support::nats::Nats;
use crate::support::token::publisher;

/// An answer.
#[derive(Debug)]
struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Value,
}

impl Answer {
    /// The last word of the problem's type.
    fn problem(&self) -> &str {
        let kind = self.body["type"].as_str().unwrap_or_default();
        kind.strip_prefix("urn:herald:problem:").unwrap_or_default()
    }

    /// Asserts that it is this problem, as RFC 9457 has it.
    fn assert_is(&self, status: u16, problem: &str, stored: &str) {
        assert_eq!((self.status, self.problem()), (status, problem), "{self:?}");
        assert_eq!(
            self.headers["content-type"], "application/problem+json",
            "{self:?}"
        );
        assert_eq!(self.body["status"], status, "{self:?}");
        assert_eq!(self.body["stored"], stored, "{self:?}");
        assert!(
            self.body["title"].is_string() && self.body["detail"].is_string(),
            "{self:?}"
        );
        let may_come_again = status == 429 || status == 503;
        assert_eq!(
            self.headers.contains_key("retry-after"),
            may_come_again,
            "{self:?}"
        );
        // RFC 6750, section 3.
        let is_challenged = status == 401 || problem == "not-granted";
        assert_eq!(
            self.headers.contains_key("www-authenticate"),
            is_challenged,
            "{self:?}"
        );
        let says_window = stored == "unknown" || problem == "batch-unsure";
        assert_eq!(
            self.body["deduplicationSeconds"].is_u64(),
            says_window,
            "{self:?}"
        );
    }
}

/// A sender.
#[derive(Debug, Clone)]
struct Sender {
    client: reqwest::Client,
    base: String,
    token: String,
}

impl Sender {
    /// One with a good token for everything.
    fn to(gateway: &Gateway) -> Self {
        Self {
            client: reqwest::Client::builder().build().unwrap(),
            base: format!("http://{}", gateway.publish),
            token: publisher("ci", &json!("*"), &json!("*")),
        }
    }

    fn with_token(&self, token: &str) -> Self {
        Self {
            token: token.to_owned(),
            ..self.clone()
        }
    }

    /// Posts to `/v1/workspaces/<workspace>/events/<event>`.
    async fn post(&self, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        self.try_post(path, headers, body).await.unwrap()
    }

    async fn try_post(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> reqwest::Result<Answer> {
        let (workspace, event) = path.split_once('/').unwrap();
        let url = format!("{}/v1/workspaces/{workspace}/events/{event}", self.base);
        let mut all = HeaderMap::new();
        for (name, value) in headers {
            let name: HeaderName = name.parse().unwrap();
            all.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let mut request = self.client.post(url).headers(all).body(body.to_owned());
        if !self.token.is_empty() {
            request = request.bearer_auth(&self.token);
        }
        answered(request.timeout(Duration::from_secs(20)).send().await?).await
    }

    /// Posts `{}` as an event of `acme`.
    async fn event(&self, headers: &[(&str, &str)]) -> Answer {
        self.post("acme/custom.x", headers, "{}").await
    }
}

async fn answered(response: reqwest::Response) -> reqwest::Result<Answer> {
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let text = response.text().await?;
    Ok(Answer {
        status,
        headers,
        body: serde_json::from_str(&text).unwrap_or(Value::String(text)),
    })
}

fn with_http(builder: Builder) -> Builder {
    builder.set("server.publish_listen", "127.0.0.1:0")
}

/// A gateway on `nats` that takes events by HTTP, and a sender.
async fn on(nats: &Nats) -> (Gateway, Sender) {
    ready(Gateway::builder(nats)).await
}

async fn ready(builder: Builder) -> (Gateway, Sender) {
    let gateway = with_http(builder).ready().await;
    let sender = Sender::to(&gateway);
    (gateway, sender)
}

/// How many messages EVENTS has.
async fn count(nats: &Nats) -> u64 {
    let context = jetstream::new(nats.connect().await);
    let stream = context.get_stream("EVENTS").await.unwrap();
    stream.cached_info().state.messages
}
