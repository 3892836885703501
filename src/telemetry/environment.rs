//! The `OTEL_*` variables that no crate reads: whether a signal is exported, and by which sampler traces are
//! recorded. All others the SDK and its exporters read themselves. Pure: variables in, settings and
//! warnings out.
//!
//! A wrong value is never an error: it is a warning that names the variable, and its default holds.

use std::collections::BTreeMap;

use super::sampler::{Root, Sampler};
use crate::word_enum::word_enum;

word_enum! {
    /// The three signals.
    pub(super) enum Signal {
        Traces = "traces",
        Metrics = "metrics",
        Logs = "logs",
    }
}

/// How one signal goes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Export {
    pub(super) signal: Signal,
    pub(super) transport: OtlpTransport,
}

/// OTLP's transports. The exporter's own default depends on the features that it is built with. Over gRPC and
/// TLS it trusts no certificate, unless it gets the system's roots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OtlpTransport {
    HttpProtobuf,
    Grpc { is_tls: bool },
}

/// All that is read here.
#[derive(Debug)]
pub(super) struct Environment {
    /// The signals that are exported.
    pub(super) exports: Vec<Export>,
    pub(super) sampler: Sampler,
    /// `OTEL_METRICS_EXEMPLAR_FILTER` other than `always_off`.
    pub(super) exemplars: bool,
    /// `OTEL_SERVICE_NAME`, which wins over the name in `OTEL_RESOURCE_ATTRIBUTES`.
    pub(super) service: Option<String>,
    /// One sentence for each value that is wrong.
    pub(super) warnings: Vec<String>,
}

impl Environment {
    /// Reads the process' own variables.
    pub(super) fn of_process() -> Self {
        // What is not UTF-8 is no value of any of these.
        Self::read(std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.to_string_lossy().into()))
        }))
    }

    /// Reads the given variables. An empty one counts as unset.
    pub(super) fn read(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let values = variables
            .into_iter()
            .filter(|(name, _)| name.starts_with("OTEL_"))
            .map(|(name, value)| (name, value.trim().to_owned()))
            .filter(|(_, value)| !value.is_empty());
        let mut vars = Variables {
            values: values.collect(),
            warnings: Vec::new(),
        };
        let disabled = vars.boolean("OTEL_SDK_DISABLED");
        let mut exports = Vec::new();
        for signal in Signal::ALL {
            if vars.is_wanted(signal) && !disabled {
                exports.push(vars.export(signal));
            }
        }
        Self {
            exports,
            sampler: vars.sampler(),
            exemplars: vars.get("OTEL_METRICS_EXEMPLAR_FILTER") != Some("always_off"),
            service: vars.get("OTEL_SERVICE_NAME").map(str::to_owned),
            warnings: vars.warnings,
        }
    }

    /// How `signal` goes out, if it does.
    pub(super) fn export(&self, signal: Signal) -> Option<Export> {
        self.exports
            .iter()
            .copied()
            .find(|export| export.signal == signal)
    }
}

/// The variables, and what was wrong with those looked at.
struct Variables {
    values: BTreeMap<String, String>,
    warnings: Vec<String>,
}

impl Variables {
    fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// Of the exporter's variables the signal's own where it is set, else the general one.
    fn of_exporter(&self, signal: Signal, rest: &str) -> Option<&str> {
        let signal = signal.as_str().to_ascii_uppercase();
        self.get(&format!("OTEL_EXPORTER_OTLP_{signal}_{rest}"))
            .or_else(|| self.get(&format!("OTEL_EXPORTER_OTLP_{rest}")))
    }

    /// Notes that the value of `name` is wrong, and what holds instead. The value is not quoted.
    fn wrong(&mut self, name: &str, what: &str, instead: &str) {
        self.warnings
            .push(format!("{name} {what}; {instead} is used instead"));
    }

    /// Only `true`, in any case, is true.
    fn boolean(&mut self, name: &str) -> bool {
        match self.get(name).map(str::to_ascii_lowercase).as_deref() {
            None | Some("false") => false,
            Some("true") => true,
            Some(_) => {
                self.wrong(name, "is neither true nor false", "false");
                false
            }
        }
    }

    /// Whether the signal is exported. The specification's default is yes, to localhost; without
    /// any of these variables there is no collector there, so here it is no until one is named.
    fn is_wanted(&mut self, signal: Signal) -> bool {
        let default = self.of_exporter(signal, "ENDPOINT").is_some();
        let name = format!("OTEL_{}_EXPORTER", signal.as_str().to_ascii_uppercase());
        let Some(list) = self.get(&name).map(str::to_owned) else {
            return default;
        };
        let mut wanted = false;
        for exporter in list.split(',').map(str::trim) {
            match (exporter, signal) {
                ("otlp", _) => wanted = true,
                // `/metrics` is always there.
                ("none", _) | ("prometheus", Signal::Metrics) => {}
                _ => {
                    let instead = if default { "otlp" } else { "none" };
                    self.wrong(&name, "has an exporter other than otlp and none", instead);
                    return default;
                }
            }
        }
        wanted
    }

