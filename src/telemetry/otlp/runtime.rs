//! A thread of its own for the exporters' I/O: a collector that is slow, or a large batch, takes no
//! time from the gateway's threads.

use std::sync::Arc;
use std::sync::mpsc;

use tokio::runtime::{EnterGuard, Handle};
use tokio_util::sync::{CancellationToken, DropGuard};

/// The thread; it ends with the last handle. Cheap to clone.
#[derive(Debug, Clone)]
pub(in crate::telemetry) struct Runtime {
    handle: Handle,
    _end: Arc<DropGuard>,
}

impl Runtime {
    /// Starts the thread.
    ///
    /// # Errors
    /// Where the system gives no thread.
    pub(in crate::telemetry) fn start() -> std::io::Result<Self> {
        let end = CancellationToken::new();
        let (tell, told) = mpsc::channel();
        let ended = end.clone();
        std::thread::Builder::new()
            .name("herald-otlp".to_owned())
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build();
                match runtime {
                    Ok(runtime) => {
                        // Whoever started us waits for it.
                        let _ = tell.send(Ok(runtime.handle().clone()));
                        runtime.block_on(ended.cancelled());
                    }
                    Err(error) => {
                        // As above.
                        let _ = tell.send(Err(error));
                    }
                }
            })?;
        let handle = told.recv().map_err(std::io::Error::other)??;
        Ok(Self {
            handle,
            _end: Arc::new(end.drop_guard()),
        })
    }

    pub(super) fn enter(&self) -> EnterGuard<'_> {
        self.handle.enter()
    }

    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }
}
