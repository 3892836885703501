//! Firefox by WebDriver BiDi, which it speaks itself: tabs that a test opens, asks and closes.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::browser::{self, Browser};
use super::devtools::{BROWSER_PATIENCE, Line};
use super::eventually;

/// A Firefox that a test drives.
#[derive(Debug)]
pub(crate) struct Firefox {
    line: Arc<Line>,
    reader: JoinHandle<()>,
    _browser: Browser,
}

impl Firefox {
    /// A browser without a page; `None`, and a line that says so, where there is none to be had.
    pub(crate) async fn start() -> Option<Self> {
        let browser = Browser::driven_firefox(&browser::firefox()?);
        let (line, reader) = Line::to(&browser).await;
        line.call(None, "session.new", json!({ "capabilities": {} }))
            .await;
        Some(Self {
            line,
            reader,
            _browser: browser,
        })
    }

    /// Opens a tab in a window of its own, so that it is seen.
    pub(crate) async fn open(&self, url: &str) -> Tab {
        let line = Arc::clone(&self.line);
        let made = line.call(None, "browsingContext.create", json!({ "type": "window" }));
        let context = made.await["context"].as_str().expect("one").to_owned();
        let to = json!({ "context": context, "url": url, "wait": "complete" });
        line.call(None, "browsingContext.navigate", to).await;
        Tab { line, context }
    }
}

impl Drop for Firefox {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// One tab.
#[derive(Debug)]
pub(crate) struct Tab {
    line: Arc<Line>,
    context: String,
}

impl Tab {
    /// What `script` comes to, awaited if it is a promise.
    pub(crate) async fn eval(&self, script: &str) -> Value {
        let params = json!({
            "target": { "context": self.context },
            "expression": format!("(async () => JSON.stringify(await ({script})))()"),
            "awaitPromise": true,
        });
        let done = self.line.call(None, "script.evaluate", params).await;
        assert_eq!(done["type"], "success", "{script}: {done}");
        let text = done["result"]["value"].as_str().unwrap_or("null");
        serde_json::from_str(text).expect("JSON")
    }

    /// Waits until `script` is true.
    pub(crate) async fn becomes(&self, script: &str) {
        let became = eventually(BROWSER_PATIENCE, async || {
            self.eval(&format!("!!({script})")).await == true
        });
        if !became.await {
            let told = self.eval("[window.told, window.errors]").await;
            panic!("{script} does not become true: {told}");
        }
    }

    /// Closes it as its user would.
    pub(crate) async fn close(self) {
        let params = json!({ "context": self.context });
        self.line.call(None, "browsingContext.close", params).await;
    }
}
