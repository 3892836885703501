//! Wrong configuration, as a user meets it: `serve` and `check` end with 2 before anything else, name
//! everything that is wrong, on standard error, and print no secret.

use std::ffi::OsStr;
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::support::client::Client;
use crate::support::command::{Output, finish};
use crate::support::gateway::{Gateway, HERALD, fifo, file};
use crate::support::nats::Nats;
use crate::support::tls::Certificates;
use crate::support::token::SECRET;

/// A secret where none belongs, or none is taken.
const SWORDFISH: &str = "swordfish";

const HMAC: &str = "HERALD_AUTH__HMAC_SECRET";
const PUBLIC_KEY: &str = "HERALD_AUTH__PUBLIC_KEY_FILE";
const SECRET_FILE: &str = "HERALD_AUTH__HMAC_SECRET_FILE";
const JWKS: &str = "HERALD_AUTH__JWKS_FILE";

/// `herald serve` and the like in `folder`, with settings that would be right but for `settings`.
fn command(
    folder: &Path,
    arguments: &[&str],
    settings: &[(&str, &str)],
) -> tokio::process::Command {
    let mut command = tokio::process::Command::new(HERALD);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("HERALD_") || name == "RUST_LOG" {
            command.env_remove(name);
        }
    }
    command
        .args(arguments)
        .current_dir(folder)
        .env("HERALD_SERVER__LISTEN", "127.0.0.1:0")
        .env("HERALD_SERVER__ADMIN_LISTEN", "127.0.0.1:0")
        // Nobody is there: a `serve` that went on would wait, and not end with 2.
        .env("HERALD_NATS__URL", "127.0.0.1:1")
        .env(HMAC, SECRET)
        .envs(settings.iter().copied());
    command
}

fn assert_no_secret(output: &Output) {
    for text in [&output.stdout, &output.stderr] {
        assert!(!text.contains(SWORDFISH), "{output:?}");
        assert!(!text.contains(SECRET), "{output:?}");
    }
}

/// `serve` and `check` with `settings`, in `folder`, are refused with all of `words` in one run.
async fn refused(folder: &Path, settings: &[(&str, &str)], words: &[&str]) {
    for arguments in [&["serve"][..], &["check"], &["check", "--nats"]] {
        let output = finish(command(folder, arguments, settings)).await;
        is_refused(&output, words);
        if arguments == ["serve"] {
            assert_eq!(output.stdout, "", "{output:?}");
        }
    }
}

fn is_refused(output: &Output, words: &[&str]) {
    assert_eq!(output.code, Some(2), "{output:?}");
    for words in words {
        assert!(output.stderr.contains(words), "{words:?} in {output:?}");
        assert!(!output.stdout.contains(words), "{words:?} in {output:?}");
    }
    let mut lines = output.stderr.lines();
    assert!(lines.all(|line| line.starts_with("herald: ")), "{output:?}");
    assert_no_secret(output);
}

/// As [`refused`], with a `herald.toml` in a folder of its own.
async fn refused_file(text: &str, words: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    file(folder.path(), "herald.toml", text);
    refused(folder.path(), &[], words).await;
}

fn fixture(name: &str) -> String {
    let keys = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/keys");
    keys.join(name).display().to_string()
}

#[tokio::test]
async fn there_must_be_one_key_source() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let public_key = fixture("rsa.public.pem");
    let one = "only one key source may be set, not ";
    let nothing = "nothing to verify tokens with: set one of auth.hmac_secret,";
    refused(at, &[(HMAC, "")], &[nothing]).await;
    for (settings, names) in [
        (
            &[(PUBLIC_KEY, public_key.as_str())][..],
            "auth.hmac_secret and auth.public_key_file",
        ),
        (
            &[(SECRET_FILE, "absent")],
            "auth.hmac_secret and auth.hmac_secret_file",
        ),
        (
            &[(HMAC, ""), (PUBLIC_KEY, &public_key), (JWKS, "absent")],
            "auth.public_key_file and auth.jwks_file",
        ),
    ] {
        refused(at, settings, &[one, names]).await;
    }
}

