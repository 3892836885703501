//! The tasks that follow NATS for as long as the gateway serves, and report to the rooms what happened there.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use tracing::{debug, error, info, warn};

use crate::nats::{Leader, Losses, RevocationReads, notices};
use crate::room::{Resync, Rooms};
use crate::telemetry::Metrics;

/// How often the lag behind the stream is measured: a read at its leader each time.
const LAG_EVERY: Duration = Duration::from_secs(15);
/// Pause between looks at what happened to the connection: an overload drops many messages a second.
const LOSSES_PAUSE: Duration = Duration::from_millis(100);
/// Rooms that are slowed have full subscriptions for as long as that lasts: this is said once in this time.
const SLOWED_PAUSE: Duration = Duration::from_secs(60);

/// Measures how far the stream is ahead of the rooms. Never ends.
pub(super) async fn lag(events: Leader, rooms: Rooms, metrics: Arc<Metrics>) {
    loop {
        tokio::time::sleep(LAG_EVERY).await;
        metrics.nats_connected(rooms.context().nats.is_connected());
        let lowest = rooms.lowest_watermark();
        match (events.end().await, lowest) {
            (Ok(end), Some(lowest)) => {
                metrics.stream_lag(end.position.sequence.saturating_sub(lowest))
            }
            (Ok(_), None) => metrics.stream_lag(0),
            // The last value stays. Others report that NATS is away.
            (Err(error), _) => debug!(%error, "lag not measured"),
        }
    }
}

/// Receives what all gateways report of a user's sockets. Ends with the NATS client.
pub(super) async fn receive_notices(rooms: Rooms) {
    let (nats, names) = (&rooms.context().nats, &rooms.context().names);
    let Some(mut heard) = notices::subscribe(nats.client(), names).await else {
        error!("notices of other gateways not subscribed to");
        return;
    };
    while let Some(message) = heard.next().await {
        match notices::parse(&message, names) {
            Some((workspace, user, notice)) => rooms.noticed(workspace, user, notice),
            // As a look at what this user may publish is, too.
            None => debug!("notice dropped"),
        }
    }
}

/// Reports to the rooms, and to the reads of revocations, what happened to the connection. Never ends.
pub(super) async fn losses(rooms: Rooms, revocations: RevocationReads) {
    let mut slowed_said: Option<Instant> = None;
    loop {
        let Losses { reconnected, full } = rooms.context().nats.losses().await;
        if reconnected {
            revocations.poke();
            rooms.resync(Resync::Reconnected);
        }
        if !full.is_empty() {
            let slowed = rooms.resync_listening(&full);
            if !slowed || slowed_said.is_none_or(|said| said.elapsed() >= SLOWED_PAUSE) {
                warn!(
                    subscriptions = full.len(),
                    slowed, "messages dropped, a subscription was full"
                );
                slowed_said = slowed.then(Instant::now).or(slowed_said);
            }
        }
        tokio::time::sleep(LOSSES_PAUSE).await;
    }
}

/// Reports every election of `leader` to the rooms and to those that wait for it. Some of what was stored before it may
/// not have been republished.
pub(super) async fn elections(leader: Leader, rooms: Rooms) {
    let context = rooms.context();
    let subject = context.names.elected(leader.stream());
    let Ok(mut elections) = context.nats.client().subscribe(subject.clone()).await else {
        error!(
            stream = leader.stream(),
            "leader elections not subscribed to"
        );
        return;
    };
    while let Some(advisory) = elections.next().await {
        if advisory.subject.as_str() != subject {
            continue;
        }
        info!(stream = leader.stream(), "leader elected");
        leader.elected();
        rooms.resync(Resync::Doubt);
    }
}
