//! One trace from the publisher's span to the write on a socket, as somebody else's collector has it.

use serde_json::Value;

use crate::support::client::Client;
use crate::support::command::herald;
use crate::support::gateway::Gateway;
use crate::support::jaeger::Jaeger;
use crate::support::nats::Nats;
use crate::support::{PATIENCE, eventually};

/// The name of what `span` is below.
fn parent<'a>(spans: &'a [Value], span: &Value) -> Option<&'a str> {
    let reference = &span["references"][0];
    assert_eq!(reference["refType"], "CHILD_OF");
    let mut all = spans.iter();
    all.find(|one| one["spanID"] == reference["spanID"])?["operationName"].as_str()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_jaeger_has_the_whole_trace_of_an_event_over_tls() {
    let Some(jaeger) = Jaeger::start().await else {
        return;
    };
    let nats = Nats::jetstream().await;
    for protocol in ["grpc", "http/protobuf"] {
        let variables = jaeger.variables(protocol);
        let builder = variables
            .iter()
            .fold(Gateway::builder(&nats), |gateway, (name, value)| {
                gateway.variable(name, value)
            });
        let gateway = builder.ready().await;
        let mut ann = Client::join(&gateway, "ann", "acme").await;
        let environment: Vec<_> = variables
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        let published = herald(&nats, &environment, &["publish", "acme", "custom.x"]).await;
        ann.notification().await;
        let told = published.ok().stderr;
        let trace = told.trim().strip_prefix("herald: trace ");
        let trace = trace.expect("the trace id");
        let below = [
            (
                "process ws.{workspace}.{category}.{name}",
                "publish ws.{workspace}.{category}.{name}",
            ),
            ("decode", "process ws.{workspace}.{category}.{name}"),
            ("project", "process ws.{workspace}.{category}.{name}"),
            ("fan_out", "process ws.{workspace}.{category}.{name}"),
            ("send", "fan_out"),
        ];
        let whole = eventually(PATIENCE, async || jaeger.spans(trace).await.len() == 6);
        let is_whole = whole.await;
        let spans = jaeger.spans(trace).await;
        assert!(is_whole, "{protocol}: {spans:#?}\n{}", gateway.output());
        for (name, above) in below {
            let span = spans.iter().find(|span| span["operationName"] == name);
            let span = span.unwrap_or_else(|| panic!("no {name} in {spans:#?}"));
            assert_eq!(parent(&spans, span), Some(above), "{name}");
        }
    }
}