#[tokio::test]
async fn a_key_that_cannot_be_used_is_refused_with_its_reason() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    // 31 bytes, the last of which is a newline that does not count.
    file(at, "short", format!("{SWORDFISH:x<31}\n"));
    file(at, "text", SWORDFISH);
    file(at, "set.json", "{\"keys\":[]}");
    let short = format!("{SWORDFISH:x<31}");
    let shorter = "is shorter than 32 bytes: make one with `openssl rand -hex 32`";
    refused(at, &[(HMAC, &short)], &["auth.hmac_secret ", shorter]).await;
    let private = fixture("rsa.private.pem");
    let certificate = fixture("p256.certificate.pem");
    let weak = fixture("rsa-1024.public.pem");
    for (setting, path, words) in [
        (
            SECRET_FILE,
            "short",
            &["auth.hmac_secret_file short", shorter][..],
        ),
        (
            SECRET_FILE,
            "absent",
            &["auth.hmac_secret_file absent cannot be read: No such file"],
        ),
        (
            SECRET_FILE,
            ".",
            &["auth.hmac_secret_file . cannot be read: Is a directory"],
        ),
        (
            SECRET_FILE,
            "/dev/zero",
            &["auth.hmac_secret_file /dev/zero is longer than"],
        ),
        (
            PUBLIC_KEY,
            "absent",
            &["auth.public_key_file absent cannot be read"],
        ),
        (
            PUBLIC_KEY,
            "text",
            &["auth.public_key_file text holds no PEM public key"],
        ),
        (PUBLIC_KEY, &private, &["holds a private key"]),
        (PUBLIC_KEY, &certificate, &["holds a certificate"]),
        (PUBLIC_KEY, &weak, &["1024"]),
        (JWKS, "absent", &["auth.jwks_file absent cannot be read"]),
        (JWKS, "text", &["auth.jwks_file text is not JSON"]),
        (
            JWKS,
            "set.json",
            &["auth.jwks_file set.json holds no usable key"],
        ),
    ] {
        refused(at, &[(HMAC, ""), (setting, path)], words).await;
    }
}

/// Nobody writes into it: whoever opened it would wait, deaf to SIGTERM.
#[tokio::test]
async fn a_fifo_is_refused_wherever_a_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let path = fifo(at, "fifo");
    for (setting, name) in [
        ("HERALD_SERVER__TLS_KEY", "server.tls_key"),
        ("HERALD_SERVER__ADMIN_TOKEN_FILE", "server.admin_token_file"),
        ("HERALD_NATS__CREDENTIALS_FILE", "nats.credentials_file"),
        ("HERALD_NATS__CA_FILE", "nats.ca_file"),
        ("HERALD_PROJECTION__RULES", "fifo"),
        (SECRET_FILE, "auth.hmac_secret_file"),
        (PUBLIC_KEY, "auth.public_key_file"),
        (JWKS, "auth.jwks_file"),
    ] {
        let certificate = fixture("p256.certificate.pem");
        let mut settings = vec![(setting, path.as_str())];
        if name.starts_with("auth.") {
            settings.push((HMAC, ""));
        }
        if name == "server.tls_key" {
            settings.push(("HERALD_SERVER__TLS_CERT", &certificate));
        }
        refused(
            at,
            &settings,
            &[name, "it is a FIFO, and must be a regular file"],
        )
        .await;
    }
}

