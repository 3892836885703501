//! SIGHUP: the settings and their files are read again, and hold all or not at all, while sockets stay.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::client::Client;
use crate::support::gateway::{Builder, Gateway, fifo, file};
use crate::support::nats::Nats;
use crate::support::publisher::Publisher;
use crate::support::tls::{self, Certificates};
use crate::support::token::{at, with_key};
use crate::support::{PATIENCE, eventually};

const RULES: &str =
    "[[rule]]\nmatch = \"*.*\"\ntype = \"info\"\ntitle = \"TITLE\"\nmessage = \"m\"\nfields = []\n";
const SECRET: &str = "the first secret, which is long enough";
const OTHER_SECRET: &str = "the second secret, which is long enough";
const APPLIED: &str = "configuration reloaded";
const REFUSED: &str = "configuration not reloaded, the old one stays in force";

/// A gateway with a configuration file and the files that it names, all in one folder.
struct Scene {
    nats: Nats,
    folder: TempDir,
    gateway: Gateway,
}

impl Scene {
    /// With this configuration file beside the connection's settings.
    async fn new(config: &str) -> Self {
        Self::with(config, |builder| builder).await
    }

    async fn with(config: &str, more: impl FnOnce(Builder) -> Builder) -> Self {
        let nats = Nats::jetstream().await;
        let folder = tempfile::tempdir().expect("a temporary folder");
        file(folder.path(), "secret", SECRET);
        file(folder.path(), "rules.toml", RULES.replace("TITLE", "one"));
        let config = named(folder.path(), config);
        let path = PathBuf::from(file(folder.path(), "herald.toml", config));
        let builder = Gateway::builder(&nats)
            .unset("auth.hmac_secret")
            .unset("log.level")
            .file(&path);
        let gateway = more(builder).ready().await;
        Self {
            nats,
            folder,
            gateway,
        }
    }

    fn write(&self, name: &str, content: &str) {
        file(self.folder.path(), name, named(self.folder.path(), content));
    }

    async fn reload(&self) -> Value {
        self.gateway.hang_up(APPLIED).await
    }

    /// Joins with a token of this secret; the close code where it is not taken.
    async fn join(&self, user: &str, secret: &str) -> Result<Client, u16> {
        let claims = json!({ "sub": user, "workspaces": "acme", "exp": at(3600) });
        let key = jsonwebtoken::EncodingKey::from_secret(secret.as_bytes());
        let token = with_key(&claims, jsonwebtoken::Algorithm::HS256, &key);
        let query = format!("token={token}&workspaceSlug=acme");
        let attempt = Client::attempt(&self.gateway, &query).await;
        let mut client = attempt.map_err(|refused| refused.status)?;
        if client.is_open().await {
            Ok(client)
        } else {
            Err(4001)
        }
    }

    /// The title that the next event has at `client`.
    async fn title(&self, client: &mut Client) -> Value {
        let publisher = Publisher::on(&self.nats).await;
        publisher.event("acme.custom.x", &json!({})).await;
        client.notification().await["title"].clone()
    }
}

/// `$` stands for the folder of the files.
fn named(folder: &Path, text: &str) -> String {
    text.replace('$', &folder.display().to_string())
}

const CONFIG: &str =
    "[auth]\nhmac_secret_file = \"$/secret\"\n[projection]\nrules = \"$/rules.toml\"\n";

#[tokio::test]
async fn rules_change_while_the_socket_stays_and_a_key_takes_its_own_along() {
    let scene = Scene::new(CONFIG).await;
    let mut ann = scene.join("ann", SECRET).await.expect("open");
    assert_eq!(scene.title(&mut ann).await, "one");
    let told = scene.reload().await;
    assert_eq!(
        [&told["changed"], &told["files"], &told["needs_restart"]],
        ["none"; 3]
    );
    scene.write("rules.toml", &RULES.replace("TITLE", "two"));
    let told = scene.reload().await;
    assert_eq!(told["level"], "INFO");
    assert_eq!(told["files"], "projection.rules");
    assert_eq!(scene.title(&mut ann).await, "two");
    scene.write("secret", OTHER_SECRET);
    let told = scene.reload().await;
    assert_eq!(told["files"], "auth.hmac_secret_file");
    assert_eq!(ann.closed().await, (4003, "token expired".to_owned()));
    let mut bob = scene.join("bob", OTHER_SECRET).await.expect("open");
    assert_eq!(scene.title(&mut bob).await, "two");
    assert_eq!(scene.join("eve", SECRET).await.err(), Some(4001));
    scene
        .gateway
        .metric_becomes("herald_configuration_reloads_total", "applied", 3.0)
        .await;
    let printed = scene.gateway.output();
    assert!(!printed.contains(SECRET) && !printed.contains(OTHER_SECRET));
}

