//! The whole listener against a server in this process that plays a script: one act a connection.

use std::sync::{Arc, Mutex};

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::{WebSocketStream, accept_hdr_async};

use super::*;

/// How long a test waits for what should come at once.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Delays that a test need not wait for.
const FAST: Pace = Pace {
    first: Duration::from_millis(1),
    longest: Duration::from_millis(4),
    attempts: 5,
};

/// What the server does with one connection.
#[derive(Clone)]
enum Act {
    /// Sends these messages, then does the next thing.
    Send(Vec<Message>, Box<Act>),
    /// Closes with a code and reason.
    Close(u16, &'static str),
    /// Cuts the connection without a close frame.
    Cut,
    /// Answers the upgrade with this instead.
    Http(&'static str),
    /// Stays until the client leaves, and keeps what it says.
    Stay,
}

/// A running server and what it saw.
struct Server {
    url: String,
    /// Request targets, one a connection.
    requests: Arc<Mutex<Vec<String>>>,
    /// What clients said to [`Act::Stay`].
    heard: Arc<Mutex<Vec<Message>>>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    /// Plays `acts`, one a connection, the last one again and again.
    async fn play(acts: Vec<Act>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::new(Mutex::new(Vec::new()));
        let (seen, said) = (Arc::clone(&requests), Arc::clone(&heard));
        let task = tokio::spawn(async move {
            for number in 0.. {
                let (stream, _) = listener.accept().await.unwrap();
                let act = acts.get(number).or(acts.last()).unwrap().clone();
                perform(act, stream, &seen, &said).await;
            }
        });
        Self {
            url,
            requests,
            heard,
            task,
        }
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

async fn perform(
    act: Act,
    mut stream: TcpStream,
    requests: &Mutex<Vec<String>>,
    heard: &Mutex<Vec<Message>>,
) {
    if let Act::Http(answer) = act {
        let mut request = vec![0; 4096];
        let length = stream.read(&mut request).await.unwrap();
        let request = String::from_utf8_lossy(&request[..length]).into_owned();
        let target = request.split(' ').nth(1).unwrap().to_owned();
        requests.lock().unwrap().push(target);
        let head = format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        return;
    }
    let mut socket = accept(stream, |target| requests.lock().unwrap().push(target)).await;
    let mut act = act;
    while let Act::Send(messages, then) = act {
        for message in messages {
            socket.send(message).await.unwrap();
        }
        act = *then;
    }
    match act {
        Act::Close(code, reason) => close(socket, code, reason).await,
        Act::Stay => {
            while let Some(Ok(message)) = socket.next().await {
                heard.lock().unwrap().push(message);
            }
        }
        Act::Cut | Act::Http(_) | Act::Send(..) => {}
    }
}

/// Accepts the upgrade as a gateway does; `see` gets the request's target.
async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    see: impl FnOnce(String) + Unpin,
) -> WebSocketStream<S> {
    #[expect(clippy::result_large_err, reason = "the error type is the library's")]
    let callback = |request: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
        see(request.uri().to_string());
        let offered = &request.headers()["sec-websocket-protocol"];
        assert_eq!(offered, "herald.v2, herald.v1");
        let selected = "herald.v2".parse().unwrap();
        let headers = response.headers_mut();
        headers.insert("sec-websocket-protocol", selected);
        Ok(response)
    };
    accept_hdr_async(stream, callback).await.unwrap()
}

async fn close(mut socket: WebSocketStream<TcpStream>, code: u16, reason: &'static str) {
    let frame = CloseFrame {
        code: code.into(),
        reason: reason.into(),
    };
    socket.close(Some(frame)).await.unwrap();
    while let Some(Ok(_)) = socket.next().await {}
}

/// What a run of the listener came to.
struct Run {
    result: Result<(), CliError>,
    out: String,
    status: Vec<String>,
}

fn listener(server: &Server, token: Option<&str>, command: Option<&str>) -> Listener {
    Listener {
        traces: CommandTraces::start("test"),
        target: Target::parse(&server.url, Some("acme")).unwrap(),
        tokens: TokenSource::new(token.map(Secret::from), command.map(str::to_owned)),
        tls: None,
        heartbeat: None,
        renewal: Duration::from_millis(100),
        pace: FAST,
    }
}

async fn run_to_end(mut listener: Listener, cancel: &CancellationToken) -> Run {
    let mut out = Vec::new();
    let status = Mutex::new(Vec::new());
    let say = |line: &str| status.lock().unwrap().push(line.to_owned());
    let result = tokio::time::timeout(TIMEOUT, listener.run(&mut out, say, cancel))
        .await
        .expect("the listener ends");
    Run {
        result,
        out: String::from_utf8(out).unwrap(),
        status: status.into_inner().unwrap(),
    }
}

async fn listen(server: &Server, token: Option<&str>, command: Option<&str>) -> Run {
    run_to_end(listener(server, token, command), &CancellationToken::new()).await
}

fn failure(run: &Run) -> &str {
    match &run.result {
        Err(CliError::Failure(why)) => why,
        other => panic!("{other:?}"),
    }
}

const TOKEN: &str = "header.payload.signature";

#[tokio::test]
async fn notifications_are_printed_over_reconnections_until_a_final_close() {
    let send = |text: &str, then| Act::Send(vec![Message::text(text)], Box::new(then));
    let server = Server::play(vec![
        send("{\"id\":\"1\"}", Act::Close(1012, "gateway restarts")),
        Act::Http("503 Service Unavailable\r\nRetry-After: 0"),
        Act::Http("429 Too Many Requests"),
        Act::Http("409 Conflict"),
        send("{\n\"id\":\"2\"\n}", Act::Cut),
        send("{\"id\":\"3\"}", Act::Close(4008, "")),
        send("not json", Act::Close(4010, "too slow")),
        Act::Send(
            vec![Message::binary(vec![1])],
            Box::new(Act::Close(1011, "")),
        ),
        send("{\"id\":\"4\"}", Act::Close(4029, "")),
        Act::Close(4009, "replaced by a newer connection"),
    ])
    .await;
    let run = listen(&server, Some(TOKEN), None).await;
    assert_eq!(
        run.out,
        "{\"id\":\"1\"}\n{ \"id\":\"2\" }\n{\"id\":\"3\"}\n{\"id\":\"4\"}\n"
    );
    let why = failure(&run);
    assert!(
        why.starts_with("closed with 4009 (replaced by a newer connection)"),
        "{why}"
    );
    assert_eq!(server.requests().len(), 10);
    for request in server.requests() {
        assert_eq!(request, format!("/?token={TOKEN}&workspaceSlug=acme"));
    }
}

#[tokio::test]
async fn each_final_close_ends_the_listener_at_once() {
    for (code, expected) in [
        (4001, "check the token"),
        (4002, "give --workspace"),
        (4003, "give a new token"),
        (4009, "the newest stays"),
        (1002, "protocol"),
        (1003, "protocol"),
        (1007, "protocol"),
        (1009, "protocol"),
    ] {
        let server = Server::play(vec![Act::Close(code, "")]).await;
        let run = listen(&server, Some(TOKEN), None).await;
        assert!(
            failure(&run).contains(expected),
            "{code}: {}",
            failure(&run)
        );
        assert_eq!(server.requests().len(), 1, "{code}");
    }
    let server = Server::play(vec![Act::Http("404 Not Found")]).await;
    let run = listen(&server, Some(TOKEN), None).await;
    assert!(failure(&run).contains("HTTP 404"), "{}", failure(&run));
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn an_expired_token_is_renewed_by_the_command() {
    let server = Server::play(vec![
        Act::Close(4003, "token expired"),
        Act::Close(1012, ""),
        Act::Close(4001, ""),
    ])
    .await;
    let run = listen(&server, Some("old"), Some("echo new")).await;
    failure(&run);
    let tokens: Vec<String> = server
        .requests()
        .iter()
        .map(|request| request.split(['=', '&']).nth(1).unwrap().to_owned())
        .collect();
    assert_eq!(tokens, ["old", "new", "new"]);
}

#[tokio::test]
async fn a_command_that_gives_expired_tokens_comes_to_an_end() {
    let server = Server::play(vec![Act::Close(4003, "")]).await;
    let run = listen(&server, None, Some("echo expired")).await;
    assert!(
        failure(&run).contains("gave up after 5 attempts"),
        "{}",
        failure(&run)
    );
    assert_eq!(server.requests().len(), 6);
}

#[tokio::test]
async fn a_gateway_that_stays_away_is_given_up_after_five_attempts() {
    let server = Server::play(vec![Act::Http("503 Service Unavailable")]).await;
    let run = listen(&server, Some(TOKEN), None).await;
    assert!(
        failure(&run).contains("gave up after 5 attempts"),
        "{}",
        failure(&run)
    );
    assert_eq!(server.requests().len(), 6);

    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut gone = listener(&server, Some(TOKEN), None);
    let url = format!("ws://{}", closed.local_addr().unwrap());
    drop(closed);
    gone.target = Target::parse(&url, None).unwrap();
    let run = run_to_end(gone, &CancellationToken::new()).await;
    assert!(
        failure(&run).contains("cannot connect"),
        "{}",
        failure(&run)
    );
}

#[tokio::test]
async fn a_message_that_breaks_the_protocol_is_final() {
    let long = Message::text("x".repeat(1024 * 1024 + 1));
    let server = Server::play(vec![Act::Send(vec![long], Box::new(Act::Stay))]).await;
    let run = listen(&server, Some(TOKEN), None).await;
    assert!(
        failure(&run).contains("closed with 1009"),
        "{}",
        failure(&run)
    );
}

/// A server that quotes the token, as a badly set up proxy might.
#[tokio::test]
async fn the_token_is_never_printed() {
    let server = Server::play(vec![
        Act::Close(1012, "header.payload.signature is leaving"),
        Act::Http("503 header.payload.signature"),
        Act::Cut,
        Act::Close(4001, "bad header.payload.signature"),
    ])
    .await;
    let run = listen(&server, Some(TOKEN), None).await;
    let said = format!("{:?} {:?} {}", run.result, run.status, run.out);
    assert!(said.contains("*** is leaving"), "{said}");
    assert!(!said.contains("payload"), "{said}");
}

#[tokio::test]
async fn heartbeats_keep_a_quiet_connection_and_an_interrupt_ends_it_well() {
    let server = Server::play(vec![Act::Stay]).await;
    let mut listener = listener(&server, Some(TOKEN), None);
    listener.heartbeat = Some(Duration::from_millis(20));
    let cancel = CancellationToken::new();
    let heard = Arc::clone(&server.heard);
    let interrupt = async {
        loop {
            let beats = heard
                .lock()
                .unwrap()
                .iter()
                .filter(|message| message.is_text())
                .count();
            if beats >= 3 {
                break cancel.cancel();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let (run, ()) = tokio::join!(run_to_end(listener, &cancel), interrupt);
    assert!(run.result.is_ok(), "{:?}", run.result);
    let heard = server.heard.lock().unwrap();
    for message in heard.iter().filter(|message| message.is_text()) {
        assert_eq!(message, &Message::text(r#"{"type":"heartbeat"}"#));
    }
    let Some(Message::Close(Some(frame))) = heard.last() else {
        panic!("{heard:?}");
    };
    assert_eq!(u16::from(frame.code), 1000);
}

#[tokio::test]
async fn control_messages_are_used_and_not_printed() {
    let hello = r#"{"herald":"hello","session":"s","expiresAt":1800000000000,"heartbeat":100}"#;
    let sent = [
        hello,
        r#"{"herald":"heartbeat"}"#,
        r#"{"herald":"token","expiresAt":1800000000000}"#,
        r#"{"id":"1","metadata":{"herald":"hello"}}"#,
    ];
    let sent = sent.map(Message::text).to_vec();
    let server = Server::play(vec![Act::Send(sent, Box::new(Act::Stay))]).await;
    let mut listener = listener(&server, Some(TOKEN), None);
    // It would be the first after the test is over.
    listener.heartbeat = Some(TIMEOUT * 2);
    let cancel = CancellationToken::new();
    let interrupt = async {
        while server.heard.lock().unwrap().len() < 4 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        cancel.cancel();
    };
    let (run, ()) = tokio::join!(run_to_end(listener, &cancel), interrupt);
    assert_eq!(
        run.out,
        "{\"id\":\"1\",\"metadata\":{\"herald\":\"hello\"}}\n"
    );
    let said = run.status.join("\n");
    assert!(
        said.contains("accepts it until 2027-01-15T08:00:00Z"),
        "{said}"
    );
}

/// A JWT that expires in so many seconds.
fn expiring(seconds: u64) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let payload = format!(r#"{{"exp":{}}}"#, now.unwrap().as_secs() + seconds);
    let encode =
        |text: &str| base64::Engine::encode(&base64::prelude::BASE64_URL_SAFE_NO_PAD, text);
    format!("{}.{}.sig", encode("{}"), encode(&payload))
}

/// Listens with a token that has some seconds until `until` is said or the server has heard a token.
async fn renewed(command: &str, until: &str) -> (Vec<String>, Vec<String>, usize) {
    let server = Server::play(vec![Act::Stay]).await;
    let mut listener = listener(&server, Some(&expiring(3)), Some(command));
    let cancel = CancellationToken::new();
    let said = Mutex::new(Vec::new());
    let say = |line: &str| said.lock().unwrap().push(line.to_owned());
    let heard = || -> Vec<String> {
        let heard = server.heard.lock().unwrap();
        let texts = heard.iter().filter(|message| message.is_text());
        texts
            .map(|message| message.to_text().unwrap().to_owned())
            .collect()
    };
    let watch = async {
        while heard().is_empty() && !said.lock().unwrap().iter().any(|line| line.contains(until)) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        cancel.cancel();
    };
    let mut out = std::io::sink();
    let run = async { listener.run(&mut out, say, &cancel).await.unwrap() };
    tokio::time::timeout(TIMEOUT, Box::pin(async { tokio::join!(run, watch) }))
        .await
        .unwrap();
    let heard = heard();
    (heard, said.into_inner().unwrap(), server.requests().len())
}

#[tokio::test]
async fn a_token_is_renewed_on_the_open_connection_before_it_expires() {
    let new = expiring(3600);
    let (heard, said, connections) = Box::pin(renewed(&format!("echo {new}"), "not renewed")).await;
    assert_eq!(heard, [format!(r#"{{"token":"{new}","type":"token"}}"#)]);
    assert_eq!(connections, 1);
    let said = said.join("\n");
    assert!(
        said.contains("the token is renewed") && !said.contains(&new),
        "{said}"
    );
}

#[tokio::test]
async fn a_command_that_gives_no_better_token_leaves_the_connection_alone() {
    for (command, why) in [
        ("exit 3".to_owned(), "exit status: 3"),
        ("echo".to_owned(), "printed no token"),
        ("echo '  '".to_owned(), "printed no token"),
        ("echo opaque".to_owned(), "without an expiry time"),
        (format!("echo {}", expiring(3)), "the same token"),
        (format!("echo {}", expiring(0)), "has expired"),
        (format!("echo {}", expiring(1)), "expires no later"),
    ] {
        let (heard, said, connections) = Box::pin(renewed(&command, "not renewed")).await;
        let said = said.join("\n");
        assert_eq!((heard.len(), connections), (0, 1), "{command}: {said}");
        // A token of the same second may have been made a moment later.
        let is_reported =
            said.contains(why) || said.contains("expires no later") || said.contains("has expired");
        assert!(is_reported, "{command}: {said}");
        assert!(said.contains("next attempt in"), "{command}: {said}");
    }
}

/// A gateway that vanishes without a word: its host is gone, and nothing answers.
#[tokio::test]
async fn a_connection_on_which_nothing_answers_is_lost() {
    let listener_socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener_socket.local_addr().unwrap());
    let silent = tokio::spawn(async move {
        let mut kept = Vec::new();
        loop {
            let (stream, _) = listener_socket.accept().await.unwrap();
            // Kept, and never read from again.
            kept.push(accept(stream, drop).await);
        }
    });
    let server = Server::play(vec![Act::Cut]).await;
    let mut listener = listener(&server, Some(TOKEN), None);
    listener.target = Target::parse(&url, None).unwrap();
    listener.heartbeat = Some(Duration::from_millis(20));
    let status = Mutex::new(Vec::new());
    let cancel = CancellationToken::new();
    let say = |line: &str| {
        if line.contains("1006") {
            cancel.cancel();
        }
        status.lock().unwrap().push(line.to_owned());
    };
    let mut out = std::io::sink();
    let run = listener.run(&mut out, say, &cancel);
    tokio::time::timeout(TIMEOUT, run).await.unwrap().unwrap();
    silent.abort();
}

/// An output whose reader has gone, or whose disk is full.
struct Broken(std::io::ErrorKind);

impl Write for Broken {
    fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
        Err(self.0.into())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_closed_output_is_a_good_end_and_a_full_disk_is_not() {
    for (kind, ok) in [
        (std::io::ErrorKind::BrokenPipe, true),
        (std::io::ErrorKind::StorageFull, false),
    ] {
        let message = Message::text("{}");
        let server = Server::play(vec![Act::Send(vec![message], Box::new(Act::Stay))]).await;
        let mut listener = listener(&server, Some(TOKEN), None);
        let cancel = CancellationToken::new();
        let mut out = Broken(kind);
        let run = listener.run(&mut out, |_: &str| {}, &cancel);
        let result = tokio::time::timeout(TIMEOUT, run).await.unwrap();
        assert_eq!(result.is_ok(), ok, "{result:?}");
    }
}

#[tokio::test]
async fn an_interrupt_ends_a_wait() {
    let server = Server::play(vec![Act::Http("503 Later\r\nRetry-After: 600")]).await;
    let cancel = CancellationToken::new();
    let mut listener = listener(&server, Some(TOKEN), None);
    let say = |line: &str| {
        if line.contains("attempt 1 of 5") {
            cancel.cancel();
        }
    };
    let mut out = std::io::sink();
    let run = listener.run(&mut out, say, &cancel);
    tokio::time::timeout(TIMEOUT, run).await.unwrap().unwrap();
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn wss_trusts_the_given_authority_and_no_other() {
    let issued = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let cert = directory.path().join("tls.crt");
    let key = directory.path().join("tls.key");
    std::fs::write(&cert, issued.cert.pem()).unwrap();
    std::fs::write(&key, issued.signing_key.serialize_pem()).unwrap();
    let acceptor = crate::conn::tls::ServerCertificate::load(&cert, &key)
        .unwrap()
        .acceptor();
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("wss://{}/", socket.local_addr().unwrap());
    let gateway = tokio::spawn(async move {
        loop {
            let (stream, _) = socket.accept().await.unwrap();
            let Ok(stream) = acceptor.accept(stream).await else {
                continue;
            };
            let mut socket = accept(stream, drop).await;
            let frame = CloseFrame {
                code: 4009.into(),
                reason: "".into(),
            };
            socket.close(Some(frame)).await.unwrap();
            while let Some(Ok(_)) = socket.next().await {}
        }
    });
    let elsewhere = Server::play(vec![Act::Cut]).await;
    let other = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let other_ca = directory.path().join("other.crt");
    std::fs::write(&other_ca, other.cert.pem()).unwrap();
    for (ca, expected) in [(cert, "closed with 4009"), (other_ca, "no trust")] {
        let mut listener = listener(&elsewhere, Some(TOKEN), None);
        listener.target = Target::parse(&url, None).unwrap();
        listener.tls = listener.target.trusted(Some(ca)).await.unwrap();
        let run = run_to_end(listener, &CancellationToken::new()).await;
        assert!(failure(&run).contains(expected), "{}", failure(&run));
    }
    gateway.abort();
    for (file, expected) in [
        (&key, "has no PEM certificate"),
        (&directory.path().join("absent"), "--ca"),
    ] {
        let Err(CliError::Usage(why)) = Target::parse(&url, None)
            .unwrap()
            .trusted(Some(file.clone()))
            .await
        else {
            panic!("{file:?}");
        };
        assert!(why.contains(expected), "{why}");
    }
}
