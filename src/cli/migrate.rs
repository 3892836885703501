//! `herald migrate`: applies the migrations, or says how they stand.

use serde::Serialize;
use serde_json::{Value, json};

use super::CliError;
use crate::config::Config;
use crate::migrate::{
    ApplyReport, Difference, MigrateError, Migration, MigrationSet, MigrationState, Migrator,
    OperationKind, Status,
};
use crate::nats::connect;

/// Arguments of `herald migrate`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print how each migration stands; write nothing.
    #[arg(long, conflicts_with = "dry_run")]
    status: bool,
    /// Print what would be done; write nothing.
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
    if args.status {
        let status = migrator.status().await?;
        print(args.json, &status_json(&status), || print_status(&status));
        return Ok(status.check()?);
    }
    if args.dry_run {
        let status = migrator.status().await?;
        status.check()?;
        let plan = plan(&migrator, &status);
        print(args.json, &json!(plan), || print_plan(&plan));
        return Ok(());
    }
    let mut report = migrator.apply().await?;
    let reconciled = migrator.reconcile().await.inspect_err(|_| {
        // What was applied is applied, whatever comes after.
        for name in &report.applied {
            eprintln!("herald: applied {name}");
        }
    })?;
    report
        .differences
        .retain(|difference| !reconciled.contains(difference));
    let done = Done { report, reconciled };
    print(args.json, &json!(done), || print_done(&done));
    Ok(())
}

fn print(as_json: bool, value: &Value, text: impl FnOnce()) {
    if as_json {
        println!("{value:#}");
    } else {
        text();
    }
}

/// The status with the one question that a script has answered in it.
fn status_json(status: &Status) -> Value {
    let mut value = json!(status);
    if let Some(object) = value.as_object_mut() {
        object.insert("is_applied".to_owned(), status.is_applied().into());
    }
    value
}

fn print_status(status: &Status) {
    let width = status
        .migrations
        .iter()
        .map(|entry| entry.name.len())
        .max()
        .unwrap_or(0)
        .max("MIGRATION".len());
    println!(
        "{:width$}  STATE    BREAKS OLDER  CHECKSUM      BY       AT",
        "MIGRATION"
    );
    for entry in &status.migrations {
        let (by, at) = entry.applied.as_ref().map_or(("-", "-"), |applied| {
            (applied.applied_by.as_str(), applied.applied_at.as_str())
        });
        println!(
            "{:width$}  {:<7}  {:<12}  {:.12}  {by:<7}  {at}",
            entry.name,
            match entry.state {
                MigrationState::Applied => "applied",
                MigrationState::Pending => "pending",
                MigrationState::Changed => "changed",
                MigrationState::Unknown => "unknown",
            },
            if entry.breaks_older_gateways {
                "yes"
            } else {
                "no"
            },
            entry.checksum,
        );
    }
    for difference in &status.differences {
        println!("differs from the settings: {difference}");
    }
    for edit in &status.edits {
        println!("{}", edit.advice());
    }
}

fn plan(migrator: &Migrator<'_>, status: &Status) -> Plan {
    let pending: Vec<&str> = status.pending().collect();
    let migrations = migrator.migrations().iter();
    let is_pending = |migration: &&Migration| pending.contains(&migration.name.as_str());
    Plan {
        apply: migrations.filter(is_pending).cloned().collect(),
        reconcile: status.differences.clone(),
    }
}

fn print_plan(plan: &Plan) {
    for migration in &plan.apply {
        let breaks = if migration.breaks_older_gateways {
            " (breaks older gateways)"
        } else {
            ""
        };
        println!(
            "would apply {}: {}{breaks}",
            migration.name, migration.description
        );
        for operation in &migration.operations {
            let kind = match operation.kind {
                OperationKind::Create => "create",
                OperationKind::Update => "update",
            };
            let config = Value::Object(operation.config.clone());
            println!("  {kind} stream {}: {config}", operation.stream);
        }
    }
    for difference in &plan.reconcile {
        println!("would reconcile {difference}");
    }
    if plan.apply.is_empty() && plan.reconcile.is_empty() {
        println!("nothing to do");
    }
}

fn print_done(done: &Done) {
    for name in &done.report.applied {
        println!("applied {name}");
    }
    for difference in &done.reconciled {
        println!("reconciled {difference}");
    }
    for edit in &done.report.edits {
        eprintln!("herald: {}", edit.advice());
    }
    for name in &done.report.unknown {
        eprintln!("herald: the ledger has migration {name}, which this version does not know");
    }
    if done.report.applied.is_empty() && done.reconciled.is_empty() {
        println!("nothing to do");
    }
}
