//! What `herald serve` reads before it touches the network: the settings and the files they name.

use std::path::{Path, PathBuf};

use super::Finding;
use crate::config::Config;
use crate::nats;
use crate::setup::Building;
use crate::telemetry;

/// The part without which no connection can be tried.
pub(super) const NATS: &str = "nats settings";

/// Looks at every part of what was read and `built` of it.
pub(super) async fn check(built: &Building, file: Option<&Path>) -> Vec<Finding> {
    let Building {
        config, problems, ..
    } = built;
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
    let shown = |path: &Option<PathBuf>, else_: &str| {
        let path = path.as_ref();
        path.map_or(else_.to_owned(), |path| path.display().to_string())
    };
    findings.extend([
        part("keys", &built.keys, |keys| {
            format!("tokens can be verified: {keys}")
        }),
        part("rules", &built.rules, |_| {
            shown(&config.projection.rules, "built in")
        }),
        part("tls", &built.tls, |tls| {
            let cert = tls.as_ref().and(config.server.tls_cert.clone());
            shown(&cert, "off")
        }),
        part("admin token", &built.admin_token, |_| {
            let none = "none: nothing can be changed on server.admin_listen";
            shown(&config.server.admin_token_file, none)
        }),
        part("log", &built.filter, |filter| filter.text().to_owned()),
        nats(config, &built.nats).await,
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

fn part<T, E: std::fmt::Display>(
    name: &'static str,
    built: &Result<T, E>,
    ok: impl FnOnce(&T) -> String,
) -> Finding {
    match built {
        Ok(built) => Finding::ok(name, ok(built)),
        Err(error) => Finding::wrong(name, error),
    }
}

async fn nats(config: &Config, files: &Result<(), String>) -> Finding {
    if let Err(error) = files {
        return Finding::wrong(NATS, error);
    }
    match nats::check_settings(&config.nats).await {
        Ok(()) => Finding::ok(NATS, "complete"),
        Err(error) => Finding::wrong(NATS, &error),
    }
}
