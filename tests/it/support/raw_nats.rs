//! A NATS publisher by hand: bytes on TCP, for what no client library would send.

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::nats::Nats;

/// A connection that only publishes.
#[derive(Debug)]
pub(crate) struct RawNats {
    stream: BufReader<TcpStream>,
}

impl RawNats {
    /// Connects to a server that asks for no credentials.
    pub(crate) async fn on(nats: &Nats) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", nats.port())).await;
        let mut raw = Self {
            stream: BufReader::new(stream.expect("a connection")),
        };
        raw.write(b"CONNECT {\"verbose\":false,\"headers\":true,\"protocol\":1}\r\n")
            .await;
        raw
    }

    /// Publishes under any subject.
    pub(crate) async fn publish(&mut self, subject: &[u8], body: &[u8]) {
        let length = format!(" {}\r\n", body.len());
        let parts = [b"PUB ", subject, length.as_bytes(), body, b"\r\n"];
        self.write(&parts.concat()).await;
    }

    /// Publishes with any header block.
    pub(crate) async fn publish_with_block(&mut self, subject: &[u8], block: &[u8], body: &[u8]) {
        let lengths = format!(" {} {}\r\n", block.len(), block.len() + body.len());
        let parts = [b"HPUB ", subject, lengths.as_bytes(), block, body, b"\r\n"];
        self.write(&parts.concat()).await;
    }

    /// Waits until the server has handled all that was sent.
    pub(crate) async fn flush(&mut self) {
        self.write(b"PING\r\n").await;
        let mut line = Vec::new();
        while !line.starts_with(b"PONG") {
            line.clear();
            let read = self.stream.read_until(b'\n', &mut line).await;
            assert!(read.expect("a line") > 0, "the server hung up");
        }
    }

    async fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.expect("it is sent");
    }
}
