use std::io::Read as _;
use std::time::Duration;

use proptest::prelude::*;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use super::*;

/// What an entry costs beyond its text: a slot, and a header for texts of 126 bytes and more.
const OVERHEAD: usize = 36;

fn writer(limit: usize) -> Writer {
    Writer::new(limit, Arc::default())
}

fn push(writer: &Writer, length: usize) -> Pushed {
    writer.push(&[Frame::of_length(length)], false)
}

const QUEUED: Pushed = Pushed {
    written: 0,
    queued: 1,
    overflowed: false,
};
const OVERFLOWED: Pushed = Pushed {
    written: 0,
    queued: 0,
    overflowed: true,
};
const ENDED: Pushed = Pushed {
    written: 0,
    queued: 0,
    overflowed: false,
};

#[test]
fn what_does_not_fit_ends_the_queue_and_drops_it() {
    let writer = writer(1000);
    assert_eq!(push(&writer, 500), QUEUED);
    assert!(writer.load(Instant::now()).is_half_full);
    assert_eq!(push(&writer, 500), OVERFLOWED);
    assert_eq!(push(&writer, 1), ENDED);
    assert_eq!(writer.ending(), Some(CloseReason::TooSlow));
    writer.open(None);
    assert_eq!(writer.drained(), b"");
}

#[test]
fn an_end_at_once_drops_what_waits_and_overtakes_one_that_waits_for_it() {
    for earlier in [None, Some(CloseReason::Restart)] {
        let depth = Arc::<QueueDepth>::default();
        let writer = Writer::new(10_000, Arc::clone(&depth));
        assert_eq!(push(&writer, 500), QUEUED);
        if let Some(reason) = earlier {
            writer.end_after(reason);
        }
        writer.end_now(CloseReason::Revoked);
        assert_eq!(writer.ending(), Some(CloseReason::Revoked));
        assert_eq!((push(&writer, 1), depth.now()), (ENDED, (0, 0)));
        // The first one holds.
        writer.end_now(CloseReason::NoAccess);
        writer.end_after(CloseReason::Restart);
        assert_eq!(writer.ending(), Some(CloseReason::Revoked));
        writer.open(None);
        assert_eq!(writer.drained(), b"");
    }
}

#[test]
fn one_frame_always_fits_an_empty_queue() {
    let writer = writer(10);
    writer.open(None);
    for _ in 0..2 {
        assert_eq!(push(&writer, 500), QUEUED);
        assert_eq!(writer.drained().len(), 504);
    }
    assert_eq!(writer.progress().0, 2 * 504);
}

#[test]
fn an_end_waits_for_what_was_queued_and_the_first_reason_stands() {
    let writer = writer(1000);
    push(&writer, 1);
    writer.end_after(CloseReason::Inactive);
    writer.end_after(CloseReason::Restart);
    assert_eq!(push(&writer, 1), ENDED);
    writer.open(None);
    assert_eq!(writer.drained(), b"\x81\x01x");
    assert_eq!(writer.ending(), Some(CloseReason::Inactive));
}

#[test]
fn nothing_is_written_before_the_101_is_out() {
    let writer = writer(1000);
    push(&writer, 3);
    let mut bytes = Vec::new();
    writer.take_bytes(usize::MAX, &mut bytes);
    assert_eq!(bytes, b"");
    writer.open(None);
    assert_eq!(writer.drained(), b"\x81\x03xxx");
}

#[test]
fn control_frames_overtake_the_queue_and_a_close_drops_it() {
    let writer = writer(1000);
    writer.open(None);
    push(&writer, 1);
    push(&writer, 2);
    let mut bytes = Vec::new();
    writer.take_bytes(2, &mut bytes);
    writer.pong(Bytes::from_static(b"[old pong]"));
    writer.ping(Bytes::from_static(b"[ping]"));
    writer.pong(Bytes::from_static(b"[pong]"));
    bytes.extend(writer.drained());
    assert_eq!(bytes, b"\x81\x01x[pong][ping]\x81\x02xx");
    push(&writer, 3);
    writer.ping(Bytes::from_static(b"[ping]"));
    writer.close(Bytes::from_static(b"[close]"), Undelivered::Closed);
    assert_eq!(writer.drained(), b"[ping][close]");
    writer.over(Undelivered::Closed);
    writer.ping(Bytes::from_static(b"[ping]"));
    let mut bytes = Vec::new();
    writer.take_bytes(usize::MAX, &mut bytes);
    assert_eq!(bytes, b"");
    assert_eq!(writer.0.depth.not_written(), (0, 1));
}

