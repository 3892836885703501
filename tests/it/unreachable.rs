//! Verifies that whoever cannot get at NATS is told which server it was, why, and what to do, in every command, in
//! the log of `serve` and by `/readyz`, and that no secret is told along.

use std::io::Write as _;
use std::net::TcpListener;
use std::path::Path;

use crate::support::command::{Output, finish};
use crate::support::gateway::{Builder, Gateway, file};
use crate::support::nats::{Choice, JETSTREAM, Nats, choice, free_port};
use crate::support::tls::Certificates;
use crate::support::{PATIENCE, eventually};

/// Every command that connects.
const COMMANDS: [&[&str]; 6] = [
    &["check", "--nats"],
    &["publish", "acme", "custom.x"],
    &["migrate"],
    &["migrate", "--status"],
    &["replay", "--workspace", "acme"],
    &["dead-letters"],
];

async fn run(builder: &Builder, arguments: &[&str]) -> Output {
    finish(tokio::process::Command::from(builder.command(arguments))).await
}

/// What was said has the words and none that says nothing, and no secret.
fn says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word}: {text}");
    }
    for none in ["IO error", "hunter", "Some(", "Err("] {
        assert!(!text.contains(none), "{none}: {text}");
    }
}

/// All commands end with `code` and these words.
async fn commands_say(builder: &Builder, code: i32, words: &[&str]) {
    for arguments in COMMANDS {
        let output = run(builder, arguments).await;
        assert_eq!(output.code, Some(code), "{arguments:?} {output:?}");
        says(&output.stderr, words);
    }
}

/// All commands end with 1, and `serve` waits, each with these words.
async fn waited_for(builder: &Builder, words: &[&str]) {
    commands_say(builder, 1, &[&["NATS cannot be reached: "], words].concat()).await;
    let gateway = builder.clone().start().await;
    says(&gateway.logged("waiting for nats").await, words);
    let (status, why) = gateway.get("/readyz").await;
    assert_eq!(status, 503);
    says(&why, words);
}

/// All commands end with 1 and `serve` too, each with these words.
async fn ended(builder: &Builder, words: &[&str]) {
    commands_say(builder, 1, words).await;
    let serve = run(builder, &["serve"]).await;
    assert_eq!(serve.code, Some(1), "{serve:?}");
    let line = serve
        .stderr
        .lines()
        .find(|line| line.starts_with("herald: "));
    says(line.unwrap_or_default(), words);
}

fn at(url: &str) -> Builder {
    Gateway::without_nats().set("nats.url", url)
}

fn text(path: impl AsRef<Path>) -> String {
    path.as_ref().display().to_string()
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named_with_the_cause() {
    let port = free_port();
    let closed = format!("127.0.0.1:{port}");
    waited_for(
        &at(&format!("nats://ann:hunter2@{closed}")),
        &[&closed, "connection refused"],
    )
    .await;
    let unknown = "nats://nats.invalid:4333";
    waited_for(
        &at(unknown),
        &["nats.invalid:4333", "the name is not known"],
    )
    .await;
    // Of several, each.
    let both = format!("nats://{closed},nats.invalid");
    let words = [
        &closed,
        "connection refused",
        "nats.invalid:4222",
        "not known",
    ];
    waited_for(&at(&both), &words).await;
    for url in [
        "http://127.0.0.1:8222",
        "ws://127.0.0.1:80",
        "nats://",
        "nats://ann:hunter2@h:x",
    ] {
        commands_say(&at(url), 2, &["nats.url", "nats://host:4222"]).await;
    }
}

#[tokio::test]
async fn what_is_no_nats_server_is_told_as_such() {
    // The kernel takes connections for it, and nobody speaks.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = silent.local_addr().unwrap().to_string();
    waited_for(&at(&place), &[&place, "timed out", "no greeting"]).await;

    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = other.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in other.incoming() {
            // Who has gone needs no banner.
            let _ = stream.unwrap().write_all(b"SSH-2.0-OpenSSH_9.2\r\n");
        }
    });
    waited_for(&at(&place), &[&place, "not a NATS server"]).await;

    if *choice() == Choice::Docker {
        // A container publishes its port for clients alone.
        return;
    }
    let monitoring = format!("127.0.0.1:{}", free_port());
    let _nats = Nats::start(&format!("http: \"{monitoring}\"\n")).await;
    let words = [&*monitoring, "not a NATS server", "HTTP", "monitoring port"];
    waited_for(&at(&monitoring), &words).await;
}

