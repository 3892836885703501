//! `OTEL_EXPORTER_OTLP_*`: where a signal goes and how.

use std::path::PathBuf;
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, Uri};

use super::Variables;
use crate::config::Secret;

/// The three signals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::telemetry) enum Signal {
    Traces,
    Metrics,
    Logs,
}

impl Signal {
    const fn name(self) -> &'static str {
        match self {
            Self::Traces => "TRACES",
            Self::Metrics => "METRICS",
            Self::Logs => "LOGS",
        }
    }

    const fn path(self) -> &'static str {
        match self {
            Self::Traces => "v1/traces",
            Self::Metrics => "v1/metrics",
            Self::Logs => "v1/logs",
        }
    }
}

/// OTLP's transports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::telemetry) enum Protocol {
    Grpc,
    HttpProtobuf,
}

/// Where one signal goes.
#[derive(Debug, Clone)]
pub(in crate::telemetry) struct Export {
    pub(in crate::telemetry) protocol: Protocol,
    /// A URL: over HTTP the whole one, over gRPC the server's.
    pub(in crate::telemetry) endpoint: String,
    pub(in crate::telemetry) headers: Vec<(String, Secret)>,
    pub(in crate::telemetry) timeout: Duration,
    pub(in crate::telemetry) gzip: bool,
    /// PEM file of the authorities to trust instead of the system's.
    pub(in crate::telemetry) certificate: Option<PathBuf>,
    /// PEM files of the client's own certificate and its key.
    pub(in crate::telemetry) client: Option<(PathBuf, PathBuf)>,
}

impl Export {
    /// `None` where the signal is not exported: nobody said where or that it is.
    pub(super) fn read(vars: &mut Variables, signal: Signal) -> Option<Self> {
        if !is_wanted(vars, signal) {
            return None;
        }
        let protocol = protocol(vars, signal);
        Some(Self {
            protocol,
            endpoint: endpoint(vars, signal, protocol),
            headers: headers(vars, signal),
            timeout: {
                let (name, _) = choose(vars, signal, "TIMEOUT");
                vars.millis(&name, 10_000)
            },
            gzip: gzip(vars, signal),
            certificate: choose(vars, signal, "CERTIFICATE").1.map(PathBuf::from),
            client: client(vars, signal),
        })
    }
}

/// The signal's own variable where it is set, else the general one: name and value.
fn choose(vars: &Variables, signal: Signal, rest: &str) -> (String, Option<String>) {
    let own = format!("OTEL_EXPORTER_OTLP_{}_{rest}", signal.name());
    match vars.get(&own) {
        Some(value) => (own, Some(value)),
        None => {
            let general = format!("OTEL_EXPORTER_OTLP_{rest}");
            let value = vars.get(&general);
            (general, value)
        }
    }
}

/// Whether the signal is exported. The specification's default is yes, to localhost; whoever sets
/// none of these variables has no collector there, so here it is no until one is named.
fn is_wanted(vars: &mut Variables, signal: Signal) -> bool {
    let default = choose(vars, signal, "ENDPOINT").1.is_some();
    let name = format!("OTEL_{}_EXPORTER", signal.name());
    let Some(list) = vars.get(&name) else {
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
                let what = "has an exporter other than otlp and none";
                vars.wrong(&name, what, instead);
                return default;
            }
        }
    }
    wanted
}

fn protocol(vars: &mut Variables, signal: Signal) -> Protocol {
    match choose(vars, signal, "PROTOCOL") {
        (_, None) => Protocol::HttpProtobuf,
        (name, Some(text)) => match text.as_str() {
            "grpc" => Protocol::Grpc,
            "http/protobuf" => Protocol::HttpProtobuf,
            _ => {
                vars.wrong(&name, "is neither grpc nor http/protobuf", "http/protobuf");
                Protocol::HttpProtobuf
            }
        },
    }
}

