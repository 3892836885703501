//! A NATS that is there and will not do: `serve` ends with 1 and one line that names the cause, and
//! `check --nats` says the same. Where waiting may help, `serve` waits.

use async_nats::jetstream::{self, stream::Config};
use futures_util::{StreamExt, stream};

use crate::support::command::{Output, finish};
use crate::support::gateway::{Builder, Gateway};
use crate::support::nats::Nats;
use crate::support::production::Production;
use crate::support::{PATIENCE, eventually};

/// Runs a command to its end.
async fn run(builder: &Builder, arguments: &[&str]) -> Output {
    finish(tokio::process::Command::from(builder.command(arguments))).await
}

/// What is wrong is said on standard error, by the one line that is no log line.
fn the_line(output: &Output) -> &str {
    let mut lines = output.stderr.lines().filter(|line| !line.starts_with('{'));
    let line = lines.next().unwrap_or_default();
    assert_eq!(lines.next(), None, "{output:?}");
    line.strip_prefix("herald: ").unwrap_or_default()
}

/// `serve` ends with 1 and a line that has these `words`; `check --nats` too.
async fn fails(builder: &Builder, words: &[&str]) {
    let serve = run(builder, &["serve"]).await;
    assert_eq!(serve.code, Some(1), "{serve:?}");
    assert_eq!(serve.stdout, "", "{serve:?}");
    let check = run(builder, &["check", "--nats"]).await;
    assert_eq!(check.code, Some(1), "{check:?}");
    for word in words {
        assert!(the_line(&serve).contains(word), "{word}: {serve:?}");
        assert!(check.stderr.contains(word), "{word}: {check:?}");
    }
}

async fn context(nats: &Nats) -> jetstream::Context {
    jetstream::new(nats.connect().await)
}

#[tokio::test]
async fn wrong_credentials_end_serve_and_are_not_printed() {
    const PASSWORD: &str = "not-the-right-one";
    let nats =
        Nats::start("authorization { user: herald, password: right }\njetstream: enabled\n").await;
    let with = |url: String| Gateway::without_nats().set("nats.url", url);
    for url in [
        nats.url(),
        nats.url_for("herald", PASSWORD),
        nats.url_for("eve", "right"),
    ] {
        let builder = with(url);
        fails(&builder, &["NATS refused the credentials", "nats.url"]).await;
        for arguments in [&["serve"][..], &["check", "--nats"]] {
            let output = run(&builder, arguments).await;
            let shown = format!("{}{}", output.stdout, output.stderr);
            assert!(!shown.contains(PASSWORD), "{shown}");
        }
    }
    with(nats.url_for("herald", "right")).ready().await;
}

#[tokio::test]
async fn a_server_without_jetstream_ends_serve() {
    let nats = Nats::start("max_payload: 1MB\n").await;
    let builder = Gateway::builder(&nats);
    fails(&builder, &["JetStream is not enabled"]).await;
    let builder = builder.set("nats.migrate", false);
    fails(&builder, &["JetStream is not enabled"]).await;
}

#[tokio::test]
async fn an_account_without_jetstream_ends_serve() {
    let nats =
        Nats::start("jetstream: enabled\naccounts { A { users: [ { user: a, password: p } ] } }\n")
            .await;
    let builder = Gateway::without_nats().set("nats.url", nats.url_for("a", "p"));
    fails(
        &builder,
        &["JetStream is not enabled for this NATS account"],
    )
    .await;
}

#[tokio::test]
async fn a_stream_of_that_name_with_other_settings_ends_serve() {
    let nats = Nats::jetstream().await;
    let other = Config {
        name: "EVENTS".to_owned(),
        subjects: vec!["ws.>".to_owned()],
        max_messages: 10,
        ..Default::default()
    };
    context(&nats).await.create_stream(other).await.unwrap();
    let builder = Gateway::builder(&nats);
    let words = [
        "EVENTS",
        "exists with other settings",
        "republish",
        "allow_direct",
    ];
    fails(&builder, &words).await;
    // It is as it was.
    let context = context(&nats).await;
    let mut found = context.get_stream("EVENTS").await.unwrap();
    assert_eq!(found.info().await.unwrap().config.max_messages, 10);
}

