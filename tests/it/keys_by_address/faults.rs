//! A proxy before a provider: it counts what is asked for at the same time, and answers wrongly where it is to.

use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What comes instead of the provider's answer, and how a gateway counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The provider's own answer.
    None,
    /// The provider's own answer, late.
    Slow,
    Silent,
    Reset,
    Huge,
    Html,
    NoKeys,
    Error,
    OtherHost,
}

impl Fault {
    /// All that give no keys, each with the result of its fetch.
    pub(super) const ALL: [(Self, &str); 7] = [
        (Self::Silent, "timeout"),
        (Self::Reset, "unreachable"),
        (Self::Huge, "too_large"),
        (Self::Html, "invalid"),
        (Self::NoKeys, "invalid"),
        (Self::Error, "status"),
        (Self::OtherHost, "redirect"),
    ];
}

#[derive(Debug)]
struct State {
    fault: Mutex<Fault>,
    to: AtomicU16,
    /// Requests for a key set or a discovery document: now, at most, and in all.
    now: AtomicUsize,
    most: AtomicUsize,
    all: AtomicUsize,
}

/// It ends with the value.
#[derive(Debug)]
pub(super) struct FaultProxy {
    pub(super) port: u16,
    state: Arc<State>,
    task: JoinHandle<()>,
}

impl FaultProxy {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let state = Arc::new(State {
            fault: Mutex::new(Fault::None),
            to: AtomicU16::new(0),
            now: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            all: AtomicUsize::new(0),
        });
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                let state = Arc::clone(&shared);
                tokio::spawn(async move {
                    // The other side may have gone.
                    let _ = answer(stream, &state).await;
                });
            }
        });
        Self { port, state, task }
    }

    /// The provider is at this port.
    pub(super) fn to(&self, port: u16) {
        self.state.to.store(port, Ordering::Relaxed);
    }

    pub(super) fn set(&self, fault: Fault) {
        *self.state.fault.lock().expect("no holder panics") = fault;
    }

    /// The most requests at the same time.
    pub(super) fn most(&self) -> usize {
        self.state.most.load(Ordering::Relaxed)
    }

    /// All requests.
    pub(super) fn all(&self) -> usize {
        self.state.all.load(Ordering::Relaxed)
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Counts a request until it is dropped.
struct Counted<'a>(&'a State);

impl<'a> Counted<'a> {
    fn new(state: &'a State) -> Self {
        state.all.fetch_add(1, Ordering::Relaxed);
        let now = state.now.fetch_add(1, Ordering::Relaxed) + 1;
        state.most.fetch_max(now, Ordering::Relaxed);
        Self(state)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn answer(mut stream: TcpStream, state: &State) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let byte = stream.read_u8().await?;
        head.push(byte);
    }
    let counted = Counted::new(state);
    let fault = *state.fault.lock().expect("no holder panics");
    let text = |body: &str| {
        let length = body.len();
        format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes()
    };
    let answer = match fault {
        Fault::None => from_provider(&head, state).await?,
        Fault::Slow => {
            tokio::time::sleep(Duration::from_secs(2)).await;
            from_provider(&head, state).await?
        }
        Fault::Silent => {
            // Until the other side gives up.
            let _ = stream.read_u8().await;
            return Ok(());
        }
        Fault::Reset => {
            drop(counted);
            stream.set_zero_linger()?;
            return Ok(());
        }
        Fault::Huge => {
            let head = "HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n";
            stream.write_all(head.as_bytes()).await?;
            return flood(stream, &[b' '; 65536]).await;
        }
        Fault::Html => text("<html>We are sorry</html>"),
        Fault::NoKeys => text("{\"keys\":[]}"),
        Fault::Error => b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n".to_vec(),
        Fault::OtherHost => {
            let to = state.to.load(Ordering::Relaxed);
            format!("HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:{to}/jwks\r\nContent-Length: 0\r\n\r\n").into_bytes()
        }
    };
    drop(counted);
    stream.write_all(&answer).await
}

/// A gibibyte, or until the other side has enough.
async fn flood(mut stream: TcpStream, part: &[u8]) -> std::io::Result<()> {
    for _ in 0..1024 * 1024 * 1024 / part.len() {
        stream.write_all(part).await?;
    }
    Ok(())
}

/// The whole answer of the provider to one request.
async fn from_provider(head: &[u8], state: &State) -> std::io::Result<Vec<u8>> {
    let to = state.to.load(Ordering::Relaxed);
    let mut provider = TcpStream::connect(("127.0.0.1", to)).await?;
    let head = head.strip_suffix(b"\r\n").expect("just seen");
    provider.write_all(head).await?;
    provider.write_all(b"Connection: close\r\n\r\n").await?;
    let mut answer = Vec::new();
    provider.read_to_end(&mut answer).await?;
    Ok(answer)
}
