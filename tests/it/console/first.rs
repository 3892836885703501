//! From the printed address to the first notification, in a browser: by mouse, by keyboard, and with data of a publisher
//! that means harm.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::{ADMIN_TOKEN, DevRun, NOTIFICATION, gateway_with_console};
use crate::dev::path_of_backend;
use crate::support::devtools::{BROWSER_PATIENCE, Devtools, Tab};
use crate::support::eventually;
use crate::support::nats::Nats;
use crate::support::publisher::Publisher;
use crate::support::token::token;

const PUBLISH: &str = "#view-notifications button.primary";
const CONNECTED: &str = "document.querySelector('.who').textContent === 'Connected as ada in acme'";
/// The preview is there, and with it the form.
const PREVIEWED: &str = "document.querySelector('.preview h3').textContent === 'Record created'";

async fn opened(browser: &Devtools, dev: &DevRun) -> Tab {
    let tab = browser.open(&dev.page).await;
    tab.becomes(CONNECTED).await;
    tab.becomes(PREVIEWED).await;
    tab
}

/// One click, of the three that it may take.
#[tokio::test]
async fn the_first_notification_takes_one_click_and_no_terminal() {
    let Some(browser) = Devtools::start().await else {
        return;
    };
    let dev = DevRun::start().await;
    let tab = opened(&browser, &dev).await;
    assert_eq!(tab.eval(NOTIFICATION).await, json!(null));
    tab.click(PUBLISH).await;
    tab.becomes(&format!("{NOTIFICATION} === 'Record created'"))
        .await;
    // It comes into view by itself.
    tab.becomes(
        "(() => { const { top, bottom } = document.querySelector('[role=log] article').getBoundingClientRect();
           return top >= 0 && bottom <= innerHeight; })()",
    )
    .await;
    let result = tab
        .eval("document.querySelector('.result').textContent")
        .await;
    assert_eq!(result, "Stored in EVENTS with the sequence 1.");
    // Somebody else's name, and a field that is misspelt.
    tab.eval("document.querySelector('#view-notifications section:nth-child(2) summary').click()")
        .await;
    tab.eval(
        "{ const user = document.querySelector('input[pattern]'); user.value = 'grace';
           user.form.querySelector('input[required]').value = 'globex'; user.form.requestSubmit(); }",
    )
    .await;
    tab.becomes("document.querySelector('.who').textContent === 'Connected as grace in globex'")
        .await;
}

/// It has another secret then, and the page that is open knows nothing of it.
#[tokio::test]
async fn the_page_goes_on_when_herald_dev_is_started_again() {
    let Some(browser) = Devtools::start().await else {
        return;
    };
    let dev = DevRun::start().await;
    let tab = opened(&browser, &dev).await;
    let dev = dev.again().await;
    let publisher = dev.publisher().await;
    let is_back = eventually(BROWSER_PATIENCE, async || {
        let event = json!({ "title": "Back" });
        publisher.event("acme.custom.x", &event).await;
        tab.eval(NOTIFICATION).await == "Back"
    });
    assert!(is_back.await, "the page does not come back");
    tab.click(PUBLISH).await;
    tab.becomes(&format!("{NOTIFICATION} === 'Record created'"))
        .await;
    tab.eval("location.hash = 'token'").await;
    tab.click("#view-token .quiet").await;
    tab.becomes("document.querySelector('#view-token textarea').value")
        .await;
    tab.click("#view-token .primary").await;
    tab.becomes("document.querySelector('.verdict.good')").await;
}

/// What others publish moves nothing under the user's hands, and an address of any kind shows one view.
#[tokio::test]
async fn the_page_stays_where_the_user_is() {
    let Some(browser) = Devtools::start().await else {
        return;
    };
    let dev = DevRun::start().await;
    let tab = browser.open("about:blank").await;
    tab.look_like([390, 844], "light").await;
    tab.navigate(&dev.page).await;
    tab.becomes(CONNECTED).await;
    tab.becomes(PREVIEWED).await;
    tab.eval("document.querySelector('.fields input').focus(); scrollTo(0, 0)")
        .await;
    let publisher = dev.publisher().await;
    // axe asks for a heading with words.
    let event = json!({ "title": "", "message": "" });
    publisher.event("acme.custom.x", &event).await;
    tab.becomes(&format!("{NOTIFICATION} === '(no title)'"))
        .await;
    assert_eq!(tab.eval("scrollY").await, 0);
    for hash in ["main", "no-such-view", ""] {
        let tab = browser.open(&format!("{}#{hash}", dev.page)).await;
        tab.becomes(CONNECTED).await;
        let views = "document.querySelectorAll('.view:not([hidden])').length";
        assert_eq!(tab.eval(views).await, 1, "{hash}");
        tab.close().await;
    }
}

