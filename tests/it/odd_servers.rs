//! What a NATS server may say besides messages: nothing of it keeps the gateway from connecting or ends its
//! connection.

use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::support::client::Client;
use crate::support::gateway::Gateway;
use crate::support::nats::Nats;
use crate::support::publisher::Publisher;

/// Addresses that a server may have for clients by a slip in `client_advertise`, its own or another's.
const URLS: &str =
    r#"INFO {"connect_urls":["a b:4222","[fe80::1%eth0]:4222","nats://","x:99999",""],"#;

/// What it may say at any time, of which a client knows nothing.
const LINES: &[u8] =
    b"-ERR\r\n-ERR ''\r\n-ERR 'Some New Words \xff'\r\n-ERR Unquoted\r\n+OK and more\r\n";

/// A server that says what [`URLS`] and [`LINES`] have, and else passes on what the one at `port` says.
/// Returns its port.
async fn odd_server(port: u16) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let own = listener.local_addr().expect("its address").port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(("127.0.0.1", port)).await;
            tokio::spawn(pass(client, server.expect("a connection")));
        }
    });
    own
}

async fn pass(client: TcpStream, server: TcpStream) -> std::io::Result<()> {
    let (from_server, mut to_server) = server.into_split();
    let (mut from_client, mut to_client) = client.into_split();
    let mut from_server = BufReader::new(from_server);
    tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
    let mut info = String::new();
    from_server.read_line(&mut info).await?;
    let info = info.replacen("INFO {", URLS, 1);
    to_client.write_all(info.as_bytes()).await?;
    // After the first PONG the client is connected.
    let mut pong = String::new();
    while pong != "PONG\r\n" {
        pong.clear();
        if from_server.read_line(&mut pong).await? == 0 {
            return Ok(());
        }
        to_client.write_all(pong.as_bytes()).await?;
    }
    to_client.write_all(LINES).await?;
    let mut bytes = [0; 4096];
    loop {
        let count = from_server.read(&mut bytes).await?;
        if count == 0 {
            return Ok(());
        }
        to_client.write_all(&bytes[..count]).await?;
    }
}

#[tokio::test]
async fn odd_addresses_and_words_of_a_server_end_nothing() {
    let nats = Nats::jetstream().await;
    let port = odd_server(nats.port()).await;
    let gateway = Gateway::without_nats()
        .set("nats.url", format!("nats://127.0.0.1:{port}"))
        .ready()
        .await;
    let mut ann = Client::join(&gateway, "ann", "acme").await;
    let publisher = Publisher::on(&nats).await;
    publisher
        .event("acme.custom.x", &json!({ "title": "good" }))
        .await;
    assert_eq!(ann.notification().await["title"], "good");
    gateway
        .metric_becomes("herald_nats_events_total", "\"server_error\"", 4.0)
        .await;
    let disconnected = gateway
        .metric("herald_nats_events_total", "\"disconnected\"")
        .await;
    assert!(disconnected < 0.5, "{}", gateway.output());
}
