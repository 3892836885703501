//! One trace from the publisher's span to the write on a socket, across languages and transports.

use std::collections::BTreeSet;

use async_nats::HeaderMap;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use serde_json::{Value, json};

use super::Scene;
use crate::migrations::edit;
use crate::support::client::Client;
use crate::support::clients::{CLIENTS, python};
use crate::support::command::{Output, finish, herald};
use crate::support::eventually;
use crate::support::gateway::Gateway;
use crate::support::nats::Nats;
use crate::support::otlp::{Collector, Seen};
use crate::support::publisher::Publisher;
use crate::support::{PATIENCE, token};

const PROCESS: &str = "process ws.{workspace}.{category}.{name}";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trace_goes_from_a_python_publisher_to_the_socket_over_http() {
    Box::pin(from_a_python_publisher_to_the_socket("http/protobuf")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trace_goes_from_a_python_publisher_to_the_socket_over_grpc() {
    Box::pin(from_a_python_publisher_to_the_socket("grpc")).await;
}

/// The spans of one event and of the socket that it went to.
struct Whole {
    publisher: Seen,
    process: Seen,
    decode: Seen,
    project: Seen,
    fan_out: Seen,
    send: Seen,
    connection: Seen,
}

impl Whole {
    async fn of(collector: &Collector, trace: &str) -> Self {
        let of_trace = async |name: &str| {
            let is_it = |seen: &Seen| seen.span.name == name && seen.trace() == trace;
            collector.span(name, is_it).await
        };
        Self {
            publisher: of_trace("publish ws.acme.record.created").await,
            process: of_trace(PROCESS).await,
            decode: of_trace("decode").await,
            project: of_trace("project").await,
            fan_out: of_trace("fan_out").await,
            send: of_trace("send").await,
            connection: collector
                .span("connection", |seen| seen.span.name == "connection")
                .await,
        }
    }

    fn are_related(&self) {
        for (child, parent) in [
            (&self.process, &self.publisher),
            (&self.decode, &self.process),
            (&self.project, &self.process),
            (&self.fan_out, &self.process),
            (&self.send, &self.fan_out),
        ] {
            assert_eq!(child.parent(), parent.id(), "{}", child.span.name);
        }
        assert_eq!(self.send.links(), [self.connection.id()]);
        assert_ne!(self.connection.trace(), self.process.trace());
    }

    fn are_of_their_kinds(&self) {
        for (seen, kind) in [
            (&self.publisher, SpanKind::Producer),
            (&self.process, SpanKind::Consumer),
            (&self.decode, SpanKind::Internal),
            (&self.project, SpanKind::Internal),
            (&self.fan_out, SpanKind::Internal),
            (&self.send, SpanKind::Producer),
            (&self.connection, SpanKind::Server),
        ] {
            assert_eq!(seen.span.kind, kind as i32, "{}", seen.span.name);
        }
    }

    fn say_what_was_published(&self, published: &Value, size: usize, id: &str) {
        let sequence = published["sequence"].to_string();
        for (key, want) in [
            ("messaging.system", "nats"),
            ("messaging.operation.name", "process"),
            ("messaging.operation.type", "process"),
            ("messaging.destination.name", "ws.acme.record.created"),
            (
                "messaging.destination.template",
                "ws.{workspace}.{category}.{name}",
            ),
            ("messaging.message.id", &format!("EVENTS:{sequence}")),
            ("messaging.message.body.size", &size.to_string()),
            ("messaging.nats.stream.name", "EVENTS"),
            ("messaging.nats.stream.sequence", &sequence),
            ("herald.workspace", "acme"),
            ("herald.notification.id", id),
            ("herald.event.repaired", ""),
            ("baggage.tenant", "t1"),
            ("baggage.secret", ""),
        ] {
            assert_eq!(self.process.attribute(key), want, "{key}");
        }
        assert!(self.process.number("herald.event.delay") >= 0.0);
        assert_eq!(self.fan_out.attribute("herald.fan_out.recipients"), "1");
        assert_eq!(self.fan_out.attribute("herald.workspace"), "acme");
        let send = &self.send;
        let times = send.number("herald.send.queue_wait") + send.number("herald.send.write_time");
        assert!(
            (times - send.took().as_secs_f64()).abs() < 0.001,
            "{send:?}"
        );
        assert_eq!(
            send.attribute("herald.session.id"),
            self.connection.attribute("herald.session.id")
        );
    }
}

async fn from_a_python_publisher_to_the_socket(protocol: &str) {
    let Scene {
        nats,
        collector,
        gateway,
        publisher: _publisher,
        mut ann,
    } = Scene::with(protocol, |gateway| {
        gateway
            .set("projection.traceparent", true)
            .set("telemetry.baggage", "tenant")
            .variable(
                "OTEL_RESOURCE_ATTRIBUTES",
                "deployment.environment.name=test",
            )
    })
    .await;
    let payload = json!({ "title": "hello" });
    let published = publish_traced(&nats, &collector, "ws.acme.record.created", &payload).await;
    let notification = ann.notification().await;
    // The publisher's header came to the client unchanged.
    let traceparent = &published["headers"]["traceparent"];
    assert_eq!(&notification["metadata"]["traceparent"], traceparent);
    let id = notification["id"].as_str().expect("an id");

    let trace = published["trace"].as_str().expect("an id");
    let whole = Whole::of(&collector, trace).await;
    assert_eq!(Value::from(whole.publisher.id()), published["span"]);
    whole.are_related();
    whole.are_of_their_kinds();
    whole.say_what_was_published(&published, payload.to_string().len(), id);

    let resource = collector.resource("herald").await;
    assert_eq!(resource["service.version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(resource["deployment.environment.name"], "test");
    assert!(!resource["service.instance.id"].is_empty());

    // The ids also stand in the log lines of the event.
    let line = gateway.logged("event fanned out").await;
    let line: Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!(line["trace_id"], trace);
    assert_eq!(line["span_id"], whole.process.id());
    assert_eq!(line["notification"], id);
}

/// Publishes with OpenTelemetry's SDK for Python; returns what `traced.py` printed.
async fn publish_traced(
    nats: &Nats,
    collector: &Collector,
    subject: &str,
    payload: &Value,
) -> Value {
    let script = std::path::Path::new(CLIENTS).join("traced.py");
    let mut command = tokio::process::Command::from(python());
    command
        .arg(script)
        .args([
            &nats.url(),
            subject,
            &payload.to_string(),
            "tenant=t1",
            "secret=s",
        ])
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", collector.http())
        .env("OTEL_SERVICE_NAME", "publisher");
    let output: Output = finish(command).await;
    output.ok().json()
}

#[tokio::test]
async fn gateways_share_the_trace_of_an_event_without_a_header_and_its_id_leads_there() {
    let nats = Nats::jetstream().await;
    let collector = Collector::start().await;
    let mut clients = Vec::new();
    let mut gateways = Vec::new();
    for user in ["ann", "bob"] {
        let gateway = Gateway::builder(&nats).variable("OTEL_SERVICE_NAME", user);
        let gateway = collector.exported(gateway, "http/protobuf").ready().await;
        clients.push(Client::join(&gateway, user, "acme").await);
        gateways.push(gateway);
    }
    let publisher = Publisher::on(&nats).await;
    publisher.event("acme.custom.x", &json!({})).await;
    let mut ids = BTreeSet::new();
    for client in &mut clients {
        ids.insert(client.notification().await["id"].to_string());
    }
    assert_eq!(ids.len(), 1);
    let id = ids.pop_first().expect("one");
    let trace = id
        .trim_matches('"')
        .trim_start_matches("notif_")
        .replace('-', "");
    for user in ["ann", "bob"] {
        let process = collector
            .span("process", |seen| {
                seen.service == user && seen.span.name == PROCESS
            })
            .await;
        assert_eq!(process.trace(), trace);
        assert_eq!(process.parent(), "", "it is a root");
    }
}

#[tokio::test]
async fn a_repaired_event_says_so_and_why() {
    let Scene {
        nats: _nats,
        collector,
        gateway,
        publisher,
        mut ann,
    } = Scene::exporting("grpc").await;
    let mut lost = 0;
    publisher
        .unheard("EVENTS", async || {
            lost = publisher.event("acme.custom.a", &json!({})).await
        })
        .await;
    publisher.event("acme.custom.a", &json!({})).await;
    ann.notifications(2).await;
    let process = collector
        .span("the repaired event", |seen| {
            seen.attribute("messaging.nats.stream.sequence") == lost.to_string()
        })
        .await;
    assert_eq!(process.attribute("herald.event.repaired"), "true");
    assert_eq!(process.attribute("herald.event.repair_reason"), "gap");
    let label = r#"reason="gap""#;
    gateway
        .metric_becomes("herald_events_repaired_total", label, 2.0)
        .await;
}

#[tokio::test]
async fn a_bad_events_span_has_an_error_and_where_its_dead_letter_stands() {
    let Scene {
        nats: _nats,
        collector,
        gateway: _gateway,
        publisher,
        ann: _ann,
    } = Scene::exporting("http/protobuf").await;
    let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let mut headers = HeaderMap::new();
    headers.insert("traceparent", traceparent);
    headers.insert("tracestate", "vendor=1");
    headers.insert("baggage", "tenant=t1");
    let sequence = publisher.raw("acme.custom.x", headers, "no json").await;
    let process = collector
        .span("process", |seen| seen.span.name == PROCESS)
        .await;
    let status = process.span.status.as_ref().expect("a status");
    assert_eq!(status.code, StatusCode::Error as i32);
    assert!(status.message.contains("not JSON"), "{status:?}");
    assert_eq!(process.attribute("error.type"), "json");
    assert_eq!(process.attribute("herald.dead_letter.outcome"), "published");
    assert_eq!(process.trace(), "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(process.span.trace_state, "vendor=1");

    // The letter goes on with the trace.
    let dead = publisher.context.get_stream("DEAD").await.expect("DEAD");
    let letter = dead
        .get_last_raw_message_by_subject(&format!("dead.acme.{sequence}"))
        .await
        .expect("the letter");
    let want = letter.sequence.to_string();
    assert_eq!(process.attribute("herald.dead_letter.sequence"), want);
    let publish = collector
        .span("publish", |seen| {
            seen.span.name.starts_with("publish dead.")
        })
        .await;
    assert_eq!(publish.parent(), process.id());
    let header = |name: &str| letter.headers.get(name).map(|value| value.to_string());
    let context = format!("00-{}-{}-01", publish.trace(), publish.id());
    assert_eq!(header("traceparent"), Some(context));
    assert_eq!(header("tracestate").as_deref(), Some("vendor=1"));
    assert_eq!(header("baggage").as_deref(), Some("tenant=t1"));
}

#[tokio::test]
async fn the_span_of_a_dead_letter_says_where_it_was_sent_and_what_became_of_it() {
    let Scene {
        nats,
        collector,
        gateway,
        publisher,
        ann: _ann,
    } = Scene::exporting("http/protobuf").await;
    let _bob = Client::join(&gateway, "bob", "globex").await;
    let bad = async |workspace: &str, outcome: &str| {
        let subject = format!("{workspace}.custom.x");
        let sequence = publisher.raw(&subject, HeaderMap::new(), "no json").await;
        let letter = format!("dead.{workspace}.{sequence}");
        let is_it = |seen: &Seen| seen.attribute("messaging.destination.name") == letter;
        let publish = collector.span("publish", is_it).await;
        let name = "publish dead.{workspace}.{sequence}";
        assert_eq!(publish.span.name, name, "{outcome}");
        assert_eq!(publish.span.kind, SpanKind::Producer as i32, "{outcome}");
        let template = "dead.{workspace}.{sequence}";
        for (key, want) in [
            ("messaging.system", "nats"),
            ("messaging.operation.name", "publish"),
            ("messaging.operation.type", "send"),
            ("messaging.destination.template", template),
            ("messaging.nats.stream.name", "DEAD"),
            ("herald.dead_letter.outcome", outcome),
        ] {
            assert_eq!(publish.attribute(key), want, "{outcome}: {key}");
        }
        // It is a child of the event's own, which is an error whatever becomes of the letter.
        let is_parent = |seen: &Seen| seen.id() == publish.parent();
        let process = collector.span("process", is_parent).await;
        assert_eq!(process.attribute("error.type"), "json", "{outcome}");
        assert_eq!(process.attribute("herald.dead_letter.outcome"), outcome);
        (publish, sequence)
    };
    let is_error = |seen: &Seen| {
        let status = seen.span.status.as_ref();
        status.is_some_and(|status| status.code == StatusCode::Error as i32)
    };
    let (published, sequence) = bad("acme", "published").await;
    assert_eq!(published.attribute("messaging.nats.stream.sequence"), "1");
    assert!(!is_error(&published), "{published:?}");

    // As if another gateway had been first.
    let next = format!("dead.acme.{}", sequence + 1);
    let ack = publisher.context.publish(next, "x".into()).await;
    ack.expect("it is sent").await.expect("it is stored");
    let (duplicate, _) = bad("acme", "duplicate").await;
    assert!(!is_error(&duplicate), "{duplicate:?}");

    let client = nats.connect().await;
    edit(&client, "DEAD", json!({ "max_msgs": 2 })).await;
    let (dropped, _) = bad("globex", "dropped").await;
    assert_eq!(dropped.attribute("messaging.nats.stream.sequence"), "");
    assert_eq!(dropped.attribute("error.type"), "dropped");
    assert!(is_error(&dropped), "{dropped:?}");
}

#[tokio::test]
async fn publish_begins_the_trace_and_listen_ends_it() {
    let nats = Nats::jetstream().await;
    let collector = Collector::start().await;
    let settings = Gateway::builder(&nats).set("projection.traceparent", true);
    let gateway = collector.exported(settings, "http/protobuf").ready().await;
    let mut listen = Gateway::without_nats()
        .variable("OTEL_EXPORTER_OTLP_ENDPOINT", collector.http())
        .variable("OTEL_BSP_SCHEDULE_DELAY", 50)
        .command(&["listen", "--url", &gateway.url(), "--workspace", "acme"]);
    listen.env("HERALD_TOKEN", token::token("ann", "acme"));
    listen
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    let mut listen = tokio::process::Command::from(listen)
        .kill_on_drop(true)
        .spawn()
        .expect("it starts");
    gateway.metric_becomes("herald_connections", "", 1.0).await;
    let endpoint = collector.http();
    let environment = [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str())];
    let published = herald(&nats, &environment, &["publish", "acme", "custom.x"]).await;
    let published = published.ok();
    assert_eq!(published.stdout, "EVENTS 1\n");
    let told = published.stderr.trim().strip_prefix("herald: trace ");
    let trace = told.expect("the trace id").to_owned();
    assert_eq!(trace.len(), 32);

    let of_trace = |name: &'static str| {
        let trace = trace.clone();
        move |seen: &Seen| seen.span.name == name && seen.trace() == trace
    };
    let publish = collector
        .span(
            "publish",
            of_trace("publish ws.{workspace}.{category}.{name}"),
        )
        .await;
    let process = collector.span("process", of_trace(PROCESS)).await;
    let receive = collector
        .span("receive", of_trace("receive notification"))
        .await;
    assert_eq!(
        (publish.service.as_str(), publish.parent().as_str()),
        ("herald-publish", "")
    );
    assert_eq!(process.parent(), publish.id());
    assert_eq!(receive.service, "herald-listen");
    assert_eq!(receive.parent(), publish.id());
    assert_eq!(publish.attribute("messaging.nats.stream.sequence"), "1");

    listen.start_kill().expect("it runs");
    let output = listen.wait_with_output().await.expect("its output");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains(&format!("trace {trace} of notif_")), "{told}");
}

#[tokio::test]
async fn of_a_fan_out_only_as_many_sends_are_traced_as_asked() {
    let nats = Nats::jetstream().await;
    let collector = Collector::start().await;
    let settings = Gateway::builder(&nats).set("telemetry.send_spans", 3);
    let gateway = collector.exported(settings, "http/protobuf").ready().await;
    let mut clients = Vec::new();
    for user in 0..10 {
        clients.push(Client::join(&gateway, &format!("u{user}"), "acme").await);
    }
    let publisher = Publisher::on(&nats).await;
    for _ in 0..20 {
        publisher.event("acme.custom.x", &json!({})).await;
    }
    for client in &mut clients {
        client.notifications(20).await;
    }
    let sends = async || {
        let spans = collector.spans().await;
        spans
            .into_iter()
            .filter(|seen| seen.span.name == "send")
            .collect::<Vec<_>>()
    };
    let all = eventually(PATIENCE, async || sends().await.len() == 20 * 3);
    assert!(all.await, "{} send spans", sends().await.len());
    let sockets: BTreeSet<String> = sends()
        .await
        .iter()
        .map(|seen| seen.attribute("herald.session.id"))
        .collect();
    assert_eq!(sockets.len(), 10, "each socket is seen now and then");
}

#[tokio::test]
async fn a_cloudevents_extension_is_the_parent_where_there_is_no_header() {
    let Scene {
        nats: _nats,
        collector,
        gateway: _gateway,
        publisher,
        mut ann,
    } = Scene::exporting("http/protobuf").await;
    let attributes = [
        ("specversion", "1.0"),
        ("id", "1"),
        ("source", "/s"),
        ("type", "t"),
    ];
    let extension = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let mut binary = HeaderMap::new();
    for (name, value) in attributes {
        binary.insert(format!("ce-{name}"), value);
    }
    binary.insert("ce-traceparent", extension);
    binary.insert("ce-tracestate", "a=1");
    let mut structured = HeaderMap::new();
    structured.insert("content-type", "application/cloudevents+json");
    let mut envelope = json!({ "data": {}, "traceparent": extension, "tracestate": "a=1" });
    for (name, value) in attributes {
        envelope[name] = value.into();
    }
    for (headers, payload) in [
        (binary, "{}".to_owned()),
        (structured, envelope.to_string()),
    ] {
        let sequence = publisher.raw("acme.custom.x", headers, payload).await;
        ann.notification().await;
        let process = collector
            .span("process", |seen| {
                seen.attribute("messaging.nats.stream.sequence") == sequence.to_string()
            })
            .await;
        assert_eq!(process.trace(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(process.parent(), "00f067aa0ba902b7");
        assert_eq!(process.span.trace_state, "a=1");
    }
}