#[tokio::test]
async fn one_bad_part_keeps_the_whole_of_the_old_and_all_that_is_wrong_is_told() {
    let scene = Scene::new(CONFIG).await;
    let mut ann = scene.join("ann", SECRET).await.expect("open");
    scene.write("secret", OTHER_SECRET);
    scene.write("rules.toml", "[[rule]]\nevnt = \"*\"\n");
    let limits = "[sockets]\nmax_connections = 0\npign = \"1s\"\n[log]\nlevel = \"inof\"\n";
    scene.write("herald.toml", &format!("{CONFIG}{limits}"));
    let told = scene.gateway.hang_up(REFUSED).await;
    assert_eq!(told["level"], "ERROR");
    let problems = told["problems"].as_str().expect("text");
    for part in [
        "rules.toml",
        "sockets.max_connections must not be 0",
        "`sockets.pign`",
        "`inof`",
    ] {
        assert!(problems.contains(part), "{part} in {problems}");
    }
    assert_eq!(scene.title(&mut ann).await, "one");
    assert!(scene.join("bob", SECRET).await.is_ok());
    assert_eq!(scene.join("eve", OTHER_SECRET).await.err(), Some(4001));
    for broken in ["[auth", "\u{0}", "[projection]\nrules = \"$/absent\"\n"] {
        scene.write("herald.toml", broken);
        scene.gateway.hang_up(REFUSED).await;
    }
    std::fs::remove_file(scene.folder.path().join("herald.toml")).expect("it is there");
    let told = scene.gateway.hang_up(REFUSED).await;
    assert!(
        told["problems"]
            .as_str()
            .expect("text")
            .contains("herald.toml")
    );
    assert_eq!(scene.title(&mut ann).await, "one");
    scene
        .gateway
        .metric_becomes("herald_configuration_reloads_total", "refused", 5.0)
        .await;
    // What is right again is taken.
    scene.write("rules.toml", &RULES.replace("TITLE", "two"));
    scene.write("herald.toml", CONFIG);
    scene.write("secret", SECRET);
    scene.reload().await;
    assert_eq!(scene.title(&mut ann).await, "two");
    scene.write("secret", OTHER_SECRET);
    scene.reload().await;
    assert!(scene.join("eve", OTHER_SECRET).await.is_ok());
}

#[tokio::test]
async fn limits_and_origins_hold_for_newcomers_and_close_nobody() {
    let scene = Scene::new(CONFIG).await;
    let mut ann = scene.join("ann", SECRET).await.expect("open");
    let mut bob = scene.join("bob", SECRET).await.expect("open");
    let more = "[sockets]\nmax_connections = 1\nsend_buffer = 32768\n[server]\nallowed_origins = \"https://a.example\"\n";
    scene.write("herald.toml", &format!("{CONFIG}{more}"));
    let told = scene.reload().await;
    assert_eq!(
        told["changed"],
        "server.allowed_origins, sockets.max_connections"
    );
    assert_eq!(told["needs_restart"], "sockets.send_buffer");
    assert!(ann.is_open().await && bob.is_open().await);
    assert_eq!(scene.join("eve", SECRET).await.err(), Some(503));
    drop(ann);
    scene
        .gateway
        .metric_becomes("herald_connections", "", 1.0)
        .await;
    assert_eq!(scene.join("eve", SECRET).await.err(), Some(503));
    assert_eq!(origin(&scene.gateway, "https://b.example").await, 403);
    assert_ne!(origin(&scene.gateway, "https://a.example").await, 403);
    let more = "[sockets]\nmax_connections = 2\n";
    scene.write("herald.toml", &format!("{CONFIG}{more}"));
    let told = scene.reload().await;
    assert_eq!(told["needs_restart"], "none");
    assert!(scene.join("eve", SECRET).await.is_ok());
    assert_ne!(origin(&scene.gateway, "https://b.example").await, 403);
    assert!(bob.is_open().await);
}

