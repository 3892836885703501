//! The close-code table, row by row, with its reasons; and the refusals that are no close codes.

use std::time::Duration;

use futures_util::SinkExt;
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::support::PATIENCE;
use crate::support::client::Client;
use crate::support::gateway::{Gateway, exchange};
use crate::support::nats::Nats;
use crate::support::publisher::Publisher;
use crate::support::token::{at, expiring, signed, token};

async fn closes(gateway: &Gateway, query: &str, code: u16, reason: &str) {
    let mut client = Client::connect(gateway, query).await;
    assert_eq!(client.closed().await, (code, reason.to_owned()), "{query}");
}

#[tokio::test]
async fn tokens_and_workspaces_that_are_refused_close_with_their_codes() {
    let nats = Nats::jetstream().await;
    let gateway = Gateway::on(&nats).await;
    let good = token("ann", "acme");
    let expired = expiring("ann", "acme", -1);
    let (missing, invalid) = ("missing token", "invalid token");
    let (no_slug, bad_slug) = ("missing workspaceSlug", "malformed workspaceSlug");
    for (query, code, reason) in [
        ("workspaceSlug=acme".to_owned(), 4001, missing),
        ("token=&workspaceSlug=acme".to_owned(), 4001, missing),
        ("token=garbage&workspaceSlug=acme".to_owned(), 4001, invalid),
        (
            format!("token={good}&token=other&workspaceSlug=acme"),
            4001,
            invalid,
        ),
        (
            format!("token={good}&workspaceSlug=globex"),
            4001,
            "no access to this workspace",
        ),
        (format!("token={good}"), 4002, no_slug),
        (format!("token={good}&workspaceSlug="), 4002, no_slug),
        (
            format!("token={expired}&workspaceSlug=acme"),
            4003,
            "token expired",
        ),
        // The token is looked at first, the slug before access.
        ("token=garbage".to_owned(), 4001, invalid),
        (
            format!("token={expired}&workspaceSlug=*"),
            4003,
            "token expired",
        ),
        (
            format!("token={good}&workspaceSlug=GLOB.EX"),
            4002,
            bad_slug,
        ),
    ] {
        closes(&gateway, &query, code, reason).await;
    }
    let long = "a".repeat(65);
    for slug in [
        "*",
        "%3E",
        "a.b",
        "..%2Fx",
        "acm%C3%A9",
        &long,
        "acme%00",
        "%2561cme",
        "acme&workspaceSlug=acme",
    ] {
        closes(
            &gateway,
            &format!("token={good}&workspaceSlug={slug}"),
            4002,
            bad_slug,
        )
        .await;
    }
    assert!(
        gateway
            .metric("herald_connections_closed_total", "4001")
            .await
            > 4.5
    );
}

#[tokio::test]
async fn a_socket_closes_with_4003_when_its_token_expires() {
    let nats = Nats::jetstream().await;
    let gateway = Gateway::on(&nats).await;
    let publisher = Publisher::on(&nats).await;
    let query = format!("token={}&workspaceSlug=acme", expiring("ann", "acme", 2));
    let mut ann = Client::connect(&gateway, &query).await;
    publisher
        .event("acme.custom.x", &json!({ "title": "in time" }))
        .await;
    assert_eq!(ann.notification().await["title"], "in time");
    assert_eq!(ann.closed().await, (4003, "token expired".to_owned()));
}

#[tokio::test]
async fn a_fresh_token_keeps_the_socket_and_a_bad_one_closes_it() {
    let nats = Nats::jetstream().await;
    let gateway = Gateway::on(&nats).await;
    let publisher = Publisher::on(&nats).await;
    let frame = |token: String| json!({ "type": "token", "token": token }).to_string();
    let short = |user: &str| format!("token={}&workspaceSlug=acme", expiring(user, "acme", 3));

    let mut ann = Client::connect(&gateway, &short("ann")).await;
    ann.send(&frame(token("ann", "acme"))).await;
    let mut bob = Client::connect(&gateway, &short("bob")).await;
    assert_eq!(bob.closed().await.0, 4003);
    // Ann's first token is over by now, too.
    publisher
        .event("acme.custom.x", &json!({ "title": "still here" }))
        .await;
    assert_eq!(ann.notification().await["title"], "still here");
    ann.send(&frame(token("ann", "acme"))).await;
    assert_eq!(
        ann.closed().await,
        (4029, "too many token messages".to_owned())
    );

    for (fresh, code, reason) in [
        (token("eve", "acme"), 4001, "token is for another user"),
        (token("bob", "globex"), 4001, "no access to this workspace"),
        ("garbage".to_owned(), 4001, "invalid token"),
        (expiring("bob", "acme", -1), 4003, "token expired"),
    ] {
        let mut bob = Client::join(&gateway, "bob", "acme").await;
        bob.send(&frame(fresh)).await;
        assert_eq!(bob.closed().await, (code, reason.to_owned()));
    }
}

