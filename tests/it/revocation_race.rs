//! A socket that joins at the very moment of a revocation: its token was good when it was verified, and its gateway has
//! looked through its sockets before this one is among them.

use std::net::SocketAddr;

use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};

use crate::support::client::Client;
use crate::support::command::finish;
use crate::support::gateway::Gateway;
use crate::support::nats::Nats;
use crate::support::soon;
use crate::support::token::{at, signed};

/// Before a NATS server: it passes all on but claims, which it keeps back while it is closed. A join waits for its claim
/// between the look at its token and its entry into the directory.
#[derive(Clone)]
struct ClaimGate {
    address: SocketAddr,
    is_open: watch::Sender<bool>,
    /// Claims that were kept back.
    kept: watch::Sender<usize>,
}

impl ClaimGate {
    /// An open one.
    async fn to(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let gate = Self {
            address: listener.local_addr().expect("its address"),
            is_open: watch::Sender::new(true),
            kept: watch::Sender::new(0),
        };
        let serving = gate.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(("127.0.0.1", port)).await;
                let (mut from_server, to_server) = server.expect("a server").into_split();
                let (from_client, mut to_client) = client.into_split();
                let (send, frames) = mpsc::channel(256);
                tokio::spawn(read_frames(from_client, send));
                tokio::spawn(serving.clone().write_frames(frames, to_server));
                tokio::spawn(
                    async move { tokio::io::copy(&mut from_server, &mut to_client).await },
                );
            }
        });
        gate
    }

    async fn write_frames(self, mut frames: mpsc::Receiver<Vec<u8>>, mut to: OwnedWriteHalf) {
        let mut is_open = self.is_open.subscribe();
        let mut kept = Vec::new();
        loop {
            tokio::select! {
                frame = frames.recv() => {
                    let Some(frame) = frame else { return };
                    let is_claim = [&b"PUB session."[..], b"HPUB session."]
                        .iter()
                        .any(|begin| frame.starts_with(begin));
                    if is_claim && !*self.is_open.borrow() {
                        kept.push(frame);
                        self.kept.send_modify(|count| *count += 1);
                        continue;
                    }
                    to.write_all(&frame).await.expect("the server reads");
                }
                () = async { drop(is_open.wait_for(|is_open| *is_open).await) }, if !kept.is_empty() => {
                    to.write_all(&kept.concat()).await.expect("the server reads");
                    kept.clear();
                }
            }
        }
    }
}

/// What a client sends, whole messages each.
async fn read_frames(from: OwnedReadHalf, frames: mpsc::Sender<Vec<u8>>) {
    let mut from = BufReader::new(from);
    loop {
        let mut frame = Vec::new();
        if from.read_until(b'\n', &mut frame).await.unwrap_or(0) == 0 {
            return;
        }
        if frame.starts_with(b"PUB ") || frame.starts_with(b"HPUB ") {
            let line = String::from_utf8_lossy(&frame);
            let size = line.split_whitespace().last().expect("a size");
            let mut body = vec![0; size.parse::<usize>().expect("a number") + 2];
            from.read_exact(&mut body).await.expect("a body");
            frame.extend(body);
        }
        if frames.send(frame).await.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn a_socket_that_joins_at_the_moment_of_a_revocation_is_closed() {
    let nats = Nats::jetstream().await;
    let gate = ClaimGate::to(nats.port()).await;
    let url = format!("nats://{}", gate.address);
    let gateway = Gateway::without_nats().set("nats.url", url).ready().await;
    let claims = json!({ "sub": "ada", "workspaces": "*", "exp": at(600), "iat": at(-10) });
    let query = format!("token={}&workspaceSlug=acme", signed(&claims));

    gate.is_open.send_replace(false);
    let joining = async {
        let mut client = Client::connect(&gateway, &query).await;
        soon(client.closed()).await
    };
    let revoking = async {
        let mut kept = gate.kept.subscribe();
        soon(kept.wait_for(|kept| *kept > 0))
            .await
            .expect("a claim");
        let revoke = Gateway::builder(&nats).command(&["revoke", "--user", "ada", "--no-issuer"]);
        let output = finish(revoke.into()).await.ok();
        // The gateway has looked through all its sockets by now.
        assert!(output.stdout.ends_with("in force on 1 gateway\n"));
        gate.is_open.send_replace(true);
    };
    let (end, ()) = tokio::join!(joining, revoking);
    assert_eq!(end, (4001, "revoked".to_owned()));
    let closed = gateway.metric("herald_revocations_closed_total", "").await;
    assert_eq!(closed, 0.0, "the join found it itself");
}
