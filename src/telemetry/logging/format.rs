//! How a log line looks: JSON with everything at the top level, or text for people. Both carry the
//! ids of the span in whose context they were written, where that is recorded.

use std::fmt;

use opentelemetry::Context;
use opentelemetry::trace::TraceContextExt;
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::{Format, Full, Json, Writer, format};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// One line of either form.
pub(super) enum LineFormat {
    Json(Format<Json>),
    Text(Format<Full>),
}

impl LineFormat {
    /// No span is printed: none is opened for the log.
    pub(super) fn json() -> Self {
        let json = format().json().flatten_event(true);
        Self::Json(json.with_current_span(false).with_span_list(false))
    }

    pub(super) fn text(with_colours: bool) -> Self {
        Self::Text(format().with_ansi(with_colours))
    }
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
        let mut line = String::new();
        match self {
            Self::Json(json) => json.format_event(context, Writer::new(&mut line), event)?,
            Self::Text(text) => text.format_event(context, Writer::new(&mut line), event)?,
        }
        let Some((trace, span)) = ids() else {
            return writer.write_str(&line);
        };
        let line = line.trim_end_matches('\n');
        match self {
            Self::Json(_) => {
                let fields = line.strip_suffix('}').unwrap_or(line);
                writeln!(
                    writer,
                    r#"{fields},"trace_id":"{trace}","span_id":"{span}"}}"#
                )
            }
            Self::Text(_) => writeln!(writer, "{line} trace_id={trace} span_id={span}"),
        }
    }
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
