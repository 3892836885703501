//! `server.path`: sockets are at that path and nowhere else, and whoever asks elsewhere is told.

use crate::support::attempt::{Attempt, connect, local, send};
use crate::support::gateway::{Gateway, run};
use crate::support::nats::Nats;
use crate::support::raw::handshake;

async fn at(gateway: &Gateway, path: &str) -> Attempt {
    let request = handshake("ann", "acme").replacen("GET /?", &format!("GET {path}?"), 1);
    send(connect(gateway, local(1)).await, &request, &[]).await
}

#[tokio::test]
async fn sockets_are_at_the_configured_path_and_nowhere_else() {
    let nats = Nats::jetstream().await;
    for (path, others) in [
        (
            "/live/v1",
            [
                "/",
                "/live",
                "/live/v1/",
                "/live/v1/x",
                "/Live/v1",
                "//live/v1",
                "/live/%761",
            ],
        ),
        (
            "/live/",
            [
                "/",
                "/live",
                "/live//",
                "/live/x",
                "/metrics",
                "/index.html",
                "/live/.",
            ],
        ),
        (
            "/",
            ["/live", "//", "/x/", "/.", "/metrics", "/index.html", "/ws"],
        ),
    ] {
        let gateway = Gateway::builder(&nats)
            .set("server.path", path)
            .ready()
            .await;
        assert_eq!(at(&gateway, path).await.status, 101, "{path}");
        let (status, body) = gateway.get(path).await;
        let example = format!("wss://<host>{path}?token=<JWT>");
        assert!(
            status == 426 && body.contains(&example),
            "{path}: {status} {body}"
        );
        let hint = format!("wss://<host>{path} (server.path)");
        for other in others {
            let attempt = at(&gateway, other).await;
            let is_told = attempt.status == 404 && attempt.body.contains(&hint);
            assert!(
                is_told && !attempt.body.contains("ann"),
                "{other}: {attempt:?}"
            );
            let (status, body) = gateway.get(other).await;
            assert!(
                status == 404 && body.contains(&hint),
                "{other}: {status} {body}"
            );
        }
        for health in ["/healthz", "/readyz"] {
            assert_eq!(gateway.get(health).await.0, 200, "{path}");
        }
        // Handshakes count, and what a scanner asks for does not.
        let refused = "herald_connections_refused_total";
        assert_eq!(gateway.metric(refused, "\"path\"").await, 7.0);
    }
}

#[test]
fn a_path_that_no_client_could_ask_for_is_a_configuration_error() {
    for (path, told) in [
        ("live", "does not begin with a slash"),
        ("/live?token=x", "is no plain path"),
        ("/a//b", "has an empty part"),
        ("/healthz", "is a health check"),
    ] {
        let builder = Gateway::without_nats().set("server.path", path);
        for command in ["serve", "check"] {
            let (code, stdout, stderr) = run(builder.command(&[command]));
            let said = format!("{stdout}{stderr}");
            assert_eq!(code, Some(2), "{said}");
            assert!(
                said.contains(&format!("server.path: `{path}` {told}")),
                "{said}"
            );
        }
    }
}
