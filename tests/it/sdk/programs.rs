//! The programs of docs/clients.md stay connected: with a token that ends, on a line that falls silent, past a
//! gateway that is killed; and each stops where the table of close codes says so.

use std::collections::BTreeSet;
use std::process::Command;

use super::*;
use crate::support::cable::Condition;
use crate::support::clients::apps::{self, GUIDE};
use crate::support::clients::script::Script;
use crate::support::clients::{go_program, node, python, sdk_js};
use crate::support::example::{Example, examples};
use crate::support::gateway::{HERALD, file};
use crate::support::program;

#[test]
fn every_example_is_run() {
    let names: BTreeSet<&str> = examples(GUIDE).iter().map(|example| example.name).collect();
    let programs = [
        "client.mjs",
        "client.py",
        "client.go",
        "Client.java",
        "app.test.mjs",
    ];
    let tried: BTreeSet<&str> = programs.into_iter().chain(apps::parts()).collect();
    assert_eq!(names, tried);
}

/// The numbers in a text.
fn codes(text: &str) -> BTreeSet<u16> {
    let words = text.split(|char: char| !char.is_ascii_digit());
    words
        .filter(|word| word.len() == 4)
        .filter_map(|word| word.parse().ok())
        .collect()
}

/// What the guide and its programs do after a code is what the gateway's table says.
#[test]
fn the_codes_of_the_guide_are_those_of_the_table() {
    let table: Value = serde_json::from_str(include_str!("../../../api/close-codes.json")).unwrap();
    let table = table.as_object().unwrap();
    let of = |actions: &[&str]| -> BTreeSet<u16> {
        let rows = table
            .iter()
            .filter(|(_, row)| actions.iter().any(|action| row["client"] == **action));
        rows.map(|(code, _)| code.parse().unwrap()).collect()
    };
    for action in ["stop", "token", "now", "backoff"] {
        let rows = GUIDE
            .lines()
            .filter(|line| line.contains(&format!("| {action} |")));
        let told: BTreeSet<u16> = rows
            .flat_map(|row| codes(row.split('|').nth(1).unwrap()))
            .collect();
        assert_eq!(told, of(&[action]), "{action}");
    }
    for (name, stop, at_once) in [
        ("client.py", "STOP = ", "AT_ONCE = "),
        ("client.go", "stop   = ", "atOnce = "),
        ("Client.java", " STOP = ", " AT_ONCE = "),
    ] {
        let text = Example::named(GUIDE, name).text;
        let line = |start: &str| codes(text.lines().find(|line| line.contains(start)).unwrap());
        assert_eq!(line(stop), of(&["stop"]), "{name}");
        assert_eq!(line(at_once), of(&["token", "now"]), "{name}");
    }
}

/// A program that runs, as a user of its own.
struct Program {
    user: &'static str,
    script: Script,
}

/// What the programs talk to.
struct World {
    // In the order in which they are to end.
    programs: Vec<Program>,
    cable: Cable,
    gateway: Gateway,
    nats: Nats,
    publisher: Publisher,
    site: Site,
}

impl World {
    async fn new() -> Self {
        let nats = Nats::jetstream().await;
        // The programs send heartbeats as often.
        let gateway = Gateway::builder(&nats)
            .set("sockets.ping", "2s")
            .ready()
            .await;
        Self {
            programs: Vec::new(),
            cable: Cable::to(gateway.port()).await,
            publisher: Publisher::on(&nats).await,
            site: Site::start().await,
            gateway,
            nats,
        }
    }

    /// Starts a program whose tokens last so many seconds.
    fn start(&mut self, user: &'static str, lives: u32, mut command: Command) {
        command
            .env("HERALD_URL", format!("ws://{}/", self.cable.address()))
            .env("HERALD_WORKSPACE", "acme")
            .env(
                "TOKEN_URL",
                format!("{}/token?user={user}&lives={lives}", self.site.origin()),
            );
        let script = Script::start(command);
        self.programs.push(Program { user, script });
    }

    async fn all_are_connected(&self) {
        let count = self.programs.len() as f64;
        let told =
            || -> Vec<String> { self.programs.iter().map(|one| one.script.told()).collect() };
        let connected = eventually(Duration::from_secs(90), async || {
            (self.gateway.metric("herald_connections", "").await - count).abs() < 0.5
        });
        assert!(connected.await, "{:?}", told());
    }

    /// Publishes; each program shows it.
    async fn all_show(&mut self, title: &str) {
        let payload = json!({ "title": title });
        self.publisher.event("acme.custom.x", &payload).await;
        for Program { user, script } in &mut self.programs {
            let what = format!("{title} of {user}");
            script.until(&what, |line| line["title"] == title).await;
        }
    }