#[tokio::test]
async fn a_tls_handshake_that_fails_is_told_with_its_cause() {
    if *choice() == Choice::Docker {
        // A container does not see the certificate's files.
        return;
    }
    let own = Certificates::new();
    let other = Certificates::new();
    let (cert, key) = (text(own.certificate()), text(own.key()));
    let tls = |more: &str| {
        format!("{JETSTREAM}tls {{ cert_file: \"{cert}\", key_file: \"{key}\" {more} }}\n")
    };
    let nats = Nats::start(&tls("")).await;
    let name = format!("localhost:{}", nats.port());
    let trusted = |url: String| at(&url).set("nats.ca_file", text(own.authority()));
    run(&trusted(format!("nats://{name}")), &["migrate"])
        .await
        .ok();

    // The server wants TLS, and nothing says which authority to trust.
    waited_for(
        &at(&format!("nats://ann:hunter2@{name}")),
        &[&name, "unknown CA", "nats.ca_file"],
    )
    .await;
    let others = at(&format!("tls://{name}")).set("nats.ca_file", text(other.authority()));
    waited_for(&others, &[&name, "unknown CA", "nats.ca_file"]).await;
    let by_address = format!("127.0.0.1:{}", nats.port());
    waited_for(
        &trusted(format!("tls://{by_address}")),
        &[&by_address, "certificate is for another name", "localhost"],
    )
    .await;

    let plain = Nats::jetstream().await;
    let place = format!("127.0.0.1:{}", plain.port());
    waited_for(
        &at(&format!("tls://{place}")),
        &[&place, "does not speak TLS", "nats://"],
    )
    .await;

    let verifying = format!(", ca_file: \"{}\", verify: true", text(own.authority()));
    let nats = Nats::start(&tls(&verifying)).await;
    let name = format!("localhost:{}", nats.port());
    let without = trusted(format!("tls://{name}"));
    waited_for(
        &without,
        &[&name, "client certificate required", "nats.client_cert"],
    )
    .await;
    let with_anothers = without
        .set("nats.client_cert", text(other.certificate()))
        .set("nats.client_key", text(other.key()));
    waited_for(&with_anothers, &[&name, "certificate of nats.client_cert"]).await;
}

#[tokio::test]
async fn a_server_that_says_nothing_before_tls_is_told_as_such() {
    if *choice() == Choice::Docker {
        return;
    }
    let own = Certificates::new();
    let (cert, key) = (text(own.certificate()), text(own.key()));
    // Its tests' readiness is a greeting, so that this one is of another kind: a TLS listener.
    let acceptor = crate::support::tls::acceptor(Path::new(&cert), Path::new(&key));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let place = listener.local_addr().unwrap().to_string();
    let serving = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move { drop(acceptor.accept(stream).await) });
        }
    });
    waited_for(&at(&place), &[&place, "handshake_first"]).await;
    serving.abort();
}