/// What a socket is told beside its notifications, as frames of one byte.
#[test]
fn the_hello_comes_first_and_one_answer_waits_at_its_place() {
    let frame = |byte: u8| Bytes::copy_from_slice(&[0x81, 1, byte]);
    let writer = writer(1000);
    push(&writer, 1);
    writer.hello(frame(b'h'));
    writer.open(None);
    push(&writer, 1);
    writer.answer(frame(b'a'), false);
    push(&writer, 1);
    // It is enough that one waits; one that says more takes its place.
    writer.answer(frame(b'b'), false);
    writer.answer(frame(b't'), true);
    writer.answer(frame(b'c'), false);
    // However little the kernel takes at once.
    let mut bytes = Vec::new();
    while writer.load(Instant::now()).status != QueueStatus::Clear || bytes.len() < 15 {
        let most = bytes.len() + 2;
        writer.take_bytes(most, &mut bytes);
    }
    assert_eq!(bytes, b"\x81\x01h\x81\x01x\x81\x01x\x81\x01t\x81\x01x");
    writer.answer(frame(b'd'), false);
    assert_eq!(writer.drained(), b"\x81\x01d");
    // What waits is no notification, and is dropped with the queue.
    push(&writer, 1);
    writer.answer(frame(b'e'), false);
    writer.close(frame(b'!'), Undelivered::Closed);
    writer.answer(frame(b'f'), true);
    assert_eq!(writer.drained(), b"\x81\x01!");
    assert_eq!(writer.progress().0, 15 + 3 + 3);
}

#[test]
fn whatever_happens_to_a_frame_the_depth_comes_back_to_zero() {
    let depth = Arc::<QueueDepth>::default();
    let writer = Writer::new(1000, Arc::clone(&depth));
    for _ in 0..3 {
        push(&writer, 200);
    }
    assert_eq!(depth.waiting(), (3, 3 * 236));
    writer.open(None);
    let mut bytes = Vec::new();
    writer.take_bytes(204, &mut bytes);
    assert_eq!(depth.waiting(), (2, 2 * 236));
    push(&writer, 900);
    assert_eq!(depth.waiting(), (0, 0));
    assert_eq!(depth.not_written(), (2, 0));
    let other = Writer::new(1000, Arc::clone(&depth));
    push(&other, 100);
    drop(other);
    assert_eq!(depth.waiting(), (0, 0));
    assert_eq!(depth.not_written(), (2, 1));
}

/// Writers that share a ceiling.
struct Gateway {
    limits: QueueLimits,
    depth: Arc<QueueDepth>,
    writers: Vec<Writer>,
}

impl Gateway {
    fn new(writers: usize, each: usize, all: usize) -> Self {
        let (limits, depth) = (QueueLimits::new(each, all), Arc::<QueueDepth>::default());
        let writer = || {
            let writer = Writer::new(limits, Arc::clone(&depth));
            writer.open(None);
            writer
        };
        let writers = (0..writers).map(|_| writer()).collect();
        Self {
            limits,
            depth,
            writers,
        }
    }

    /// Pushes a frame of its own.
    fn push(&self, writer: usize, length: usize) -> Pushed {
        self.writers[writer].push(&[Frame::counted(length, &self.depth)], false)
    }
}

#[test]
fn a_frame_counts_once_for_however_many_sockets_it_waits() {
    let gateway = Gateway::new(3, 1000, 100_000);
    let frame = Frame::counted(200, &gateway.depth);
    assert_eq!(gateway.depth.memory(), 204);
    for writer in &gateway.writers {
        assert_eq!(writer.push(std::slice::from_ref(&frame), false), QUEUED);
    }
    assert_eq!(gateway.depth.memory(), 204 + 3 * 32);
    drop(frame);
    for (writer, left) in gateway.writers.iter().zip([204 + 2 * 32, 204 + 32, 0]) {
        assert_eq!(writer.drained().len(), 204);
        // What was written is told of once more.
        writer.take_written();
        assert_eq!(gateway.depth.memory(), left);
    }
}

