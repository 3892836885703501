//! Where the answers to one request come.

use async_nats::{Message, Subject, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use tracing::warn;

use super::connection::Connection;

/// The client has ended. There will be no connection any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the connection is closed")]
pub struct ClientEnded;

/// An inbox of its own: the shared one of `Client::request` takes a single message.
#[derive(Debug)]
pub(super) struct Inbox {
    connection: Connection,
    /// That of the connection when it was opened.
    epoch: u64,
    subject: String,
    messages: Subscriber,
}

impl Inbox {
    pub(super) async fn open(connection: &Connection) -> Result<Self, ClientEnded> {
        let epoch = connection.epoch();
        let subject = connection.client().new_inbox();
        let subscribed = connection.client().subscribe(subject.clone()).await;
        Ok(Self {
            connection: connection.clone(),
            epoch,
            subject,
            messages: subscribed.map_err(|_| ClientEnded)?,
        })
    }

    /// Sends a request whose answers come here. The server handles SUB and PUB of one connection in order, so
    /// nothing needs flushing in between.
    pub(super) async fn request(&self, subject: Subject, body: Bytes) -> Result<(), ClientEnded> {
        let client = self.connection.client();
        let sent = client.publish_with_reply(subject, self.subject.clone(), body);
        sent.await.map_err(|_| ClientEnded)
    }

    /// The next answer. Cancel safe.
    pub(super) async fn next(&mut self) -> Result<Message, ClientEnded> {
        next(&mut self.messages, &self.subject).await
    }

    /// The next answer; `None` once there is another connection than that on which it was to come. Cancel safe.
    pub(super) async fn next_on_connection(&mut self) -> Option<Result<Message, ClientEnded>> {
        tokio::select! {
            // What came before the connection broke counts.
            biased;
            message = next(&mut self.messages, &self.subject) => Some(message),
            () = self.connection.replaced(self.epoch) => None,
        }
    }
}

/// The client routes by the number of a subscription alone, so the subject is checked, too.
async fn next(messages: &mut Subscriber, inbox: &str) -> Result<Message, ClientEnded> {
    loop {
        let message = messages.next().await.ok_or(ClientEnded)?;
        if message.subject.as_str() == inbox {
            return Ok(message);
        }
        warn!(subject = %message.subject, "answer for another inbox ignored");
    }
}
