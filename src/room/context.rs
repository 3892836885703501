//! What every room works with.

use std::sync::Arc;

use super::flaps::Damper;
use super::reorder_budget::ReorderBudget;
use crate::config::Names;
use crate::nats::{
    ClaimCheckRequest, ClaimWriter, Connection, DeadLetters, Readable, Repairer, RequestSender,
    StreamEndReader, SweepRequest,
};
use crate::setup::LiveSettings;
use crate::socket::QueueDepth;
use crate::telemetry::Metrics;

/// What every room works with.
#[derive(Debug)]
pub struct RoomContext {
    pub nats: Connection,
    pub readable: Readable,
    /// What streams and subjects are called.
    pub names: Names,
    pub stream_end: StreamEndReader,
    pub repairer: Repairer,
    /// What may wait in all rooms while they repair.
    pub reorder_budget: ReorderBudget,
    pub sweeps: RequestSender<SweepRequest>,
    pub claim_checks: RequestSender<ClaimCheckRequest>,
    pub claims: ClaimWriter,
    pub damper: Damper,
    /// The rules in force.
    pub live: LiveSettings,
    pub dead_letters: DeadLetters,
    /// What waits for all sockets.
    pub queues: Arc<QueueDepth>,
    pub metrics: Arc<Metrics>,
}
