//! Publishes by HTTP, over connections that stay open and have one request under way each.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, Uri, header};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::Error;

/// As many as a small fleet of senders holds.
const CONNECTIONS: usize = 64;

/// Where a target takes events by HTTP. `Debug` would show the token.
#[derive(Clone, Deserialize)]
pub struct Endpoint {
    /// `http://host:port/path`, with `{workspace}` in it.
    url: String,
    /// Of the header `Authorization`.
    authorization: String,
}

/// An event to post.
struct Post {
    workspace: String,
    event: String,
    due: Instant,
}

/// The open connections.
pub(crate) struct Connections {
    posts: Vec<mpsc::UnboundedSender<Post>>,
    tasks: Vec<JoinHandle<Result<Vec<Duration>, Error>>>,
    next: usize,
}

impl Connections {
    /// Opens them.
    ///
    /// # Errors
    /// Where the target takes none.
    pub(crate) fn open(endpoint: &Endpoint, handle: &Handle) -> Result<Self, Error> {
        let (mut posts, mut tasks) = (Vec::new(), Vec::new());
        for _ in 0..CONNECTIONS {
            let sender = handle.block_on(connect(endpoint))?;
            let (post, queue) = mpsc::unbounded_channel();
            posts.push(post);
            tasks.push(handle.spawn(answers(endpoint.clone(), sender, queue)));
        }
        Ok(Self {
            posts,
            tasks,
            next: 0,
        })
    }

    /// Has the next connection send the event when its answers are there.
    pub(crate) fn send(&mut self, workspace: String, event: String, due: Instant) {
        let post = Post {
            workspace,
            event,
            due,
        };
        if let Some(posts) = self.posts.get(self.next) {
            // A connection that failed says why at the end.
            posts.send(post).unwrap_or_default();
        }
        self.next = (self.next + 1) % CONNECTIONS;
    }

    /// Waits for all answers: how long each took, from when it was due.
    ///
    /// # Errors
    /// Where one is no 2xx.
    pub(crate) async fn answers(self) -> Result<Vec<Duration>, Error> {
        drop(self.posts);
        let mut all = Vec::new();
        for task in self.tasks {
            let answers = task.await.map_err(|error| failed(&error))?;
            all.extend(answers?);
        }
        Ok(all)
    }
}

fn failed(error: &dyn std::fmt::Display) -> Error {
    Error::of("cannot publish by HTTP", error)
}

async fn connect(endpoint: &Endpoint) -> Result<SendRequest<Full<Bytes>>, Error> {
    let url: Uri = endpoint
        .url
        .replace("{workspace}", "w")
        .parse()
        .map_err(|e| failed(&e))?;
    let authority = url.authority().ok_or_else(|| failed(&"no host"))?;
    let stream = TcpStream::connect(authority.as_str())
        .await
        .map_err(|e| failed(&e))?;
    stream.set_nodelay(true).map_err(|e| failed(&e))?;
    let (sender, connection) = handshake(TokioIo::new(stream))
        .await
        .map_err(|e| failed(&e))?;
    // Its error is that of the request under way, too.
    tokio::spawn(async { connection.await.unwrap_or_default() });
    Ok(sender)
}

async fn answers(
    endpoint: Endpoint,
    mut sender: SendRequest<Full<Bytes>>,
    mut posts: mpsc::UnboundedReceiver<Post>,
) -> Result<Vec<Duration>, Error> {
    let mut answers = Vec::new();
    while let Some(post) = posts.recv().await {
        let url: Uri = endpoint
            .url
            .replace("{workspace}", &post.workspace)
            .parse()
            .map_err(|e| failed(&e))?;
        let host = url.authority().map_or("", |authority| authority.as_str());
        let request = Request::post(url.path())
            .header(header::HOST, host)
            .header(header::AUTHORIZATION, &endpoint.authorization)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(post.event)))
            .map_err(|e| failed(&e))?;
        let answer = sender.send_request(request).await.map_err(|e| failed(&e))?;
        let (parts, body) = answer.into_parts();
        let body = body.collect().await.map_err(|e| failed(&e))?.to_bytes();
        if !parts.status.is_success() {
            let text = String::from_utf8_lossy(&body);
            return Err(failed(&format!("{}: {text}", parts.status)));
        }
        answers.push(post.due.elapsed());
    }
    Ok(answers)
}
