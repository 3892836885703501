//! Who publishes nothing, and what opens no socket.

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Sender, answered, count, on, ready, with_http};
use crate::support::client::Client;
use crate::support::command::finish;
use crate::support::eventually;
use crate::support::gateway::{Gateway, file, get};
use crate::support::nats::Nats;
use crate::support::production::Production;
use crate::support::tls::Certificates;
use crate::support::token::{PUBLISH_AUDIENCE, at, publisher, remember, signed, token};
use crate::support::{PATIENCE, soon};

const STATIC: &str = "0123456789abcdef0123456789abcdef";

/// A gateway that knows a static token; and the folder of its file.
async fn with_static_token(nats: &Nats) -> (Gateway, Sender, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    remember(STATIC.to_owned());
    let line = format!("ci {STATIC} acme custom\n");
    let tokens = file(folder.path(), "tokens", line);
    let builder = Gateway::builder(nats).set("publish.tokens_file", tokens);
    let (gateway, sender) = ready(builder).await;
    (gateway, sender, folder)
}

#[tokio::test]
async fn who_may_not_publish_publishes_nothing() {
    let nats = Nats::jetstream().await;
    let (_gateway, sender, _folder) = with_static_token(&nats).await;
    let everything = || json!({"workspaces": "*", "categories": "*"});
    let with = |aud: serde_json::Value, publish: serde_json::Value, exp: i64| {
        signed(
            &json!({ "sub": "ci", "aud": aud, "publish": publish, "exp": at(exp), "workspaces": "*" }),
        )
    };
    for (token, status, problem) in [
        (String::new(), 401, "no-token"),
        ("x".to_owned(), 401, "bad-token"),
        (format!("{STATIC}x"), 401, "bad-token"),
        ("a.b.c".to_owned(), 401, "bad-token"),
        // A socket's token.
        (token("ann", "acme"), 401, "bad-token"),
        (with(json!("other"), everything(), 600), 401, "bad-token"),
        (
            with(json!([PUBLISH_AUDIENCE, "sockets"]), everything(), 600),
            401,
            "bad-token",
        ),
        (with(json!([]), everything(), 600), 401, "bad-token"),
        (
            with(json!(PUBLISH_AUDIENCE), json!(true), 600),
            401,
            "bad-token",
        ),
        (
            with(json!(PUBLISH_AUDIENCE), json!({"workspaces": "*"}), 600),
            401,
            "bad-token",
        ),
        (
            with(json!(PUBLISH_AUDIENCE), everything(), -600),
            401,
            "expired-token",
        ),
        (
            publisher("ci", &json!(["globex"]), &json!("*")),
            403,
            "not-granted",
        ),
        (
            publisher("ci", &json!("*"), &json!(["record"])),
            403,
            "not-granted",
        ),
    ] {
        let answer = sender.with_token(&token).event(&[]).await;
        answer.assert_is(status, problem, "no");
        assert_eq!(answer.headers["connection"], "close", "{answer:?}");
    }
    assert_eq!(count(&nats).await, 0);
}

#[tokio::test]
async fn a_token_in_the_url_or_a_cookie_is_none() {
    let nats = Nats::jetstream().await;
    let (gateway, sender, _folder) = with_static_token(&nats).await;
    let own = sender.with_token(STATIC);
    own.post("globex/custom.x", &[], "{}")
        .await
        .assert_is(403, "not-granted", "no");
    own.post("acme/system.x", &[], "{}")
        .await
        .assert_is(403, "not-granted", "no");
    assert_eq!(count(&nats).await, 0);
    assert_eq!(own.event(&[]).await.status, 201);
    // A token anywhere else is none, and one in the URL is refused with a good one in the header.
    let url = format!(
        "http://{}/v1/workspaces/acme/events/custom.x",
        gateway.publish
    );
    for (query, header) in [
        ("token", true),
        ("access_token", true),
        ("token", false),
        ("Token", true),
        ("jwt", true),
        ("x", true),
        ("a=b;x", true),
    ] {
        let url = format!("{url}?{query}={}", sender.token);
        let mut request = sender.client.post(url).body("{}");
        if header {
            request = request.bearer_auth(&sender.token);
        }
        let answer = answered(request.send().await.unwrap()).await.unwrap();
        answer.assert_is(400, "token-in-url", "no");
    }
    let cookie = sender
        .client
        .post(&url)
        .header("cookie", format!("token={}", sender.token));
    let answer = answered(cookie.body("{}").send().await.unwrap())
        .await
        .unwrap();
    answer.assert_is(401, "no-token", "no");
    for line in [
        format!("Basic {}", sender.token),
        sender.token.clone(),
        "Bearer".to_owned(),
    ] {
        let request = sender
            .client
            .post(&url)
            .header("authorization", line)
            .body("{}");
        answered(request.send().await.unwrap())
            .await
            .unwrap()
            .assert_is(401, "no-token", "no");
    }
    let twice = sender
        .client
        .post(&url)
        .bearer_auth(&sender.token)
        .header("authorization", "Bearer x");
    answered(twice.body("{}").send().await.unwrap())
        .await
        .unwrap()
        .assert_is(401, "bad-token", "no");
    assert_eq!(count(&nats).await, 1);
}

