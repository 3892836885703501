//! A WebSocket client (tokio-tungstenite) that shows what a user would notice.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{
    Connector, MaybeTlsStream, WebSocketStream, connect_async_tls_with_config,
};

use super::PATIENCE;
use super::gateway::Gateway;
use super::token::token;

/// An open socket.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

/// How a connection attempt ended without a socket.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) status: u16,
    pub(crate) retry_after: Option<u64>,
    pub(crate) body: String,
}

impl Client {
    /// Connects as `user`, with a good token.
    pub(crate) async fn join(gateway: &Gateway, user: &str, workspace: &str) -> Self {
        let query = format!("token={}&workspaceSlug={workspace}", token(user, workspace));
        Self::connect(gateway, &query).await
    }

    /// Connects with a query as it is.
    pub(crate) async fn connect(gateway: &Gateway, query: &str) -> Self {
        match Self::attempt(gateway, query).await {
            Ok(client) => client,
            Err(refused) => panic!("no socket: {refused:?}"),
        }
    }

    /// Tries to connect with a query as it is.
    pub(crate) async fn attempt(gateway: &Gateway, query: &str) -> Result<Self, Refused> {
        let request = format!("{}/?{query}", gateway.url()).into_client_request();
        Self::attempt_over(gateway.connector(), request.expect("a URL")).await
    }

    /// Tries to connect with a request as it is.
    pub(crate) async fn attempt_with(
        request: tungstenite::handshake::client::Request,
    ) -> Result<Self, Refused> {
        Self::attempt_over(Connector::Plain, request).await
    }

    async fn attempt_over(
        connector: Connector,
        request: tungstenite::handshake::client::Request,
    ) -> Result<Self, Refused> {
        let connecting = connect_async_tls_with_config(request, None, false, Some(connector));
        let connecting = timeout(PATIENCE, connecting);
        match connecting.await.expect("an answer in time") {
            Ok((stream, _)) => Ok(Self { stream }),
            Err(tungstenite::Error::Http(response)) => Err(Refused {
                status: response.status().as_u16(),
                retry_after: response
                    .headers()
                    .get("retry-after")
                    .and_then(|value| value.to_str().ok()?.parse().ok()),
                body: String::from_utf8_lossy(response.body().as_deref().unwrap_or_default())
                    .into_owned(),
            }),
            Err(error) => panic!("no connection: {error}"),
        }
    }

    /// The next notification.
    pub(crate) async fn notification(&mut self) -> Value {
        serde_json::from_str(&self.text().await).expect("JSON")
    }

    /// The next notification as it was sent.
    pub(crate) async fn text(&mut self) -> String {
        match self.next().await {
            Some(Message::Text(text)) => text.to_string(),
            other => panic!("no notification but {other:?}"),
        }
    }

    /// The next `count` notifications.
    pub(crate) async fn notifications(&mut self, count: usize) -> Vec<Value> {
        let mut all = Vec::with_capacity(count);
        while all.len() < count {
            all.push(self.notification().await);
        }
        all
    }

    /// The close code and reason that the gateway sends, whatever comes before it. It is answered, and
    /// the gateway must end the connection. 1006 if the connection just ends.
    pub(crate) async fn closed(&mut self) -> (u16, String) {
        let closed = loop {
            match self.next().await {
                Some(Message::Close(Some(frame))) => {
                    break (frame.code.into(), frame.reason.to_string());
                }
                Some(Message::Close(None)) => break (1005, String::new()),
                Some(_) => {}
                None => return (1006, String::new()),
            }
        };
        // The library answers when it is asked for more.
        assert_eq!(self.next().await, None, "something after the close frame");
        closed
    }

    /// The next message that is no ping or pong; `None` at the end of the connection.
    pub(crate) async fn next(&mut self) -> Option<Message> {
        loop {
            let next = timeout(PATIENCE, self.stream.next());
            match next.await.expect("something comes in time") {
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(message)) => return Some(message),
                Some(Err(_)) | None => return None,
            }
        }
    }

    /// Whether the socket is open: a refusal is upgraded too, but answers no ping.
    pub(crate) async fn is_open(&mut self) -> bool {
        let payload = "are you open?";
        if self
            .stream
            .send(Message::Ping(payload.into()))
            .await
            .is_err()
        {
            return false;
        }
        loop {
            let next = timeout(PATIENCE, self.stream.next());
            match next.await.expect("something comes in time") {
                Some(Ok(Message::Pong(answer))) if answer == payload => return true,
                Some(Ok(Message::Close(_)) | Err(_)) | None => return false,
                Some(Ok(_)) => {}
            }
        }
    }

    /// Whether nothing but pings comes for a while. For use after a sentinel only.
    pub(crate) async fn is_quiet(&mut self, time: Duration) -> bool {
        let end = tokio::time::Instant::now() + time;
        loop {
            match tokio::time::timeout_at(end, self.stream.next()).await {
                Err(_) => return true,
                Ok(Some(Ok(Message::Ping(_) | Message::Pong(_)))) => {}
                Ok(_) => return false,
            }
        }
    }

    /// Sends a text.
    pub(crate) async fn send(&mut self, text: &str) {
        self.stream
            .send(Message::text(text))
            .await
            .expect("the socket is open");
    }
}
