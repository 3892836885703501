//! A client's bytes after its handshake, through the WebSocket library up to the session.
//!
//! The first two bytes say how much of the rest came with the handshake.

#![no_main]

use std::cell::OnceCell;
use std::time::Instant;

use herald::fuzzing::socket::{ObservedFrame, frames};
use libfuzzer_sys::fuzz_target;
use tokio::runtime::{Builder, Runtime};

/// Small, so that inputs reach it.
const LARGEST: usize = 1000;
/// As many messages a client may send at once, and as many more in a second.
const BURST: usize = 200;
const PER_SECOND: f64 = 20.0;
/// What was read with the first that was too many is given out, too: a buffer of the shortest frames.
const READ: usize = 1024 / 6;

thread_local! {
    static RUNTIME: OnceCell<Runtime> = const { OnceCell::new() };
}

fn run(bytes: &[u8], read: usize) -> Vec<ObservedFrame> {
    RUNTIME.with(|runtime| {
        let make = || {
            Builder::new_current_thread()
                .enable_io()
                .build()
                .expect("a runtime")
        };
        runtime
            .get_or_init(make)
            .block_on(frames(bytes, read, LARGEST))
    })
}

fuzz_target!(|data: &[u8]| {
    let Some((read, bytes)) = data.split_first_chunk::<2>() else {
        return;
    };
    let began = Instant::now();
    let seen = run(bytes, 0);
    // The fuzzer may have had to wait for its turn.
    let earned = (began.elapsed().as_secs_f64() * PER_SECOND).ceil() as usize;
    let mut counted = 0;
    for (index, one) in seen.iter().enumerate() {
        let is_last = index + 1 == seen.len();
        match one {
            ObservedFrame::Text(text) => {
                assert!(text.len() <= LARGEST, "a message over the limit");
                counted += 1;
            }
            ObservedFrame::Ping => counted += 1,
            ObservedFrame::Pong | ObservedFrame::Token => {}
            ObservedFrame::Closed(code) => {
                assert!(is_last, "something after the client's close");
                let is_sendable = matches!(code, 1000..=1003 | 1005 | 1007..=1014 | 3000..=4999);
                assert!(is_sendable, "took the close code {code}");
            }
            ObservedFrame::Ours(code) => {
                assert!(is_last, "something after a close");
                assert!(
                    matches!(code, 1002 | 1003 | 1007 | 1009 | 4001 | 4029),
                    "closed with {code}"
                );
            }
            ObservedFrame::Gone => assert!(is_last, "something after the end"),
        }
    }
    assert!(seen.last().is_some_and(|last| matches!(
        last,
        ObservedFrame::Closed(_) | ObservedFrame::Ours(_) | ObservedFrame::Gone
    )));
    assert!(
        counted <= BURST + earned + READ,
        "{counted} messages at once"
    );
    // How the bytes were cut on their way changes nothing, but for when a flood is noticed.
    let read = usize::from(u16::from_le_bytes(*read)) % (bytes.len() + 1);
    let cut = run(bytes, read);
    let both = seen.len().min(cut.len());
    let differs = seen.iter().zip(&cut).position(|(one, other)| one != other);
    match differs.unwrap_or(both) {
        at if at == seen.len() && at == cut.len() => {}
        at => {
            let is_flood =
                |seen: &[ObservedFrame]| seen.get(at) == Some(&ObservedFrame::Ours(4029));
            assert!(
                is_flood(&seen) || is_flood(&cut),
                "cut at {read}: {seen:?}, {cut:?}"
            );
        }
    }
});
