//! The sockets: real clients that stay, and some that come and go, each writing down what it got.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use fastrand::Rng;
use futures_util::StreamExt;
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

use crate::support::token::token;

/// Users of each workspace, spread over the gateways.
pub(super) const USERS_EACH: usize = 6;

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The client left.
    Left,
    /// The gateway closed with this code.
    Closed(u16),
    /// The connection was gone.
    Gone,
}

/// One notification as it came: the event's number.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrival {
    pub(super) number: usize,
    pub(super) at: Instant,
}

/// One connection of one user.
#[derive(Debug, Clone)]
pub(super) struct Connection {
    pub(super) workspace: usize,
    pub(super) user: usize,
    pub(super) gateway: usize,
    pub(super) attempted: Instant,
    pub(super) opened: Instant,
    pub(super) ended: Option<(Instant, End)>,
    pub(super) arrivals: Vec<Arrival>,
}

/// Connections that one client made, the last one at the end.
pub(super) type Connections = Arc<Mutex<Vec<Connection>>>;

/// One client.
#[derive(Debug, Clone)]
pub(super) struct Client {
    pub(super) workspace: usize,
    pub(super) user: usize,
    /// It leaves now and then, and comes back.
    pub(super) comes_and_goes: bool,
    /// The gateways' addresses.
    pub(super) addresses: Arc<Vec<String>>,
    pub(super) connections: Connections,
}

pub(super) fn workspace_name(workspace: usize) -> String {
    format!("w{workspace}")
}

pub(super) fn user_name(user: usize) -> String {
    format!("u{user}")
}

impl Client {
    /// Keeps a connection until `stop`.
    pub(super) async fn run(self, seed: u64, stop: CancellationToken) {
        let mut rng = Rng::with_seed(seed);
        let mut gateway = (self.workspace + self.user) % self.addresses.len();
        let token = token(&user_name(self.user), &workspace_name(self.workspace));
        while !stop.is_cancelled() {
            let attempted = Instant::now();
            let url = format!(
                "ws://{}/?token={token}&workspaceSlug={}",
                self.addresses[gateway],
                workspace_name(self.workspace)
            );
            let connecting = timeout(
                Duration::from_secs(8),
                tokio_tungstenite::connect_async(url),
            );
            if let Ok(Ok((stream, _))) = connecting.await {
                let connection = Connection {
                    workspace: self.workspace,
                    user: self.user,
                    gateway,
                    attempted,
                    opened: Instant::now(),
                    ended: None,
                    arrivals: Vec::new(),
                };
                self.connections
                    .lock()
                    .expect("no one panics")
                    .push(connection);
                let stays = if self.comes_and_goes {
                    Duration::from_millis(rng.u64(2000..9000))
                } else {
                    Duration::from_secs(3600)
                };
                let Some(end) = self.read(stream, stays, &stop).await else {
                    return;
                };
                let mut connections = self.connections.lock().expect("no one panics");
                let last = connections.last_mut().expect("just pushed");
                last.ended = Some((Instant::now(), end));
            }
            sleep(Duration::from_millis(rng.u64(100..800))).await;
            gateway = rng.usize(..self.addresses.len());
        }
    }

    /// Reads until the connection ends; `None` at the end of the run, with the connection still open.
    async fn read<S>(
        &self,
        mut stream: tokio_tungstenite::WebSocketStream<S>,
        stays: Duration,
        stop: &CancellationToken,
    ) -> Option<End>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    {
        let leaves = sleep(stays);
        tokio::pin!(leaves);
        loop {
            let next = tokio::select! {
                biased;
                () = stop.cancelled() => return None,
                () = &mut leaves => {
                    // Whether the gateway answers does not matter to who leaves.
                    let _ = timeout(Duration::from_secs(1), stream.close(None)).await;
                    return Some(End::Left);
                }
                next = stream.next() => next,
            };
            match next {
                Some(Ok(Message::Text(text))) => {
                    let at = Instant::now();
                    let value: Value = serde_json::from_str(&text).expect("a notification is JSON");
                    let title = value["title"].as_str().expect("a title");
                    let number = title.parse().expect("a number");
                    let mut connections = self.connections.lock().expect("no one panics");
                    let last = connections.last_mut().expect("it is open");
                    last.arrivals.push(Arrival { number, at });
                }
                Some(Ok(Message::Close(frame))) => {
                    let code = frame.map_or(1005, |frame| frame.code.into());
                    return Some(End::Closed(code));
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Some(End::Gone),
            }
        }
    }
}
