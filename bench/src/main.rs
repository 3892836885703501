//! `herald-bench run`: measures targets beside each other. `make bench` calls it.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the command line is the one place that prints"
)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use herald_bench::run::{Plan, interrupts, run};
use herald_bench::scenario::{self, Scenario};
use herald_bench::target::Name;

/// Measures gateways beside each other, from outside.
#[derive(Debug, Parser)]
#[command(name = "herald-bench", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run scenarios against targets, and say what came of it.
    Run(Box<Args>),
    /// List the scenarios.
    List,
}

#[derive(Debug, clap::Args)]
struct Args {
    /// What to measure: folders of --peers, with commas. `herald=PATH` is another binary of the gateway.
    #[arg(long, value_delimiter = ',', default_value = "floor,herald,nchan,node,nats-ws,centrifugo", value_parser = target)]
    targets: Vec<Name>,
    /// Scenarios, with commas; `herald-bench list` names them. `table`: those of the table in docs/benchmarks.md, each with
    /// those of the targets that it is compared with. Default: all.
    #[arg(long, value_delimiter = ',', value_parser = known)]
    scenarios: Vec<String>,
    /// How often each is measured.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// File for the report as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// File for the tables and the machine as Markdown.
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// Folder for pictures.
    #[arg(long, value_name = "FOLDER")]
    svg: Option<PathBuf>,
    /// Folder of the targets.
    #[arg(long, value_name = "FOLDER", default_value = "bench/peers")]
    peers: PathBuf,
    /// The gateway's binary. Default: beside this one.
    #[arg(long, value_name = "FILE")]
    herald: Option<PathBuf>,
    /// The nats-server. Default: .tools/nats-server, or that of the PATH.
    #[arg(long, value_name = "FILE")]
    nats_server: Option<PathBuf>,
    /// Size of an event.
    #[arg(long, value_name = "BYTES", default_value_t = 530, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    event_bytes: u32,
    /// How long events are published, in seconds, instead of a scenario's own time.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: Option<u32>,
}

fn known(name: &str) -> Result<String, String> {
    if Scenario::named(name).is_empty() {
        let names: Vec<String> = scenario::all().into_iter().map(|row| row.name).collect();
        let names = names.join(", ");
        return Err(format!(
            "there is none of this name, but {} or {names}",
            scenario::TABLE
        ));
    }
    Ok(name.to_owned())
}

fn target(name: &str) -> Result<Name, String> {
    Name::parse(name).ok_or_else(|| "a target is the name of a folder, or herald=PATH".to_owned())
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::List => {
            for scenario in scenario::all() {
                println!("{:20} {}", scenario.name, scenario.about);
            }
            ExitCode::SUCCESS
        }
        Command::Run(args) => match measure(*args) {
            Ok(code) => code,
            Err(error) => {
                eprintln!("bench: {error}");
                ExitCode::FAILURE
            }
        },
    }
}

fn measure(args: Args) -> Result<ExitCode, herald_bench::Error> {
    let failed = |error: std::io::Error| herald_bench::Error::Failed(error.to_string());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(failed)?;
    let own = std::env::current_exe().map_err(failed)?;
    let herald = args.herald.unwrap_or_else(|| own.with_file_name("herald"));
    let nats_server = match args.nats_server {
        Some(file) if file.exists() => std::path::absolute(file).map_err(failed)?,
        Some(name) => name,
        None => herald_bench::nats::find("nats-server"),
    };
    let mut labels: Vec<&str> = args.targets.iter().map(|name| &*name.label).collect();
    labels.sort_unstable();
    if let Some([twice, ..]) = labels.windows(2).find(|pair| pair.first() == pair.last()) {
        let text = format!("two targets are called {twice}: give the binaries different names");
        return Err(herald_bench::Error::Failed(text));
    }
    let plan = Plan {
        targets: args.targets,
        scenarios: if args.scenarios.is_empty() {
            scenario::all()
        } else {
            let names = args.scenarios.iter();
            names.flat_map(|name| Scenario::named(name)).collect()
        },
        rounds: args.rounds,
        peers: args.peers,
        // The targets have folders of their own.
        herald: std::path::absolute(herald).map_err(failed)?,
        nats_server,
        event_bytes: args.event_bytes as usize,
        time: args
            .seconds
            .map(|seconds| Duration::from_secs(seconds.into())),
    };
    let stop = interrupts(runtime.handle());
    let mut report = run(&plan, runtime.handle(), &stop)?;
    report.summarise();
    let markdown = report.markdown();
    println!("{markdown}");
    if let Some(file) = &args.markdown {
        std::fs::write(file, markdown).map_err(failed)?;
    }
    if let Some(file) = &args.json {
        report.write(file)?;
    }
    if let Some(folder) = &args.svg {
        report.draw(folder)?;
    }
    Ok(if report.interrupted {
        ExitCode::from(130)
    } else {
        ExitCode::SUCCESS
    })
}
