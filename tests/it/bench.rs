//! Verifies that `herald bench` measures a gateway that is there, exactly; that it starts at no address of its own
//! choice; and that an interrupt prints the results so far.

use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::support::command::{Output, finish, herald};
use crate::support::gateway::{Builder, Gateway, file, signal};
use crate::support::nats::Nats;
use crate::support::tls::Certificates;
use crate::support::token::{SECRET, token};

async fn bench(builder: &Builder, arguments: &[&str]) -> Output {
    let arguments = [&["bench"], arguments].concat();
    finish(tokio::process::Command::from(builder.command(&arguments))).await
}

fn metric(report: &Value, name: &str) -> f64 {
    report["metrics"][name]
        .as_f64()
        .unwrap_or_else(|| panic!("no {name} in {report}"))
}

#[tokio::test]
async fn every_delivery_is_counted_once() {
    let nats = Nats::jetstream().await;
    let builder = Gateway::builder(&nats);
    let gateway = builder.clone().ready().await;
    let url = format!("ws://{}/", gateway.address);
    let folder = tempfile::tempdir().unwrap();
    // The settings' secret, one in a file, and a command with the binary's own tokens.
    let secret = file(folder.path(), "secret", SECRET);
    let command = format!(
        "HERALD_AUTH__HMAC_SECRET='{SECRET}' {} token --user $HERALD_BENCH_USER --workspace $HERALD_BENCH_WORKSPACE",
        env!("CARGO_BIN_EXE_herald")
    );
    let two = ["--workspace", "one", "--workspace", "two", "--sockets", "3"];
    for (more, deliveries) in [
        (vec!["--rate", "20", "--duration", "1s"], 60.0),
        (vec!["--burst", "50", "--hmac-secret-file", &secret], 300.0),
        (vec!["--burst", "5", "--token-command", &command], 30.0),
    ] {
        let arguments = [&[url.as_str(), "--json"][..], &two, &more].concat();
        let report = bench(&builder, &arguments).await.ok().json();
        assert_eq!(metric(&report, "delivered"), deliveries, "{report}");
        for fault in [
            "missing",
            "duplicate",
            "out_of_order",
            "foreign",
            "not_stored",
            "closed",
        ] {
            assert_eq!(metric(&report, fault), 0.0, "{fault} in {report}");
        }
        let latency = |share| metric(&report, &format!("latency_{share}_ms"));
        let shares = [
            0.0,
            latency("p50"),
            latency("p99"),
            latency("p999"),
            latency("max"),
        ];
        assert!(shares.is_sorted() && shares[4] < 10_000.0, "{report}");
        assert!(metric(&report, "deliveries_per_s") > 0.0);
        assert!(metric(&report, "connect_max_ms") > 0.0);
        assert_eq!(
            (&report["sockets"], &report["interrupted"]),
            (&6.into(), &false.into())
        );
        assert_eq!(report["warnings"], Value::Array(Vec::new()));
    }
    let text = bench(&builder, &[&url, "--burst", "2"]).await.ok();
    assert!(
        text.stdout.contains("delivered                20 of 20\n"),
        "{text:?}"
    );
    assert!(
        text.stderr.contains("10 of 10 sockets are open"),
        "{text:?}"
    );
}

#[tokio::test]
async fn over_tls_with_an_authority_of_ones_own() {
    let nats = Nats::jetstream().await;
    let certificates = Certificates::new();
    let builder = Gateway::builder(&nats).tls(&certificates);
    let gateway = builder.clone().ready().await;
    let url = format!("wss://localhost:{}/", gateway.port());
    let authority = certificates.authority();
    let trusting = [
        &url,
        "--ca",
        authority.to_str().unwrap(),
        "--burst",
        "3",
        "--json",
    ];
    let report = bench(&builder, &trusting).await.ok().json();
    assert_eq!(metric(&report, "delivered"), 30.0, "{report}");
    let not_trusting = bench(&builder, &[&url, "--burst", "3"]).await;
    assert_eq!(not_trusting.code, Some(1));
    assert!(
        not_trusting.stderr.contains("certificate"),
        "{not_trusting:?}"
    );
}

#[tokio::test]
async fn what_cannot_be_measured_is_told_with_the_way_out() {
    let nats = Nats::jetstream().await;
    let builder = Gateway::builder(&nats);
    let gateway = builder.clone().ready().await;
    let url = format!("ws://{}/", gateway.address);
    let with_token = format!("{url}?token=a.b.c");
    let same_user = format!("echo {}", token("ann", "herald-bench"));
    let with_workspace = format!("{url}?workspaceSlug=acme");
    for (arguments, code, words) in [
        (&[][..], 2, "no address"),
        (&["http://127.0.0.1/"], 2, "ws://127.0.0.1:8080/"),
        (&[&with_token], 2, "--token-command"),
        (&[&with_workspace], 2, "--workspace"),
        (&[&url, "--ca", "x"], 2, "wss://"),
        (&[&url, "--sockets", "0"], 2, "--sockets"),
        (&[&url, "--duration", "0s"], 2, "30s"),
        (
            &[&url, "--burst", "1", "--rate", "1"],
            2,
            "cannot be used with",
        ),
        (&[&url, "--hmac-secret-file", "/no/such"], 2, "/no/such"),
        (&[&url, "--token-command", "exit 3"], 1, "exit status: 3"),
        (&[&url, "--token-command", "echo a.b.c"], 1, "4001"),
        (
            &[&url, "--token-command", &same_user],
            1,
            "HERALD_BENCH_USER",
        ),
        (&[&url, "--nats", "nats://127.0.0.1:1"], 1, "127.0.0.1:1"),
        (&["ws://127.0.0.1:1/"], 1, "Nothing listens"),
        (&[&format!("{url}other")], 1, "server.path"),
    ] {
        let output = bench(&builder, arguments).await;
        assert_eq!(output.code, Some(code), "{arguments:?}: {output:?}");
        assert!(output.stderr.contains(words), "{arguments:?}: {output:?}");
        assert!(
            output.stdout.is_empty() && !output.stderr.contains("a.b.c"),
            "{output:?}"
        );
    }
    // Without the settings' secret it says what to give.
    let output = herald(&nats, &[], &["bench", &url]).await;
    assert_eq!(output.code, Some(2), "{output:?}");
    assert!(output.stderr.contains("--hmac-secret-file"), "{output:?}");
}

#[tokio::test]
async fn an_interrupt_leaves_the_figures_until_then() {
    let nats = Nats::jetstream().await;
    let builder = Gateway::builder(&nats);
    let gateway = builder.clone().ready().await;
    let url = format!("ws://{}/", gateway.address);
    let arguments = ["bench", &url, "--duration", "1h", "--rate", "100", "--json"];
    let mut child = tokio::process::Command::from(builder.command(&arguments))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut progress = BufReader::new(child.stderr.take().unwrap()).lines();
    loop {
        let line = progress.next_line().await.unwrap();
        if line.expect("it goes on").starts_with("bench: bench: ") {
            break;
        }
    }
    signal(child.id().unwrap(), "-INT");
    let rest = tokio::spawn(async move { while let Ok(Some(_)) = progress.next_line().await {} });
    let ended = tokio::time::timeout(Duration::from_secs(20), child.wait_with_output());
    let output = ended.await.unwrap().unwrap();
    rest.await.unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["interrupted"], true);
    let (expected, delivered) = (metric(&report, "expected"), metric(&report, "delivered"));
    assert!(
        expected == delivered && delivered > 0.0 && delivered < 360_000.0,
        "{report}"
    );
    assert_eq!(output.status.code(), Some(0));
}
