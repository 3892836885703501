//! The standard `OTEL_*` variables (OpenTelemetry specification, "Environment Variable
//! Specification" and "OTLP exporter"). Pure: variables in, settings and warnings out.
//!
//! A wrong value is never an error: it is a warning that names the variable, and its default holds.
//! No warning quotes what may hold a secret (endpoints, headers).

mod export;
mod variables;

use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry_sdk::metrics::Temporality;

pub(super) use self::export::{Export, Protocol, Signal};
use self::variables::Variables;
use super::sampler::{Root, Sampler};

/// The queue of a batch processor may hold so many at most: some 2 GB of spans.
const QUEUE_MAX: u64 = 1 << 20;

/// All that the variables say.
#[derive(Debug)]
pub(super) struct Environment {
    pub(super) traces: Option<Export>,
    pub(super) metrics: Option<Export>,
    pub(super) logs: Option<Export>,
    pub(super) sampler: Sampler,
    pub(super) span_batch: Batch,
    pub(super) log_batch: Batch,
    pub(super) span_limits: SpanLimits,
    /// `OTEL_METRIC_EXPORT_INTERVAL`.
    pub(super) metric_interval: Duration,
    pub(super) temporality: Temporality,
    /// `OTEL_METRICS_EXEMPLAR_FILTER` other than `always_off`.
    pub(super) exemplars: bool,
    pub(super) propagation: Propagation,
    /// `OTEL_RESOURCE_ATTRIBUTES` and `OTEL_SERVICE_NAME`.
    pub(super) resource: Vec<KeyValue>,
    /// One sentence for each value that is wrong or not supported.
    pub(super) warnings: Vec<String>,
}

/// `OTEL_BSP_*` and `OTEL_BLRP_*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Batch {
    pub(super) delay: Duration,
    pub(super) queue: usize,
    pub(super) batch: usize,
}

/// `OTEL_SPAN_*_COUNT_LIMIT`; `None` leaves the SDK's default of 128.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct SpanLimits {
    pub(super) attributes: Option<u32>,
    pub(super) events: Option<u32>,
    pub(super) links: Option<u32>,
}

/// `OTEL_PROPAGATORS`: what is taken from a message's headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Propagation {
    pub(super) trace_context: bool,
    pub(super) baggage: bool,
}

impl Environment {
    /// Reads the process' own variables.
    pub(super) fn of_process() -> Self {
        // What is not UTF-8 is no value of any of these.
        Self::read(std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.to_string_lossy().into()))
        }))
    }

    /// The signals that are exported, by name.
    pub(super) fn exported(&self) -> Vec<&'static str> {
        [
            ("traces", self.traces.is_some()),
            ("metrics", self.metrics.is_some()),
            ("logs", self.logs.is_some()),
        ]
        .into_iter()
        .filter_map(|(signal, is_wanted)| is_wanted.then_some(signal))
        .collect()
    }

    /// Reads the given variables. An empty one counts as unset.
    pub(super) fn read(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut vars = Variables::new(variables);
        let disabled = vars.boolean("OTEL_SDK_DISABLED");
        let mut export = |signal| {
            let export = Export::read(&mut vars, signal);
            export.filter(|_| !disabled)
        };
        let (traces, metrics, logs) = (
            export(Signal::Traces),
            export(Signal::Metrics),
            export(Signal::Logs),
        );
        Self {
            traces,
            metrics,
            logs,
            sampler: sampler(&mut vars),
            span_batch: batch(&mut vars, "OTEL_BSP", 5000),
            log_batch: batch(&mut vars, "OTEL_BLRP", 1000),
            span_limits: span_limits(&mut vars),
            metric_interval: vars.millis("OTEL_METRIC_EXPORT_INTERVAL", 60_000),
            temporality: temporality(&mut vars),
            exemplars: exemplars(&mut vars),
            propagation: propagation(&mut vars),
            resource: resource(&mut vars),
            warnings: vars.into_warnings(),
        }
    }
}

fn sampler(vars: &mut Variables) -> Sampler {
    const SAMPLER: &str = "OTEL_TRACES_SAMPLER";
    let Some(name) = vars.get(SAMPLER) else {
        return Sampler::default();
    };
    let (parent_based, rest) = match name.strip_prefix("parentbased_") {
        Some(rest) => (true, rest),
        None => (false, name.as_str()),
    };
    let root = match rest {
        "always_on" => Root::AlwaysOn,
        "always_off" => Root::AlwaysOff,
        "traceidratio" => Root::Ratio(ratio(vars)),
        _ => {
            vars.wrong(
                SAMPLER,
                "is none of always_on, always_off, traceidratio, alone or with parentbased_ before it",
                "parentbased_always_on",
            );
            return Sampler::default();
        }
    };
    Sampler { root, parent_based }
}

