//! The least that a gateway can do: one `write(2)` to each socket for each event, and nothing else.
//!
//! `floor <nats url> <port>`. No tokens, no repair, no queues, no batches: it is what all else is compared with.
//! A client that does not read for [`PATIENCE`] is dropped; until then all others wait for it.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use herald_bench_peers::{Subscription, workspace};
use sha1::{Digest as _, Sha1};

/// How long a write, or a handshake, may take.
const PATIENCE: Duration = Duration::from_secs(5);
const HANDSHAKE_BYTES: usize = 8 * 1024;

type Rooms = Mutex<HashMap<Vec<u8>, Vec<TcpStream>>>;

fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(nats), Some(port)) = (arguments.next(), arguments.next()) else {
        return Err(io::Error::other("usage: floor <nats url> <port>"));
    };
    let events = Subscription::open(&nats, "live.ws.>")?;
    let listener = TcpListener::bind(format!("127.0.0.1:{port}"))?;
    let rooms = Arc::new(Rooms::default());
    let joined = Arc::clone(&rooms);
    std::thread::spawn(move || accept(&listener, &joined));
    end_with_stdin();
    println!(
        r#"{{"url":"ws://127.0.0.1:{port}/?workspace={{workspace}}&user={{user}}","headers":{{}},"subprotocol":null,"hello":[],"pong":null,"server":[{}],"bridge":[]}}"#,
        std::process::id()
    );
    fan_out(events, &rooms)
}

/// Ends the process when whoever started it closes its standard input.
fn end_with_stdin() {
    std::thread::spawn(|| {
        // An error is an end, too.
        io::copy(&mut io::stdin().lock(), &mut io::sink()).ok();
        std::process::exit(0);
    });
}

/// The way of an event.
fn fan_out(mut events: Subscription, rooms: &Rooms) -> io::Result<()> {
    let mut frame = Vec::with_capacity(64 * 1024);
    loop {
        while let Some(event) = events.take()? {
            let Some(workspace) = workspace(event.subject) else {
                continue;
            };
            write_frame(&mut frame, event.payload);
            let mut rooms = rooms.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(sockets) = rooms.get_mut(workspace) else {
                continue;
            };
            // The sockets block, so that a write is whole but where a signal cuts it, and `write_all` goes on.
            sockets.retain_mut(|socket| socket.write_all(&frame).is_ok());
        }
        events.fill()?;
    }
}

/// A text frame as a server sends it: whole and not masked (RFC 6455, 5.2).
fn write_frame(frame: &mut Vec<u8>, payload: &[u8]) {
    frame.clear();
    frame.push(0x81);
    match payload.len() {
        len @ 0..126 => frame.push(len as u8),
        len @ 126..65536 => {
            frame.push(126);
            frame.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            frame.push(127);
            frame.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(payload);
}

fn accept(listener: &TcpListener, rooms: &Rooms) {
    for socket in listener.incoming() {
        let joined = socket.and_then(|mut socket| Ok((handshake(&mut socket)?, socket)));
        match joined {
            Ok((workspace, socket)) => {
                let mut rooms = rooms.lock().unwrap_or_else(PoisonError::into_inner);
                rooms.entry(workspace).or_default().push(socket);
            }
            Err(error) => eprintln!("floor: a handshake failed: {error}"),
        }
    }
}

/// Answers the upgrade and returns the workspace.
///
/// The 101 is out before the socket is in its room, so that no frame comes before it. A client that has the 101
/// may miss what is sent in the microseconds until then.
fn handshake(socket: &mut TcpStream) -> io::Result<Vec<u8>> {
    socket.set_nodelay(true)?;
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut request = Vec::new();
    let mut chunk = [0; 1024];
    while !request.ends_with(b"\r\n\r\n") {
        let count = socket.read(&mut chunk)?;
        if count == 0 || request.len() > HANDSHAKE_BYTES {
            return Err(io::Error::other("no request, or too large a one"));
        }
        request.extend_from_slice(chunk.get(..count).unwrap_or_default());
    }
    let request = String::from_utf8_lossy(&request);
    let key = request
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key"))
        .map(|(_, value)| value.trim())
        .ok_or_else(|| io::Error::other("no Sec-WebSocket-Key"))?;
    let workspace = request
        .split([' ', '?', '&'])
        .find_map(|part| part.strip_prefix("workspace="))
        .ok_or_else(|| io::Error::other("no workspace in the query"))?;
    let digest = Sha1::digest(format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11"));
    let accept = base64::engine::general_purpose::STANDARD.encode(digest);
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    socket.write_all(answer.as_bytes())?;
    Ok(workspace.as_bytes().to_vec())
}