#[tokio::test]
async fn files_that_cannot_be_read_are_all_named() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let absent = [
        ("HERALD_SERVER__TLS_CERT", "absent.crt"),
        ("HERALD_SERVER__TLS_KEY", "absent.key"),
        ("HERALD_PROJECTION__RULES", "absent.toml"),
        ("HERALD_NATS__CREDENTIALS_FILE", "absent.creds"),
        (HMAC, ""),
        (SECRET_FILE, "absent.secret"),
    ];
    let words = [
        "absent.crt",
        "absent.toml",
        "nats.credentials_file absent.creds",
        "absent.secret",
    ];
    refused(at, &absent, &words).await;
    refused(
        at,
        &[("HERALD_NATS__CA_FILE", "absent.pem")],
        &["nats.ca_file absent.pem"],
    )
    .await;
    // There, and not what they should be.
    let certificates = Certificates::new();
    let others = Certificates::new();
    let path = |path: std::path::PathBuf| path.display().to_string();
    let (cert, key) = (path(certificates.certificate()), path(others.key()));
    file(at, "text", SWORDFISH);
    for (cert, key, words) in [
        (
            cert.as_str(),
            "text",
            &["server.tls_key text holds no PEM"][..],
        ),
        ("text", &key, &["server.tls_cert text holds no PEM"]),
        (&cert, &key, &["do not belong together"]),
        (
            &cert,
            "",
            &["server.tls_cert and server.tls_key go together"],
        ),
        (
            "",
            &key,
            &["server.tls_cert and server.tls_key go together"],
        ),
    ] {
        let settings = [
            ("HERALD_SERVER__TLS_CERT", cert),
            ("HERALD_SERVER__TLS_KEY", key),
            ("HERALD_NATS__CREDENTIALS_FILE", "text"),
        ];
        refused(
            at,
            &settings,
            &[words, &["nats.credentials_file text"]].concat(),
        )
        .await;
    }
    // The configuration itself.
    for (path, words) in [
        ("absent.toml", "absent.toml: No such file"),
        (".", ".: Is a directory"),
    ] {
        for name in ["serve", "check"] {
            let output = finish(command(at, &[name, "--config", path], &[])).await;
            is_refused(&output, &["cannot read configuration file", words]);
        }
    }
}

#[tokio::test]
async fn unknown_keys_are_named_with_the_nearest_known_one_wherever_they_stand() {
    let folder = tempfile::tempdir().unwrap();
    file(
        folder.path(),
        "herald.toml",
        "top = 1\n[server]\nlisen = \"x\"\n[auth]\nhmac-secret = \"swordfish\"\n[telemetry]\nlevel = \"debug\"\n[[sockets]]\nping = \"1s\"\n",
    );
    let settings = [
        ("HERALD_AUTH__SECRET", SWORDFISH),
        ("HERALD_NATS_URL", "nats://ann:swordfish@host"),
        ("HERALD_SOCKETS__PING__INTERVAL", "1s"),
        ("HERALD_SERVER__", "x"),
    ];
    let words = [
        "unknown key `top`",
        "unknown key `server.lisen`: did you mean `server.listen`?",
        "unknown key `auth.hmac-secret`: did you mean `auth.hmac_secret`?",
        "unknown key `telemetry.level`: did you mean `log.level`?",
        "`sockets` is of the type array, and is a table: write [sockets]",
        "unknown environment variable `HERALD_AUTH__SECRET`: did you mean `HERALD_AUTH__HMAC_SECRET`?",
        "unknown environment variable `HERALD_NATS_URL`: did you mean `HERALD_NATS__URL`?",
        "unknown environment variable `HERALD_SOCKETS__PING__INTERVAL`: did you mean `HERALD_SOCKETS__PING`?",
        "unknown environment variable `HERALD_SERVER__`",
    ];
    refused(folder.path(), &settings, &words).await;
}

