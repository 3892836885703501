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
use herald_bench::scenario::{ALL, Scenario};
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
    Run(Args),
    /// List the scenarios.
    List,
}

#[derive(Debug, clap::Args)]
struct Args {
    /// What to measure: folders of --peers, with commas. `herald=PATH` is another binary of the gateway.
    #[arg(long, value_delimiter = ',', default_value = "floor,herald,nchan,node,nats-ws,centrifugo", value_parser = target)]
    targets: Vec<Name>,
    /// Scenarios, with commas; `herald-bench list` names them. Default: all.
    #[arg(long, value_delimiter = ',', value_parser = scenario)]
    scenarios: Vec<&'static Scenario>,
    /// How often each is measured.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// File for the report as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
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

fn scenario(name: &str) -> Result<&'static Scenario, String> {
    Scenario::named(name).ok_or_else(|| {
        let names: Vec<&str> = ALL.iter().map(|scenario| scenario.name).collect();
        format!("there is none of this name, but {}", names.join(", "))
    })
}

fn target(name: &str) -> Result<Name, String> {
    Name::parse(name).ok_or_else(|| "a target is the name of a folder, or herald=PATH".to_owned())
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::List => {
            for scenario in ALL {
                println!("{:20} {}", scenario.name, scenario.about);
            }
            ExitCode::SUCCESS
        }
        Command::Run(args) => match measure(args) {
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
    let nats_server = args
        .nats_server
        .unwrap_or_else(|| herald_bench::nats::find("nats-server"));
    let plan = Plan {
        targets: args.targets,
        scenarios: if args.scenarios.is_empty() {
            ALL.iter().collect()
        } else {
            args.scenarios
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
    println!("{}", report.table());
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
