//! A script that runs while its test watches what it tells: one JSON object a line.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value, json};

use super::super::{PATIENCE, eventually};

/// A running script that belongs to one test. It ends with the value; should the tests be killed, it
/// sees the end of its standard input.
#[derive(Debug)]
pub(crate) struct Script {
    child: Child,
    output: Arc<Mutex<Output>>,
    readers: Vec<JoinHandle<()>>,
    /// How many lines the test has looked at.
    seen: usize,
}

/// What came out so far.
#[derive(Debug, Default)]
struct Output {
    told: Vec<Value>,
    rest: String,
}

impl Script {
    /// Starts `command`.
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let output = Arc::new(Mutex::new(Output::default()));
        let readers = vec![
            keep(child.stdout.take().expect("piped"), Arc::clone(&output)),
            keep(child.stderr.take().expect("piped"), Arc::clone(&output)),
        ];
        Self {
            child,
            output,
            readers,
            seen: 0,
        }
    }

    /// The first line from here on that `wanted` takes; those before it are passed over.
    pub(crate) async fn until(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        self.within(PATIENCE, what, wanted).await
    }

    /// As [`Script::until`], for what takes its time.
    pub(crate) async fn within(
        &mut self,
        patience: Duration,
        what: &str,
        wanted: impl Fn(&Value) -> bool,
    ) -> Value {
        let mut found = None;
        // Nothing more comes when both streams have ended.
        let came = eventually(patience, async || {
            let over = self.readers.iter().all(JoinHandle::is_finished);
            let output = self.output.lock().expect("no reader panics");
            found = (self.seen..output.told.len()).find(|at| wanted(&output.told[*at]));
            found.is_some() || over
        });
        let _ = came.await;
        let Some(at) = found else {
            panic!("{what} does not come:\n{}", self.told());
        };
        self.seen = at + 1;
        self.output.lock().expect("no reader panics").told[at].clone()
    }

    /// The arguments of the next console message that begins with the text `first`.
    pub(crate) async fn console(&mut self, first: &str) -> Vec<Value> {
        let line = self
            .until(first, |line| {
                line["args"][0] == first && line["console"].is_string()
            })
            .await;
        line["args"].as_array().cloned().unwrap_or_default()
    }

    /// The code and reason with which the next WebSocket ends, in good order.
    pub(crate) async fn closed(&mut self) -> (u64, String) {
        let line = self
            .until("a close", |line| line["closed"].is_object())
            .await;
        let closed = &line["closed"];
        assert_eq!(closed["wasClean"], true, "{closed}");
        let reason = closed["reason"].as_str().expect("a text").to_owned();
        (closed["code"].as_u64().expect("a number"), reason)
    }

    /// Looks at every line again from here on.
    pub(crate) fn rewind(&mut self) {
        self.seen = 0;
    }

    /// How many console messages begin with the text `first`, whether looked at or not.
    pub(crate) fn count(&self, first: &str) -> usize {
        self.count_where(|line| line["args"][0] == first)
    }

    /// How many lines there are that `wanted` takes, whether looked at or not.
    pub(crate) fn count_where(&self, wanted: impl Fn(&Value) -> bool) -> usize {
        let output = self.output.lock().expect("no reader panics");
        output.told.iter().filter(|line| wanted(line)).count()
    }

    /// Writes a line to its standard input.
    pub(crate) fn command(&mut self, command: &Value) {
        let stdin = self.child.stdin.as_mut().expect("piped");
        writeln!(stdin, "{command}").expect("it reads");
    }

    /// The process' id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        let status = self.child.try_wait().expect("it is our child");
        status.is_some()
    }

    /// Waits until it ends by itself; whether it ended well.
    pub(crate) async fn ended(&mut self) -> bool {
        let mut status = None;
        let ended = eventually(PATIENCE, async || {
            status = self.child.try_wait().expect("it is our child");
            status.is_some()
        });
        assert!(ended.await, "it does not end:\n{}", self.told());
        status.is_some_and(|status: ExitStatus| status.success())
    }

    /// Everything it told and printed, for a failed test to show.
    pub(crate) fn told(&self) -> String {
        let output = self.output.lock().expect("no reader panics");
        let told: Vec<String> = output.told.iter().map(Value::to_string).collect();
        format!("{}\n{}", told.join("\n"), output.rest)
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
        if std::thread::panicking() {
            eprintln!("a client's output:\n{}", self.told());
        }
    }
}

/// Keeps what comes from `stream` until its end. Lines that are no JSON objects are kept as text.
fn keep(stream: impl Read + Send + 'static, output: Arc<Mutex<Output>>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            let mut output = output.lock().expect("no reader panics");
            match serde_json::from_str(&line).unwrap_or(json!(null)) {
                value @ Value::Object(_) => output.told.push(value),
                _ => {
                    output.rest.push_str(&line);
                    output.rest.push('\n');
                }
            }
        }
    })
}
