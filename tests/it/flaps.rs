//! Promise 3 where connections of one user come and go: a page that is loaded again and a phone with dead
//! sockets are let in, and two living tabs come to rest, on however many gateways.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use futures_util::{FutureExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;

use crate::support::client::Client;
use crate::support::gateway::Gateway;
use crate::support::nats::Nats;
use crate::support::publisher::Publisher;
use crate::support::raw::{CLOSE, FIN, PING, PONG, RawSocket, close_payload, frame, handshake};
use crate::support::token::token;
use crate::support::{PATIENCE, eventually, soon};

/// Replacements of living sockets that make a flap.
const FLAP: usize = 5;
/// A browser does not hang for longer.
const LATEST: Duration = Duration::from_secs(6);
/// What gateways tell each other.
const NOTICES: &str = "herald.sessions.*.*";

async fn gateways(nats: &Nats, count: usize) -> Vec<Gateway> {
    join_all((0..count).map(|_| Gateway::on(nats))).await
}

fn query() -> String {
    format!("token={}&workspaceSlug=acme", token("ann", "acme"))
}

/// An open socket that is read, and so answers pings and its close.
struct Tab {
    close: oneshot::Sender<()>,
    ended: JoinHandle<u16>,
}

impl Tab {
    /// Opens ann's next socket.
    async fn open(gateway: &Gateway) -> Self {
        Self::of(Client::join(gateway, "ann", "acme").await)
    }

    fn of(mut client: Client) -> Self {
        let (close, closing) = oneshot::channel();
        let ended = tokio::spawn(async move {
            tokio::select! {
                code = reads(&mut client) => code,
                Ok(()) = closing => {
                    client.stream.close(None).await.expect("it is open");
                    client.closed().await.0
                }
            }
        });
        Self { close, ended }
    }

    /// The code with which the gateway closes it.
    async fn closed(self) -> u16 {
        soon(self.ended).await.expect("no client panics")
    }

    /// Closes it, and waits for the end.
    async fn close(self) {
        self.close.send(()).expect("it is open");
        soon(self.ended).await.expect("no client panics");
    }

    fn is_open(&self) -> bool {
        !self.ended.is_finished()
    }
}

/// Reads until the gateway closes, however long that takes.
async fn reads(client: &mut Client) -> u16 {
    let mut code = 1006;
    // The library answers the close frame when it is asked for more.
    while let Some(Ok(message)) = client.stream.next().await {
        if let Message::Close(frame) = message {
            code = frame.map_or(1005, |frame| frame.code.into());
        }
    }
    code
}

/// Replaces ann's socket often enough that newcomers are refused; what stands then is what `last` opens.
async fn flap<T>(gateways: &[Gateway], last: impl AsyncFnOnce(&Gateway) -> T) -> T {
    let mut standing = Tab::open(&gateways[0]).await;
    for number in 1..FLAP {
        let newer = Tab::open(&gateways[number % gateways.len()]).await;
        assert_eq!(standing.closed().await, 4009);
        standing = newer;
    }
    let last = last(&gateways[FLAP % gateways.len()]).await;
    assert_eq!(standing.closed().await, 4009);
    // Each hears of it from the others.
    let blocked = "connections of a user replace each other, new ones are refused";
    for gateway in gateways {
        gateway.logged(blocked).await;
    }
    last
}

/// Every gateway refuses ann.
async fn are_blocked(gateways: &[Gateway], standing: &Tab) {
    for gateway in gateways {
        assert_eq!(status(gateway).await, 409);
    }
    assert!(standing.is_open());
}

/// How ann's next try is answered.
async fn status(gateway: &Gateway) -> u16 {
    match Client::attempt(gateway, &query()).await {
        Ok(_) => 101,
        Err(refused) => refused.status,
    }
}

#[tokio::test]
async fn a_page_that_is_loaded_again_and_again_opens_on_whichever_gateway() {
    let nats = Nats::jetstream().await;
    let all = gateways(&nats, 4).await;
    for count in [1, 3, 4] {
        let mut old: Option<Tab> = None;
        for load in 0..16 {
            if let Some(old) = old {
                old.close().await;
            }
            old = Some(Tab::open(&all[load % count]).await);
        }
    }
    // Also where nobody waits for the end of the old one.
    let mut old = Client::join(&all[0], "bob", "acme").await;
    for load in 1..16 {
        old.stream.close(None).await.expect("it is open");
        old = Client::join(&all[load % 4], "bob", "acme").await;
    }
    assert!(old.is_open().await);
}

#[tokio::test]
async fn a_page_that_connects_twice_opens_behind_a_balancer() {
    let nats = Nats::jetstream().await;
    let gateways = gateways(&nats, 3).await;
    let mut turn = gateways.iter().cycle();
    for load in 0..12 {
        // React's StrictMode: the first is given up at once, now and then before it is answered.
        let gateway = turn.next().expect("a cycle");
        let mut first = TcpStream::connect(&gateway.address).await.unwrap();
        let request = handshake("ann", "acme");
        first.write_all(request.as_bytes()).await.unwrap();
        if load % 2 == 0 {
            first.readable().await.unwrap();
        }
        drop(first);
        let mut second = Client::join(turn.next().expect("a cycle"), "ann", "acme").await;
        assert!(second.is_open().await, "{load}");
        second.stream.close(None).await.expect("it is open");
    }
}