#[tokio::test]
async fn a_token_for_publishing_opens_no_socket() {
    let nats = Nats::jetstream().await;
    // Whether HTTP publishing is on or not, and whether the sockets' audience is set or not.
    for (builder, audience) in [
        (Gateway::builder(&nats), PUBLISH_AUDIENCE),
        (with_http(Gateway::builder(&nats)), PUBLISH_AUDIENCE),
        (
            Gateway::builder(&nats).set("auth.audience", "sockets"),
            PUBLISH_AUDIENCE,
        ),
        (
            Gateway::builder(&nats).set("publish.audience", "senders"),
            "senders",
        ),
    ] {
        let gateway = builder.ready().await;
        for aud in [json!(audience), json!(["sockets", audience])] {
            let grant = json!({"workspaces": "*", "categories": "*"});
            let claims = json!({"sub": "ann", "aud": aud, "publish": grant, "workspaces": "*", "exp": at(600)});
            let query = format!("token={}&workspaceSlug=acme", signed(&claims));
            let mut client = Client::connect(&gateway, &query).await;
            let (code, _) = client.closed().await;
            assert_eq!(code, 4001, "{aud}");
        }
        gateway.prints("it is for publishing").await;
    }
}

const JSON: (&str, &str) = ("content-type", "application/json");
/// 129 characters.
const LONG: &str = "kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk";

/// A path, headers and body; and the status, the problem and a part of its detail.
type Case = (
    &'static str,
    &'static [(&'static str, &'static str)],
    &'static str,
    u16,
    &'static str,
    &'static str,
);

const CASES: &[Case] = &[
    ("acme/custom", &[JSON], "{}", 404, "unknown-path", "subject"),
    (
        "acme/record.made",
        &[JSON],
        "{}",
        404,
        "unknown-path",
        "created, updated",
    ),
    ("a.b/custom.x", &[JSON], "{}", 404, "unknown-path", "slug"),
    (
        "acme/custom.x",
        &[("content-type", "text/plain")],
        "{}",
        415,
        "media-type",
        "JSON",
    ),
    (
        "acme/custom.x",
        &[("content-type", "application/x-www-form-urlencoded")],
        "a=b",
        415,
        "media-type",
        "JSON",
    ),
    (
        "acme/custom.x",
        &[JSON, ("content-encoding", "gzip")],
        "{}",
        415,
        "media-type",
        "Content-Encoding",
    ),
    (
        "acme/custom.x",
        &[("idempotency-key", "")],
        "{}",
        400,
        "idempotency-key",
        "128",
    ),
    (
        "acme/custom.x",
        &[("idempotency-key", LONG)],
        "{}",
        400,
        "idempotency-key",
        "128",
    ),
    (
        "acme/custom.x",
        &[("idempotency-key", "a b")],
        "{}",
        400,
        "idempotency-key",
        "visible",
    ),
    (
        "acme/custom.x",
        &[("idempotency-key", "a"), ("idempotency-key", "a")],
        "{}",
        400,
        "idempotency-key",
        "once",
    ),
    (
        "acme/custom.x",
        &[JSON],
        "",
        400,
        "malformed",
        "{} is enough",
    ),
    (
        "acme/custom.x",
        &[JSON],
        "{",
        422,
        "bad-event",
        "a gateway would refuse this event: json: the payload is not JSON",
    ),
    (
        "acme/custom.x",
        &[],
        "[]",
        422,
        "bad-event",
        "publish each event by itself",
    ),
    (
        "acme/custom.x",
        &[JSON, ("ce-id", "e1"), ("ce-source", "/s"), ("ce-type", "t")],
        "{}",
        422,
        "bad-event",
        "specversion",
    ),
    (
        "acme/custom.x",
        &[JSON, ("origin", "https://evil.example")],
        "{}",
        403,
        "origin",
        "another site's page",
    ),
    (
        "acme/custom.x",
        &[JSON, ("sec-fetch-site", "cross-site")],
        "{}",
        403,
        "origin",
        "another site's page",
    ),
    (
        "acme/custom.x",
        &[JSON],
        "{\"recipients\":null}",
        422,
        "bad-event",
        "recipients is null",
    ),
];