#[test]
fn far_from_the_ceiling_each_queue_has_its_whole_limit() {
    let gateway = Gateway::new(8, 1000, 12_000);
    for writer in 0..8 {
        assert_eq!(gateway.push(writer, 1000 - OVERHEAD), QUEUED);
    }
    assert_eq!(gateway.depth.memory(), 8000);
    assert_eq!(gateway.limits.now(8000), 1000);
    assert_eq!(gateway.limits.now(10_500), 500);
    assert_eq!(gateway.limits.now(12_000), 0);
    assert_eq!(gateway.limits.now(u64::MAX), 0);
}

#[test]
fn near_the_ceiling_the_fullest_queue_ends_and_what_it_held_lets_the_others_go_on() {
    let gateway = Gateway::new(20, 1000, 8000);
    for writer in 0..20 {
        assert_eq!(gateway.push(writer, 20 * writer), QUEUED);
    }
    let _elsewhere = Frame::counted(2900, &gateway.depth);
    assert_eq!(gateway.push(0, 10), QUEUED);
    assert_eq!(gateway.push(19, 10), OVERFLOWED);
    assert_eq!(gateway.push(18, 10), QUEUED);
    // Who has taken what it had goes on whatever the others do.
    for _ in 0..100 {
        gateway.writers[1].drained();
        assert_eq!(gateway.push(1, 10), QUEUED);
    }
}

#[test]
fn at_the_ceiling_an_empty_queue_still_takes_one() {
    let gateway = Gateway::new(1, 1000, 1000);
    let _waits_elsewhere = Frame::counted(5000, &gateway.depth);
    assert_eq!(gateway.push(0, 100), QUEUED);
    assert_eq!(gateway.push(0, 1), OVERFLOWED);
}

#[test]
fn a_queue_moves_if_the_kernel_takes_a_part_of_its_limit_in_a_second() {
    let writer = writer(32_000);
    writer.open(None);
    for _ in 0..20 {
        push(&writer, 996);
    }
    let start = writer.load(Instant::now()).oldest.expect("they wait");
    let mut bytes = Vec::new();
    for (at, takes, moves) in [
        // 2,000 bytes a second, from the time on when it began to wait.
        (100, 199, false),
        (200, 250, true),
        (1000, 1551, true),
        // What was so in the last whole second holds.
        (1500, 0, true),
        (2000, 1999, false),
        (3500, 3000, true),
    ] {
        let most = bytes.len() + takes;
        writer.take_bytes(most, &mut bytes);
        writer.refused();
        let now = start + Duration::from_millis(at);
        assert_eq!(writer.load(now).moves, moves, "{at}");
    }
}

/// A connection with a writer at one end.
async fn pair(limit: usize) -> (Writer, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    let (server, _) = accepted.expect("a peer");
    SockRef::from(&server)
        .set_send_buffer_size(4096)
        .expect("a size");
    let writer = writer(limit);
    writer.open(Some(server));
    (writer, client.expect("a peer"))
}

#[tokio::test]
async fn what_the_kernel_takes_is_written_at_once_and_the_rest_by_the_task() {
    const FRAMES: u64 = 2000;
    let (writer, mut client) = pair(usize::MAX).await;
    let frames: Vec<_> = (0..5).map(|_| Frame::of_length(1000)).collect();
    let one = writer.push(&frames[..1], false);
    assert_eq!((one.written, one.queued), (1, 0));
    let (mut written, mut queued) = (1, 0);
    while written + queued < FRAMES {
        let pushed = writer.push(&frames, false);
        assert!(!pushed.overflowed && pushed.written + pushed.queued == 5);
        written += pushed.written;
        queued += pushed.queued;
    }
    assert!(queued > 0, "the kernel took two megabytes");
    assert!(matches!(
        writer.load(Instant::now()).status,
        QueueStatus::Refused { .. }
    ));
    let all = (written + queued) as usize * 1004;
    let reads = async {
        let mut bytes = vec![0; all];
        client.read_exact(&mut bytes).await.expect("all of it");
        bytes
    };
    let writes = async {
        while std::future::poll_fn(|cx| writer.poll_write(cx))
            .await
            .expect("it is taken")
            == WriteTurn::More
        {}
    };
    let (bytes, ()) = tokio::join!(reads, writes);
    for frame in bytes.chunks(1004) {
        assert_eq!(frame, &frames[0].bytes[..]);
    }
    let told = writer.take_written().expect("some waited");
    assert_eq!((told.notifications, told.bytes), (queued, queued * 1000));
    assert_eq!(writer.load(Instant::now()).status, QueueStatus::Clear);
    assert_eq!(writer.progress().0, (written + queued) * 1004);
}

