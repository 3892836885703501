//! What `/metrics` answers: the SDK's data in Prometheus' text format 0.0.4 or, for who asks for it,
//! in OpenMetrics 1.0, which alone has exemplars. Names are made as the specification
//! "Prometheus and OpenMetrics Compatibility" has it. Pure.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::UNIX_EPOCH;

use opentelemetry::KeyValue;
use opentelemetry_sdk::metrics::data::{
    AggregatedMetrics, Histogram, Metric, MetricData, ResourceMetrics,
};

use super::exemplars::Exemplar;

/// The format asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `text/plain; version=0.0.4`.
    Text,
    /// `application/openmetrics-text; version=1.0.0`.
    OpenMetrics,
}

impl Format {
    /// The one that a request's `Accept` prefers (RFC 9110, section 12.5.1); plain text in doubt.
    pub fn accepted(accept: &str) -> Self {
        let quality = |wanted: &str| {
            accept
                .split(',')
                .filter_map(|range| {
                    let mut parts = range.split(';').map(str::trim);
                    let is_wanted = parts.next()?.eq_ignore_ascii_case(wanted);
                    let quality = parts
                        .find_map(|part| part.strip_prefix("q="))
                        .map_or(Some(1.0), |text| text.parse::<f64>().ok())?;
                    is_wanted.then_some(quality)
                })
                .fold(None, |most: Option<f64>, one| {
                    Some(most.map_or(one, |most| most.max(one)))
                })
        };
        match quality("application/openmetrics-text") {
            Some(open) if open > 0.0 && open >= quality("text/plain").unwrap_or(0.0) => {
                Self::OpenMetrics
            }
            _ => Self::Text,
        }
    }

    /// The answer's `Content-Type`.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Writes everything; `exemplars` belong to the buckets of the metric `of`.
pub(super) fn write(
    metrics: &ResourceMetrics,
    format: Format,
    of: &str,
    exemplars: &[Option<Exemplar>],
) -> String {
    let mut out = Out {
        text: String::with_capacity(32 * 1024),
        format,
    };
    let attributes: Vec<KeyValue> = metrics
        .resource()
        .iter()
        .map(|(key, value)| KeyValue::new(key.clone(), value.clone()))
        .collect();
    out.head("target", "info", "", "What the metrics are of");
    out.sample("target_info", &labels(attributes.iter()), "1");
    for metric in metrics.scope_metrics().flat_map(|scope| scope.metrics()) {
        let exemplars = if metric.name() == of { exemplars } else { &[] };
        out.metric(metric, exemplars);
    }
    if format == Format::OpenMetrics {
        out.text.push_str("# EOF\n");
    }
    out.text
}

struct Out {
    text: String,
    format: Format,
}

impl Out {
    fn metric(&mut self, metric: &Metric, exemplars: &[Option<Exemplar>]) {
        let (name, unit) = name(metric.name(), metric.unit());
        let about = metric.description();
        match metric.data() {
            AggregatedMetrics::F64(data) => self.data(data, &name, unit, about, exemplars),
            AggregatedMetrics::U64(data) => self.data(data, &name, unit, about, exemplars),
            AggregatedMetrics::I64(data) => self.data(data, &name, unit, about, exemplars),
        }
    }

    fn data<T: Copy + std::fmt::Display>(
        &mut self,
        data: &MetricData<T>,
        name: &str,
        unit: &str,
        about: &str,
        exemplars: &[Option<Exemplar>],
    ) {
        match data {
            MetricData::Gauge(gauge) => {
                let name = gauge_name(name);
                self.head(&name, "gauge", unit, about);
                let points = gauge.data_points();
                self.samples(
                    &name,
                    points.map(|point| (point.attributes(), point.value())),
                );
            }
            MetricData::Sum(sum) => {
                let (kind, suffix) = match sum.is_monotonic() {
                    true => ("counter", "_total"),
                    false => ("gauge", ""),
                };
                self.head(name, kind, unit, about);
                let points = sum.data_points();
                let points = points.map(|point| (point.attributes(), point.value()));
                self.samples(&format!("{name}{suffix}"), points);
            }
            MetricData::Histogram(histogram) => {
                self.head(name, "histogram", unit, about);
                self.histogram(histogram, name, exemplars);
            }
            // No instrument here has one: the text formats cannot say it.
            MetricData::ExponentialHistogram(_) => {}
        }
    }

    /// `# TYPE`, `# UNIT`, `# HELP`. The text format 0.0.4 has the suffix of a sample in the family's
    /// name and no units.
    fn head(&mut self, name: &str, kind: &str, unit: &str, about: &str) {
        let family = match (self.format, kind) {
            (Format::Text, "counter") => format!("{name}_total"),
            (Format::Text, "info") => format!("{name}_info"),
            _ => name.to_owned(),
        };
        let kind = match (self.format, kind) {
            (Format::Text, "info") => "gauge",
            _ => kind,
        };
        let about = about.replace('\\', "\\\\").replace('\n', "\\n");
        // Writing to a string cannot fail, here and below.
        let _ = writeln!(self.text, "# HELP {family} {about}");
        let _ = writeln!(self.text, "# TYPE {family} {kind}");
        if self.format == Format::OpenMetrics && !unit.is_empty() {
            let _ = writeln!(self.text, "# UNIT {family} {unit}");
        }
    }

    fn samples<'a, T: std::fmt::Display>(
        &mut self,
        name: &str,
        points: impl Iterator<Item = (impl Iterator<Item = &'a KeyValue>, T)>,
    ) {
        for (attributes, value) in points {
            self.sample(name, &labels(attributes), &value.to_string());
        }
    }