#[tokio::test]
async fn what_is_no_request_to_publish_is_refused_with_its_reason() {
    let nats = Nats::jetstream().await;
    let (gateway, sender) = on(&nats).await;
    for &(path, headers, body, status, problem, part) in CASES {
        let answer = sender.post(path, headers, body).await;
        answer.assert_is(status, problem, "no");
        let detail = answer.body["detail"].as_str().unwrap();
        assert!(detail.contains(part), "{detail}");
    }
    let large = format!(r#"{{"title":"{}"}}"#, "x".repeat(65_536));
    let answer = sender.post("acme/custom.x", &[JSON], &large).await;
    answer.assert_is(413, "too-large", "no");
    assert!(
        answer.body["detail"]
            .as_str()
            .unwrap()
            .contains("the payload is over 65536 bytes")
    );
    // With its headers it is larger than the stream takes: for good.
    let (source, body) = ("é".repeat(12_000), "x".repeat(65_000));
    let cloudevent = [
        ("ce-specversion", "1.0"),
        ("ce-id", "a"),
        ("ce-type", "t"),
        ("ce-source", &source),
    ];
    let body = format!(r#"{{"collection":"c","recordId":"r","unused":"{body}"}}"#);
    let answer = sender.post("acme/record.created", &cloudevent, &body).await;
    answer.assert_is(413, "too-large", "no");
    let url = format!(
        "http://{}/v1/workspaces/acme/events/custom.x",
        gateway.publish
    );
    for method in ["GET", "PUT", "OPTIONS", "QUERY", "DELETE"] {
        let method = method.parse().unwrap();
        let request = sender
            .client
            .request(method, &url)
            .header("origin", "https://evil.example");
        let answer = answered(request.bearer_auth(&sender.token).send().await.unwrap())
            .await
            .unwrap();
        answer.assert_is(405, "method", "no");
        assert_eq!(answer.headers["allow"], "POST");
        assert!(
            !answer
                .headers
                .keys()
                .any(|name| name.as_str().starts_with("access-control"))
        );
    }
    assert_eq!(
        get(&gateway.publish, "/readyz").await,
        (200, "ready\n".to_owned())
    );
    let (status, document) = get(&gateway.publish, "/openapi.json").await;
    assert!(
        status == 200 && document.contains("\"openapi\": \"3.1.0\""),
        "{document}"
    );
    assert_eq!(count(&nats).await, 0);
}

/// What is no right HTTP/1.1, or breaks off.
#[tokio::test]
async fn a_body_that_breaks_off_and_a_request_without_its_host_are_malformed() {
    let nats = Nats::jetstream().await;
    let (gateway, sender) = on(&nats).await;
    let post = async |host: &str, rest: &str| {
        let mut tcp = TcpStream::connect(&gateway.publish).await.unwrap();
        let request = format!(
            "POST /v1/workspaces/acme/events/custom.x HTTP/1.1\r\n{host}Authorization: Bearer {}\r\n{rest}",
            sender.token
        );
        tcp.write_all(request.as_bytes()).await.unwrap();
        if rest.starts_with("Content-Length: 10") {
            tcp.shutdown().await.unwrap();
        }
        let mut answer = Vec::new();
        // A reset after the answer is an end, too.
        let _ = soon(tcp.read_to_end(&mut answer)).await;
        String::from_utf8_lossy(&answer).into_owned()
    };
    let host = "Host: h\r\n";
    for (host, rest, status, problem) in [
        (host, "Content-Length: 10\r\n\r\n{}", 400, "malformed"),
        (
            host,
            "Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
            400,
            "malformed",
        ),
        (
            host,
            "Transfer-Encoding: gzip, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
            415,
            "media-type",
        ),
        ("", "Content-Length: 2\r\n\r\n{}", 400, "malformed"),
        (
            "Host: a\r\nHost: b\r\n",
            "Content-Length: 2\r\n\r\n{}",
            400,
            "malformed",
        ),
    ] {
        let answer = post(host, rest).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{rest}: {answer}"
        );
        let problem = format!("urn:herald:problem:{problem}\"");
        assert!(answer.contains(&problem), "{rest}: {answer}");
    }
    assert_eq!(count(&nats).await, 0);
}

/// Else the body would be the next request of somebody else's, behind a proxy.
#[tokio::test]
async fn a_body_that_nobody_read_is_no_request() {
    let nats = Nats::jetstream().await;
    let (gateway, sender) = on(&nats).await;
    let inner = format!(
        "POST /v1/workspaces/acme/events/custom.x HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {}\r\n\
         Content-Length: 2\r\n\r\n{{}}",
        sender.token
    );
    for refusal in ["Authorization: Bearer x\r\n", "Expect: 100-continue\r\n"] {
        let mut tcp = TcpStream::connect(&gateway.publish).await.unwrap();
        let outer = format!(
            "POST /v1/workspaces/acme/events/custom.x HTTP/1.1\r\nHost: h\r\n{refusal}Content-Length: {}\r\n\r\n{inner}",
            inner.len()
        );
        tcp.write_all(outer.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // A reset after the answer is an end, too.
        let _ = soon(tcp.read_to_end(&mut answer)).await;
        let answer = String::from_utf8_lossy(&answer);
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
        assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    }
    assert_eq!(count(&nats).await, 0);
}

#[tokio::test]
async fn it_is_off_by_default_and_speaks_tls_unless_on_loopback() {
    let nats = Nats::jetstream().await;
    let gateway = Gateway::on(&nats).await;
    assert_eq!(gateway.publish, "");
    let open = Gateway::builder(&nats).set("server.publish_listen", "0.0.0.0:0");
    let refused = finish(tokio::process::Command::from(open.command(&["serve"]))).await;
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.stderr.contains("server.tls_cert"), "{refused:?}");
    let certificates = Certificates::new();
    let gateway = open.tls(&certificates).ready().await;
    let port = gateway.publish.rsplit_once(':').unwrap().1.to_owned();
    let authority = std::fs::read(certificates.authority()).unwrap();
    let authority = reqwest::Certificate::from_pem(&authority).unwrap();
    let sender = Sender {
        client: reqwest::Client::builder()
            .tls_certs_merge([authority])
            .build()
            .unwrap(),
        base: format!("https://localhost:{port}"),
        ..Sender::to(&gateway)
    };
    assert_eq!(sender.event(&[]).await.status, 201);
    let plain = Sender {
        base: format!("http://localhost:{port}"),
        ..sender
    };
    assert!(plain.try_post("acme/custom.x", &[], "{}").await.is_err());
}

#[tokio::test]
async fn its_own_user_writes_events_and_the_gateways_need_not() {
    let production = Production::migrated().await;
    let (gateway, sender) = ready(production.gateway("gateway")).await;
    assert_eq!(sender.event(&[]).await.status, 201);
    // The permission is taken away, and given back.
    production.deny("publisher", "ws.>").await;
    let refused = eventually(PATIENCE, async || {
        sender.event(&[]).await.problem() == "refused"
    })
    .await;
    assert!(refused, "{}", gateway.output());
    sender.event(&[]).await.assert_is(503, "refused", "no");
    gateway.prints("publish.nats_url").await;
    production.allow().await;
    let stored = eventually(PATIENCE, async || sender.event(&[]).await.status == 201).await;
    assert!(stored, "{}", gateway.output());
    for permission in ["ws.>", "_INBOX_publisher.>"] {
        let production = Production::migrated_without("publisher", permission).await;
        let builder = with_http(production.gateway("gateway"));
        let refused = finish(tokio::process::Command::from(builder.command(&["serve"]))).await;
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(refused.stderr.contains("NATS does not "), "{refused:?}");
    }
}

#[tokio::test]
async fn the_publisher_may_write_events_and_nothing_else() {
    let production = Production::migrated().await;
    let mut publisher = production.user("publisher").await;
    assert!(publisher.may_publish("ws.acme.custom.x").await);
    for subject in [
        "live.ws.acme.custom.x",
        "session.acme.0123",
        "dead.acme.1",
        "revoked.0123",
        "herald.query.sessions",
        "herald.command.drain",
        "$JS.API.STREAM.INFO.EVENTS",
        "$JS.API.STREAM.DELETE.EVENTS",
        "$JS.API.DIRECT.GET.EVENTS",
        "$KV.HERALD_MIGRATIONS.x",
    ] {
        assert!(!publisher.may_publish(subject).await, "{subject}");
    }
    for subject in ["ws.>", "live.>", "_INBOX.x", "_INBOX_gateway.>", ">"] {
        assert!(!publisher.may_subscribe(subject).await, "{subject}");
    }
    assert!(publisher.may_subscribe("_INBOX_publisher.x").await);
}
