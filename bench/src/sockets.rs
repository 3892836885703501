//! Thousands of clients on one thread: opens them, reads what comes, and counts it for each.
//!
//! Nothing here waits for another: one poll, and timers for what is to happen later.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{self, Read as _};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mio::{Events, Interest, Poll, Token};

use crate::Error;
use crate::frame::{self, Broken};
use crate::marker::Markers;
use crate::slot::{Phase, Reads, Slot, SocketPlan, asks};
use crate::tally::{Counts, Receipt, Taker};

/// As much as is read at once.
const BUFFER_BYTES: usize = 256 * 1024;
/// The longest message. nats-server puts all that waits for a client into one: by default 64 MiB.
const MESSAGE_BYTES_MAX: usize = 128 * 1024 * 1024;
/// A slow reader takes its share so often.
const SIP: Duration = Duration::from_millis(100);
/// From the close of a socket that lives for a while to its return.
const AT_ONCE: Duration = Duration::from_millis(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Later {
    Connect,
    Leave,
    Sip,
}

/// All clients.
pub struct Sockets {
    poll: Poll,
    events: Events,
    slots: Vec<Slot>,
    timers: BinaryHeap<Reverse<(Instant, usize, u32, Later)>>,
    buffer: Vec<u8>,
    markers: Markers,
    /// Of measured sockets.
    pub counts: Counts,
    /// Of those beside them.
    pub beside: Counts,
    /// Deliveries to measured sockets.
    pub receipts: Vec<Receipt>,
    /// From the begin of a connection to its open.
    pub opened_us: Vec<u32>,
    open: usize,
    mask: u32,
}

impl Sockets {
    /// None yet.
    ///
    /// # Errors
    /// Where the system has no poll for it.
    pub fn new(run: &str) -> Result<Self, Error> {
        Ok(Self {
            poll: Poll::new().map_err(|error| Error::of("cannot poll sockets", error))?,
            events: Events::with_capacity(1024),
            slots: Vec::new(),
            timers: BinaryHeap::new(),
            buffer: vec![0; BUFFER_BYTES],
            markers: Markers::new(run),
            counts: Counts::default(),
            beside: Counts::default(),
            receipts: Vec::new(),
            opened_us: Vec::new(),
            open: 0,
            mask: std::process::id(),
        })
    }

    /// Adds clients, of which so many connect each second from now on. Returns when the last does.
    pub fn add(&mut self, plans: Vec<SocketPlan>, per_second: f64) -> Instant {
        let start = Instant::now();
        let mut at = start;
        for (index, plan) in plans.into_iter().enumerate() {
            at = start + Duration::from_secs_f64(index as f64 / per_second);
            let slot = self.slots.len();
            self.timers.push(Reverse((at, slot, 0, Later::Connect)));
            self.slots.push(Slot::new(plan, at));
        }
        at
    }

    /// What was counted, of measured sockets and of the others, and the receipts; they begin anew.
    pub(crate) fn counted(&mut self) -> (Counts, Counts, Vec<Receipt>) {
        let counts = std::mem::take(&mut self.counts);
        let beside = std::mem::take(&mut self.beside);
        (counts, beside, std::mem::take(&mut self.receipts))
    }

    /// Handles what there is until `until`.
    ///
    /// # Errors
    /// Where the poll fails.
    pub fn run_until(&mut self, until: Instant) -> Result<(), Error> {
        while Instant::now() < until {
            self.step(until)?;
        }
        Ok(())
    }

    /// How many are open, measured or not.
    pub fn open(&self) -> usize {
        self.open
    }

    /// Handles what there is until `until`, at most one poll's events.
    ///
    /// # Errors
    /// Where the poll fails.
    pub fn step(&mut self, until: Instant) -> Result<(), Error> {
        let now = Instant::now();
        while let Some(Reverse((at, ..))) = self.timers.peek()
            && *at <= now
        {
            if let Some(Reverse((_, index, turn, what))) = self.timers.pop() {
                self.timer(index, turn, what);
            }
        }
        let next = self.timers.peek().map_or(until, |Reverse((at, ..))| *at);
        let wait = next.min(until).saturating_duration_since(Instant::now());
        match self.poll.poll(&mut self.events, Some(wait)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                return Err(Error::of("cannot poll sockets", error));
            }
            _ => {}
        }
        let ready: Vec<(usize, bool, bool)> = self
            .events
            .iter()
            .map(|event| {
                let is_gone = event.is_error() || event.is_write_closed();
                (event.token().0, is_gone, event.is_writable())
            })
            .collect();
        for (index, is_gone, is_writable) in ready {
            self.ready(index, is_gone, is_writable);
        }
        Ok(())
    }

    /// Closes all connections and forgets about them.
    pub fn end(&mut self) {
        for slot in &mut self.slots {
            if slot.phase == Phase::Open {
                // It ends either way.
                slot.leave().unwrap_or_default();
            }
        }
        self.slots.clear();
        self.timers.clear();
        self.open = 0;
    }

    fn counts_of(&mut self, measured: bool) -> &mut Counts {
        if measured {
            &mut self.counts
        } else {
            &mut self.beside
        }
    }

    fn timer(&mut self, index: usize, turn: u32, what: Later) {
        let Some(slot) = self.slots.get_mut(index).filter(|slot| slot.turn == turn) else {
            return;
        };
        match what {
            Later::Connect => self.connect(index),
            Later::Leave => {
                // It leaves either way.
                slot.leave().unwrap_or_default();
                self.ended(index, "1000 of its own");
            }
            Later::Sip => {
                if let Reads::Slowly(bytes_a_second) = slot.plan.manner.reads {
                    let sip = bytes_a_second as usize / 10;
                    self.read(index, sip.clamp(1, BUFFER_BYTES));
                    self.later(index, SIP, Later::Sip);
                }
            }
        }
    }

    /// Has `what` happen to this connection later, if it is still there.
    fn later(&mut self, index: usize, delay: Duration, what: Later) {
        if let (Some(slot), Some(at)) = (self.slots.get(index), Instant::now().checked_add(delay)) {
            self.timers.push(Reverse((at, index, slot.turn, what)));
        }
    }

    fn connect(&mut self, index: usize) {
        let Some(slot) = self.slots.get_mut(index) else {
            return;
        };
        slot.began = Instant::now();
        let is_slow = slot.plan.manner.reads != Reads::All;
        let connected = slot.plan.address.connect(is_slow).and_then(|mut wire| {
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.poll
                .registry()
                .register(&mut wire.tcp, Token(index), interest)?;
            Ok(wire)
        });
        match connected {
            Ok(wire) => {
                slot.wire = Some(wire);
                slot.phase = Phase::Upgrading;
                slot.unsent.clone_from(&slot.plan.request);
            }
            Err(error) => self.ended(index, &told(&error)),
        }
    }

    fn ready(&mut self, index: usize, is_gone: bool, is_writable: bool) {
        let Some(slot) = self.slots.get_mut(index).filter(|slot| slot.wire.is_some()) else {
            return;
        };
        if is_writable
            && !slot.unsent.is_empty()
            && let Err(error) = slot.send()
        {
            return self.ended(index, &told(&error));
        }
        if slot.phase == Phase::Upgrading || slot.plan.manner.reads == Reads::All {
            self.read(index, BUFFER_BYTES);
        } else if is_gone {
            self.ended(index, "reset");
        }
    }

    /// Reads what there is, or `most` bytes of it where that is less than a buffer.
    fn read(&mut self, index: usize, most: usize) {
        let mut buffer = std::mem::take(&mut self.buffer);
        while let Some(slot) = self.slots.get_mut(index) {
            let Some(wire) = &mut slot.wire else { break };
            let read = wire.read(buffer.get_mut(..most).unwrap_or_default());
            let is_plain = wire.is_plain();
            match read {
                Ok(0) => {
                    self.ended(index, "end without a close");
                    break;
                }
                Ok(count) => {
                    let now = SystemTime::now().duration_since(UNIX_EPOCH);
                    let now = now.map_or(0, |now| u64::try_from(now.as_micros()).unwrap_or(0));
                    let bytes = buffer.get(..count).unwrap_or_default();
                    if let Err(why) = self.take(index, bytes, now) {
                        self.ended(index, &why);
                        break;
                    }
                    // A plain socket that gave less than was asked for has no more: epoll(7).
                    if most < BUFFER_BYTES || (is_plain && count < most) {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let why = told(&error);
                    self.ended(index, &why);
                    break;
                }
            }
        }
        self.buffer = buffer;
    }

    /// Takes what a socket read.
    ///
    /// # Errors
    /// How the connection ends by it.
    fn take(&mut self, index: usize, bytes: &[u8], now: u64) -> Result<(), String> {
        let Some(slot) = self.slots.get_mut(index) else {
            return Ok(());
        };
        let mut kept = std::mem::take(&mut slot.rest);
        let all = if kept.is_empty() {
            bytes
        } else {
            kept.extend_from_slice(bytes);
            &kept
        };
        let rest = if slot.phase == Phase::Open {
            self.frames(index, all, now)?
        } else {
            match slot.upgraded(all)? {
                None => all,
                Some(behind) => {
                    self.opened(index);
                    self.frames(index, behind, now)?
                }
            }
        };
        let taken = all.len() - rest.len();
        if let Some(slot) = self.slots.get_mut(index) {
            // A long frame comes in many reads: what is kept of it is not copied at each.
            slot.rest = if kept.is_empty() {
                rest.to_vec()
            } else if taken == kept.len() {
                Vec::new()
            } else {
                kept.drain(..taken);
                kept
            };
            if !slot.unsent.is_empty() {
                slot.send().map_err(|error| told(&error))?;
            }
        }
        Ok(())
    }

    fn opened(&mut self, index: usize) {
        let Some(slot) = self.slots.get_mut(index) else {
            return;
        };
        slot.phase = Phase::Open;
        // A connection of a socket that was there before joins where the room is.
        slot.newest = None;
        for text in &slot.plan.hello {
            let hello = frame::masked(frame::TEXT, text.as_bytes(), self.mask.to_be_bytes());
            slot.unsent.extend(hello);
        }
        let took = u32::try_from(slot.began.elapsed().as_micros()).unwrap_or(u32::MAX);
        let (measured, manner) = (slot.plan.measured, slot.plan.manner);
        if measured {
            self.opened_us.push(took);
        }
        self.open += 1;
        self.counts_of(measured).opened += 1;
        if let Some(lives) = manner.lives {
            self.later(index, lives, Later::Leave);
        }
        if matches!(manner.reads, Reads::Slowly(_)) {
            self.later(index, SIP, Later::Sip);
        }
    }

    /// Takes the whole frames in `bytes`, and returns what is behind them.
    fn frames<'a>(
        &mut self,
        index: usize,
        mut bytes: &'a [u8],
        now: u64,
    ) -> Result<&'a [u8], String> {
        let Some(slot) = self.slots.get_mut(index) else {
            return Ok(&[]);
        };
        let counts = if slot.plan.measured {
            &mut self.counts
        } else {
            &mut self.beside
        };
        let receipts = slot.plan.measured.then_some(&mut self.receipts);
        let mut taker = Taker {
            room: slot.plan.room,
            seen: &mut slot.seen,
            newest: &mut slot.newest,
            counts,
            receipts,
            now,
        };
        let broken = |Broken(why)| format!("broken: {why}");
        while let Some((frame, rest)) = frame::split(bytes).map_err(broken)? {
            bytes = rest;
            let payload = frame.payload;
            self.mask = self
                .mask
                .wrapping_mul(1_664_525)
                .wrapping_add(1_013_904_223);
            let mask = self.mask.to_be_bytes();
            match (frame.opcode, &mut slot.parts) {
                (frame::PING, _) => slot
                    .unsent
                    .extend(frame::masked(frame::PONG, payload, mask)),
                (frame::PONG, _) => {}
                (frame::CLOSE, _) => {
                    slot.unsent
                        .extend(frame::masked(frame::CLOSE, payload, mask));
                    // It ends either way.
                    slot.send().unwrap_or_default();
                    let code = payload
                        .first_chunk()
                        .map_or(1005, |code| u16::from_be_bytes(*code));
                    return Err(code.to_string());
                }
                (frame::CONTINUATION, Some(parts)) => {
                    parts.extend_from_slice(payload);
                    if parts.len() > MESSAGE_BYTES_MAX {
                        return Err("broken: a message is too long".to_owned());
                    }
                    if frame.is_last {
                        let whole = slot.parts.take().unwrap_or_default();
                        self.markers.find(&whole, |mark| taker.delivered(mark));
                    }
                }
                (frame::CONTINUATION, None) => return Err("broken: nothing to continue".to_owned()),
                (_, Some(_)) => return Err("broken: a message within another".to_owned()),
                (_, None) if !frame.is_last => slot.parts = Some(payload.to_vec()),
                (_, None) => {
                    if let Some(pong) = &slot.plan.pong
                        && asks(payload, &pong.0)
                    {
                        let answer = frame::masked(frame::TEXT, pong.1.as_bytes(), mask);
                        slot.unsent.extend(answer);
                    }
                    self.markers.find(payload, |mark| taker.delivered(mark));
                }
            }
        }
        if bytes.len() > MESSAGE_BYTES_MAX {
            return Err("broken: a frame is too long".to_owned());
        }
        Ok(bytes)
    }

    /// Counts the end of a connection, and has it come back if that is its manner.
    fn ended(&mut self, index: usize, why: &str) {
        let Some(slot) = self.slots.get_mut(index) else {
            return;
        };
        if let Some(mut wire) = slot.wire.take() {
            // The connection is dropped, whether the poll still knew it or not.
            self.poll
                .registry()
                .deregister(&mut wire.tcp)
                .unwrap_or_default();
        }
        let was_open = slot.phase == Phase::Open;
        slot.phase = Phase::Idle;
        slot.turn += 1;
        slot.rest = Vec::new();
        slot.unsent = Vec::new();
        slot.parts = None;
        let (measured, manner) = (slot.plan.measured, slot.plan.manner);
        let counts = self.counts_of(measured);
        let reasons = if was_open {
            &mut counts.closed
        } else {
            &mut counts.refused
        };
        *reasons.entry(why.to_owned()).or_default() += 1;
        self.open -= usize::from(was_open);
        let back = manner.back.or(manner.lives.map(|_| AT_ONCE));
        if let Some(back) = back {
            self.later(index, back, Later::Connect);
        }
    }
}

