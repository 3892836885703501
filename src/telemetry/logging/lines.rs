//! Which lines are printed and exported: what the filter in force says, and never a span.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Metadata, Subscriber};
use tracing_subscriber::Registry;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, Filter};

use super::filter::OURS;

/// The filter that holds. Cheap to clone: what one sets holds for all.
#[derive(Debug, Clone)]
pub(super) struct Lines {
    /// Looked at for a line that is written; for others each place in the code knows what it says.
    targets: Arc<RwLock<Targets>>,
    /// A dependency's are left out: records of the exporter's own libraries would make more of themselves.
    ours_only: bool,
}

impl Lines {
    pub(super) fn new(targets: Targets) -> Self {
        Self {
            targets: Arc::new(RwLock::new(targets)),
            ours_only: false,
        }
    }

    /// The same without the lines of dependencies.
    pub(super) fn ours(&self) -> Self {
        Self {
            ours_only: true,
            ..self.clone()
        }
    }

    /// From now on these hold.
    pub(super) fn set(&self, targets: Targets) {
        *self.targets.write().unwrap_or_else(PoisonError::into_inner) = targets;
        tracing::callsite::rebuild_interest_cache();
    }

    fn targets(&self) -> RwLockReadGuard<'_, Targets> {
        self.targets.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn takes(&self, metadata: &Metadata<'_>) -> bool {
        let target = metadata.target();
        // What only asks (`enabled!`) is neither.
        !metadata.is_span()
            && (!self.ours_only || target.starts_with(OURS))
            && self.targets().would_enable(target, metadata.level())
    }
}

impl<S: Subscriber> Filter<S> for Lines {
    fn enabled(&self, metadata: &Metadata<'_>, _context: &Context<'_, S>) -> bool {
        self.takes(metadata)
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.takes(metadata) {
            Interest::always()
        } else {
            Interest::never()
        }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Filter::<Registry>::max_level_hint(&*self.targets())
    }
}