fn endpoint(vars: &mut Variables, signal: Signal, protocol: Protocol) -> String {
    let default = match protocol {
        Protocol::Grpc => "http://localhost:4317".to_owned(),
        Protocol::HttpProtobuf => format!("http://localhost:4318/{}", signal.path()),
    };
    let (name, Some(mut text)) = choose(vars, signal, "ENDPOINT") else {
        return default;
    };
    if protocol == Protocol::Grpc && !text.contains("://") {
        let (insecure, _) = choose(vars, signal, "INSECURE");
        let scheme = if vars.boolean(&insecure) {
            "http"
        } else {
            "https"
        };
        text = format!("{scheme}://{text}");
    }
    let is_url = text.parse::<Uri>().is_ok_and(|uri| {
        uri.host().is_some_and(|host| !host.is_empty())
            && matches!(uri.scheme_str(), Some("http" | "https"))
    });
    if !is_url {
        let what = "is not a URL such as http://collector:4318";
        vars.wrong(&name, what, "a collector on localhost");
        return default;
    }
    let is_general = name == "OTEL_EXPORTER_OTLP_ENDPOINT";
    match protocol {
        // The signal's own is used as it is ("OTLP exporter", "Endpoint URLs for OTLP/HTTP").
        Protocol::HttpProtobuf if is_general => {
            format!("{}/{}", text.trim_end_matches('/'), signal.path())
        }
        Protocol::HttpProtobuf | Protocol::Grpc => text,
    }
}

fn headers(vars: &mut Variables, signal: Signal) -> Vec<(String, Secret)> {
    let (name, _) = choose(vars, signal, "HEADERS");
    let mut headers = Vec::new();
    for (key, value) in vars.pairs(&name) {
        let is_header = HeaderName::try_from(&key).is_ok() && HeaderValue::try_from(&value).is_ok();
        if is_header {
            headers.push((key, Secret::from(value.as_str())));
        } else {
            let what = "has an entry that is no header";
            vars.wrong(&name, what, "what is right in it");
        }
    }
    headers
}

fn gzip(vars: &mut Variables, signal: Signal) -> bool {
    match choose(vars, signal, "COMPRESSION") {
        (_, None) => false,
        (name, Some(text)) => match text.as_str() {
            "gzip" => true,
            "none" => false,
            _ => {
                vars.wrong(&name, "is neither gzip nor none", "none");
                false
            }
        },
    }
}

fn client(vars: &mut Variables, signal: Signal) -> Option<(PathBuf, PathBuf)> {
    let (_, certificate) = choose(vars, signal, "CLIENT_CERTIFICATE");
    let (name, key) = choose(vars, signal, "CLIENT_KEY");
    match (certificate, key) {
        (Some(certificate), Some(key)) => Some((certificate.into(), key.into())),
        (None, None) => None,
        _ => {
            let what = "and the CLIENT_CERTIFICATE go together";
            vars.wrong(&name, what, "no certificate of the client's");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> (Export, Vec<String>) {
        let mut vars = Variables::new(
            variables
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
        );
        let export = Export::read(&mut vars, Signal::Traces).expect("it is wanted");
        (export, vars.into_warnings())
    }

    #[test]
    fn endpoints_are_made_as_the_specification_has_it() {
        let general = "OTEL_EXPORTER_OTLP_ENDPOINT";
        let own = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
        let grpc = ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
        let insecure = ("OTEL_EXPORTER_OTLP_INSECURE", "true");
        for (variables, want) in [
            (vec![(general, "http://c:4318")], "http://c:4318/v1/traces"),
            (
                vec![(general, "https://c/base/")],
                "https://c/base/v1/traces",
            ),
            (vec![(own, "http://c:4318/")], "http://c:4318/"),
            (
                vec![(general, "http://a"), (own, "http://b/x")],
                "http://b/x",
            ),
            (vec![grpc, (general, "http://c:4317")], "http://c:4317"),
            (vec![grpc, (general, "c:4317")], "https://c:4317"),
            (vec![grpc, insecure, (general, "c:4317")], "http://c:4317"),
            (
                vec![grpc, ("OTEL_TRACES_EXPORTER", "otlp")],
                "http://localhost:4317",
            ),
        ] {
            let (export, warnings) = read(&variables);
            assert_eq!(export.endpoint, want, "{variables:?}");
            assert_eq!(warnings, Vec::<String>::new());
        }
    }

    #[test]
    fn the_signals_own_variable_wins() {
        let (export, warnings) = read(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "5"),
            ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "7"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=a%20b,x=y"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
        ]);
        assert_eq!(export.protocol, Protocol::HttpProtobuf);
        assert_eq!(export.timeout, Duration::from_millis(7));
        assert!(export.gzip);
        let headers: Vec<_> = export
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.expose()))
            .collect();
        assert_eq!(headers, [("api-key", "a b"), ("x", "y")]);
        assert_eq!(warnings, Vec::<String>::new());
        assert!(!format!("{export:?}").contains("a b"));
    }
}
