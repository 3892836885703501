//! The JetStream objects that Herald needs, made and changed by the ordered files of `migrations/`.
//!
//! Each file is applied once; a KV bucket, the ledger, says which were, with their checksums. Any
//! number of processes may apply at a time, and none waits for another: what a file says comes to the same
//! when it is done twice, and the ledger takes one entry of it. A file that changed after it was applied, a
//! ledger that is ahead of this binary, and an object that was changed by hand are told apart and never
//! repaired silently. What an operator changed is refused where no promise is kept with it, and told and left
//! alone elsewhere. Values that come from settings are the exception: [`reconcile`] brings them to what the
//! settings say.
//!
//! `file` and `set` read the files, `ledger` is the bucket, `compare` sets what is there against what should
//! be, `judge` says what comes of a `difference`, `status` is what one look finds, and `run` does the work.

mod api;
mod compare;
mod difference;
mod error;
mod file;
mod judge;
mod ledger;
mod run;
mod set;
mod status;

use async_nats::Client;

use crate::config::NatsConfig;

pub use self::difference::Difference;
pub use self::error::MigrateError;
pub use self::file::{Migration, Operation};
pub use self::ledger::Applied;
pub use self::run::{Migrator, Report};
pub use self::set::MigrationSet;
pub use self::status::{Entry, State, Status};

/// Applies the migrations that the ledger does not have, in their order. It does not change values
/// that merely differ from the settings: [`Report::differences`] has them.
///
/// Where nothing is pending it only reads.
///
/// # Errors
/// [`MigrateError`]; see [`MigrateError::is_transient`] for those that a retry may cure.
pub async fn apply(client: &Client, config: &NatsConfig) -> Result<Report, MigrateError> {
    Migrator::new(client, config, &MigrationSet::embedded())?
        .apply()
        .await
}

/// Brings the values that come from settings (replicas, max_age) to what the settings say, and leaves
/// everything else of the objects as it is. Returns what it changed.
///
/// # Errors
/// [`MigrateError`].
pub async fn reconcile(
    client: &Client,
    config: &NatsConfig,
) -> Result<Vec<Difference>, MigrateError> {
    Migrator::new(client, config, &MigrationSet::embedded())?
        .reconcile()
        .await
}

/// What is applied, pending, or not as it should be. Reads only: STREAM.INFO of the objects and
/// STREAM.MSG.GET of the ledger.
///
/// # Errors
/// [`MigrateError`] where it cannot be read; what it finds wrong is in the [`Status`].
pub async fn status(client: &Client, config: &NatsConfig) -> Result<Status, MigrateError> {
    Migrator::new(client, config, &MigrationSet::embedded())?
        .status()
        .await
}