#[tokio::test]
async fn inactivity_knows_pings_pongs_heartbeats_and_notifications_apart() {
    let nats = Nats::jetstream().await;
    let gateway = Gateway::builder(&nats)
        .set("sockets.inactivity", "2s")
        .set("sockets.ping", "700ms")
        .ready()
        .await;
    let publisher = Publisher::on(&nats).await;
    let mut quiet = Client::join(&gateway, "quiet", "acme").await;
    let mut pinging = Client::join(&gateway, "pinging", "acme").await;
    let mut beating = Client::join(&gateway, "beating", "acme").await;
    let mut reading = Client::join(&gateway, "reading", "acme").await;
    // Four seconds, twice the limit, in steps well below it.
    let to_reader = json!({ "title": "x", "recipients": ["reading"] });
    let mut quiet_end = None;
    for _ in 0..8 {
        pinging.stream.send(Message::Ping("".into())).await.unwrap();
        beating.send("{\"type\":\"heartbeat\"}").await;
        publisher.event("acme.custom.x", &to_reader).await;
        // Reading answers the gateway's pings: the automatic pongs.
        let step = tokio::time::sleep(Duration::from_millis(500));
        tokio::pin!(step);
        tokio::select! {
            closed = quiet.closed(), if quiet_end.is_none() => {
                quiet_end = Some(closed);
                step.await;
            }
            () = &mut step => {}
        }
        assert!(pinging.is_quiet(Duration::from_millis(1)).await);
        assert!(beating.is_quiet(Duration::from_millis(1)).await);
        assert_eq!(reading.notification().await["title"], "x");
    }
    assert_eq!(quiet_end, Some((4008, "inactive".to_owned())));
    // Together, so that each is read and answers pings until its end.
    let ends = tokio::join!(pinging.closed(), beating.closed(), reading.closed());
    let inactive = (4008, "inactive".to_owned());
    assert_eq!(ends, (inactive.clone(), inactive.clone(), inactive));
}

#[tokio::test]
async fn pongs_keep_a_socket_where_the_setting_says_so() {
    let nats = Nats::jetstream().await;
    let gateway = Gateway::builder(&nats)
        .set("sockets.inactivity", "1s")
        .set("sockets.ping", "200ms")
        .set("sockets.pong_is_activity", true)
        .ready()
        .await;
    let mut ann = Client::join(&gateway, "ann", "acme").await;
    assert!(ann.is_quiet(Duration::from_secs(3)).await);
}

#[tokio::test]
async fn a_peer_that_answers_no_ping_is_dead() {
    let nats = Nats::jetstream().await;
    let gateway = Gateway::builder(&nats)
        .set("sockets.ping", "200ms")
        .ready()
        .await;
    // Nobody reads this client, so that nothing answers.
    let client = Client::join(&gateway, "ann", "acme").await;
    gateway
        .metric_becomes("herald_connections_closed_total", "dead_peer", 1.0)
        .await;
    gateway.metric_becomes("herald_connections", "", 0.0).await;
    drop(client);
}

#[tokio::test]
async fn a_newer_connection_of_the_same_user_and_workspace_replaces_the_older() {
    let nats = Nats::jetstream().await;
    let gateway = Gateway::on(&nats).await;
    let publisher = Publisher::on(&nats).await;
    let mut older = Client::join(&gateway, "ann", "acme").await;
    let mut elsewhere = Client::join(&gateway, "ann", "globex").await;
    let issuer =
        signed(&json!({ "sub": "ann", "iss": "other", "workspaces": "acme", "exp": at(60) }));
    let mut namesake =
        Client::connect(&gateway, &format!("token={issuer}&workspaceSlug=acme")).await;
    let mut newer = Client::join(&gateway, "ann", "acme").await;
    assert_eq!(
        older.closed().await,
        (4009, "replaced by a newer connection".to_owned())
    );
    publisher
        .event("acme.custom.x", &json!({ "title": "acme" }))
        .await;
    publisher
        .event("globex.custom.x", &json!({ "title": "globex" }))
        .await;
    assert_eq!(newer.notification().await["title"], "acme");
    assert_eq!(namesake.notification().await["title"], "acme");
    assert_eq!(elsewhere.notification().await["title"], "globex");
    gateway.metric_becomes("herald_connections", "", 3.0).await;
}

