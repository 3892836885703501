//! Thousands of clients on one thread: opens them, reads what comes, and counts it for each.
//!
//! Nothing here waits for another: one poll, and timers for what is to happen later.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::io::{self, Read as _, Write as _};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mio::{Events, Interest, Poll, Token};

use crate::Error;
use crate::frame::{self, Broken};
use crate::marker::{Mark, Markers};
use crate::wire::{Address, Url, Wire};

/// As much as is read at once.
const BUFFER_BYTES: usize = 256 * 1024;
/// The longest answer to an upgrade, and the longest message.
const HEAD_BYTES_MAX: usize = 16 * 1024;
const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// A slow reader takes its share so often.
const SIP: Duration = Duration::from_millis(100);
/// From the close of a socket that lives for a while to its return.
const AT_ONCE: Duration = Duration::from_millis(1);

/// How a client reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reads {
    /// All that comes.
    All,
    /// So many bytes a second.
    Slowly(u32),
    /// Nothing after the open.
    Nothing,
}

/// What a client does that is not to be measured itself.
#[derive(Debug, Clone, Copy)]
pub struct Manner {
    pub reads: Reads,
    /// Connects anew so long after its connection ended.
    pub back: Option<Duration>,
    /// Closes so long after its open.
    pub lives: Option<Duration>,
}

impl Manner {
    pub const STEADY: Self = Self {
        reads: Reads::All,
        back: None,
        lives: None,
    };
}

/// One client, and what it is there for.
#[derive(Clone)]
pub struct Seat {
    pub address: Address,
    /// The head of the upgrade, which holds a token: no `Debug`.
    pub request: Vec<u8>,
    /// Text frames to send after the open.
    pub hello: Vec<String>,
    /// The server's question and the answer to it.
    pub pong: Option<Arc<(Vec<u8>, String)>>,
    pub room: u32,
    /// Whether what it gets is measured, or is there to be beside it.
    pub measured: bool,
    pub manner: Manner,
}

/// Deliveries of consecutive events of a room that one socket read at once.
#[derive(Debug, Clone, Copy)]
pub struct Receipt {
    pub first: Mark,
    pub count: u32,
    /// Since the epoch.
    pub at_us: u64,
}

/// What was counted, of measured sockets and of the others.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    pub delivered: u64,
    pub duplicate: u64,
    pub out_of_order: u64,
    /// Events of a room that the socket is not in.
    pub foreign: u64,
    pub opened: u64,
    /// How sockets ended, by code or word.
    pub closed: BTreeMap<String, u64>,
    /// Why upgrades came to nothing.
    pub refused: BTreeMap<String, u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Idle,
    /// Until the head of the answer is there.
    Upgrading,
    Open,
}

