//! `herald migrate`: applies the migrations, or prints their state.

use serde::Serialize;
use serde_json::{Value, json};

use super::{CliError, output};
use crate::config::Config;
use crate::migrate::{
    ApplyReport, Difference, MigrateError, Migration, MigrationSet, Migrator, OperationKind, Status,
};
use crate::nats::connect;

/// Arguments of `herald migrate`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print the state of each migration, and write nothing.
    #[arg(long, conflicts_with = "dry_run")]
    status: bool,
    /// Print what would be done, and write nothing.
    #[arg(long)]
    dry_run: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl From<MigrateError> for CliError {
    fn from(error: MigrateError) -> Self {
        Self::Failure(error.to_string())
    }
}

/// What `herald migrate` did.
#[derive(Debug, Serialize)]
struct Done {
    #[serde(flatten)]
    report: ApplyReport,
    /// Values that were brought to what the settings say.
    reconciled: Vec<Difference>,
}

/// What `herald migrate` would do.
#[derive(Debug, Serialize)]
struct Plan {
    apply: Vec<Migration>,
    reconcile: Vec<Difference>,
}

pub(super) async fn run(args: Args, config: Config) -> Result<(), CliError> {
    let client = connect(&config.nats, "herald-migrate", drop).await?;
    let migrator = Migrator::new(&client, &config.nats, &MigrationSet::embedded())?;
    let print = |value: Value, text: Vec<String>| match args.json {
        true => output::lines([format!("{value:#}")]),
        false => output::lines(text),
    };
    if args.status {
        let status = migrator.status().await?;
        print(status_json(&status), status_text(&status))?;
        return Ok(status.check()?);
    }
    if args.dry_run {
        let status = migrator.status().await?;
        status.check()?;
        let plan = Plan {
            apply: pending(&migrator, &status),
            reconcile: status.differences,
        };
        return print(json!(plan), plan_text(&plan));
    }
    let mut report = migrator.apply().await?;
    let reconciled = migrator.reconcile().await.inspect_err(|_| {
        // What was applied is applied, whatever comes after.
        output::messages(applied(&report));
    })?;
    report
        .differences
        .retain(|difference| !reconciled.contains(difference));
    if !args.json {
        let edits = report.edits.iter().map(Difference::advice);
        output::messages(edits.chain(report.unknown.iter().map(|name| {
            format!("the ledger has migration {name}, which this version does not know")
        })));
    }
    let done = Done { report, reconciled };
    print(json!(done), done_text(&done))
}

fn applied(report: &ApplyReport) -> Vec<String> {
    let names = report.applied.iter();
    names.map(|name| format!("applied {name}")).collect()
}

/// The status, with an answer to the one question of a script in it.
fn status_json(status: &Status) -> Value {
    let mut value = json!(status);
    if let Some(object) = value.as_object_mut() {
        object.insert("is_applied".to_owned(), status.is_applied().into());
    }
    value
}

fn status_text(status: &Status) -> Vec<String> {
    const HEADINGS: [&str; 6] = ["MIGRATION", "STATE", "BREAKS OLDER", "CHECKSUM", "BY", "AT"];
    let rows = status.migrations.iter().map(|entry| {
        let (by, at) = entry.applied.as_ref().map_or(("-", "-"), |applied| {
            (applied.applied_by.as_str(), applied.applied_at.as_str())
        });
        let state = json!(entry.state);
        let breaks = if entry.breaks_older_gateways {
            "yes"
        } else {
            "no"
        };
        [
            entry.name.clone(),
            state.as_str().unwrap_or_default().to_owned(),
            breaks.to_owned(),
            entry.checksum.chars().take(12).collect(),
            by.to_owned(),
            at.to_owned(),
        ]
    });
    let mut lines = output::table(HEADINGS, rows);
    let differences = status.differences.iter();
    lines.extend(differences.map(|difference| format!("differs from the settings: {difference}")));
    lines.extend(status.edits.iter().map(Difference::advice));
    lines
}

/// The migrations that are to be applied.
pub(super) fn pending(migrator: &Migrator<'_>, status: &Status) -> Vec<Migration> {
    let pending: Vec<&str> = status.pending().collect();
    let migrations = migrator.migrations().iter();
    let is_pending = |migration: &&Migration| pending.contains(&migration.name.as_str());
    migrations.filter(is_pending).cloned().collect()
}

fn plan_text(plan: &Plan) -> Vec<String> {
    let mut lines = Vec::new();
    for migration in &plan.apply {
        let breaks = if migration.breaks_older_gateways {
            " (breaks older gateways)"
        } else {
            ""
        };
        lines.push(format!(
            "would apply {}: {}{breaks}",
            migration.name, migration.description
        ));
        lines.extend(migration.operations.iter().map(|operation| {
            let kind = match operation.kind {
                OperationKind::Create => "create",
                OperationKind::Update => "update",
            };
            let config = Value::Object(operation.config.clone());
            format!("  {kind} stream {}: {config}", operation.stream)
        }));
    }
    let differences = plan.reconcile.iter();
    lines.extend(differences.map(|difference| format!("would reconcile {difference}")));
    or_nothing(lines)
}

fn done_text(done: &Done) -> Vec<String> {
    let mut lines = applied(&done.report);
    let reconciled = done.reconciled.iter();
    lines.extend(reconciled.map(|difference| format!("reconciled {difference}")));
    or_nothing(lines)
}

fn or_nothing(mut lines: Vec<String>) -> Vec<String> {
    if lines.is_empty() {
        lines.push("nothing to do".to_owned());
    }
    lines
}
