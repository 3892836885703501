//! What was handed to the connection and is not known to be the kernel's yet: what a flush is counted,
//! timed and traced with.

use std::sync::Arc;
use std::time::{Duration, Instant};

use opentelemetry::trace::SpanContext;

use super::Parcel;
use super::outbox::Entry;
use crate::room::SessionId;
use crate::telemetry::{Metrics, Sent, Stage, Undelivered};

/// In the order of their handing over. Empty, it has allocated nothing.
#[derive(Debug, Default)]
pub(super) struct InFlight(Vec<Handed>);

/// One notification, without its text: a slow socket does not keep that twice.
#[derive(Debug)]
struct Handed {
    size: usize,
    queued: Instant,
    /// From the event's store time until then.
    age: Duration,
    /// When it came out of the queue.
    taken: Instant,
    /// Kept only where its delivery has a span.
    traced: Option<Arc<Parcel>>,
}

impl InFlight {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn push(&mut self, entry: Entry, taken: Instant) {
        let Entry { parcel, is_traced } = entry;
        self.0.push(Handed {
            size: parcel.text.len(),
            queued: parcel.queued.at,
            age: parcel.age,
            taken,
            traced: is_traced.then_some(parcel),
        });
    }

    /// The kernel has all of them now.
    pub(super) fn written(
        &mut self,
        metrics: &Metrics,
        session: SessionId,
        connection: Option<&SpanContext>,
    ) {
        if self.0.is_empty() {
            return;
        }
        let written = Instant::now();
        let mut bytes = 0;
        // Taken, so that an idle socket keeps no buffer from its last burst.
        let all = std::mem::take(&mut self.0);
        for handed in &all {
            bytes += handed.size as u64;
            let latency = handed.age + written.saturating_duration_since(handed.queued);
            metrics.latency(latency);
            metrics.stage(
                Stage::Queue,
                handed.taken.saturating_duration_since(handed.queued),
            );
            metrics.stage(
                Stage::Write,
                written.saturating_duration_since(handed.taken),
            );
            if let Some(parcel) = &handed.traced
                && let Some(trace) = &parcel.trace
            {
                let span = trace.sent(Sent {
                    session: session.to_string(),
                    connection,
                    size: handed.size,
                    queued: parcel.queued,
                    taken: handed.taken,
                    written,
                });
                metrics.exemplar(latency, &span);
            }
        }
        metrics.written(all.len() as u64, bytes);
    }

    /// The connection ended before it was known that the kernel has them.
    pub(super) fn lost(&mut self, metrics: &Metrics, why: Undelivered) {
        let all = std::mem::take(&mut self.0);
        metrics.depth().dropped(all.len() as u64, why);
    }
}
