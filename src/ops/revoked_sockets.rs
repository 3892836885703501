//! Ends the sockets of what is revoked, at once.

use tracing::info;

use crate::auth::{Revocations, RevokedKind};
use crate::codes::CloseReason;
use crate::server::{Directory, OpenSocket};
use crate::telemetry::Metrics;

/// Ends each socket whose credential is revoked. Joins that enter the directory meanwhile look themselves.
pub(super) async fn end_revoked(
    revocations: &Revocations,
    directory: &Directory,
    metrics: &Metrics,
) {
    let kind_of = |socket: &OpenSocket| revocations.kind_of(&socket.credential());
    let sessions = directory.select(|socket| kind_of(socket).is_some()).await;
    let open = sessions.into_iter();
    let open = open.filter_map(|session| directory.get(session));
    let revoked: Vec<_> = open
        .filter_map(|socket| {
            let kind = kind_of(&socket)?;
            socket.writer.end_now(CloseReason::Revoked);
            Some(kind)
        })
        .collect();
    for kind in RevokedKind::ALL {
        let sockets = revoked.iter().filter(|of| **of == kind).count();
        if sockets > 0 {
            metrics.revoked_sockets(sockets as u64);
            info!(sockets, kind = kind.as_str(), "sockets ended, revoked");
        }
    }
}
