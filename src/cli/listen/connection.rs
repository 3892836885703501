//! One connection of `herald listen`: the upgrade, then the pump that prints. Says how it ended and
//! decides nothing about what follows.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use chrono::DateTime;
use futures_util::{SinkExt, StreamExt};
use serde::Deserialize;
use serde::de::IgnoredAny;
use tokio::net::TcpStream;
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tokio_rustls::rustls::{self, ClientConfig};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::{CapacityError, ProtocolError};
use tokio_tungstenite::tungstenite::http::header::{RETRY_AFTER, SEC_WEBSOCKET_PROTOCOL};
use tokio_tungstenite::tungstenite::http::{HeaderMap, HeaderValue};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Bytes, Error, Message};
use tokio_tungstenite::{Connector, MaybeTlsStream, WebSocketStream};
use tokio_util::sync::CancellationToken;

use super::reconnect::Disconnect;
use super::tokens::Renewal;
use crate::cli::CliError;
use crate::event::Traceparent;
use crate::socket::ControlMessage;
use crate::telemetry::CommandTraces;

/// Name resolution, connection, TLS and upgrade together. A gateway answers an upgrade within a few
/// seconds or with 503.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// How long to wait for the other half of a close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Heartbeats are sent no faster, whatever interval the gateway names: it closes a client that sends 20 a second.
const BEAT_MIN: Duration = Duration::from_millis(100);
/// Longest message taken, in bytes: sixteen times what the contract allows a notification.
const MESSAGE_BYTES_MAX: usize = 1024 * 1024;

/// Control messages, where the gateway knows them.
const SUBPROTOCOLS: &str = "herald.v2, herald.v1";
const HEARTBEAT: &str = r#"{"type":"heartbeat"}"#;

pub(super) type ClientStream = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Connects and upgrades.
///
/// # Errors
/// What came instead of the open. Nothing of `url` is in it.
pub(super) async fn connect(
    url: &str,
    tls: Option<Arc<ClientConfig>>,
) -> Result<ClientStream, Disconnect> {
    let config = WebSocketConfig::default()
        .read_buffer_size(16 * 1024)
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX));
    // The error would quote the address.
    let unusable = |_| Disconnect::Unreachable("the address cannot be used".to_owned());
    let mut request = url.into_client_request().map_err(unusable)?;
    let headers = request.headers_mut();
    headers.insert(
        SEC_WEBSOCKET_PROTOCOL,
        HeaderValue::from_static(SUBPROTOCOLS),
    );
    let connecting = tokio_tungstenite::connect_async_tls_with_config(
        request,
        Some(config),
        true,
        tls.map(Connector::Rustls),
    );
    match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
        Ok(Ok((stream, _))) => Ok(stream),
        Ok(Err(Error::Http(response))) => Err(Disconnect::Refused {
            status: response.status().as_u16(),
            retry_after: retry_after(response.headers(), SystemTime::now()),
        }),
        Ok(Err(Error::Io(error))) => Err(match certificate_error(&error) {
            Some(why) => Disconnect::Untrusted(why),
            None => Disconnect::Unreachable(error.to_string()),
        }),
        // What answers is no WebSocket server; the error may quote the address.
        Ok(Err(_)) => Err(Disconnect::Unreachable("no WebSocket answer".to_owned())),
        Err(_) => Err(Disconnect::Unreachable(format!(
            "no answer within {} s",
            CONNECT_TIMEOUT.as_secs()
        ))),
    }
}