#[tokio::test]
async fn another_stream_with_the_subjects_ends_serve() {
    let nats = Nats::jetstream().await;
    let other = Config {
        name: "OTHER".to_owned(),
        subjects: vec!["ws.acme.>".to_owned()],
        ..Default::default()
    };
    context(&nats).await.create_stream(other).await.unwrap();
    let serve = run(&Gateway::builder(&nats), &["serve"]).await;
    assert_eq!(serve.code, Some(1), "{serve:?}");
    let line = the_line(&serve);
    assert!(
        line.contains("EVENTS") && line.contains("another stream"),
        "{line}"
    );
}

#[tokio::test]
async fn a_stream_that_is_missing_or_changed_ends_serve() {
    let nats = Nats::jetstream().await;
    let builder = Gateway::builder(&nats);
    drop(builder.clone().ready().await);
    let context = context(&nats).await;
    let saved = context
        .get_stream("SESSIONS")
        .await
        .unwrap()
        .cached_info()
        .config
        .clone();
    let alone = builder.clone().set("nats.migrate", false);
    for name in ["SESSIONS", "DEAD", "REVOKED", "EVENTS"] {
        let config = context
            .get_stream(name)
            .await
            .unwrap()
            .cached_info()
            .config
            .clone();
        context.delete_stream(name).await.unwrap();
        for builder in [&builder, &alone] {
            fails(builder, &[&format!("stream {name} is missing")]).await;
        }
        context.create_stream(config).await.unwrap();
    }
    let unheard = Config {
        republish: None,
        ..saved.clone()
    };
    let unreadable = Config {
        allow_direct: false,
        ..saved.clone()
    };
    for (changed, field) in [(unheard, "republish"), (unreadable, "allow_direct")] {
        context.update_stream(changed).await.unwrap();
        for builder in [&builder, &alone] {
            fails(builder, &["changed by hand", "SESSIONS", field]).await;
        }
    }
    context.update_stream(saved).await.unwrap();
    alone.ready().await;
}

#[tokio::test]
async fn without_migrations_of_its_own_serve_waits_for_another_to_apply_them() {
    let nats = Nats::jetstream().await;
    let builder = Gateway::builder(&nats);
    let gateway = builder.clone().set("nats.migrate", false).start().await;
    let line = gateway.logged("waiting for migrations").await;
    assert!(line.contains("herald migrate applies it"), "{line}");
    assert_eq!(gateway.get("/readyz").await.0, 503);
    assert_eq!(run(&builder, &["migrate"]).await.code, Some(0));
    let ready = eventually(PATIENCE, async || gateway.get("/readyz").await.0 == 200);
    assert!(ready.await, "{}", gateway.output());
}

/// What a gateway may do by `nats/production.conf` and does not do as long as nobody asks it to.
const UNUSED: [&str; 1] = ["_INBOX_operator.>"];

#[tokio::test]
async fn each_permission_that_is_missing_ends_serve_and_is_named() {
    let permissions = Production::permissions("gateway");
    assert!(permissions.len() > 10, "{permissions:?}");
    let needed = permissions
        .into_iter()
        .filter(|permission| !UNUSED.contains(permission));
    // A few at a time: most of the time goes by with waiting for answers that do not come.
    stream::iter(needed)
        .for_each_concurrent(4, async |permission| {
            let production = Production::start_without("gateway", permission).await;
            let migrator = production.user("migrator").await;
            herald::migrate::apply(&migrator.client, &production.config("migrator"))
                .await
                .expect("the migrator may migrate");
            // Of a wildcard for publishing, one subject is tried.
            let named = match permission {
                "session.*.*"
                | "dead.*.*"
                | "herald.sessions.*.*"
                | "_INBOX_gateway.>"
                | "$SRV.>" => permission.trim_end_matches(['*', '>', '.']),
                whole => whole,
            };
            fails(&production.gateway("gateway"), &[named]).await;
        })
        .await;
}

#[tokio::test]
async fn another_users_credentials_end_serve() {
    let production = Production::migrated().await;
    for user in ["runtime", "acme", "operator", "migrator"] {
        let serve = run(&production.gateway(user), &["serve"]).await;
        assert_eq!(serve.code, Some(1), "{user}: {serve:?}");
        assert!(serve.stderr.contains("herald: "), "{user}: {serve:?}");
        assert!(!serve.stderr.contains("password-of"), "{user}: {serve:?}");
    }
    // Another's inbox prefix, which is the usual slip.
    let slip = production
        .gateway("gateway")
        .set("nats.inbox_prefix", "_INBOX");
    fails(&slip, &["nats.inbox_prefix"]).await;
    production.gateway("gateway").ready().await;
}
