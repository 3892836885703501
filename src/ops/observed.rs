//! The instruments of what other parts count: they are read there, when somebody looks.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use opentelemetry::KeyValue;
use opentelemetry::metrics::Meter;

use crate::auth::{Revocations, RevokedKind};
use crate::nats::{DeadLetterCounters, DropReason, Intake, Readable, RevocationReads, Unroutable};
use crate::setup::LiveSettings;
use crate::socket::QueueDepth;

/// Shows what waits for all sockets.
pub(super) fn queues(meter: &Meter, depth: &Arc<QueueDepth>) {
    // The instruments live in the provider; their handles are not needed again, here and below.
    type Look = fn(&QueueDepth) -> i64;
    let all: [(_, _, _, Look); 3] = [
        (
            "herald.queue.notifications",
            "{notification}",
            "Notifications waiting for all sockets",
            |depth| depth.now().0,
        ),
        (
            "herald.queue.bytes",
            "By",
            "Bytes waiting for all sockets, as sockets.queue_bytes counts them",
            |depth| depth.now().1,
        ),
        (
            "herald.queue.memory",
            "By",
            "Memory of what waits for all sockets, as sockets.queue_bytes_total counts it",
            |depth| i64::try_from(depth.memory()).unwrap_or(i64::MAX),
        ),
    ];
    for (name, unit, about, look) in all {
        let depth = Arc::clone(depth);
        let _instrument = meter
            .i64_observable_gauge(name)
            .with_unit(unit)
            .with_description(about)
            .with_callback(move |observer| observer.observe(look(&depth), &[]))
            .build();
    }
    let depth = Arc::clone(depth);
    let _instrument = meter
        .u64_observable_counter("herald.deliveries.dropped")
        .with_unit("{notification}")
        .with_description("Notifications queued and not written, by reason")
        .with_callback(move |observer| {
            let (slow, closed) = depth.not_written();
            for (reason, value) in [("slow", slow), ("closed", closed)] {
                observer.observe(value, &[KeyValue::new("reason", reason)]);
            }
        })
        .build();
}

/// Shows how busy the thread is that reads from NATS.
pub(super) fn intake(meter: &Meter, intake: Intake) {
    let _instrument = meter
        .f64_observable_gauge("herald.intake.utilization")
        .with_unit("1")
        .with_description("How busy the thread is that reads from NATS: 0 to 1")
        .with_callback(move |observer| {
            observer.observe(f64::from(intake.busy_percent()) / 100.0, &[]);
        })
        .build();
}

/// Shows which streams can be read, and how much is denied.
pub(super) fn readable(meter: &Meter, readable: Readable) {
    let denials = readable.clone();
    let _instrument = meter
        .u64_observable_gauge("herald.nats.denied")
        .with_description("Subjects that NATS denies this gateway")
        .with_callback(move |observer| observer.observe(denials.denied() as u64, &[]))
        .build();
    let _instrument = meter
        .u64_observable_gauge("herald.stream.readable")
        .with_description("Whether the last check of a stream got an answer: 1 or 0")
        .with_callback(move |observer| {
            for (stream, way, works) in readable.all() {
                let labels = [
                    KeyValue::new("stream", stream.to_owned()),
                    KeyValue::new("read", way.as_str()),
                ];
                observer.observe(works.into(), &labels);
            }
        })
        .build();
}

/// Starts to look for what the stream holds that no room can take, and shows it. The task that has to be run for it.
pub(super) fn started(
    meter: &Meter,
    unroutable: Unroutable,
) -> impl Future<Output = ()> + Send + use<> {
    let (counts, look) = unroutable.start();
    let _instrument = meter
        .u64_observable_gauge("herald.events.unroutable")
        .with_unit("{event}")
        .with_description("Events in the stream whose subject no room can take, by reason")
        .with_callback(move |observer| {
            for (reason, events) in counts.all() {
                observer.observe(events, &[KeyValue::new("reason", reason.as_str())]);
            }
        })
        .build();
    look
}

