//! `herald bench`: a gateway of the user's own under load, seen from outside. The load client is the benchmark's, which
//! shares no code with the gateway; here are only the ways to the gateway, to its tokens and to NATS.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_nats::HeaderMap;
use herald_bench::marker::Markers;
use herald_bench::own::Load;
use herald_bench::publish::{Pace, Publisher};
use herald_bench::slot::{Manner, SocketPlan, request_at};
use herald_bench::stored::Stream;
use herald_bench::wire::Address;
use tokio::runtime::Handle;
use tokio_rustls::rustls::ClientConfig;

use super::nats::NatsConnection;
use super::target::Target;
use super::{CliError, output, token};
use crate::config::{AuthConfig, Config, IssuerConfig, Secret, names, parse_duration};
use crate::event::WorkspaceSlug;
use crate::nats::publish;

/// How long the stream may take for the event that shows where the others begin.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Tokens outlive a run by this.
const SPARE: Duration = Duration::from_secs(600);
/// The gateway's limit of a payload.
const EVENT_BYTES: std::ops::RangeInclusive<u32> = 1..=65_536;

/// Arguments of `herald bench`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "It publishes real events, and everybody who has a socket in the workspace sees them. Choose a workspace that \
    nobody uses. The events stay in the stream until nats.max_age.\n\n\
    Each socket belongs to a user of its own, herald-bench-0, herald-bench-1, …, since a user has one socket in a \
    workspace.\n\n\
    Examples:\n  \
    herald bench wss://notify.example.com/ --hmac-secret-file secret --sockets 1000 --rate 20\n  \
    herald bench ws://127.0.0.1:8080/ --token-command 'make-token \"$HERALD_BENCH_USER\" \"$HERALD_BENCH_WORKSPACE\"' --json"
)]
pub(super) struct Args {
    /// Address of the gateway, ws://host:8080/ or wss://host/. There is no default.
    #[arg(value_name = "URL")]
    url: Option<Secret>,
    /// A workspace to load. Repeat it for several.
    #[arg(long = "workspace", value_name = "SLUG", default_value = "herald-bench", value_parser = WorkspaceSlug::parse)]
    workspaces: Vec<WorkspaceSlug>,
    /// Sockets in each workspace.
    #[arg(long, value_name = "NUMBER", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    sockets: u32,
    /// Events a second, all workspaces together.
    #[arg(long, value_name = "NUMBER", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: u32,
    /// How long events are published.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_time)]
    duration: Duration,
    /// Publish so many events to each workspace, all at once, instead of --rate and --duration.
    #[arg(long, value_name = "NUMBER", conflicts_with_all = ["rate", "duration"], value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    burst: Option<u32>,
    /// Size of an event's payload.
    #[arg(long, value_name = "BYTES", default_value_t = 530, value_parser = clap::value_parser!(u32).range(i64::from(*EVENT_BYTES.start())..=i64::from(*EVENT_BYTES.end())))]
    event_bytes: u32,
    /// A shell command that prints a token. It runs once for each socket, with HERALD_BENCH_USER and
    /// HERALD_BENCH_WORKSPACE in its environment.
    #[arg(long, value_name = "COMMAND", conflicts_with = "hmac_secret_file")]
    token_command: Option<String>,
    /// File with the shared secret to sign tokens with, instead of the settings'.
    #[arg(long, value_name = "FILE")]
    hmac_secret_file: Option<PathBuf>,
    /// PEM file with CA certificates to trust, beside the system's.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// URL of the NATS server to publish to, instead of the settings'. May contain `user:password@`.
    #[arg(long, value_name = "URL")]
    nats: Option<Secret>,
    /// Print the results as JSON.
    #[arg(long)]
    json: bool,
}

impl Args {
    /// The tables of the settings that it reads.
    pub(super) fn tables(&self) -> &'static [&'static str] {
        if self.token_command.is_some() || self.hmac_secret_file.is_some() {
            &["nats"]
        } else {
            &["nats", "auth"]
        }
    }
}

fn parse_time(text: &str) -> Result<Duration, String> {
    let time = parse_duration(text)?;
    if time.is_zero() || time > Duration::from_secs(24 * 3600) {
        return Err("write a time above zero, at most a day, for example 30s".to_owned());
    }
    Ok(time)
}

