//! A browser by its DevTools protocol: tabs that a test opens, asks, freezes, crashes and closes.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::browser::{self, Browser};
use super::eventually;

/// A browser on a busy machine takes its time.
pub(crate) const BROWSER_PATIENCE: Duration = Duration::from_secs(60);

type Stream = WebSocketStream<MaybeTlsStream<TcpStream>>;
type Waiting = Arc<Mutex<HashMap<u64, oneshot::Sender<Value>>>>;

/// A browser that a test drives.
#[derive(Debug)]
pub(crate) struct Devtools {
    pub(crate) browser: Browser,
    line: Arc<Line>,
    reader: JoinHandle<()>,
}

/// What its tabs share.
#[derive(Debug)]
pub(super) struct Line {
    out: tokio::sync::Mutex<SplitSink<Stream, Message>>,
    waiting: Waiting,
    next: AtomicU64,
}

impl Devtools {
    /// A browser without a page; `None`, and a line that says so, where there is none to be had.
    pub(crate) async fn start() -> Option<Self> {
        Self::start_with(&[]).await
    }

    /// The same with these options.
    pub(crate) async fn start_with(options: &[&str]) -> Option<Self> {
        let browser = Browser::driven(&browser::command()?, options);
        let (line, reader) = Line::to(&browser).await;
        Some(Self {
            browser,
            line,
            reader,
        })
    }

    /// Opens a tab in a window of its own, so that it is seen.
    pub(crate) async fn open(&self, url: &str) -> Tab {
        let line = &self.line;
        let made = json!({ "url": url, "newWindow": true });
        let made = line.call(None, "Target.createTarget", made).await;
        let target = made["targetId"].as_str().expect("a target").to_owned();
        let attach = json!({ "targetId": target, "flatten": true });
        let attached = line.call(None, "Target.attachToTarget", attach).await;
        Tab {
            line: Arc::clone(line),
            session: attached["sessionId"].as_str().expect("one").to_owned(),
            target,
        }
    }
}

impl Drop for Devtools {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Line {
    /// To a browser that has just been started; and the task that reads.
    pub(super) async fn to(browser: &Browser) -> (Arc<Self>, JoinHandle<()>) {
        let mut url = None;
        let up = eventually(BROWSER_PATIENCE, async || {
            url = browser.devtools();
            url.is_some()
        });
        assert!(up.await, "the browser does not start");
        let (stream, _) = connect_async(url.expect("just seen"))
            .await
            .expect("it listens");
        let (out, read) = stream.split();
        let waiting = Waiting::default();
        let reader = tokio::spawn(listen(read, Arc::clone(&waiting)));
        let line = Self {
            out: tokio::sync::Mutex::new(out),
            waiting,
            next: AtomicU64::new(1),
        };
        (Arc::new(line), reader)
    }

    /// Sends a command; what it comes to.
    async fn send(
        &self,
        session: Option<&str>,
        method: &str,
        params: Value,
    ) -> oneshot::Receiver<Value> {
        let (answer, answered) = oneshot::channel();
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let mut message = json!({ "id": id, "method": method, "params": params });
        if let Some(session) = session {
            message["sessionId"] = json!(session);
        }
        self.waiting.lock().expect("no panic").insert(id, answer);
        let message = Message::text(message.to_string());
        self.out.lock().await.send(message).await.expect("it reads");
        answered
    }

    pub(super) async fn call(&self, session: Option<&str>, method: &str, params: Value) -> Value {
        let answer = self.answer(session, method, params).await;
        assert!(answer["error"].is_null(), "{method}: {answer}");
        answer["result"].clone()
    }

    /// The answer to a command, which may be an error.
    async fn answer(&self, session: Option<&str>, method: &str, params: Value) -> Value {
        let answered = self.send(session, method, params).await;
        let answer = timeout(BROWSER_PATIENCE, answered).await;
        answer.expect("an answer in time").expect("it lives")
    }
}

async fn listen(mut read: SplitStream<Stream>, waiting: Waiting) {
    while let Some(Ok(message)) = read.next().await {
        let Ok(text) = message.to_text() else {
            continue;
        };
        let Ok(message) = serde_json::from_str::<Value>(text) else {
            continue;
        };
        let asked = message["id"].as_u64();
        let asked = asked.and_then(|id| waiting.lock().expect("no panic").remove(&id));
        if let Some(answer) = asked {
            // Who asked may have given up.
            let _ = answer.send(message);
        }
    }
}

fn evaluation(script: &str) -> Value {
    json!({ "expression": script, "awaitPromise": true, "returnByValue": true })
}

/// One tab.
#[derive(Debug)]
pub(crate) struct Tab {
    line: Arc<Line>,
    session: String,
    target: String,
}

impl Tab {
    async fn call(&self, method: &str, params: Value) -> Value {
        self.line.call(Some(&self.session), method, params).await
    }

