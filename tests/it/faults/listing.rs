//! What it costs to list 100,000 sessions of ten gateways: how long it takes, and how much later the sockets of a
//! gateway that is asked get their notifications.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::operator_commands::{SIMULATED, ten_gateways};
use crate::support::client::Client;
use crate::support::command::finish;
use crate::support::gateway::HERALD;
use crate::support::nats::Nats;

const SOCKETS: usize = 1000;
const PER_SECOND: u64 = 200;
const ROUNDS: usize = 5;
/// How long the sockets are watched, without a list and with some.
const WINDOW: Duration = Duration::from_secs(6);

/// Milliseconds from the publish to the receipt, of all sockets.
type Delays = Arc<Mutex<Vec<f64>>>;

fn now_ms() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap().as_secs_f64() * 1000.0
}

fn p99(delays: &Delays) -> f64 {
    let mut delays = std::mem::take(&mut *delays.lock().unwrap());
    delays.sort_by(f64::total_cmp);
    delays[delays.len() * 99 / 100]
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn watch(socket: Client, delays: &Delays) {
    let delays = Arc::clone(delays);
    let mut stream = socket.stream;
    tokio::spawn(async move {
        while let Some(Ok(message)) = stream.next().await {
            if let Message::Text(text) = message {
                let came = now_ms();
                let notification: Value = serde_json::from_str(&text).unwrap();
                let sent: f64 = notification["title"].as_str().unwrap().parse().unwrap();
                delays.lock().unwrap().push(came - sent);
            }
        }
    });
}

async fn publish(nats: &Nats) {
    let client = nats.connect().await;
    let mut ticks = tokio::time::interval(Duration::from_micros(1_000_000 / PER_SECOND));
    for number in 0.. {
        ticks.tick().await;
        let subject = format!("ws.workspace-{}.custom.x", number % (SOCKETS / 5));
        let body = json!({ "title": now_ms().to_string() });
        client
            .publish(subject, body.to_string().into())
            .await
            .unwrap();
    }
}

/// How long one list takes, of all sessions.
async fn list(nats: &Nats) -> f64 {
    let binary = std::env::var_os("HERALD_TEST_GATEWAY").unwrap_or_else(|| HERALD.into());
    let mut command = tokio::process::Command::new(binary);
    command
        .args(["sessions", "--json"])
        .env("HERALD_NATS__URL", nats.url());
    let start = Instant::now();
    let output = finish(command).await.ok();
    let took = start.elapsed().as_secs_f64();
    assert_eq!(output.stdout.lines().count(), 9 * SIMULATED + SOCKETS);
    took
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "two minutes, on a quiet machine: make faults-more"]
async fn a_list_of_100_000_sessions_takes_two_seconds_and_costs_sockets_little() {
    let (nats, gateway, sockets) = ten_gateways(SOCKETS).await;
    let delays = Delays::default();
    for socket in sockets {
        watch(socket, &delays);
    }
    let (mut took, mut ratios) = (Vec::new(), Vec::new());
    let measured = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        for _ in 0..ROUNDS {
            delays.lock().unwrap().clear();
            tokio::time::sleep(WINDOW).await;
            let without = p99(&delays);
            let start = Instant::now();
            let one = list(&nats).await;
            tokio::time::sleep(WINDOW.saturating_sub(start.elapsed())).await;
            let with = p99(&delays);
            println!("list {one:.2} s, p99 {without:.2} ms without and {with:.2} ms with it");
            took.push(one);
            ratios.push(with / without);
        }
    };
    tokio::select! {
        () = measured => {}
        () = publish(&nats) => {}
    }
    let (took, ratio) = (median(took), median(ratios));
    println!("median: list {took:.2} s, p99 times {ratio:.2}");
    assert!(took < 2.0, "{took} s");
    assert!(ratio < 2.0, "p99 times {ratio}");
    drop(gateway);
}