#[tokio::test]
async fn a_phone_is_not_refused_for_its_own_dead_sockets() {
    let nats = Nats::jetstream().await;
    let gateways = gateways(&nats, 2).await;
    let mut dead = Vec::new();
    for number in 0..2 * FLAP {
        dead.push(RawSocket::join(&gateways[number % 2], "ann", "acme").await);
    }
    let began = Instant::now();
    let mut phone = Client::join(&gateways[0], "ann", "acme").await;
    assert!(began.elapsed() < LATEST, "{:?}", began.elapsed());
    assert!(phone.is_open().await);
}

#[tokio::test]
async fn a_dead_socket_gives_way_though_its_user_flapped() {
    let nats = Nats::jetstream().await;
    let gateways = gateways(&nats, 2).await;
    // It sends pongs that nobody asked for, and answers nothing.
    let mut dead = flap(&gateways, async |gateway: &Gateway| {
        RawSocket::join(gateway, "ann", "acme").await
    })
    .await;
    let mut newcomers = Vec::new();
    for gateway in &gateways {
        dead.send(&frame(FIN | PONG, b"")).await;
        let began = Instant::now();
        newcomers.push(Client::join(gateway, "ann", "acme").await);
        assert!(began.elapsed() < LATEST, "{:?}", began.elapsed());
    }
    let mut newest = newcomers.pop().expect("two");
    assert!(newest.is_open().await);
}

#[tokio::test]
async fn two_living_tabs_come_to_rest_on_any_number_of_gateways() {
    let nats = Nats::jetstream().await;
    let all = gateways(&nats, 5).await;
    for count in [1, 2, 3, 5] {
        let user = format!("u{count}");
        let query = format!("token={}&workspaceSlug=acme", token(&user, "acme"));
        let mut replaced = 0;
        let mut next = (0..).map(|number| &all[number % count]);
        let mut open = async || Client::attempt(next.next().expect("endless"), &query).await;
        let mut standing = Tab::of(open().await.expect("the first"));
        let mut refused = 0;
        // Whoever was replaced connects again, and gives up after five tries that did not open.
        while refused < 5 {
            match open().await {
                Ok(newer) => {
                    assert_eq!(standing.closed().await, 4009);
                    standing = Tab::of(newer);
                    (replaced, refused) = (replaced + 1, 0);
                }
                Err(later) => {
                    assert_eq!(later.status, 409);
                    assert!(later.retry_after.is_some_and(|seconds| seconds <= 60));
                    refused += 1;
                }
            }
            assert!(replaced <= 16, "{count} gateways: no rest");
        }
        assert!(replaced >= FLAP && standing.is_open(), "{count} gateways");
    }
}

#[tokio::test]
async fn the_block_ends_everywhere_with_the_socket_that_it_protects() {
    let nats = Nats::jetstream().await;
    let gateways = gateways(&nats, 3).await;
    let client = nats.connect().await;
    let mut notices = client.subscribe(NOTICES).await.unwrap();
    client.flush().await.unwrap();
    let standing = flap(&gateways, Tab::open).await;
    are_blocked(&gateways, &standing).await;
    // One that was replaced, as a gateway tells late that was cut off; and one that nobody knows.
    let replaced = soon(notices.next()).await.expect("connected");
    let body: Value = serde_json::from_slice(&replaced.payload).unwrap();
    let unknown = json!("0123456789abcdef0123456789abcdef");
    for session in [&body["session"], &unknown] {
        let left = json!({ "kind": "left", "session": session });
        let sent = client.publish(replaced.subject.clone(), left.to_string().into());
        sent.await.unwrap();
    }
    client.flush().await.unwrap();
    are_blocked(&gateways, &standing).await;
    standing.close().await;
    for gateway in &gateways {
        let began = Instant::now();
        // What gateways tell each other takes a moment; a probe would take seconds.
        let opened = eventually(PATIENCE, async || status(gateway).await == 101);
        assert!(opened.await);
        assert!(began.elapsed() < Duration::from_secs(2), "{began:?}");
    }
}

/// Lets raw sockets of `user` replace each other. Each answers its close with `code`, after a pong if it
/// `pongs`; the last one lives. How the next one is answered.
async fn after_answers(gateway: &Gateway, user: &str, pongs: bool, code: u16) -> u16 {
    let mut standing = RawSocket::join(gateway, user, "acme").await;
    for _ in 0..FLAP {
        let newer = RawSocket::join(gateway, user, "acme").await;
        loop {
            match standing.any().await.expect("a close frame") {
                (first, ping) if first == FIN | PING && pongs => {
                    standing.send(&frame(FIN | PONG, &ping)).await;
                }
                (first, _) if first == FIN | CLOSE => break,
                _ => {}
            }
        }
        standing.answer(&close_payload(code, b"")).await;
        assert!(matches!(standing.ended(PATIENCE).await, Some(Ok(()))));
        standing = newer;
    }
    let query = format!("token={}&workspaceSlug=acme", token(user, "acme"));
    let answers = async {
        loop {
            if let Some((_, ping)) = standing.any().await {
                standing.send(&frame(FIN | PONG, &ping)).await;
            }
        }
    };
    tokio::select! {
        attempt = Client::attempt(gateway, &query) => match attempt {
            Ok(_) => 101,
            Err(refused) => refused.status,
        },
        () = answers => unreachable!(),
    }
}

