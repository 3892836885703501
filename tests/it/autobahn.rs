//! Autobahn's cases, against the whole server. Herald never echoes, so a judge of ours says what each case
//! means for it: `tests/autobahn/judge.py`.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::clients::python;
use crate::support::clients::script::Script;
use crate::support::gateway::Gateway;
use crate::support::heavy_turn;
use crate::support::nats::Nats;
use crate::support::token::token;

const JUDGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/autobahn/judge.py");
/// All of Autobahn's 517 cases but performance and compression.
const JUDGED: usize = 247;
/// The rest: none may go missing unseen.
const LEFT_OUT: usize = 270;
/// It runs beside other tests.
const VERDICT: Duration = Duration::from_secs(300);

async fn verdict(arguments: &[&str]) -> Value {
    let mut command: Command = python();
    command.arg("-B").arg(JUDGE).args(arguments);
    let mut judge = Script::start(command);
    let verdict = judge.within(VERDICT, "a verdict", |_| true).await;
    assert!(judge.ended().await, "{}", judge.told());
    verdict
}

#[tokio::test]
async fn every_case_of_autobahn_ends_as_it_should_for_a_server_that_never_echoes() {
    let _turn = heavy_turn().await;
    let nats = Nats::jetstream().await;
    let gateway = Gateway::on(&nats).await;
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    // A user has one connection, and each case has two runs.
    let mut targets = String::new();
    for user in 0..2 * JUDGED {
        let token = token(&format!("user-{user}"), "acme");
        writeln!(targets, "/?token={token}&workspaceSlug=acme").unwrap();
    }
    let file = folder.path().join("targets");
    std::fs::write(&file, targets).unwrap();
    let file: &Path = &file;
    let verdict = verdict(&[&gateway.address, file.to_str().unwrap()]).await;
    assert_eq!(verdict["failed"], json!({}), "{verdict:#}");
    assert_eq!(verdict["unused"], json!([]));
    assert_eq!(verdict["judged"], JUDGED);
    assert_eq!(verdict["left_out"], LEFT_OUT);
    println!(
        "{} cases end at the very byte, the others that end with its frame",
        verdict["at_once"]
    );
    gateway.metric_becomes("herald_connections", "", 0.0).await;
}

#[tokio::test]
async fn the_judge_sees_what_is_wrong_with_a_server() {
    let _turn = heavy_turn().await;
    let verdict = verdict(&["--counter-proof"]).await;
    assert_eq!(verdict["right"], json!({}), "a server that is right");
    let wrong = verdict["wrong"].as_object().expect("faults and failures");
    assert!(wrong.len() > 20, "{verdict:#}");
    for (fault, failures) in wrong {
        assert!(failures.as_u64() > Some(0), "not seen: {fault}");
    }
}
