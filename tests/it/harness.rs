//! The harness itself: a server that is stopped, killed, paused and started again keeps its port and
//! its store, and is gone when its value is.

use std::time::Duration;

use async_nats::jetstream;
use herald::config::{NatsConfig, Secret};
use herald::nats::{ConnectError, connect};

use crate::support::nats::Nats;
use crate::support::{PATIENCE, eventually};

async fn stored(nats: &Nats) -> u64 {
    let client = async_nats::connect(nats.url()).await.unwrap();
    let context = jetstream::new(client);
    let mut stream = context.get_stream("KEPT").await.unwrap();
    stream.info().await.unwrap().state.messages
}

#[tokio::test]
async fn a_server_keeps_its_store_over_restart_and_kill() {
    let mut nats = Nats::jetstream().await;
    let context = jetstream::new(async_nats::connect(nats.url()).await.unwrap());
    context
        .create_stream(jetstream::stream::Config {
            name: "KEPT".to_owned(),
            subjects: vec!["kept".to_owned()],
            ..Default::default()
        })
        .await
        .unwrap();
    context
        .publish("kept", "1".into())
        .await
        .unwrap()
        .await
        .unwrap();
    nats.restart().await;
    assert_eq!(stored(&nats).await, 1);
    nats.kill().await;
    assert!(async_nats::connect(nats.url()).await.is_err());
    nats.start_again().await;
    assert_eq!(stored(&nats).await, 1);
}

#[tokio::test]
async fn a_paused_server_answers_only_after_it_goes_on() {
    let mut nats = Nats::jetstream().await;
    let client = async_nats::connect(nats.url()).await.unwrap();
    nats.pause().await;
    let question = client.request("$JS.API.INFO", "".into());
    tokio::pin!(question);
    assert!(
        tokio::time::timeout(Duration::from_millis(300), &mut question)
            .await
            .is_err()
    );
    nats.resume().await;
    question.await.unwrap();
}

#[tokio::test]
async fn credentials_and_variables_of_the_configuration_are_in_force() {
    let nats = Nats::builder("authorization { user: u, password: $SOME_PASSWORD }\n")
        .env("SOME_PASSWORD", "first")
        .start()
        .await;
    assert!(nats.connect_as("u", "first", "_INBOX").await.is_ok());
    assert!(nats.connect_as("u", "second", "_INBOX").await.is_err());
}

#[tokio::test]
async fn herald_takes_user_and_password_from_the_url() {
    let nats = Nats::start("authorization { user: u, password: \"p@ss\" }\n").await;
    let config = |password: &str| NatsConfig {
        url: Secret::from(nats.url_for("u", password)),
        ..NatsConfig::default()
    };
    assert!(connect(&config("p%40ss"), "test", drop).await.is_ok());
    let refused = connect(&config("pass"), "test", drop).await;
    assert!(matches!(refused, Err(ConnectError::Refused { .. })));
}

#[tokio::test]
async fn a_dropped_server_is_gone() {
    let nats = Nats::jetstream().await;
    let url = nats.url();
    let task = tokio::spawn(async move {
        let _dropped_by_the_panic = nats;
        std::panic::resume_unwind(Box::new("as a failing test does"));
    });
    assert!(task.await.is_err());
    assert!(eventually(PATIENCE, async || async_nats::connect(&url).await.is_err()).await);
}

/// A file that `main.rs` does not name would be compiled by nobody and fail never.
#[test]
fn no_test_file_is_forgotten() {
    let main = include_str!("main.rs");
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let module = name.trim_end_matches(".rs");
        if module != "main" {
            assert!(main.contains(&format!("mod {module};")), "{name}");
        }
    }
}