/// Prints what comes until the connection ends. Pings are answered while reading. `None`: the user ended it, by
/// `cancel` or because nobody reads the output any more.
///
/// # Errors
/// [`CliError::Failure`] where the output cannot be written.
pub(super) async fn follow(
    mut stream: ClientStream,
    out: &mut impl Write,
    (status, traces): (&impl Fn(&str), &CommandTraces),
    heartbeat: Option<Duration>,
    mut renewal: Renewal<'_>,
    cancel: &CancellationToken,
) -> Result<Option<Disconnect>, CliError> {
    let mut beats = beats(heartbeat);
    let mut heard = true;
    loop {
        let beat = async {
            match &mut beats {
                Some(beats) => beats.tick().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = cancel.cancelled() => {
                leave(stream).await;
                return Ok(None);
            }
            // Before the messages: a flood of them must not keep the connection from proving that
            // its client lives.
            _ = beat => {
                // The ping of the last beat was not answered: the gateway is gone, and TCP would
                // take a quarter of an hour to notice.
                if !std::mem::take(&mut heard) {
                    return Ok(Some(Disconnect::Lost));
                }
                if let Err(error) = send_heartbeat(&mut stream).await {
                    return Ok(Some(fault(&error)));
                }
            }
            renewed = renewal.next() => match renewed {
                Ok(token) => {
                    status("the token is renewed");
                    if let Err(error) = stream.send(token_frame(&token)).await {
                        return Ok(Some(fault(&error)));
                    }
                }
                Err(why) => status(&why),
            },
            message = stream.next() => {
                heard = true;
                match message {
                    Some(Ok(Message::Text(text))) if ControlMessage::is_one(&text) => {
                        match ControlMessage::parse(&text) {
                            Some(ControlMessage::Hello { heartbeat: every, .. }) => {
                                beats = beats_at_most(heartbeat, every);
                            }
                            Some(ControlMessage::Token { expires_at }) => status(&taken(expires_at)),
                            Some(ControlMessage::Heartbeat) | None => {}
                        }
                    }
                    Some(Ok(Message::Text(text))) => match print(out, status, &text) {
                        Ok(()) => print_trace(status, traces, &text),
                        Err(error) => {
                            leave(stream).await;
                            return match error.kind() {
                                io::ErrorKind::BrokenPipe => Ok(None),
                                _ => Err(CliError::Failure(format!("cannot write: {error}"))),
                            };
                        }
                    },
                    Some(Ok(Message::Close(frame))) => {
                        finish(stream).await;
                        return Ok(Some(closed(frame)));
                    }
                    Some(Ok(Message::Binary(_))) => status("ignored a binary message"),
                    Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                    Some(Err(error)) => return Ok(Some(fault(&error))),
                    None => return Ok(Some(Disconnect::Lost)),
                }
            }
        }
    }
}

/// The times of heartbeats, if there are any.
fn beats(heartbeat: Option<Duration>) -> Option<Interval> {
    let interval = heartbeat?;
    let first = Instant::now().checked_add(interval)?;
    let mut beats = tokio::time::interval_at(first, interval);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    Some(beats)
}

/// The gateway's interval, or this client's own if that is shorter.
fn beats_at_most(heartbeat: Option<Duration>, every: u64) -> Option<Interval> {
    let wanted = Duration::from_millis(every).max(BEAT_MIN);
    beats(heartbeat.map(|own| own.min(wanted)))
}

fn taken(expires_at: u64) -> String {
    let until = i64::try_from(expires_at)
        .ok()
        .and_then(DateTime::from_timestamp_millis);
    match until {
        Some(until) => format!("the gateway accepts it until {}", until.format("%FT%TZ")),
        None => "the gateway accepts it".to_owned(),
    }
}

fn token_frame(token: &str) -> Message {
    Message::text(serde_json::json!({ "type": "token", "token": token }).to_string())
}

async fn send_heartbeat(stream: &mut ClientStream) -> Result<(), Error> {
    stream.feed(Message::text(HEARTBEAT)).await?;
    stream.send(Message::Ping(Bytes::new())).await
}

/// One notification, one line. A line break between the tokens of the JSON (there can be none
/// within a string, RFC 8259 section 7) becomes a space.
fn print(out: &mut impl Write, status: &impl Fn(&str), text: &str) -> io::Result<()> {
    if serde_json::from_str::<IgnoredAny>(text).is_err() {
        status("ignored a message that is not JSON");
        return Ok(());
    }
    let line = text.trim().replace(['\n', '\r'], " ");
    writeln!(out, "{line}")?;
    out.flush()
}

/// What of a notification leads to its trace.
#[derive(Deserialize)]
struct Traced {
    id: String,
    metadata: TracedMetadata,
}

#[derive(Deserialize)]
struct TracedMetadata {
    traceparent: String,
}

/// Says which trace a notification is of, and goes on with it. It says nothing where the gateway does
/// not write `metadata.traceparent`.
fn print_trace(status: &impl Fn(&str), traces: &CommandTraces, text: &str) {
    let Ok(Traced { id, metadata }) = serde_json::from_str(text) else {
        return;
    };
    if let Some(traceparent) = Traceparent::parse(&metadata.traceparent) {
        status(&format!("trace {:032x} of {id}", traceparent.trace));
        traces.receive(&id, traceparent, text.len());
    }
}

/// Closes from this side and waits a moment for the answer.
async fn leave(mut stream: ClientStream) {
    let frame = CloseFrame {
        code: CloseCode::Normal,
        reason: "".into(),
    };
    // The connection is given up either way.
    if let Ok(Ok(())) = tokio::time::timeout(CLOSE_TIMEOUT, stream.close(Some(frame))).await {
        finish(stream).await;
    }
}

/// Reads to the end, which also sends the answer to a close.
async fn finish(mut stream: ClientStream) {
    let rest = async { while let Some(Ok(_)) = stream.next().await {} };
    // The outcome is known already.
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, rest).await;
}