#[tokio::test]
async fn who_is_refused_is_told_by_which_server_and_what_to_check() {
    let folder = tempfile::tempdir().unwrap();
    let refused = "NATS refused the credentials: ";
    let nats = Nats::start(&format!(
        "{JETSTREAM}authorization {{ user: herald, password: right }}\n"
    ))
    .await;
    let place = format!("127.0.0.1:{}", nats.port());
    let violation = "authorization violation";
    ended(
        &at(&nats.url_for("herald", "hunter2")),
        &[refused, &place, violation, "user and password in nats.url"],
    )
    .await;
    ended(
        &at(&nats.url()),
        &[refused, &place, violation, "set a user in nats.url"],
    )
    .await;
    let seed = nkeys::KeyPair::new_user().seed().unwrap();
    let creds = format!(
        "-----BEGIN NATS USER JWT-----\neyJhbGciOiJub25lIn0.e30.hunter\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    );
    for (setting, content) in [
        ("nats.token_file", "hunter2"),
        ("nats.nkey_file", &seed),
        ("nats.credentials_file", &creds),
    ] {
        let path = file(folder.path(), "login", content);
        let with = at(&nats.url()).set(setting, &path);
        ended(&with, &[refused, &place, violation, setting, "login"]).await;
    }
}

#[tokio::test]
async fn a_file_that_is_no_way_in_is_named_before_anything_is_tried() {
    let folder = tempfile::tempdir().unwrap();
    let own = Certificates::new();
    for setting in [
        "nats.credentials_file",
        "nats.token_file",
        "nats.nkey_file",
        "nats.ca_file",
    ] {
        let with = |path: &str| at("nats://127.0.0.1:1").set(setting, path);
        commands_say(
            &with("/absent/file"),
            2,
            &[setting, "/absent/file", "No such file"],
        )
        .await;
        commands_say(&with("/"), 2, &[setting, " /: ", "Is a directory"]).await;
        let bytes = folder.path().join("bytes");
        std::fs::write(&bytes, b"hunter\xff").unwrap();
        commands_say(&with(&text(bytes)), 2, &[setting, "bytes", "not UTF-8"]).await;
    }
    for (setting, content, words) in [
        (
            "nats.credentials_file",
            "hunter2",
            "not a NATS credentials file",
        ),
        ("nats.nkey_file", "hunter2", "begins with SU"),
        ("nats.token_file", "hunter\n2", "one line"),
        ("nats.ca_file", "hunter2", "no PEM certificate"),
    ] {
        let path = file(folder.path(), "malformed", content);
        let with = at("nats://127.0.0.1:1").set(setting, path);
        commands_say(&with, 2, &[setting, "malformed", words]).await;
    }
    // A key is no certificate.
    let with = at("nats://127.0.0.1:1").set("nats.ca_file", text(own.key()));
    commands_say(&with, 2, &["nats.ca_file", "no PEM certificate"]).await;
}

#[tokio::test]
async fn jetstream_is_said_to_be_off_only_where_it_is() {
    let off = Nats::start("max_payload: 1MB\n").await;
    let place = format!("127.0.0.1:{}", off.port());
    let builder = Gateway::builder(&off);
    for arguments in [&["migrate"][..], &["check", "--nats"], &["serve"]] {
        let output = run(&builder, arguments).await;
        assert_eq!(output.code, Some(1), "{output:?}");
        let words = ["JetStream is not enabled on the NATS server", &place];
        says(&output.stderr, &words);
    }
    // A domain that is not there.
    let on = Nats::start("jetstream { domain: edge }\n").await;
    let builder = Gateway::builder(&on).set("nats.domain", "hub");
    for arguments in [&["migrate"][..], &["check", "--nats"], &["serve"]] {
        let output = run(&builder, arguments).await;
        assert_eq!(output.code, Some(1), "{output:?}");
        let place = format!("127.0.0.1:{}", on.port());
        says(
            &output.stderr,
            &[
                "no JetStream domain hub",
                &place,
                "own is edge",
                "nats.domain",
            ],
        );
        assert!(!output.stderr.contains("not enabled"), "{output:?}");
    }
    // A leaf node without JetStream, and its hub with it.
    let port = free_port();
    let hub =
        format!("jetstream {{ domain: hub }}\nleafnodes {{ listen: \"127.0.0.1:{port}\" }}\n");
    let _hub = Nats::start(&hub).await;
    let leaf = format!("leafnodes {{ remotes: [ {{ url: \"nats://127.0.0.1:{port}\" }} ] }}\n");
    let leaf = Nats::start(&leaf).await;
    let output = run(&Gateway::builder(&leaf), &["check", "--nats"]).await;
    assert!(
        output.code == Some(0) || output.stderr.contains("set nats.domain"),
        "{output:?}"
    );
    // No permission, and no answer.
    let users = "jetstream: enabled\nauthorization { users: [ { user: one, password: p, permissions: \
        { publish: \"ws.>\", subscribe: \"_INBOX.>\" } } ] }\n";
    let denying = Nats::start(users).await;
    let builder = at(&denying.url_for("one", "p"));
    for arguments in [&["migrate"][..], &["check", "--nats"]] {
        let output = run(&builder, arguments).await;
        assert_eq!(output.code, Some(1), "{output:?}");
        assert!(output.stderr.contains("publish to $JS.API."), "{output:?}");
        assert!(!output.stderr.contains("not enabled"), "{output:?}");
    }
}

#[tokio::test]
async fn a_gateway_that_has_lost_nats_says_why_it_does_not_come_back() {
    let mut nats = Nats::jetstream().await;
    let place = format!("127.0.0.1:{}", nats.port());
    let gateway = Gateway::builder(&nats)
        .set("server.unready_after", "1s")
        .ready()
        .await;
    nats.stop().await;
    let told = eventually(PATIENCE, async || {
        let (status, why) = gateway.get("/readyz").await;
        status == 503 && why.contains(&format!("{place}: connection refused"))
    });
    assert!(told.await, "{:?}", gateway.get("/readyz").await);
    let line = gateway.logged("nats cannot be reached").await;
    says(&line, &[&place, "connection refused"]);
    nats.start_again().await;
    let ready = eventually(PATIENCE, async || gateway.get("/readyz").await.0 == 200);
    assert!(ready.await, "{}", gateway.output());
}
