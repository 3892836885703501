//! The package by itself: its size, its own tests, and what `npm pack` gives to somebody who has nothing else.

use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::support::clients::apps::pack;
use crate::support::clients::script::Script;
use crate::support::clients::{node, sdk_js};
use crate::support::gateway::{Gateway, run};
use crate::support::nats::Nats;
use crate::support::publisher::Publisher;
use crate::support::token::token;

/// Runs a command in the package's folder; its output.
fn npm(folder: &Path, arguments: &[&str]) -> String {
    let mut npm = Command::new("npm");
    npm.args(arguments).current_dir(folder);
    let (code, out, err) = run(npm);
    assert_eq!(code, Some(0), "npm {arguments:?}:\n{out}\n{err}");
    out
}

#[test]
fn it_is_small_and_its_machine_passes_its_tests() {
    let folder = sdk_js();
    npm(folder, &["run", "--silent", "size"]);
    npm(folder, &["test", "--silent"]);
}

/// What a gateway serves at /console is what its sources make.
#[test]
fn the_console_in_the_repository_is_made_from_its_sources() {
    let made = tempfile::tempdir().unwrap();
    let folder = made.path().display().to_string();
    npm(sdk_js(), &["run", "--silent", "console", "--", &folder]);
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ops/console/page");
    let mut files = 0;
    for file in std::fs::read_dir(&kept).unwrap() {
        let name = file.unwrap().file_name();
        let read = |folder: &Path| std::fs::read(folder.join(&name)).unwrap_or_default();
        let is_same = read(&kept) == read(made.path());
        assert!(
            is_same,
            "{name:?} is another one: npm run console in sdk/js"
        );
        files += 1;
    }
    assert_eq!(files, std::fs::read_dir(made.path()).unwrap().count());
}

/// A script that knows nothing but the package, as ESM and as CommonJS.
#[tokio::test]
async fn what_npm_packs_works_in_node() {
    let folder = tempfile::tempdir().unwrap();
    let file = pack(folder.path()).display().to_string();
    std::fs::write(folder.path().join("package.json"), "{}").unwrap();
    npm(
        folder.path(),
        &["install", "--silent", "--no-audit", "--no-fund", &file],
    );
    let nats = Nats::jetstream().await;
    let gateway = Gateway::on(&nats).await;
    let publisher = Publisher::on(&nats).await;
    let rest = format!(
        "const client = new HeraldClient({{ url: '{}', workspace: 'acme', getToken: () => '{}' }});
         client.on('status', ({{ state }}) => console.log(JSON.stringify({{ state }})));
         client.connect();
         (async () => {{
           for await (const {{ title }} of client) {{
             console.log(JSON.stringify({{ title }}));
             if (title === 'last') client.close();
           }}
           console.log(JSON.stringify({{ over: true }}));
         }})();",
        gateway.url(),
        token("ann", "acme")
    );
    for (name, import) in [
        ("esm.mjs", "import { HeraldClient } from 'herald-client';"),
        (
            "cjs.cjs",
            "const { HeraldClient } = require('herald-client');",
        ),
    ] {
        std::fs::write(folder.path().join(name), format!("{import}\n{rest}")).unwrap();
        let mut command = node();
        command.arg(name).current_dir(folder.path());
        let mut script = Script::start(command);
        script.until("open", |line| line["state"] == "open").await;
        for title in ["first", "last"] {
            publisher
                .event("acme.custom.x", &json!({ "title": title }))
                .await;
        }
        for title in ["first", "last"] {
            script.until(title, |line| line["title"] == title).await;
        }
        script.until("the end", |line| line["over"] == true).await;
        // Nothing keeps it.
        assert!(script.ended().await);
    }
}

/// Wrong use of a message is a type error, and right use is none.
#[test]
fn the_types_say_what_a_message_has() {
    let folder = sdk_js();
    let tsc = folder.join("node_modules/typescript/bin/tsc");
    let right = "
        import { HeraldClient, type ClientMessage, type ControlMessage, type Notification } from './index.js';
        import { useNotifications } from './react.js';
        const client = new HeraldClient({ url: 'ws://x', workspace: 'acme', getToken: async () => 't' });
        client.on('notification', ({ id, title, metadata }) => [id.length, title.trim(), metadata.anything]);
        client.on('gap', ({ from, to }) => to.getTime() - from.getTime());
        client.on('status', ({ state, retryAt }) => state === 'waiting' && retryAt);
        const one: Notification = client.getSnapshot().notifications[0]!;
        useNotifications('token', 'acme').notifications.map(({ id }) => id);
        useNotifications(null, undefined).connected;
        const beat: ClientMessage = { type: 'heartbeat' };
        const until = (told: ControlMessage) => (told.herald === 'heartbeat' ? 0 : told.expiresAt);
        if (one.type === 'info' || one.type === 'record_created') one.timestamp?.trim();
        export { beat, one, until };";
    let wrong = [
        "client.on('notification', ({ text }) => text);",
        "client.on('notification', ({ title }) => title.foo);",
        "client.on('message', () => {});",
        "client.on('status', ({ state }) => state === 'closed');",
        "client.getSnapshot().notifications.push(one);",
        "new HeraldClient({ url: 'ws://x', getToken: () => 't' });",
        "useNotifications(7, 'acme');",
        "client._socket;",
        "const read: Notification = { ...one, read: 'no' };",
        "const short: Notification = { id: '1', title: 'a' };",
        "const tick: ClientMessage = { type: 'heartbaet' };",
        "const empty: ClientMessage = { type: 'token' };",
        "const wordy: ClientMessage = { type: 'heartbeat', token: 't' };",
        "const session = (told: ControlMessage) => told.session;",
        "const later = (told: ControlMessage) => told.herald === 'later';",
        "const at: ControlMessage = { herald: 'token', expiresAt: 'soon' };",
    ];
    let check = tempfile::Builder::new()
        .prefix("types-")
        .tempdir_in(folder.join("dist"))
        .unwrap();
    let compile = |name: &str, text: &str| {
        let file = check.path().join(name);
        std::fs::write(&file, text.replace("'./", "'../")).unwrap();
        let mut command = Command::new("node");
        command
            .arg(&tsc)
            .args([
                "--noEmit",
                "--strict",
                "--noUncheckedIndexedAccess",
                "--target",
                "es2022",
            ])
            .args(["--module", "nodenext", "--skipLibCheck", "false"])
            .arg(&file);
        run(command)
    };
    let (code, out, _) = compile("right.mts", right);
    assert_eq!(code, Some(0), "{out}");
    let all = format!("{right}\n{}", wrong.join("\n"));
    let (_, out, _) = compile("wrong.mts", &all);
    let first = right.lines().count() + 1;
    for (index, line) in wrong.iter().enumerate() {
        let at = format!("wrong.mts({},", first + index);
        assert!(out.contains(&at), "no error: {line}\n{out}");
    }
}
