//! What `herald serve` needs of the NATS server: that it answers, is new enough, lets this user do its
//! work, and has the JetStream objects.

use async_nats::Client;

use super::super::migrate;
use super::super::nats::{NatsConnection, VERSION_MIN, is_new_enough};
use crate::config::{Config, NatsConfig};
use crate::migrate::{MigrateError, MigrationSet, Migrator, OperationKind, Status};
use crate::nats::permissions;
use crate::setup::Finding;

const CONNECTION: &str = "nats connection";
const PERMISSIONS: &str = "nats permissions";
const MIGRATIONS: &str = "migrations";

/// Looks at every part that can be looked at.
pub(super) async fn check(config: &Config) -> Vec<Finding> {
    let nats = match NatsConnection::open(&config.nats, "herald check").await {
        Ok(nats) => nats,
        Err(error) => return vec![Finding::wrong(CONNECTION, error)],
    };
    let mut findings = vec![connection(&nats.client)];
    let status = crate::migrate::status(&nats.client, &config.nats).await;
    let probes = permissions::of_serve(
        &config.nats.names(),
        &streams_to_make(config, &nats.client, &status),
    );
    let denied = permissions::denied(&config.nats, "herald check", probes).await;
    let denied = denied.unwrap_or_else(|error| vec![error.to_string()]);
    if denied.is_empty() {
        findings.push(Finding::ok(PERMISSIONS, "all that herald serve needs"));
    }
    let already_reported = !denied.is_empty();
    findings.extend(
        denied
            .into_iter()
            .map(|text| Finding::wrong(PERMISSIONS, text)),
    );
    match status {
        Ok(status) => findings.extend(migrations(&status, &config.nats)),
        Err(MigrateError::Denied(_)) if already_reported => {}
        Err(error) => findings.push(Finding::wrong(MIGRATIONS, error)),
    }
    findings
}

fn connection(client: &Client) -> Finding {
    let version = client.server_info().version;
    if is_new_enough(&version) {
        Finding::ok(CONNECTION, format!("nats-server {version}"))
    } else {
        Finding::wrong(
            CONNECTION,
            format!(
                "nats-server {version} is too old: batched direct get needs {VERSION_MIN} or newer"
            ),
        )
    }
}

/// The streams that `serve` itself would make.
fn streams_to_make(
    config: &Config,
    client: &Client,
    status: &Result<Status, MigrateError>,
) -> Vec<String> {
    let (true, Ok(status)) = (config.nats.migrate, status) else {
        return Vec::new();
    };
    // The binary's own files, which its tests have read.
    let Ok(migrator) = Migrator::new(client, &config.nats, &MigrationSet::embedded()) else {
        return Vec::new();
    };
    migrate::pending(&migrator, status)
        .into_iter()
        .flat_map(|migration| migration.operations)
        .filter(|operation| operation.kind == OperationKind::Create)
        .map(|operation| operation.stream)
        .collect()
}

fn migrations(status: &Status, nats: &NatsConfig) -> Vec<Finding> {
    let mut findings: Vec<Finding> = status
        .pending()
        .map(|name| match nats.migrate {
            true => Finding::note(
                MIGRATIONS,
                format!("{name} is not applied: serve applies it"),
            ),
            false => Finding::wrong(
                MIGRATIONS,
                format!("{name} is not applied: herald migrate applies it"),
            ),
        })
        .collect();
    findings.extend(
        status
            .check()
            .err()
            .map(|error| Finding::wrong(MIGRATIONS, error)),
    );
    findings.extend(
        status
            .forgets_revocations(nats)
            .map(|why| Finding::wrong(MIGRATIONS, why)),
    );
    if findings.is_empty() {
        let text = match status.edits.as_slice() {
            [] => "all applied, nothing changed",
            _ => "all applied",
        };
        findings.push(Finding::ok(MIGRATIONS, text));
    }
    findings.extend(status.differences.iter().map(|difference| {
        let text = format!("{difference} by the settings: herald migrate reconciles it");
        Finding::note(MIGRATIONS, text)
    }));
    let edits = status.edits.iter();
    findings.extend(edits.map(|edit| Finding::note(MIGRATIONS, edit.advice())));
    findings
}
