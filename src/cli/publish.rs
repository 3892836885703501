//! `herald publish`: one event, checked here as the gateway will check it, then stored.

use std::io::Read as _;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::header::{HeaderName, HeaderValue};
use bytes::Bytes;
use chrono::{SecondsFormat, Utc};
use uuid::Uuid;

use super::nats::NatsConnection;
use super::{CliError, output, traces};
use crate::config::{Config, names};
use crate::event::{EventName, PAYLOAD_MAX, WorkspaceSlug};
use crate::nats::{PubAck, publish_once, stream_of};
use crate::projection::Projector;
use crate::publishing::{self, cloudevent_value};
use crate::telemetry::trace_of;

/// How long the acknowledgement may take: an election of a new stream leader, and more.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Arguments of `herald publish`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "First the event is mapped as a gateway would map it, with projection.rules and the other settings of \
    [projection]. What a gateway would refuse is not published. A warning names each field that the rule does \
    not use.\n\n\
    Prints the stream and the sequence of the stored event, `EVENTS 42`, or `EVENTS 42 duplicate` if the \
    stream had it already. Every event gets a new W3C traceparent, unless --header gives one.\n\n\
    Examples:\n  \
    herald publish acme record.created '{\"collection\":\"orders\",\"recordId\":\"r1\"}'\n  \
    echo '{\"title\":\"Maintenance at ten\"}' | herald publish acme system.maintenance - --id m-7"
)]
pub(super) struct Args {
    /// The workspace's slug.
    #[arg(value_parser = WorkspaceSlug::parse)]
    workspace: WorkspaceSlug,
    /// What happened: <category>.<name>, such as record.created or custom.order_placed.
    #[arg(value_name = "CATEGORY.NAME", value_parser = parse_event)]
    event: EventName,
    /// The payload, a JSON object; `-` reads it from standard input.
    #[arg(value_name = "JSON", default_value = "{}")]
    payload: String,
    /// Your id of the event. A second event with the same id is dropped as a duplicate. It is sent as
    /// Nats-Msg-Id: `<workspace>:<ID>`.
    #[arg(long, value_parser = parse_id)]
    id: Option<String>,
    /// Publish it as a CloudEvent. Its id is --id, or a new UUID.
    #[arg(long)]
    cloudevent: bool,
    /// A header of the message. Repeat it for several.
    #[arg(long = "header", value_name = "NAME:VALUE", value_parser = parse_header)]
    headers: Vec<(HeaderName, HeaderValue)>,
    /// Print the notification as one line of JSON, and publish nothing. Its id is zeros, and so is its traceparent
    /// unless --header gives one. Its timestamp is now.
    #[arg(long)]
    dry_run: bool,
    /// Print the result as JSON: `{"stream":"EVENTS","sequence":42,"duplicate":false}`.
    #[arg(long, conflicts_with = "dry_run")]
    json: bool,
}

fn parse_event(text: &str) -> Result<EventName, String> {
    EventName::parse(text).map_err(|bad| bad.detail)
}

fn parse_id(text: &str) -> Result<String, String> {
    if text.is_empty() || text.chars().any(char::is_control) {
        return Err("an id is not empty and has no control characters".to_owned());
    }
    Ok(text.to_owned())
}

fn parse_header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text
        .split_once(':')
        .ok_or("a header is written NAME:VALUE")?;
    if name.is_empty() || name.to_ascii_lowercase().starts_with("nats-") {
        return Err("headers that begin with Nats- are NATS' own".to_owned());
    }
    let name = name.parse().map_err(|_| "this is not a header name")?;
    let value = value.trim().parse();
    Ok((name, value.map_err(|_| "a header's value is one line")?))
}

pub(super) async fn run(args: Args, config: Config) -> Result<(), CliError> {
    let projector =
        Projector::from_config(&config.projection, &config.nats.stream).map_err(CliError::usage)?;
    let payload = payload(&args.payload)?;
    let subject = names::event(&args.workspace, &args.event);
    let mut headers = headers(&args);
    let message = publishing::message(&subject, headers.clone(), payload.clone());
    let preview = publishing::preview(&projector, &message)
        .map_err(|refused| CliError::Usage(refused.to_string()))?;
    let warnings = preview.warnings.into_iter();
    output::messages(warnings.map(|warning| format!("warning: {warning}")));
    if args.dry_run {
        eprintln!(
            "herald: nothing is published. An event gets its id and timestamp when it is stored: here they are zeros \
                and the time now"
        );
        return output::lines([preview.notification]);
    }
    let traces = traces::start("herald-publish");
    let publication =
        (!gives_traceparent(&args)).then(|| traces.publish(&subject, payload.len(), &mut headers));
    let trace = trace_of(&headers);
    let stored_under = config.nats.names().subject(&subject);
    let ack = store(&args, &config, &stored_under, headers, payload).await;
    if let Some(publication) = publication {
        match &ack {
            Ok(ack) => publication.stored(&ack.stream, ack.sequence),
            Err(error) => publication.failed(&error.to_string()),
        }
    }
    traces::end(&traces).await;
    let ack = ack?;
    if let Some(trace) = &trace {
        eprintln!("herald: trace {trace}");
    }
    let line = match (args.json, ack.duplicate) {
        (true, duplicate) => format!(
            r#"{{"stream":{},"sequence":{},"duplicate":{duplicate}}}"#,
            serde_json::Value::from(ack.stream),
            ack.sequence
        ),
        (false, false) => format!("{} {}", ack.stream, ack.sequence),
        (false, true) => format!("{} {} duplicate", ack.stream, ack.sequence),
    };
    output::lines([line])
}