/// Each loopback address under which it may be told to listen.
#[tokio::test]
async fn the_page_works_at_every_loopback_address() {
    let Some(browser) = Devtools::start().await else {
        return;
    };
    for (listen, admin) in [
        ("127.0.0.1:0", "127.0.0.2:0"),
        ("127.0.0.2:0", "127.0.0.1:0"),
        ("[::1]:0", "[::1]:0"),
    ] {
        let folders = [tempfile::tempdir().unwrap(), path_of_backend()];
        let file = format!("[server]\nlisten = \"{listen}\"\nadmin_listen = \"{admin}\"\n");
        std::fs::write(folders[0].path().join("herald.toml"), file).unwrap();
        let dev = DevRun::start_in(folders).await;
        let tab = opened(&browser, &dev).await;
        tab.click(PUBLISH).await;
        tab.becomes(&format!("{NOTIFICATION} === 'Record created'"))
            .await;
        tab.close().await;
    }
}

#[tokio::test]
async fn a_keyboard_is_enough() {
    let Some(browser) = Devtools::start().await else {
        return;
    };
    let dev = DevRun::start().await;
    let tab = opened(&browser, &dev).await;
    let focused = "document.activeElement.textContent";
    let mut seen = Vec::new();
    while tab.eval(focused).await != "Publish" {
        tab.press(("Tab", 9, "")).await;
        seen.push(
            tab.eval("document.activeElement.outerHTML.slice(0, 80)")
                .await,
        );
        assert!(seen.len() < 40, "{seen:?}");
        // Where the focus is can be seen.
        let outline = tab
            .eval("getComputedStyle(document.activeElement).outlineStyle")
            .await;
        assert_eq!(outline, "solid", "{seen:?}");
    }
    tab.press(("Enter", 13, "\r")).await;
    tab.becomes(&format!("{NOTIFICATION} === 'Record created'"))
        .await;
    // The focus stays where it was.
    assert_eq!(tab.eval(focused).await, "Publish");
}

/// The form has the fields of each event's schema, and what it is filled with is what a gateway takes.
#[tokio::test]
async fn the_form_knows_each_event() {
    let Some(browser) = Devtools::start().await else {
        return;
    };
    let dev = DevRun::start().await;
    let tab = opened(&browser, &dev).await;
    let names = "[...document.querySelectorAll('#view-notifications select')[0].options].map(({ value }) => value)";
    let names = tab.eval(names).await;
    let names = names.as_array().expect("a list");
    assert!(names.len() > 10, "{names:?}");
    for name in names.iter().filter_map(Value::as_str) {
        tab.eval(&format!(
            "{{ const select = document.querySelectorAll('#view-notifications select')[0]; select.value = '{name}';
               document.querySelector('.preview').replaceChildren(); select.dispatchEvent(new Event('change')); }}"
        ))
        .await;
        // What is wrong with it would stand there without a heading.
        tab.becomes("document.querySelector('.preview h3')?.textContent")
            .await;
        let fields = "[...document.querySelectorAll('.fields [name]')].map(({ name }) => name)";
        let fields = tab.eval(fields).await.to_string();
        for field in ["title", "message", "metadata", "recipients"] {
            assert!(fields.contains(&format!("\"{field}\"")), "{name}: {fields}");
        }
        assert!(
            name != "record.created" || fields.contains("\"collection\""),
            "{fields}"
        );
    }
    // Of each kind of field what is typed, by its name.
    let typed = "(() => { const of = (name) => document.querySelector(`.fields [name=${name}]`);
        of('title').value = 'Mine'; of('recipients').value = 'ada, grace'; of('metadata').value = '{\"a\": [1]}';
        of('title').dispatchEvent(new Event('input', { bubbles: true })); })()";
    tab.eval(typed).await;
    tab.becomes("document.querySelector('.preview h3')?.textContent === 'Mine'")
        .await;
    tab.click(PUBLISH).await;
    tab.becomes("document.querySelector('.result.good')").await;
    let nats = async_nats::connect(&dev.nats).await.unwrap();
    let stream = async_nats::jetstream::new(nats)
        .get_stream("EVENTS")
        .await
        .unwrap();
    let stored = stream.get_raw_message(1).await.unwrap();
    let payload: Value = serde_json::from_slice(&stored.payload).unwrap();
    assert_eq!(payload["recipients"], json!(["ada", "grace"]));
    assert_eq!(payload["metadata"], json!({ "a": [1] }));
}