/// Why a connection ended, in words that are the same for all of a kind.
fn told(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => "reset".to_owned(),
        // What TLS says of a certificate.
        io::ErrorKind::InvalidData => error.to_string(),
        kind => kind.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::marker::Mark;
    use crate::slot::{ACCEPT, Manner, request_at};
    use crate::wire::Address;

    #[test]
    fn a_frame_as_long_as_nats_server_makes_them_is_taken() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("ws://{}/", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mark = Mark {
                room: 0,
                sequence: 0,
            };
            // Its max_pending of 64 MiB, and one event.
            let payload = "-".repeat(64 << 20) + &Markers::new("r").event(mark, 1);
            let answer = format!("HTTP/1.1 101 -\r\nSec-WebSocket-Accept: {ACCEPT}\r\n\r\n");
            let length = (payload.len() as u64).to_be_bytes();
            let frame = [&[0x82, 127], &length[..], payload.as_bytes()].concat();
            stream.write_all(answer.as_bytes()).unwrap();
            stream.write_all(&frame).unwrap();
            // Until the client is gone.
            stream.read_to_end(&mut Vec::new()).ok();
        });
        let plan = SocketPlan {
            address: Address::of(&url, None).unwrap(),
            request: request_at(&url).unwrap(),
            hello: Vec::new(),
            pong: None,
            room: 0,
            measured: true,
            manner: Manner::STEADY,
        };
        let mut sockets = Sockets::new("r").unwrap();
        sockets.add(vec![plan], 1.0);
        while sockets.counts.delivered == 0 {
            let ends = (&sockets.counts.closed, &sockets.counts.refused);
            assert!(ends.0.is_empty() && ends.1.is_empty(), "{ends:?}");
            sockets
                .step(Instant::now() + Duration::from_millis(20))
                .unwrap();
        }
        sockets.end();
        server.join().unwrap();
    }
}
