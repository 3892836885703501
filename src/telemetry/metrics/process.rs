//! What the process itself costs (semantic conventions for process metrics), read from `/proc` when
//! somebody looks.

use std::time::Instant;

use opentelemetry::KeyValue;
use opentelemetry::metrics::Meter;
use procfs::process::Process;

/// Registers the instruments. Where `/proc` cannot be read, they have no values.
pub(super) fn observe(meter: &Meter) {
    // The instruments live in the provider; their handles are not needed again.
    let _ = meter
        .f64_observable_counter("process.cpu.time")
        .with_unit("s")
        .with_description("CPU time of the process, by mode")
        .with_callback(|observer| {
            let Some(stat) = Process::myself().and_then(|own| own.stat()).ok() else {
                return;
            };
            for (mode, ticks) in [("user", stat.utime), ("system", stat.stime)] {
                let seconds = seconds(ticks);
                observer.observe(seconds, &[KeyValue::new("cpu.mode", mode)]);
            }
        })
        .build();
    gauge(
        meter,
        "process.memory.usage",
        "By",
        "Resident memory",
        resident,
    );
    gauge(
        meter,
        "process.memory.virtual",
        "By",
        "Virtual memory",
        |own| own.stat().ok().map(|stat| stat.vsize),
    );
    gauge(
        meter,
        "process.open_file_descriptor.count",
        "{file_descriptor}",
        "Open file descriptors",
        |own| own.fd_count().ok().map(|count| count as u64),
    );
    gauge(
        meter,
        "process.thread.count",
        "{thread}",
        "Threads",
        |own| {
            own.stat()
                .ok()
                .and_then(|stat| u64::try_from(stat.num_threads).ok())
        },
    );
    let start = Instant::now();
    let _ = meter
        .f64_observable_gauge("process.uptime")
        .with_unit("s")
        .with_description("Time since the process started")
        .with_callback(move |observer| observer.observe(start.elapsed().as_secs_f64(), &[]))
        .build();
}

/// Resident memory of this process, if it can be read.
pub(super) fn resident_memory() -> Option<u64> {
    Process::myself().ok().as_ref().and_then(resident)
}

fn resident(process: &Process) -> Option<u64> {
    let stat = process.stat().ok()?;
    Some(stat.rss * procfs::page_size())
}

fn gauge(
    meter: &Meter,
    name: &'static str,
    unit: &'static str,
    about: &'static str,
    read: impl Fn(&Process) -> Option<u64> + Send + Sync + 'static,
) {
    let _ = meter
        .u64_observable_gauge(name)
        .with_unit(unit)
        .with_description(about)
        .with_callback(move |observer| {
            if let Some(value) = Process::myself().ok().as_ref().and_then(&read) {
                observer.observe(value, &[]);
            }
        })
        .build();
}

fn seconds(ticks: u64) -> f64 {
    #[expect(
        clippy::cast_precision_loss,
        reason = "ticks are hundredths of seconds"
    )]
    let seconds = ticks as f64 / procfs::ticks_per_second() as f64;
    seconds
}