/// Stores the event. Before that it checks that an answer can come back: without one, a stored event would be
/// reported as one that failed.
async fn store(
    args: &Args,
    config: &Config,
    subject: &str,
    headers: HeaderMap,
    payload: Bytes,
) -> Result<PubAck, CliError> {
    let mut nats = NatsConnection::open(&config.nats, "herald publish").await?;
    let client = nats.client.clone();
    let not_stored = |why: String| CliError::Failure(publishing::not_stored(why));
    let stream = nats
        .allowed(stream_of(&client, subject.to_owned(), TIMEOUT))
        .await?
        .map_err(|error| not_stored(nats.publish_failure(subject, &error)))?;
    let names = config.nats.names();
    // An account that imports the subject from Herald's need not have the same names.
    if stream != names.events() {
        eprintln!(
            "herald: warning: the stream {stream} stores {subject}, and with these settings it would be {}. \
                Only gateways that read {stream} see the event. Check nats.stream and nats.prefix, unless this \
                account imports the subject from theirs",
            names.events()
        );
    }
    let publishing = publish_once(&client, subject, headers, payload, TIMEOUT);
    match nats.allowed(publishing).await {
        Ok(Ok(ack)) => Ok(ack),
        Ok(Err(error)) if !error.may_be_stored() => Err(not_stored(error.to_string())),
        Ok(Err(error)) => Err(unsure(args, config, &error)),
        // It was allowed a moment ago.
        Err(error) => Err(unsure(args, config, &error)),
    }
}

/// The event was sent, and nobody knows whether it is stored.
fn unsure(args: &Args, config: &Config, error: &dyn std::error::Error) -> CliError {
    let hosts = config.nats.hosts();
    let way = match &args.id {
        Some(id) => format!(
            "publish it again with --id {id}: within two minutes, or nats.max_age where that is shorter, a second \
             one is dropped"
        ),
        None => format!(
            "`herald replay --workspace {}` shows whether it is. With --id an event can be published again safely",
            args.workspace
        ),
    };
    CliError::Failure(publishing::unsure(format!("{error} ({hosts})"), &way))
}

/// The payload as given, or standard input as far as it can be taken.
fn payload(argument: &str) -> Result<Bytes, CliError> {
    if argument != "-" {
        return Ok(Bytes::from(argument.to_owned()));
    }
    let mut bytes = Vec::new();
    // One byte more than allowed is enough to know.
    let most = u64::try_from(PAYLOAD_MAX + 1).unwrap_or(u64::MAX);
    // Blocking is right: nothing else goes on yet.
    std::io::stdin()
        .take(most)
        .read_to_end(&mut bytes)
        .map_err(|error| CliError::Failure(format!("cannot read standard input: {error}")))?;
    Ok(bytes.into())
}

fn headers(args: &Args) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in &args.headers {
        headers.append(name.clone(), value.clone());
    }
    if let Some(id) = &args.id {
        // Streams deduplicate across all their subjects, so that an id needs its workspace.
        headers.insert("Nats-Msg-Id", format!("{}:{id}", args.workspace));
    }
    if args.cloudevent {
        let id = args.id.clone();
        let id = id.unwrap_or_else(|| Uuid::new_v4().to_string());
        let time = Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true);
        for (name, value) in [
            ("ce-specversion", "1.0".to_owned()),
            ("ce-id", id),
            ("ce-source", format!("/herald/publish/{}", args.workspace)),
            ("ce-type", args.event.to_string()),
            ("ce-time", time),
            ("ce-datacontenttype", "application/json".to_owned()),
        ] {
            headers.append(name, cloudevent_value(&value));
        }
    }
    headers
}

fn gives_traceparent(args: &Args) -> bool {
    args.headers
        .iter()
        .any(|(name, _)| AsRef::<str>::as_ref(name).eq_ignore_ascii_case("traceparent"))
}

#[cfg(test)]
mod tests {
    use clap::{Args as _, FromArgMatches as _};

    use super::*;
    use crate::config::ProjectionConfig;
    use crate::publishing::Preview;

    fn parsed(arguments: &[&str]) -> Result<Args, clap::Error> {
        let command = Args::augment_args(clap::Command::new("publish").no_binary_name(true));
        Args::from_arg_matches(&command.try_get_matches_from(arguments)?)
    }