    /// What `script` comes to, awaited if it is a promise.
    pub(crate) async fn eval(&self, script: &str) -> Value {
        let done = self.call("Runtime.evaluate", evaluation(script)).await;
        assert!(done["exceptionDetails"].is_null(), "{script}: {done}");
        done["result"]["value"].clone()
    }

    /// Waits until `script` is true. Before the page is there, it is not.
    pub(crate) async fn becomes(&self, script: &str) {
        let script_is =
            format!("(() => {{ try {{ return !!({script}); }} catch {{ return false; }} }})()");
        let params = evaluation(&script_is);
        let session = Some(self.session.as_str());
        let became = eventually(BROWSER_PATIENCE, async || {
            // An error: while one page follows another, none is there to be asked.
            let answer = self
                .line
                .answer(session, "Runtime.evaluate", params.clone());
            answer.await["result"]["result"]["value"] == true
        });
        if !became.await {
            let told = self
                .eval("JSON.stringify([window.told, window.errors, document.body?.innerText])")
                .await;
            panic!("{script} does not become true: {told}");
        }
    }

    /// Presses a key: its name, and the number and text that go with it.
    pub(crate) async fn press(&self, (key, code, text): (&str, u32, &str)) {
        // Also in a window that is behind another.
        self.call(
            "Emulation.setFocusEmulationEnabled",
            json!({ "enabled": true }),
        )
        .await;
        let down = json!({
            "type": "keyDown", "key": key, "code": key, "windowsVirtualKeyCode": code, "text": text
        });
        self.call("Input.dispatchKeyEvent", down).await;
        let up = json!({ "type": "keyUp", "key": key, "code": key, "windowsVirtualKeyCode": code });
        self.call("Input.dispatchKeyEvent", up).await;
    }

    /// Clicks on what `selector` finds, as a mouse does: where it is covered, what covers it gets the click.
    pub(crate) async fn click(&self, selector: &str) {
        let script = format!(
            "(() => {{ const it = document.querySelector({}); it.scrollIntoView({{ block: 'center', behavior: 'instant' }});
               const {{ x, y, width, height }} = it.getBoundingClientRect();
               return [x + width / 2, y + height / 2]; }})()",
            json!(selector)
        );
        let middle = self.eval(&script).await;
        for kind in ["mousePressed", "mouseReleased"] {
            let event = json!({
                "type": kind, "x": middle[0], "y": middle[1], "button": "left", "clickCount": 1
            });
            self.call("Input.dispatchMouseEvent", event).await;
        }
    }

    /// Types `text` where the focus is.
    pub(crate) async fn insert(&self, text: &str) {
        self.call("Input.insertText", json!({ "text": text })).await;
    }

    /// Goes to another address.
    pub(crate) async fn navigate(&self, url: &str) {
        self.call("Page.navigate", json!({ "url": url })).await;
    }

    /// Has it as wide and high as this, with this colour scheme, and still.
    pub(crate) async fn look_like(&self, [width, height]: [u32; 2], scheme: &str) {
        let size = json!({
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500
        });
        self.call("Emulation.setDeviceMetricsOverride", size).await;
        let features = json!({ "features": [
            { "name": "prefers-color-scheme", "value": scheme },
            { "name": "prefers-reduced-motion", "value": "reduce" }
        ] });
        self.call("Emulation.setEmulatedMedia", features).await;
    }

    /// The whole page as a PNG.
    pub(crate) async fn picture(&self) -> Vec<u8> {
        let params = json!({ "format": "png", "captureBeyondViewport": true });
        let taken = self.call("Page.captureScreenshot", params).await;
        let data = taken["data"].as_str().expect("a picture");
        STANDARD.decode(data).expect("base64")
    }

    /// Closes it as its user would.
    pub(crate) async fn close(&self) {
        let params = json!({ "targetId": self.target });
        self.line.call(None, "Target.closeTarget", params).await;
    }

    /// Its process ends at once.
    pub(crate) async fn crash(&self) {
        // There is nobody left to answer.
        let session = Some(self.session.as_str());
        drop(self.line.send(session, "Page.crash", json!({})).await);
    }

    /// Nothing runs in it any more, or again.
    pub(crate) async fn set_frozen(&self, frozen: bool) {
        let state = if frozen { "frozen" } else { "active" };
        self.call("Page.setWebLifecycleState", json!({ "state": state }))
            .await;
    }

    /// Whether the page is told that it is online.
    pub(crate) async fn set_online(&self, online: bool) {
        let conditions = json!({
            "offline": !online, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1
        });
        self.call("Network.emulateNetworkConditions", conditions)
            .await;
    }
}
