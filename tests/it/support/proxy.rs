//! A TCP proxy that holds or loses a message at a chosen moment, as a network or a stopped process
//! would.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Where the proxy is with the moment it waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// Everything passes; the text has not come.
    Awaited,
    /// The text came and is held, with all that follows it.
    Held,
    /// Everything passes, for good.
    Over,
}

/// What happens to what, at the moment.
#[derive(Debug)]
struct Trick {
    text: Vec<u8>,
    /// Whether it is a client's bytes; otherwise a server's.
    of_client: bool,
    /// Whether they are lost; otherwise held.
    loses: bool,
    moment: watch::Sender<Moment>,
}

/// A proxy to one server. It ends with the value.
#[derive(Debug)]
pub(crate) struct Proxy {
    address: SocketAddr,
    trick: Arc<Trick>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// A proxy to the server at `port` that holds a client's bytes from where `text` first occurs.
    pub(crate) async fn holding_at(port: u16, text: &str) -> Self {
        Self::start(port, text, true, false).await
    }

    /// A proxy to the server at `port` that loses the first message of the server with `text` in it.
    pub(crate) async fn losing_answer(port: u16, text: &str) -> Self {
        Self::start(port, text, false, true).await
    }

    async fn start(port: u16, text: &str, of_client: bool, loses: bool) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let trick = Arc::new(Trick {
            text: text.as_bytes().to_vec(),
            of_client,
            loses,
            moment: watch::channel(Moment::Awaited).0,
        });
        let task = tokio::spawn(serve(listener, port, Arc::clone(&trick)));
        Self {
            address,
            trick,
            task,
        }
    }

    /// `nats://` and its address.
    pub(crate) fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    /// Waits until the text has come and is held.
    pub(crate) async fn held(&self) {
        let mut watch = self.trick.moment.subscribe();
        let held = super::soon(watch.wait_for(|moment| *moment == Moment::Held)).await;
        held.expect("the proxy lives");
    }

    /// Whether the text has come and was lost.
    pub(crate) fn has_lost(&self) -> bool {
        self.trick.loses && *self.trick.moment.borrow() == Moment::Over
    }

    /// Lets everything pass.
    pub(crate) fn release(&self) {
        self.trick.moment.send_replace(Moment::Over);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, port: u16, trick: Arc<Trick>) {
    while let Ok((client, _)) = listener.accept().await {
        let trick = Arc::clone(&trick);
        tokio::spawn(async move {
            let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else {
                return;
            };
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = server.into_split();
            tokio::select! {
                () = pass(from_client, to_server, &trick, true) => {}
                () = pass(from_server, to_client, &trick, false) => {}
            }
        });
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, trick: &Trick, of_client: bool) {
    let mut buffer = vec![0; 64 * 1024];
    let mut watch = trick.moment.subscribe();
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let bytes = &buffer[..count];
        // Both sides write a message at once, so that the text is not split over two reads.
        let has_text = bytes
            .windows(trick.text.len())
            .any(|part| part == trick.text);
        let now = of_client == trick.of_client && has_text && trick.begin();
        if now && trick.loses {
            continue;
        }
        let passes = of_client != trick.of_client
            || watch
                .wait_for(|moment| *moment != Moment::Held)
                .await
                .is_ok();
        if !passes || to.write_all(bytes).await.is_err() {
            return;
        }
    }
}

impl Trick {
    /// Begins the moment, if it is still awaited.
    fn begin(&self) -> bool {
        self.moment.send_if_modified(|moment| {
            let awaited = *moment == Moment::Awaited;
            if awaited {
                *moment = if self.loses {
                    Moment::Over
                } else {
                    Moment::Held
                };
            }
            awaited
        })
    }
}