    fn sample(&mut self, name: &str, labels: &str, value: &str) {
        let braces = if labels.is_empty() {
            String::new()
        } else {
            format!("{{{labels}}}")
        };
        let _ = writeln!(self.text, "{name}{braces} {value}");
    }

    fn histogram<T: Copy + std::fmt::Display>(
        &mut self,
        histogram: &Histogram<T>,
        name: &str,
        exemplars: &[Option<Exemplar>],
    ) {
        for point in histogram.data_points() {
            let labels = labels(point.attributes());
            let comma = if labels.is_empty() { "" } else { "," };
            let bounds = point
                .bounds()
                .map(|bound| self.bound(bound))
                .chain(["+Inf".to_owned()]);
            let mut count = 0;
            let mut lines = String::new();
            for (index, (bound, in_bucket)) in bounds.zip(point.bucket_counts()).enumerate() {
                count += in_bucket;
                let _ = write!(
                    lines,
                    "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {count}"
                );
                if let (Format::OpenMetrics, Some(Some(exemplar))) =
                    (self.format, exemplars.get(index))
                {
                    write_exemplar(&mut lines, exemplar);
                }
                lines.push('\n');
            }
            self.text.push_str(&lines);
            self.sample(&format!("{name}_sum"), &labels, &point.sum().to_string());
            self.sample(
                &format!("{name}_count"),
                &labels,
                &point.count().to_string(),
            );
        }
    }

    /// OpenMetrics has `le` as a canonical float, `1.0`.
    fn bound(&self, bound: f64) -> String {
        match self.format {
            Format::Text => bound.to_string(),
            Format::OpenMetrics => format!("{bound:?}"),
        }
    }
}

fn write_exemplar(lines: &mut String, exemplar: &Exemplar) {
    let time = exemplar.time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let _ = write!(
        lines,
        " # {{trace_id=\"{}\",span_id=\"{}\"}} {} {}.{:03}",
        exemplar.trace,
        exemplar.span,
        exemplar.value,
        time.as_secs(),
        time.subsec_millis()
    );
}

/// The name in Prometheus' alphabet with its unit at its end, and the unit.
fn name(otel: &str, unit: &str) -> (String, &'static str) {
    let plain: String = otel
        .chars()
        .map(|char| {
            if char.is_ascii_alphanumeric() || char == ':' {
                char
            } else {
                '_'
            }
        })
        .collect();
    let unit = match unit {
        "s" => "seconds",
        "By" => "bytes",
        // `{connection}` and the like are annotations.
        _ => "",
    };
    if unit.is_empty() || plain.ends_with(&format!("_{unit}")) {
        (plain, unit)
    } else {
        (format!("{plain}_{unit}"), unit)
    }
}

/// A gauge's name: `_count` at its end is a histogram's, so that `process_thread_count` becomes
/// `process_threads`.
fn gauge_name(name: &str) -> String {
    match name.strip_suffix("_count") {
        Some(counted) => format!("{counted}s"),
        None => name.to_owned(),
    }
}

/// Label pairs in the order of their names. Two keys that come to the same name are one label with
/// both values, as the specification has it.
fn labels<'a>(attributes: impl Iterator<Item = &'a KeyValue>) -> String {
    let mut pairs: BTreeMap<String, String> = BTreeMap::new();
    for attribute in attributes {
        let value = attribute.value.as_str();
        let value = value
            .replace('\\', "\\\\")
            .replace('\n', "\\n")
            .replace('"', "\\\"");
        pairs
            .entry(label(attribute.key.as_str()))
            .and_modify(|all| {
                all.push(';');
                all.push_str(&value);
            })
            .or_insert(value);
    }
    let pairs: Vec<String> = pairs
        .iter()
        .map(|(key, value)| format!("{key}=\"{value}\""))
        .collect();
    pairs.join(",")
}

/// A key in the alphabet of labels.
fn label(key: &str) -> String {
    let mut name = key.replace(
        |char: char| !char.is_ascii_alphanumeric() && char != '_',
        "_",
    );
    if name.starts_with(|char: char| char.is_ascii_digit()) {
        name.insert(0, '_');
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_the_one_that_accept_prefers() {
        let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
            application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
        for (accept, want) in [
            ("", Format::Text),
            ("*/*", Format::Text),
            ("text/html, application/xhtml+xml", Format::Text),
            (prometheus, Format::OpenMetrics),
            ("application/openmetrics-text", Format::OpenMetrics),
            ("application/openmetrics-text;q=0", Format::Text),
            (
                "application/openmetrics-text;q=0.1, text/plain",
                Format::Text,
            ),
            ("application/openmetrics-text;q=x", Format::Text),
        ] {
            assert_eq!(Format::accepted(accept), want, "{accept}");
        }
    }

    #[test]
    fn names_have_their_unit_once() {
        for (otel, unit, want) in [
            ("herald.delivery.bytes", "By", "herald_delivery_bytes"),
            ("herald.event.latency", "s", "herald_event_latency_seconds"),
            ("herald.rooms", "{room}", "herald_rooms"),
            ("herald.nats.connected", "", "herald_nats_connected"),
        ] {
            assert_eq!(name(otel, unit).0, want);
        }
    }

    #[test]
    fn a_labels_value_cannot_break_out() {
        let attributes = [
            KeyValue::new("b.c", "x\"} 1\nevil 2\\"),
            KeyValue::new("a", 1),
        ];
        assert_eq!(labels(attributes.iter()), r#"a="1",b_c="x\"} 1\nevil 2\\""#);
    }
}
