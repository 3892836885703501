//! `herald check`: whether `herald serve` would run with these settings and, with `--nats`, at this
//! server. Every part is checked, whatever is wrong with the others. It changes nothing, and may run
//! beside a gateway.

mod server;
mod settings;

use std::fmt::Display;
use std::path::Path;

use serde::Serialize;
use serde_json::json;

use super::{CliError, output};
use crate::config::LoadedConfig;
use crate::projection::DEFAULT_RULES;
use crate::setup::Building;

/// Arguments of `herald check`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit code: 0 if all is well, 2 if the settings or a file that they name are wrong, 1 if only the NATS \
    server is."
)]
pub(super) struct Args {
    /// Check the NATS server as well: connection, version, permissions, migrations. Writes nothing.
    #[arg(long)]
    nats: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// Print the built-in rules, and check nothing. Copy them, change them, and name your file in projection.rules.
    #[arg(long, conflicts_with_all = ["nats", "json"])]
    print_rules: bool,
}

/// What one look at one part found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum FindingLevel {
    Ok,
    /// Worth knowing; `serve` runs all the same.
    Note,
    Wrong,
}

/// One line of the report.
#[derive(Debug, Clone, Serialize)]
struct Finding {
    part: &'static str,
    state: FindingLevel,
    detail: String,
}

impl Finding {
    fn ok(part: &'static str, detail: impl Display) -> Self {
        Self::new(part, FindingLevel::Ok, detail)
    }

    fn note(part: &'static str, detail: impl Display) -> Self {
        Self::new(part, FindingLevel::Note, detail)
    }

    fn wrong(part: &'static str, detail: impl Display) -> Self {
        Self::new(part, FindingLevel::Wrong, detail)
    }

    fn new(part: &'static str, state: FindingLevel, detail: impl Display) -> Self {
        Self {
            part,
            state,
            detail: detail.to_string(),
        }
    }

    fn is_wrong(&self) -> bool {
        self.state == FindingLevel::Wrong
    }
}

pub(super) async fn run(
    args: Args,
    reading: LoadedConfig,
    file: Option<&Path>,
) -> Result<(), CliError> {
    if args.print_rules {
        return output::lines([DEFAULT_RULES.trim_end()]);
    }
    let built = Building::of(reading);
    let mut findings = settings::check(&built, file).await;
    let settings_wrong = findings.iter().any(Finding::is_wrong);
    let connects = !findings
        .iter()
        .any(|finding| finding.is_wrong() && finding.part == settings::NATS);
    if args.nats && connects {
        findings.extend(server::check(&built.config).await);
    }
    if args.json {
        let ok = !findings.iter().any(Finding::is_wrong);
        output::lines([format!("{:#}", json!({ "ok": ok, "findings": &findings }))])?;
    } else {
        // What is wrong goes to standard error with the exit code.
        output::lines(findings.iter().filter_map(|finding| {
            let word = match finding.state {
                FindingLevel::Ok => "ok",
                FindingLevel::Note => "note",
                FindingLevel::Wrong => return None,
            };
            Some(format!("{word:4} {}: {}", finding.part, finding.detail))
        }))?;
    }
    let problems = wrong(&findings);
    match problems.as_slice() {
        [] => Ok(()),
        problems if settings_wrong => Err(CliError::Usage(problems.join("\n"))),
        problems => Err(CliError::Failure(problems.join("\n"))),
    }
}

/// Everything that is wrong with the settings and what is built of them, one sentence each.
pub(super) async fn wrong_settings(built: &Building) -> Vec<String> {
    wrong(&settings::check(built, None).await)
}

fn wrong(findings: &[Finding]) -> Vec<String> {
    findings
        .iter()
        .filter(|finding| finding.is_wrong())
        .map(|finding| format!("{}: {}", finding.part, finding.detail))
        .collect()
}
