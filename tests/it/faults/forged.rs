//! What others put on `live.`: malformed, forged and too large, on the events' and on the claims' subjects.
//! Whoever may publish there is taken for the server, and nats/production.conf lets nobody; but
//! what can be told is told, and nothing holds a room up for good.

use std::time::Duration;

use async_nats::HeaderMap;
use serde_json::{Value, json};

use crate::support::client::Client;
use crate::support::gateway::Gateway;
use crate::support::nats::Nats;
use crate::support::nats::cluster::request;
use crate::support::publisher::Publisher;
use crate::support::{PATIENCE, eventually};

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(*name, *value);
    }
    headers
}

/// As the server would have put them on an event.
const AS_THE_SERVER: [(&str, &str); 5] = [
    ("Nats-Stream", "EVENTS"),
    ("Nats-Subject", "ws.acme.custom.a"),
    ("Nats-Sequence", "1000000"),
    ("Nats-Last-Sequence", "0"),
    ("Nats-Time-Stamp", "2099-01-01T00:00:00Z"),
];

/// With `name` set to `value`, or left out.
fn but(name: &str, value: Option<&'static str>) -> HeaderMap {
    let pairs = AS_THE_SERVER
        .iter()
        .filter_map(|(known, as_server)| match value {
            _ if *known != name => Some((*known, *as_server)),
            value => value.map(|value| (*known, value)),
        });
    headers(&pairs.collect::<Vec<_>>())
}

/// Headers of events that are not the server's.
fn forged() -> Vec<HeaderMap> {
    let mut forged = vec![HeaderMap::new()];
    for (name, _) in AS_THE_SERVER {
        forged.push(but(name, None));
        forged.push(but(name, Some("")));
    }
    forged.push(but("Nats-Stream", Some("SESSIONS")));
    forged.push(but("Nats-Subject", Some("ws.globex.custom.a")));
    forged.push(but("Nats-Subject", Some("ws.acme.custom.b")));
    forged.push(but("Nats-Sequence", Some("99999999999999999999999")));
    forged.push(but("Nats-Sequence", Some("0")));
    forged.push(but("Nats-Last-Sequence", Some("1000001")));
    forged.push(but("Nats-Time-Stamp", Some("yesterday")));
    forged
}

#[tokio::test]
async fn what_somebody_writes_over_a_claim_is_replaced_by_it_again() {
    let mut nats = Nats::jetstream().await;
    let gateway = Gateway::on(&nats).await;
    let client = nats.connect().await;
    let _ann = Client::join(&gateway, "ann", "acme").await;
    let subject = last(&client).await["subject"].as_str().map(str::to_owned);
    let subject = subject.expect("the claim's");
    let publisher = Publisher::on(&nats).await;
    let junk = publisher
        .context
        .publish(subject.clone(), "no claim".into())
        .await;
    let junk = junk.expect("sent").await.expect("stored").sequence;
    // The room looks when it has been away.
    nats.restart().await;
    let again = eventually(PATIENCE, async || {
        last(&client).await["seq"].as_u64() > Some(junk)
    });
    assert!(again.await);
    // Once: the claim is there now.
    let again = last(&client).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(last(&client).await["seq"], again["seq"]);
}

/// The last message of SESSIONS.
async fn last(client: &async_nats::Client) -> Value {
    let mut message = Value::Null;
    let read = eventually(PATIENCE, async || {
        let asked = json!({ "last_by_subj": "session.>" }).to_string();
        let answer = request(client, "$JS.API.STREAM.MSG.GET.SESSIONS", &asked).await;
        message = answer.map_or(Value::Null, |answer| answer["message"].clone());
        message["seq"].is_u64()
    });
    assert!(read.await, "SESSIONS does not answer");
    message
}

#[tokio::test]
async fn what_is_not_the_servers_on_live_is_dropped() {
    let nats = Nats::jetstream().await;
    let gateway = Gateway::on(&nats).await;
    let publisher = Publisher::on(&nats).await;
    let client = nats.connect().await;
    let mut ann = Client::join(&gateway, "ann", "acme").await;
    let forged = forged();
    let events = forged.len();
    for headers in &forged {
        let subject = "live.ws.acme.custom.a";
        let sent =
            client.publish_with_headers(subject, headers.clone(), "{\"title\":\"forged\"}".into());
        sent.await.expect("sent");
    }
    let claim = publisher
        .context
        .get_stream("SESSIONS")
        .await
        .expect("there");
    let claim = claim
        .get_last_raw_message_by_subject("session.>")
        .await
        .expect("a claim");
    let subject = format!("live.{}", claim.subject);
    let as_the_server = |sequence: &'static str| {
        headers(&[
            ("Nats-Stream", "SESSIONS"),
            ("Nats-Subject", claim.subject.as_str()),
            ("Nats-Sequence", sequence),
            ("Nats-Last-Sequence", "0"),
            ("Nats-Time-Stamp", "2099-01-01T00:00:00Z"),
        ])
    };
    let session =
        json!({ "session": "0123456789abcdef0123456789abcdef", "gateway": "x" }).to_string();
    let claims = [
        (HeaderMap::new(), session.clone()),
        (as_the_server("1000"), String::new()),
        (as_the_server("1000"), "[]".to_owned()),
        (
            as_the_server("1000"),
            json!({ "session": "no id", "gateway": "x" }).to_string(),
        ),
        (as_the_server("1000"), "x".repeat(900_000)),
        (as_the_server("-1"), session),
    ];
    for (headers, body) in claims.clone() {
        let sent = client.publish_with_headers(subject.clone(), headers, body.into());
        sent.await.expect("sent");
    }
    client.flush().await.expect("sent");
    gateway
        .metric_becomes(
            "herald_live_dropped_total",
            "",
            (events + claims.len()) as f64,
        )
        .await;
    publisher
        .event("acme.custom.a", &json!({ "title": "real" }))
        .await;
    assert_eq!(ann.notification().await["title"], "real");
    assert!(ann.is_quiet(Duration::from_millis(200)).await);
}

/// Who may publish on `live.` can do this: no permission of nats/production.conf allows it.
#[tokio::test]
async fn a_forged_place_in_the_stream_holds_a_room_up_for_seconds_and_not_for_good() {
    let nats = Nats::jetstream().await;
    let gateway = Gateway::on(&nats).await;
    let publisher = Publisher::on(&nats).await;
    let client = nats.connect().await;
    let mut ann = Client::join(&gateway, "ann", "acme").await;
    publisher
        .event("acme.custom.a", &json!({ "title": "first" }))
        .await;
    assert_eq!(ann.notification().await["title"], "first");
    let sent = client.publish_with_headers(
        "live.ws.acme.custom.a",
        headers(&AS_THE_SERVER),
        "{\"title\":\"forged\"}".into(),
    );
    sent.await.expect("sent");
    client.flush().await.expect("sent");
    assert_eq!(ann.notification().await["title"], "forged");
    // The room notices by the next event that the stream does not reach so far, and follows it from there on.
    publisher
        .event("acme.custom.b", &json!({ "title": "missing" }))
        .await;
    let noticed = eventually(PATIENCE, async || {
        let repairs = gateway.metric("herald_repairs_total", "reason=\"anew\"");
        repairs.await >= 1.0
    });
    assert!(noticed.await, "{}", gateway.output());
    publisher
        .event("acme.custom.b", &json!({ "title": "other" }))
        .await;
    assert_eq!(ann.notification().await["title"], "other");
    publisher
        .event("acme.custom.a", &json!({ "title": "same" }))
        .await;
    assert_eq!(ann.notification().await["title"], "same");
}
