//! Whether a gateway can run with what was read, part by part: what `herald check` prints, and what a start and a reload
//! refuse.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::Building;
use crate::config::Config;
use crate::{nats, telemetry};

/// Whether a part is as it must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum FindingLevel {
    Ok,
    /// Worth knowing; `serve` runs all the same.
    Note,
    Wrong,
}

/// What was found about one part of the setup, or of the NATS server.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Finding {
    pub(crate) part: &'static str,
    pub(crate) state: FindingLevel,
    pub(crate) detail: String,
}

impl Finding {
    pub(crate) fn ok(part: &'static str, detail: impl Display) -> Self {
        Self::new(part, FindingLevel::Ok, detail)
    }

    pub(crate) fn note(part: &'static str, detail: impl Display) -> Self {
        Self::new(part, FindingLevel::Note, detail)
    }

    pub(crate) fn wrong(part: &'static str, detail: impl Display) -> Self {
        Self::new(part, FindingLevel::Wrong, detail)
    }

    fn new(part: &'static str, state: FindingLevel, detail: impl Display) -> Self {
        Self {
            part,
            state,
            detail: detail.to_string(),
        }
    }

    pub(crate) fn is_wrong(&self) -> bool {
        self.state == FindingLevel::Wrong
    }

    /// What is wrong, in one sentence.
    pub(crate) fn problem(&self) -> Option<String> {
        let Self { part, detail, .. } = self;
        self.is_wrong().then(|| format!("{part}: {detail}"))
    }
}

/// The part without which no connection can be tried.
pub(crate) const NATS_SETTINGS: &str = "nats settings";

impl Building {
    /// One or more for each part. `file` is where the settings come from.
    pub(crate) async fn findings(&self, file: Option<&Path>) -> Vec<Finding> {
        let Building {
            config, problems, ..
        } = self;
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
            part("keys", &self.keys, |keys| {
                format!("tokens can be verified: {keys}")
            }),
            part("rules", &self.rules, |_| {
                shown(&config.projection.rules, "built in")
            }),
            part("tls", &self.tls, |tls| {
                let cert = tls.as_ref().and(config.server.tls_cert.clone());
                shown(&cert, "off")
            }),
            part("admin token", &self.admin_token, |_| {
                let none = "none: nothing can be changed on server.admin_listen";
                shown(&config.server.admin_token_file, none)
            }),
            part("publish tokens", &self.static_tokens, |_| {
                shown(&config.publish.tokens_file, "no static ones")
            }),
            part("log", &self.filter, |filter| filter.text().to_owned()),
            nats(config, &self.nats).await,
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

    /// All that is wrong, one sentence each.
    pub(crate) async fn all_problems(&self) -> Vec<String> {
        let findings = self.findings(None).await;
        findings.iter().filter_map(Finding::problem).collect()
    }
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
        return Finding::wrong(NATS_SETTINGS, error);
    }
    match nats::check_settings(&config.nats).await {
        Ok(()) => Finding::ok(NATS_SETTINGS, "complete"),
        Err(error) => Finding::wrong(NATS_SETTINGS, error),
    }
}
