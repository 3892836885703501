//! Exemplars (OpenMetrics 1.0, "Exemplars"): for each bucket of the latency histogram the last trace
//! that fell into it. The SDK keeps none.

use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use opentelemetry::trace::{SpanId, TraceId};

/// A measurement and the span it was made in.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Exemplar {
    pub(super) value: f64,
    pub(super) time: SystemTime,
    pub(super) trace: TraceId,
    pub(super) span: SpanId,
}

/// One for each bucket of a histogram. Only recorded spans come here, so the lock is seldom taken.
#[derive(Debug)]
pub(super) struct Exemplars {
    bounds: &'static [f64],
    buckets: Mutex<Vec<Option<Exemplar>>>,
    enabled: bool,
}

impl Exemplars {
    /// Of a histogram with these upper bounds.
    pub(super) fn new(bounds: &'static [f64], enabled: bool) -> Self {
        Self {
            bounds,
            buckets: Mutex::new(vec![None; bounds.len() + 1]),
            enabled,
        }
    }

    pub(super) fn record(&self, exemplar: Exemplar) {
        if !self.enabled {
            return;
        }
        // As the histogram itself: a bound belongs to the bucket below it.
        let index = self.bounds.partition_point(|bound| *bound < exemplar.value);
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bucket) = buckets.get_mut(index) {
            *bucket = Some(exemplar);
        }
    }

    /// The exemplar of each bucket, in the order of their bounds.
    pub(super) fn all(&self) -> Vec<Option<Exemplar>> {
        let buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        buckets.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_one_of_each_bucket_is_kept() {
        let exemplars = Exemplars::new(&[1.0, 2.0], true);
        let exemplar = |value, span: u64| Exemplar {
            value,
            time: SystemTime::UNIX_EPOCH,
            trace: TraceId::from(1),
            span: SpanId::from(span),
        };
        for (value, span) in [(1.0, 1), (0.5, 2), (1.5, 3), (9.0, 4)] {
            exemplars.record(exemplar(value, span));
        }
        assert_eq!(
            exemplars.all(),
            [
                Some(exemplar(0.5, 2)),
                Some(exemplar(1.5, 3)),
                Some(exemplar(9.0, 4))
            ]
        );
    }
}
