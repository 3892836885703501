//! What a room subscribes to: the events and the claims of its workspace, as the streams republish them.

use std::time::Duration;

use async_nats::Subscriber;
use tokio::time::timeout;

use super::connection::Connection;
use crate::config::{Names, names};
use crate::event::WorkspaceSlug;

/// How long a connection is waited for.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(1);

/// The subscriptions of one room. They end when this is dropped, and are renewed after a reconnect.
///
/// A subscription that NATS denies stays silent: [`super::connection::Denials`] finds it, and connects again once it is allowed.
#[derive(Debug)]
pub struct RoomSubscriptions {
    pub events: Subscriber,
    pub claims: Subscriber,
}

impl RoomSubscriptions {
    /// Subscribes. The server handles what one connection sends in order: an answer to a request that is sent later
    /// proves that the subscriptions are in force. `None` where there is no connection.
    pub async fn open(
        connection: &Connection,
        names: &Names,
        workspace: &WorkspaceSlug,
    ) -> Option<Self> {
        let connected = timeout(CONNECTION_TIMEOUT, connection.connected());
        connected.await.ok()?;
        let subscribe = async |stored: String| {
            let subject = names.subject(&names::live(stored));
            connection.client().subscribe(subject).await.ok()
        };
        Some(Self {
            events: subscribe(names::event(workspace, ">")).await?,
            claims: subscribe(names::claim(workspace, "*")).await?,
        })
    }

    /// The client's numbers of the subscriptions, by which it reports that one is full.
    pub fn ids(&self) -> [u64; 2] {
        [self.events.sid(), self.claims.sid()]
    }
}