fn closed(frame: Option<CloseFrame>) -> Disconnect {
    // RFC 6455 section 7.1.5: a close without a code.
    frame.map_or(Disconnect::by_code(1005), |frame| Disconnect::Closed {
        code: frame.code.into(),
        reason: frame.reason.to_string(),
    })
}

/// A fault that this side found counts as the close it would send for it.
fn fault(error: &Error) -> Disconnect {
    let code = match error {
        Error::Utf8(_) => 1007,
        Error::Capacity(CapacityError::MessageTooLong { .. }) => 1009,
        Error::Protocol(
            ProtocolError::ResetWithoutClosingHandshake | ProtocolError::SendAfterClosing,
        ) => return Disconnect::Lost,
        Error::Protocol(_) => 1002,
        _ => return Disconnect::Lost,
    };
    Disconnect::by_code(code)
}

fn certificate_error(error: &io::Error) -> Option<String> {
    let error = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    matches!(error, rustls::Error::InvalidCertificate(_)).then(|| error.to_string())
}

/// Retry-After, RFC 9110 section 10.2.3: seconds, or a date.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date: SystemTime = DateTime::parse_from_rfc2822(value).ok()?.into();
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use tokio_tungstenite::tungstenite::http::HeaderValue;

    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        // 2015-10-21T07:28:00Z, the RFC's own example.
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_445_412_480 - 90);
        for (value, expected) in [
            ("0", Some(0)),
            (" 60 ", Some(60)),
            ("Wed, 21 Oct 2015 07:28:00 GMT", Some(90)),
            ("Wed, 21 Oct 2015 07:00:00 GMT", Some(0)),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
            ("", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, HeaderValue::from_static(value));
            let expected = expected.map(Duration::from_secs);
            assert_eq!(retry_after(&headers, now), expected, "{value}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }

    #[test]
    fn a_notification_is_one_line() {
        for (text, expected) in [
            (r#"{"id":"1"}"#, "{\"id\":\"1\"}\n"),
            (
                "{\n  \"id\": \"a\\nb\"\r\n}\n",
                "{   \"id\": \"a\\nb\"  }\n",
            ),
            ("not json", ""),
            ("", ""),
        ] {
            let mut out = Vec::new();
            print(&mut out, &|_| {}, text).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }

    /// The reader of a pipe sees a notification when it comes, not when a buffer is full.
    #[test]
    fn each_line_is_flushed() {
        let mut out = std::io::BufWriter::new(Vec::new());
        print(&mut out, &|_| {}, "{}").unwrap();
        assert_eq!(out.get_ref(), b"{}\n");
    }
}
