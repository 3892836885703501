//! From the printed address to the first notification, in a browser: by mouse, by keyboard, and with data of a publisher
//! that means harm.

use serde_json::json;

use super::{ADMIN_TOKEN, DevRun, NOTIFICATION, gateway_with_console};
use crate::support::devtools::{Devtools, Tab};
use crate::support::nats::Nats;
use crate::support::publisher::Publisher;
use crate::support::token::token;

const CONNECTED: &str = "document.querySelector('.who').textContent === 'Connected as ada in acme'";
/// The preview is there, and with it the form.
const PREVIEWED: &str = "document.querySelector('.preview h3').textContent === 'Record created'";

async fn opened(browser: &Devtools, dev: &DevRun) -> Tab {
    let tab = browser.open(&dev.page).await;
    tab.becomes(CONNECTED).await;
    tab.becomes(PREVIEWED).await;
    tab
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
    tab.press(("Enter", 13, "\r")).await;
    tab.becomes("document.querySelector('.preview.empty')").await;
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
    let publisher = Publisher::over(async_nats::connect(&dev.nats).await.unwrap());
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
    tab.becomes(&format!("{NOTIFICATION}.startsWith('599 ')"))
        .await;
    let count = "document.querySelectorAll('[role=log] article').length";
    assert_eq!(tab.eval(count).await, 200);
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

