//! Gives a layer Herald's own events only.

use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::filter::OURS;

/// What goes to the collector: records of the exporter's own libraries would make more of themselves. No
/// filter of the layer's, whose level would be a second one beside that of all (see
/// [`super::subscriber`]).
pub(super) struct Ours<L>(pub(super) L);

impl<S: Subscriber, L: Layer<S>> Layer<S> for Ours<L> {
    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        if event.metadata().target().starts_with(OURS) {
            self.0.on_event(event, context);
        }
    }
}
