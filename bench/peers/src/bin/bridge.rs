//! Hands each event on to a peer that does not read this NATS itself.
//!
//! - `bridge post <nats url> <address>`: `POST /publish?workspace=<workspace>`, pipelined on one connection, in order.
//! - `bridge nats <nats url> <address>`: `PUB` of the same subject to another nats-server.
//!
//! All events of one read go on in one write. Its CPU is counted apart from the peer's. It ends with either side.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex, PoisonError};

use herald_bench_peers::{Message, Subscription, workspace};

/// Writes one event to `out` as the peer takes it.
type Encode = fn(out: &mut Vec<u8>, event: &Message<'_>) -> io::Result<()>;

fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(form), Some(nats), Some(address)) =
        (arguments.next(), arguments.next(), arguments.next())
    else {
        return Err(io::Error::other(
            "usage: bridge post|nats <nats url> <address>",
        ));
    };
    let peer = TcpStream::connect(address.trim_start_matches("nats://"))?;
    peer.set_nodelay(true)?;
    let answers = peer.try_clone()?;
    let peer = Peer(Arc::new(Mutex::new(peer)));
    let encode: Encode = match form.as_str() {
        "post" => {
            std::thread::spawn(move || end_on(check_posts(answers)));
            post
        }
        "nats" => {
            peer.write(b"CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":false,\"protocol\":1}\r\n")?;
            let pongs = peer.clone();
            std::thread::spawn(move || end_on(answer_pings(answers, &pongs)));
            publish
        }
        other => return Err(io::Error::other(format!("neither post nor nats: {other}"))),
    };
    let mut events = Subscription::open(&nats, "live.ws.>")?;
    println!("ready");
    let mut out = Vec::with_capacity(512 * 1024);
    loop {
        while let Some(event) = events.take()? {
            encode(&mut out, &event)?;
        }
        peer.write(&out)?;
        out.clear();
        events.fill()?;
    }
}

/// The way to the peer. A write that the kernel does not take at once lets other threads' writes in between: a pong would
/// stand in the middle of an event. So whoever writes has the lock until all is written.
#[derive(Clone)]
struct Peer(Arc<Mutex<TcpStream>>);

impl Peer {
    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let mut stream = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        stream.write_all(bytes)
    }
}

fn post(out: &mut Vec<u8>, event: &Message<'_>) -> io::Result<()> {
    let Some(workspace) = workspace(event.subject) else {
        return Ok(());
    };
    out.extend_from_slice(b"POST /publish?workspace=");
    out.extend_from_slice(workspace);
    write!(
        out,
        " HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
        event.payload.len()
    )?;
    out.extend_from_slice(event.payload);
    Ok(())
}

fn publish(out: &mut Vec<u8>, event: &Message<'_>) -> io::Result<()> {
    out.extend_from_slice(b"PUB ");
    out.extend_from_slice(event.subject);
    write!(out, " {}\r\n", event.payload.len())?;
    out.extend_from_slice(event.payload);
    out.extend_from_slice(b"\r\n");
    Ok(())
}

/// A refused event would be a loss that nobody sees, so it ends the bridge.
fn end_on(outcome: io::Result<()>) {
    if let Err(error) = outcome {
        eprintln!("bridge: {error}");
    }
    std::process::exit(1);
}

/// Reads the answers to the posts; each has to say that the event was taken.
fn check_posts(mut answers: TcpStream) -> io::Result<()> {
    const STATUS: &[u8] = b"HTTP/1.1 ";
    let mut buffer = vec![0; 64 * 1024];
    let mut kept = 0;
    loop {
        let count = answers.read(buffer.get_mut(kept..).unwrap_or_default())?;
        if count == 0 {
            return Err(io::Error::other("the peer closed the connection"));
        }
        let bytes = buffer.get(..kept + count).unwrap_or_default();
        let refused = bytes
            .windows(STATUS.len() + 1)
            .find(|seen| seen.starts_with(STATUS) && !seen.ends_with(b"2"));
        if refused.is_some() {
            let text = String::from_utf8_lossy(bytes);
            return Err(io::Error::other(format!(
                "the peer refused an event: {text}"
            )));
        }
        // A status line may be cut by the end of this read.
        let end = bytes.len();
        kept = end.min(STATUS.len());
        buffer.copy_within(end - kept..end, 0);
    }
}

fn answer_pings(mut answers: TcpStream, peer: &Peer) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = answers.read(&mut buffer)?;
        let bytes = buffer.get(..count).unwrap_or_default();
        if count == 0 || bytes.starts_with(b"-ERR") {
            return Err(io::Error::other(format!(
                "the peer's end: {}",
                String::from_utf8_lossy(bytes)
            )));
        }
        if bytes.windows(6).any(|seen| seen == b"PING\r\n") {
            peer.write(b"PONG\r\n")?;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_pong_stands_between_events_even_if_the_peer_reads_late() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let peer = Peer(Arc::new(Mutex::new(stream)));
        let (mut reader, _) = listener.accept().unwrap();
        // More than the kernel takes while nobody reads.
        let events = vec![b'x'; 32 << 20];
        let pongs = peer.clone();
        let writer = std::thread::spawn(move || peer.write(&events));
        // The events have begun before the pong is written.
        reader.read_exact(&mut [0]).unwrap();
        let pong = std::thread::spawn(move || pongs.write(b"PONG"));
        let mut all = Vec::new();
        reader.read_to_end(&mut all).unwrap();
        writer.join().unwrap().unwrap();
        pong.join().unwrap().unwrap();
        assert_eq!(
            all.iter().position(|byte| *byte == b'P'),
            Some((32 << 20) - 1)
        );
    }
}
