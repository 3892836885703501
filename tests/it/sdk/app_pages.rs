//! Pages that an application would have: those of docs/clients.md, the accessible example, and one that is edited
//! while it is shown.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::*;
use crate::support::clients::apps;

const LIST: &str =
    "[...document.querySelectorAll('li')].map((item) => item.textContent.split(':')[0])";

/// Opens a page of the applications.
async fn open(scene: &Scene, page: &str) -> Tab {
    let page = format!("{}/{page}", scene.site.origin());
    scene.devtools.open(&page).await
}

async fn lists(tab: &Tab, titles: &Value) {
    tab.becomes(&format!(
        "JSON.stringify({LIST}) === {}",
        json!(titles.to_string())
    ))
    .await;
}

#[tokio::test]
async fn the_pages_of_the_guide_show_a_list_that_stays_alive() {
    let Some(mut scene) = Scene::new().await else {
        return;
    };
    if !scene.apps().await {
        return;
    }
    let mut tabs = Vec::new();
    for page in ["plain", "react", "vue", "svelte"] {
        let tab = open(&scene, &format!("{page}.html")).await;
        tab.becomes("/open|0 unread/.test(document.querySelector('[role=status]').textContent)")
            .await;
        tabs.push(tab);
    }
    scene.event("one").await;
    for tab in &tabs {
        lists(tab, &json!(["one"])).await;
    }
    // Whatever they are written with, they are tabs of one user.
    assert_eq!(scene.opened().await, 1.0);
    let port = scene.gateway.port();
    scene.gateway.signal("KILL");
    scene.gateway.ended().await;
    scene.gateway = Gateway::builder(&scene.nats)
        .set("server.listen", format!("127.0.0.1:{port}"))
        .ready()
        .await;
    scene.one_socket_is_open().await;
    scene.event("two").await;
    for tab in &tabs {
        lists(tab, &json!(["two", "one"])).await;
        tab.becomes("[...document.querySelectorAll('p, button')].some((one) => !one.hidden && /may be missing/.test(one.textContent))")
            .await;
    }
    assert_eq!(scene.opened().await, 1.0);
}

/// axe-core looks at the page as it is; what it finds, and what it cannot decide.
async fn is_accessible(tab: &Tab) {
    let found = tab
        .eval("axe.run().then(({ violations, incomplete }) => [...violations, ...incomplete]
            .map(({ id, nodes }) => [id, ...nodes.map(({ html, any }) => [html, ...any.map(({ message }) => message)])]))")
        .await;
    assert_eq!(found, json!([]));
}

const TAB: (&str, u32, &str) = ("Tab", 9, "");
const ENTER: (&str, u32, &str) = ("Enter", 13, "\r");
const ESCAPE: (&str, u32, &str) = ("Escape", 27, "");

/// The mouse is over the toasts: they wait, however slow this machine is.
const POINT: &str = "document.querySelectorAll('.toast').forEach((toast) =>
    toast.dispatchEvent(new MouseEvent('mouseover', { bubbles: true })))";

/// Says how many are unread.
fn unread(count: u32) -> String {
    format!("document.querySelector('h2').textContent === 'Notifications ({count} unread)'")
}

/// Goes through all controls by keyboard, and marks the newest as read on the way; what has had the focus.
async fn by_keyboard(tab: &Tab) -> Vec<String> {
    let mut reached: Vec<String> = Vec::new();
    while reached.len() < 12 {
        tab.press(TAB).await;
        let focus = tab.eval("document.activeElement.textContent").await;
        let focus = focus.as_str().unwrap_or_default().to_owned();
        if reached.contains(&focus) {
            break;
        }
        reached.push(focus);
        if reached.len() == 3 {
            // Its button goes away, and takes no focus with it.
            tab.press(ENTER).await;
            tab.becomes(&unread(1)).await;
            tab.becomes("document.activeElement.matches('li.read')")
                .await;
        }
    }
    reached
}