#[tokio::test]
async fn values_that_cannot_work_are_all_named_and_no_secret_is() {
    let file = r#"
[server]
drain = 5
unready_after = "-1s"
[nats]
url = { host = "swordfish" }
replicas = 2
stream = "no.stream"
inbox_prefix = "_INBOX.>"
max_age = "0s"
[auth]
hmac_secret = ["swordfish"]
workspaces_claim = ""
leeway = "soon"
[sockets]
inactivity = "0s"
ping = "0"
max_message_bytes = 0
queue_bytes = 65535
send_buffer = -1
max_connections = 0
pong_is_activity = "sometimes"
[projection]
type = "colour"
[log]
level = "herald=loud"
format = "yaml"
"#;
    let folder = tempfile::tempdir().unwrap();
    self::file(folder.path(), "herald.toml", file);
    let settings = [
        (HMAC, ""),
        ("HERALD_NATS__URL", ""),
        ("HERALD_SERVER__LISTEN", "here"),
    ];
    let words = [
        "server.listen",
        "server.drain",
        "server.unready_after",
        "`nats.url` has a value of the wrong type",
        "nats.replicas must be 1, 3 or 5",
        "nats.stream must be",
        "nats.inbox_prefix must be",
        "nats.max_age must be at least 100ms",
        "`auth.hmac_secret` has a value of the wrong type",
        "auth.workspaces_claim must not be empty",
        "auth.leeway",
        "sockets.inactivity must be at least 100ms",
        "sockets.ping must be at least 100ms",
        "sockets.max_message_bytes must not be 0",
        "sockets.queue_bytes must have room for one notification: at least 65536",
        "sockets.send_buffer",
        "sockets.max_connections must not be 0",
        "sockets.pong_is_activity",
        "projection.type",
        "log.level",
        "log.format",
    ];
    refused(folder.path(), &settings, &words).await;
    // An environment variable can hold anything.
    let mut serve = command(folder.path(), &["serve", "--config", "/dev/null"], &[]);
    serve.env(HMAC, OsStr::from_bytes(b"swordfish\xff"));
    let words = "environment variable `HERALD_AUTH__HMAC_SECRET` is not UTF-8";
    is_refused(&finish(serve).await, &[words]);
}

#[tokio::test]
async fn a_file_that_is_no_toml_is_refused_with_its_line_and_without_its_content() {
    for line in [
        "hmac_secret = \"swordfish",
        "hmac_secret = swordfish",
        "hmac_secret = 'swordfish\"",
        "hmac_secret \"swordfish\"",
        "hmac_secret : \"swordfish\"",
        "hmac_secret = \"a\" \"swordfish\"",
        "hmac_secret = \"\\swordfish\"",
        "hmac_secret = 0xswordfish",
        "hmac_secret = 1swordfish",
        "hmac_secret = trueswordfish",
        "hmac_secret = [\"swordfish\"",
        "hmac_secret = { \"swordfish\" }",
        "hmac_secret = 2026-01-01swordfish",
        "swordfish",
        "[swordfish",
    ] {
        refused_file(
            &format!("# A comment.\n[auth]\n{line}\n"),
            &["configuration file herald.toml is not valid TOML, line 3"],
        )
        .await;
    }
    refused_file(
        "[auth]\nissuer = \"a\"\nissuer = \"b\"\n",
        &["line 3", "duplicate key"],
    )
    .await;
    refused_file("[auth]\n[nats]\n[auth]\n", &["line 3"]).await;
}

#[tokio::test]
async fn a_bad_rules_file_is_refused_with_every_rule_that_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let rules = "HERALD_PROJECTION__RULES";
    file(
        at,
        "bad.toml",
        "[[rule]]\nmatch = \"custom.x\"\ntitle = \"{{ data.secret }}\"\n[[rule]]\nmatch = \"other.x\"\n[[rule]]\ntitel = \"x\"\n",
    );
    let words = [
        "bad.toml: rule 1 (custom.x): the template `title` reads `data`",
        "bad.toml: rule 2 (other.x): `match` names no category",
        "bad.toml: rule 3: unknown key `titel`: did you mean `title`?",
    ];
    refused(at, &[(rules, "bad.toml")], &words).await;
    file(at, "broken.toml", "[[rule]]\nmatch = \"custom.x\n");
    refused(at, &[(rules, "broken.toml")], &["broken.toml: line 2"]).await;
    refused(at, &[(rules, ".")], &["cannot read .: Is a directory"]).await;
}

#[tokio::test]
async fn a_port_in_use_ends_serve_with_1_and_its_setting() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (variable, setting) in [
        ("HERALD_SERVER__LISTEN", "server.listen"),
        ("HERALD_SERVER__ADMIN_LISTEN", "server.admin_listen"),
    ] {
        let serve = command(folder.path(), &["serve"], &[(variable, &address)]);
        let output = finish(serve).await;
        assert_eq!(output.code, Some(1), "{output:?}");
        assert_eq!(output.stdout, "", "{output:?}");
        let said = format!("herald: cannot listen on {setting} {address}: Address already in use");
        assert!(output.stderr.contains(&said), "{output:?}");
    }
}

