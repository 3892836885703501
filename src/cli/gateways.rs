//! `herald gateways`: which gateways there are, and how they are.

use super::operator::{OperatorArgs, OperatorClient};
use super::{CliError, output};
use crate::config::Config;
use crate::ops::operator::wire::{
    Answer, GatewayReport, GatewaysQuery, KeysReport, LogLevelCommand, LogLevelReport,
    OperatorEndpoint,
};

const HEADINGS: [&str; 12] = [
    "GATEWAY",
    "PROCESS",
    "VERSION",
    "READY",
    "SOCKETS",
    "ROOMS",
    "WAITING",
    "INTAKE",
    "MEMORY",
    "MIGRATION",
    "REVOKED",
    "KEYS",
];

/// Arguments of `herald gateways`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "A gateway is called by `service.instance.id` in its OTEL_RESOURCE_ATTRIBUTES, else by its process. \
    WAITING is what waits for all its sockets, INTAKE how busy the thread is that reads from NATS. REVOKED is the last \
    sequence of that stream that is in force, KEYS how many keys come from addresses, each with the age of what is known."
)]
pub(super) struct Args {
    /// Only this one, by its name or process.
    #[arg(value_name = "GATEWAY")]
    gateway: Option<String>,
    /// Set what the named gateway logs, as log.level says it; `reset`: what is configured there.
    #[arg(long, value_name = "FILTER", requires = "gateway")]
    log_level: Option<String>,
    #[command(flatten)]
    operator: OperatorArgs,
}

pub(super) async fn run(args: Args, config: Config) -> Result<(), CliError> {
    let mut client = OperatorClient::open(&config, &args.operator).await?;
    let json = args.operator.json;
    if let (Some(gateway), Some(level)) = (&args.gateway, args.log_level) {
        let command = LogLevelCommand {
            gateway: gateway.clone(),
            level: Some(level).filter(|level| level != "reset"),
        };
        let answer: Answer<LogLevelReport> = client
            .request_one(OperatorEndpoint::LogLevel, &command, gateway)
            .await?;
        if json {
            return output::json_lines(&[answer]);
        }
        let gateway = output::harmless(&answer.gateway);
        let level = answer.body.log_level;
        return output::line(format!("{gateway} logs {level}")).map(drop);
    }
    let query = GatewaysQuery {
        gateway: args.gateway.clone(),
    };
    if let Some(gateway) = &args.gateway {
        let answer = client
            .request_one::<GatewayReport>(OperatorEndpoint::Gateways, &query, gateway)
            .await?;
        return print_table(&[answer], json);
    }
    let answered = client
        .request_all(OperatorEndpoint::Gateways, &query)
        .await?;
    print_table(&answered.answers, json)?;
    answered.silent.report(json)
}

fn print_table(answers: &[Answer<GatewayReport>], json: bool) -> Result<(), CliError> {
    if json {
        return output::json_lines(answers);
    }
    output::lines(output::table(HEADINGS, answers.iter().map(cells)))?;
    let why = answers.iter().filter_map(|answer| {
        let why = answer.body.why.as_ref()?;
        Some(output::harmless(&format!("{}: {why}", answer.gateway)))
    });
    output::messages(why);
    Ok(())
}

/// In the order of [`HEADINGS`].
fn cells(answer: &Answer<GatewayReport>) -> [String; 12] {
    let report = &answer.body;
    let mib = |bytes: u64| format!("{} MiB", bytes.div_ceil(1024 * 1024));
    let ready = match (report.draining, report.ready) {
        (true, _) => "draining",
        (false, true) => "yes",
        (false, false) => "no",
    };
    let migrations = &report.migrations;
    let migration = match migrations.pending.as_slice() {
        [] => migrations.last.clone().unwrap_or_default(),
        pending => format!("{} pending", pending.len()),
    };
    let revoked = report.revocations.as_ref();
    let revoked = revoked.map_or_else(String::new, |known| {
        format!("{} ({:.0} s)", known.sequence, known.age_s)
    });
    [
        answer.gateway.clone(),
        answer.process.clone(),
        report.version.clone(),
        ready.to_owned(),
        format!("{}/{}", report.sockets, report.sockets_max),
        report.rooms.to_string(),
        mib(report.waiting_bytes),
        format!("{} %", report.intake_percent),
        report.memory_bytes.map_or_else(String::new, mib),
        migration,
        revoked,
        keys(&report.keys),
    ]
}

/// How many keys there are, and how old those are that were fetched the longest time ago.
fn keys(issuers: &[KeysReport]) -> String {
    let keys: usize = issuers.iter().map(|issuer| issuer.keys).sum();
    let ages = issuers.iter().map(|issuer| issuer.age_s);
    let oldest: Option<Vec<f64>> = ages.collect();
    match oldest.map(|ages| ages.into_iter().reduce(f64::max)) {
        Some(None) => String::new(),
        Some(Some(age)) => format!("{keys} ({age:.0} s)"),
        None => format!("{keys}, some not fetched"),
    }
}
