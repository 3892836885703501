//! A publisher: a plain NATS client that knows nothing of Herald.

use async_nats::jetstream::Context;
use async_nats::{HeaderMap, jetstream};
use serde_json::Value;

use super::nats::Nats;

/// Publishes to EVENTS and waits for each acknowledgement.
#[derive(Debug, Clone)]
pub(crate) struct Publisher {
    pub(crate) context: Context,
}

impl Publisher {
    /// A publisher on `nats`.
    pub(crate) async fn on(nats: &Nats) -> Self {
        Self {
            context: jetstream::new(nats.connect().await),
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

    /// Runs `publish` while EVENTS stores and republishes nothing: as an event fares whose republish
    /// NATS loses with a leader change.
    pub(crate) async fn unheard(&self, publish: impl AsyncFnOnce()) {
        let mut stream = self.context.get_stream("EVENTS").await.expect("it exists");
        let full = stream.info().await.expect("info").config.clone();
        let silent = jetstream::stream::Config {
            republish: None,
            ..full.clone()
        };
        self.context.update_stream(&silent).await.expect("updated");
        publish().await;
        self.context.update_stream(&full).await.expect("updated");
    }
}