    /// What would be seen of what `arguments` would publish.
    fn checked(arguments: &[&str]) -> Result<Preview, String> {
        let args = parsed(arguments).map_err(|error| error.to_string())?;
        let subject = names::event(&args.workspace, &args.event);
        let message = publishing::message(&subject, headers(&args), args.payload.into());
        let projector = Projector::from_config(&ProjectionConfig::default(), "EVENTS").unwrap();
        publishing::preview(&projector, &message).map_err(|refused| refused.to_string())
    }

    #[test]
    fn what_its_rule_makes_nothing_of_is_warned_of() {
        let warned = |event: &str, payload: &str| {
            let preview = checked(&["acme", event, payload]);
            preview.unwrap().warnings
        };
        let unused: [&[&str]; 1] = [&[]];
        for (event, payload, want) in [
            (
                "custom.x",
                r#"{"title":"T","metadata":{"a":1},"recipients":[]}"#,
                unused[0],
            ),
            (
                "custom.x",
                r#"{"titel":"T"}"#,
                &["field `titel`: did you mean `title`?"],
            ),
            (
                "custom.x",
                r#"{"Message":"M"}"#,
                &["did you mean `message`?"],
            ),
            (
                "custom.x",
                r#"{"amount":1}"#,
                &["field `amount`: put it into `metadata`"],
            ),
            (
                "record.created",
                r#"{"collection":"c","recordId":"r"}"#,
                &[],
            ),
            (
                "record.created",
                r#"{"recordID":"r"}"#,
                &["did you mean `recordId`?"],
            ),
        ] {
            let warned = warned(event, payload);
            assert_eq!(warned.len(), want.len(), "{payload}: {warned:?}");
            for (warned, want) in warned.iter().zip(want) {
                assert!(warned.contains(want), "{payload}: {warned}");
            }
        }
        let many: Vec<String> = (0..200).map(|n| format!("\"amount{n}\":1")).collect();
        let warned = warned("custom.x", &format!("{{{}}}", many.join(",")));
        assert_eq!((warned.len(), warned[10].as_str()), (11, "and of 190 more"));
    }

    #[test]
    fn a_dry_run_shows_zeros_for_what_the_store_gives() {
        let shown = checked(&["acme", "custom.x", r#"{"title":"T"}"#]).unwrap();
        let prefix = r#"{"id":"notif_00000000-0000-0000-0000-000000000000","title":"T","#;
        assert!(shown.notification.starts_with(prefix), "{shown:?}");
    }

    #[test]
    fn what_a_gateway_would_not_take_is_refused_here() {
        for good in [
            &["acme", "record.created"][..],
            &[
                "acme",
                "custom.x",
                r#"{"title":"T"}"#,
                "--id",
                "é 1",
                "--cloudevent",
            ],
            &[
                "acme",
                "custom.x",
                "--header",
                "X-Team: a:b",
                "--header",
                "X-Team: c",
            ],
        ] {
            checked(good).unwrap();
        }
        for (bad, want) in [
            (&["acmé", "record.created"][..], "slug"),
            (&["acme", "record"], "subject"),
            (&["acme", "record.create"], "created, updated"),
            (&["acme", "orders.created"], "category"),
            (&["acme", "custom.x", "{"], "not JSON"),
            (&["acme", "custom.x", "[]"], "not an object"),
            (
                &["acme", "custom.x", r#"{"recipients":null}"#],
                "recipients",
            ),
            (&["acme", "custom.x", "--id", ""], "empty"),
            (&["acme", "custom.x", "--id", "a\nb"], "control"),
            (&["acme", "custom.x", "--header", "x"], "NAME:VALUE"),
            (&["acme", "custom.x", "--header", "Nats-TTL: 1"], "NATS"),
            (&["acme", "custom.x", "--header", "a b: 1"], "header name"),
            (&["acme", "custom.x", "--header", "ce-id: 1"], "specversion"),
            (
                &["acme", "custom.x", "--cloudevent", "--header", "CE-id: 1"],
                "twice",
            ),
        ] {
            let error = checked(bad).unwrap_err();
            assert!(error.contains(want), "{bad:?}: {error}");
        }
    }

    #[test]
    fn an_id_is_the_workspaces_own_and_a_trace_is_new_unless_it_is_given() {
        let header = |args: &Args, name: &str| {
            let headers = headers(args);
            headers.get(name).map(|value| value.as_str().to_owned())
        };
        let args = parsed(&["acme", "custom.x", "--id", "ö 1", "--cloudevent"]).unwrap();
        assert_eq!(header(&args, "Nats-Msg-Id").unwrap(), "acme:ö 1");
        assert_eq!(header(&args, "ce-id").unwrap(), "%C3%B6%201");
        assert!(!gives_traceparent(&args));
        let args = parsed(&["acme", "custom.x", "--header", "Traceparent: mine"]).unwrap();
        assert!(gives_traceparent(&args));
        assert_eq!(header(&args, "Nats-Msg-Id"), None);
    }
}
