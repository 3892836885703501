//! How a log line looks: JSON with everything at the top level, or text for people. Both carry the
//! ids of the span in whose context they were written, where that is recorded.

use std::fmt;

use chrono::{SecondsFormat, Utc};
use opentelemetry::Context;
use opentelemetry::trace::TraceContextExt;
use serde::{Serialize, Serializer};
use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::{Format, Full, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// One line of either form.
pub(super) enum LineFormat {
    Json,
    Text(Format<Full>),
}

impl<S, N> FormatEvent<S, N> for LineFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        match self {
            Self::Json => writeln!(writer, "{}", json(event)),
            Self::Text(format) => {
                let mut line = String::new();
                format.format_event(context, Writer::new(&mut line), event)?;
                match ids() {
                    Some((trace, span)) => {
                        let line = line.trim_end_matches('\n');
                        writeln!(writer, "{line} trace_id={trace} span_id={span}")
                    }
                    None => writer.write_str(&line),
                }
            }
        }
    }
}

/// A line of JSON, its parts in the order in which they are read.
struct JsonLine(Vec<(&'static str, Value)>);

impl Serialize for JsonLine {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| (key, value)))
    }
}

fn json(event: &Event<'_>) -> String {
    let now = Utc::now().to_rfc3339_opts(SecondsFormat::Micros, true);
    let metadata = event.metadata();
    let mut line = JsonLine(vec![
        ("timestamp", now.into()),
        ("level", metadata.level().as_str().into()),
    ]);
    event.record(&mut Fields(&mut line.0));
    line.0.push(("target", metadata.target().into()));
    if let Some((trace, span)) = ids() {
        line.0.push(("trace_id", trace.into()));
        line.0.push(("span_id", span.into()));
    }
    // Strings and numbers always serialize.
    serde_json::to_string(&line).unwrap_or_default()
}

/// The recorded span that is current.
fn ids() -> Option<(String, String)> {
    Context::map_current(|context| {
        let span = context.span();
        let ids = span.span_context();
        (ids.is_valid() && ids.is_sampled())
            .then(|| (ids.trace_id().to_string(), ids.span_id().to_string()))
    })
}

struct Fields<'a>(&'a mut Vec<(&'static str, Value)>);

impl Fields<'_> {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.push((field.name(), value.into()));
    }
}

impl Visit for Fields<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }
}