fn ratio(vars: &mut Variables) -> f64 {
    const ARGUMENT: &str = "OTEL_TRACES_SAMPLER_ARG";
    let Some(text) = vars.get(ARGUMENT) else {
        return 1.0;
    };
    match text.parse::<f64>() {
        Ok(ratio) if (0.0..=1.0).contains(&ratio) => ratio,
        _ => {
            vars.wrong(ARGUMENT, "is not a number from 0 to 1", "1");
            1.0
        }
    }
}

fn batch(vars: &mut Variables, prefix: &str, delay: u64) -> Batch {
    let name = |rest: &str| format!("{prefix}_{rest}");
    let queue = vars.number(&name("MAX_QUEUE_SIZE"), 2048, 1..=QUEUE_MAX);
    let most = name("MAX_EXPORT_BATCH_SIZE");
    let mut size = vars.number(&most, 512.min(queue), 1..=QUEUE_MAX);
    if size > queue {
        vars.wrong(
            &most,
            "is more than the queue holds",
            "the size of the queue",
        );
        size = queue;
    }
    // An export ends with its own time-out (OTEL_EXPORTER_OTLP_TIMEOUT).
    let _timeout = vars.millis(&name("EXPORT_TIMEOUT"), 30_000);
    let size_of = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    Batch {
        delay: vars.millis(&name("SCHEDULE_DELAY"), delay),
        queue: size_of(queue),
        batch: size_of(size),
    }
}

fn span_limits(vars: &mut Variables) -> SpanLimits {
    let general = vars.optional_u32("OTEL_ATTRIBUTE_COUNT_LIMIT");
    for name in [
        "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT",
        "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT",
    ] {
        if vars.get(name).is_some() {
            vars.wrong(name, "is not supported", "no limit");
        }
    }
    SpanLimits {
        attributes: vars
            .optional_u32("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT")
            .or(general),
        events: vars.optional_u32("OTEL_SPAN_EVENT_COUNT_LIMIT"),
        links: vars.optional_u32("OTEL_SPAN_LINK_COUNT_LIMIT"),
    }
}

fn temporality(vars: &mut Variables) -> Temporality {
    const NAME: &str = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE";
    match vars.get(NAME).map(|text| text.to_ascii_lowercase()) {
        None => Temporality::Cumulative,
        Some(text) => match text.as_str() {
            "cumulative" => Temporality::Cumulative,
            "delta" => Temporality::Delta,
            "lowmemory" => Temporality::LowMemory,
            _ => {
                vars.wrong(
                    NAME,
                    "is none of cumulative, delta, lowmemory",
                    "cumulative",
                );
                Temporality::Cumulative
            }
        },
    }
}

fn exemplars(vars: &mut Variables) -> bool {
    const NAME: &str = "OTEL_METRICS_EXEMPLAR_FILTER";
    match vars.get(NAME).as_deref() {
        // A measurement without a trace makes no exemplar here: there would be nothing to link to.
        None | Some("trace_based" | "always_on") => true,
        Some("always_off") => false,
        Some(_) => {
            vars.wrong(
                NAME,
                "is none of trace_based, always_on, always_off",
                "trace_based",
            );
            true
        }
    }
}

fn propagation(vars: &mut Variables) -> Propagation {
    const NAME: &str = "OTEL_PROPAGATORS";
    let all = Propagation {
        trace_context: true,
        baggage: true,
    };
    let Some(list) = vars.get(NAME) else {
        return all;
    };
    let mut found = Propagation {
        trace_context: false,
        baggage: false,
    };
    for name in list.split(',').map(str::trim) {
        match name {
            "tracecontext" => found.trace_context = true,
            "baggage" => found.baggage = true,
            "none" | "" => {}
            _ => {
                let what = "has a propagator that is none of tracecontext, baggage, none";
                vars.wrong(NAME, what, "tracecontext,baggage");
                return all;
            }
        }
    }
    found
}

