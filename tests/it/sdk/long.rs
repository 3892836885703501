//! What takes minutes: quiet and short tokens in full length, and applications made anew by what their makers offer.

use std::path::Path;
use std::process::Command;

use super::*;
use crate::support::clients::apps::{self, GUIDE};
use crate::support::example::Example;

#[tokio::test]
#[ignore = "six minutes: make check-long"]
async fn five_quiet_minutes_end_nothing() {
    let Some(scene) = Scene::new().await else {
        return;
    };
    let tab = scene.tab("").await;
    let others = [scene.tab("").await, scene.tab("").await];
    tokio::time::sleep(Duration::from_secs(360)).await;
    scene.event("after").await;
    for tab in others.iter().chain([&tab]) {
        has(tab, &["after".to_owned()]).await;
        assert_eq!(tab.eval("gaps").await, json!([]));
        is_clean(tab).await;
    }
    assert_eq!(scene.opened().await, 1.0);
}

#[tokio::test]
#[ignore = "ten minutes: make check-long"]
async fn ten_minutes_of_tokens_of_five_seconds_lose_nothing() {
    let Some(scene) = Scene::new().await else {
        return;
    };
    let tab = scene.tab("&lives=5").await;
    for number in 0..2400 {
        scene.event(&number.to_string()).await;
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    has(&tab, &numbers(0..2400)).await;
    assert_eq!(scene.opened().await, 1.0);
    assert_eq!(tab.eval("gaps").await, json!([]));
    is_clean(&tab).await;
}

/// Runs a command, which has to end well.
fn must(folder: &Path, command: &[&str]) {
    eprintln!("tests run {command:?}");
    let output = Command::new(command[0])
        .args(&command[1..])
        .current_dir(folder)
        .env("NEXT_TELEMETRY_DISABLED", "1")
        .env("CI", "1")
        .stdin(std::process::Stdio::null())
        .output()
        .expect("it starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{command:?}:\n{}\n{}",
        text(&output.stdout),
        text(&output.stderr)
    );
}

/// A page of a fresh application, built, shows notifications. Its whole configuration is what it was made with.
async fn shows(scene: &Scene, page: &str) {
    let tab = scene.devtools.open(page).await;
    tab.becomes("document.querySelector('[role=status]').textContent === '0 unread'")
        .await;
    scene.event("one").await;
    tab.becomes("document.querySelector('li').textContent.startsWith('one: ')")
        .await;
    assert_eq!(scene.opened().await, 1.0);
}

/// The guide's component, for this gateway, with the type that TypeScript asks for.
fn component(scene: &Scene) -> String {
    let url = format!("ws://{}/", scene.cable.address());
    let text = Example::named(GUIDE, "Notifications.jsx").text;
    text.replace("wss://ws.example.com/", &url).replace(
        "async ({ signal })",
        "async ({ signal }: { signal: AbortSignal })",
    )
}

#[tokio::test]
#[ignore = "npm makes an application: make check-long"]
async fn a_fresh_vite_application_needs_no_configuration() {
    let Some(scene) = Scene::new().await else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let app = folder.path().join("app");
    let component = component(&scene);
    let made = tokio::task::spawn_blocking({
        let (app, folder) = (app.clone(), folder.path().to_owned());
        move || {
            must(
                &folder,
                &[
                    "npm",
                    "create",
                    "--yes",
                    "vite@9.3.0",
                    "app",
                    "--",
                    "--template",
                    "react-ts",
                    "--no-interactive",
                ],
            );
            must(&app, &["npm", "install", "--silent"]);
            let package = apps::pack(&folder).display().to_string();
            must(&app, &["npm", "install", "--silent", &package]);
            let write =
                |name: &str, text: &str| std::fs::write(app.join(name), text).expect("a file");
            write("src/Notifications.tsx", &component);
            write(
                "src/App.tsx",
                "import { Notifications } from './Notifications';\nexport default Notifications;\n",
            );
            must(&app, &["npm", "run", "build"]);
        }
    });
    made.await.expect("it is built");
    let url = "wss://not.used/".to_owned();
    scene.site.show(Apps {
        folder: app.join("dist"),
        url,
    });
    shows(&scene, &format!("{}/index.html", scene.site.origin())).await;
}

/// A server of an application, with all its processes.
struct Server(std::process::Child);

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
#[ignore = "npm makes an application: make check-long"]
async fn a_fresh_next_application_needs_no_configuration() {
    let Some(scene) = Scene::new().await else {
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let app = folder.path().join("app");
    let component = component(&scene);
    let made = tokio::task::spawn_blocking({
        let (app, folder) = (app.clone(), folder.path().to_owned());
        move || make_next(&folder, &app, &component)
    });
    made.await.expect("it is built");
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = port.local_addr().expect("its address");
    drop(port);
    let server = Command::new("node")
        .arg(app.join("node_modules/next/dist/bin/next"))
        .args(["start", "--hostname", "127.0.0.1", "--port"])
        .arg(address.port().to_string())
        .env("SITE", scene.site.origin())
        .current_dir(&app)
        .stdout(std::process::Stdio::null())
        .spawn();
    let _server = Server(server.expect("it starts"));
    let listens = eventually(Duration::from_secs(60), async || {
        tokio::net::TcpStream::connect(address).await.is_ok()
    });
    assert!(listens.await, "Next.js does not listen");
    shows(&scene, &format!("http://{address}/")).await;
}

fn make_next(folder: &Path, app: &Path, component: &str) {
    let create = "npm exec --yes create-next-app@16.4.3 app -- --ts --app --empty --use-npm --yes --disable-git \
        --no-eslint --no-tailwind --no-src-dir --no-react-compiler --import-alias @/*";
    must(folder, &create.split_whitespace().collect::<Vec<_>>());
    let package = apps::pack(folder).display().to_string();
    must(app, &["npm", "install", "--silent", &package]);
    let write = |name: &str, text: &str| std::fs::write(app.join(name), text).expect("a file");
    write(
        "app/Notifications.tsx",
        &format!("'use client';\n{component}"),
    );
    write(
        "app/page.tsx",
        "import { Notifications } from './Notifications';\nexport default function Page() { return <Notifications />; }\n",
    );
    std::fs::create_dir(app.join("app/token")).expect("a folder");
    write(
        "app/token/route.ts",
        "export const GET = (request: Request) => fetch(`${process.env.SITE}/token${new URL(request.url).search}`);\n",
    );
    must(app, &["npm", "run", "build"]);
}