pub(super) async fn run(args: Args, config: Config) -> Result<(), CliError> {
    let Some(url) = &args.url else {
        return Err(CliError::usage(
            "no address is given: name your gateway's, for example `herald bench wss://notify.example.com/`",
        ));
    };
    let stop = herald_bench::run::interrupts(&Handle::current());
    let config = with(&args, config);
    let plain = plain_target(url)?;
    let tls = plain.trusted(args.ca.clone()).await?;
    let plans = plans(&args, url, tls.as_ref(), &config).await?;
    let mut nats = NatsConnection::open(&config.nats, "herald bench").await?;
    let names = config.nats.names();
    let subject = |workspace| names.subject(&names::event(workspace, "custom.bench"));
    let subjects: Vec<String> = args.workspaces.iter().map(subject).collect();
    let first_subject = subjects.first().cloned().unwrap_or_default();
    let stream = stream(&mut nats, &config, first_subject).await?;
    eprintln!(
        "herald: {} sockets in {} workspace{}; Ctrl-C ends it and prints the results so far",
        plans.len(),
        args.workspaces.len(),
        if args.workspaces.len() == 1 { "" } else { "s" }
    );
    let run = uuid::Uuid::new_v4().simple().to_string();
    let load = Load {
        plans,
        rooms: u32::try_from(args.workspaces.len()).unwrap_or(u32::MAX),
        publisher: Publisher {
            by_http: None,
            client: nats.client.clone(),
            handle: Handle::current(),
            markers: Arc::new(Markers::new(&run)),
            subjects: Arc::new(subjects),
            event_bytes: args.event_bytes as usize,
            stop,
        },
        pace: match args.burst {
            Some(events) => Pace::AtOnce(events),
            None => Pace::PerSecond(f64::from(args.rate)),
        },
        time: args.duration,
        stream,
        run,
    };
    let measured = tokio::task::spawn_blocking(move || load.measure()).await;
    let measured = measured.map_err(|_| CliError::failure("the load client failed"))?;
    let outcome = measured.map_err(CliError::failure)?;
    let warnings = outcome.warnings().iter();
    output::messages(warnings.map(|warning| format!("warning: {warning}")));
    output::lines([match args.json {
        true => outcome.json().to_string(),
        false => outcome.text().trim_end().to_owned(),
    }])
}

/// The settings, with what the arguments say instead.
fn with(args: &Args, mut config: Config) -> Config {
    if let Some(file) = &args.hmac_secret_file {
        config.auth = AuthConfig::from(IssuerConfig {
            hmac_secret_file: Some(file.clone()),
            ..IssuerConfig::default()
        });
    }
    if let Some(nats) = &args.nats {
        config.nats.url = nats.clone();
    }
    config
}

/// The address, which is the same for all sockets.
fn plain_target(url: &Secret) -> Result<Target, CliError> {
    let plain = Target::parse(url.expose(), None)?;
    if plain.token().is_some() {
        return Err(CliError::usage(
            "the address contains a token, which belongs to one user: give --token-command or \
            --hmac-secret-file instead",
        ));
    }
    if plain.url_with("").contains("workspaceSlug=") {
        return Err(CliError::usage(
            "the address names a workspace: give it with --workspace instead",
        ));
    }
    Ok(plain)
}

/// What each socket is to do, all of different users.
async fn plans(
    args: &Args,
    url: &Secret,
    tls: Option<&Arc<ClientConfig>>,
    config: &Config,
) -> Result<Vec<SocketPlan>, CliError> {
    let mut plans = Vec::new();
    for (room, workspace) in (0..).zip(&args.workspaces) {
        let target = Target::parse(url.expose(), Some(workspace.as_str()))?;
        let (plain, trusted) = (target.url_with(""), tls.cloned());
        let address = super::blocking(move || Address::of(&plain, trusted.as_ref()));
        let address = address.await?.map_err(CliError::Failure)?;
        for index in 0..args.sockets {
            let token = one_token(args, index, workspace, config).await?;
            let url = target.url_with(token.expose());
            plans.push(SocketPlan {
                address: address.clone(),
                request: request_at(&url).map_err(CliError::Usage)?,
                hello: Vec::new(),
                pong: None,
                room,
                measured: true,
                manner: Manner::STEADY,
            });
        }
        if args.token_command.is_some() && std::io::stderr().is_terminal() {
            eprintln!("herald: {} tokens", plans.len());
        }
    }
    Ok(plans)
}

async fn one_token(
    args: &Args,
    index: u32,
    workspace: &WorkspaceSlug,
    config: &Config,
) -> Result<Secret, CliError> {
    let user = format!("herald-bench-{index}");
    let Some(command) = &args.token_command else {
        let token = token::for_user(&user, workspace, args.duration + SPARE, config);
        return token.map(Secret::from).map_err(|error| {
            CliError::Usage(format!(
                "no tokens: {error}; or give --hmac-secret-file or --token-command"
            ))
        });
    };
    let environment = [
        ("HERALD_BENCH_USER", user.as_str()),
        ("HERALD_BENCH_WORKSPACE", workspace.as_str()),
    ];
    let token = token::from_command(command, &environment).await;
    token.map_err(CliError::Failure)
}

/// Where in which stream the events will be: a first event shows it, and that this user may publish them.
async fn stream(
    nats: &mut NatsConnection,
    config: &Config,
    subject: String,
) -> Result<Stream, CliError> {
    let client = nats.client.clone();
    let payload = r#"{"title":"herald bench begins"}"#.into();
    let publishing = publish(&client, subject.clone(), HeaderMap::new(), payload, TIMEOUT);
    let stored = nats.allowed(publishing).await?;
    let ack = stored.map_err(|error| CliError::Failure(nats.publish_failure(&subject, &error)))?;
    Ok(Stream {
        direct_get: config.nats.names().api("DIRECT.GET", &ack.stream),
        first: ack.sequence + 1,
    })
}
