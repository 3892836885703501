//! The PROXY header at the start of a connection: who must send one, who must not, and how it is read without a
//! byte of what follows.

use std::io;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::admission::{ConnectionSource, HeaderRead, Malformed, is_header, next_read};

/// Pause before the next look while the first bytes may still become a header's. No proper client begins like that and
/// goes on so slowly.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Why a connection ends at its start.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoSource {
    /// It ended before it sent anything: a check whether the port is open.
    #[error("it left before it sent anything")]
    Left,
    #[error("it sent a PROXY header, and is not in server.trusted_proxies")]
    NotTrusted,
    #[error("{0}")]
    Malformed(#[from] Malformed),
    #[error("its PROXY header has no end: {0}")]
    Io(#[from] io::Error),
}

/// Reads the header that a trusted proxy must send. What follows it stays in the connection.
///
/// # Errors
/// [`NoSource`]. There is no time limit here.
pub(super) async fn header(tcp: &mut TcpStream) -> Result<ConnectionSource, NoSource> {
    let mut header = Vec::new();
    loop {
        let more = match next_read(&header)? {
            HeaderRead::Done(source) => return Ok(source),
            HeaderRead::Exactly(more) => more,
            HeaderRead::Line(most) => up_to_line_end(tcp, most).await?,
        };
        let begin = header.len();
        header.resize(begin + more, 0);
        let rest = header.get_mut(begin..).unwrap_or_default();
        match tcp.read_exact(rest).await {
            Ok(_) => {}
            Err(_) if begin == 0 => return Err(NoSource::Left),
            Err(error) => return Err(error.into()),
        }
    }
}

/// How many of the bytes that are there belong to the line: at most `most`, at least one.
async fn up_to_line_end(tcp: &TcpStream, most: usize) -> io::Result<usize> {
    let mut bytes = vec![0; most];
    let there = tcp.peek(&mut bytes).await?;
    let end = bytes.iter().take(there).position(|byte| *byte == b'\n');
    // If the peer has left, the read that follows fails.
    Ok(end.map_or(there.max(1), |end| end + 1))
}

/// Waits until it is known that a peer which is no trusted proxy sends no header. Nothing is read.
///
/// # Errors
/// It does, or has left. There is no time limit here.
pub(super) async fn no_header(tcp: &TcpStream) -> Result<(), NoSource> {
    let mut start = [0; 12];
    loop {
        let there = tcp.peek(&mut start).await?;
        if there == 0 {
            return Err(NoSource::Left);
        }
        match is_header(start.get(..there).unwrap_or_default()) {
            Some(true) => return Err(NoSource::NotTrusted),
            Some(false) => return Ok(()),
            // The same bytes are there at once, so that nothing would wait for more.
            None => tokio::time::sleep(LOOK_AGAIN).await,
        }
    }
}
