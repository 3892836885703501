//! The intake: one thread that reads from NATS and runs the rooms of few sockets.
//!
//! On a runtime of many threads each event wakes another thread, and that one the next, to look for work. Here the
//! connection gives an event to its room by a local queue, and the room writes it to its sockets.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// How often it is looked how busy the thread is.
const LOOK: Duration = Duration::from_millis(250);
/// Busier than this it can hardly keep up.
const BUSY_PERCENT: u32 = 60;

/// A cheap handle on the thread. Where the process has one worker alone, that is the thread.
#[derive(Debug, Clone)]
pub struct Intake {
    runtime: Handle,
    /// How much of the time before the last look it was busy.
    busy_percent: Arc<AtomicU32>,
}

impl Intake {
    /// Starts the thread beside `workers`, until `cancel`. What is returned beside it ends with the thread.
    ///
    /// # Errors
    /// Where the operating system gives no thread.
    pub fn start(
        workers: &Handle,
        cancel: CancellationToken,
    ) -> io::Result<(Self, impl Future<Output = ()> + use<>)> {
        let of_its_own = if workers.metrics().num_workers() > 1 {
            Some(Builder::new_current_thread().enable_all().build()?)
        } else {
            // A second thread would have the same processor, and each wake the other.
            None
        };
        let intake = Self {
            runtime: of_its_own.as_ref().map_or(workers, Runtime::handle).clone(),
            busy_percent: Arc::default(),
        };
        let (alive, gone) = oneshot::channel::<()>();
        let looked = intake.clone();
        let looks = async move {
            let _alive = alive;
            cancel.run_until_cancelled(looked.look()).await;
        };
        if let Some(runtime) = of_its_own {
            let thread = thread::Builder::new().name("intake".to_owned());
            thread.spawn(move || runtime.block_on(looks))?;
        } else {
            workers.spawn(looks);
        }
        let ended = async move {
            // Nothing is ever sent: an error is what the end looks like.
            let _ = gone.await;
        };
        Ok((intake, ended))
    }

    /// Where to spawn what is to run on the thread.
    pub fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// Whether it has more to do than it should.
    pub fn is_busy(&self) -> bool {
        self.busy_percent() > BUSY_PERCENT
    }

    /// How much of the last quarter of a second it was busy.
    pub fn busy_percent(&self) -> u32 {
        self.busy_percent.load(Ordering::Relaxed)
    }

    /// Looks, for ever, how busy the thread is.
    async fn look(&self) {
        let metrics = self.runtime.metrics();
        let mut before = (Instant::now(), metrics.worker_total_busy_duration(0));
        loop {
            tokio::time::sleep(LOOK).await;
            let now = (Instant::now(), metrics.worker_total_busy_duration(0));
            let passed = (now.0 - before.0).as_micros().max(1);
            let busy = now.1.saturating_sub(before.1).as_micros();
            let percent = u32::try_from(busy * 100 / passed).unwrap_or(u32::MAX);
            self.busy_percent.store(percent.min(100), Ordering::Relaxed);
            before = now;
        }
    }
}