#[tokio::test]
async fn connections_that_replace_each_other_again_and_again_are_refused_and_one_stays() {
    let nats = Nats::jetstream().await;
    let gateway = Gateway::on(&nats).await;
    let publisher = Publisher::on(&nats).await;
    let mut standing = Client::join(&gateway, "ann", "acme").await;
    for _ in 0..5 {
        let newer = Client::join(&gateway, "ann", "acme").await;
        assert_eq!(standing.closed().await.0, 4009);
        standing = newer;
    }
    let query = format!("token={}&workspaceSlug=acme", token("ann", "acme"));
    // It is read meanwhile, and so answers that it lives.
    let refused = tokio::select! {
        attempt = Client::attempt(&gateway, &query) => attempt.expect_err("a flap"),
        quiet = standing.is_quiet(PATIENCE) => panic!("{quiet}, and no answer"),
    };
    assert_eq!(refused.status, 409);
    assert!(
        refused
            .retry_after
            .is_some_and(|seconds| (50..=60).contains(&seconds))
    );
    publisher
        .event("acme.custom.x", &json!({ "title": "stays" }))
        .await;
    assert_eq!(standing.notification().await["title"], "stays");
    // Another user is not concerned.
    Client::join(&gateway, "bob", "acme").await;
}

#[tokio::test]
async fn a_client_that_floods_is_closed_with_4029() {
    let nats = Nats::jetstream().await;
    let gateway = Gateway::on(&nats).await;
    let mut ann = Client::join(&gateway, "ann", "acme").await;
    for _ in 0..2000 {
        if ann
            .stream
            .send(Message::text("{\"type\":\"heartbeat\"}"))
            .await
            .is_err()
        {
            break;
        }
    }
    assert_eq!(ann.closed().await, (4029, "too many messages".to_owned()));
}

#[tokio::test]
async fn a_full_gateway_answers_503_and_has_room_again_later() {
    let nats = Nats::jetstream().await;
    let gateway = Gateway::builder(&nats)
        .set("sockets.max_connections", 1)
        .ready()
        .await;
    let ann = Client::join(&gateway, "ann", "acme").await;
    let query = format!("token={}&workspaceSlug=acme", token("bob", "acme"));
    let refused = Client::attempt(&gateway, &query).await.expect_err("full");
    assert_eq!(refused.status, 503);
    assert!(refused.retry_after.is_some());
    drop(ann);
    gateway.metric_becomes("herald_connections", "", 0.0).await;
    let joined = crate::support::eventually(crate::support::PATIENCE, async || {
        Client::attempt(&gateway, &query).await.is_ok()
    });
    assert!(joined.await);
}

#[tokio::test]
async fn who_takes_nothing_is_closed_all_the_same_once_its_token_has_expired() {
    let nats = Nats::jetstream().await;
    // No ping ends it, and no full queue.
    let gateway = Gateway::builder(&nats)
        .set("sockets.ping", "1h")
        .set("sockets.queue_bytes", 64 * 1024 * 1024)
        .ready()
        .await;
    let publisher = Publisher::on(&nats).await;
    let query = format!("token={}&workspaceSlug=acme", expiring("ann", "acme", 10));
    // It reads nothing, and does not know that it should.
    let _stopped = Client::attempt(&gateway, &query).await.expect("it opens");
    let message = "x".repeat(32 * 1024);
    for _ in 0..256 {
        publisher
            .event("acme.custom.x", &json!({ "message": message }))
            .await;
    }
    gateway
        .metric_becomes("herald_connections_closed_total", "\"4003\"", 1.0)
        .await;
    gateway.metric_becomes("herald_connections", "", 0.0).await;
    let lost = gateway.metric("herald_deliveries_dropped_total", "").await;
    assert!(lost > 0.0, "it took everything");
}

