//! `herald check`: whether `herald serve` would run with these settings and, with `--nats`, at this
//! server. Every part is checked, whatever is wrong with the others. It changes nothing, and may run
//! beside a gateway.

mod server;

use std::path::Path;

use serde_json::json;

use super::{CliError, output};
use crate::config::LoadedConfig;
use crate::projection::DEFAULT_RULES;
use crate::setup::{Building, Finding, FindingLevel, NATS_SETTINGS};

/// The part of a key.
const KEY: &str = "key";

/// Arguments of `herald check`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit code: 0 if all is well, 2 if the settings or a file that they name are wrong, 1 if only the NATS \
    server or an address of keys is."
)]
pub(super) struct Args {
    /// Check the NATS server as well: connection, version, permissions, migrations. Writes nothing.
    #[arg(long)]
    nats: bool,
    /// Fetch the keys that come from an address, and list all keys with their ids and thumbprints (RFC 7638).
    #[arg(long)]
    keys: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// Print the built-in rules, and check nothing. Copy them, change them, and name your file in projection.rules.
    #[arg(long, conflicts_with_all = ["nats", "keys", "json"])]
    print_rules: bool,
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
    let mut findings = built.findings(file).await;
    let settings_wrong = findings.iter().any(Finding::is_wrong);
    let connects = !findings
        .iter()
        .any(|finding| finding.is_wrong() && finding.part == NATS_SETTINGS);
    if args.keys {
        findings.extend(keys(&built).await);
    }
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
    let problems: Vec<String> = findings.iter().filter_map(Finding::problem).collect();
    match problems.as_slice() {
        [] => Ok(()),
        problems if settings_wrong => Err(CliError::Usage(problems.join("\n"))),
        problems => Err(CliError::Failure(problems.join("\n"))),
    }
}

/// Fetches keys, and lists all.
async fn keys(built: &Building) -> Vec<Finding> {
    // What is wrong with the settings is in another finding.
    let Ok(verifier) = &built.keys else {
        return Vec::new();
    };
    verifier.start_fetching();
    let fetched = verifier.first_fetch().await;
    let wrong = fetched.err().into_iter().flatten();
    let listed = verifier.key_descriptions();
    listed
        .map(|key| Finding::ok(KEY, output::harmless(&key)))
        .chain(wrong.map(|why| Finding::wrong(KEY, why)))
        .collect()
}
