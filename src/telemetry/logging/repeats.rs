//! Repeated warnings are printed a few times and then counted: a fault that hits every event of a
//! busy gateway must not become a flood of log lines, nor be silent.
//!
//! What repeats is a place in the code, whatever its fields; so what is kept is bounded by the
//! number of such callsites.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::callsite::Identifier;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// The window, and how often it is reported what was left out.
pub(super) const WINDOW: Duration = Duration::from_secs(10);
/// Lines of one place in a window that are printed.
const PRINTED: u32 = 5;
/// Lines of this target are never left out: the report of those that were, and what is logged only once.
pub(crate) const UNLIMITED: &str = "herald::log";

/// The layer that leaves lines out. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Repeats {
    callsites: Arc<Mutex<HashMap<Identifier, CallsiteCount>>>,
    suppressed: Arc<AtomicU64>,
}

#[derive(Debug)]
struct CallsiteCount {
    metadata: &'static Metadata<'static>,
    since: Instant,
    seen: u32,
    left_out: u64,
}

/// What was left out of one place in the code since the last report.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LeftOut {
    pub(super) count: u64,
    /// `src/room/delivery.rs:82`.
    pub(super) callsite: String,
    pub(super) level: Level,
}

impl Repeats {
    /// Leaves out, and counts in `suppressed`.
    pub(super) fn new(suppressed: Arc<AtomicU64>) -> Self {
        Self {
            callsites: Arc::default(),
            suppressed,
        }
    }

    fn is_printed(&self, metadata: &'static Metadata<'static>, now: Instant) -> bool {
        if *metadata.level() > Level::WARN || metadata.target() == UNLIMITED {
            return true;
        }
        let mut callsites = self
            .callsites
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let callsite = callsites
            .entry(metadata.callsite())
            .or_insert(CallsiteCount {
                metadata,
                since: now,
                seen: 0,
                left_out: 0,
            });
        if now.duration_since(callsite.since) >= WINDOW {
            callsite.since = now;
            callsite.seen = 0;
        }
        callsite.seen = callsite.seen.saturating_add(1);
        let is_printed = callsite.seen <= PRINTED;
        if !is_printed {
            callsite.left_out += 1;
            self.suppressed.fetch_add(1, Ordering::Relaxed);
        }
        is_printed
    }

    /// What was left out since the last call.
    pub(super) fn left_out(&self) -> Vec<LeftOut> {
        let mut callsites = self
            .callsites
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        callsites
            .values_mut()
            .filter(|callsite| callsite.left_out > 0)
            .map(|callsite| LeftOut {
                count: std::mem::take(&mut callsite.left_out),
                callsite: format!(
                    "{}:{}",
                    callsite.metadata.file().unwrap_or("?"),
                    callsite.metadata.line().unwrap_or(0)
                ),
                level: *callsite.metadata.level(),
            })
            .collect()
    }
}

impl<S: Subscriber> Layer<S> for Repeats {
    fn event_enabled(&self, event: &Event<'_>, _context: Context<'_, S>) -> bool {
        self.is_printed(event.metadata(), Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[derive(Clone, Default)]
    struct Count(Arc<AtomicUsize>);

    impl<S: Subscriber> Layer<S> for Count {
        fn on_event(&self, _event: &Event<'_>, _context: Context<'_, S>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_warning_of_one_place_is_printed_a_few_times_and_then_counted() {
        let suppressed = Arc::new(AtomicU64::new(0));
        let repeats = Repeats::new(Arc::clone(&suppressed));
        let count = Count::default();
        let subscriber = tracing_subscriber::registry()
            .with(repeats.clone())
            .with(count.clone());
        tracing::subscriber::with_default(subscriber, || {
            for number in 0..100 {
                tracing::warn!(number, "it happened");
                tracing::info!(number, "it goes on");
            }
            tracing::error!("something else");
        });
        assert_eq!(count.0.load(Ordering::Relaxed), 5 + 100 + 1);
        assert_eq!(suppressed.load(Ordering::Relaxed), 95);
        let told = repeats.left_out();
        assert_eq!(told.len(), 1);
        assert_eq!((told[0].count, told[0].level), (95, Level::WARN));
        assert!(told[0].callsite.contains("repeats.rs:"), "{told:?}");
        assert_eq!(repeats.left_out(), []);
    }

    #[test]
    fn a_new_window_prints_again() {
        let repeats = Repeats::default();
        let metadata = {
            // Any place will do.
            static CALLSITE: tracing::callsite::DefaultCallsite =
                tracing::callsite::DefaultCallsite::new(&META);
            static META: Metadata<'static> = tracing::metadata! {
                name: "warning",
                target: "test",
                level: Level::WARN,
                fields: &[],
                callsite: &CALLSITE,
                kind: tracing::metadata::Kind::EVENT
            };
            &META
        };
        let start = Instant::now();
        let printed = |at| (0..20).filter(|_| repeats.is_printed(metadata, at)).count();
        assert_eq!(printed(start), 5);
        assert_eq!(printed(start + WINDOW / 2), 0);
        assert_eq!(printed(start + WINDOW), 5);
    }
}