struct Slot {
    seat: Seat,
    wire: Option<Wire>,
    phase: Phase,
    began: Instant,
    /// Which connection of this seat it is, so that a timer of an earlier one does nothing.
    turn: u32,
    /// What was read of a frame or head that is not all there.
    rest: Vec<u8>,
    /// A message in parts, as far as it came.
    parts: Option<Vec<u8>>,
    unsent: Vec<u8>,
    /// One bit for each event of the room.
    seen: Vec<u64>,
    newest: Option<u32>,
}

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

    /// Adds a client that connects at `at`.
    pub fn add(&mut self, seat: Seat, at: Instant) {
        let slot = Slot {
            seat,
            wire: None,
            phase: Phase::Idle,
            began: at,
            turn: 0,
            rest: Vec::new(),
            parts: None,
            unsent: Vec::new(),
            seen: Vec::new(),
            newest: None,
        };
        self.timers
            .push(Reverse((at, self.slots.len(), 0, Later::Connect)));
        self.slots.push(slot);
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
                if let Reads::Slowly(bytes_a_second) = slot.seat.manner.reads {
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
        let is_slow = slot.seat.manner.reads != Reads::All;
        let connected = slot.seat.address.connect(is_slow).and_then(|mut wire| {
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
                slot.unsent.clone_from(&slot.seat.request);
            }
            Err(error) => self.ended(index, &error.kind().to_string()),
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
            return self.ended(index, &error.kind().to_string());
        }
        if slot.phase == Phase::Upgrading || slot.seat.manner.reads == Reads::All {
            self.read(index, BUFFER_BYTES);
        } else if is_gone {
            self.ended(index, "reset");
        }
    }

    /// Reads what there is, or `most` bytes of it where that is less than a buffer.
    fn read(&mut self, index: usize, most: usize) {
        let mut buffer = std::mem::take(&mut self.buffer);
        loop {
            let Some(slot) = self.slots.get_mut(index) else {
                break;
            };
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
                    let why = match error.kind() {
                        io::ErrorKind::ConnectionReset => "reset".to_owned(),
                        // What TLS says of a certificate.
                        io::ErrorKind::InvalidData => error.to_string(),
                        kind => kind.to_string(),
                    };
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
        let mut rest = bytes;
        if !kept.is_empty() {
            kept.extend_from_slice(bytes);
            rest = &kept;
        }
        if slot.phase == Phase::Upgrading {
            match slot.upgraded(rest)? {
                None => {
                    slot.rest = rest.to_vec();
                    return Ok(());
                }
                Some(behind) => rest = behind,
            }
            self.opened(index);
        }
        let rest = self.frames(index, rest, now)?;
        if let Some(slot) = self.slots.get_mut(index) {
            slot.rest.extend_from_slice(rest);
            if !slot.unsent.is_empty() {
                slot.send().map_err(|error| error.kind().to_string())?;
            }
        }
        Ok(())
    }

    fn opened(&mut self, index: usize) {
        let Some(slot) = self.slots.get_mut(index) else {
            return;
        };
        slot.phase = Phase::Open;
        // A connection of a seat that was there before joins where the room is.
        slot.newest = None;
        for text in &slot.seat.hello {
            let hello = frame::masked(frame::TEXT, text.as_bytes(), self.mask.to_be_bytes());
            slot.unsent.extend(hello);
        }
        let took = u32::try_from(slot.began.elapsed().as_micros()).unwrap_or(u32::MAX);
        let (measured, manner) = (slot.seat.measured, slot.seat.manner);
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
        let counts = if slot.seat.measured {
            &mut self.counts
        } else {
            &mut self.beside
        };
        let receipts = slot.seat.measured.then_some(&mut self.receipts);
        let mut taker = Taker {
            room: slot.seat.room,
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
                    if let Some(pong) = &slot.seat.pong
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
        let (measured, manner) = (slot.seat.measured, slot.seat.manner);
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

impl Slot {
    /// Says goodbye, as far as the kernel takes it.
    fn leave(&mut self) -> io::Result<()> {
        let bye = frame::masked(frame::CLOSE, &1000_u16.to_be_bytes(), [1, 2, 3, 4]);
        self.unsent.extend(bye);
        self.send()
    }

    /// Writes what waits, as far as the kernel takes it.
    fn send(&mut self) -> io::Result<()> {
        let Some(wire) = &mut self.wire else {
            return Ok(());
        };
        while !self.unsent.is_empty() {
            match wire.write(&self.unsent) {
                Ok(count) => drop(self.unsent.drain(..count)),
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected
                    ) =>
                {
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        match wire.flush() {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(()),
        }
    }

    /// What is behind the head of the answer. `None`: the head is not all there.
    ///
    /// # Errors
    /// Why it is no upgrade.
    fn upgraded<'a>(&self, bytes: &'a [u8]) -> Result<Option<&'a [u8]>, String> {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut response = httparse::Response::new(&mut headers);
        let length = match response.parse(bytes) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) if bytes.len() < HEAD_BYTES_MAX => return Ok(None),
            _ => return Err("no HTTP answer".to_owned()),
        };
        if response.code != Some(101) {
            return Err(format!("HTTP {}", response.code.unwrap_or_default()));
        }
        let accepted = response.headers.iter().any(|header| {
            header.name.eq_ignore_ascii_case("sec-websocket-accept")
                && header.value == ACCEPT.as_bytes()
        });
        if !accepted {
            return Err("a wrong Sec-WebSocket-Accept".to_owned());
        }
        Ok(bytes.get(length..))
    }
}

/// Whether one line of a frame is the server's question.
fn asks(payload: &[u8], question: &[u8]) -> bool {
    memchr::memmem::find(payload, question).is_some()
        && payload
            .split(|byte| *byte == b'\n')
            .any(|line| line.trim_ascii() == question)
}

/// The example of RFC 6455 section 1.3, and the answer to it: a client that is no browser protects no cache.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// The head of an upgrade at a ws: or wss: URL.
///
/// # Errors
/// A text without the URL, which may hold a token.
pub fn request_at(url: &str) -> Result<Vec<u8>, String> {
    let url = Url::parse(url).ok_or("the address is no ws:// or wss:// URL")?;
    Ok(request(url.authority, &url.path, None, &BTreeMap::new()))
}

/// The head of an upgrade. `path` begins with a slash.
pub(crate) fn request(
    authority: &str,
    path: &str,
    subprotocol: Option<&str>,
    headers: &BTreeMap<String, String>,
) -> Vec<u8> {
    let mut head = format!(
        "GET {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n"
    );
    if let Some(subprotocol) = subprotocol {
        head.push_str(&format!("Sec-WebSocket-Protocol: {subprotocol}\r\n"));
    }
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    head.into_bytes()
}

/// Where a found event is entered.
struct Taker<'a> {
    room: u32,
    seen: &'a mut Vec<u64>,
    newest: &'a mut Option<u32>,
    counts: &'a mut Counts,
    receipts: Option<&'a mut Vec<Receipt>>,
    now: u64,
}

impl Taker<'_> {
    fn delivered(&mut self, mark: Mark) {
        if mark.room != self.room {
            self.counts.foreign += 1;
            return;
        }
        let (word, bit) = ((mark.sequence / 64) as usize, 1 << (mark.sequence % 64));
        if self.seen.len() <= word {
            self.seen.resize(word + 1, 0);
        }
        let Some(word) = self.seen.get_mut(word) else {
            return;
        };
        if *word & bit != 0 {
            self.counts.duplicate += 1;
            return;
        }
        *word |= bit;
        self.counts.delivered += 1;
        if self.newest.is_some_and(|newest| mark.sequence < newest) {
            self.counts.out_of_order += 1;
        } else {
            *self.newest = Some(mark.sequence);
        }
        let Some(receipts) = &mut self.receipts else {
            return;
        };
        if let Some(last) = receipts.last_mut()
            && last.at_us == self.now
            && last.first.room == mark.room
            && last.first.sequence + last.count == mark.sequence
        {
            last.count += 1;
            return;
        }
        receipts.push(Receipt {
            first: mark,
            count: 1,
            at_us: self.now,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_a_line_of_its_own() {
        for (payload, question, expected) in [
            ("PING\r\n", "PING", true),
            ("MSG a 1 4\r\nPING!\r\n", "PING", false),
            ("{}", "{}", true),
            ("{\"id\":1}\n{}", "{}", true),
            ("{\"id\":2,\"subscribe\":{}}", "{}", false),
        ] {
            let found = asks(payload.as_bytes(), question.as_bytes());
            assert_eq!(found, expected, "{payload:?}");
        }
    }

    #[test]
    fn an_event_counts_once_and_what_overtook_it_shows() {
        let mut counts = Counts::default();
        let (mut seen, mut newest, mut receipts) = (Vec::new(), None, Vec::new());
        for (room, sequence) in [(0, 0), (0, 1), (0, 1), (0, 70), (0, 69), (1, 2)] {
            let mut taker = Taker {
                room: 0,
                seen: &mut seen,
                newest: &mut newest,
                counts: &mut counts,
                receipts: Some(&mut receipts),
                now: 5,
            };
            taker.delivered(Mark { room, sequence });
        }
        assert_eq!((counts.delivered, counts.duplicate), (4, 1));
        assert_eq!((counts.out_of_order, counts.foreign), (1, 1));
        let lengths: Vec<_> = receipts.iter().map(|receipt| receipt.count).collect();
        assert_eq!(lengths, [2, 1, 1]);
    }
}