#[tokio::test]
async fn a_drain_delivers_what_was_stored_and_closes_with_1012() {
    let nats = Nats::jetstream().await;
    let mut gateway = Gateway::builder(&nats)
        .set("server.drain", "1s")
        .set("server.drain_delay", "500ms")
        .ready()
        .await;
    let publisher = Publisher::on(&nats).await;
    let mut ann = Client::join(&gateway, "ann", "acme").await;
    let mut bob = Client::join(&gateway, "bob", "acme").await;
    gateway.terminate();
    let unready = crate::support::eventually(crate::support::PATIENCE, async || {
        gateway.get("/readyz").await.0 == 503
    });
    assert!(unready.await);
    publisher
        .event("acme.custom.x", &json!({ "title": "last" }))
        .await;
    for client in [&mut ann, &mut bob] {
        assert_eq!(client.notification().await["title"], "last");
        assert_eq!(
            client.closed().await,
            (1012, "gateway restarting".to_owned())
        );
    }
    assert_eq!(gateway.ended().await, Some(0));
}

#[tokio::test]
async fn requests_that_are_no_handshakes_get_an_http_answer() {
    let nats = Nats::jetstream().await;
    let gateway = Gateway::on(&nats).await;
    let (status, hint) = gateway.get("/").await;
    assert_eq!(status, 426);
    assert!(
        hint.contains("wss://") && hint.contains("workspaceSlug"),
        "{hint}"
    );
    assert_eq!(gateway.get("/other").await.0, 404);
    assert_eq!(gateway.get("/healthz").await.0, 200);
    let handshake = |line: &str, extra: &str| {
        format!(
            "{line} HTTP/1.1\r\nHost: x\r\nConnection: close, Upgrade\r\nUpgrade: websocket\r\n{extra}\r\n"
        )
    };
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let good = "Sec-WebSocket-Version: 13\r\n";
    for (request, status) in [
        (handshake("GET /other", &format!("{key}{good}")), "404"),
        (
            handshake("GET /", &format!("{key}Sec-WebSocket-Version: 8\r\n")),
            "426",
        ),
        (handshake("GET /", good), "400"),
        (
            handshake("GET /", &format!("Sec-WebSocket-Key: short\r\n{good}")),
            "400",
        ),
        (handshake("POST /", &format!("{key}{good}")), "426"),
        ("nonsense\r\n\r\n".to_owned(), "400"),
        (
            handshake(&format!("GET /?{}", "x".repeat(200_000)), ""),
            "431",
        ),
    ] {
        let answer = exchange(&gateway.address, request.as_bytes())
            .await
            .unwrap_or_default();
        let line = answer.lines().next().unwrap_or_default();
        assert!(
            line.contains(status),
            "{line:?} for {}",
            request.chars().take(60).collect::<String>()
        );
    }
}

#[tokio::test]
async fn a_token_may_come_as_a_header_or_a_subprotocol() {
    let nats = Nats::jetstream().await;
    let gateway = Gateway::on(&nats).await;
    let url = format!("ws://{}/?workspaceSlug=acme", gateway.address);
    let good = token("ann", "acme");
    let mut request = url.as_str().into_client_request().unwrap();
    request
        .headers_mut()
        .insert("authorization", format!("Bearer {good}").parse().unwrap());
    let client = Client::attempt_with(request).await.unwrap();
    drop(client);
    let mut request = url.as_str().into_client_request().unwrap();
    let protocols = format!("herald.v1, bearer.{good}");
    request
        .headers_mut()
        .insert("sec-websocket-protocol", protocols.parse().unwrap());
    // The library fails the handshake unless the answer names an offered protocol.
    let client = Client::attempt_with(request).await.unwrap();
    drop(client);
}

#[tokio::test]
async fn pages_of_other_origins_are_refused_where_origins_are_configured() {
    let nats = Nats::jetstream().await;
    let gateway = Gateway::builder(&nats)
        .set(
            "server.allowed_origins",
            "https://app.example.com, https://b.example.com",
        )
        .ready()
        .await;
    let url = format!(
        "ws://{}/?workspaceSlug=acme&token={}",
        gateway.address,
        token("ann", "acme")
    );
    let mut request = url.as_str().into_client_request().unwrap();
    request
        .headers_mut()
        .insert("origin", "https://evil.example.com".parse().unwrap());
    assert_eq!(
        Client::attempt_with(request)
            .await
            .expect_err("refused")
            .status,
        403
    );
    let mut request = url.as_str().into_client_request().unwrap();
    request
        .headers_mut()
        .insert("origin", "https://b.example.com".parse().unwrap());
    Client::attempt_with(request).await.unwrap();
}
