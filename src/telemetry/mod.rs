//! Logs and metrics.

mod logging;
mod metrics;

pub use self::logging::{check, init};
pub use self::metrics::{LiveDrop, Metrics};