fn resource(vars: &mut Variables) -> Vec<KeyValue> {
    let mut attributes: Vec<KeyValue> = vars
        .pairs("OTEL_RESOURCE_ATTRIBUTES")
        .into_iter()
        .map(|(key, value)| KeyValue::new(key, value))
        .collect();
    if let Some(name) = vars.get("OTEL_SERVICE_NAME") {
        // It wins over the attribute of the same name.
        attributes.retain(|attribute| attribute.key.as_str() != "service.name");
        attributes.push(KeyValue::new("service.name", name));
    }
    attributes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Environment {
        Environment::read(
            variables
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
        )
    }

    #[test]
    fn nothing_is_exported_until_somebody_says_where() {
        let off = read(&[("OTEL_SERVICE_NAME", "x"), ("OTEL_TRACES_EXPORTER", "")]);
        assert!(off.traces.is_none() && off.metrics.is_none() && off.logs.is_none());
        assert_eq!(off.warnings, Vec::<String>::new());
        let all = read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318")]);
        assert!(all.traces.is_some() && all.metrics.is_some() && all.logs.is_some());
        let one = read(&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://c:4318/x")]);
        assert_eq!(one.traces.unwrap().endpoint, "http://c:4318/x");
        assert!(one.metrics.is_none());
        let asked = read(&[("OTEL_LOGS_EXPORTER", "otlp")]);
        assert_eq!(
            asked.logs.unwrap().endpoint,
            "http://localhost:4318/v1/logs"
        );
        let disabled = read(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318"),
            ("OTEL_SDK_DISABLED", "TRUE"),
        ]);
        assert!(disabled.traces.is_none());
        let none = read(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318"),
            ("OTEL_TRACES_EXPORTER", "none"),
        ]);
        assert!(none.traces.is_none() && none.logs.is_some());
    }

    #[test]
    fn every_standard_sampler_is_known() {
        for (name, argument, want) in [
            ("always_on", "", (Root::AlwaysOn, false)),
            ("always_off", "", (Root::AlwaysOff, false)),
            ("traceidratio", "0.25", (Root::Ratio(0.25), false)),
            ("traceidratio", "", (Root::Ratio(1.0), false)),
            ("parentbased_always_on", "", (Root::AlwaysOn, true)),
            ("parentbased_always_off", "", (Root::AlwaysOff, true)),
            ("parentbased_traceidratio", "0", (Root::Ratio(0.0), true)),
        ] {
            let found = read(&[
                ("OTEL_TRACES_SAMPLER", name),
                ("OTEL_TRACES_SAMPLER_ARG", argument),
            ]);
            assert_eq!(
                (found.sampler.root, found.sampler.parent_based),
                want,
                "{name}"
            );
            assert_eq!(found.warnings, Vec::<String>::new());
        }
    }

    #[test]
    fn a_wrong_value_is_a_warning_that_names_it_and_its_default_holds() {
        let secret = "s3cr3t-in-a-value";
        for (name, value) in [
            ("OTEL_SDK_DISABLED", "maybe"),
            ("OTEL_TRACES_SAMPLER", "sometimes"),
            ("OTEL_TRACES_SAMPLER", "parentbased_jaeger_remote"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "99999999999999999999"),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4096"),
            ("OTEL_BLRP_SCHEDULE_DELAY", "-1"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "a minute"),
            ("OTEL_TRACES_EXPORTER", "zipkin"),
            ("OTEL_METRICS_EXPORTER", "console"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", secret),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "ftp://s3cr3t-in-a-value"),
            ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "10s"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "brotli"),
            ("OTEL_EXPORTER_OTLP_HEADERS", secret),
            ("OTEL_EXPORTER_OTLP_HEADERS", "bad name=s3cr3t-in-a-value"),
            ("OTEL_PROPAGATORS", "b3"),
            ("OTEL_RESOURCE_ATTRIBUTES", "a=b,c"),
            ("OTEL_METRICS_EXEMPLAR_FILTER", "all"),
            ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "both"),
            ("OTEL_SPAN_LINK_COUNT_LIMIT", "many"),
            ("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "5"),
        ] {
            let found = read(&[("OTEL_TRACES_EXPORTER", "otlp"), (name, value)]);
            let [warning] = found.warnings.as_slice() else {
                panic!("{name}={value}: {:?}", found.warnings);
            };
            assert!(warning.contains(name), "{warning}");
            assert!(!warning.contains(secret), "{warning}");
            assert_eq!(found.sampler, Sampler::default());
            assert!((1..=2048).contains(&found.span_batch.queue));
        }
        let found = read(&[
            ("OTEL_TRACES_SAMPLER", "traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "1.5"),
        ]);
        assert_eq!(found.sampler.root, Root::Ratio(1.0));
        assert_eq!(found.warnings.len(), 1);
    }

    #[test]
    fn the_service_name_wins_and_pairs_are_decoded() {
        let found = read(&[
            (
                "OTEL_RESOURCE_ATTRIBUTES",
                "service.name=a, deployment.environment.name=p%20q",
            ),
            ("OTEL_SERVICE_NAME", "b"),
        ]);
        let texts: Vec<String> = found
            .resource
            .iter()
            .map(|attribute| format!("{}={}", attribute.key, attribute.value))
            .collect();
        assert_eq!(texts, ["deployment.environment.name=p q", "service.name=b"]);
    }
}
