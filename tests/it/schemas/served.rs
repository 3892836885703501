//! Where the schemas are to be had: `herald schema`, and the admin listener.

use std::process::Command;

use super::judge::printed;
use crate::support::gateway::{Gateway, HERALD, run};
use crate::support::nats::Nats;

#[tokio::test]
async fn the_admin_listener_serves_what_the_command_prints() {
    let nats = Nats::jetstream().await;
    let gateway = Gateway::on(&nats).await;
    let list = printed(&["--list"]);
    let names: Vec<_> = list.lines().collect();
    assert_eq!(
        &names[..4],
        ["asyncapi", "openapi", "close-codes", "notification"]
    );
    assert_eq!(printed(&[]), printed(&["asyncapi"]));
    let (status, listed) = gateway.admin("GET", "/schemas", "").await;
    assert_eq!(
        (status, listed),
        (200, format!("{}\n", serde_json::json!(names)))
    );
    for name in names {
        let kind = match name {
            "asyncapi" => "application/vnd.aai.asyncapi+json;version=3.0.0",
            "openapi" => "application/vnd.oai.openapi+json;version=3.1",
            "close-codes" => "application/json",
            _ => "application/schema+json",
        };
        for path in [format!("/schemas/{name}"), format!("/schemas/{name}.json")] {
            let answer = gateway
                .admin_with("", "GET", &path, "")
                .await
                .expect("an answer");
            let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
            assert!(head.starts_with("HTTP/1.1 200 "), "{path}: {head}");
            assert!(
                head.contains(&format!("content-type: {kind}\r\n")),
                "{path}: {head}"
            );
            assert_eq!(body, printed(&[name]), "{path}");
        }
    }
    let (status, head) = gateway.admin("HEAD", "/schemas/notification", "").await;
    assert_eq!((status, head.as_str()), (200, ""));
    for name in [
        "notificatoin",
        "..%2Fasyncapi",
        "%00",
        "notification.json.json",
    ] {
        let (status, told) = gateway.admin("GET", &format!("/schemas/{name}"), "").await;
        assert_eq!(status, 404, "{name}");
        assert!(
            told.contains("there are asyncapi, openapi, close-codes, notification,"),
            "{told}"
        );
    }
    // It is read only, whatever the route.
    let (status, _) = gateway.admin("PUT", "/schemas/notification", "{}").await;
    assert_eq!(status, 403);
}

#[test]
fn an_unknown_name_is_told_what_there_is() {
    for (arguments, part) in [
        (vec!["notificatoin"], "did you mean `notification`?"),
        (vec!["record"; 2], "unexpected argument"),
        (vec!["notification", "--list"], "cannot be used with"),
        (
            vec!["nothing"],
            "there are asyncapi, openapi, close-codes, notification,",
        ),
    ] {
        let mut command = Command::new(HERALD);
        command.arg("schema").args(&arguments);
        let (code, out, told) = run(command);
        assert_eq!((code, out.as_str()), (Some(2), ""), "{arguments:?}");
        assert!(told.contains(part), "{told}");
    }
    // It needs no settings, right or wrong.
    let mut command = Command::new(HERALD);
    command
        .args(["schema", "custom.order_placed"])
        .env("HERALD_NATS__URL", "");
    let (code, out, told) = run(command);
    assert_eq!(code, Some(0), "{told}");
    assert!(out.contains("\"title\": \"CustomEvent\""), "{out}");
}