    /// All of it, with what has been started.
    async fn stays_connected(mut self, renewed_after: Duration) {
        self.all_are_connected().await;
        let count = self.programs.len() as f64;
        let since = tokio::time::Instant::now();
        let mut number = 0;
        while since.elapsed() < renewed_after {
            self.all_show(&format!("event {number}")).await;
            number += 1;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        // The tokens have ended since, and no socket with them.
        let opened = self
            .gateway
            .metric("herald_connections_opened_total", "")
            .await;
        assert_eq!(opened, count, "a token was not renewed in time");

        // No FIN and no reset: only a heartbeat without an answer tells.
        self.cable.set(Condition::Silent);
        for Program { user, script } in &self.programs {
            let told = eventually(Duration::from_secs(60), async || {
                ["does not answer", "Timeout"]
                    .iter()
                    .any(|word| script.told().contains(word))
            });
            assert!(told.await, "{user}: {}", script.told());
        }
        self.cable.cut();
        self.gateway
            .metric_becomes("herald_connections", "", 0.0)
            .await;
        self.cable.mend();
        self.all_are_connected().await;
        self.all_show("after the silence").await;

        let port = self.gateway.port();
        self.gateway.signal("KILL");
        self.gateway.ended().await;
        self.gateway = Gateway::builder(&self.nats)
            .set("server.listen", format!("127.0.0.1:{port}"))
            .ready()
            .await;
        self.all_are_connected().await;
        self.all_show("after the kill").await;

        for Program { user, mut script } in std::mem::take(&mut self.programs) {
            let told = script.told();
            // A token that grows old while the line is silent may cost one more.
            assert!(
                told.matches("may have missed").count() >= 2,
                "{user}: {told}"
            );
            let _elsewhere = Client::join(&self.gateway, user, "acme").await;
            assert!(!script.ended().await, "{user}: it has to stop");
            let told = script.told();
            assert!(
                told.contains("replaced by a newer connection"),
                "{user}: {told}"
            );
        }
    }
}

/// The program of the guide that runs in Node, in `folder`.
fn client_mjs(folder: &std::path::Path) -> String {
    let modules = folder.join("node_modules");
    std::fs::create_dir_all(&modules).expect("a folder");
    std::os::unix::fs::symlink(sdk_js(), modules.join("herald-client")).expect("a link");
    // Deno takes nothing that is not named there.
    let package = r#"{ "dependencies": { "herald-client": "*" } }"#;
    file(folder, "package.json", package);
    file(
        folder,
        "client.mjs",
        Example::named(GUIDE, "client.mjs").text,
    )
}

#[tokio::test]
async fn the_programs_of_the_guide_stay_connected() {
    let mut world = World::new().await;
    let folder = tempfile::tempdir().expect("a folder");
    let text = |name| Example::named(GUIDE, name).text;
    let folder_of = folder.path().to_owned();
    let commands = tokio::task::spawn_blocking(move || {
        let mut commands = Vec::new();
        let mut run = node();
        run.arg(client_mjs(&folder_of));
        commands.push(("ann", run));
        let mut run = python();
        run.arg(file(&folder_of, "client.py", text("client.py")));
        commands.push(("bob", run));
        commands.push(("cid", Command::new(go_program("go", text("client.go")))));
        if let Some(java) = program("java", "HERALD_TEST_JAVA", "a JDK of 17 or newer") {
            let mut run = Command::new(java);
            run.arg(file(&folder_of, "Client.java", text("Client.java")));
            commands.push(("dan", run));
        }
        commands
    });
    for (user, command) in commands.await.expect("they are built") {
        world.start(user, 16, command);
    }
    world.stays_connected(Duration::from_secs(18)).await;
}

#[tokio::test]
#[ignore = "npm gets 400 MB: make check-long"]
async fn node_22_deno_and_bun_run_the_client() {
    let mut world = World::new().await;
    let folder = tempfile::tempdir().expect("a folder");
    let folder_of = folder.path().to_owned();
    let made = tokio::task::spawn_blocking(move || (apps::runtimes(), client_mjs(&folder_of)));
    let (runtimes, client) = made.await.expect("they are installed");
    for (user, name, arguments) in [
        ("ann", "node", &[][..]),
        (
            "bob",
            "deno",
            &["run", "--quiet", "--allow-env", "--allow-net"],
        ),
        ("cid", "bun", &[]),
    ] {
        let mut run = Command::new(runtimes.join(name));
        run.args(arguments).arg(&client).current_dir(folder.path());
        world.start(user, 6, run);
    }
    world.stays_connected(Duration::from_secs(10)).await;
}

/// The guide's test of an application, with the commands that it names.
#[tokio::test]
async fn the_test_against_a_gateway_for_development_passes() {
    let folder = tempfile::tempdir().expect("a folder");
    client_mjs(folder.path());
    let example = Example::named(GUIDE, "app.test.mjs");
    let test = file(folder.path(), example.name, example.text);
    let servers = crate::dev::path_of_backend();
    let herald = std::path::Path::new(HERALD).parent().expect("a folder");
    let search = std::env::var_os("PATH").unwrap_or_default();
    let search = [servers.path(), herald]
        .map(std::path::Path::to_owned)
        .into_iter()
        .chain(std::env::split_paths(&search));
    let mut command = tokio::process::Command::from(node());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("HERALD_") {
            command.env_remove(name);
        }
    }
    command
        .arg(test)
        .env("PATH", std::env::join_paths(search).expect("no colons"))
        .current_dir(folder.path());
    let output = crate::support::command::finish(command).await.ok();
    assert!(output.stdout.contains("pass 1"), "{output:?}");
}