/// The status of a handshake without a token from a page of `origin`.
async fn origin(gateway: &Gateway, origin: &str) -> u16 {
    use tokio_tungstenite::tungstenite::client::IntoClientRequest;
    let mut request = format!("{}/", gateway.url())
        .into_client_request()
        .expect("a URL");
    let origin = origin.parse().expect("a header");
    request.headers_mut().insert("origin", origin);
    match Client::attempt_with(request).await {
        Ok(_) => 101,
        Err(refused) => refused.status,
    }
}

#[tokio::test]
async fn the_log_level_and_the_admin_token_are_reloaded_and_a_level_set_meanwhile_stays() {
    let (first, second) = ("first-token-of-admins", "second-token-of-admins");
    let config =
        format!("{CONFIG}[server]\nadmin_token_file = \"$/token\"\n[log]\nlevel = \"LEVEL\"\n");
    let level = |level: &str| config.replace("LEVEL", level);
    let token = tempfile::tempdir().expect("a temporary folder");
    let path = file(token.path(), "token", first);
    let scene = Scene::with(&level("info").replace("$/token", &path), |builder| builder).await;
    let write = |text: &str| scene.write("herald.toml", &level(text).replace("$/token", &path));
    let now = async || scene.gateway.admin("GET", "/log-level", "").await.1;
    write("debug");
    assert_eq!(scene.reload().await["changed"], "log.level");
    assert_eq!(now().await, "debug\n");
    let set = scene
        .gateway
        .admin_as(first, "PUT", "/log-level", "info,herald::ops=trace")
        .await;
    assert_eq!(set.0, 200);
    file(token.path(), "token", second);
    let told = scene.reload().await;
    assert_eq!(
        [&told["changed"], &told["files"]],
        ["none", "server.admin_token_file"]
    );
    assert_eq!(now().await, "info,herald::ops=trace\n");
    let old = scene
        .gateway
        .admin_as(first, "DELETE", "/log-level", "")
        .await;
    assert_eq!(old.0, 401);
    let new = scene
        .gateway
        .admin_as(second, "DELETE", "/log-level", "")
        .await;
    assert_eq!(new, (200, "debug\n".to_owned()));
    // Said before it holds.
    write("warn");
    assert_eq!(scene.reload().await["changed"], "log.level");
    assert_eq!(now().await, "warn\n");
    file(token.path(), "token", "short");
    write("info");
    let told = scene.gateway.hang_up(REFUSED).await;
    assert!(
        told["problems"]
            .as_str()
            .expect("text")
            .contains("server.admin_token_file")
    );
    assert_eq!(now().await, "warn\n");
    let printed = scene.gateway.output();
    assert!(!printed.contains(first) && !printed.contains(second));
}

#[tokio::test]
async fn another_certificate_is_presented_and_a_bad_one_keeps_the_old() {
    let (old, new) = (Certificates::new(), Certificates::new());
    let tls = |certificates: &Certificates| {
        format!(
            "{CONFIG}[server]\ntls_cert = \"{}\"\ntls_key = \"{}\"\n",
            certificates.certificate().display(),
            certificates.key().display()
        )
    };
    // The environment would win over the file: only the authority is the builder's.
    let scene = Scene::with(&tls(&old), |builder| {
        builder
            .tls(&old)
            .unset("server.tls_cert")
            .unset("server.tls_key")
    })
    .await;
    let mut ann = scene.join("ann", SECRET).await.expect("open");
    let presented = async |certificates: &Certificates| {
        tls::connect(&scene.gateway.address, &certificates.authority())
            .await
            .is_some()
    };
    assert!(presented(&old).await && !presented(&new).await);
    scene.write("herald.toml", &tls(&old).replace("cert.pem", "key.pem"));
    let told = scene.gateway.hang_up(REFUSED).await;
    assert!(
        told["problems"]
            .as_str()
            .expect("text")
            .contains("server.tls_cert")
    );
    assert!(presented(&old).await);
    scene.write("herald.toml", &tls(&new));
    let told = scene.reload().await;
    assert_eq!(told["changed"], "server.tls_cert, server.tls_key");
    assert!(presented(&new).await && !presented(&old).await);
    assert!(ann.is_open().await);
}

#[tokio::test]
async fn many_signals_are_a_few_reloads_and_the_last_state_holds() {
    let scene = Scene::new(CONFIG).await;
    let mut ann = scene.join("ann", SECRET).await.expect("open");
    for number in 0..200 {
        if number == 199 {
            scene.write("rules.toml", &RULES.replace("TITLE", "two"));
        }
        scene.gateway.signal("HUP");
    }
    let holds = eventually(PATIENCE, async || scene.title(&mut ann).await == "two");
    assert!(holds.await, "{}", scene.gateway.output());
    assert!(scene.gateway.log_lines(APPLIED) < 20);
}