/// A runtime that had no time to hear of it must not close a socket that keeps up.
#[tokio::test]
async fn before_a_socket_is_closed_as_slow_the_kernel_is_asked_once_more() {
    let (writer, client) = pair(100_000).await;
    let frames: Vec<_> = (0..8).map(|_| Frame::of_length(1000)).collect();
    while !writer.load(Instant::now()).is_half_full {
        assert!(!writer.push(&frames, false).overflowed);
    }
    let mut client = client.into_std().expect("it is ours");
    let mut bytes = vec![0; 1_000_000];
    // The runtime gets no turn meanwhile.
    for _ in 0..1000 {
        while client.read(&mut bytes).is_ok() {}
        assert!(!writer.push(&frames, false).overflowed, "closed as slow");
    }
}

proptest! {
    /// Whatever is written when, and however little the kernel takes of it, the peer gets whole frames in order, and
    /// control frames between them.
    #[test]
    fn the_peer_gets_whole_frames_in_order(
        steps in prop::collection::vec((0u8..8, 0usize..300), 1..200),
    ) {
        let writer = writer(usize::MAX);
        writer.open(None);
        let (mut bytes, mut expected, mut pushed) = (Vec::new(), Vec::new(), Vec::new());
        for (what, size) in steps {
            match what {
                0..=3 => {
                    writer.push(&[Frame::of_length(size)], false);
                    pushed.push(size);
                }
                4 => writer.pong(Bytes::from_static(b"\x8a\x00")),
                5 => writer.ping(Bytes::from_static(b"\x89\x00")),
                _ => {
                    let most = bytes.len() + size;
                    writer.take_bytes(most, &mut bytes);
                }
            }
        }
        bytes.extend(writer.drained());
        let mut rest = &bytes[..];
        while let Some((&first, after)) = rest.split_first() {
            let (length, header) = match after[0] {
                126 => (usize::from(u16::from_be_bytes([after[1], after[2]])), 3),
                short => (usize::from(short), 1),
            };
            if first == 0x81 {
                expected.push(length);
            }
            rest = &after[header + length..];
        }
        prop_assert_eq!(expected, pushed);
    }

    /// The memory is always that of the frames and entries that are there; beyond the ceiling there
    /// is never more than the one entry that an empty queue takes; and a queue ends as slow
    /// only if it held more than its part.
    #[test]
    fn the_ceiling_holds_and_nothing_stays_counted(
        writers in 1usize..12,
        all in 1000usize..20_000,
        steps in prop::collection::vec((0usize..12, 0u8..8, 126usize..400), 1..400),
    ) {
        let gateway = Gateway::new(writers, 1000, all);
        for (index, what, length) in steps {
            let index = index % writers;
            let writer = &gateway.writers[index];
            match what {
                0..=4 => {
                    let before = writer.lock().bytes();
                    let part = gateway.limits.now(gateway.depth.memory() + length as u64 + 4);
                    match gateway.push(index, length) {
                        QUEUED => prop_assert!(before == 0 || before + length + OVERHEAD <= part),
                        OVERFLOWED => prop_assert!(before > 0 && before + length + OVERHEAD > part),
                        _ => {}
                    }
                }
                5..=6 => {
                    writer.drained();
                    writer.take_written();
                }
                _ => writer.end_after(CloseReason::Inactive),
            }
            let counted: usize = gateway.writers.iter().map(|writer| writer.lock().bytes()).sum();
            prop_assert_eq!(gateway.depth.memory(), counted as u64);
            prop_assert!(counted <= all + writers * 440, "{} of {}", counted, all);
        }
        let depth = Arc::clone(&gateway.depth);
        drop(gateway);
        prop_assert_eq!(depth.memory(), 0);
        prop_assert_eq!(depth.waiting(), (0, 0));
    }
}
