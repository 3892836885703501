//! The admin listener, and the log filter wherever one is set: nobody changes anything without the token,
//! and no word makes the gateway silent by mistake.

use crate::support::command::finish;
use crate::support::gateway::{Gateway, file, run};
use crate::support::nats::Nats;

const TOKEN: &str = "0123456789-token-of-the-operator";

#[tokio::test]
async fn what_changes_something_needs_the_token_and_reading_needs_none() {
    let nats = Nats::jetstream().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = file(folder.path(), "token", format!("{TOKEN}\n"));
    let gateway = Gateway::builder(&nats)
        .set("server.admin_token_file", path)
        .ready()
        .await;
    for (headers, status) in [
        (String::new(), "401"),
        ("Authorization: Bearer\r\n".to_owned(), "401"),
        (
            "Authorization: Bearer wrong-token-that-is-long\r\n".to_owned(),
            "401",
        ),
        (format!("Authorization: Bearer {TOKEN}x\r\n"), "401"),
        (format!("Authorization: Basic {TOKEN}\r\n"), "401"),
        (
            format!("Authorization: Bearer {TOKEN}\r\nAuthorization: Bearer {TOKEN}\r\n"),
            "401",
        ),
        (format!("authorization: bearer {TOKEN}\r\n"), "200"),
    ] {
        let answer = gateway
            .admin_with(&headers, "PUT", "/log-level", "debug")
            .await;
        let answer = answer.expect("an answer");
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{headers}: {answer}"
        );
        let asks = answer.to_lowercase().contains("www-authenticate: bearer");
        assert_eq!(asks, status == "401", "{answer}");
    }
    // Every method that is not for reading, on every path.
    for (method, path) in [
        ("DELETE", "/log-level"),
        ("POST", "/log-level"),
        ("PATCH", "/metrics"),
        ("PUT", "/nothing"),
    ] {
        assert_eq!(
            gateway.admin(method, path, "").await.0,
            401,
            "{method} {path}"
        );
    }
    for path in ["/log-level", "/metrics", "/healthz", "/readyz"] {
        assert_eq!(gateway.admin("GET", path, "").await.0, 200, "{path}");
    }
    assert_eq!(gateway.admin("GET", "/log-level", "").await.1, "debug\n");
    let reset = gateway.admin_as(TOKEN, "DELETE", "/log-level", "").await;
    assert_eq!(reset, (200, "trace\n".to_owned()));
    assert!(!gateway.output().contains(TOKEN) && !gateway.output().contains("wrong-token"));
}

#[tokio::test]
async fn without_a_token_file_nothing_can_be_changed_and_the_answer_names_the_setting() {
    let nats = Nats::jetstream().await;
    let gateway = Gateway::on(&nats).await;
    for (method, token) in [("PUT", "anything-that-is-long"), ("DELETE", "")] {
        let (status, told) = gateway.admin_as(token, method, "/log-level", "debug").await;
        assert_eq!(status, 403, "{told}");
        assert!(told.contains("server.admin_token_file"), "{told}");
    }
    assert_eq!(
        gateway.admin("GET", "/log-level", "").await,
        (200, "trace\n".to_owned())
    );
}

#[test]
fn a_token_file_that_cannot_be_used_is_told_by_check_and_refused_at_the_start() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (path, part) in [
        (
            file(folder.path(), "short", "swordfish\n"),
            "fewer than 16 bytes",
        ),
        (
            file(folder.path(), "words", "swordfish swordfish swordfish"),
            "visible ASCII",
        ),
        (file(folder.path(), "empty", ""), "fewer than 16 bytes"),
        (
            folder.path().join("absent").display().to_string(),
            "cannot be read",
        ),
    ] {
        let builder = Gateway::without_nats().set("server.admin_token_file", &path);
        for command in ["serve", "check"] {
            let (code, _, told) = run(builder.command(&[command]));
            assert_eq!(code, Some(2), "{command}: {told}");
            for part in [part, "server.admin_token_file", &path] {
                assert!(told.contains(part), "{command}: {told}");
            }
            assert!(!told.contains("swordfish"), "{told}");
        }
    }
}

/// A word that is no level was taken for somebody's target, and the gateway logged nothing any more.
#[tokio::test]
async fn a_filter_that_would_silence_the_gateway_by_mistake_is_refused_everywhere() {
    for (filter, part) in [
        ("inof", "`info`"),
        ("verbose", "`verbose`"),
        ("hearld=debug", "`herald`"),
        ("herald::rom=debug", "`herald::room`"),
        ("info,sqlx", "`sqlx`"),
        ("sqlx=warn", "info,sqlx=warn"),
        ("herald[join]=debug", "no spans"),
        (" ", "empty"),
    ] {
        for builder in [
            Gateway::without_nats().set("log.level", filter),
            Gateway::without_nats().variable("RUST_LOG", filter),
        ] {
            for command in ["serve", "check"] {
                let output = finish(builder.command(&[command]).into()).await;
                assert_eq!(output.code, Some(2), "{filter}, {command}: {output:?}");
                assert!(
                    output.stderr.contains(part),
                    "{filter}, {command}: {output:?}"
                );
            }
        }
    }
    for filter in [
        "off",
        "WARN",
        "info,sqlx=warn",
        "herald::room=debug",
        "warn,herald",
    ] {
        let builder = Gateway::without_nats().variable("RUST_LOG", filter);
        let (code, _, told) = run(builder.command(&["check"]));
        assert_eq!(code, Some(0), "{filter}: {told}");
    }
}
