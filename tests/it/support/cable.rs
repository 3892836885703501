//! A TCP proxy that fails as a network does: cut, silent, delayed or thin, while the server goes on for
//! others.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// What a cable does with what it is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Condition {
    /// Passes it on.
    Whole,
    /// Ends all connections, and each new one at once.
    Cut,
    /// Keeps connections open and passes nothing on until it is mended.
    Silent,
    /// Passes it on after this time.
    Delayed(Duration),
    /// Passes on so many bytes a second in each direction of each connection.
    Thin(u32),
}

/// A proxy to one server. It ends with the value.
#[derive(Debug)]
pub(crate) struct Cable {
    address: SocketAddr,
    condition: watch::Sender<Condition>,
    task: JoinHandle<()>,
}

impl Cable {
    /// A whole one to the server at `port`.
    pub(crate) async fn to(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let (condition, is_now) = watch::channel(Condition::Whole);
        let task = tokio::spawn(serve(listener, port, is_now));
        Self {
            address,
            condition,
            task,
        }
    }

    /// `nats://` and its address.
    pub(crate) fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes what it does, for open connections too.
    pub(crate) fn set(&self, condition: Condition) {
        self.condition.send_replace(condition);
    }

    /// Ends all connections, and each new one at once.
    pub(crate) fn cut(&self) {
        self.set(Condition::Cut);
    }

    /// Takes connections again.
    pub(crate) fn mend(&self) {
        self.set(Condition::Whole);
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, port: u16, condition: watch::Receiver<Condition>) {
    while let Ok((client, _)) = listener.accept().await {
        let mut condition = condition.clone();
        tokio::spawn(async move {
            let now = *condition.borrow_and_update();
            if now == Condition::Cut {
                return;
            }
            let Some(server) = connect(port, now).await else {
                return;
            };
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = server.into_split();
            tokio::select! {
                () = pass(from_client, to_server, condition.clone()) => {}
                () = pass(from_server, to_client, condition.clone()) => {}
                // Also when the cable itself is gone.
                _ = condition.wait_for(|now| *now == Condition::Cut) => {}
            }
        });
    }
}

async fn connect(port: u16, condition: Condition) -> Option<TcpStream> {
    let socket = TcpSocket::new_v4().ok()?;
    if matches!(condition, Condition::Thin(_)) {
        // What is on its way stands before the thin part, not in buffers behind it.
        socket.set_recv_buffer_size(16 * 1024).ok()?;
    }
    socket.connect(([127, 0, 0, 1], port).into()).await.ok()
}

/// Pieces that are on their way in one direction.
const QUEUE: usize = 256;

/// Passes one direction on, from a queue, so that a delay delays and does not slow down.
async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut condition: watch::Receiver<Condition>,
) {
    let (keep, mut kept) = mpsc::channel::<(Instant, Vec<u8>)>(QUEUE);
    let now = condition.clone();
    let reading = async move {
        loop {
            let most = match *now.borrow() {
                Condition::Thin(_) => 2 * 1024,
                _ => 32 * 1024,
            };
            let mut buffer = vec![0; most];
            let Ok(count @ 1..) = from.read(&mut buffer).await else {
                return;
            };
            buffer.truncate(count);
            let is = *now.borrow();
            let due = match is {
                Condition::Delayed(by) => Instant::now() + by,
                _ => Instant::now(),
            };
            if let Condition::Thin(_) = is {
                // One piece at a time: what waits, waits at the sender.
                let Ok(permits) = keep.reserve_many(QUEUE).await else {
                    return;
                };
                drop(permits);
            }
            if keep.send((due, buffer)).await.is_err() {
                return;
            }
        }
    };
    let writing = async move {
        while let Some((due, bytes)) = kept.recv().await {
            tokio::time::sleep_until(due).await;
            let passing = condition.wait_for(|now| *now != Condition::Silent).await;
            let Ok(now) = passing.map(|now| *now) else {
                return;
            };
            if let Condition::Thin(rate) = now {
                let time = Duration::from_secs(1) * u32::try_from(bytes.len()).unwrap_or(0) / rate;
                tokio::time::sleep(time).await;
            }
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(reading, writing);
}
