//! A publisher: a plain NATS client that knows nothing of Herald.

use async_nats::jetstream::Context;
use async_nats::{Client, HeaderMap, jetstream};
use serde_json::{Value, json};

use super::nats::Nats;

/// Publishes to EVENTS and waits for each acknowledgement.
#[derive(Debug, Clone)]
pub(crate) struct Publisher {
    pub(crate) context: Context,
}

impl Publisher {
    /// A publisher on `nats`.
    pub(crate) async fn on(nats: &Nats) -> Self {
        Self::over(nats.connect().await)
    }

    /// A publisher over this connection.
    pub(crate) fn over(client: Client) -> Self {
        Self {
            context: jetstream::new(client),
        }
    }

    /// Publishes JSON under `ws.<subject>`; returns its sequence.
    pub(crate) async fn event(&self, subject: &str, payload: &Value) -> u64 {
        self.raw(subject, HeaderMap::new(), payload.to_string())
            .await
    }

    /// Publishes any bytes with any headers under `ws.<subject>`; returns the sequence.
    pub(crate) async fn raw(
        &self,
        subject: &str,
        headers: HeaderMap,
        payload: impl Into<bytes::Bytes>,
    ) -> u64 {
        let sent = self
            .context
            .publish_with_headers(format!("ws.{subject}"), headers, payload.into())
            .await
            .expect("it is sent");
        sent.await.expect("it is stored").sequence
    }

    /// Stores a claim of another gateway, of the first version, as the successor of the last one; returns its
    /// sequence.
    pub(crate) async fn claim_over_the_last(&self) -> u64 {
        let sessions = self.context.get_stream("SESSIONS").await;
        let sessions = sessions.expect("it exists");
        let claim = sessions.get_last_raw_message_by_subject("session.>").await;
        let subject = claim.expect("a claim").subject;
        let body =
            json!({ "session": "0123456789abcdef0123456789abcdef", "gateway": "an older one" });
        let sent = self.context.publish(subject, body.to_string().into()).await;
        sent.expect("it is sent")
            .await
            .expect("it is stored")
            .sequence
    }

    /// Runs `publish` while `stream` stores and republishes nothing: as a message fares whose republish
    /// NATS loses with a leader change.
    pub(crate) async fn unheard<T>(&self, stream: &str, publish: impl AsyncFnOnce() -> T) -> T {
        let mut stream = self.context.get_stream(stream).await.expect("it exists");
        let full = stream.info().await.expect("info").config.clone();
        let silent = jetstream::stream::Config {
            republish: None,
            ..full.clone()
        };
        self.context.update_stream(&silent).await.expect("updated");
        let done = publish().await;
        self.context.update_stream(&full).await.expect("updated");
        done
    }
}