#[tokio::test]
async fn a_close_counts_if_it_answers_the_gateways_own() {
    let nats = Nats::jetstream().await;
    let gateway = Gateway::on(&nats).await;
    for (user, pongs, code, status) in [
        ("echoes", false, 4009, 409),
        ("has a code of its own", true, 1000, 409),
        // Closes that crossed the gateway's: pages that were closed, or went away.
        ("crossed", false, 1000, 101),
        ("went away", true, 1001, 101),
    ] {
        let got = after_answers(&gateway, user, pongs, code).await;
        assert_eq!(got, status, "{user}");
    }
}

#[tokio::test]
async fn newcomers_at_once_cost_the_standing_socket_one_ping() {
    let nats = Nats::jetstream().await;
    let gateways = gateways(&nats, 2).await;
    let client = nats.connect().await;
    let mut notices = client.subscribe(NOTICES).await.unwrap();
    client.flush().await.unwrap();
    let mut standing = flap(&gateways, async |gateway: &Gateway| {
        RawSocket::join(gateway, "ann", "acme").await
    })
    .await;
    for _ in 0..FLAP {
        soon(notices.next()).await.expect("connected");
    }
    let newcomers = join_all((0..10).map(|_| status(&gateways[0])));
    let answers = async {
        let mut pings = 0;
        loop {
            let (first, payload) = standing.any().await.expect("it stands");
            assert_eq!(first, FIN | PING);
            // The gateway's own are empty.
            if !payload.is_empty() {
                pings += 1;
                standing.send(&frame(FIN | PONG, &payload)).await;
                return pings;
            }
        }
    };
    let (statuses, pings) = tokio::join!(newcomers, answers);
    assert_eq!(statuses, [409; 10]);
    assert_eq!(pings, 1);
    // Neither does who comes a little later, to whichever gateway.
    assert_eq!(status(&gateways[1]).await, 409);
    client.flush().await.unwrap();
    let mut kinds = Vec::new();
    while let Some(Some(notice)) = notices.next().now_or_never() {
        kinds.push(String::from_utf8(notice.payload.to_vec()).unwrap());
    }
    assert_eq!(
        kinds,
        [r#"{"kind":"probe"}"#, r#"{"kind":"probed","alive":true}"#]
    );
    standing.send(&frame(FIN | CLOSE, b"")).await;
    assert!(standing.close_frame().await.is_some());
}

#[tokio::test]
async fn only_what_is_a_notice_to_the_letter_is_believed() {
    let nats = Nats::jetstream().await;
    let gateways = gateways(&nats, 2).await;
    let publisher = Publisher::on(&nats).await;
    let client = nats.connect().await;
    let mut notices = client.subscribe(NOTICES).await.unwrap();
    client.flush().await.unwrap();
    let standing = flap(&gateways, Tab::open).await;
    let mut told = soon(notices.next()).await.expect("connected");
    for _ in 1..FLAP {
        told = soon(notices.next()).await.expect("connected");
    }
    let subject = told.subject;
    let body: Value = serde_json::from_slice(&told.payload).unwrap();
    let session = body["by"].as_str().expect("the standing one");
    are_blocked(&gateways, &standing).await;
    let good = format!(r#"{{"kind":"left","session":"{session}"}}"#);
    for body in [
        String::new(),
        "left".to_owned(),
        r#"{"stream":"EVENTS","seq":1}"#.to_owned(),
        r#"{"kind":"probed","alive":false,"stream":"EVENTS"}"#.to_owned(),
        r#"{"kind":"left","session":"x"}"#.to_owned(),
        format!(r#"{{"kind":"left","session":"{session}","seq":1}}"#),
        format!("{good}{}", " ".repeat(512)),
    ] {
        client.publish(subject.clone(), body.into()).await.unwrap();
    }
    // A PubAck comes from the server, wherever the publisher would have it.
    let event = "ws.acme.custom.x";
    client
        .publish_with_reply(event, subject.clone(), "{}".into())
        .await
        .unwrap();
    publisher
        .event("acme.custom.x", &serde_json::json!({}))
        .await;
    client.flush().await.unwrap();
    for gateway in &gateways {
        assert_eq!(status(gateway).await, 409);
    }
    // It was the form that was wrong, and not the place.
    client.publish(subject, good.into()).await.unwrap();
    let opened = eventually(PATIENCE, async || status(&gateways[0]).await == 101);
    assert!(opened.await);
    assert_eq!(standing.closed().await, 4009);
}