/// The truncated file of somebody who writes in place. Rules and configuration may be empty, and were taken so.
#[tokio::test]
async fn a_file_that_is_empty_and_was_not_is_half_written() {
    let scene = Scene::new(CONFIG).await;
    let mut ann = scene.join("ann", SECRET).await.expect("open");
    // It could do without the configuration file, but for what the environment says.
    for (name, whole) in [("rules.toml", RULES), ("herald.toml", CONFIG)] {
        for empty in ["", " \n\t\r\n"] {
            scene.write(name, empty);
            let told = scene.gateway.hang_up(REFUSED).await;
            let problems = told["problems"].as_str().expect("text");
            assert!(problems.contains(name), "{problems}");
            assert_eq!(scene.title(&mut ann).await, "one", "{name}");
        }
        scene.write(name, &whole.replace("TITLE", "one"));
    }
    assert_eq!(scene.reload().await["files"], "none");
    // One that is wanted empty says so.
    scene.write("rules.toml", "# none\n");
    assert_eq!(scene.reload().await["files"], "projection.rules");
    assert_ne!(scene.title(&mut ann).await, "one");
}

/// What was read may be a part of what is being written, also where it parses.
#[tokio::test]
async fn a_file_that_changes_while_it_is_read_is_not_taken() {
    let scene = Scene::new(CONFIG).await;
    let mut ann = scene.join("ann", SECRET).await.expect("open");
    let rules = RULES.replace("TITLE", "two");
    for (name, whole) in [("rules.toml", rules.as_str()), ("herald.toml", CONFIG)] {
        scene.write(name, whole);
        let path = scene.folder.path().join(name);
        let mut file = std::fs::File::options()
            .append(true)
            .open(path)
            .expect("it is there");
        let writing = async {
            // Some milliseconds between two lines.
            let mut ticks = tokio::time::interval(std::time::Duration::from_millis(5));
            loop {
                ticks.tick().await;
                file.write_all(b"# another line\n")
                    .expect("it can be written");
            }
        };
        let told = tokio::select! {
            told = scene.gateway.hang_up(REFUSED) => told,
            never = writing => never,
        };
        let problems = told["problems"].as_str().expect("text");
        let expected = "changed while it was read: send HUP again";
        assert!(
            problems.contains(name) && problems.contains(expected),
            "{problems}"
        );
        assert_eq!(scene.title(&mut ann).await, "one", "{name}");
        scene.write(name, &whole.replace("two", "one"));
    }
    scene.write("rules.toml", &rules);
    scene.reload().await;
    assert_eq!(scene.title(&mut ann).await, "two");
}

/// Who opens a FIFO waits for who writes into it, and nobody does.
#[tokio::test]
async fn a_fifo_is_refused_at_once_and_holds_up_nobody() {
    let config = format!(
        "{CONFIG}[server]\nadmin_token_file = \"$/token\"\n[nats]\nca_file = \"$/ca.pem\"\n"
    );
    let scene = Scene::new(CONFIG).await;
    let folder = scene.folder.path();
    file(folder, "token", "0123456789abcdef");
    let certificates = Certificates::new();
    std::fs::copy(certificates.authority(), folder.join("ca.pem")).expect("it can be copied");
    scene.write("herald.toml", &config);
    scene.reload().await;
    let mut ann = scene.join("ann", SECRET).await.expect("open");
    for name in ["rules.toml", "secret", "token", "ca.pem", "herald.toml"] {
        let kept = std::fs::read(folder.join(name)).expect("it is there");
        std::fs::remove_file(folder.join(name)).expect("it is there");
        fifo(folder, name);
        let start = std::time::Instant::now();
        for _ in 0..2 {
            let told = scene.gateway.hang_up(REFUSED).await;
            let problems = told["problems"].as_str().expect("text");
            assert!(
                problems.contains(name) && problems.contains("FIFO"),
                "{problems}"
            );
        }
        assert!(
            start.elapsed().as_secs() < 9,
            "{name}: {:?}",
            start.elapsed()
        );
        assert_eq!(scene.title(&mut ann).await, "one", "{name}");
        std::fs::remove_file(folder.join(name)).expect("it is there");
        file(folder, name, kept);
    }
    scene.write("rules.toml", &RULES.replace("TITLE", "two"));
    scene.reload().await;
    assert_eq!(scene.title(&mut ann).await, "two");
}
