//! What `herald serve` reads before it touches the network: the settings and the files they name.

use std::path::Path;

use super::Finding;
use crate::auth::Verifier;
use crate::config::{Config, Reading};
use crate::ingest;
use crate::ops::tls::Tls;
use crate::projection::Projector;
use crate::telemetry::{self, Filter};

/// The part without which no connection can be tried.
pub(super) const NATS: &str = "nats settings";

/// Looks at every part.
pub(super) async fn check(reading: &Reading, file: Option<&Path>) -> Vec<Finding> {
    let Reading { config, problems } = reading;
    let mut findings: Vec<Finding> = problems
        .iter()
        .map(|problem| Finding::wrong("settings", problem))
        .collect();
    if findings.is_empty() {
        let read_from = file.map_or_else(
            || "defaults and environment".to_owned(),
            |path| format!("{} and environment", path.display()),
        );
        findings.push(Finding::ok("settings", read_from));
    }
    findings.extend([
        keys(config),
        rules(config),
        tls(config),
        log(config),
        nats(config).await,
    ]);
    let (exported, wrong) = telemetry::check_environment();
    findings.push(Finding::ok("telemetry", exported));
    // `serve` warns of them and takes their defaults.
    findings.extend(
        wrong
            .into_iter()
            .map(|wrong| Finding::note("telemetry", wrong)),
    );
    findings
}

fn keys(config: &Config) -> Finding {
    match Verifier::from_config(&config.auth) {
        Ok(_) => Finding::ok("keys", "tokens can be verified"),
        Err(error) => Finding::wrong("keys", &error),
    }
}

fn rules(config: &Config) -> Finding {
    match Projector::from_config(&config.projection, &config.nats.stream) {
        Ok(_) => {
            let source = config.projection.rules.as_ref();
            let source = source.map_or("built in".to_owned(), |path| path.display().to_string());
            Finding::ok("rules", source)
        }
        Err(error) => Finding::wrong("rules", &error),
    }
}

fn tls(config: &Config) -> Finding {
    match (&config.server.tls_cert, &config.server.tls_key) {
        (Some(cert), Some(key)) => match Tls::load(cert, key) {
            Ok(_) => Finding::ok("tls", cert.display().to_string()),
            Err(error) => Finding::wrong("tls", &error),
        },
        // One without the other is not read at all.
        _ => Finding::ok("tls", "off"),
    }
}

fn log(config: &Config) -> Finding {
    match Filter::configured(&config.log) {
        Ok(filter) => Finding::ok("log", filter.text()),
        Err(error) => Finding::wrong("log", &error),
    }
}

async fn nats(config: &Config) -> Finding {
    if let Some(path) = &config.nats.ca_file
        && let Err(error) = std::fs::File::open(path)
    {
        let path = path.display();
        return Finding::wrong(NATS, &format!("cannot read nats.ca_file {path}: {error}"));
    }
    match ingest::check_settings(&config.nats).await {
        Ok(()) => Finding::ok(NATS, "complete"),
        Err(error) => Finding::wrong(NATS, &error),
    }
}
