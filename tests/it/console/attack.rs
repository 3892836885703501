//! A page of another site, in the browser of somebody who has `herald dev` open: it reads nothing and changes nothing.

use axum::Router;
use axum::response::Html;
use axum::routing::get;
use serde_json::json;
use tokio::net::TcpListener;

use super::DevRun;
use crate::support::devtools::Devtools;

/// A server of somebody else's with one page, and its port.
async fn evil_site() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("its address").port();
    let page = Html("<!doctype html><title>evil</title><body>evil");
    let router = Router::new().route("/", get(async move || page));
    tokio::spawn(async move { axum::serve(listener, router).await.expect("it serves") });
    port
}

/// What a script of that page tries at `base`. Each attempt comes to what it could read.
const ATTEMPTS: &str = r#"
(async (base) => {
  const read = async (path, options) => {
    try {
      const response = await fetch(base + path, options);
      return `${path} ${response.type} ${response.status} ${await response.text()}`.slice(0, 200);
    } catch { return 'nothing'; }
  };
  const event = '/publish/v1/workspaces/acme/events/custom.evil';
  const frame = document.createElement('iframe');
  frame.src = base;
  document.body.append(frame);
  const form = document.createElement('form');
  Object.assign(form, { method: 'POST', action: base + event, target: 'sink', enctype: 'text/plain' });
  const sink = document.createElement('iframe');
  sink.name = 'sink';
  const field = document.createElement('input');
  field.name = '{"title":"evil","x":"'; field.value = '"}';
  form.append(field); document.body.append(sink, form); form.submit();
  const script = document.createElement('script');
  script.src = base + '/app.js';
  const ran = new Promise((resolve) => { script.onload = () => resolve('a script was loaded'); script.onerror = () => resolve('nothing'); });
  document.body.append(script);
  const headers = { 'Herald-Console': '1', Authorization: 'Bearer x', 'Content-Type': 'application/json' };
  const simple = { method: 'POST', mode: 'no-cors', body: '{"title":"evil"}', headers: { 'Content-Type': 'text/plain' } };
  const opaque = async (path, options) => {
    try { return (await fetch(base + path, options)).status ? 'something' : 'nothing'; } catch { return 'nothing'; }
  };
  return Promise.all([
    read('/api/about'),
    read('/api/about', { headers }),
    read('/api/sessions', { headers, credentials: 'include' }),
    read('/api/metrics', { headers }),
    read(event, { method: 'POST', headers, body: '{"title":"evil"}' }),
    read(event, { method: 'POST', body: '{"title":"evil"}' }),
    opaque('/api/about', { mode: 'no-cors' }),
    opaque(event, simple),
    opaque('/api/preview/acme/custom.evil', simple),
    ran,
  ]);
})
"#;

#[tokio::test]
async fn a_script_of_another_page_reads_nothing_and_publishes_nothing() {
    let resolve = "--host-resolver-rules=MAP evil.example 127.0.0.1";
    let Some(browser) = Devtools::start_with(&[resolve]).await else {
        return;
    };
    let dev = DevRun::start().await;
    let port = evil_site().await;
    // Another site, and another port of the same host.
    for origin in [
        format!("http://evil.example:{port}"),
        format!("http://127.0.0.1:{port}"),
    ] {
        let tab = browser.open(&origin).await;
        tab.becomes("document.title === 'evil'").await;
        let got = tab
            .eval(&format!("({ATTEMPTS})({})", json!(dev.page)))
            .await;
        let nothing = vec!["nothing"; 10];
        assert_eq!(got, json!(nothing), "{origin}");
        // Frames show none of it.
        let framed = "[...document.querySelectorAll('iframe')].map((frame) => {
            try { return frame.contentDocument?.body?.innerText ?? ''; } catch { return ''; } }).join('')";
        assert_eq!(tab.eval(framed).await, "", "{origin}");
        tab.close().await;
    }
    // Nothing was stored.
    let publisher = dev.publisher().await;
    let first = publisher.event("acme.custom.end", &json!({})).await;
    assert_eq!(first, 1);
}

/// The name of another site that leads here: its own page, with its own origin.
#[tokio::test]
async fn under_a_rebound_name_there_is_no_page() {
    let resolve = "--host-resolver-rules=MAP evil.example 127.0.0.1";
    let Some(browser) = Devtools::start_with(&[resolve]).await else {
        return;
    };
    let dev = DevRun::start().await;
    let rebound = dev.page.replace("127.0.0.1", "evil.example");
    let tab = browser.open(&rebound).await;
    tab.becomes("document.body.innerText.includes('urn:herald:problem:host')")
        .await;
    let got = tab.eval(
        "Promise.all(['about', 'metrics', 'sessions'].map(async (path) =>
           (await fetch(`/console/api/${path}`, { headers: { 'Herald-Console': '1' } })).status))",
    );
    assert_eq!(got.await, json!([421, 421, 421]));
    let publish = "fetch('/console/publish/v1/workspaces/acme/events/custom.evil',
        { method: 'POST', body: '{}', headers: { 'Content-Type': 'application/json' } }).then(({ status }) => status)";
    assert_eq!(tab.eval(publish).await, 421);
}
