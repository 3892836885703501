//! The examples of docs/publishing.md, By HTTP, run as they are written.

use serde_json::json;

use super::{count, ready};
use crate::support::client::Client;
use crate::support::clients::folder_with_packages;
use crate::support::example::Example;
use crate::support::gateway::{Gateway, file};
use crate::support::nats::Nats;
use crate::support::program;
use crate::support::token::publisher;

const PUBLISHING: &str = include_str!("../../../docs/publishing.md");

#[tokio::test]
async fn the_examples_publish_and_their_retries_store_nothing() {
    let nats = Nats::jetstream().await;
    let folder = folder_with_packages();
    let rules = Example::named(PUBLISHING, "github-rules.toml").text;
    let rules = file(folder.path(), "rules.toml", rules);
    let (gateway, _) = ready(Gateway::builder(&nats).set("projection.rules", rules)).await;
    let mut ann = Client::join(&gateway, "ann", "acme").await;
    let token = publisher("guide", &json!(["acme"]), &json!(["record", "custom"]));
    let mut environment = vec![
        ("HERALD_URL", format!("http://{}", gateway.publish)),
        ("HERALD_TOKEN", token),
        ("GITHUB_SECRET", "it's a secret to everybody".to_owned()),
        ("PORT", "0".to_owned()),
    ];
    let run = async |name: &str, after: &str, environment: &[(&str, String)]| {
        let example = Example::named(PUBLISHING, name);
        example
            .run_within("", after, folder.path(), environment)
            .await
            .stdout
    };
    for duplicate in [false, true] {
        let said = run("curl.sh", "", &environment).await;
        assert!(
            said.contains(&format!("\"duplicate\":{duplicate}")),
            "{said}"
        );
    }
    ann.notification().await;

    let call = "console.log(JSON.stringify(await handler({ orderId: \"1002\" }, { awsRequestId: \"r-1\" })));\n";
    let said = run("lambda.mjs", &call.repeat(2), &environment).await;
    assert!(
        said.contains("\"duplicate\":false") && said.contains("\"duplicate\":true"),
        "{said}"
    );
    ann.notification().await;

    // A delivery, the same again, and one that somebody else has signed.
    let deliver = r#"
import { once } from "node:events";
if (!server.listening) await once(server, "listening");
const push = { ref: "refs/heads/main", title: 7, recipients: null, repository: { full_name: "acme/shop" }, sender: { login: "ada" } };
const body = JSON.stringify(push);
const sign = (secret) => `sha256=${createHmac("sha256", secret).update(body).digest("hex")}`;
for (const secret of [GITHUB_SECRET, GITHUB_SECRET, "another"]) {
  const headers = { "x-hub-signature-256": sign(secret), "x-github-delivery": "d-1" };
  const answer = await fetch(`http://127.0.0.1:${server.address().port}/`, { method: "POST", headers, body });
  console.log(answer.status);
  await answer.text();
}
server.close();
server.closeAllConnections();
"#;
    let said = run("github.mjs", deliver, &environment).await;
    let statuses: Vec<&str> = said.lines().filter(|line| line.len() == 3).collect();
    assert_eq!(statuses, ["201", "200", "401"], "{said}");
    let notification = ann.notification().await;
    assert_eq!(notification["title"], "acme/shop");
    assert_eq!(notification["message"], "ada pushed to refs/heads/main.");
    assert_eq!(count(&nats).await, 3);

    if program("php", "HERALD_TEST_PHP", "apt-get install php-cli php-curl").is_none() {
        return;
    }
    assert_eq!(run("publish.php", "", &environment).await, "4\n");
    // A refusal is an error of the program.
    environment[1].1 = String::from("wrong");
    let example = Example::named(PUBLISHING, "publish.php");
    let refused = example
        .command(folder.path(), &environment)
        .output()
        .await
        .unwrap();
    assert!(!refused.status.success());
}