    fn export(&self, signal: Signal) -> Export {
        let of = |rest| self.of_exporter(signal, rest).unwrap_or_default();
        let endpoint = of("ENDPOINT");
        let is_tls = if endpoint.contains("://") {
            endpoint.starts_with("https:")
        } else {
            !endpoint.is_empty() && !of("INSECURE").eq_ignore_ascii_case("true")
        };
        let transport = if of("PROTOCOL").eq_ignore_ascii_case("grpc") {
            OtlpTransport::Grpc { is_tls }
        } else {
            OtlpTransport::HttpProtobuf
        };
        Export { signal, transport }
    }

    fn sampler(&mut self) -> Sampler {
        const SAMPLER: &str = "OTEL_TRACES_SAMPLER";
        let Some(name) = self.get(SAMPLER).map(str::to_owned) else {
            return Sampler::default();
        };
        let (parent_based, rest) = match name.strip_prefix("parentbased_") {
            Some(rest) => (true, rest),
            None => (false, name.as_str()),
        };
        let root = match rest {
            "always_on" => Root::AlwaysOn,
            "always_off" => Root::AlwaysOff,
            "traceidratio" => Root::Ratio(self.ratio()),
            _ => {
                let what = "is none of always_on, always_off, traceidratio, alone or with parentbased_ before it";
                self.wrong(SAMPLER, what, "parentbased_always_on");
                return Sampler::default();
            }
        };
        Sampler { root, parent_based }
    }

    fn ratio(&mut self) -> f64 {
        const ARGUMENT: &str = "OTEL_TRACES_SAMPLER_ARG";
        let Some(text) = self.get(ARGUMENT) else {
            return 1.0;
        };
        match text.parse::<f64>() {
            Ok(ratio) if (0.0..=1.0).contains(&ratio) => ratio,
            _ => {
                self.wrong(ARGUMENT, "is not a number from 0 to 1", "1");
                1.0
            }
        }
    }
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
        const EVERYWHERE: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318");
        const ALL: &[Signal] = &Signal::ALL;
        for (variables, want) in [
            (
                &[("OTEL_SERVICE_NAME", "x"), ("OTEL_TRACES_EXPORTER", "")][..],
                &[][..],
            ),
            (&[EVERYWHERE], ALL),
            (
                &[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://c:4318/x")],
                &[Signal::Traces],
            ),
            (&[("OTEL_LOGS_EXPORTER", "otlp")], &[Signal::Logs]),
            (&[EVERYWHERE, ("OTEL_SDK_DISABLED", "TRUE")], &[]),
            (
                &[EVERYWHERE, ("OTEL_TRACES_EXPORTER", "none")],
                &[Signal::Metrics, Signal::Logs],
            ),
            (
                &[EVERYWHERE, ("OTEL_METRICS_EXPORTER", "prometheus")],
                &[Signal::Traces, Signal::Logs],
            ),
        ] {
            let found = read(variables);
            let signals: Vec<_> = found.exports.iter().map(|export| export.signal).collect();
            assert_eq!(signals, want, "{variables:?}");
            assert_eq!(found.warnings, Vec::<String>::new());
        }
    }

    #[test]
    fn over_grpc_and_tls_the_exporter_is_told_whom_to_trust() {
        let grpc = |is_tls| OtlpTransport::Grpc { is_tls };
        for (endpoint, protocol, insecure, want) in [
            ("https://c:4317", "grpc", "", grpc(true)),
            ("c:4317", "grpc", "", grpc(true)),
            ("c:4317", "grpc", "true", grpc(false)),
            ("http://c:4317", "GRPC", "", grpc(false)),
            ("", "grpc", "", grpc(false)),
            ("https://c:4318", "", "", OtlpTransport::HttpProtobuf),
            (
                "http://c:4318",
                "http/json",
                "",
                OtlpTransport::HttpProtobuf,
            ),
        ] {
            let found = read(&[
                ("OTEL_TRACES_EXPORTER", "otlp"),
                ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint),
                ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", protocol),
                ("OTEL_EXPORTER_OTLP_INSECURE", insecure),
            ]);
            let export = found.export(Signal::Traces).expect("it is wanted");
            assert_eq!(export.transport, want, "{endpoint} {protocol}");
        }
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
        for (name, value) in [
            ("OTEL_SDK_DISABLED", "s3cr3t"),
            ("OTEL_TRACES_SAMPLER", "s3cr3t"),
            ("OTEL_TRACES_SAMPLER", "parentbased_jaeger_remote"),
            ("OTEL_TRACES_EXPORTER", "zipkin,s3cr3t"),
            ("OTEL_METRICS_EXPORTER", "console"),
        ] {
            let found = read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c"), (name, value)]);
            let [warning] = found.warnings.as_slice() else {
                panic!("{name}={value}: {:?}", found.warnings);
            };
            assert!(warning.contains(name), "{warning}");
            assert!(!warning.contains("s3cr3t"), "{warning}");
            assert_eq!(found.sampler, Sampler::default());
            assert_eq!(found.exports.len(), 3);
        }
        let found = read(&[
            ("OTEL_TRACES_SAMPLER", "traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "1.5"),
        ]);
        assert_eq!(found.sampler.root, Root::Ratio(1.0));
        assert_eq!(found.warnings.len(), 1);
    }
}