/// On a gateway in production: first the admin token, then a token of whom the notifications are for.
#[tokio::test]
async fn a_gateway_in_production_asks_for_the_admin_token_and_keeps_it_nowhere() {
    let Some(browser) = Devtools::start().await else {
        return;
    };
    let nats = Nats::jetstream().await;
    let (gateway, _folder) = gateway_with_console(&nats).await;
    let tab = browser
        .open(&format!("http://{}/console", gateway.admin))
        .await;
    let field = "document.activeElement?.type === 'password'";
    tab.becomes(field).await;
    tab.eval(&super::axe().await).await;
    assert_eq!(tab.eval(VIOLATIONS).await, json!([]));
    tab.insert("another-token-that-is-long-enough").await;
    tab.press(("Enter", 13, "\r")).await;
    tab.becomes(
        "document.querySelector('.narrow .wrong').textContent.includes('not the admin token')",
    )
    .await;
    tab.eval("document.querySelector('.narrow input').value = ''")
        .await;
    tab.click(".narrow input").await;
    tab.insert(ADMIN_TOKEN).await;
    // Twice, before the first answer.
    tab.eval("{ const { form } = document.querySelector('.narrow input'); form.requestSubmit(); form.requestSubmit(); }")
        .await;
    tab.becomes("document.querySelectorAll('.view').length === 5")
        .await;
    tab.becomes("document.querySelector('.preview.empty')")
        .await;
    let token = token("ann", "acme");
    tab.click("#view-notifications section:nth-child(2) textarea")
        .await;
    tab.insert(&token).await;
    tab.click("#view-notifications section:nth-child(2) input[required]")
        .await;
    tab.insert("acme").await;
    tab.press(("Enter", 13, "\r")).await;
    tab.becomes("document.querySelector('.who.open')").await;
    let publisher = Publisher::on(&nats).await;
    publisher
        .event("acme.custom.x", &json!({ "title": "Seen" }))
        .await;
    tab.becomes(&format!("{NOTIFICATION} === 'Seen'")).await;
    let kept = "JSON.stringify([location.href, document.cookie, { ...localStorage }, { ...sessionStorage }])";
    let kept = tab.eval(kept).await.to_string();
    assert!(
        !kept.contains(ADMIN_TOKEN) && !kept.contains(&token),
        "{kept}"
    );
    // A reload asks again.
    tab.eval("location.reload()").await;
    tab.becomes(field).await;
    assert!(!gateway.output().contains(ADMIN_TOKEN));
}

/// Whoever publishes writes no HTML of the page, and does not fill its memory.
#[tokio::test]
async fn nothing_of_an_event_becomes_html() {
    let Some(browser) = Devtools::start().await else {
        return;
    };
    let dev = DevRun::start().await;
    let tab = opened(&browser, &dev).await;
    let publisher = dev.publisher().await;
    let evil = "<img src=x onerror='window.hacked=1'><script>window.hacked=1</script>\u{202e}evil";
    let event = json!({
        "title": evil, "message": evil.repeat(200), "metadata": { evil: evil }
    });
    publisher.event("acme.custom.x", &event).await;
    tab.becomes(&format!("{NOTIFICATION} === {}", json!(evil)))
        .await;
    for index in 0..600 {
        let event = json!({ "title": format!("{index} {evil}") });
        publisher.event("acme.custom.x", &event).await;
    }
    // On a busy machine its socket may have been too slow for so many, and have come back after them.
    let came = eventually(BROWSER_PATIENCE, async || {
        let event = json!({ "title": format!("last {evil}") });
        publisher.event("acme.custom.x", &event).await;
        let newest = tab.eval(NOTIFICATION).await;
        newest
            .as_str()
            .is_some_and(|title| title.starts_with("last "))
    });
    assert!(came.await, "the page shows nothing any more");
    for index in 0..200 {
        let event = json!({ "title": format!("{index} {evil}") });
        publisher.event("acme.custom.x", &event).await;
    }
    tab.becomes("document.querySelectorAll('[role=log] article').length === 200")
        .await;
    let made = "document.querySelectorAll('main img, main script, main iframe').length";
    assert_eq!(tab.eval(made).await, 0);
    assert_eq!(tab.eval("window.hacked ?? null").await, json!(null));
    // What would make HTML of a text cannot be used at all, and no other script runs.
    let html = "(() => { try { document.body.innerHTML = '<b>x</b>'; return 'made'; } catch (error) { return error.name; } })()";
    assert_eq!(tab.eval(html).await, "TypeError");
    let inline = "(() => { const script = document.createElement('script');
        try { script.textContent = 'window.hacked = 1'; document.body.append(script); } catch {}
        return window.hacked ?? null; })()";
    assert_eq!(tab.eval(inline).await, json!(null));
}

