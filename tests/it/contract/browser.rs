//! The contract's snippets in a browser, which handles close frames and the end of a connection in
//! its own way, and shows a page less than Node does.

use std::time::Duration;

use serde_json::Value;

use super::{NOTIFICATIONS, OPEN, WORKSPACE, assert_notification, one_of_each_category, refusals};
use crate::support::browser::{self, Browser};
use crate::support::client::Client;
use crate::support::clients::script::Script;
use crate::support::contract::{Snippet, Text};
use crate::support::gateway::Builder;
use crate::support::stage::Stage;
use crate::support::token::{expiring, token};

/// A browser takes its time to start.
const BROWSER_PATIENCE: Duration = Duration::from_secs(60);

/// A browser that starts on a busy machine, or while the machine's networks change (as containers come and go), may give
/// up a connection by itself: the gateway never sees it.
const STARTS: usize = 3;

/// What the frames of the page tell.
struct Page {
    script: Script,
    _browser: Browser,
}

impl Page {
    /// Runs each text in a frame; `None` where there is no browser. Its sockets have opened.
    async fn open(stage: &Stage, texts: &[Text], tokens: &[String]) -> Option<Self> {
        let command = browser::command()?;
        for _ in 0..STARTS {
            let mut script = stage.page(texts, tokens);
            let page = script
                .until("the page", |line| line["page"].is_string())
                .await;
            let url = page["page"].as_str().expect("just looked at");
            let browser = Browser::open(&command, url, &stage.certificates);
            let mut page = Self {
                script,
                _browser: browser,
            };
            if page.all_open(texts.len()).await {
                return Some(page);
            }
            eprintln!("the browser has no connection, it is started again");
        }
        panic!("no socket opens in {STARTS} browsers");
    }

    /// Whether the first socket of each frame opens.
    async fn all_open(&mut self, frames: usize) -> bool {
        for frame in 0..frames {
            let first = |line: &Value| line["opened"] == true || line["closed"].is_object();
            let line = self.tells(frame, "a socket that opens", first).await;
            if line["opened"] != true {
                return false;
            }
        }
        true
    }

    /// Waits for a line of `frame` that `wanted` takes, whatever was looked at before.
    async fn tells(&mut self, frame: usize, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        self.script.rewind();
        let wanted = |line: &Value| line["frame"] == frame && wanted(line);
        self.script
            .within(
                BROWSER_PATIENCE,
                &format!("{what} of frame {frame}"),
                wanted,
            )
            .await
    }

    /// Waits until a frame's console shows `first`.
    async fn shows(&mut self, frame: usize, first: &str) {
        self.tells(frame, first, |line| line["args"][0] == first)
            .await;
    }

    /// Waits until a frame's WebSocket ends like this, in good order.
    async fn closes(&mut self, frame: usize, code: u64, reason: &str) {
        let line = self
            .tells(frame, "a close", |line| line["closed"]["code"] == code)
            .await;
        assert_eq!(line["closed"]["reason"], reason, "{line}");
        assert_eq!(line["closed"]["wasClean"], true, "{line}");
    }

    /// How many lines of a frame's console begin with `first`.
    fn count(&self, frame: usize, first: &str) -> usize {
        self.script
            .count_where(|line| line["frame"] == frame && line["args"][0] == first)
    }
}

#[tokio::test]
async fn a_browser_sees_notifications_codes_and_reasons() {
    let stage = Stage::with(|gateway| gateway.set("server.drain", "1s")).await;
    let native = |token: &str| Snippet::Native.for_gateway(stage.gateway.port(), token);
    // A subprotocol instead of the query, as docs/tokens.md has it.
    let subprotocol = Text(format!(
        "const ws = new WebSocket('{}/?workspaceSlug={WORKSPACE}', ['herald.v1', 'bearer.' + '{}']);
         ws.onopen = () => console.log(ws.protocol);",
        stage.gateway.url(),
        token("cid", WORKSPACE)
    ));
    let mut texts = vec![
        native(&token("ann", WORKSPACE)),
        native(&token("bob", WORKSPACE)),
        subprotocol,
        native(&expiring("dan", WORKSPACE, 20)),
    ];
    let first_refused = texts.len();
    for (token, slug, _) in refusals() {
        texts.push(native(&token).in_workspace(slug));
    }
    let Some(mut page) = Page::open(&stage, &texts, &[]).await else {
        return;
    };
    for frame in [0, 1] {
        page.shows(frame, OPEN).await;
    }
    page.shows(2, "herald.v1").await;
    for (at, (_, _, (code, reason))) in refusals().into_iter().enumerate() {
        page.closes(first_refused + at, code, reason).await;
    }
    stage.publish(&one_of_each_category()).await;
    for expected in NOTIFICATIONS {
        let received = |line: &Value| {
            line["args"][0] == "Received notification:"
                && line["args"][1]["metadata"]["event"] == expected[0]
        };
        let line = page.tells(0, "a notification", received).await;
        assert_notification(&line["args"][1], expected);
    }
    // And nothing else.
    assert_eq!(page.count(0, "Received notification:"), NOTIFICATIONS.len());
    // It expires while connected.
    page.closes(3, 4003, "token expired").await;
    // Ann connects from elsewhere.
    let elsewhere = Client::join(&stage.gateway, "ann", WORKSPACE).await;
    page.closes(0, 4009, "replaced by a newer connection").await;
    drop(elsewhere);
    stage.gateway.terminate();
    for frame in [1, 2] {
        page.closes(frame, 1012, "gateway restarting").await;
    }
}

/// What docs/clients.md says of quiet: the snippets send nothing, and a browser answers pings by itself.
#[tokio::test]
async fn a_quiet_snippet_stays_open_where_pongs_are_activity() {
    for stays in [true, false] {
        let quick = |gateway: Builder| {
            gateway
                .set("sockets.inactivity", "2s")
                .set("sockets.ping", "500ms")
                .set("sockets.pong_is_activity", stays)
        };
        let stage = Stage::with(quick).await;
        let native = Snippet::Native.for_gateway(stage.gateway.port(), &token("ann", WORKSPACE));
        let Some(mut page) = Page::open(&stage, &[native], &[]).await else {
            return;
        };
        page.shows(0, OPEN).await;
        if stays {
            tokio::time::sleep(Duration::from_secs(4)).await;
            stage.publish(&one_of_each_category()).await;
            page.shows(0, "Received notification:").await;
        } else {
            page.closes(0, 4008, "inactive").await;
        }
    }
}

#[tokio::test]
async fn two_tabs_with_managers_come_to_rest_in_a_browser() {
    let stage = Stage::new().await;
    let manager = Snippet::Manager.for_gateway(stage.gateway.port(), "");
    let tokens = [token("ann", WORKSPACE)];
    let tabs = [manager.clone(), manager];
    let Some(mut page) = Page::open(&stage, &tabs, &tokens).await else {
        return;
    };
    for tab in [0, 1] {
        page.shows(tab, OPEN).await;
    }
    let gives_up = |line: &Value| line["args"][0] == super::manager::GIVES_UP;
    let rest = page
        .script
        .within(super::manager::REST, "a tab that gives up", gives_up)
        .await;
    let standing = if rest["frame"] == 0 { 1 } else { 0 };
    stage
        .gateway
        .metric_becomes("herald_connections", "", 1.0)
        .await;
    assert_eq!(
        page.count(standing, OPEN),
        page.count(standing, super::manager::CLOSED) + 1
    );
    stage.publish(&one_of_each_category()).await;
    page.shows(standing, "Notification received:").await;
}
