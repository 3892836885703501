//! A publisher's trace context that is none harms nothing: the event is delivered, and its trace is
//! a new one.

use async_nats::HeaderMap;

use super::Scene;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

struct Case {
    headers: Vec<(&'static str, String)>,
    /// Whether the publisher's trace is gone on with.
    follows: bool,
    state: &'static str,
}

type Headers<'a> = &'a [(&'static str, &'a str)];

fn case(follows: bool, state: &'static str, headers: Headers<'_>) -> Case {
    let headers = headers.iter();
    Case {
        headers: headers
            .map(|(name, value)| (*name, (*value).to_owned()))
            .collect(),
        follows,
        state,
    }
}

/// No context: a new trace begins.
fn none() -> Vec<Case> {
    let new = |headers: Headers<'_>| case(false, "", headers);
    let zero_trace = "00-00000000000000000000000000000000-00f067aa0ba902b7-01";
    let zero_span = "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01";
    let long = format!("{GOOD}{}", "0".repeat(50 * 1024));
    let other = GOOD.replace("4bf9", "4bf8");
    vec![
        new(&[("traceparent", "x")]),
        new(&[("traceparent", "")]),
        new(&[("traceparent", &GOOD.to_uppercase())]),
        new(&[("traceparent", zero_trace)]),
        new(&[("traceparent", zero_span)]),
        new(&[("traceparent", &format!("{GOOD}-and-more"))]),
        new(&[("traceparent", &long)]),
        new(&[("traceparent", &GOOD.replacen("00", "ff", 1))]),
        new(&[("traceparent", &GOOD.replacen("00", "01", 1))]),
        new(&[("traceparent", GOOD), ("traceparent", GOOD)]),
        new(&[("traceparent", GOOD), ("Traceparent", &other)]),
        new(&[("tracestate", "vendor=1")]),
    ]
}

/// A context with something beside it that may be none: the publisher's trace goes on.
fn followed() -> Vec<Case> {
    let follows = |state, (name, value): (&'static str, &str)| {
        case(true, state, &[("traceparent", GOOD), (name, value)])
    };
    let long_state = format!("vendor={}", "x".repeat(10 * 1024));
    let many: String = (0..40).map(|number| format!("k{number}=v,")).collect();
    let cloudevent = [
        ("ce-specversion", "1.0"),
        ("ce-id", "1"),
        ("ce-source", "/s"),
        ("ce-type", "t"),
        ("ce-traceparent", GOOD),
        ("ce-tracestate", &long_state),
    ];
    vec![
        follows("", ("x", "y")),
        follows("a=1,b=2", ("tracestate", "a=1,b=2")),
        follows("", ("tracestate", &long_state)),
        follows("", ("tracestate", "no state at all")),
        follows("?", ("tracestate", &many)),
        follows("", ("baggage", &long_state)),
        follows("", ("baggage", "=,;=;,%%%=%FF,\u{1}=\u{2}")),
        case(true, "", &cloudevent),
    ]
}

#[tokio::test]
async fn a_context_that_is_none_begins_a_new_trace_and_harms_nothing() {
    let Scene {
        nats: _nats,
        collector,
        gateway: _gateway,
        publisher,
        mut ann,
    } = Scene::with("http/protobuf", |gateway| {
        gateway
            .set("projection.traceparent", true)
            .set("telemetry.baggage", "tenant")
    })
    .await;
    for (index, case) in none().into_iter().chain(followed()).enumerate() {
        let mut headers = HeaderMap::new();
        for (name, value) in &case.headers {
            headers.append(*name, value.as_str());
        }
        let sequence = publisher
            .raw("acme.custom.x", headers, "{}")
            .await
            .to_string();
        let notification = ann.notification().await;
        let id = notification["id"].as_str().expect("an id");
        let derived = id.trim_start_matches("notif_").replace('-', "");
        let process = collector
            .span("process", |seen| {
                seen.attribute("messaging.nats.stream.sequence") == sequence
            })
            .await;
        let given = notification["metadata"]["traceparent"]
            .as_str()
            .expect("a text");
        if case.follows {
            assert_eq!(process.trace(), TRACE, "case {index}");
            assert_eq!(process.parent(), "00f067aa0ba902b7", "case {index}");
            assert_eq!(given, GOOD, "case {index}");
            if case.state != "?" {
                assert_eq!(process.span.trace_state, case.state, "case {index}");
            }
        } else {
            assert_eq!(process.trace(), derived, "case {index}");
            assert_eq!(process.parent(), "", "case {index}");
            assert_eq!(
                given.split('-').nth(1),
                Some(derived.as_str()),
                "case {index}"
            );
        }
    }
}
