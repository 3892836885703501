//! Verifies that `herald health` tells by its exit code and one line how the gateway beside it is, whatever it
//! listens on.

use crate::support::command::{Output, finish};
use crate::support::gateway::{Builder, Gateway};
use crate::support::nats::{Nats, free_port};
use crate::support::tls::Certificates;
use crate::support::{PATIENCE, eventually};

async fn health(builder: &Builder, arguments: &[&str]) -> Output {
    let arguments = [&["health"], arguments].concat();
    finish(tokio::process::Command::from(builder.command(&arguments))).await
}

fn is(output: &Output, code: i32, words: &str) {
    assert_eq!(output.code, Some(code), "{output:?}");
    assert_eq!(
        (output.stdout.as_str(), output.stderr.lines().count()),
        ("", 1),
        "{output:?}"
    );
    assert!(
        output.stderr.starts_with("herald: ") && output.stderr.contains(words),
        "{output:?}"
    );
}

#[tokio::test]
async fn a_gateway_lives_before_it_is_ready() {
    let mut nats = Nats::jetstream().await;
    nats.stop().await;
    let listen = format!("0.0.0.0:{}", free_port());
    let builder = Gateway::builder(&nats).set("server.listen", &listen);
    is(&health(&builder, &[]).await, 1, "Connection refused");
    let gateway = builder.clone().start().await;
    is(&health(&builder, &[]).await, 0, "ok");
    let waits = eventually(PATIENCE, async || {
        let output = health(&builder, &["--ready"]).await;
        output.code == Some(1) && output.stderr.contains("connection refused")
    });
    assert!(waits.await);
    is(
        &health(&builder, &["--ready"]).await,
        1,
        "not ready: waiting for NATS",
    );
    nats.start_again().await;
    let ready = eventually(PATIENCE, async || gateway.get("/readyz").await.0 == 200);
    assert!(ready.await);
    is(&health(&builder, &["--ready"]).await, 0, "ready");
    // The address given counts, and no settings with it.
    let port = gateway.address.rsplit(':').next().unwrap().to_owned();
    let address = format!("http://localhost:{port}");
    let elsewhere = Gateway::without_nats().set("server.drain", "x");
    is(
        &health(&elsewhere, &["--address", &address, "--ready"]).await,
        0,
        "ready",
    );
    is(
        &health(&elsewhere, &["--address", &gateway.admin]).await,
        0,
        "ok",
    );
    let bad = health(&elsewhere, &["--address", "https://example.com:443"]).await;
    assert_eq!(bad.code, Some(2), "{bad:?}");
}

#[tokio::test]
async fn a_gateway_that_speaks_tls_is_asked_by_tls() {
    let nats = Nats::jetstream().await;
    let certificates = Certificates::new();
    let listen = format!("127.0.0.1:{}", free_port());
    let plain = Gateway::builder(&nats).set("server.listen", &listen);
    let builder = plain.clone().tls(&certificates);
    let _gateway = builder.clone().ready().await;
    is(&health(&builder, &["--ready"]).await, 0, "ready");
    let address = format!("https://{listen}");
    is(&health(&plain, &["--address", &address]).await, 0, "ok");
    is(
        &health(&plain, &[]).await,
        1,
        "no HTTP answer: does it speak TLS there?",
    );
    // What is no gateway.
    is(
        &health(
            &plain,
            &["--address", &format!("127.0.0.1:{}", nats.port())],
        )
        .await,
        1,
        "no HTTP answer",
    );
}

/// Who is a trusted proxy must send the header, and the host itself may be one.
#[tokio::test]
async fn a_gateway_that_wants_a_proxy_header_gets_one() {
    let nats = Nats::jetstream().await;
    for trusted in ["127.0.0.0/8", "10.0.0.0/8"] {
        let builder = Gateway::builder(&nats)
            .set("server.listen", format!("127.0.0.1:{}", free_port()))
            .set("server.trusted_proxies", trusted)
            .set("server.proxy_protocol", true);
        let _gateway = builder.clone().start().await;
        let ready = eventually(PATIENCE, async || {
            health(&builder, &["--ready"]).await.code == Some(0)
        });
        assert!(ready.await, "{trusted}");
    }
}