#[tokio::test]
async fn other_commands_refuse_what_is_wrong_with_what_they_read_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let publish = &["publish", "acme", "custom.x", "{}", "--dry-run"][..];
    let token = &["token", "--user", "ann", "--workspace", "acme"][..];
    let replay = &["replay", "--workspace", "acme"][..];
    let listen = &[
        "listen",
        "--url",
        "ws://127.0.0.1:1",
        "--token",
        "t",
        "--ca",
        "x",
    ][..];
    let health = &["health", "--address", "127.0.0.1:1"][..];
    for (setting, refusing, taking) in [
        (
            ("HERALD_SOCKETS__PING", "0s"),
            &[][..],
            &[publish, token, listen, health][..],
        ),
        (
            ("HERALD_NATS__URLS", SWORDFISH),
            &[publish, replay, &["migrate"], &["dead-letters"]],
            &[token, listen, health],
        ),
        (
            ("HERALD_NATS__REPLICAS", "2"),
            &[publish],
            &[token, listen, health],
        ),
        (
            ("HERALD_PROJECTION__TYPE", "x"),
            &[publish, replay],
            &[token, listen, health],
        ),
        (
            ("HERALD_AUTH__LEEWAY", "x"),
            &[token],
            &[publish, listen, health],
        ),
        (
            ("HERALD_SERVER__DRAIN", "x"),
            &[&["health"]],
            &[publish, token, listen, health],
        ),
    ] {
        for arguments in refusing {
            let output = finish(command(folder.path(), arguments, &[setting])).await;
            is_refused(&output, &[setting.0]);
            assert_eq!(output.stdout, "", "{output:?}");
        }
        for arguments in taking {
            let output = finish(command(folder.path(), arguments, &[setting])).await;
            assert!(
                !output.stderr.contains(setting.0),
                "{arguments:?}: {output:?}"
            );
        }
    }
}

#[tokio::test]
async fn what_is_wrong_with_the_way_to_nats_is_configuration() {
    let folder = tempfile::tempdir().unwrap();
    for (variable, value, words) in [
        (
            "HERALD_NATS__CREDENTIALS_FILE",
            "absent.creds",
            "nats.credentials_file absent.creds",
        ),
        (
            "HERALD_NATS__URL",
            "not a URL",
            "nats.url holds an entry that is not a NATS URL",
        ),
        (
            "HERALD_NATS__URL",
            "nats://a:swordfish@x,nats://b:swordfish@y",
            "nats.url names different users",
        ),
    ] {
        let settings = [(variable, value)];
        let output = finish(command(folder.path(), &["dead-letters"], &settings)).await;
        is_refused(&output, &[words]);
        refused(folder.path(), &settings, &[words]).await;
    }
}

#[tokio::test]
async fn no_secret_of_a_good_configuration_is_ever_printed() {
    const PASSWORD: &str = "the-password-of-nats";
    let nats = Nats::start(&format!(
        "jetstream: enabled\nauthorization {{ user: herald, password: {PASSWORD} }}\n"
    ))
    .await;
    let url = nats.url_for("herald", PASSWORD);
    let mut gateway = Gateway::without_nats().set("nats.url", &url).ready().await;
    let mut ann = Client::join(&gateway, "ann", "acme").await;
    assert!(ann.is_open().await);
    gateway.terminate();
    assert_eq!(gateway.ended().await, Some(0));
    let output = gateway.output();
    assert!(output.contains("drained"), "{output}");
    assert!(
        !output.contains(SECRET) && !output.contains(PASSWORD),
        "{output}"
    );
    let folder = tempfile::tempdir().unwrap();
    for arguments in [
        &["check", "--nats"][..],
        &["check", "--nats", "--json"],
        &["migrate", "--status"],
    ] {
        let settings = [("HERALD_NATS__URL", url.as_str())];
        let output = finish(command(folder.path(), arguments, &settings))
            .await
            .ok();
        assert_no_secret(&output);
        let shown = format!("{}{}", output.stdout, output.stderr);
        assert!(!shown.contains(PASSWORD), "{shown}");
    }
}