/// What axe finds.
const VIOLATIONS: &str = "axe.run().then(({ violations }) => violations.map(({ id, nodes }) => [id, nodes.map(({ html }) => html)]))";

/// Each view, and when it has what it shows.
const VIEWS: [(&str, &str); 5] = [
    ("notifications", "true"),
    (
        "live",
        "document.querySelectorAll('.spark svg').length === 6",
    ),
    (
        "dead-letters",
        "document.querySelector('#view-dead-letters [role=cell]')",
    ),
    ("token", "document.querySelector('#view-token form')"),
    (
        "sessions",
        "document.querySelector('#view-sessions [role=cell]')",
    ),
];

/// Whether pictures are put into the documentation.
fn is_update() -> bool {
    std::env::var_os("HERALD_UPDATE").is_some()
}

/// Something for the figures to show: more and fewer events, for a minute.
async fn be_busy(publisher: &Publisher) {
    for number in 0..600_u64 {
        let pause = 40 + (number / 8 * 37) % 120;
        tokio::time::sleep(Duration::from_millis(pause)).await;
        publisher
            .event("acme.custom.report_ready", &json!({ "title": "Report" }))
            .await;
    }
}

fn keep(name: &str, picture: &[u8]) {
    let is_shown = name.starts_with("notifications") || name.starts_with("live");
    if is_shown && is_update() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/pictures");
        std::fs::write(folder.join(format!("console-{name}.png")), picture).unwrap();
    }
}

/// In each view, light and dark, on a desk and on a phone: axe finds nothing, and nothing is wider than the page.
#[tokio::test]
async fn axe_finds_nothing_in_any_view() {
    let Some(browser) = Devtools::start().await else {
        return;
    };
    let dev = DevRun::start().await;
    let axe = super::axe().await;
    let publisher = dev.publisher().await;
    for (size, device) in [([1280, 800], "1280"), ([390, 844], "390")] {
        for scheme in ["light", "dark"] {
            let tab = browser.open("about:blank").await;
            tab.look_like(size, scheme).await;
            tab.navigate(&dev.page).await;
            tab.becomes(CONNECTED).await;
            tab.becomes(PREVIEWED).await;
            // A dead letter: its room is there.
            publisher
                .raw("acme.record.created", async_nats::HeaderMap::new(), "[1]")
                .await;
            tab.click(PUBLISH).await;
            tab.becomes(&format!("{NOTIFICATION} === 'Record created'"))
                .await;
            tab.eval(&axe).await;
            for (view, is_there) in VIEWS {
                tab.eval(&format!("location.hash = '{view}'")).await;
                tab.becomes(is_there).await;
                if view == "live" && is_update() {
                    be_busy(&publisher).await;
                }
                if view == "token" {
                    tab.click("#view-token .quiet").await;
                    tab.becomes("document.querySelector('#view-token textarea').value")
                        .await;
                    tab.click("#view-token .primary").await;
                    tab.becomes("document.querySelector('.verdict.good')").await;
                }
                tab.eval(
                    "document.querySelectorAll('details').forEach((it) => { it.open = false; })",
                )
                .await;
                assert_eq!(
                    tab.eval(VIOLATIONS).await,
                    json!([]),
                    "{view} {device} {scheme}"
                );
                let wide = "document.documentElement.scrollWidth <= innerWidth";
                assert_eq!(tab.eval(wide).await, true, "{view} {device} {scheme}");
                tab.eval("scrollTo(0, 0)").await;
                keep(&format!("{view}-{device}-{scheme}"), &tab.picture().await);
                // What is folded away.
                tab.eval(
                    "document.querySelectorAll('details').forEach((it) => { it.open = true; })",
                )
                .await;
                assert_eq!(
                    tab.eval(VIOLATIONS).await,
                    json!([]),
                    "{view} {device} {scheme}, unfolded"
                );
            }
            tab.close().await;
        }
    }
}