#[tokio::test]
async fn the_example_is_accessible_and_works_from_the_keyboard() {
    let Some(scene) = Scene::new().await else {
        return;
    };
    if !scene.apps().await {
        return;
    }
    let tab = open(&scene, "example/index.html").await;
    tab.becomes("/Connected/.test(document.querySelector('section [role=status]').textContent)")
        .await;
    let axe = apps::source().expect("just built");
    let axe = std::fs::read_to_string(axe.join("node_modules/axe-core/axe.min.js"));
    tab.eval(&format!("{};0", axe.expect("a script"))).await;
    is_accessible(&tab).await;
    // What is to be said is put into regions that are there already.
    let regions =
        "['status', 'alert'].map((role) => document.querySelector(`.toasts > [role=${role}]`))";
    tab.eval(&format!("window.regions = {regions}; 0")).await;
    let alert = json!({ "title": "Disk full", "type": "alert" });
    scene.event("New order").await;
    scene.publisher.event("acme.custom.x", &alert).await;
    tab.becomes(
        "/^New order/.test(regions[0].innerText) && /^Disk full/.test(regions[1].innerText)",
    )
    .await;
    tab.eval(POINT).await;
    is_accessible(&tab).await;
    tab.becomes(&unread(2)).await;

    let reached = by_keyboard(&tab).await;
    for button in [
        "Mark all as read",
        "Clear the list",
        "Mark as read: Disk full",
        "Mark as read: New order",
        "Dismiss: New order",
        "Dismiss: Disk full",
    ] {
        let found = reached.iter().any(|one| one == button);
        assert!(found, "{button}: {reached:?}");
    }
    tab.eval(POINT).await;
    is_accessible(&tab).await;
    for left in [1, 0] {
        tab.press(ESCAPE).await;
        let toasts = format!("document.querySelectorAll('.toast').length === {left}");
        tab.becomes(&toasts).await;
    }
    // A flood is neither read out nor covers the page.
    scene.events(0..30).await;
    tab.becomes("document.querySelectorAll('li').length === 32")
        .await;
    let toasts = tab.eval("document.querySelectorAll('.toast').length").await;
    assert!(toasts.as_u64() <= Some(3), "{toasts}");
    tab.eval("document.querySelector('button').focus()").await;
    tab.press(ENTER).await;
    tab.becomes(&unread(0)).await;
    tab.becomes("document.activeElement.matches('h2')").await;
    is_accessible(&tab).await;
}

/// A development server of Vite's that belongs to one test.
struct Vite(Child);

impl Drop for Vite {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Vite {
    fn serve(folder: &Path, port: u16, site: &str) -> Self {
        let apps = folder.parent().expect("it is in one");
        let vite = Command::new("node")
            .arg(apps.join("node_modules/vite/bin/vite.js"))
            .args([
                "--config",
                "../vite.config.js",
                "--host",
                "127.0.0.1",
                "--strictPort",
            ])
            .args(["--port", &port.to_string()])
            .env("SITE", site)
            .env("VITE_CACHE", folder.join("cache"))
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        Self(vite.expect("it starts"))
    }
}

/// Fast refresh: the module runs once more, and the page keeps its state and its socket.
#[tokio::test]
async fn a_page_that_is_edited_keeps_its_socket() {
    let Some(scene) = Scene::new().await else {
        return;
    };
    if !scene.apps().await {
        return;
    }
    let apps = apps::source().expect("just built");
    let folder = tempfile::Builder::new()
        .prefix("edited-")
        .tempdir_in(apps)
        .expect("a folder");
    let write =
        |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("a file");
    let read = |name: &str| std::fs::read_to_string(apps.join(name)).expect("a file");
    std::fs::create_dir(folder.path().join("src")).expect("a folder");
    let watch = "<script>window.errors = [];
        for (const level of ['error', 'warn']) console[level] = (...args) => errors.push(args.join(' '));</script>\n";
    write(
        "react.html",
        &read("react.html").replacen("<div", &format!("{watch}<div"), 1),
    );
    write("src/react.jsx", &read("src/react.jsx"));
    let url = format!("ws://{}/", scene.cable.address());
    let component = read("src/Notifications.jsx").replace("wss://ws.example.com/", &url);
    write("src/Notifications.jsx", &component);
    let port = TcpListener::bind("127.0.0.1:0")
        .expect("a port")
        .local_addr()
        .expect("one")
        .port();
    let _vite = Vite::serve(folder.path(), port, &scene.site.origin());
    let listens = eventually(Duration::from_secs(30), async || {
        tokio::net::TcpStream::connect(("127.0.0.1", port))
            .await
            .is_ok()
    });
    assert!(listens.await, "Vite does not listen");
    let tab = scene
        .devtools
        .open(&format!("http://127.0.0.1:{port}/react.html"))
        .await;
    tab.becomes("document.querySelector('[role=status]').textContent === '0 unread'")
        .await;
    scene.event("before").await;
    lists(&tab, &json!(["before"])).await;
    tab.eval("window.same = true").await;
    write(
        "src/Notifications.jsx",
        &component.replace("Clear", "Empty"),
    );
    tab.becomes("document.body.innerText.includes('Empty')")
        .await;
    lists(&tab, &json!(["before"])).await;
    scene.event("after").await;
    lists(&tab, &json!(["after", "before"])).await;
    assert_eq!(tab.eval("window.same").await, true, "it was loaded again");
    scene.one_socket_is_open().await;
    assert_eq!(scene.opened().await, 1.0);
    is_clean(&tab).await;
}

/// And it is one of the tabs: a page of the same user has no second socket.
#[tokio::test]
async fn a_service_worker_has_a_client() {
    let Some(scene) = Scene::new().await else {
        return;
    };
    let page = scene.page("service", "").await;
    scene.one_socket_is_open().await;
    scene.event("one").await;
    page.becomes("titles.includes('one')").await;
    let tab = scene.tab("").await;
    scene.events(0..20).await;
    has(&tab, &numbers(0..20)).await;
    page.becomes("titles.length === 21").await;
    assert_eq!(scene.opened().await, 1.0);
    is_clean(&page).await;
}
