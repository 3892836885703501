//! A TCP proxy that can be cut, as a network cable can, while the server goes on for others.

use std::net::SocketAddr;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A proxy to one server. It ends with the value.
#[derive(Debug)]
pub(crate) struct Cable {
    address: SocketAddr,
    whole: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Cable {
    /// A whole one to the server at `port`.
    pub(crate) async fn to(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let (whole, is_whole) = watch::channel(true);
        let task = tokio::spawn(serve(listener, port, is_whole));
        Self {
            address,
            whole,
            task,
        }
    }

    /// `nats://` and its address.
    pub(crate) fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    /// Ends all connections, and each new one at once.
    pub(crate) fn cut(&self) {
        self.whole.send_replace(false);
    }

    /// Takes connections again.
    pub(crate) fn mend(&self) {
        self.whole.send_replace(true);
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, port: u16, whole: watch::Receiver<bool>) {
    while let Ok((mut client, _)) = listener.accept().await {
        let mut whole = whole.clone();
        tokio::spawn(async move {
            if !*whole.borrow_and_update() {
                return;
            }
            let Ok(mut server) = TcpStream::connect(("127.0.0.1", port)).await else {
                return;
            };
            tokio::select! {
                _ = copy_bidirectional(&mut client, &mut server) => {}
                // Also when the cable itself is gone.
                _ = whole.wait_for(|whole| !whole) => {}
            }
        });
    }
}