/// Shows what is revoked, and how old what is known of it is.
pub(super) fn revocations(meter: &Meter, revocations: &Revocations, reads: &RevocationReads) {
    let age = reads.clone();
    let _instrument = meter
        .f64_observable_gauge("herald.revocations.age")
        .with_unit("s")
        .with_description("Since a read of the revocations reached the end of their stream")
        .with_callback(move |observer| {
            if let Some(whole) = age.last().whole {
                observer.observe(whole.elapsed().as_secs_f64(), &[]);
            }
        })
        .build();
    let sequence = reads.clone();
    let _instrument = meter
        .u64_observable_gauge("herald.revocations.sequence")
        .with_description("The last sequence of the stream of revocations that is in force")
        .with_callback(move |observer| observer.observe(sequence.last().sequence, &[]))
        .build();
    let ignored = reads.clone();
    let _instrument = meter
        .u64_observable_gauge("herald.revocations.ignored")
        .with_unit("{message}")
        .with_description(
            "Messages in the stream of revocations that are no entries, and do nothing",
        )
        .with_callback(move |observer| observer.observe(ignored.ignored(), &[]))
        .build();
    let revoked = revocations.clone();
    let _instrument = meter
        .u64_observable_gauge("herald.revocations")
        .with_description("Users, tokens and keys that are revoked")
        .with_callback(move |observer| {
            for kind in RevokedKind::ALL {
                let count = revoked.look(|set| set.count(kind));
                observer.observe(count as u64, &[KeyValue::new("kind", kind.as_str())]);
            }
        })
        .build();
}

/// Shows the dead letters' own counters.
pub(super) fn dead_letters(meter: &Meter, counters: Arc<DeadLetterCounters>) {
    let _instrument = meter
        .u64_observable_counter("herald.dead_letters")
        .with_unit("{event}")
        .with_description("Dead letters, by outcome")
        .with_callback(move |observer| {
            for (outcome, counter) in [
                ("published", &counters.published),
                ("duplicate", &counters.duplicate),
            ] {
                let value = counter.load(Ordering::Relaxed);
                observer.observe(value, &[KeyValue::new("outcome", outcome)]);
            }
            for reason in DropReason::ALL {
                let labels = [
                    KeyValue::new("outcome", "dropped"),
                    KeyValue::new("reason", reason.as_str()),
                ];
                observer.observe(counters.dropped(reason), &labels);
            }
        })
        .build();
}

/// Shows the keys that are fetched from an address.
pub(super) fn keys(meter: &Meter, live: LiveSettings) {
    let issuer = |table: &str| KeyValue::new("issuer", table.to_owned());
    let known = live.clone();
    let _instrument = meter
        .u64_observable_gauge("herald.keys")
        .with_unit("{key}")
        .with_description("Keys in force of a key set that is fetched, by issuer")
        .with_callback(move |observer| {
            for (table, status) in known.now().verifier.keys_status(Instant::now()) {
                observer.observe(status.keys as u64, &[issuer(table)]);
            }
        })
        .build();
    let known = live.clone();
    let _instrument = meter
        .f64_observable_gauge("herald.keys.age")
        .with_unit("s")
        .with_description("Time since the keys of an address were fetched, by issuer")
        .with_callback(move |observer| {
            for (table, status) in known.now().verifier.keys_status(Instant::now()) {
                if let Some(age) = status.age {
                    observer.observe(age.as_secs_f64(), &[issuer(table)]);
                }
            }
        })
        .build();
    let known = live.clone();
    let _instrument = meter
        .u64_observable_counter("herald.keys.fetches")
        .with_unit("{fetch}")
        .with_description("Fetches of key sets, by issuer and result")
        .with_callback(move |observer| {
            for (table, status) in known.now().verifier.keys_status(Instant::now()) {
                for (result, count) in status.fetches {
                    let result = KeyValue::new("result", result);
                    observer.observe(count, &[issuer(table), result]);
                }
            }
        })
        .build();
    let _instrument = meter
        .u64_observable_counter("herald.keys.withdrawn")
        .with_unit("{key}")
        .with_description(
            "Keys that a key set no longer has, and whose sockets were closed, by issuer",
        )
        .with_callback(move |observer| {
            for (table, status) in live.now().verifier.keys_status(Instant::now()) {
                observer.observe(status.withdrawn, &[issuer(table)]);
            }
        })
        .build();
}
